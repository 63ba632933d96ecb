"""The grammar below target conditions and edgeHub's routes: tokens, and expressions of operators.

:class:`Tokens` takes one token after another, :func:`expression` reads an expression of a
:class:`Language`: operands, prefix and infix operators, calls and parentheses. The language defines
the operands and what the operators build. Written by hand: lark takes 65 ms to import and 40 ms to
build its tables (lark 1.3, Python 3.11), and every command reads the conditions in ``mlpack.toml``.
This takes 0.1 ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mlpack.humanize import nearest

T = TypeVar("T")
_SHOWN = 20
_OPEN, _CALL, _INFIX, _PREFIX = 0, -1, 1, 100
"""Levels on the stack of pending operators; infix operators have theirs from 1 up."""


class GrammarError(ValueError):
    """A text outside the grammar; the message is the column, counted from 1, and the problem.

    ``hint``: what to write instead; empty if the language's own example says it.
    """

    def __init__(self, column: int, problem: str, hint: str = "") -> None:
        super().__init__(f"column {column}: {problem}")
        self.hint = hint


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
