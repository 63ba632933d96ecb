"""The route language of edgeHub: ``FROM /messages/* WHERE … INTO $upstream``.

After edgeHub's own grammar (Azure/iotedge, Routing.Core/grammar/Route.g4 and
GrammarLexer.g4) and its EndpointFactory. One bad route makes edgeHub refuse its
whole configuration, so what it would refuse is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlpack.errors import MlpackError
from mlpack.render.iotedge.conditions import condition_problem

UPSTREAM = "$upstream"
_SOURCES = ("*", "messages", "twinchangenotifications")
_TOKEN = re.compile(
    r"""
      (?P<space>   [ \t\r\n]+ | /\*.*?\*/ )
    | (?P<string>  "(?:\\(?:["'\\]|u[0-9a-fA-F]{4})|[^"\\])*"
                 | '(?:\\(?:["'\\]|u[0-9a-fA-F]{4})|[^'\\])*' )
    | (?P<open>    ["'] )
    | (?P<system>  \$[^()<>@,;:\\"/?={}\ \t\n\r]+ )
    | (?P<word>    [^()<>@,;:\\"/\[\]?={}\ \t\n\r]+ )
    | (?P<mark>    . )
    """,
    re.VERBOSE | re.DOTALL,
)
_RESERVED = frozenset({"select", "from", "where", "into", "and", "or", "not"})
_LITERAL = re.compile(r"-?\d+|-?\d*\.\d+(?:[eE][+-]?\d+)?|-?\d*[eE][+-]?\d+|0[xX][0-9a-fA-F]+")
_VALUES = frozenset({"true", "false", "null", "undefined"})


class InvalidRoute(MlpackError, ValueError):
    """A text edgeHub cannot read as a route, or would never match."""

    hint = "write it as: FROM /messages/modules/NAME/outputs/* INTO $upstream"


@dataclass(frozen=True, slots=True)
class Route:
    """One route: where messages come from, which of them, and where they go.

    >>> parse_route('FROM /messages/modules/fan/outputs/* INTO $upstream').source_module
    'fan'
    """

    source: tuple[str, ...]
    """The segments of the source's path; ``*`` stands alone and last."""

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
        """What ``$edgeHub`` holds under the route's name (schema 1.1)."""
        return {
            "route": str(self),
            **({"priority": self.priority} if self.priority is not None else {}),
            **({"timeToLiveSecs": self.seconds} if self.seconds else {}),
        }

    @property
    def source_module(self) -> str:
        """The module messages come from; empty where the source names none."""
        is_module = [part.lower() for part in self.source[:2]] == ["messages", "modules"]
        named = self.source[2] if is_module and len(self.source) > 2 else "*"
        return "" if named == "*" else named

    def __str__(self) -> str:
        where = f" WHERE {self.condition}" if self.condition else ""
        sink = f'BrokeredEndpoint("/modules/{self.module}/inputs/{self.input}")'
        return f"FROM /{'/'.join(self.source)}{where} INTO {sink if self.module else UPSTREAM}"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.text.lower() == word


def parse_route(text: str) -> Route:
    """Read a route; raise :class:`InvalidRoute` with what was expected and where."""
    reader = _Reader(text, _tokens(text))
    if reader.at("select"):
        reader.word("SELECT")
        reader.mark("*")
    reader.word("FROM")
    source = _source(reader)
    condition = ""
    if reader.at("where"):
        reader.word("WHERE")
        condition = reader.condition()
    reader.word("INTO")
    module, to = _sink(reader)
    reader.end()
    return Route(source, condition, module, to)


def _tokens(text: str) -> list[_Token]:
    found = [_Token(m.lastgroup or "", m[0], m.start()) for m in _TOKEN.finditer(text)]
    # Comments are dropped as edgeHub drops them: "FROM /*/…*/" loses what lies between.
    return [each for each in found if each.kind != "space"]


class _Reader:
    """Takes tokens one after another; every refusal says what stood there instead."""

    def __init__(self, text: str, tokens: Sequence[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._next = 0

    def at(self, word: str) -> bool:
        return self._next < len(self._tokens) and self._tokens[self._next].is_word(word)

    def at_mark(self, mark: str) -> bool:
        return self._next < len(self._tokens) and self._tokens[self._next].text == mark

    def take(self, expected: str) -> _Token:
        if self._next == len(self._tokens):
            raise InvalidRoute(f"{expected} is expected at the end")
        self._next += 1
        return self._tokens[self._next - 1]

    def word(self, word: str) -> None:
        found = self.take(word)
        if not found.is_word(word.lower()):
            raise self.refusal(word, found)

    def mark(self, mark: str) -> None:
        found = self.take(repr(mark))
        if found.text != mark:
            raise self.refusal(repr(mark), found)

    def refusal(self, expected: str, found: _Token) -> InvalidRoute:
        shown = self._text[found.start : found.start + 20].strip()
        return InvalidRoute(f"{expected} is expected at character {found.start + 1}, not {shown!r}")

    def condition(self) -> str:
        first, depth = self._next, 0
        while not self.at("into"):
            found = self.take("INTO, after the condition,")
            if found.kind == "open":
                raise InvalidRoute(f"the string at character {found.start + 1} is not closed")
            depth += {"(": 1, ")": -1}.get(found.text, 0)
            if depth < 0:
                raise InvalidRoute(f"')' at character {found.start + 1} closes nothing")
        if depth:
            raise InvalidRoute("the condition has a '(' that is not closed")
        if first == self._next:
            raise InvalidRoute("the condition after WHERE is empty")
        start = self._tokens[first].start
        text = self._text[start : self._tokens[self._next].start].rstrip()
        if problem := condition_problem(text, start):
            raise InvalidRoute(problem)
        return text

    def end(self) -> None:
        if self.at_mark(";"):
            self.mark(";")
        if self._next < len(self._tokens):
            raise self.refusal("the end", self._tokens[self._next])


def _source(reader: _Reader) -> tuple[str, ...]:
    parts: list[str] = []
    while reader.at_mark("/") or not parts:
        reader.mark("/")
        parts.append(_segment(reader))
    _require_known(tuple(parts))
    return tuple(parts)


def _segment(reader: _Reader) -> str:
    found = reader.take("a name or *")
    if found.kind != "word":
        raise reader.refusal("a name or *", found)
    name = found.text
    if name != "*" and "*" in name:
        raise InvalidRoute(f"{name!r} is no wildcard: * must be the whole segment")
    if name.lower() in _RESERVED or name in _VALUES or _LITERAL.fullmatch(name):
        raise InvalidRoute(f"{name!r} is a reserved word or a number, and edgeHub refuses it here")
    return name


def _require_known(parts: tuple[str, ...]) -> None:
    shown = "/" + "/".join(parts)
    lower = [part.lower() for part in parts]
    if lower[0] not in _SOURCES:
        raise InvalidRoute(f"{shown!r} is no source (/*, /messages/… or /twinChangeNotifications)")
    if "*" in parts[:-1]:
        raise InvalidRoute(f"{shown!r} matches nothing: * may only come last")
    if lower[:2] == ["messages", "modules"] and len(parts) > 3:
        outputs_last = lower[3] == "outputs" and len(parts) <= 5
        if not outputs_last and parts[3:] != ("*",):
            raise InvalidRoute(
                f"{shown!r} matches nothing: after the module comes /outputs/NAME or /*"
            )


def _sink(reader: _Reader) -> tuple[str, str]:
    found = reader.take(f"{UPSTREAM} or BrokeredEndpoint(…)")
    if found.kind == "system" and found.text.lower() == UPSTREAM:
        return "", ""
    if not found.is_word("brokeredendpoint"):
        raise reader.refusal(f"{UPSTREAM} or BrokeredEndpoint(…)", found)
    reader.mark("(")
    path = reader.take("a string")
    if path.kind != "string":
        raise reader.refusal("a string in quotes", path)
    reader.mark(")")
    return _input(path.text[1:-1].strip())


def _input(path: str) -> tuple[str, str]:
    # edgeHub takes exactly four parts, and one slash at either end (EndpointFactory.cs).
    parts = path.removeprefix("/").removesuffix("/").split("/")
    if len(parts) != 4 or parts[0] != "modules" or parts[2] != "inputs" or not all(parts):
        raise InvalidRoute(f"{path!r} is no endpoint: write /modules/NAME/inputs/INPUT")
    return parts[1], parts[3]
