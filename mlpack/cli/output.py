"""Where words go: answers on stdout, talk and progress on stderr."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from mlpack import words
from mlpack.cli.options import settings
from mlpack.errors import MlpackError, UsageError
from mlpack.words import size as size  # what commands call output.size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mlpack.render.document import Block
    from mlpack.stores.copy import Copied
    from mlpack.stores.wire import Counted

PIPE_WIDTH = 100
"""Columns of a table that goes into a pipe, where no terminal says how wide it is."""


def answer(document: Mapping[str, object], text: str | Callable[[], str]) -> None:
    """Print the command's answer: ``document`` with ``--json``, else ``text``."""
    if settings().json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    shown = text if isinstance(text, str) else text()
    if shown:
        click.echo(shown)


def answer_blocks(
    found: Mapping[str, object], blocks: Sequence[Block], *, markdown: bool = False
) -> None:
    """Print a document as JSON, as text that fits the terminal, or as Markdown."""
    from mlpack.render import document

    answer(
        found,
        lambda: (
            document.markdown(blocks).rstrip("\n")
            if markdown
            else document.text(blocks, table, width())
        ),
    )


def note(text: str) -> None:
    """Say something beside the answer."""
    click.echo(text, err=True)


def agree(question: str, *, yes: bool) -> None:
    """Ask before something outside the project changes; raise where the answer is no.

    Where nobody can be asked only ``--yes`` is a yes.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "this asks before it changes anything, and there is no terminal to ask at",
            hint="say --yes, or --dry-run to look only",
        )
    if not click.confirm(question, err=True):
        raise MlpackError("not agreed to: nothing was changed")


def width() -> int:
    """Columns of the terminal, or those a pipe gets."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> str:
    """Lay out rows under headers to fit the terminal; ``right`` are the columns of numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, header in enumerate(headers):
        numeric = number in right
        shown.add_column(
            header, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold"
        )
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    return _render(shown)


def _render(shown: object) -> str:
    from rich.console import Console

    console = Console(width=width(), color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines())


def moved(copied: Copied, counted: Counted) -> str:
    """What a copy did, in a line."""
    parts = [f"{words.counted(len(copied.sent), 'blob')} of {size(copied.sent_bytes)} sent"]
    if copied.mounted:
        parts.append(f"{len(copied.mounted)} mounted")
    if copied.present:
        parts.append(f"{len(copied.present)} there before")
    if counted.requests:
        parts.append(f"{counted.requests} requests, {size(counted.total)} over the network")
    return ", ".join(parts)


class Bar:
    """A progress bar; called with the bytes that were moved. This one shows nothing."""

    def __call__(self, count: int) -> None:
        """Say that ``count`` more bytes were moved."""

    def expect(self, total: int) -> None:
        """Say how many bytes there are to move, as soon as that is known."""


@contextmanager
def progress(label: str, total: int | None = None, *, counting: bool = False) -> Iterator[Bar]:
    """Show a bar on a terminal's stderr while the block runs; nothing in a pipe.

    ``total`` in bytes, or ``None`` where it is not known yet, or never; things are counted
    instead of bytes where ``counting``.
    """
    if not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    amount = TextColumn("{task.completed:,.0f}") if counting else DownloadColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Shown(bars, bars.add_task(label, total=total))


class _Shown(Bar):
    """A bar on a terminal."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def __call__(self, count: int) -> None:
        self._bars.update(self._task, advance=count)

    def expect(self, total: int) -> None:
        self._bars.update(self._task, total=total)
