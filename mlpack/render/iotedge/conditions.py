"""The condition of a route: ``WHERE temperature > 30 AND NOT is_null($body.unit)``.

After edgeHub's own grammar (Azure/iotedge, Routing.Core/grammar/Condition.g4 and
GrammarLexer.g4) and its functions (Query/ConditionVisitor.cs). Only the form is checked:
what a comparison of two types comes to is for edgeHub to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mlpack.words import nearest

FUNCTIONS = frozenset(
    {
        "abs", "exp", "power", "square", "ceiling", "floor", "sign", "sqrt",
        "as_number", "is_bool", "is_defined", "is_null", "is_number", "is_string",
        "concat", "length", "lower", "upper", "substring", "index_of",
        "starts_with", "ends_with", "contains", "twin_change_includes",
    }
)  # fmt: skip
"""Compared without case."""

_TOKEN = re.compile(
    r"""
      (?P<space>    [ \t\r\n]+ | /\*.*?\*/ )
    | (?P<string>   "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' )
    | (?P<system>   \$[^()<>@,;:\\"/?={}\ \t\n\r]+ )
    | (?P<operator> <= | >= | <> | != | \|\| | \?\? | [=<>/] )
    | (?P<word>     [^()<>@,;:\\"/?={}\ \t\n\r]+ )
    | (?P<mark>     . )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPERATORS = frozenset({"+", "-", "*", "%", "and", "or"})
_UNARY = frozenset({"-", "not"})
_KEYWORDS = frozenset({"select", "from", "where", "into", *_OPERATORS, *_UNARY})


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


def condition_problem(text: str, start: int = 0) -> str:
    """What is wrong with a condition; empty where nothing is.

    ``start`` is where it begins in its route, for the place in the message.

    >>> condition_problem("a = 1 AND (b < 2 OR upper(c) = 'X')")
    ''
    >>> condition_problem("a = = 1")
    "a value is expected at character 5, not '='"
    """
    return _Reader(
        [
            _Token(found.lastgroup or "", found[0], start + found.start())
            for found in _TOKEN.finditer(text)
            if found.lastgroup != "space"
        ]
    ).problem()


@dataclass(slots=True)
class _Reader:
    """Goes through the tokens once, with the parentheses that are open on a stack.

    Not recursive: a condition may be nothing but parentheses.
    """

    tokens: list[_Token]
    at: int = 0
    open: list[str] = field(default_factory=list)
    """``(`` for a group, the name for a function's arguments."""

    def problem(self) -> str:
        wants_value = True
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            found = self._value(token) if wants_value else self._after(token)
            if isinstance(found, str):
                return found
            wants_value = found
        if wants_value:
            return "a value is expected at the end of the condition"
        return "the condition has a '(' that is not closed" if self.open else ""

    def _value(self, token: _Token) -> str | bool:
        """Take a token where a value belongs: a problem, or whether a value is wanted still."""
        text = token.text.lower()
        if text == "(":
            self.open.append("(")
            return True
        if token.kind in ("string", "system"):
            return False
        if text == "{":
            escaped = self._next("system") and self._next("mark", "}")
            return False if escaped else f"{{$NAME}} is expected at character {token.start + 1}"
        if text in _UNARY:
            return True
        if token.kind != "word" or text in _KEYWORDS:
            return f"a value is expected at character {token.start + 1}, not {token.text!r}"
        if "[" in text or "]" in text:
            return f"{token.text!r} is no property: only those of $body have elements"
        return self._call(token) if self._next("mark", "(") else False

    def _call(self, token: _Token) -> str | bool:
        if token.text.lower() not in FUNCTIONS:
            return f"{token.text!r} is no function{nearest(token.text.lower(), FUNCTIONS)}"
        if self._next("mark", ")"):
            return False
        self.open.append(token.text)
        return True

    def _after(self, token: _Token) -> str | bool:
        """Take a token behind a value: a problem, or whether a value is wanted next."""
        text = token.text.lower()
        if token.kind == "operator" or (token.kind == "word" and text in _OPERATORS):
            return True
        if text == ")" and self.open:
            self.open.pop()
            return False
        if text == ")":
            return f"')' at character {token.start + 1} closes nothing"
        if text == "," and self.open and self.open[-1] != "(":
            return True
        return f"an operator is expected at character {token.start + 1}, not {token.text!r}"

    def _next(self, kind: str, text: str = "") -> bool:
        """Take the next token where it is this one."""
        if self.at == len(self.tokens):
            return False
        token = self.tokens[self.at]
        taken = token.kind == kind and text in ("", token.text)
        self.at += taken
        return taken
