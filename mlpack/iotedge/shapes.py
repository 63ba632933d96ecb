"""The shapes of ``$edgeAgent`` and ``$edgeHub`` as data, and the walk that checks against them.

Rules and their sources: IoT Edge's schemas 1.0 to 1.3, the sources of edgeAgent and edgeHub
1.6, and Microsoft Learn, "limits and restrictions" (2025-07). The public JSON schemas accept
much that a device refuses: ``repository:tag@digest``, text that is not a route, schema version 9.9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from mlpack.humanize import nearest
from mlpack.iotedge.manifest import InvalidRoute, Problem, parse_route
from mlpack.iotedge.module import host_ports, is_options_member, join_options
from mlpack.oci.descriptor import InvalidContent, Node

AGENT_SCHEMAS, HUB_SCHEMAS = ("1.0", "1.1"), ("1.0", "1.1", "1.2", "1.3")
MAX_MODULES = 50
"""Modules a deployment may hold (Microsoft Learn, IoT Hub quotas)."""

MAX_STARTUP_ORDER = MAX_SECONDS = 4294967295
MAX_PRIORITY = 9
FOREVER = -1
"""A time to live of storeAndForwardConfiguration that never ends."""

PLACEHOLDER = re.compile(r"\$\{[^}]*\}")
"""A variable that a tool should have filled in before."""

# edgeAgent's own pattern (Azure/iotedge, DockerConfig.cs): one colon at most after the last
# slash, so repository:tag@sha256:… is refused by the device although the schemas take it.
_EDGE_AGENT_IMAGE = re.compile(r"(?:[^/]*/)*[^/:]+(?::[^/:]+)?")
_PARENT = re.compile(r"\$upstream(?=:[1-9])")

# What the engine takes (distribution reference.go).
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAIL = r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})?"
_ENGINE_IMAGE = re.compile(rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*{_TAIL}")


@dataclass(frozen=True, slots=True)
class Value:
    """Any value that ``check`` does not raise ``InvalidContent`` for."""

    check: Callable[[Node], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class Text:
    """A string; ``problem`` returns what is wrong with one, or nothing."""

    problem: Callable[[str], str] = lambda _: ""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from ``minimum`` to ``maximum``."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Members:
    """An object with these members, and ``others`` by name; ``check`` looks at it as a whole."""

    required: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)
    others: Callable[[str], bool] = lambda _: False
    check: Callable[[Node], object] = lambda _: None
    """Raises ``InvalidContent``."""


@dataclass(frozen=True, slots=True)
class Each:
    """An object of any names that match, all of one shape."""

    shape: Shape
    name: re.Pattern[str]
    what: str
    """What a name is, for messages: ``a module id (letters, digits, _ and -)``."""

    most: int | None = None


@dataclass(frozen=True, slots=True)
class Either:
    """An object of one shape, or any other value of another."""

    object: Shape
    other: Shape


Shape = Value | Text | Whole | Members | Each | Either


def shape_problems(node: Node, shape: Shape) -> Iterator[Problem]:
    """Yield every difference between a value and its shape."""
    try:
        yield from _SHAPES[type(shape)](node, shape)
    except InvalidContent as error:
        yield Problem(error.where, error.problem)


def _value(node: Node, shape: Value) -> Iterator[Problem]:
    shape.check(node)
    yield from ()


def _text(node: Node, shape: Text) -> Iterator[Problem]:
    if what := shape.problem(node.text()):
        yield Problem(node.where, what)


def _whole(node: Node, shape: Whole) -> Iterator[Problem]:
    node.integer(minimum=shape.minimum, maximum=shape.maximum)
    yield from ()


def _members(node: Node, shape: Members) -> Iterator[Problem]:
    known = {**shape.required, **shape.optional}
    for key in shape.required:
        if node.get(key) is None:
            yield Problem(node.where, f"{key!r} is missing")
    for key, value in node.items():
        if key not in known and not shape.others(key):
            yield Problem(value.where, f"is not a known member{nearest(key, known)}")
    for key, inner in known.items():
        found = node.get(key)
        if found is not None:
            yield from shape_problems(found, inner)
    shape.check(node)


def _each(node: Node, shape: Each) -> Iterator[Problem]:
    count = len(node.mapping())
    if shape.most is not None and count > shape.most:
        yield Problem(node.where, f"has {count} modules; a deployment may have {shape.most}")
    for name, value in node.items():
        if not shape.name.fullmatch(name):
            yield Problem(value.where, f"{name!r} is not {shape.what}")
        yield from shape_problems(value, shape.shape)


def _either(node: Node, shape: Either) -> Iterator[Problem]:
    return shape_problems(node, shape.object if isinstance(node.value, dict) else shape.other)


_SHAPES: Mapping[type, Callable[..., Iterator[Problem]]] = {
    Value: _value, Text: _text, Whole: _whole,
    Members: _members, Each: _each, Either: _either,
}  # fmt: skip


def _one_of(*allowed: str) -> Text:
    return Text(lambda text: "" if text in allowed else f"is {text!r}, not {' or '.join(allowed)}")


def _schema(*known: str) -> Text:
    """A ``schemaVersion``: the device answers 412 to one it does not know."""

    def problem(text: str) -> str:
        if found := PLACEHOLDER.search(text):
            return f"holds {found[0]}, a placeholder that was not filled in"
        return "" if text in known else f"is {text!r}; devices support {', '.join(known)}"

    return Text(problem)


def _restart_problem(text: str) -> str:
    if text in ("on-failure", "on-unhealthy"):
        advice = "use always, and a Healthcheck in createOptions"
        return f"is {text!r}, which edgeAgent does not implement: {advice}"
    return _one_of("always", "never").problem(text)


def image_problem(text: str) -> str:
    """Return what is wrong with an image's name; an empty text if edgeAgent accepts it.

    >>> image_problem("registry.example.com/fan:3@sha256:" + "0" * 64)
    'has a tag and a digest, which edgeAgent refuses: write repository@sha256:…'
    """
    name = text.strip()
    if not name:
        return "is empty"
    if found := PLACEHOLDER.search(name):
        return f"holds {found[0]}, a placeholder that was not filled in"
    if name.startswith("$"):
        if not _PARENT.match(name):
            return f"{name!r} must be $upstream:PORT/… (edgeAgent needs the port)"
        name = _PARENT.sub("parent", name, count=1)
    repository, at, _ = name.rpartition("/")[2].partition("@")
    if at and ":" in repository:
        return "has a tag and a digest, which edgeAgent refuses: write repository@sha256:…"
    if not _EDGE_AGENT_IMAGE.fullmatch(name) or not _ENGINE_IMAGE.fullmatch(name):
        return f"{name!r} is not an image name (REGISTRY/NAME:TAG or …@sha256:…, in lower case)"
    return ""


def _route_problem(text: str) -> str:
    try:
        parse_route(text)
    except InvalidRoute as error:
        return str(error)
    return ""


def _scalar(node: Node) -> None:
    if not isinstance(node.value, str | int | float | bool):
        raise InvalidContent(node.where, "is not a text, a number or a boolean")


_NOT_EMPTY = Text(lambda text: "" if text.strip() else "is empty")
_NAME = re.compile(r"[^.$# ]+")
_SETTINGS = Members(
    {"image": Text(image_problem)},
    # edgeAgent ignores env here; older tutorials have it, so it is a warning.
    {"digest": Value(), "env": Value()},
    others=is_options_member,
    check=lambda node: list(host_ports(join_options(node))),
)
_ENV = Each(
    Members({"value": Value(_scalar)}),
    re.compile(r"[^+#$.\s]+"),
    "a variable name (no + # $ dot or space)",
)
_REQUIRED: Mapping[str, Shape] = {
    "type": _one_of("docker"),
    "status": _one_of("running", "stopped"),
    "restartPolicy": Text(_restart_problem),
    "settings": _SETTINGS,
}
_OPTIONAL: Mapping[str, Shape] = {
    "imagePullPolicy": _one_of("on-create", "never"),
    "startupOrder": Whole(0, MAX_STARTUP_ORDER),
    "version": Text(),
    "env": _ENV,
}
_CREDENTIALS = Each(
    Members({"address": _NOT_EMPTY, "username": _NOT_EMPTY, "password": _NOT_EMPTY}),
    _NAME,
    "a name (no dot, $, # or space)",
)
_RUNTIME = Members(
    {
        "type": _one_of("docker"),
        "settings": Members(
            {},
            {
                "minDockerVersion": Text(),
                "loggingOptions": Text(),
                "registryCredentials": _CREDENTIALS,
            },
        ),
    }
)
LAYERED_RUNTIME = Members(
    {},
    {"settings": Members({}, {"registryCredentials": _CREDENTIALS}, others=lambda _: True)},
    others=lambda _: True,
)
MODULE = Members(_REQUIRED, _OPTIONAL)
MODULE_PART = Members({}, {**_REQUIRED, **_OPTIONAL})
"""What a layered deployment changes of a module of the base deployment."""

MODULES = Each(
    MODULE,
    re.compile(r"[a-zA-Z0-9_-]+"),
    "a module id (letters, digits, _ and -)",
    most=MAX_MODULES,
)
_HUB_OPTIONAL = {key: _OPTIONAL[key] for key in ("env", "imagePullPolicy", "startupOrder")}
# No status, no restart policy: edgeAgent is kept running by the daemon.
_AGENT_MODULE = Members(
    {key: _REQUIRED[key] for key in ("type", "settings")},
    {key: _OPTIONAL[key] for key in ("env", "imagePullPolicy")},
)
AGENT_SHAPE = Members(
    {
        "schemaVersion": _schema(*AGENT_SCHEMAS),
        "runtime": _RUNTIME,
        "systemModules": Members(
            {"edgeAgent": _AGENT_MODULE, "edgeHub": Members(_REQUIRED, _HUB_OPTIONAL)}
        ),
        "modules": MODULES,
    }
)
_ROUTE = Text(_route_problem)
_ROUTE_OPTIONS = {"priority": Whole(0, MAX_PRIORITY), "timeToLiveSecs": Whole(0, MAX_SECONDS)}
ROUTES = Each(
    Either(object=Members({"route": _ROUTE}, _ROUTE_OPTIONS), other=_ROUTE),
    _NAME,
    "a route name (no dot, $, # or space)",
)
_STORE = {"timeToLiveSecs": Whole(FOREVER, MAX_SECONDS)}
LAYERED_HUB = Members(
    {},
    {
        "routes": ROUTES,
        "storeAndForwardConfiguration": Members({}, {**_STORE, "storeLimits": Value()}),
    },
    others=lambda _: True,
)
HUB_SHAPE = Members(
    {"schemaVersion": _schema(*HUB_SCHEMAS), "routes": ROUTES},
    {
        "storeAndForwardConfiguration": Members(_STORE, {"storeLimits": Value()}),
        "mqttBroker": Value(),
        "integrations": Value(),
    },
)
