"""Target conditions: the devices of a group in IoT Hub's language.

``tags.deviceGroup = 'vans' AND NOT properties.reported.engine = 'podman'``: tags, reported
properties and ``deviceId``; comparisons, ``IN [...]``, ``is_defined(...)``; ``AND``, ``OR``,
``NOT`` and parentheses. The hub takes any text and targets no device if it does not
understand it, so conditions are read here first, and a mistake has its column.

Sources: Microsoft Learn, "Understand IoT Edge automatic deployments" (target condition) and
"IoT Hub query language".
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlpack.errors import MlpackError
from mlpack.settings.grammar import GrammarError, Language, Tokens, expression
from mlpack.settings.reader import BUCKETS

BUCKET_TAG = "tags.mlpack.bucket"
"""The twin tag with the number that decides in which stage of a rollout a device comes."""

MAX_DEPTH = 50
MAX_DIGITS = 100

Value = str | int | float | bool
Twin = Mapping[str, object]
Test = Callable[[Twin], bool | None]
"""Whether a device is one of the condition's. As in the hub's own language a comparison with a
property the device lacks is undefined (``None``), and so is its ``NOT``."""

_SEGMENT = r"(?:[A-Za-z_$][A-Za-z0-9_$]*|\[\[[^\[\]]+\]\])"
_LEXICON = re.compile(
    rf"""
      (?P<space>  \s+ )
    | (?P<path>   {_SEGMENT}(?:\.{_SEGMENT})* )
    | (?P<number> -?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)? )
    | (?P<text>   '(?:[^']|'')*' )
    | (?P<sign>   <>|!=|<=|>=|==|[=<>()\[\],] )
    """,
    re.VERBOSE,
)
_PART = re.compile(r"\[\[([^\[\]]+)\]\]|([^.\[\]]+)")
_ALLOWED = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']*")
"""What a text of a target condition may hold; a quote is written twice."""

_QUOTES = '"`\u2018\u2019\u201c\u201d'
_COMPARE: Mapping[str, Callable[[Any, Any], object]] = {
    "=": operator.eq, "!=": operator.ne, "<>": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "NIN", "IS_DEFINED", "TRUE", "FALSE"})


class InvalidCondition(MlpackError, ValueError):
    """A target condition the hub would not understand; the message names the column."""

    hint = "for example: tags.deviceGroup = 'vans' AND tags.region IN ['north', 'west']"


@dataclass(frozen=True)
class Condition:
    """A target condition: its text as written, and its test of a device."""

    text: str
    test: Test = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read ``text``; raise :class:`InvalidCondition` with the column of a mistake.

        >>> Condition.parse("tags.deviceGroup = 'vans'").narrowed(100)
        "tags.deviceGroup = 'vans' AND tags.mlpack.bucket < 100"
        """
        if not text.strip():
            raise InvalidCondition("the target condition is empty")
        try:
            tokens = Tokens(text, _LEXICON, _unreadable)
            test = expression(tokens, _LANGUAGE)
            if tokens.next.kind != "end":
                raise tokens.expected("AND, OR or the end")
        except GrammarError as error:
            raise InvalidCondition(f"target condition, {error}") from error
        return cls(text.strip(), test)

    def holds(self, twin: Twin) -> bool:
        """Whether the device of this twin (``deviceId``, ``tags``, ``properties``) is targeted.

        A device for which the whole condition is undefined is not.
        """
        return self.test(twin) is True

    def narrowed(self, bucket: int) -> str:
        """Return the text that targets those of these devices whose bucket is below ``bucket``.

        From the number of buckets on it is the condition itself, so that devices without a
        bucket are targeted too.
        """
        return self.text if bucket >= BUCKETS else self.also(f"{BUCKET_TAG} < {bucket}")

    def also(self, more: str) -> str:
        """Return the text of this condition and ``more``, with parentheses only if needed."""
        return f"{self.operand} AND {more}"

    @property
    def operand(self) -> str:
        """The text as one side of an ``AND``."""
        either = isinstance(self.test, _Junction) and self.test.word == "OR"
        return f"({self.text})" if either else self.text


@dataclass(frozen=True, slots=True)
class _Junction:
    """Tests joined by ``AND`` or ``OR``; one test may decide, whatever the others are."""

    word: str
    tests: tuple[Test, ...]

    def __call__(self, twin: Twin) -> bool | None:
        found, decisive = {test(twin) for test in self.tests}, self.word == "OR"
        if decisive in found:
            return decisive
        return None if None in found else not decisive


def _junction(word: str) -> Callable[[Test, Test], Test]:
    def join(left: Test, right: Test) -> Test:
        # One junction for "a AND b AND c", so that its length costs no recursion.
        same = isinstance(left, _Junction) and left.word == word
        return _Junction(word, (*(left.tests if same else (left,)), right))  # type: ignore[attr-defined]

    return join


def _negated(inner: Test) -> Test:
    return lambda twin: None if (found := inner(twin)) is None else not found


def _operand(tokens: Tokens) -> Test:
    if tokens.accept("IS_DEFINED"):
        tokens.need("(")
        path = _path(tokens)
        tokens.need(")")
        return lambda twin: _at(path, twin) is not None
    path = _path(tokens)
    for word in ("IN", "NIN"):
        if tokens.accept(word):
            return _one_of(path, _values(tokens), negated=word == "NIN")
    if tokens.next.text not in _COMPARE:
        hint = " (write = once)" if tokens.next.text == "==" else ""
        raise tokens.expected("a comparison after a property", hint)
    return _compared(path, tokens.take().text, _value(tokens))


def _compared(path: tuple[str, ...], sign: str, value: Value) -> Test:
    def test(twin: Twin) -> bool | None:
        found = _at(path, twin)
        if found is None:
            return None
        if not _same_kind(found, value):
            return {"=": False, "!=": True, "<>": True}.get(sign)
        return bool(_COMPARE[sign](found, value))

    return test


def _one_of(path: tuple[str, ...], values: tuple[Value, ...], *, negated: bool) -> Test:
    def test(twin: Twin) -> bool | None:
        found = _at(path, twin)
        if found is None:
            return None
        return any(_same_kind(found, each) and found == each for each in values) != negated

    return test


def _at(path: tuple[str, ...], twin: object) -> object:
    """Return the property at ``path``; ``None`` if the device lacks it."""
    for part in path:
        if not isinstance(twin, Mapping):
            return None
        twin = twin.get(part)
    return twin


def _same_kind(found: object, value: Value) -> bool:
    """Whether two values can be compared: a text with a text, a number with a number."""
    if isinstance(found, bool) or isinstance(value, bool):
        return isinstance(found, bool) and isinstance(value, bool)
    return isinstance(found, str) if isinstance(value, str) else isinstance(found, int | float)


def _path(tokens: Tokens) -> tuple[str, ...]:
    token = tokens.next
    if token.kind != "path" or token.text.upper() in _KEYWORDS:
        raise tokens.expected("a property (tags.NAME)")
    parts = tuple(found[1] or found[2] for found in _PART.finditer(token.text))
    known = (
        parts == ("deviceId",)
        or (parts[0] == "tags" and len(parts) > 1)
        or (parts[:2] == ("properties", "reported") and len(parts) > 2)
    )
    if not known:
        names = "tags.NAME, properties.reported.NAME or deviceId"
        raise GrammarError(token.column, f"{token.text} is not {names}")
    if parts[:2] == ("tags", "mlpack"):
        raise GrammarError(token.column, f"{token.text} is reserved for mlpack's stages")
    tokens.take()
    return parts


def _values(tokens: Tokens) -> tuple[Value, ...]:
    tokens.need("[")
    found = [_value(tokens)]
    while tokens.accept(","):
        found.append(_value(tokens))
    tokens.need("]")
    return tuple(found)


def _value(tokens: Tokens) -> Value:
    token = tokens.next
    word = token.text.upper()
    if token.kind not in ("text", "number") and word not in ("TRUE", "FALSE"):
        quoted = f" (quote a text: '{token.text}')" if token.kind == "path" else ""
        raise tokens.expected("a value", quoted)
    tokens.take()
    if token.kind == "text":
        return _text(token.text[1:-1], token.column + 1)
    if token.kind == "number":
        if len(token.text) > MAX_DIGITS:
            raise GrammarError(token.column, f"a number of more than {MAX_DIGITS} digits")
        return float(token.text) if set(token.text) & set(".eE") else int(token.text)
    return word == "TRUE"


def _text(content: str, column: int) -> str:
    fits = _ALLOWED.match(content)
    length = fits.end() if fits else 0
    if length < len(content):
        allowed = "letters, digits, -:.+%_#*?!(),=@;$ are"
        raise GrammarError(
            column + length, f"{content[length]!r} is not allowed in a text ({allowed})"
        )
    return content.replace("''", "'")


def _unreadable(char: str) -> str:
    if char == "'":
        return "this text has no closing quote (a quote in a text is written twice)"
    if char in _QUOTES:
        return f"{char} is not a quote: write texts in single quotes, 'vans'"
    if char == "-":
        return "- is not part of a name: write tags.[[my-tag]]"
    return f"{char!r} is not part of a condition"


_LANGUAGE = Language(
    operand=_operand,
    prefixes={"NOT": _negated},
    infixes={"OR": (1, _junction("OR")), "AND": (2, _junction("AND"))},
    depth=MAX_DEPTH,
    operator="AND, OR",
)
