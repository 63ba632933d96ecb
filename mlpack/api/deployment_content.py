"""The manifests of a release: whole, layered, from a template or patched, and the base's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import MissingFile, MlpackError, UsageError
from mlpack.humanize import nearest
from mlpack.iotedge.checks import require_valid, warnings
from mlpack.iotedge.deployment import (
    Deployment,
    InvalidTemplate,
    deployment,
    dump,
    edge_routes,
    layered,
    render,
    render_jinja,
    timeout_seconds,
)
from mlpack.iotedge.manifest import CONTENT, Problem, load, read_manifest
from mlpack.iotedge.module import ALL, edge_module, model_module, wants_gpu
from mlpack.iotedge.secrets import (
    Passwords,
    accepted_paths,
    secret_paths,
    secret_variables,
    with_values,
)
from mlpack.model.version import BASE
from mlpack.oci.descriptor import InvalidContent, Node, Reference
from mlpack.oci.image import Image
from mlpack.project.directory import ProjectDirectory, read_template, read_text
from mlpack.project.references import FoundImage, find_image, rebuilt_bytes
from mlpack.settings.edge import ModuleSettings
from mlpack.settings.project_settings import InvalidSettings, ProjectSettings
from mlpack.settings.targets import find_group
from mlpack.stores.files import read_file, require_apart
from mlpack.stores.store import images

if TYPE_CHECKING:
    from mlpack.api.requests import Render
    from mlpack.iotedge.template import Variables

TEMPLATE = "iotedge/deployment.json.j2"
JINJA = (".j2", ".jinja", ".jinja2")
"""Endings of Jinja templates; in other files ``{{.Name}}`` is text, as in Docker's log options."""


class NoRepository(MlpackError):
    """A release without a configured image repository."""

    hint = 'add repository = "registry.example.com/team/model" under [image] in mlpack.toml, '
    hint += "or name it with --repository"


def image_repository(project: ProjectDirectory, name: str) -> Reference:
    """Return the repository that devices pull from; raise :class:`NoRepository`."""
    if project.settings.repository is None:
        raise NoRepository(f"no image repository is configured for {name!r}")
    return project.settings.repository


def module_name(settings: ModuleSettings, model: str) -> str:
    """Return the module's id: as configured, or the model's name without dots.

    >>> module_name(ModuleSettings(), "fan.v2")
    'fan-v2'
    """
    return settings.name or model.replace(".", "-")


@dataclass(frozen=True, kw_only=True)
class ModuleRelease:
    """A release as the module of a deployment."""

    module: str
    image: Reference
    version: str
    gpu: bool = False
    """Whether it scores on graphics processors."""

    rebuilt: int = 0
    """Bytes it rebuilds below /tmp."""

    @classmethod
    def of(cls, module: str, image: Reference, release: FoundImage) -> ModuleRelease:
        """Read what a deployment needs to know about ``release``."""
        return cls(
            module=module,
            image=image,
            version=release.release[1],
            gpu=wants_gpu(release.image),
            rebuilt=rebuilt_bytes(release),
        )


def release_deployment(
    recipe: ProjectSettings, release: ModuleRelease, *, timeout: int = 0
) -> Deployment:
    """Return all that a device runs with a release on it, the release's module first.

    A release for graphics processors gets all of them unless the settings give a number.
    ``timeout`` is in seconds (:func:`timeout_seconds`).
    """
    if release.module in recipe.edge.modules:
        raise InvalidSettings(
            f"[edge.modules.{release.module}] is the module of the release",
            hint="configure it under [module]; its image is the release's",
        )
    settings = recipe.module
    if release.gpu and not settings.gpu:
        settings = replace(settings, gpu=ALL)
    module = model_module(
        release.module,
        release.image,
        version=release.version,
        settings=settings,
        rebuilt=release.rebuilt,
    )
    return deployment(
        recipe.edge,
        (module, *(edge_module(name, each) for name, each in recipe.edge.modules.items())),
        edge_routes(recipe.edge, release.module),
        timeout_seconds=timeout,
    )


@dataclass(frozen=True, kw_only=True)
class PinnedRelease:
    """A release with all that is needed to name it in a manifest."""

    found: FoundImage
    name: str
    version: str
    module: str
    image: Reference


@dataclass(frozen=True, kw_only=True)
class CheckedManifest:
    """A manifest's text, and the release it runs; a base deployment runs none."""

    text: str = field(repr=False)
    warnings: tuple[Problem, ...]
    release: PinnedRelease | None = None
    secrets: frozenset[str] = frozenset()
    """Paths of requested secrets in clear, besides passwords of registries."""


def checked_manifest(
    project: ProjectDirectory, request: Render, environment: Mapping[str, str]
) -> CheckedManifest:
    """Write the IoT Edge deployment manifest of a request, and check it as a device would."""
    allowed = Passwords.PLACEHOLDER
    if request.secret:
        allowed = Passwords.EITHER if request.patch else Passwords.CLEAR
    speed = link_speed(project.settings, request.device_group)
    release = None if request.base else pinned_release(project, request)
    if release is None:
        made = _Written(base_text(project, speed))
    elif request.patch:
        made = _patched(project.root / request.patch, request, release)
    else:
        made = _written(project, request, release, (speed, environment))
    if request.secret and not request.patch:
        made = _with_secrets(project, request, made, environment)
    manifest = require_valid(made.text.encode(), allowed, made.secrets)
    return CheckedManifest(
        text=made.text,
        warnings=(*made.left, *warnings(manifest)),
        release=release,
        secrets=made.secrets,
    )


@dataclass(frozen=True)
class _Written:
    """A manifest that is not checked yet."""

    text: str = field(repr=False)
    secrets: frozenset[str] = frozenset()
    """Paths at which secrets are in clear, as requested."""

    left: tuple[Problem, ...] = ()
    """What a template has that looks like a variable, and stays."""


def pinned_release(project: ProjectDirectory, request: Render) -> PinnedRelease:
    """Find the release of a request, and its image as devices name it.

    The image is the release's index, or that of ``platform``. Raises :class:`NoRepository`.
    """
    found = find_image(project, request.release or project.settings.model, request.platform)
    name, version = found.release
    # What mlpack build prints may have the repository.
    before, at, _ = request.release.partition("@")
    printed = Reference.parse(before) if at and "/" in before else None
    place = request.repository or printed or image_repository(project, name)
    return PinnedRelease(
        found=found,
        name=name,
        version=version,
        module=request.module or module_name(project.settings.module, name),
        image=place.pinned(found.image.digest if request.platform else found.target.digest),
    )


def link_speed(settings: ProjectSettings, group: str = "") -> int:
    """Bytes per second of the link of ``group``, or of the slowest group's; 0 for unknown."""
    groups = settings.deploy.groups
    if group:
        return find_group(groups, group).link_bytes_per_second
    known = (each.link_bytes_per_second for each in groups.values())
    return min((each for each in known if each), default=0)


def _patched(path: Path, request: Render, release: PinnedRelease) -> _Written:
    from mlpack.iotedge.patch import patch

    text = _content(path)
    found = secret_paths(read_manifest(text.encode()))
    accepted = accepted_paths(request.allow_secrets, found)
    return _Written(patch(text, release.module, release.image), accepted)


def _written(
    project: ProjectDirectory,
    request: Render,
    release: PinnedRelease,
    link: tuple[int, Mapping[str, str]],
) -> _Written:
    found, (speed, environment) = release.found, link
    pulled = (found.image,) if request.platform else images(found.store, found.target)
    whole = release_deployment(
        project.settings,
        ModuleRelease.of(release.module, release.image, found),
        timeout=pull_timeout(pulled, speed),
    )
    if request.template:
        from mlpack.iotedge.template import Variables

        named = {name: each.image for name, each in project.settings.edge.modules.items()}
        variables = Variables(
            module=release.module,
            image=release.image,
            environment=environment,
            images={**named, **request.images},
            passwords=request.secret,
        )
        return _from_template(project, request, (release, whole), variables)
    if request.layered:
        return _Written(dump({CONTENT: layered(whole)}))
    return _Written(render(whole, read_template(TEMPLATE)))


def _with_secrets(
    project: ProjectDirectory, request: Render, made: _Written, environment: Mapping[str, str]
) -> _Written:
    """Fill in the logins of registries and the secret variables of ``[edge.modules]``."""
    text = made.text
    if not (request.template or request.layered):
        text = with_passwords(project, text, environment)
    if request.base:
        return _Written(text)
    document, paths = module_secrets(project, json.loads(text), environment)
    return replace(made, text=dump(document) if paths else text, secrets=made.secrets | paths)


def module_secrets(
    project: ProjectDirectory, document: object, environment: Mapping[str, str]
) -> tuple[object, frozenset[str]]:
    """Return a manifest with the secret variables of ``[edge.modules]``, and their paths.

    Raises :class:`~mlpack.project.secret_file.MissingSecret`.
    """
    modules = project.settings.edge.modules
    sources = {name: each.secret_env for name, each in modules.items() if each.secret_env}
    places = secret_variables(document, sources) if sources else {}
    if not places:
        return document, frozenset()
    from mlpack.project.secret_file import read_secrets

    values = read_secrets(places.values(), project.root, environment)
    return with_values(document, dict(zip(places, values, strict=True))), frozenset(places)


def _from_template(
    project: ProjectDirectory,
    request: Render,
    runs: tuple[PinnedRelease, Deployment],
    variables: Variables,
) -> _Written:
    from mlpack.iotedge.template import covers, fill, image_variables, read, secret_places
    from mlpack.iotedge.template import with_texts as texts

    (release, whole), path = runs, project.root / (request.template or "")
    text = _content(path)
    if path.suffix in JINJA:
        values = {
            "deployment": whole,
            "name": release.name,
            "version": release.version,
            "module": whole.modules[0],
            "image": str(release.image),
        }
        text = render_jinja(text, values)
    try:
        document = read(text)
    except InvalidContent as error:
        raise InvalidTemplate(f"{path}: the result {error.problem}") from error
    stands_for = image_variables(document)
    _require_used(request, release.module, stands_for)
    variables.built = _built(project, request, path, stands_for)
    places = secret_places(document, variables)
    variables.kept = frozenset() if request.secret else places
    filled = dump(texts(fill(document, variables)))
    if str(release.image) not in filled:
        raise InvalidTemplate(
            f"{path} has no placeholder for the release's image",
            hint="write ${IMAGE} or __REGISTRY_IMAGE_LOCATION where it belongs, name the module "
            "that runs it with --module, or change the image of a finished manifest with --patch",
        )
    secrets = secret_paths(read_manifest(filled.encode())) if request.secret else frozenset()
    asked = {each for each in secrets if any(covers(place, (each,)) for place in places)}
    return _Written(
        filled,
        frozenset(asked | places if request.secret else ()),
        tuple(dict.fromkeys(variables.left)),
    )


def _require_used(request: Render, module: str, variables: Iterable[str]) -> None:
    """Refuse an image that is named for a module which the template does not have."""
    from mlpack.iotedge.template import image_key

    keys = [image_key(each) for each in variables]
    for name in request.images:
        if name == module:
            raise UsageError(f"--module {name}=… names the module that runs the release")
        if not any(f"{key}.".startswith(f"{name}.") for key in keys):
            modules = dict.fromkeys(key.partition(".")[0] for key in keys)
            raise UsageError(
                f"the template has no ${{MODULES.{name}}}{nearest(name, modules)}",
                hint=f"its modules: {', '.join(modules) or 'none'}",
            )


def _built(
    project: ProjectDirectory, request: Render, path: Path, variables: Iterable[str]
) -> Mapping[str, str]:
    """Return the images that ``module.json`` names: in ``modules/NAME``, or where a path says.

    Nothing is read outside of the project and of the template's own folder, and what is read is
    not written: raises ``OutputIsInput``.
    """
    from mlpack.iotedge.template import built_images, module_folder

    found: dict[str, str] = {}
    trees = [each.resolve() for each in (project.root, path.parent)]
    for prefix, folder in dict.fromkeys(map(module_folder, variables)):
        named = path.parent / folder / "module.json"
        if not named.is_file():  # a link to itself cannot be resolved
            continue
        file = named.resolve()
        if not any(file.is_relative_to(tree) for tree in trees):
            continue
        if request.output:
            require_apart(project.root / request.output, (file,))
        try:
            found |= built_images(prefix, load(_content(file).encode()), request.platform)
        except InvalidContent as error:
            raise InvalidTemplate(f"{file}: {error}") from error
    return found


def _content(path: Path) -> str:
    """Read the user's file as it is: its line ends stay."""
    if not path.is_file():
        raise MissingFile(f"{path} is not a file", hint="name a file, relative to the project")
    read_text(path, InvalidTemplate)
    return read_file(path).decode()


def release_content(
    project: ProjectDirectory, module: str, image: Reference, release: FoundImage
) -> Mapping[str, object]:
    """Return the ``modulesContent`` of a release: its module, the other modules, their routes.

    Secret variables are placeholders: :func:`sent_content`.
    """
    made = ModuleRelease.of(module, image, release)
    return layered(release_deployment(project.settings, made))


def sent_content(
    project: ProjectDirectory, content: Mapping[str, object], environment: Mapping[str, str]
) -> Mapping[str, object]:
    """Return what is sent of a release: with secret variables from ``environment`` and files."""
    filled, paths = module_secrets(project, {CONTENT: content}, environment)
    require_valid(json.dumps(filled).encode(), Passwords.CLEAR, paths)
    return Node(filled, "deployment").need(CONTENT).mapping()


def base_content(
    project: ProjectDirectory,
    bytes_per_second: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Mapping[str, object]:
    """Return the ``modulesContent`` of a base deployment: IoT Edge's own modules, no release.

    ``bytes_per_second`` is the devices' link, 0 if it is unknown; from it follows how long
    edgeAgent waits for a pull of the base image. The bytes of releases do not count, because a
    deployment's content cannot change and this one outlives them; twice the base's time leaves
    room for a model's layer. Registries' passwords come from ``environment``; a missing one is
    an error.
    """
    filled = with_passwords(project, base_text(project, bytes_per_second), environment or {})
    require_valid(filled.encode(), Passwords.CLEAR)
    return Node(json.loads(filled), "deployment").need(CONTENT).mapping()


def base_text(project: ProjectDirectory, bytes_per_second: int = 0) -> str:
    """Return the manifest of :func:`base_content` with variables in place of passwords."""
    timeout = 0
    if bytes_per_second and project.has_lock:
        base = find_image(project, BASE)
        timeout = pull_timeout(images(base.store, base.target), bytes_per_second)
    whole = deployment(project.settings.edge, (), {}, timeout_seconds=timeout)
    return render(whole, read_template(TEMPLATE))


def with_passwords(project: ProjectDirectory, text: str, environment: Mapping[str, str]) -> str:
    """Fill in the registries' logins from ``environment``; the result is secret.

    The registry of ``[image] repository`` gets its login from ``MLPACK_REGISTRY_USERNAME`` and
    ``MLPACK_REGISTRY_PASSWORD`` unless ``[edge.registries]`` names one.
    """
    from mlpack.iotedge.template import Variables, fill_logins, with_login

    variables = Variables(module="", image=None, environment=environment, passwords=True)
    document = json.loads(text)
    if project.settings.repository is not None:
        document = with_login(document, project.settings.repository.registry, variables)
    return dump(fill_logins(document, variables))


def pull_timeout(platforms: Iterable[Image], bytes_per_second: int) -> int:
    """Return how long edgeAgent must wait for a pull of the largest of an image's platforms."""
    largest = max((sum(layer.size for layer in each.layers) for each in platforms), default=0)
    return timeout_seconds(largest, bytes_per_second)
