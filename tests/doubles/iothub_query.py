"""IoT Hub's query language, read and evaluated apart from mlpack's own reading of it.

Target conditions are read here too, and are less: no lists, no double quotes, and paths only of
tags, reported properties and ``deviceId``.

``SELECT what FROM devices[.modules] [WHERE expression]`` with ``COUNT()`` and columns; in
expressions comparisons of properties with constants and with each other, ``IN``,
``IS_DEFINED``, ``AND``, ``OR``, ``NOT``. What a twin lacks is *undefined*: so is every
comparison with it and its ``NOT``, and an undefined condition selects nothing
(Microsoft Learn, "IoT Hub query language for device and module twins").
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_QUERY = 8192
"""Bytes; Azure/azure-iot-sdk-csharp#1680."""

Document = Mapping[str, object]
Test = Callable[[Document], bool | None]
"""``None`` is undefined."""

_WORD = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^'\\]|''|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<number>-?\d+(?:\.\d+)?)
      | (?P<path>(?:[A-Za-z_$][\w$]*|\[\[[^\]]+\]\])(?:\.(?:[A-Za-z_$][\w$]*|\[\[[^\]]+\]\]))*)
      | (?P<sign><=|>=|<>|!=|[=<>(),*\[\]])
    )""",
    re.VERBOSE,
)
Compare = Callable[[Any, Any], Any]
_COMPARE: Mapping[str, Compare] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_NUMBERS = (int, float)
_TOP = frozenset(
    {
        "deviceId", "moduleId", "tags", "properties", "configurations", "etag", "status",
        "connectionState", "lastActivityTime", "statusUpdateTime", "version", "capabilities",
        "deviceEtag", "authenticationType", "modelId",
    }
)  # fmt: skip


class BadQuery(ValueError):
    """A query the service answers 400."""


@dataclass(frozen=True)
class Query:
    """A query, read."""

    modules: bool
    columns: tuple[tuple[str, tuple[str, ...]], ...]
    """Names and paths; empty for ``*``."""

    count: str
    """The name ``COUNT()`` is given; empty where it does not count."""

    where: Test

    @property
    def twins(self) -> bool:
        """Whether it gives whole twins."""
        return not self.columns and not self.count

    def run(self, documents: Iterable[Document]) -> list[Document]:
        """What it finds among ``documents``."""
        found = [each for each in documents if self.where(each)]
        if self.count:
            return [{self.count: len(found)}]
        if not self.columns:
            return found
        return [self._columns(each) for each in found]

    def _columns(self, document: Document) -> Document:
        values = {name: get(document, path) for name, path in self.columns}
        return {name: value for name, value in values.items() if value is not None}


def get(document: object, path: tuple[str, ...]) -> object:
    """What ``document`` has at ``path``; ``None`` where it has nothing."""
    for part in path:
        if not isinstance(document, dict):
            return None
        document = document.get(part)
    return document


def parse_query(text: str) -> Query:
    """Read a whole query; raise :class:`BadQuery`."""
    if len(text.encode()) > MAX_QUERY:
        raise BadQuery(f"more than {MAX_QUERY} bytes")
    reader = _Reader(text)
    reader.need("SELECT")
    columns, count = _selected(reader)
    reader.need("FROM")
    source = reader.path()
    if source not in (("devices",), ("devices", "modules")):
        raise BadQuery(f"FROM {'.'.join(source)}")
    where = _either(reader) if reader.word("WHERE") else _always
    reader.end()
    return Query(source == ("devices", "modules"), columns, count, where)


def parse_condition(text: str) -> Test:
    """Read a target condition, which may name tags, reported properties and ``deviceId``."""
    if text.strip() == "*":
        return _always
    if len(text.encode()) > MAX_QUERY:
        raise BadQuery(f"more than {MAX_QUERY} bytes")
    reader = _Reader(text)
    found = _either(reader)
    reader.end()
    if '"' in reader.quotes:
        raise BadQuery("a text of a target condition stands in single quotes")
    if reader.lists:
        raise BadQuery("BadRequest")  # all the hub says
    for path in reader.paths:
        if path != ("deviceId",) and path[0] != "tags" and path[:2] != ("properties", "reported"):
            raise BadQuery(f"{'.'.join(path)} cannot stand in a target condition")
        if any(sign in name for name in path for sign in "/;"):
            raise BadQuery(f"{'.'.join(path)} has a sign no key may have here")
    return found


def _always(_: Document) -> bool:
    return True


def _selected(reader: _Reader) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], str]:
    if reader.sign("*"):
        return (), ""
    columns: list[tuple[str, tuple[str, ...]]] = []
    count = ""
    while True:
        if reader.word("COUNT"):
            reader.need_sign("(")
            reader.need_sign(")")
            count = reader.path()[0] if reader.word("AS") else "$1"
        else:
            path = reader.known_path()
            columns.append((reader.path()[0] if reader.word("AS") else path[-1], path))
        if not reader.sign(","):
            break
    if count and columns:
        raise BadQuery("COUNT() beside columns needs GROUP BY")
    return tuple(columns), count


def _either(reader: _Reader) -> Test:
    found = _both(reader)
    while reader.word("OR"):
        found = _joined(found, _both(reader), decisive=True)
    return found


def _both(reader: _Reader) -> Test:
    found = _negated(reader)
    while reader.word("AND"):
        found = _joined(found, _negated(reader), decisive=False)
    return found


def _joined(left: Test, right: Test, *, decisive: bool) -> Test:
    """``AND`` where ``False`` decides, ``OR`` where ``True`` does."""

    def test(document: Document) -> bool | None:
        first = left(document)
        if first is decisive:
            return decisive
        second = right(document)
        if second is decisive:
            return decisive
        return None if first is None or second is None else not decisive

    return test


def _negated(reader: _Reader) -> Test:
    if not reader.word("NOT"):
        return _single(reader)
    inner = _negated(reader)

    def test(document: Document) -> bool | None:
        found = inner(document)
        return None if found is None else not found

    return test


def _single(reader: _Reader) -> Test:
    if reader.sign("("):
        found = _either(reader)
        reader.need_sign(")")
        return found
    if reader.word("IS_DEFINED"):
        reader.need_sign("(")
        path = reader.known_path()
        reader.need_sign(")")
        return lambda document: get(document, path) is not None
    path = reader.known_path()
    if reader.word("IN"):
        values = reader.values()
        return lambda document: _among(get(document, path), values)
    if reader.word("NIN"):
        values = reader.values()
        return lambda document: _flipped(_among(get(document, path), values))
    sign = reader.comparison()
    other = reader.operand()
    compare = _COMPARE[sign]
    if isinstance(other, tuple):
        return lambda document: _compared(get(document, path), compare, get(document, other))
    return lambda document: _compared(get(document, path), compare, other)


def _compared(left: object, compare: Compare, right: object) -> bool | None:
    if left is None or right is None:
        return None
    number = type(left) in _NUMBERS and type(right) in _NUMBERS
    if type(left) is not type(right) and not number:
        return True if compare is operator.ne else (False if compare is operator.eq else None)
    return bool(compare(left, right))


def _among(found: object, values: frozenset[tuple[type, object]]) -> bool | None:
    if found is None:
        return None
    return not isinstance(found, dict | list) and (type(found), found) in values


def _flipped(found: bool | None) -> bool | None:
    return None if found is None else not found


class _Reader:
    """Words of a text, one after the other; ``paths``, ``quotes``, ``lists``: what was read."""

    def __init__(self, text: str) -> None:
        self._words: list[tuple[str, str]] = []
        self._at = 0
        self.paths: list[tuple[str, ...]] = []
        self.quotes: set[str] = set()
        self.lists = 0
        place, text = 0, text.rstrip()
        while place < len(text):
            found = _WORD.match(text, place)
            if found is None or found.lastgroup is None:
                raise BadQuery(f"near {text[place : place + 20]!r}")
            self._words.append((found.lastgroup, found[found.lastgroup]))
            place = found.end()

    def _peek(self) -> tuple[str, str]:
        return self._words[self._at] if self._at < len(self._words) else ("end", "the end")

    def _take(self, *kinds: str) -> tuple[str, str]:
        found = self._peek()
        if found[0] not in kinds:
            raise BadQuery(f"{found[1]} where {' or '.join(kinds)} is needed")
        self._at += 1
        return found

    def word(self, word: str) -> bool:
        """Take ``word`` if it comes next."""
        kind, text = self._peek()
        found = kind == "path" and text.upper() == word
        self._at += found
        return found

    def sign(self, sign: str) -> bool:
        """Take ``sign`` if it comes next."""
        found = self._peek() == ("sign", sign)
        self._at += found
        return found

    def need(self, word: str) -> None:
        """Take ``word``."""
        if not self.word(word):
            raise BadQuery(f"{self._peek()[1]} where {word} is needed")

    def need_sign(self, sign: str) -> None:
        """Take ``sign``."""
        if not self.sign(sign):
            raise BadQuery(f"{self._peek()[1]} where {sign} is needed")

    def path(self) -> tuple[str, ...]:
        """Take a path: names, each as it is or in double brackets."""
        _, text = self._take("path")
        return tuple(
            each[2:-2] if each.startswith("[[") else each
            for each in re.findall(r"\[\[[^\]]+\]\]|[^.]+", text)
        )

    def known_path(self) -> tuple[str, ...]:
        """Take a path that begins as twins do."""
        path = self.path()
        if path[0] not in _TOP:
            raise BadQuery(f"{path[0]} is no part of a twin")
        self.paths.append(path)
        return path

    def comparison(self) -> str:
        """Take a comparison's sign."""
        _, text = self._take("sign")
        if text not in _COMPARE:
            raise BadQuery(f"{text} compares nothing")
        return text

    def constant(self) -> object:
        """Take a constant."""
        kind, text = self._take("string", "number", "path")
        if kind == "string":
            self.quotes.add(text[0])
            return re.sub(r"\\(.)", r"\1", text[1:-1].replace("''", "'"))
        if kind == "number":
            return float(text) if "." in text else int(text)
        if text.lower() not in ("true", "false"):
            raise BadQuery(f"{text} is no constant")
        return text.lower() == "true"

    def operand(self) -> object:
        """Take a constant, or a path as a tuple."""
        kind, text = self._peek()
        if kind == "path" and text.lower() not in ("true", "false"):
            return self.known_path()
        return self.constant()

    def values(self) -> frozenset[tuple[type, object]]:
        """Take a list in brackets: values with their types, as ``1`` is not ``true``."""
        self.need_sign("[")
        self.lists += 1
        found = [self.constant()]
        while self.sign(","):
            found.append(self.constant())
        self.need_sign("]")
        return frozenset((type(each), each) for each in found)

    def end(self) -> None:
        """Nothing may follow."""
        if self._peek()[0] != "end":
            raise BadQuery(f"{self._peek()[1]} follows the end")
