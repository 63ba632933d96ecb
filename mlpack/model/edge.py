"""``[edge]`` and ``[module]``: what IoT Edge devices run beside the release, and how."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from math import isfinite
from typing import Any

from mlpack.model import amounts
from mlpack.model.table import filled, integer, known, parsed, table, text
from mlpack.oci.document import InvalidContent, Node

SYSTEM_VERSION = "1.6.1"
"""IoT Edge 1.6 is the long-term release (serviced to 2028-11-14; Azure/iotedge CHANGELOG,
2026-08-21). A full version, because a rolling tag fetched again costs bytes."""

SCHEMA = "1.1"
"""The least version with everything mlpack writes: startupOrder, and routes with priority.
A device answers 412 to one it does not know; 1.2 and 1.3 of ``$edgeHub`` add nothing used here."""

KEEP_SECONDS = 7200
MAX_KEEP_SECONDS = 4294967295
MAX_STARTUP_ORDER = 4294967295
MAX_PRIORITY = 9
MIN_MEMORY_BYTES = 6 * 1024 * 1024
"""What Docker gives a container at least."""

MIN_CPUS, MAX_CPUS = Decimal("0.01"), 1024
"""Docker takes no less."""

ALL_GPUS = -1
MAX_GPUS = 64

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:[-.][0-9A-Za-z.-]+)?")
_PORT = re.compile(r"(?:(?:[0-9.]+|\[[0-9a-fA-F:]+\]):)?([0-9]+):([0-9]+)(?:/(?:tcp|udp|sctp))?")
_MOUNT = re.compile(r"(?:/[^:]*|[A-Za-z0-9][A-Za-z0-9_.-]*):/[^:]*(?::[a-zA-Z,]+)?")
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What every module may be told; each setting is one of ``[module]`` too."""

    env: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    """Container settings in the engine's words (Docker API, ``ContainerCreate``); they go
    before all that the other settings make of them."""

    ports: tuple[str, ...] = ()
    """``[ADDRESS:]HOST:CONTAINER[/udp]``."""

    mounts: tuple[str, ...] = ()
    """``/HOST:/CONTAINER[:ro]`` or ``VOLUME:/CONTAINER``."""

    memory: int = 0
    """Bytes the module may use; 0 for no limit."""

    cpus: Decimal = Decimal(0)
    """Processors the module may use, to a thousandth; 0 for no limit."""

    gpu: int = 0
    """GPUs of the device the module gets; :data:`ALL_GPUS` for all."""

    startup_order: int = 1
    restart: str = "always"
    pull: str = "on-create"
    twin: Mapping[str, object] = field(default_factory=dict)
    """The module's own desired properties."""


CONTAINER_KEYS = (
    "env", "options", "ports", "mounts", "memory", "cpus",
    "gpu", "startup_order", "restart", "pull", "twin",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRecipe(Container):
    """``[module]``: the IoT Edge module that runs the release."""

    name: str = ""
    port: int = 5001


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeModule(Container):
    """``[edge.modules.NAME]``: a module beside the release's."""

    image: str
    """As edgeAgent reads it; ``$upstream:443/…`` fetches through a parent device."""

    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRoute:
    """``[edge.routes.NAME]``, or a text there: which messages go where."""

    route: str
    priority: int | None = None
    keep_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemModule:
    """``[edge.agent]`` or ``[edge.hub]``: one of the two modules of the runtime."""

    image: str = ""
    """Instead of Microsoft's own at ``[edge] version``, for a mirror or a digest."""

    env: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] | None = None
    """Instead of those mlpack writes."""

    schema: str = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLogin:
    """``[edge.registries.NAME]``: what devices log in with; placeholders, never a password."""

    address: str
    username: str
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRecipe:
    """``[edge]``: the rest of a device's deployment."""

    version: str = SYSTEM_VERSION
    keep_seconds: int = KEEP_SECONDS
    """How long the hub on the device keeps messages while there is no connection."""

    agent: SystemModule = field(default_factory=SystemModule)
    hub: SystemModule = field(default_factory=SystemModule)
    registries: Mapping[str, RegistryLogin] = field(default_factory=dict)
    modules: Mapping[str, EdgeModule] = field(default_factory=dict)
    routes: Mapping[str, EdgeRoute] | None = None
    """``None`` where nothing is said: the release's outputs then go to IoT Hub."""


EDGE_KEYS = ("version", "keep", "agent", "hub", "registries", "modules", "routes")
MODULE_KEYS = ("image", "version")
ROUTE_KEYS = ("route", "priority", "keep")
SYSTEM_KEYS = ("image", "env", "options", "schema")
REGISTRY_KEYS = ("address", "username", "password")


def read_module(root: Node) -> ModuleRecipe:
    """Read ``[module]`` of a whole ``mlpack.toml``."""
    node = table(root, "module", "name", "port", *CONTAINER_KEYS)
    return ModuleRecipe(
        name=text(node, "name", ""),
        port=integer(node, "port", 5001, minimum=1, maximum=_MAX_PORT),
        **_container(node),
    )


def read_edge(root: Node) -> EdgeRecipe:
    """Read ``[edge]`` of a whole ``mlpack.toml``."""
    node = table(root, "edge", *EDGE_KEYS)
    version = filled(node, "version", SYSTEM_VERSION)
    if not _VERSION.fullmatch(version):
        raise InvalidContent(
            f"{node.where}.version",
            f"{version!r} is no full version",
            hint='write it as "1.6.1": a tag such as 1.6 moves, and devices pay for it again',
        )
    modules, routes, logins = (node.get(key) for key in ("modules", "routes", "registries"))
    return EdgeRecipe(
        version=version,
        keep_seconds=_seconds(node.get("keep"), KEEP_SECONDS),
        agent=_system(table(node, "agent", *SYSTEM_KEYS)),
        hub=_system(table(node, "hub", *SYSTEM_KEYS)),
        registries={name: _login(each) for name, each in logins.items()} if logins else {},
        modules={name: _module(each) for name, each in modules.items()} if modules else {},
        routes={name: _route(each) for name, each in routes.items()} if routes else None,
    )


def _module(node: Node) -> EdgeModule:
    known(node, *MODULE_KEYS, *CONTAINER_KEYS)
    return EdgeModule(
        image=node.need("image").text(), version=text(node, "version", ""), **_container(node)
    )


def _container(node: Node) -> dict[str, Any]:
    return {
        "env": _env(node),
        "options": _json(node, "options"),
        "ports": _listed(node, "ports", _port),
        "mounts": _listed(node, "mounts", _mount),
        "memory": _memory(node.get("memory")),
        "cpus": _cpus(node.get("cpus")),
        "gpu": _gpu(node.get("gpu")),
        "startup_order": integer(node, "startup_order", 1, maximum=MAX_STARTUP_ORDER),
        "restart": _choice(node, "restart", ("always", "never")),
        "pull": _choice(node, "pull", ("on-create", "never")),
        "twin": _json(node, "twin"),
    }


def _env(node: Node) -> Mapping[str, str]:
    found = node.get("env")
    return found.text_map() if found else {}


def _system(node: Node) -> SystemModule:
    return SystemModule(
        image=text(node, "image", ""),
        env=_env(node),
        options=_json(node, "options") if node.get("options") else None,
        schema=filled(node, "schema", SCHEMA),
    )


def _login(node: Node) -> RegistryLogin:
    known(node, *REGISTRY_KEYS)
    address, username, password = (node.need(key) for key in REGISTRY_KEYS)
    if not _VARIABLE.fullmatch(password.text()):
        # Not repeated in the message: it may be the password.
        raise InvalidContent(
            password.where,
            "is not a variable of the environment",
            hint='write it as "${ACR_PASSWORD}": mlpack.toml is no place for a password',
        )
    return RegistryLogin(address=address.text(), username=username.text(), password=password.text())


def _route(node: Node) -> EdgeRoute:
    if isinstance(node.value, str):
        return EdgeRoute(route=node.value)
    known(node, *ROUTE_KEYS)
    priority = node.get("priority")
    return EdgeRoute(
        route=node.need("route").text(),
        priority=priority.integer(maximum=MAX_PRIORITY) if priority else None,
        keep_seconds=_seconds(node.get("keep"), 0),
    )


def _seconds(node: Node | None, default: int) -> int:
    found = parsed(node, amounts.parse_time) if node else default
    if node and found > MAX_KEEP_SECONDS:
        raise InvalidContent(node.where, f"is more than {MAX_KEEP_SECONDS} seconds")
    return found


def _memory(node: Node | None) -> int:
    found = parsed(node, amounts.parse_size) if node else 0
    if node and found < MIN_MEMORY_BYTES:
        raise InvalidContent(node.where, f"is {found} bytes, and engines give {MIN_MEMORY_BYTES}")
    return found


def _cpus(node: Node | None) -> Decimal:
    if node is None:
        return Decimal(0)
    value = node.value
    number = isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)
    found = Decimal(str(value)) if number else Decimal(-1)
    if not MIN_CPUS <= found <= MAX_CPUS or found != round(found, 3):
        hint = "write it as 0.5 or 2: processors, with at most three decimals"
        raise InvalidContent(
            node.where, f"is {value!r}, and not {MIN_CPUS} to {MAX_CPUS}", hint=hint
        )
    return found


def _gpu(node: Node | None) -> int:
    if node is None or node.value is False:
        return 0
    return ALL_GPUS if node.value is True else node.integer(maximum=MAX_GPUS)


def _choice(node: Node, key: str, allowed: tuple[str, ...]) -> str:
    found = text(node, key, allowed[0])
    if found not in allowed:
        hint = "edgeAgent does not implement on-failure and on-unhealthy: use always, with a "
        hint += "Healthcheck in options"
        raise InvalidContent(
            f"{node.where}.{key}",
            f"is {found!r}, not {' or '.join(allowed)}",
            hint=hint if key == "restart" else "",
        )
    return found


def _listed(node: Node, key: str, check: Callable[[Node], str]) -> tuple[str, ...]:
    found = node.get(key)
    return tuple(check(each) for each in found.elements()) if found else ()


def _port(node: Node) -> str:
    matched = _PORT.fullmatch(node.text())
    if not matched or not all(1 <= int(each) <= _MAX_PORT for each in matched.groups()):
        hint = 'write it as "8080:80", "127.0.0.1:8080:80" or "5353:53/udp"'
        raise InvalidContent(node.where, f"{node.value!r} is not HOST:CONTAINER", hint=hint)
    return node.text()


def _mount(node: Node) -> str:
    if not _MOUNT.fullmatch(node.text()):
        hint = 'write it as "/data:/data:ro", or "NAME:/data" for a volume of the engine'
        raise InvalidContent(node.where, f"{node.value!r} is not a mount", hint=hint)
    return node.text()


def _json(node: Node, key: str) -> Mapping[str, object]:
    """A table that can be written as JSON: TOML has dates, which JSON has not."""
    found = node.get(key)
    if found is None:
        return {}
    _require_json(found)
    return found.mapping()


def _require_json(node: Node) -> None:
    if isinstance(node.value, dict):
        for _, each in node.items():
            _require_json(each)
    elif isinstance(node.value, list):
        for each in node.elements():
            _require_json(each)
    elif not isinstance(node.value, str | int | float) or not _finite(node.value):
        raise InvalidContent(node.where, "cannot be written as JSON", hint="write it as a text")


def _finite(value: object) -> bool:
    return not isinstance(value, float) or isfinite(value)
