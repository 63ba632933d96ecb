"""What commands share: how one is declared, options of several, and what they print.

Answers go to stdout, notes and progress to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from mlpack.cli import terminal
from mlpack.cli.terminal import table as table  # what commands call console.table
from mlpack.cli.terminal import width as width
from mlpack.errors import MlpackError, UsageError
from mlpack.humanize import counted
from mlpack.humanize import size as size  # what commands call console.size
from mlpack.kinds import EFFORTS

COMPLETION = "_MLPACK_COMPLETE"
"""The variable with which a shell asks ``mlpack`` for completions (click's own protocol)."""

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mlpack.api.project import Project
    from mlpack.api.session import Clock, Session
    from mlpack.api.session import Progress as Report
    from mlpack.registry.counting_transport import Traffic
    from mlpack.render.document import Block
    from mlpack.stores.copy import CopyResult, DigestChange


@dataclass(slots=True)
class Settings:
    """The options before the command; ``json`` may also be set by the command's own."""

    directory: Path
    json: bool = False
    quiet: bool = False
    """Whether notes and bars are left out."""

    verbose: bool = False
    """Whether every step is reported with its time, and an error with its causes."""

    clock: Clock | None = None
    """``None`` is the machine's; tests pass their own as the context's object."""


class Parsed(click.ParamType):  # type: ignore[type-arg]  # generic in the stubs only
    """An argument that a function turns into a value; its errors name the problem."""

    def __init__(self, name: str, module: str, function: str) -> None:
        self.name = name
        self._module = module
        self._function = attrgetter(function)

    def convert(self, value: object, param: object, ctx: object) -> object:
        """Read a text, by a module that is imported now; a value that was read already stays."""
        if not isinstance(value, str):
            return value
        return self._function(import_module(f"mlpack.{self._module}"))(value)


PLATFORM = Parsed("OS/ARCH", "oci.descriptor", "Platform.parse")
REPOSITORY = Parsed("REPOSITORY", "oci.descriptor", "Reference.parse_repository")
STAGES = Parsed("SHARES", "settings.reader", "parse_stages")
SHARE = Parsed("SHARE", "settings.reader", "parse_share")
TIME = Parsed("TIME", "settings.reader", "parse_time")
FILE = click.Path(path_type=Path)
OUTPUT = click.Path(path_type=Path)
"""A file that the command writes: :func:`mlpack.stores.files.output` checks it."""

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def pairs(flag: str, name: str, *, metavar: str, help: str, exact: bool = False) -> Decorator:
    """Declare an option ``KEY=VALUE`` that may be repeated: the request gets a dict.

    Spaces around a value are dropped unless it is ``exact``.
    """

    def read(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> object:
        found = {}
        for text in texts:
            key, equals, value = text.partition("=")
            if not equals or not key.strip():
                raise UsageError(
                    f"{flag} {text!r} sets nothing", hint=f"write it as {flag} {metavar}"
                )
            found[key.strip()] = value if exact else value.strip()
        return found

    return click.option(flag, name, multiple=True, metavar=metavar, callback=read, help=help)


def env(meaning: str) -> Decorator:
    """Declare ``--env KEY=VALUE``, which may be repeated: the request gets a dict."""
    return pairs("--env", "env", metavar="KEY=VALUE", help=meaning, exact=True)


device_group = click.option(
    "--device-group", "device_group", required=True, metavar="GROUP", help="One of mlpack groups."
)
optional_group = click.option(
    "--device-group", "device_group", default="", metavar="GROUP", help="Only this group."
)
fleet = click.option(
    "--fleet",
    type=FILE,
    metavar="FILE",
    help="Read the devices from FILE, not from the IoT hub.",
)
effort = click.option(
    "--effort",
    type=click.Choice(EFFORTS),
    default="default",
    show_default=True,
    help="How long a smaller patch is searched for: about 0.05 s for each MB by default.",
)


DEPLOYMENT = "deployment.json"
deployment = click.argument("deployment", type=FILE, metavar="[FILE]", default=DEPLOYMENT)


class Count(click.IntRange):
    """A whole number of things."""

    name = "whole number"


def settings() -> Settings:
    """Return the settings of the running command."""
    found = click.get_current_context().find_object(Settings)
    return found if found is not None else Settings(Path.cwd())


def session() -> Session:
    """Return a new session in the directory of ``-C``; it closes when the command ends."""
    from mlpack.api.session import Clock, Session

    here = settings()
    made = Session(here.directory, Bars(here), here.clock or Clock())
    click.get_current_context().call_on_close(made.close)
    return made


def project() -> Project:
    """Return the project in the directory of ``-C``; its connections close with the command."""
    from mlpack.api.project import Project

    return Project(session())


def command(
    name: str, request: type | None = None, *, examples: str
) -> Callable[[Callable[..., None]], click.Command]:
    """Declare a command: its docstring is the help, ``examples`` are below it, ``--json`` works.

    The parameters that are fields of ``request`` become one request, the function's first
    argument; those that only change what is printed follow it.

    >>> @command("hello", examples="mlpack hello")
    ... def hello() -> None:
    ...     '''Say hello.'''
    >>> hello.name
    'hello'
    """
    lines = "\n".join(
        f"  {line.strip()}" if line.strip() else "" for line in examples.strip().splitlines()
    )
    epilog = f"\b\nExamples:\n{lines}"

    def declare(function: Callable[..., None]) -> click.Command:
        made = click.command(name, epilog=epilog)(_taking(request, function))
        made.params.append(
            click.Option(
                ["--json"],
                is_flag=True,
                expose_value=False,
                callback=_json,
                help="Print one JSON document on stdout.",
            )
        )
        if COMPLETION in os.environ:
            from mlpack.cli.completed_values import complete

            for each in made.params:
                complete(each)
        return made

    return declare


def _taking(request: type | None, function: Callable[..., None]) -> Callable[..., None]:
    """``function``, called with a request instead of its fields; what is not set is left out."""
    if request is None:
        return function
    names = {each.name for each in fields(request)}

    @wraps(function)
    def call(**values: Any) -> None:  # noqa: ANN401  # what click read
        mine: Mapping[str, object] = {
            key: value for key, value in values.items() if key in names and value is not None
        }
        rest = {key: value for key, value in values.items() if key not in names}
        function(request(**mine), **rest)

    return call


def _json(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    found = ctx.find_object(Settings)
    if wanted and found is not None:
        found.json = True


def answer(found: object, text: str | Callable[[], str]) -> None:
    """Print the command's answer: the document of ``found`` with ``--json``, else ``text``."""
    if settings().json:
        from mlpack.json_document import document

        click.echo(json.dumps(document(found), indent=2, ensure_ascii=False))
        return
    shown = text if isinstance(text, str) else text()
    if shown:
        click.echo(shown, color=terminal.colored(sys.stdout))


def answer_blocks(found: object, blocks: Iterable[Block], *, markdown: bool = False) -> None:
    """Print a result as JSON, as text that fits the terminal, or as Markdown."""
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
    """Print a note on stderr, unless ``-q``; a line is wrapped to the terminal."""
    if not settings().quiet:
        label, colon, rest = text.partition(": ")
        if colon and label == "warning":
            text = f"{terminal.styled('warning:', sys.stderr, fg='yellow', bold=True)} {rest}"
        echo(terminal.wrapped(text))


def echo(text: str) -> None:
    """Print a line on stderr, with its colors if stderr takes colors."""
    click.echo(text, err=True, color=terminal.colored(sys.stderr))


def agree(question: str, *, yes: bool) -> None:
    """Ask before something outside the project changes; raise unless the user agrees.

    Without a terminal to ask on, only ``--yes`` agrees.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "this asks before it changes anything, and there is no terminal to ask on",
            hint="add --yes, or --dry-run to look only",
        )
    if not click.confirm(question, err=True):
        raise MlpackError("not confirmed: nothing was changed")


def moved(copied: CopyResult, traffic: Traffic, verb: str = "sent") -> str:
    """Describe what a copy did, in a line."""
    parts = [f"{counted(len(copied.sent), 'blob')} of {size(copied.sent_bytes)} {verb}"]
    if copied.mounted:
        parts.append(f"{len(copied.mounted)} mounted")
    if copied.present:
        parts.append(f"{len(copied.present)} there before")
    if traffic.requests:
        parts.append(f"{traffic.requests} requests, {size(traffic.total)} over the network")
    return ", ".join(parts)


def note_conversion(change: DigestChange | None) -> None:
    """Say how an image's digest changed, if it did."""
    if change:
        note(
            f"the digest changed from {change.before} to {change.after}: in a layout an image has "
            "OCI's media types, in a registry it keeps Docker's"
        )


class Bars:
    """Show the progress of steps on a terminal's stderr, and print their messages."""

    def __init__(self, settings: Settings) -> None:
        self._quiet, self._verbose = settings.quiet, settings.verbose
        self._shown: dict[str, tuple[Progress, TaskID]] = {}
        self._begun: dict[str, float] = {}

    def __call__(self, report: Report) -> None:
        """Take one report of a step; in a pipe only its message is shown."""
        if self._quiet:
            return
        if report.message:
            note(report.message)
            return
        if sys.stderr.isatty():
            self._show(report)
        if self._verbose:
            self._time(report)

    def _time(self, report: Report) -> None:
        """Report a step that ended: what it was, how much, how long."""
        begun = self._begun.setdefault(report.step, perf_counter())
        if report.finished:
            del self._begun[report.step]
            amount = f", {_amount(report)}" if _amount(report) else ""
            note(f"{report.step}: {perf_counter() - begun:.2f} s{amount}")

    def _show(self, report: Report) -> None:
        if report.step not in self._shown:
            self._shown[report.step] = _bar(report)
        bars, task = self._shown[report.step]
        detail = f"  {report.detail}" if report.detail else ""
        amount = _amount(report) + detail
        bars.update(task, completed=report.done, total=report.total, amount=amount)
        if report.finished:
            bars.stop()
            del self._shown[report.step]


def _amount(report: Report) -> str:
    """Return how much of a step is done; nothing for one that only runs.

    >>> from mlpack.api.session import Progress
    >>> _amount(Progress("pushing", 5_000_000, 12_000_000)), _amount(Progress("building"))
    ('5.0 MB of 12.0 MB', '')
    """
    if not report.done and report.total is None:
        return ""
    shown = size if report.unit == "bytes" else "{:,}".format
    count = shown(report.done) + (f" of {shown(report.total)}" if report.total is not None else "")
    return count if report.unit == "bytes" else f"{count} {report.unit}"


def _bar(report: Report) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    amount = TextColumn("{task.fields[amount]}")
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn())
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bars.add_task(report.step, total=report.total, amount=_amount(report))
    bars.start()
    return bars, task
