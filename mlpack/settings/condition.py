"""Target conditions, the devices of a group in IoT Hub's language, and the grammar below them.

``tags.deviceGroup = 'vans' AND NOT properties.reported.engine = 'podman'``: tags, reported
properties and ``deviceId``; comparisons, ``IN [...]``, ``is_defined(...)``; ``AND``, ``OR``,
``NOT`` and parentheses. The hub takes any text and targets no device if it does not
understand it, so conditions are read here first, and a mistake has its column.

Routes of edgeHub (:mod:`mlpack.iotedge.manifest`) share the grammar: tokens, and expressions of
operands, prefix and infix operators, calls and parentheses. :class:`Tokens` takes one token after
another, :func:`expression` reads an expression of a :class:`Language`, which defines the operands
and what the operators build. Written by hand: lark takes 65 ms to import and 40 ms to build its
tables (lark 1.3, Python 3.11), and every command reads the conditions in ``mlpack.toml``. This
takes 0.1 ms.

Sources: Microsoft Learn, "Understand IoT Edge automatic deployments" (target condition) and
"IoT Hub query language".
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mlpack.errors import MlpackError
from mlpack.humanize import nearest
from mlpack.settings.reader import BUCKETS

T = TypeVar("T")
_SHOWN = 20
_OPEN, _CALL, _INFIX, _PREFIX = 0, -1, 1, 100
"""Levels on the stack of pending operators; infix operators have theirs from 1 up."""


class GrammarError(ValueError):
    """A text outside the grammar; the message is the column, counted from 1, and the problem."""

    def __init__(self, column: int, problem: str) -> None:
        super().__init__(f"column {column}: {problem}")


@dataclass(frozen=True, slots=True)
class Token:
    """A token: the lexicon's group that matched it (``end`` after the last), and its column."""

    kind: str
    text: str
    column: int

    def __str__(self) -> str:
        """Return the token as messages show it."""
        shown = self.text[:_SHOWN]
        return "the end" if not shown else shown if shown[0] in "'\"" else repr(shown)


class Tokens:
    """The tokens of a text, taken one after another.

    ``lexicon`` has a named group for each kind of token; ``space`` is dropped. ``unreadable``
    returns the problem with a character that begins no token.
    """

    def __init__(
        self, text: str, lexicon: re.Pattern[str], unreadable: Callable[[str], str]
    ) -> None:
        self.text = text
        self._tokens = tuple(_cut(text, lexicon, unreadable))
        self._at = 0

    @property
    def next(self) -> Token:
        """The token that is due."""
        return self._tokens[self._at]

    @property
    def after(self) -> Token:
        """The token behind that."""
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)]

    def take(self) -> Token:
        """Take the token that is due."""
        token = self.next
        self._at += token.kind != "end"
        return token

    def accept(self, text: str) -> bool:
        """Take the token that is due if it is ``text``, in any case of letters."""
        found = self.next.text.upper() == text
        self._at += found
        return found

    def need(self, text: str, expected: str = "") -> None:
        """Take ``text``; raise :class:`GrammarError` if another token is due."""
        if not self.accept(text):
            raise self.expected(expected or text)

    def expected(self, what: str, hint: str = "") -> GrammarError:
        """Return the error that the token that is due is not ``what``."""
        return GrammarError(self.next.column, f"expected {what}, not {self.next}{hint}")


def _cut(text: str, lexicon: re.Pattern[str], unreadable: Callable[[str], str]) -> Iterator[Token]:
    at = 0
    while at < len(text):
        found = lexicon.match(text, at)
        if found is None:
            raise GrammarError(at + 1, unreadable(text[at]))
        if found.lastgroup != "space":
            yield Token(found.lastgroup or "", found[0], at + 1)
        at = found.end()
    yield Token("end", "", len(text.rstrip()) + 1)


@dataclass(frozen=True, kw_only=True)
class Language(Generic[T]):
    """What expressions are made of, and what they become."""

    operand: Callable[[Tokens], T]
    """Takes an operand, or raises :class:`GrammarError`."""

    prefixes: Mapping[str, Callable[[T], T]]
    """Prefix operators, which bind tightest, by their upper-case text."""

    infixes: Mapping[str, tuple[int, Callable[[T, T], T]]]
    """Infix operators, each with how tightly it binds (1 and more)."""

    functions: Collection[str] = ()
    """Names in upper case of what may be called; an operand is a word before ``(`` then."""

    call: Callable[[list[T]], T] | None = None
    depth: int | None = None
    """How deep expressions may nest; any depth if ``None``."""

    operator: str = "an operator"
    """What may follow an operand, for messages."""


@dataclass(frozen=True, slots=True)
class _Pending(Generic[T]):
    """An operator or parenthesis whose operands are not complete."""

    level: int
    apply: Callable[[list[T]], None]


def expression(tokens: Tokens, language: Language[T]) -> T:
    """Take an expression, up to the first token that cannot belong to it.

    Two stacks instead of recursion (Dijkstra's shunting yard), so that depth costs no frames.
    """
    return _Expression(tokens, language).whole()


@dataclass(slots=True)
class _Expression(Generic[T]):
    tokens: Tokens
    language: Language[T]
    values: list[T] = field(default_factory=list)
    pending: list[_Pending[T]] = field(default_factory=list)

    def whole(self) -> T:
        self._operand()
        while self._continues():
            self._operand()
        if self.pending:
            raise self.tokens.expected(f"{self.language.operator} or )")
        return self.values.pop()

    def _operand(self) -> None:
        """Take prefixes and opening parentheses, and the operand behind them."""
        while self._opens():
            self._require_depth()
            if self.pending[-1].level == _CALL and self.tokens.next.text == ")":
                return
        self.values.append(self.language.operand(self.tokens))

    def _opens(self) -> bool:
        tokens, language = self.tokens, self.language
        prefix = language.prefixes.get(tokens.next.text.upper())
        if prefix is not None:
            tokens.take()
            self.pending.append(_Pending(_PREFIX, _prefixed(prefix)))
            return True
        if language.functions and tokens.next.kind == "word" and tokens.after.text == "(":
            self._call()
            return True
        if tokens.accept("("):
            self.pending.append(_Pending(_OPEN, lambda _: None))
            return True
        return False

    def _require_depth(self) -> None:
        depth = self.language.depth
        nested = sum(each.level in (_OPEN, _CALL, _PREFIX) for each in self.pending)
        if depth is not None and nested >= depth:
            raise GrammarError(self.tokens.next.column, f"nested deeper than {depth} levels")

    def _call(self) -> None:
        name, start, call = self.tokens.take(), len(self.values), self.language.call
        if call is None or name.text.upper() not in self.language.functions:
            known = [each.lower() for each in self.language.functions]
            close = nearest(name.text.lower(), known)
            raise GrammarError(name.column, f"{name.text!r} is not a function{close}")
        self.tokens.take()

        def apply(values: list[T]) -> None:
            values[start:] = [call(values[start:])]

        self.pending.append(_Pending(_CALL, apply))

    def _continues(self) -> bool:
        """Take what follows an operand; return whether another operand is due."""
        tokens = self.tokens
        while tokens.next.text == ")":
            self._reduce(_INFIX)
            if not self.pending:
                return False
            tokens.take()
            self.pending.pop().apply(self.values)
        if tokens.next.text == ",":
            self._reduce(_INFIX)
            return bool(self.pending) and self.pending[-1].level == _CALL and tokens.accept(",")
        infix = self.language.infixes.get(tokens.next.text.upper())
        self._reduce(infix[0] if infix else _INFIX)
        if infix is None:
            return False
        tokens.take()
        self.pending.append(_Pending(infix[0], _joined(infix[1])))
        return True

    def _reduce(self, level: int) -> None:
        """Apply the pending operators that bind at least as tightly as ``level``."""
        while self.pending and self.pending[-1].level >= level:
            self.pending.pop().apply(self.values)


def _prefixed(build: Callable[[T], T]) -> Callable[[list[T]], None]:
    return lambda values: values.append(build(values.pop()))


def _joined(build: Callable[[T, T], T]) -> Callable[[list[T]], None]:
    def apply(values: list[T]) -> None:
        right, left = values.pop(), values.pop()
        values.append(build(left, right))

    return apply


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
