"""Reading a deployment manifest, whole (base) or layered, and the routes in it.

A whole one has each module's desired properties under ``properties.desired``; a layered one
has parts of them under dotted keys (``properties.desired.modules.fan``). Both are read into
the same tree, so the checks, and the paths they name, are the same.

A route is ``FROM /messages/* WHERE temperature > 30 INTO $upstream``, after edgeHub's own grammar
(Azure/iotedge, Routing.Core/grammar/Route.g4, Condition.g4 and GrammarLexer.g4), its functions
(Query/ConditionVisitor.cs) and its EndpointFactory. One bad route makes edgeHub refuse its whole
configuration, so what it would refuse is refused here. Of conditions the form is checked; whether
two types compare is left to edgeHub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import MAX_DOCUMENT_BYTES, InvalidContent, Node
from mlpack.settings.condition import Condition, InvalidCondition
from mlpack.settings.grammar import GrammarError, Language, Tokens, expression

AGENT, HUB = "$edgeAgent", "$edgeHub"
DESIRED = "properties.desired"
ROOT = "deployment"
CONTENT, TARGET = "modulesContent", "targetCondition"
# Deployments of the preview service, and iotedgehubdev's still, have moduleContent.
_CONTENTS = (CONTENT, "moduleContent")
PLACES = tuple((*above, key) for above in ((), ("content",)) for key in _CONTENTS)
"""Paths of the modules: at the top, or inside the ``content`` of an IoT Hub configuration."""

MAX_PRIORITY = 2**31 - 1
MAX_LEVELS = 64
"""How deep a manifest may nest: far more than a twin's 10 levels and all around them."""

_HALF = re.compile("[\ud800-\udfff]")

# The members of Docker's ContainerCreate request (Engine API 1.41 to 1.51).
CONFIG = frozenset(
    """
    ArgsEscaped AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env ExposedPorts
    Healthcheck HostConfig Hostname Image Labels MacAddress NetworkDisabled NetworkingConfig OnBuild
    OpenStdin Shell StdinOnce StopSignal StopTimeout Tty User Volumes WorkingDir
    """.split()  # noqa: SIM905  (a list of one a line is 100 lines)
)

HOST_CONFIG = frozenset(
    """
    Annotations AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps
    BlkioDeviceWriteIOps BlkioWeight BlkioWeightDevice CapAdd CapDrop Capabilities Cgroup
    CgroupParent CgroupnsMode ConsoleSize ContainerIDFile CpuCount CpuPercent CpuPeriod CpuQuota
    CpuRealtimePeriod CpuRealtimeRuntime CpuShares CpusetCpus CpusetMems DeviceCgroupRules
    DeviceRequests Devices DiskQuota Dns DnsOptions DnsSearch ExtraHosts GroupAdd IOMaximumBandwidth
    IOMaximumIOps Init IpcMode Isolation KernelMemory KernelMemoryTCP Links LogConfig MaskedPaths
    Memory MemoryReservation MemorySwap MemorySwappiness Mounts NanoCPUs NanoCpus NetworkMode
    OomKillDisable OomScoreAdj PidMode PidsLimit PortBindings Privileged PublishAllPorts
    ReadonlyPaths ReadonlyRootfs RestartPolicy Runtime SecurityOpt ShmSize StorageOpt Sysctls Tmpfs
    UTSMode Ulimits UsernsMode VolumeDriver VolumesFrom
    """.split()  # noqa: SIM905  (a list of one a line is 100 lines)
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing a device or IoT Hub would refuse: its JSON path and the reason."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class InvalidDeployment(MlpackError, ValueError):
    """A deployment manifest that must not be sent; ``problems`` holds every reason."""

    hint = "correct what is named above: a device would refuse it, or never run it"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(each) for each in self.problems))


@dataclass(frozen=True, slots=True)
class Section:
    """The desired properties of one module, and the dotted paths that set them."""

    desired: Node
    paths: frozenset[tuple[str, ...]] = frozenset()

    @property
    def layered(self) -> bool:
        """Whether the section adds to a base deployment's instead of being whole."""
        return bool(self.paths)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A deployment's sections by module, and the problems met while reading them."""

    where: str
    sections: Mapping[str, Section]
    problems: tuple[Problem, ...] = field(default=())
    priority: int | None = None
    """Of the configuration it is the content of; ``None`` for a manifest by itself."""

    created: str = ""
    """When that was created, as the hub writes it: ``2026-11-20T08:00:00.1234567Z``."""

    @property
    def layered(self) -> bool:
        """Whether it is a layered deployment, which needs a base deployment below it."""
        runtime = [self.sections[name] for name in (AGENT, HUB) if name in self.sections]
        return any(each.layered for each in runtime or self.sections.values())

    @property
    def modules(self) -> Mapping[str, Node] | None:
        """The user's modules by their id; ``None`` if the manifest does not tell."""
        section = self.sections.get(AGENT)
        found = section.desired.get("modules") if section else None
        return dict(found.items()) if found and isinstance(found.value, dict) else None


def read_manifest(content: bytes) -> Manifest:
    """Read a manifest; raise :class:`InvalidDeployment` if it is not a deployment at all."""
    try:
        root = Node(load(content), ROOT)
        return _configured(_manifest(_modules_content(root)), root)
    except InvalidContent as error:
        raise InvalidDeployment([Problem(error.where, error.problem)]) from error


def load(content: bytes) -> object:
    """Read a manifest's JSON, whatever it holds; raise :class:`InvalidContent`."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InvalidContent(ROOT, f"is {len(content)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        document = json.loads(content, object_pairs_hook=_unique, parse_constant=_not_a_number)
    except InvalidContent:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidContent(ROOT, f"is not JSON ({error})") from error
    require_readable(document, ROOT)
    return document


def require_readable(value: object, where: str) -> None:
    """Refuse JSON that cannot be walked or written: nested too deep, or half a character."""
    level, levels = [value], 0
    while level:
        if levels > MAX_LEVELS:
            raise InvalidContent(where, f"nests deeper than {MAX_LEVELS} levels")
        for each in level:
            # Only an escape of JSON can make one: "\\ud800" without the half that belongs to it.
            if isinstance(each, str) and not each.isascii() and _HALF.search(each):
                raise InvalidContent(
                    where, f"has an unpaired surrogate, which is not a character: {each[:20]!a}"
                )
        level = [inner for each in level for inner in _inside(each)]
        levels += 1


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()


def _not_a_number(text: str) -> object:
    """Refuse NaN and Infinity, which Python reads and JSON lacks."""
    raise InvalidContent(ROOT, f"is not JSON ({text} is not a number)")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a name that appears twice: the second would silently replace the first."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidContent(ROOT, f"has {key!r} twice in one object")
        found[key] = value
    return found


def _modules_content(root: Node) -> Node:
    content = root.get("content") or root
    for key in _CONTENTS:
        found = content.get(key)
        if found is not None:
            where = "content." * (content is not root) + key
            return Node(found.mapping(), where)
    raise InvalidContent(content.where, f"{CONTENT!r} is missing")


def _configured(manifest: Manifest, root: Node) -> Manifest:
    """Add what a configuration of the hub has next to its content, and what is wrong with it."""
    priority, created, target = (
        Node(root.mapping().get(key), key) for key in ("priority", "createdTimeUtc", TARGET)
    )
    problems = list(manifest.problems)
    try:
        if priority.value is not None:
            priority.integer(maximum=MAX_PRIORITY)
        if target.value is not None and target.text().strip():
            Condition.parse(target.text(), staged=True)
    except InvalidContent as error:
        problems.append(Problem(error.where, error.problem))
    except InvalidCondition as error:
        problems.append(Problem(TARGET, f"{error} ({error.hint})"))
    return replace(
        manifest,
        problems=tuple(problems),
        priority=priority.value if type(priority.value) is int else None,
        created=created.value if isinstance(created.value, str) else "",
    )


def _manifest(content: Node) -> Manifest:
    sections: dict[str, Section] = {}
    problems: list[Problem] = []
    for name, node in content.items():
        if node.value == {}:
            continue  # as the portal writes a module without desired properties
        try:
            sections[name] = _section(node)
        except InvalidContent as error:
            problems.append(Problem(error.where, error.problem))
    return Manifest(content.where, sections, tuple(problems))


def _section(node: Node) -> Section:
    desired = f"{node.where}.{DESIRED}"
    if set(node.mapping()) == {DESIRED}:
        return Section(Node(node.need(DESIRED).mapping(), desired))
    tree: dict[str, object] = {}
    paths = set()
    for path, value in _dotted(node):
        _place(tree, path, value)
        paths.add(path)
    if not paths:
        raise InvalidContent(node.where, f"{DESIRED!r} is missing")
    return Section(Node(tree, desired), frozenset(paths))


def _dotted(node: Node) -> Iterator[tuple[tuple[str, ...], Node]]:
    for key, value in node.items():
        if key == DESIRED:
            raise InvalidContent(value.where, f"is set together with paths below {DESIRED}")
        if not key.startswith(f"{DESIRED}."):
            raise InvalidContent(value.where, f"is not {DESIRED} or a path below it")
        path = tuple(key.removeprefix(f"{DESIRED}.").split("."))
        if not all(path):
            raise InvalidContent(value.where, "has an empty part in its path")
        yield path, value


def _place(tree: dict[str, object], path: tuple[str, ...], value: Node) -> None:
    *above, last = path
    for part in above:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InvalidContent(value.where, "is set together with a path above it")
        tree = inner
    if last in tree:
        raise InvalidContent(value.where, "is set together with a path below it")
    tree[last] = value.value


def members(node: Node, *path: str) -> Iterator[tuple[str, Node]]:
    """Yield the members of the object at ``path``, if there is an object."""
    found: Node | None = node
    for key in path:
        found = found.get(key) if found and isinstance(found.value, dict) else None
    if found and isinstance(found.value, dict):
        yield from found.items()


UPSTREAM = "$upstream"
FUNCTIONS = frozenset(
    """
    ABS EXP POWER SQUARE CEILING FLOOR SIGN SQRT AS_NUMBER IS_BOOL IS_DEFINED IS_NULL IS_NUMBER
    IS_STRING CONCAT LENGTH LOWER UPPER SUBSTRING INDEX_OF STARTS_WITH ENDS_WITH CONTAINS
    TWIN_CHANGE_INCLUDES
    """.split()  # noqa: SIM905  (a list of one a line is 24 lines)
)

_SOURCES = ("*", "messages", "twinchangenotifications")
# Comments are dropped as edgeHub drops them: "FROM /*/…*/" loses what lies between.
_LEXICON = re.compile(
    r"""
      (?P<space>  [ \t\r\n]+ | /\*.*?\*/ )
    | (?P<string> "(?:\\(?:["'\\]|u[0-9a-fA-F]{4})|[^"\\])*"
                | '(?:\\(?:["'\\]|u[0-9a-fA-F]{4})|[^'\\])*' )
    | (?P<system> \$[^()<>@,;:\\"/?={}\ \t\n\r]+ )
    | (?P<sign>   <= | >= | <> | != | \|\| | \?\? )
    | (?P<word>   [^'()<>@,;:\\"/?={}\ \t\n\r][^()<>@,;:\\"/?={}\ \t\n\r]* )
    | (?P<mark>   [^'"] )
    """,
    re.VERBOSE | re.DOTALL,
)
_RESERVED = frozenset({"select", "from", "where", "into", "and", "or", "not"})
_VALUES = frozenset({"true", "false", "null", "undefined"})
_LITERAL = re.compile(r"-?\d+|-?\d*\.\d+(?:[eE][+-]?\d+)?|-?\d*[eE][+-]?\d+|0[xX][0-9a-fA-F]+")


class InvalidRoute(MlpackError, ValueError):
    """A text that edgeHub cannot read as a route, or that matches no message."""

    hint = "write it as: FROM /messages/modules/NAME/outputs/* INTO $upstream"


@dataclass(frozen=True, slots=True)
class Route:
    """One route: where messages come from, which of them, and where they go.

    >>> parse_route('FROM /messages/modules/fan/outputs/* INTO $upstream').source_module
    'fan'
    """

    source: tuple[str, ...]
    """The segments of the source's path; ``*`` is a whole segment, the last."""

    condition: str = ""
    module: str = ""
    """The module messages go to; empty for IoT Hub (``$upstream``)."""

    input: str = ""
    priority: int | None = None
    """0 (first) to 9; unset is last."""

    seconds: int = 0
    """How long its messages wait for a connection; 0 as long as the hub keeps all."""

    @property
    def entry(self) -> dict[str, object]:
        """The route's value in ``$edgeHub`` (schema 1.1)."""
        return {
            "route": str(self),
            **({"priority": self.priority} if self.priority is not None else {}),
            **({"timeToLiveSecs": self.seconds} if self.seconds else {}),
        }

    @property
    def source_module(self) -> str:
        """The module messages come from; empty if the source names none."""
        is_module = [part.lower() for part in self.source[:2]] == ["messages", "modules"]
        named = self.source[2] if is_module and len(self.source) > 2 else "*"
        return "" if named == "*" else named

    def __str__(self) -> str:
        where = f" WHERE {self.condition}" if self.condition else ""
        sink = f'BrokeredEndpoint("/modules/{self.module}/inputs/{self.input}")'
        return f"FROM /{'/'.join(self.source)}{where} INTO {sink if self.module else UPSTREAM}"


def parse_route(text: str) -> Route:
    """Read a route; raise :class:`InvalidRoute` with the column of a mistake."""
    try:
        return _route(Tokens(text, _LEXICON, lambda _: "this string has no closing quote"))
    except GrammarError as error:
        raise InvalidRoute(str(error)) from error


def _route(tokens: Tokens) -> Route:
    if tokens.accept("SELECT"):
        tokens.need("*")
    tokens.need("FROM")
    source = _source(tokens)
    condition = ""
    if tokens.accept("WHERE"):
        start = tokens.next.column - 1
        expression(tokens, _CONDITION)
        condition = tokens.text[start : tokens.next.column - 1].rstrip()
    tokens.need("INTO", "an operator or INTO" if condition else "INTO")
    module, target = _sink(tokens)
    tokens.accept(";")
    if tokens.next.kind != "end":
        raise tokens.expected("the end")
    return Route(source, condition, module, target)


def _source(tokens: Tokens) -> tuple[str, ...]:
    start = tokens.next.column
    parts: list[str] = []
    while tokens.next.text == "/" or not parts:
        tokens.need("/")
        parts.append(_segment(tokens))
    if problem := _source_problem(tuple(parts)):
        raise GrammarError(start, f"'/{'/'.join(parts)}' {problem}")
    return tuple(parts)


def _segment(tokens: Tokens) -> str:
    token = tokens.next
    name = token.text
    if token.kind != "word" or "[" in name or "]" in name:
        raise tokens.expected("a name or *")
    if name != "*" and "*" in name:
        raise GrammarError(token.column, f"{name!r} is not a wildcard: * must be a whole segment")
    if name.lower() in _RESERVED or name in _VALUES or _LITERAL.fullmatch(name):
        what = "is a reserved word or a number, and edgeHub refuses it here"
        raise GrammarError(token.column, f"{name!r} {what}")
    return tokens.take().text


def _source_problem(parts: tuple[str, ...]) -> str:
    lower = [part.lower() for part in parts]
    if lower[0] not in _SOURCES:
        return "is not a source (/*, /messages/… or /twinChangeNotifications)"
    if "*" in parts[:-1]:
        return "matches nothing: * may only come last"
    if lower[:2] == ["messages", "modules"] and len(parts) > 3:
        outputs_last = lower[3] == "outputs" and len(parts) <= 5
        if not outputs_last and parts[3:] != ("*",):
            return "matches nothing: after the module comes /outputs/NAME or /*"
    return ""


def _sink(tokens: Tokens) -> tuple[str, str]:
    if tokens.accept(UPSTREAM.upper()):
        return "", ""
    tokens.need("BROKEREDENDPOINT", f"{UPSTREAM} or BrokeredEndpoint(…)")
    tokens.need("(")
    token = tokens.next
    if token.kind != "string":
        raise tokens.expected("a string in quotes")
    tokens.take()
    tokens.need(")")
    # edgeHub takes exactly four parts, and one slash at either end (EndpointFactory.cs).
    path = token.text[1:-1].strip()
    parts = path.removeprefix("/").removesuffix("/").split("/")
    if len(parts) != 4 or parts[0] != "modules" or parts[2] != "inputs" or not all(parts):
        what = "is not an endpoint: write /modules/NAME/inputs/INPUT"
        raise GrammarError(token.column, f"{path!r} {what}")
    return parts[1], parts[3]


def _value(tokens: Tokens) -> None:
    token = tokens.next
    text = token.text
    if token.kind in ("string", "system"):
        tokens.take()
    elif tokens.accept("{"):
        if tokens.next.kind != "system" or tokens.after.text != "}":
            raise GrammarError(token.column, "expected {$NAME}")
        tokens.take()
        tokens.take()
    elif token.kind != "word" or text.lower() in _RESERVED or text in ("+", "*", "%"):
        raise tokens.expected("a value")
    elif "[" in text or "]" in text:
        what = "is not a property: only those of $body have elements"
        raise GrammarError(token.column, f"{text!r} {what}")
    else:
        tokens.take()


def _form(*_: object) -> None:
    """Build nothing: only the form of a condition is checked."""


_CONDITION: Language[None] = Language(
    operand=_value,
    prefixes={"-": _form, "NOT": _form},
    infixes={
        each: (1, _form)
        for each in "= <> != < <= > >= || ?? / + - * % AND OR".split()  # noqa: SIM905
    },
    functions=FUNCTIONS,
    call=_form,
)
