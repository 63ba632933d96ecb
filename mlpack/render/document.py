"""A short document as values, and its two forms: plain text and Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Heading:
    """What the next blocks are about."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Some sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """One point per item."""

    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headers; ``right`` are the columns of numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int]


_JOINED = "\u00a0"
"""A space textwrap does not break at."""

Block = Heading | Paragraph | Bullets | Table


class TableWriter(Protocol):
    """Lays out a table for some terminal."""

    def __call__(
        self, headers: Sequence[str], rows: Sequence[Sequence[str]], /, *, right: Collection[int]
    ) -> str:
        """The lines of the table; ``right`` are the columns of numbers."""
        ...


def text(blocks: Iterable[Block], table: TableWriter, width: int) -> str:
    """``blocks`` for a terminal of ``width`` columns; ``table`` lays out tables for it."""
    written = []
    for block in blocks:
        if isinstance(block, Heading):
            # No empty line between a heading and what it is about.
            written.append(f"\n{_filled(block.text, width)}\n")
        elif isinstance(block, Paragraph):
            written.append(_filled(block.text, width) + "\n")
        elif isinstance(block, Bullets):
            written += [_bullet(item, width) for item in block.items]
        else:
            written.append(table(block.headers, block.rows, right=block.right) + "\n")
    return "".join(each if each.endswith("\n") else each + "\n" for each in written).strip("\n")


def markdown(blocks: Iterable[Block]) -> str:
    """``blocks`` as GitHub-flavoured Markdown, ending in one line break."""
    written = []
    for block in blocks:
        if isinstance(block, Heading):
            written.append(f"### {_escaped(block.text)}")
        elif isinstance(block, Paragraph):
            written.append(_escaped(block.text))
        elif isinstance(block, Bullets):
            written.append("\n".join(f"- {_escaped(item)}" for item in block.items))
        else:
            written.append(_markdown_table(block))
    return "\n\n".join(written) + "\n"


def _bullet(item: str, width: int) -> str:
    # The hanging indent sets a second line apart from a second point.
    return "- " + _filled(item, width - 2).replace("\n", "\n  ")


def _filled(words: str, width: int) -> str:
    """Wrapped between words only: a digest stays one to copy, a number stays with its unit."""
    joined = re.sub(r"(?<=\d) (?=\S)", _JOINED, words)
    filled = textwrap.fill(joined, width, break_long_words=False, break_on_hyphens=False)
    return filled.replace(_JOINED, " ")


def _markdown_table(table: Table) -> str:
    rules = ["---:" if number in table.right else "---" for number in range(len(table.headers))]
    rows = [table.headers, *table.rows]
    head, *body = [" | ".join(_escaped(cell) for cell in row) for row in rows]
    return "\n".join(f"| {row} |" for row in [head, " | ".join(rules), *body])


def _escaped(words: str) -> str:
    """Names and titles come from files; none of them may become markup."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", words)
