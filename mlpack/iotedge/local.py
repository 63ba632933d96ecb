"""A manifest's modules as containers of one machine: what edgeAgent would ask an engine for.

The rules are edgeAgent's: the module's variables take precedence over those in
``createOptions``, modules without ``startupOrder`` start last, and names in ``createOptions``
are not case-sensitive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlpack.errors import MlpackError
from mlpack.iotedge.manifest import (
    AGENT,
    CONFIG,
    HOST_CONFIG,
    HUB,
    InvalidDeployment,
    Manifest,
    Problem,
)
from mlpack.iotedge.module import join_options
from mlpack.iotedge.secrets import CREDENTIALS, is_placeholder
from mlpack.iotedge.shapes import MAX_STARTUP_ORDER
from mlpack.oci.descriptor import InvalidContent, Node

RESTART = {"always": "always", "never": "no"}
"""``restartPolicy`` in Docker's terms; the checks refuse the others, which edgeAgent lacks."""

_TOP = {each.lower(): each for each in CONFIG}
_HOST = {each.lower(): each for each in HOST_CONFIG}


class NothingToRun(MlpackError):
    """A manifest without a module that can run here."""

    hint = "write one with a release in it: mlpack render NAME -o deployment.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModule:
    """A module as its manifest describes it."""

    name: str
    image: str
    """As written in the manifest."""

    options: Mapping[str, object]
    """Docker's ``ContainerCreate`` request, in Docker's spelling."""

    where: str
    """The path of ``options`` in the manifest."""

    env: Mapping[str, str]
    restart: str = "always"
    """The restart policy in Docker's terms."""

    order: int = MAX_STARTUP_ORDER
    pull: bool = True
    """Whether an engine that lacks the image may pull it."""


@dataclass(frozen=True, slots=True)
class Login:
    """A registry's login in a manifest; its values are never shown."""

    address: str
    username: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def usable(self) -> bool:
        """Whether user name and password are filled in, not variables."""
        return not (is_placeholder(self.username) or is_placeholder(self.password))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of a manifest that is left out here."""

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

    Raises :class:`NothingToRun`, and :class:`InvalidDeployment` for a module of a layered
    deployment whose image is in the base deployment.
    """
    modules = tuple(
        _module(name, node) for name, node in (manifest.modules or {}).items() if _runs(node)
    )
    if not modules:
        raise NothingToRun("the deployment has no modules except IoT Edge's own")
    return Local(
        modules=modules, logins=tuple(_logins(manifest)), skipped=tuple(_skipped(manifest))
    )


def _runs(node: Node) -> bool:
    status = node.get("status")
    return status is None or status.text() == "running"


def _module(name: str, node: Node) -> LocalModule:
    settings = node.get("settings")
    image = settings.get("image") if settings else None
    if settings is None or image is None:
        what = "has no image: this deployment changes only a part of the base deployment's module"
        raise InvalidDeployment([Problem(node.where, what)])
    order, restart, pull = (
        node.get(key) for key in ("startupOrder", "restartPolicy", "imagePullPolicy")
    )
    options = join_options(settings)
    top = _spelled(options.mapping(), _TOP)
    if top.get("HostConfig") is not None:
        host = Node(top["HostConfig"], f"{options.where}.HostConfig")
        top["HostConfig"] = _spelled(host.mapping(), _HOST)
    return LocalModule(
        name=name,
        image=image.text().strip(),
        options=top,
        where=options.where,
        env=_env(Node(top.get("Env") or [], f"{options.where}.Env"), node.get("env")),
        restart=RESTART[restart.text() if restart else "always"],
        order=order.integer(maximum=MAX_STARTUP_ORDER) if order else MAX_STARTUP_ORDER,
        pull=pull is None or pull.text() != "never",
    )


def _spelled(options: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    return {
        names.get(key.lower(), key): value for key, value in options.items() if value is not None
    }


def _env(options: Node, module: Node | None) -> dict[str, str]:
    found = {}
    for each in options.elements():
        name, equals, value = each.text().partition("=")
        if not equals:
            raise InvalidContent(each.where, f"{name!r} has no value (write {name}=)")
        found[name] = value
    for name, node in module.items() if module else ():
        given = node.get("value")
        text = given.value if given else ""
        found[name] = text if isinstance(text, str) else json.dumps(text)
    return found


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
    for name, node in (manifest.modules or {}).items():
        if not _runs(node):
            yield Skipped(f"module {name}", "is not started: its status is stopped")
    hub = manifest.sections.get(HUB)
    routes = hub.desired.get("routes") if hub else None
    for name, node in routes.items() if routes else ():
        route = node.get("route") if isinstance(node.value, dict) else node
        yield Skipped(
            f"route {name}", f"is skipped, because edgeHub does not run here: {_one(route)}"
        )
    for name in manifest.sections:
        if name not in (AGENT, HUB):
            yield Skipped(f"twin of {name}", "is not delivered, because edgeHub does not run here")


def _one(route: Node | None) -> str:
    return " ".join(route.text().split()) if route else ""
