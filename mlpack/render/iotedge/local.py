"""A manifest's modules as containers here: what edgeAgent would ask a device's engine for.

The readings are edgeAgent's: the module's variables go over those in ``createOptions``,
modules without ``startupOrder`` come last, and names in ``createOptions`` have no case.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlpack.errors import MlpackError
from mlpack.oci.document import InvalidContent, Node, canonical
from mlpack.plan.containers import LocalModule
from mlpack.render.iotedge import create_options
from mlpack.render.iotedge.agent import MAX_STARTUP_ORDER
from mlpack.render.iotedge.docker_members import CONFIG, HOST_CONFIG
from mlpack.render.iotedge.manifest import AGENT, HUB, Manifest
from mlpack.render.iotedge.problem import InvalidDeployment, Problem
from mlpack.render.iotedge.secrets import CREDENTIALS, is_placeholder

RESTART = {"always": "always", "never": "no"}
"""``restartPolicy`` in Docker's words. No others pass the checks: edgeAgent has only these two."""

_TOP = {each.lower(): each for each in CONFIG}
_HOST = {each.lower(): each for each in HOST_CONFIG}


class NothingToRun(MlpackError):
    """A manifest with none but IoT Edge's own modules."""

    hint = "write one with a release in it: mlpack render NAME -o deployment.json"


@dataclass(frozen=True, slots=True)
class Login:
    """A registry's login in a manifest; what it holds is never shown."""

    address: str
    username: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def usable(self) -> bool:
        """Whether it is filled in: a variable is no password."""
        return not (is_placeholder(self.username) or is_placeholder(self.password))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of a manifest that means nothing without a device."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what} {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What of a manifest can run here, and what cannot."""

    modules: tuple[LocalModule, ...]
    logins: tuple[Login, ...]
    skipped: tuple[Skipped, ...]

    def login(self, image: str) -> Login | None:
        """The login for the registry of ``image``."""
        registry = image.partition("/")[0] if "/" in image else ""
        return next((each for each in self.logins if each.address == registry), None)


def read_local(manifest: Manifest) -> Local:
    """Read a manifest that was checked.

    Raises :class:`NothingToRun`, and :class:`InvalidDeployment` for a module that a layered
    deployment gives only in part: the rest of it is in a base deployment.
    """
    modules = tuple(_module(name, node) for name, node in (manifest.modules or {}).items())
    if not modules:
        raise NothingToRun("the deployment has no module but IoT Edge's own")
    return Local(
        modules=modules, logins=tuple(_logins(manifest)), skipped=tuple(_skipped(manifest))
    )


def _module(name: str, node: Node) -> LocalModule:
    settings = node.get("settings")
    image = settings.get("image") if settings else None
    if settings is None or image is None:
        what = "gives no image: this deployment changes only a part of the base deployment's module"
        raise InvalidDeployment([Problem(node.where, what)])
    order, status, pull = (node.get(key) for key in ("startupOrder", "status", "imagePullPolicy"))
    return LocalModule(
        name=name,
        image=image.text().strip(),
        options=_options(node, settings),
        order=order.integer(maximum=MAX_STARTUP_ORDER) if order else MAX_STARTUP_ORDER,
        running=status is None or status.text() == "running",
        pull=pull is None or pull.text() != "never",
    )


def _options(node: Node, settings: Node) -> dict[str, object]:
    """``createOptions`` in Docker's own spelling, with what stands beside them put in."""
    there = create_options.join(settings)
    options = _spelled(there.mapping(), _TOP)
    host = Node(options.get("HostConfig") or {}, f"{there.where}.HostConfig").mapping()
    restart = node.get("restartPolicy")
    policy = {"Name": RESTART[restart.text() if restart else "always"]}
    options["HostConfig"] = {**_spelled(host, _HOST), "RestartPolicy": policy}
    if env := _env(Node(options.get("Env") or [], f"{there.where}.Env"), node.get("env")):
        options["Env"] = env
    try:
        canonical(options)
    except ValueError as error:
        raise InvalidContent(there.where, f"holds a number that is none ({error})") from error
    return options


def _spelled(options: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    return {
        names.get(key.lower(), key): value for key, value in options.items() if value is not None
    }


def _env(options: Node, module: Node | None) -> list[str]:
    pairs = (each.partition("=") for each in options.texts())
    found = {name: f"{name}{equals}{value}" for name, equals, value in pairs}
    for name, node in module.items() if module else ():
        value = node.get("value")
        found[name] = f"{name}={_text(value.value if value else '')}"
    return list(found.values())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _logins(manifest: Manifest) -> Iterator[Login]:
    found: Node | None = manifest.sections[AGENT].desired
    for key in ("runtime", "settings", CREDENTIALS):
        found = found.get(key) if found else None
    for _, login in found.items() if found else ():
        address, username, password = (
            login.need(key).text().strip() for key in ("address", "username", "password")
        )
        yield Login(address, username, password)


def _skipped(manifest: Manifest) -> Iterator[Skipped]:
    system = manifest.sections[AGENT].desired.get("systemModules")
    for name, _ in system.items() if system else ():
        yield Skipped(name, "is not started: it needs an IoT Edge device")
    hub = manifest.sections.get(HUB)
    routes = hub.desired.get("routes") if hub else None
    for name, node in routes.items() if routes else ():
        route = node.get("route") if isinstance(node.value, dict) else node
        yield Skipped(f"route {name}", f"is skipped, there is no edgeHub: {_one(route)}")
    for name in manifest.sections:
        if name not in (AGENT, HUB):
            yield Skipped(f"twin of {name}", "is not delivered: there is no edgeHub")


def _one(route: Node | None) -> str:
    return " ".join(route.text().split()) if route else ""
