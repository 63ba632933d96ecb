"""Draw the pictures of the documentation: ``docs/pictures/*.toml`` to ``*.svg`` beside them.

A picture is a row of columns. A column is a stack of boxes, top first, or an arrow to the next
one. ``make docs`` runs this; a test fails if a picture is not what its text says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"

WIDTH, BOX, GAP, ARROW, MARGIN, TITLE, NOTE = 186, 40, 6, 120, 20, 34, 18
"""Units of a column's width, a box's height, the space between boxes, an arrow's column, the
margin, a title and a line of a note."""

FILL = {
    "held": ("#e8eaf0", "#8a90a6", "#2b3044"),
    "new": ("#1e88a8", "#126780", "#ffffff"),
    "patch": ("#e08a1e", "#a8610c", "#ffffff"),
    "done": ("#4b9a57", "#34703e", "#ffffff"),
    "bad": ("#c0473f", "#8c2f29", "#ffffff"),
    "ghost": ("none", "#a6abbd", "#6b7187"),
}
"""Kind of a box: its fill, its line, its text."""


@dataclass(frozen=True, slots=True)
class Box:
    """A labelled box; ``share`` is its width as a part of the column's."""

    text: str
    kind: str = "held"
    note: str = ""
    share: float = 1.0
    rows: float = 1.0

    @property
    def height(self) -> float:
        """Its height in units."""
        return BOX * self.rows + GAP * (self.rows - 1)


@dataclass(frozen=True, slots=True)
class Column:
    """A stack of boxes above a note, or an arrow with a text."""

    title: str = ""
    note: str = ""
    arrow: str = ""
    boxes: tuple[Box, ...] = ()

    @property
    def width(self) -> float:
        """Its width in units."""
        return ARROW if self.arrow else WIDTH

    @property
    def height(self) -> float:
        """The height of its stack in units."""
        return sum(box.height + GAP for box in self.boxes)


def read(text: str) -> tuple[str, tuple[Column, ...]]:
    """Return a picture's caption and its columns."""
    document = tomllib.loads(text)
    return document["caption"], tuple(_column(each) for each in document["column"])


def _column(table: Mapping[str, object]) -> Column:
    boxes = table.get("boxes")
    words = {key: str(value) for key, value in table.items() if key != "boxes"}
    return Column(
        boxes=tuple(Box(**box) for box in boxes) if isinstance(boxes, list) else (), **words
    )


def draw(caption: str, columns: Sequence[Column]) -> str:
    """Return the SVG of a picture; its caption is its title, for those who do not see it."""
    stack = max(column.height for column in columns)
    notes = max(len(column.note.split("|")) if column.note else 0 for column in columns)
    width = sum(column.width + MARGIN for column in columns) + MARGIN
    height = MARGIN + TITLE + stack + notes * NOTE + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(caption)}</title>",
        f'<rect width="{width:g}" height="{height:g}" rx="10" fill="#ffffff"/>',
    ]
    left = float(MARGIN)
    for column in columns:
        bottom = MARGIN + TITLE + stack
        parts += (
            _arrow(column, left, bottom - stack / 2)
            if column.arrow
            else _stack(column, left, bottom)
        )
        left += column.width + MARGIN
    return "\n".join([*parts, "</svg>"]) + "\n"


def _stack(column: Column, left: float, bottom: float) -> Iterator[str]:
    middle = left + WIDTH / 2
    top = bottom - column.height
    yield _text(middle, top - 12, column.title, "#2b3044", weight=600)
    for box in column.boxes:
        yield from _box(box, left, top)
        top += box.height + GAP
    for line, note in enumerate(column.note.split("|") if column.note else ()):
        yield _text(middle, bottom + NOTE * (line + 0.8), note.strip(), "#565c73", size=12)


def _box(box: Box, left: float, top: float) -> Iterator[str]:
    fill, stroke, ink = FILL[box.kind]
    dashes = ' stroke-dasharray="5 4"' if box.kind == "ghost" else ""
    yield (
        f'<rect x="{left:g}" y="{top:g}" width="{max(WIDTH * box.share, 4):g}" '
        f'height="{box.height:g}" rx="5" fill="{fill}" stroke="{stroke}"{dashes}/>'
    )
    narrow = box.share < 0.7
    middle = left + (WIDTH * box.share + 8 if narrow else WIDTH * box.share / 2)
    ink, anchor = ("#2b3044", "start") if narrow else (ink, "middle")
    line = top + box.height / 2 + (-3 if box.note else 5)
    yield _text(middle, line, box.text, ink, weight=500, anchor=anchor)
    if box.note:
        yield _text(middle, line + 15, box.note, ink, size=11, anchor=anchor)


def _arrow(column: Column, left: float, height: float) -> Iterator[str]:
    right = left + ARROW
    lines = column.arrow.split("|")
    for number, line in enumerate(lines):
        above = height - 10 - NOTE * (len(lines) - 1 - number)
        yield _text(left + ARROW / 2, above, line.strip(), "#2b3044", size=12)
    yield (
        f'<path d="M{left:g} {height:g} H{right - 8:g}" stroke="#565c73" stroke-width="2" '
        f'fill="none"/><path d="M{right:g} {height:g} l-10 -5 v10 z" fill="#565c73"/>'
    )


def _text(
    x: float, y: float, text: str, ink: str, *, size: int = 13, weight: int = 400,
    anchor: str = "middle",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{ink}" font-size="{size}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def pictures() -> Iterator[tuple[Path, str]]:
    """Yield the path and the SVG of every picture."""
    for source in sorted(PICTURES.glob("*.toml")):
        yield source.with_suffix(".svg"), draw(*read(source.read_text(encoding="utf-8")))


if __name__ == "__main__":
    for path, svg in pictures():
        path.write_text(svg, encoding="utf-8")
