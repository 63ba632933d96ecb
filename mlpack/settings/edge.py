"""``[edge]`` and ``[module]``: what IoT Edge devices run with the release, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from mlpack.oci.descriptor import InvalidContent, Node
from mlpack.settings.reader import (
    choice,
    filled,
    finite,
    integer,
    json_table,
    listed,
    matching,
    parse_size,
    parse_time,
    parsed,
    read_table,
    setting,
    settings_table,
    table,
    tables,
    text,
    texts,
)

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
"""The least memory Docker gives a container."""

MIN_CPUS, MAX_CPUS = Decimal("0.01"), 1024
"""Docker takes no less."""

ALL_GPUS = -1
MAX_GPUS = 64
MAX_PORT = 65535

_PORT = re.compile(r"(?:(?:[0-9.]+|\[[0-9a-fA-F:]+\]):)?([0-9]+):([0-9]+)(?:/(?:tcp|udp|sctp))?")


def _seconds(node: Node) -> int:
    found = parsed(parse_time)(node)
    if found > MAX_KEEP_SECONDS:
        raise InvalidContent(node.where, f"is more than {MAX_KEEP_SECONDS} seconds")
    return found


def read_memory(node: Node) -> int:
    """Read bytes of memory that an engine gives a container."""
    found = parsed(parse_size)(node)
    if found < MIN_MEMORY_BYTES:
        raise InvalidContent(node.where, f"is {found} bytes, and engines give {MIN_MEMORY_BYTES}")
    return found


def read_cpus(node: Node) -> Decimal:
    """Read a number of processors, to a thousandth."""
    value = node.value
    number = isinstance(value, int | float) and not isinstance(value, bool) and finite(value)
    found = Decimal(str(value)) if number else Decimal(-1)
    if not MIN_CPUS <= found <= MAX_CPUS or found != round(found, 3):
        hint = "write it as 0.5 or 2: processors, with at most three decimals"
        raise InvalidContent(
            node.where, f"is {value!r}, and not {MIN_CPUS} to {MAX_CPUS}", hint=hint
        )
    return found


def _gpu(node: Node) -> int:
    if isinstance(node.value, bool):
        return ALL_GPUS if node.value else 0
    return node.integer(maximum=MAX_GPUS)


def _port(node: Node) -> str:
    matched = _PORT.fullmatch(node.text())
    if not matched or not all(1 <= int(each) <= MAX_PORT for each in matched.groups()):
        hint = 'write it as "8080:80", "127.0.0.1:8080:80" or "5353:53/udp"'
        raise InvalidContent(node.where, f"{node.value!r} is not HOST:CONTAINER", hint=hint)
    return node.text()


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where the value of a secret variable comes from: the environment, or a file."""

    kind: str
    """``env`` or ``file``."""

    name: str
    """The variable's name, or the file's path, relative to the project."""

    @property
    def placeholder(self) -> str:
        """What a manifest has in place of the value.

        >>> SecretSource("env", "KEY").placeholder, SecretSource("file", "a.key").placeholder
        ('${KEY}', '<file:a.key>')
        """
        return f"${{{self.name}}}" if self.kind == "env" else f"<file:{self.name}>"


_SOURCE = re.compile(r"(env):([A-Za-z_][A-Za-z0-9_]*)|(file):([^<>\x00-\x1f]+)")


def _source(node: Node) -> SecretSource:
    matched = _SOURCE.fullmatch(node.text())
    if not matched:
        # Not repeated in the message: it may be the secret itself.
        hint = 'write it as "env:NAME" or "file:PATH": secrets stay out of mlpack.toml'
        raise InvalidContent(node.where, "is not where a secret comes from", hint=hint)
    kind, name = (each for each in matched.groups() if each)
    return SecretSource(kind, name)


_mount = matching(
    r"(?:/[^:]*|[A-Za-z0-9][A-Za-z0-9_.-]*):/[^:]*(?::[a-zA-Z,]+)?",
    "a mount",
    'write it as "/data:/data:ro", or "NAME:/data" for a volume of the engine',
)


@settings_table
class ContainerSettings:
    """The settings of every module: those of ``[module]`` and of ``[edge.modules.NAME]``."""

    env: Mapping[str, str] = setting(
        texts, "variables of the module; never a password or key", factory=dict
    )
    ports: tuple[str, ...] = setting(
        listed(_port),
        'more ports of the device: `"8080:80"`, `"127.0.0.1:8080:80"`, `"5353:53/udp"`',
        default=(),
    )
    mounts: tuple[str, ...] = setting(
        listed(_mount),
        '`"/data:/data:ro"`, or `"NAME:/data"` for a volume of the engine',
        default=(),
    )
    memory: int = setting(
        read_memory,
        'most memory the module may use: `"512 MB"`, `"1 GiB"`',
        default=0,
        shown="no limit",
    )
    cpus: Decimal = setting(
        read_cpus,
        "most processors the module may use, to a thousandth: `0.5`, `2`",
        default=Decimal(0),
        shown="no limit",
    )
    gpu: int = setting(
        _gpu, "`true` for every GPU of the device, or how many", default=0, shown="`false`"
    )
    options: Mapping[str, object] = setting(
        json_table,
        "container settings in the engine's terms (Docker API, `ContainerCreate`); they "
        "override those above",
        factory=dict,
    )
    startup_order: int = setting(
        integer(maximum=MAX_STARTUP_ORDER),
        "modules with a lower number start first; the hub on the device has 0",
        default=1,
    )
    restart: str = setting(
        choice(
            "always",
            "never",
            hint="edgeAgent does not implement on-failure and on-unhealthy: use always, with "
            "a Healthcheck in options",
        ),
        "`always` or `never`; edgeAgent does not implement the others",
        default="always",
    )
    pull: str = setting(
        choice("on-create", "never"),
        "`on-create`, or `never` if images are brought to the device by hand",
        default="on-create",
    )
    twin: Mapping[str, object] = setting(
        json_table, "the module's own desired properties", factory=dict
    )


@settings_table
class ModuleSettings(ContainerSettings):
    """``[module]``: the IoT Edge module that runs the release."""

    name: str = setting(text, "id of the IoT Edge module", default="", shown="the model's name")
    port: int = setting(
        integer(1, MAX_PORT), "port of the device that the module answers on", default=5001
    )


@settings_table
class EdgeModuleSettings(ContainerSettings):
    """``[edge.modules.NAME]``: a module next to the release's."""

    image: str = setting(
        text, "its image as edgeAgent reads it; `$upstream:443/…` fetches through a parent device"
    )
    version: str = setting(text, "shown in the device's reports", default="", shown="none")
    secret_env: Mapping[str, SecretSource] = setting(
        tables(_source),
        'variables whose values are secret, each from `"env:NAME"` or `"file:PATH"`: filled in by '
        "`--with-secrets` and `mlpack deploy`, a placeholder everywhere else",
        factory=dict,
    )


@settings_table
class RouteSettings:
    """``[edge.routes.NAME]``, or a text there: which messages go where."""

    route: str = setting(text, "`FROM … WHERE … INTO …`")
    priority: int | None = setting(
        integer(maximum=MAX_PRIORITY), "0, first, to 9", default=None, shown="last"
    )
    keep_seconds: int = setting(
        _seconds, "how long its messages wait", default=0, shown="`[edge] keep`", key="keep"
    )


def _edge_module(node: Node) -> EdgeModuleSettings:
    found: EdgeModuleSettings = read_table(node, EdgeModuleSettings)
    for name in found.secret_env:
        if name in found.env:
            raise InvalidContent(
                f"{node.where}.secret_env.{name}", "is in env, too", hint="keep one of the two"
            )
    return found


def _route(node: Node) -> RouteSettings:
    if isinstance(node.value, str):
        return RouteSettings(route=node.value)
    return read_table(node, RouteSettings)


@settings_table
class SystemModuleSettings:
    """``[edge.agent]`` or ``[edge.hub]``: one of the two modules of the runtime."""

    image: str = setting(
        text, "a mirror, or a digest", default="", shown="Microsoft's at `[edge] version`"
    )
    env: Mapping[str, str] = setting(texts, "its variables, over those mlpack sets", factory=dict)
    options: Mapping[str, object] | None = setting(
        json_table, "its container settings, instead of mlpack's", default=None, shown="mlpack's"
    )
    schema: str = setting(filled, "version of its desired properties' schema", default=SCHEMA)


@settings_table
class RegistryLogin:
    """``[edge.registries.NAME]``: what devices log in with; placeholders, never a password."""

    address: str = setting(text, "host of the registry")
    username: str = setting(text, "the user")
    password: str = setting(
        # Not repeated in the message: it may be the password.
        matching(
            r"\$\{[A-Za-z_][A-Za-z0-9_]*\}",
            "a variable of the environment",
            'write it as "${ACR_PASSWORD}": passwords stay out of mlpack.toml',
            show=False,
        ),
        'a variable of the environment: `"${ACR_PASSWORD}"`',
    )


@settings_table
class EdgeSettings:
    """``[edge]``: the rest of a device's deployment."""

    version: str = setting(
        matching(
            r"[0-9]+\.[0-9]+\.[0-9]+(?:[-.][0-9A-Za-z.-]+)?",
            "a full version",
            'write it as "1.6.1": a tag such as 1.6 moves, and devices pay for it again',
        ),
        "version of edgeAgent and edgeHub, in full: a tag such as `1.6` moves, and devices "
        "fetch it again",
        default=SYSTEM_VERSION,
    )
    keep_seconds: int = setting(
        _seconds,
        "how long the hub on the device keeps messages while there is no connection",
        default=KEEP_SECONDS,
        shown='`"2h"`',
        key="keep",
    )
    agent: SystemModuleSettings = setting(
        table(SystemModuleSettings),
        "edgeAgent, a table `[edge.agent]`",
        factory=SystemModuleSettings,
    )
    hub: SystemModuleSettings = setting(
        table(SystemModuleSettings), "edgeHub, a table `[edge.hub]`", factory=SystemModuleSettings
    )
    modules: Mapping[str, EdgeModuleSettings] = setting(
        tables(_edge_module),
        "other modules, each a table `[edge.modules.NAME]`",
        factory=dict,
        shown="none",
    )
    routes: Mapping[str, RouteSettings] | None = setting(
        tables(_route),
        "routes by name, each a text or a table `[edge.routes.NAME]`; with this table there "
        "are no others",
        default=None,
        shown="the release's outputs go to IoT Hub",
    )
    registries: Mapping[str, RegistryLogin] = setting(
        tables(table(RegistryLogin)),
        "what devices log in with, each a table `[edge.registries.NAME]`",
        factory=dict,
        shown="none",
    )
