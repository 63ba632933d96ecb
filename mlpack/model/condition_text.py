"""The words and signs of a target condition, with their columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["path", "text", "number", "sign", "end"]

_SEGMENT = r"(?:[A-Za-z_$][A-Za-z0-9_$]*|\[\[[^\[\]]+\]\])"
_TOKEN = re.compile(
    rf"""\s*(?:
        (?P<path>{_SEGMENT}(?:\.{_SEGMENT})*)
      | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
      | (?P<text>'(?:[^']|'')*')
      | (?P<sign><>|!=|<=|>=|==|[=<>()\[\],])
    )""",
    re.VERBOSE,
)
_PART = re.compile(r"\[\[([^\[\]]+)\]\]|([^.\[\]]+)")

_ALLOWED = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']*")
"""What a text of a target condition may hold, and the quote written twice."""

_QUOTES = '"`\u2018\u2019\u201c\u201d'


@dataclass(frozen=True, slots=True)
class Token:
    """One word, value or sign; ``column`` counts from 1."""

    kind: Kind
    text: str
    column: int

    @property
    def shown(self) -> str:
        """It as a message names it."""
        return "the end" if self.kind == "end" else self.text

    @property
    def value(self) -> str:
        """What a quoted text says."""
        return self.text[1:-1].replace("''", "'")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names a path goes by, without the brackets of those written ``[[a-b]]``."""
        return tuple(found[1] or found[2] for found in _PART.finditer(self.text))


Problem = Callable[[int, str], Exception]


def tokens(text: str, problem: Problem) -> tuple[Token, ...]:
    """Cut ``text`` up; raise what ``problem`` makes of a column and a message."""
    found: list[Token] = []
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise problem(*_unread(text, place))
        kind = match.lastgroup
        start = match.start(kind)
        token = Token(kind, match[kind], start + 1)  # type: ignore[arg-type]  # the groups' names
        if kind == "text":
            _check_text(token, problem)
        found.append(token)
        place = match.end()
    return (*found, Token("end", "", end + 1))


def _unread(text: str, place: int) -> tuple[int, str]:
    while text[place].isspace():
        place += 1
    char = text[place]
    if char == "'":
        return place + 1, "this text has no closing quote (a quote in a text is written twice)"
    if char in _QUOTES:
        return place + 1, f"{char} quotes nothing: texts stand in single quotes, 'vans'"
    if char == "-":
        return place + 1, "- belongs to no name: write tags.[[my-tag]]"
    return place + 1, f"{char!r} means nothing here"


def _check_text(token: Token, problem: Problem) -> None:
    content = token.text[1:-1]
    fits = _ALLOWED.match(content)
    length = fits.end() if fits else 0
    if length < len(content):
        raise problem(
            token.column + 1 + length,
            f"{content[length]!r} cannot stand in a text (letters, digits, -:.+%_#*?!(),=@;$ can)",
        )
