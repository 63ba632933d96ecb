"""``mlpack doctor``: check this machine and this project."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlpack.base.python import find_uv
from mlpack.errors import MlpackError
from mlpack.installation import install_command
from mlpack.json_document import IF_SET
from mlpack.model.lock import Lock
from mlpack.project.directory import NoBase, NotAProject, ProjectDirectory
from mlpack.settings.project_settings import ProjectSettings
from mlpack.stores.integrity import missing_blobs, validate
from mlpack.stores.store import NotFound, walk

if TYPE_CHECKING:
    from mlpack.api.session import Session

State = Literal["ok", "missing", "broken"]
PYTHONS = ((3, 11), (3, 14))
"""The Pythons mlpack runs on, from and below."""

LITTLE_BYTES = 1_000_000_000
"""Free disk space below which building a base may fail (two platforms, and their packages)."""

SECONDS = 60
"""How long a program that is tried may take; a daemon that hangs must not hang the doctor."""

REGISTRY_SECONDS = 5
"""How long to wait for each step of the registry's answer."""

_UNREACHABLE = {
    "refused": "the connection is refused",
    "Name or service not known": "its name is not known (DNS)",
    "No address associated": "its name has no address (DNS)",
    "nodename nor servname": "its name is not known (DNS)",
    "name resolution": "its name cannot be looked up (DNS)",
    "SSL": "it does not speak TLS, or not a version this Python takes",
    "no response in time": "it does not respond in time",
}
"""Why a registry is not reachable, by words of the error."""

_TOOLS = {
    "skopeo": "to copy releases to a registry: apt-get install skopeo",
    "git": "to note the commit a model was made from: apt-get install git",
}
_EXTRAS = {
    "serve": ("httptools", "onnxruntime", "orjson", "PIL", "starlette", "uvicorn"),
    "sklearn": ("sklearn", "skl2onnx"),
    "docker": ("docker",),
    "azure": ("azure.ai.ml", "azure.identity", "azure.iot.hub"),
}
"""What the extras of this package import."""

_IOT_EDGE_API = (1, 41)
"""What IoT Edge up to 1.6 speaks; Docker 29 and newer refuse it unless they are told not to."""

_LONGEST = 200
_SUBORDINATE = 65_536
"""How many ids an image's users need."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check; what is ``missing`` is optional, what is ``broken`` stops mlpack."""

    name: str
    state: State
    found: str
    advice: str = field(default="", metadata=IF_SET)


@dataclass(frozen=True)
class Diagnosis:
    """All checks of a machine and a project."""

    checks: tuple[Check, ...]

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json doctor``."""
        broken = any(each.state == "broken" for each in self.checks)
        return {"healthy": not broken, "checks": self.checks}

    def require_healthy(self) -> None:
        """Raise :class:`NotHealthy` if a check found something broken."""
        broken = tuple(each for each in self.checks if each.state == "broken")
        if broken:
            raise NotHealthy(broken)


class NotHealthy(MlpackError):
    """Something mlpack needs here is broken."""

    hint = "fix the items above, then run mlpack doctor again"

    def __init__(self, checks: tuple[Check, ...]) -> None:
        super().__init__(f"broken: {', '.join(each.name for each in checks)}")


def doctor(session: Session, *, deep: bool = False, quick: bool = False) -> Diagnosis:
    """Check everything; ``deep`` reads every blob of the store.

    ``quick`` starts no program and sends nothing.
    """
    directory = session.directory
    checks = [*_machine(directory, quick=quick), *_project(directory, deep=deep)]
    if not any(each.name == "mmdebstrap" for each in checks) and _no_project(checks):
        checks.append(_mmdebstrap(needed=False))
    if not quick:
        checks += _registry(session)
    return Diagnosis(tuple(checks))


def _registry(session: Session) -> Iterator[Check]:
    """The registry that devices pull from, if the project names one: whether it answers."""
    try:
        project = session.project_if_any
        place = project.settings.repository if project else None
    except MlpackError:
        return  # the check of the project says so
    if place is None:
        return
    from mlpack.registry.answers import require_no_web_page
    from mlpack.registry.http_types import Request

    scope = f"repository:{place.repository}:pull"
    try:
        with session.open_registries(patience=REGISTRY_SECONDS) as registries:
            found = registries.session(place.registry)
            request = Request(method="GET", url=found.root, attempts=1)
            with found.send(request, scope) as response:
                if response.status != 200:
                    raise found.failure(request, response)
                require_no_web_page(request, response)
            used = found.login.used(scope)
    except MlpackError as error:
        yield registry_check(place.registry, error)
        return
    yield Check("registry", "ok", f"{place.registry} answers{used and f', with {used}'}")


def registry_check(host: str, error: MlpackError) -> Check:
    """Return why a registry cannot be used; a project works without one."""
    from mlpack.registry.auth import Unauthorized
    from mlpack.registry.http_types import StatusError, Unreachable

    text, login = str(error), f"log in with: docker login {host}"
    if isinstance(error, Unauthorized):
        return Check("registry", "missing", f"{host} needs a login: {text}", error.hint or login)
    if isinstance(error, StatusError) and error.status in (401, 403):
        return Check("registry", "missing", f"{host} refuses this login: {text}", login)
    if not isinstance(error, Unreachable):
        return Check("registry", "missing", text, error.hint)
    why = next((why for sign, why in _UNREACHABLE.items() if sign in text), text)
    return Check("registry", "missing", f"{host} is not reachable: {why}", error.hint)


def _no_project(checks: Sequence[Check]) -> bool:
    return any(each.name == "project" and each.state == "missing" for each in checks)


def _machine(directory: Path, *, quick: bool) -> Iterator[Check]:
    yield _python(sys.version_info[:3])
    try:
        uv = find_uv()
        yield Check("uv", "ok", uv) if quick else tried("uv", (uv, "--version"), found=uv)
    except MlpackError as error:
        yield Check("uv", "broken", str(error), error.hint)
    yield from _engines(quick=quick)
    for name, advice in _TOOLS.items():
        place = find_program(name)
        yield Check(name, "ok", str(place)) if place else Check(name, "missing", "", advice)
    yield from _extras(quick=quick)
    if not is_root():
        yield _rootless(quick=quick)
    free = free_bytes(directory)
    found = f"{free / 1e9:.1f} GB free"
    if free < LITTLE_BYTES:
        yield Check("disk", "broken", found, "free some: building a base takes about 1 GB")
    else:
        yield Check("disk", "ok", found)


def _engines(*, quick: bool) -> Iterator[Check]:
    """Docker and podman: whether they answer, not only whether a client is installed."""
    for name, arguments, advice in (
        (
            "docker",
            ("version", "--format", "{{json .Server}}"),
            "to run a release here: apt-get install docker.io",
        ),
        (
            "podman",
            ("info", "--format", "{{.Version.Version}}"),
            "to run a release here without Docker: apt-get install podman",
        ),
    ):
        place = find_program(name)
        if place is None:
            yield Check(name, "missing", "", advice)
        elif quick:
            yield Check(name, "ok", str(place))
        else:
            outcome = run_program((str(place), *arguments))
            yield docker_check(outcome) if name == "docker" else _podman(outcome)
            if name == "docker":
                yield from edge_check(outcome.text, find_program("iotedge") is not None)


def docker_check(outcome: Outcome) -> Check:
    """Return what ``docker version`` says of the daemon."""
    server = _server(outcome.text)
    if outcome.failed or not server:
        why = outcome.problem or "the daemon does not answer"
        return Check(
            "docker", "missing", f"installed, but: {why}", "start it: systemctl start docker"
        )
    return Check("docker", "ok", f"daemon {server.get('Version')} answers")


def edge_check(text: str, installed: bool) -> Iterator[Check]:
    """Yield a check if IoT Edge up to 1.6 cannot talk to this Docker.

    Docker 29 raised the oldest API it takes to 1.44, and edgeAgent up to 1.6 speaks 1.41.
    """
    least = _numbers(_server(text).get("MinAPIVersion", ""))
    if not least or least <= _IOT_EDGE_API:
        return
    yield Check(
        "iotedge",
        "broken" if installed else "missing",
        f"this Docker takes API {'.'.join(map(str, least))} and newer; IoT Edge up to 1.6 speaks "
        "1.41",
        'on devices, write "min-api-version": "1.41" into /etc/docker/daemon.json, and restart '
        "Docker",
    )


def _server(text: str) -> Mapping[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(version: object) -> tuple[int, ...]:
    """Return the numbers of a version such as ``1.44``; none if it has others."""
    parts = str(version).split(".")
    return tuple(map(int, parts)) if all(each.isdecimal() for each in parts) else ()


def _podman(outcome: Outcome) -> Check:
    if outcome.failed:
        return Check(
            "podman", "missing", f"installed, but: {outcome.problem}", "see what podman info says"
        )
    return Check("podman", "ok", f"podman {outcome.text.strip()} works")


def tried(name: str, command: Sequence[str], *, found: str) -> Check:
    """Return a check of a needed program: whether it can be started."""
    outcome = run_program(command)
    if outcome.failed:
        return Check(name, "broken", f"{found}: {outcome.problem}", f"install {name} again")
    return Check(name, "ok", found)


def _extras(*, quick: bool) -> Iterator[Check]:
    """The packages of this package's extras: whether they can be imported, each in a process."""
    for extra, modules in _EXTRAS.items():
        absent = [each for each in modules if not _findable(each)]
        if absent:
            advice = f"if you need it: {install_command(extra)}"
            yield Check(f"[{extra}]", "missing", f"no {', '.join(absent)}", advice)
        elif quick:
            yield Check(f"[{extra}]", "ok", f"{len(modules)} packages")
        else:
            command = (sys.executable, "-c", f"import {', '.join(modules)}")
            yield _imported(extra, len(modules), run_program(command))


def _imported(extra: str, count: int, outcome: Outcome) -> Check:
    if not outcome.failed:
        return Check(f"[{extra}]", "ok", f"{count} packages can be imported")
    return Check(
        f"[{extra}]",
        "missing",
        f"cannot be imported: {outcome.problem}",
        f"install them again, with --force-reinstall: {install_command(extra)}",
    )


def _findable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _rootless(*, quick: bool) -> Check:
    """Whether mmdebstrap and podman can work as a user without root."""
    user, uid = getpass.getuser(), os.geteuid()
    for file in ("/etc/subuid", "/etc/subgid"):
        if not subordinate_ids(_text(Path(file)), user, uid):
            return Check(
                "rootless",
                "missing",
                f"{file} has no {_SUBORDINATE:,} ids for {user}",
                f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )
    unshare = find_program("unshare")
    if unshare and not quick:
        outcome = run_program((str(unshare), "--user", "--map-root-user", "true"))
        if outcome.failed:
            return Check(
                "rootless",
                "missing",
                f"user namespaces do not work: {outcome.problem}",
                "build bases as root, or allow user namespaces on this machine",
            )
    return Check("rootless", "ok", f"{user} has subordinate ids")


def subordinate_ids(text: str, user: str, uid: int) -> bool:
    """Whether a ``/etc/subuid`` gives a user enough ids in one range.

    >>> subordinate_ids("ann:100000:65536", "ann", 1000), subordinate_ids("", "ann", 1000)
    (True, False)
    """
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        count = rest.rpartition(":")[2].strip()
        if name in (user, str(uid)) and count.isdecimal() and int(count) >= _SUBORDINATE:
            return True
    return False


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program that was tried wrote, and why it failed if it did."""

    text: str
    problem: str = ""

    @property
    def failed(self) -> bool:
        """Whether it failed."""
        return bool(self.problem)


def run_program(command: Sequence[str]) -> Outcome:
    """Run a program to its end, for :data:`SECONDS` at most."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Outcome("", f"it did not answer within {SECONDS} s")
    except OSError as error:
        return Outcome("", error.strerror or str(error))
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    problem = (lines[-1] if lines else f"status {done.returncode}") if done.returncode else ""
    return Outcome(done.stdout, problem[:_LONGEST])


def _python(version: tuple[int, ...]) -> Check:
    found = ".".join(str(part) for part in version)
    oldest, beyond = PYTHONS
    if oldest <= version[:2] < beyond:
        return Check("python", "ok", found)
    return Check("python", "broken", found, "install mlpack under Python 3.11, 3.12 or 3.13")


def _project(directory: Path, *, deep: bool) -> Iterator[Check]:
    try:
        project = ProjectDirectory.find(directory)
        recipe = project.settings
    except NotAProject as error:
        yield Check("project", "missing", str(error), error.hint)
        return
    except MlpackError as error:
        yield Check("project", "broken", str(error), error.hint)
        return
    yield Check("project", "ok", f"model {recipe.model} in {project.root.resolve()}")
    yield from _files(project, recipe)
    lock = yield from _lock(project)
    if recipe.base.source.startswith("debian:"):
        yield _mmdebstrap(needed=lock is None)
    if lock is not None:
        yield _base(project, lock)
    yield _store(project, deep=deep)


def _files(project: ProjectDirectory, recipe: ProjectSettings) -> Iterator[Check]:
    named = {"scoring": recipe.scoring, "requirements": recipe.base.requirements}
    for setting, name in named.items():
        if not name:
            continue
        try:
            there = project.path(name).is_file()
        except MlpackError as error:
            yield Check(setting, "broken", str(error), error.hint)
            continue
        advice = "" if there else f"write it, or correct {setting} in mlpack.toml"
        yield Check(setting, "ok" if there else "broken", name if there else f"no {name}", advice)


def _lock(project: ProjectDirectory) -> Generator[Check, None, Lock | None]:
    try:
        lock = project.lock()
    except NoBase as error:
        yield Check("lock", "missing", "no mlpack.lock", error.hint)
        return None
    except MlpackError as error:
        yield Check("lock", "broken", str(error), error.hint)
        return None
    yield Check("lock", "ok", f"base {lock.base.index.digest.short}, its checksum is right")
    return lock


def _mmdebstrap(*, needed: bool) -> Check:
    """Check for what makes the Debian part of a base, with apt's check of signatures."""
    place = find_program("mmdebstrap")
    if place and not is_root() and find_program("newuidmap") is None:
        return Check(
            "mmdebstrap",
            "broken" if needed else "missing",
            f"{place}, but no newuidmap, which it needs unless you are root",
            "apt-get install uidmap, or build the base as root",
        )
    if place:
        return Check("mmdebstrap", "ok", str(place))
    return Check(
        "mmdebstrap",
        "broken" if needed else "missing",
        "not installed",
        "to build a base from Debian: apt-get install mmdebstrap",
    )


def _base(project: ProjectDirectory, lock: Lock) -> Check:
    advice = "run: mlpack base build (it makes the locked digests again)"
    try:
        lacking = [e for e in walk(project.layout, lock.base.index) if not project.layout.exists(e)]
    except NotFound:
        return Check("base", "missing", "the locked base is not in the store", advice)
    except MlpackError as error:
        return Check("base", "broken", str(error), advice)
    if lacking:
        return Check("base", "missing", f"{len(lacking)} blobs are not in the store", advice)
    return Check("base", "ok", ", ".join(str(each.platform) for each in lock.base.platforms))


def _store(project: ProjectDirectory, *, deep: bool) -> Check:
    try:
        count = len(project.layout.entries())
        problems = validate(project.layout) if deep else missing_blobs(project.layout)
    except MlpackError as error:
        return Check("store", "broken", str(error), error.hint)
    if problems:
        advice = "build or register again what is named here; a base with: mlpack base build"
        return Check("store", "broken", "; ".join(problems), advice)
    read = "every byte read" if deep else "sizes compared; --deep reads every byte"
    return Check("store", "ok", f"{count} names, {read}")


def find_program(name: str) -> Path | None:
    """Return the path of the program ``name``, if it is installed."""
    found = shutil.which(name)
    return Path(found) if found else None


def is_root() -> bool:
    """Whether this process runs as root."""
    return os.geteuid() == 0


def free_bytes(path: Path) -> int:
    """Return the bytes free at ``path``, or at the nearest folder above it that exists."""
    existing = next(each for each in (path, *path.resolve().parents) if each.exists())
    return shutil.disk_usage(existing).free
