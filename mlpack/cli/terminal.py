"""The terminal: its width, colors, wrapped lines, and tables that fit it.

Colors follow https://no-color.org and https://force-color.org: a terminal gets them, a pipe does
not, ``NO_COLOR`` turns them off and ``FORCE_COLOR`` on.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

PIPE_WIDTH = 100
"""Columns of a table that goes into a pipe, which has no width of its own."""

_GAPS = (3, 2)
"""Spaces between the columns of a table, if there is room, and if there is little."""


def width() -> int:
    """Columns of the terminal, or those a pipe gets."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def colored(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what goes to ``stream`` may have colors.

    >>> import io
    >>> [colored(io.StringIO(), each) for each in ({}, {"FORCE_COLOR": "1"})]
    [False, True]
    """
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") != "0":
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"


def styled(text: str, stream: TextIO, **style: str | bool) -> str:
    """``text`` in a style of :func:`click.style`, if ``stream`` takes colors."""
    import click

    return click.style(text, **style) if colored(stream) else text  # type: ignore[arg-type]


def wrapped(text: str, indent: str = "") -> str:
    """``text`` for stderr: a line longer than the terminal is wrapped between words.

    ``indent`` begins the lines that follow. Text of several lines, such as a table, is as it is.
    """
    if not sys.stderr.isatty() or "\n" in text:
        return text
    return textwrap.fill(
        text,
        shutil.get_terminal_size().columns,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns of a table are shown, how wide each is, and the spaces between."""

    columns: tuple[int, ...]
    widths: Mapping[int, int]
    gap: int


def lay_out(
    natural: Sequence[int], least: Sequence[int], droppable: Sequence[int], room: int
) -> Layout:
    """Fit columns of ``natural`` widths into ``room``.

    They become narrower down to ``least``, their longest words. If that is not enough, the
    ``droppable`` are left out, the last first; what is still too wide stays so.

    >>> lay_out((10, 30), (5, 8), (1,), 20)
    Layout(columns=(0, 1), widths={0: 5, 1: 11}, gap=3)
    >>> lay_out((10, 30), (5, 28), (1,), 20).columns
    (0,)
    """
    columns = tuple(range(len(natural)))
    queue = [*droppable]
    while True:
        between = len(columns) - 1
        for gap in _GAPS:
            spare = room - sum(least[each] for each in columns) - gap * between
            if spare >= 0:
                return Layout(columns, _widths(columns, natural, least, spare), gap)
        if not queue:
            return Layout(columns, {each: least[each] for each in columns}, _GAPS[-1])
        last = queue.pop()
        columns = tuple(each for each in columns if each != last)


def _widths(
    columns: Sequence[int], natural: Sequence[int], least: Sequence[int], spare: int
) -> dict[int, int]:
    """Share the ``spare`` columns of the terminal out by what each column lacks."""
    lacks = {each: natural[each] - least[each] for each in columns}
    whole = sum(lacks.values())
    if whole <= spare:
        return {each: natural[each] for each in columns}
    return {each: least[each] + spare * lacks[each] // whole for each in columns}


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> str:
    """Lay out rows under headers to fit the terminal; ``right`` are the columns of numbers.

    Cells are wrapped between words, numbers never. On a terminal that is too narrow for the
    longest words, columns of text are left out from the right, and a last line names them.
    """
    from rich.cells import cell_len

    every = [(header, *(row[number] for row in rows)) for number, header in enumerate(headers)]
    natural = [max(map(cell_len, cells)) for cells in every]
    least = [
        max(map(cell_len, _unbreakable(cells, whole=number in right)))
        for number, cells in enumerate(every)
    ]
    texts = [each for each in range(1, len(headers)) if each not in right]
    layout = lay_out(natural, least, texts if sys.stdout.isatty() else (), width())
    shown = [_row(headers, layout, right), *(_row(row, layout, right) for row in rows)]
    across = sum(layout.widths.values()) + layout.gap * (len(layout.columns) - 1)
    heads = [styled(line, sys.stdout, bold=True) for line in shown[0]]
    lines = [*heads, "─" * across, *(line for row in shown[1:] for line in row)]
    dropped = [each for number, each in enumerate(headers) if number not in layout.columns]
    if dropped:
        lines.append(f"(not shown, for lack of width: {', '.join(dropped)})")
    return "\n".join(lines)


def _unbreakable(cells: Sequence[str], *, whole: bool) -> list[str]:
    """The parts a column cannot break: words and its header, or numbers and words of its header."""
    header, *rest = cells
    if whole:
        return [*header.split(), "", *rest]
    return [header, *(word for cell in rest for word in cell.split())]


def _row(cells: Sequence[str], layout: Layout, right: Collection[int]) -> list[str]:
    """The lines of one row."""
    columns = [_cell(cells[each], layout.widths[each], each in right) for each in layout.columns]
    height = max(map(len, columns))
    blank = [" " * layout.widths[each] for each in layout.columns]
    padded = [
        column + [empty] * (height - len(column))
        for column, empty in zip(columns, blank, strict=True)
    ]
    return [(" " * layout.gap).join(line).rstrip() for line in zip(*padded, strict=True)]


def _cell(text: str, columns: int, right: bool) -> list[str]:
    from rich.cells import cell_len

    lines = textwrap.wrap(text, columns, break_long_words=False, break_on_hyphens=False)
    if cell_len(text) <= columns:
        lines = [text]
    pads = [" " * max(0, columns - cell_len(line)) for line in lines or [""]]
    joined = zip(lines or [""], pads, strict=True)
    return [pad + line if right else line + pad for line, pad in joined]
