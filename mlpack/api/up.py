"""``mlpack up`` and ``down``: a deployment manifest on this machine's Docker, by Docker Compose.

A module's image is taken from the project's store, the daemon, or a registry.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.engines import compose
from mlpack.engines.compose import COMPOSE_FILE, ComposeContainer, PortInUse
from mlpack.engines.docker import DockerEngine, connect
from mlpack.engines.engine import EngineImage, EngineRefused, load_image
from mlpack.engines.readiness import wait_until_ready
from mlpack.errors import MlpackError, UsageError
from mlpack.humanize import counted
from mlpack.iotedge.checks import require_valid, warnings
from mlpack.iotedge.layers import Deployed, merge
from mlpack.iotedge.local import Local, LocalModule, Login, read_local
from mlpack.iotedge.manifest import InvalidDeployment, Manifest, Problem
from mlpack.iotedge.secrets import Passwords
from mlpack.json_document import HIDDEN, OR_NULL, named
from mlpack.oci.descriptor import Digest, Platform, Reference
from mlpack.oci.image import NoSuchPlatform
from mlpack.oci.platforms import fits
from mlpack.oci.reference import InvalidReference
from mlpack.project.directory import STATE, ProjectDirectory
from mlpack.project.references import FoundImage, NoSuchImage, find_image
from mlpack.render.compose import DEPLOYMENT, HOST, ComposeProject, compose_text, host_ports
from mlpack.stores.files import PRIVATE, atomic, read_file
from mlpack.stores.records import MODEL, VERSION

if TYPE_CHECKING:
    from mlpack.api.requests import Down, Up
    from mlpack.api.session import Session

_BUILD = "add it to [base] platforms in mlpack.toml, then: mlpack base build, mlpack build"


class NoImage(MlpackError):
    """An image that is not on this machine and may not be pulled."""


def find_image_of(
    engine: DockerEngine,
    session: Session,
    module: LocalModule,
    login: Login | None,
    *,
    look: bool = False,
) -> EngineImage:
    """Return the module's image, making sure the daemon has it.

    Releases of the project are loaded (usually one layer), images already present are reused,
    others are pulled. With ``look`` nothing is loaded or pulled.
    """
    try:
        released = _released(session.project_if_any, module.image, engine.platform)
    except NoSuchPlatform as error:
        raise NoImage(f"module {module.name}: {error}", hint=_BUILD) from error
    if released is not None:
        name, found = released
        for there in (engine.image(name), engine.image(module.image)):
            if there is not None and there.is_image(found.image):
                return there
        labels = found.image.labels
        release = f"{labels[MODEL]}:{labels[VERSION]}" if MODEL in labels else ""
        return EngineImage(name, release=release) if look else _load(engine, session, name, found)
    if module.image.startswith("$"):
        raise NoImage(
            f"module {module.name}: {module.image} is for devices below another one",
            hint="name the image as its registry does; there is no parent device here",
        )
    present = engine.image(module.image)
    if present is None and not module.pull:
        raise NoImage(
            f"module {module.name}: {module.image} is not on this machine, and its "
            "imagePullPolicy is never",
            hint=f"pull it yourself: docker pull {module.image}",
        )
    if present is not None or look:
        return present or EngineImage(module.image)
    return _pull(engine, session, module.image, login)


def _load(engine: DockerEngine, session: Session, name: str, found: FoundImage) -> EngineImage:
    with session.step(f"loading {name}") as moved:
        loaded = load_image(engine, found.store, found.image, name, moved)
    layers = counted(len(found.image.layers), "layer")
    session.say(f"loaded {name} from the project's store: {len(loaded.carried)} of {layers}")
    if not fits(found.image.platform, engine.platform):
        session.say(f"{name} is for {found.image.platform}, and Docker here is {engine.platform}")
    return _present(engine, name)


def _pull(engine: DockerEngine, session: Session, name: str, login: Login | None) -> EngineImage:
    usable = (login.username, login.password) if login and login.usable else None
    try:
        with session.step(f"pulling {name}") as moved:
            engine.pull(name, usable, moved)
    except EngineRefused as error:
        raise EngineRefused(str(error), hint=_pull_hint(name, login)) from error
    session.say(f"pulled {name}")
    return _present(engine, name)


def _present(engine: DockerEngine, name: str) -> EngineImage:
    found = engine.image(name)
    if found is None:
        raise NoImage(f"Docker does not have {name} any more", hint="run the command again")
    return found


def _pull_hint(image: str, login: Login | None) -> str:
    """What to do if ``image`` cannot be pulled."""
    if login is not None and login.usable:
        return f"check the name, and the login for {login.address} in the manifest"
    if login is not None:
        return (
            f"its login is a variable: render it --with-secrets, or: docker login {login.address}"
        )
    named = "." in image.partition("/")[0]
    where = f" {image.partition('/')[0]}" if named else ""
    return f"check the name, or docker login{where}; a project's releases are found in it (-C DIR)"


def _released(
    project: ProjectDirectory | None, image: str, platform: Platform
) -> tuple[str, FoundImage] | None:
    """The release that ``image`` names and its name in the daemon; ``None`` for other images."""
    try:
        place = Reference.parse(image)
    except InvalidReference:
        return None
    ours = project.settings.repository if project else None
    try:
        if project and place.digest:
            found = find_image(project, image, platform)
        elif project and ours and ours.name == place.name and place.tag:
            found = find_image(project, f"{project.settings.model}:{place.tag}", platform)
        else:
            return None
    except (UsageError, NoSuchImage):
        return None  # this project does not have it: it is in a registry
    tag = place.tag or found.image.labels.get(VERSION) or found.image.digest.short
    return f"{place.name}:{tag}", found


# Warnings that concern fleets only: modules that are not started here, and tags that may move.
_SYSTEM, _IMAGE = ".systemModules.", ".settings.image"


class NoManifest(MlpackError):
    """A manifest that does not exist."""

    hint = "write it with: mlpack render NAME -o deployment.json"


class NameTaken(MlpackError):
    """A container that has a module's name and belongs to another deployment, or to none."""


class ModulesFailed(MlpackError):
    """Modules that ended, or were not ready in time."""


@dataclass(frozen=True, kw_only=True)
class ModuleOutcome:
    """What became of one module, or with a dry run would."""

    name: str
    image: str
    """As written in the manifest."""

    image_id: str = field(metadata=OR_NULL)
    release: str = field(metadata=OR_NULL)
    """``NAME:VERSION`` of a release."""

    container: str = field(default="", metadata=OR_NULL)
    action: str
    """``keep``, ``create``, ``replace`` or ``start``."""

    why: str = field(metadata=OR_NULL)
    state: str = field(default="", metadata=OR_NULL)
    """A word for how it is; empty for a dry run."""

    addresses: tuple[str, ...] = ()
    """The addresses of this machine at which it is reached; URLs for a release."""

    failed: bool = field(default=False, metadata=HIDDEN)
    last_lines: str = field(default="", metadata=HIDDEN)
    """The last lines it wrote, if it failed."""


@dataclass(frozen=True, kw_only=True)
class UpResult:
    """A deployment that runs here, or with ``dry_run`` would."""

    deployment: Path = field(metadata=named("path"))
    network: str
    modules: tuple[ModuleOutcome, ...]
    removed: tuple[str, ...]
    dry_run: bool
    skipped: tuple[str, ...]
    """The parts of the manifest that are left out here."""

    def require_ready(self) -> None:
        """Raise :class:`ModulesFailed` if a module is not ready."""
        failed = [each for each in self.modules if each.failed]
        if failed:
            raise ModulesFailed(
                "; ".join(f"module {each.name}: {each.state}" for each in failed),
                hint=f"see all it wrote: docker logs {failed[0].name}",
            )


@dataclass(frozen=True, kw_only=True)
class DownResult:
    """What was removed of a deployment, or with ``dry_run`` would be."""

    deployment: Path = field(metadata=named("path"))
    removed: tuple[str, ...]
    """Modules, the last started first."""

    network: str = field(metadata=OR_NULL)
    others: tuple[str, ...] = field(metadata=HIDDEN)
    """Other deployments that are here."""

    dry_run: bool


def up(session: Session, request: Up) -> UpResult:
    """Make this machine's Docker run what a manifest describes.

    Everything is checked, and images are loaded or pulled, before Compose touches a container.
    Raises what finding images raises, :class:`NoManifest`, ``InvalidDeployment`` with every
    problem, ``NothingToRun``, :class:`NameTaken`, :class:`~mlpack.engines.compose.PortInUse` and
    :class:`~mlpack.engines.engine.EngineError`.
    """
    path = session.path(request.deployment)
    local = _read(session, path, [session.path(each) for each in request.layers])
    compose.require_compose()
    with closing(connect()) as engine:
        return _Run(engine, session, request, path.resolve(), local).run()


def down(session: Session, request: Down) -> DownResult:
    """Stop and remove the containers of a manifest, and their network.

    The manifest itself need not exist any more; images and volumes with names stay. Raises
    :class:`~mlpack.engines.engine.EngineError`.
    """
    path = session.path(request.deployment).resolve()
    compose.require_compose()
    name = _project_name(path)
    with closing(connect()) as engine:
        there = compose.all_containers(engine)
        ours = dict.fromkeys(each.service for each in there if each.project == name)
        network = name if compose.has_network(engine, name) else ""
        if not request.dry_run and (ours or network):
            compose.down(name)
    others = {each.labels.get(DEPLOYMENT, "") for each in there} - {"", str(path)}
    return DownResult(
        deployment=path,
        removed=tuple(ours),
        network=network,
        others=tuple(sorted(others)),
        dry_run=request.dry_run,
    )


def _read(session: Session, path: Path, layers: Sequence[Path]) -> Local:
    """Read and check a manifest and the layers over it, and tell the user what is left out."""
    manifest = _checked(path) if not layers else _merged(session, [path, *layers])
    local = read_local(manifest)
    compose_text(local.modules, ComposeProject(name="check"))
    for each in warnings(manifest):
        if _SYSTEM not in each.path and not each.path.endswith(_IMAGE):
            session.say(f"warning: {each}")
    for part in local.skipped:
        session.say(str(part))
    return local


def _checked(path: Path) -> Manifest:
    if not path.exists():
        raise NoManifest(f"{path} does not exist")
    return require_valid(read_file(path), Passwords.HERE)


def _merged(session: Session, paths: Sequence[Path]) -> Manifest:
    deployments = []
    for path in paths:
        try:
            deployments.append(Deployed(str(path), _checked(path)))
        except InvalidDeployment as error:
            named = (Problem(f"{path}: {each.path}", each.what) for each in error.problems)
            raise InvalidDeployment(named) from error
    merged = merge(deployments, Passwords.HERE)
    session.say(f"merged, the highest last: {', '.join(merged.applied)}")
    for line in merged.left_out:
        session.say(line)
    return merged.manifest


def _project_name(path: Path) -> str:
    """Return the Compose project of a manifest, which is also the name of its network."""
    return f"mlpack-{Digest.of(str(path).encode()).short}"


@dataclass(frozen=True)
class _Run:
    """One run of ``mlpack up``."""

    engine: DockerEngine
    session: Session
    request: Up
    path: Path
    local: Local

    def run(self) -> UpResult:
        name = _project_name(self.path)
        containers = compose.all_containers(self.engine)
        _require_names(name, self.local.modules, containers)
        before = {each.service: each for each in containers if each.is_of(name)}
        images = {each.name: self._image(each) for each in self.local.modules}
        project = ComposeProject(
            name=name,
            images={module: each.name for module, each in images.items()},
            releases=frozenset(module for module, each in images.items() if each.release),
            labels={DEPLOYMENT: str(self.path)},
            on_host=self.request.network == HOST,
        )
        text = compose_text(self.local.modules, project)
        goal = compose.Goal(images, compose.config_hashes(text))
        modules = [
            self._planned(each, project, images[each.name], goal.step(before.get(each.name), each))
            for each in sorted(self.local.modules, key=lambda module: module.order)
        ]
        if not self.request.dry_run:
            self._require_ports(modules, before)
            modules = self._ready(modules, self._up(name, text, goal))
        return UpResult(
            deployment=self.path,
            network=HOST if project.on_host else name,
            modules=tuple(modules),
            removed=tuple(each for each in before if each not in images),
            dry_run=self.request.dry_run,
            skipped=tuple(str(each) for each in self.local.skipped),
        )

    def _image(self, module: LocalModule) -> EngineImage:
        login = self.local.login(module.image)
        return find_image_of(self.engine, self.session, module, login, look=self.request.dry_run)

    def _planned(
        self,
        module: LocalModule,
        project: ComposeProject,
        image: EngineImage,
        step: tuple[str, str],
    ) -> ModuleOutcome:
        return ModuleOutcome(
            name=module.name,
            image=module.image,
            image_id=image.id,
            release=image.release,
            action=step[0],
            why=step[1],
            addresses=tuple(f"{self.engine.host}:{port}" for port in host_ports(module, project)),
        )

    def _require_ports(
        self, modules: Sequence[ModuleOutcome], before: Mapping[str, ComposeContainer]
    ) -> None:
        """Raise :class:`PortInUse` if another program listens where a module will.

        No engine reports it in the host's network: the program would be taken for the module.
        """
        for module in modules:
            there = before.get(module.name)
            for address in () if there and there.is_alive else module.addresses:
                host, _, port = address.rpartition(":")
                if _listens(host, int(port)):
                    raise PortInUse(f"module {module.name}: port {port} of this machine is in use")

    def _up(self, name: str, text: str, goal: compose.Goal) -> Mapping[str, ComposeContainer]:
        """Have Compose bring all up; return the containers by module."""
        project = self.session.project_if_any
        file = (project.state if project else self.path.parent / STATE) / COMPOSE_FILE
        with atomic(file, mode=PRIVATE) as out:  # variables may hold secrets
            out.write(text.encode())
        if self.request.wait:
            self.session.say(f"waiting at most {self.request.timeout:g} s until modules are ready")
        compose.remove_leftovers(self.engine, name)
        refused = compose.up(file, self.request.timeout if self.request.wait else 0)
        now = {e.service: e for e in compose.all_containers(self.engine) if e.is_of(name)}
        # A module that was started and ended, or is not healthy, is reported by its state.
        if refused is not None and not all(
            goal.is_reached(now.get(each.name), each) for each in self.local.modules
        ):
            raise refused
        return now

    def _ready(
        self, modules: Sequence[ModuleOutcome], now: Mapping[str, ComposeContainer]
    ) -> list[ModuleOutcome]:
        """Return the modules once they are ready, or it is clear that one will not be."""
        started = [self._started(each, now[each.name].id) for each in modules]
        urls = {each.container: each.addresses if each.release else () for each in started}
        seconds = self.request.timeout if self.request.wait else 0
        found = wait_until_ready(self.engine, urls, seconds)
        said = {id: self.engine.logs(id) for id, each in found.items() if each.failed}
        return [
            replace(
                each,
                state=found[each.container].word,
                failed=each.container in said,
                last_lines=said.get(each.container, ""),
            )
            for each in started
        ]

    def _started(self, module: ModuleOutcome, container: str) -> ModuleOutcome:
        found = module.addresses or compose.published(self.engine, container)
        if module.release:
            found = tuple(f"http://{each}/" for each in found)
        return replace(module, container=container, addresses=found)


def _require_names(
    project: str, modules: Sequence[LocalModule], there: Sequence[ComposeContainer]
) -> None:
    """Raise :class:`NameTaken` if a container of another project has the name of a module."""
    names = {each.name for each in modules}
    for each in there:
        if each.name not in names or each.project == project:
            continue
        if deployment := each.labels.get(DEPLOYMENT, ""):
            raise NameTaken(
                f"module {each.name}: a container of that name belongs to {deployment}",
                hint=f"end that deployment first: mlpack down {deployment}",
            )
        raise NameTaken(
            f"module {each.name}: another container of that name exists",
            hint=f"remove it, or rename it: docker rename {each.name} NAME",
        )


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
