"""Target conditions: the devices of a group in IoT Hub's language.

``tags.deviceGroup = 'vans' AND NOT properties.reported.engine = 'podman'``: tags, reported
properties and ``deviceId``; comparisons, ``is_defined(...)``; ``AND``, ``OR``, ``NOT`` and
parentheses; ``*`` for every device. Conditions are read here before anything is written, and a
mistake has its column: the hub answers some with 400 InvalidConfigurationTargetCondition, and
takes others and targets no device. The language of its queries is a larger one: it has ``IN`` and
``NIN``, which a target condition may not have (Azure/azure-iot-cli-extension#347, #490).

Sources: Microsoft Learn, "Understand IoT Edge automatic deployments" (target condition) and
"IoT Hub query language".
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlpack.errors import MlpackError
from mlpack.settings.grammar import GrammarError, Language, Tokens, expression
from mlpack.settings.reader import BUCKETS

BUCKET_TAG = "tags.mlpack.bucket"
"""The twin tag with the number that decides in which stage of a rollout a device comes."""

ALL = "*"
"""The target condition of every IoT Edge device."""

MAX_QUERY_BYTES = 8192
"""The hub refuses a longer query (Azure/azure-iot-sdk-csharp#1680)."""

MAX_BYTES = MAX_QUERY_BYTES - 192
"""Of a target condition, which mlpack asks about in queries too."""

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
    | (?P<sign>   <>|!=|<=|>=|==|[=<>()\[\],*] )
    """,
    re.VERBOSE,
)
_PART = re.compile(r"\[\[([^\[\]]+)\]\]|([^.\[\]]+)")
_ALLOWED = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']*")
"""What a text of a target condition may hold; a quote is written twice."""

_DEVICE = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}")
_NO_KEY = re.compile(r"[/;]")
_SHOWN = 3
"""Values of a list that a hint repeats."""

_QUOTES = '"`\u2018\u2019\u201c\u201d'
_COMPARE: Mapping[str, Callable[[Any, Any], object]] = {
    "=": operator.eq, "!=": operator.ne, "<>": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "NIN", "IS_DEFINED", "TRUE", "FALSE"})
_CLAUSES = frozenset({"SELECT", "FROM", "WHERE"})
_NOTHING = frozenset({"NULL", "UNDEFINED"})


class InvalidCondition(MlpackError, ValueError):
    """A target condition the hub would not understand; the message names the column."""

    hint = "for example: tags.deviceGroup = 'vans' AND NOT tags.region = 'north'"


@dataclass(frozen=True)
class Condition:
    """A target condition: its text as written, and its test of a device."""

    text: str
    test: Test = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, *, staged: bool = False) -> Condition:
        """Read ``text``; raise :class:`InvalidCondition` with the column of a mistake.

        ``staged``: whether it may be the condition of a rollout's stage, with mlpack's own tag.

        >>> Condition.parse("tags.deviceGroup = 'vans'").narrowed(100)
        "tags.deviceGroup = 'vans' AND tags.mlpack.bucket < 100"
        """
        if not text.strip():
            raise InvalidCondition("the target condition is empty")
        if text.strip() == ALL:
            return cls(ALL, lambda _: True)
        _require_length(text.strip())
        try:
            tokens = Tokens(text, _LEXICON, _unreadable)
            test = expression(tokens, _LANGUAGE)
            if tokens.next.kind != "end":
                raise tokens.expected("AND, OR or the end")
            if not staged:
                _leave_ours(Tokens(text, _LEXICON, _unreadable))
        except GrammarError as error:
            hint = error.hint or InvalidCondition.hint
            raise InvalidCondition(f"target condition, {error}", hint=hint) from error
        return cls(text.strip(), test)

    @classmethod
    def of_devices(cls, ids: Iterable[str]) -> Condition:
        """Return the condition of the devices with these ids; raise :class:`InvalidCondition`.

        >>> Condition.of_devices(["van-1", "O'Neil"]).text
        "deviceId = 'van-1' OR deviceId = 'O''Neil'"
        """
        named = tuple(dict.fromkeys(ids))
        for each in named:
            if not _DEVICE.fullmatch(each):
                hint = "letters, digits and -:.+%_#*?!(),=@;$', at most 128"
                raise InvalidCondition(f"{each[:140]!r} is not the id of a device", hint=hint)
        quoted = (each.replace("'", "''") for each in named)
        return cls.parse(" OR ".join(f"deviceId = '{each}'" for each in quoted))

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
        return more if self.text == ALL else f"{self.operand} AND {more}"

    @property
    def operand(self) -> str:
        """The text as one side of an ``AND``."""
        either = isinstance(self.test, _Junction) and self.test.word == "OR"
        return f"({self.text})" if either else self.text


def where(condition: str) -> str:
    """Return the clause that a query over ``devices`` needs to find those of a target condition.

    A deployment with the condition ``*`` is for IoT Edge devices only, a query for all.
    """
    return f"WHERE {'capabilities.iotEdge = true' if condition.strip() == ALL else condition}"


def _require_length(text: str) -> None:
    if (length := len(text.encode(errors="replace"))) > MAX_BYTES:
        raise InvalidCondition(
            f"the target condition has {length:,} bytes, of {MAX_BYTES:,} at most",
            hint="give the devices a tag, and target that: tags.deviceGroup = 'vans'",
        )


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
    start = tokens.next
    if start.text.upper() in _CLAUSES:
        hint = "write only what follows WHERE in a query over devices: tags.deviceGroup = 'vans'"
        raise GrammarError(start.column, f"{start} belongs to a query", hint)
    if tokens.after.text == "(" and start.text.upper() not in _KEYWORDS:
        known = "a target condition has is_defined(…) only"
        raise GrammarError(start.column, f"{start} is not a function here: {known}")
    path = _path(tokens)
    listed = tokens.after if tokens.next.text.upper() == "NOT" else tokens.next
    if listed.text.upper() in ("IN", "NIN"):
        raise _no_list(start.text, tokens)
    if tokens.next.text not in _COMPARE:
        hint = " (write = once)" if tokens.next.text == "==" else ""
        raise tokens.expected("a comparison after a property", hint)
    sign, compared = tokens.take().text, tokens.next
    if compared.text.upper() in _NOTHING:
        hint = f"write NOT is_defined({start.text}), or is_defined({start.text})"
        raise GrammarError(compared.column, f"nothing compares with {compared.text}", hint)
    return _compared(path, sign, _value(tokens))


def _no_list(path: str, tokens: Tokens) -> GrammarError:
    """Return the refusal of ``path IN [...]``, with the comparisons that mean the same."""
    first = tokens.next
    negated = tokens.accept("NOT") or first.text.upper() == "NIN"
    word = tokens.take().text.upper()
    values: list[str] = []
    while tokens.next.kind != "end" and tokens.next.text not in ("]", ")"):
        value = tokens.take()
        if value.kind != "sign":
            bare = value.kind == "path" and value.text.upper() not in _KEYWORDS
            values.append(f"'{value.text}'" if bare else value.text)
    sign, junction = ("!=", " AND ") if negated else ("=", " OR ")
    shown = [f"{path} {sign} {each}" for each in values[:_SHOWN] or ("'a'", "'b'")]
    more = ["…"] if len(values) > _SHOWN else []
    said = junction.join([*shown, *more])
    return GrammarError(
        first.column,
        f"a target condition of IoT Hub has no {word}, a query only",
        f"write {f'({said})' if len(shown) > 1 else said}",
    )


def _compared(path: tuple[str, ...], sign: str, value: Value) -> Test:
    def test(twin: Twin) -> bool | None:
        found = _at(path, twin)
        if found is None:
            return None
        if not _same_kind(found, value):
            return {"=": False, "!=": True, "<>": True}.get(sign)
        return bool(_COMPARE[sign](found, value))

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


def _parts(path: str) -> tuple[str, ...]:
    return tuple(found[1] or found[2] for found in _PART.finditer(path))


def _path(tokens: Tokens) -> tuple[str, ...]:
    token = tokens.next
    if token.kind != "path" or token.text.upper() in _KEYWORDS:
        raise tokens.expected("a property (tags.NAME)")
    parts = _parts(token.text)
    known = (
        parts == ("deviceId",)
        or (parts[0] == "tags" and len(parts) > 1)
        or (parts[:2] == ("properties", "reported") and len(parts) > 2)
    )
    if not known:
        names = "tags.NAME, properties.reported.NAME or deviceId"
        raise GrammarError(token.column, f"{token.text} is not {names}")
    if found := _NO_KEY.search(token.text):
        column = token.column + found.start()
        raise GrammarError(column, f"{found[0]} may not be in a property's name here")
    tokens.take()
    return parts


def _leave_ours(tokens: Tokens) -> None:
    """Refuse the tags of rollouts, in a condition that was read."""
    while (token := tokens.take()).kind != "end":
        if token.kind == "path" and _parts(token.text)[:2] == ("tags", "mlpack"):
            raise GrammarError(token.column, f"{token.text} is reserved for mlpack's stages")


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
