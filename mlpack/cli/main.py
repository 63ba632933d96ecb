"""The ``mlpack`` command: the group, and the one place where an error becomes a message."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from mlpack import __version__
from mlpack.cli.console import Settings, echo
from mlpack.cli.terminal import styled, wrapped
from mlpack.errors import MissingFile, MlpackError, UsageError
from mlpack.humanize import nearest

COMMANDS = {
    "init": "Start a project: mlpack.toml, requirements.in.",
    "register": "Keep a model as a version in the project's store.",
    "models": "List models and their versions.",
    "show": "Show one model version: files, signature, metrics.",
    "tag": "Give a model version an alias, or move it from another version.",
    "round": "Make a version whose patch is several times smaller, within bounds that are checked.",
    "base": "Build or show the stable base image.",
    "build": "Make a release: the base and one layer with the model, or a patch on its anchor.",
    "releases": "List the releases in the store, built here or pulled, the oldest first.",
    "push": "Send a release to its registry: only what it lacks.",
    "pull": "Bring an image from a registry into the project's store.",
    "copy": "Copy an image between registries, layouts and archives.",
    "diff": "Show what a device on OLD fetches to reach NEW.",
    "graft": "Turn an image built by any tool into one layer on what devices hold.",
    "patch": "Make, apply or inspect a patch that turns one file into another.",
    "report": "Show bytes and money per release and fleet.",
    "groups": "List the device groups of mlpack.toml.",
    "devices": "Show the devices of a group, and what each runs.",
    "plan": "Show what a release takes on a device group; nothing is sent.",
    "deploy": "Roll a release out to a device group, stage by stage.",
    "status": "Show the rollouts to the device groups.",
    "rollback": "Go back to an earlier release, which the devices still hold.",
    "bundle": "Make or check a file that updates a device without a network.",
    "load": "Bring an image into Docker or podman on this machine.",
    "run": "Start a release as a container here, and wait until it answers.",
    "score": "Send pictures, values or tensors to a module, and show its answers.",
    "serve": "Serve a model version on this machine, without a container, until interrupted.",
    "render": "Write the deployment manifest of a release.",
    "up": "Run a deployment manifest on this machine's Docker, to see it work.",
    "down": "Stop and remove what mlpack up started.",
    "azure": "Make what devices need in Azure: registry logins.",
    "registry": "Serve this project's releases as a registry.",
    "gc": "Show what nothing in the store names any more, or remove it.",
    "doctor": "Check this machine and this project.",
    "docs": "Show a page of the documentation, or list the pages.",
    "completion": "Print or install the shell's completion script.",
}
"""Every command and its one-line help, in the order of the user's way through.

Listed here so that ``mlpack --help`` imports none of them; a test compares the
lines with each command's own help.
"""

SIGINT_STATUS, SIGPIPE_STATUS = 130, 141
_EMPTY_OPTION = re.compile(r"--[a-z-]+=")
_MEANT = re.compile(r"\. Did you mean (.+)$")
_GIVEN = re.compile(r": '([^']*)' is not one of")
_JSON, _VERBOSE = "mlpack.json", "mlpack.verbose"
"""What the context of the group knows before the command is found."""


class Group(click.Group):
    """Loads a command when it is called, and turns errors into two lines."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the user's way through."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import ``mlpack.cli.<name>`` and return its command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mlpack.cli.{cmd_name}")
        found = getattr(module, cmd_name)
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; the error for a mistyped one names the nearest."""
        mistyped = args and args[0] not in COMMANDS and not args[0].startswith("-")
        if mistyped and not ctx.resilient_parsing:
            raise click.UsageError(f"no such command {args[0]!r}{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, the command's too; an empty one means nothing anywhere."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        ctx.meta[_JSON] = "--json" in args or os.environ.get("MLPACK_JSON") == "1"
        ctx.meta[_VERBOSE] = False
        with _reported(ctx):
            if any(not arg or _EMPTY_OPTION.fullmatch(arg) for arg in args):
                raise UsageError("an argument is empty", hint="is a variable of the shell not set?")
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; what goes wrong becomes ``error:`` and ``hint:`` and a status."""
        with _reported(ctx):
            return super().invoke(ctx)


@click.group(
    "mlpack",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nThe way through:\n"
    "  mlpack init --template fan fan && cd fan\n"
    "  python train.py && mlpack register fan.onnx\n"
    "  mlpack serve fan\n"
    "  mlpack base build && mlpack build fan\n"
    "  mlpack report fan",
)
@click.option(
    "-C",
    "directory",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Run in DIR instead of here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Print no notes and no progress.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Print how long each step takes, and the causes of an error.",
)
@click.version_option(__version__, prog_name="mlpack")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401  (each has its own type)
    """Ship models to edge fleets as one small layer on the image the devices hold."""
    directory: Path = options["directory"]
    if not directory.is_dir():
        raise MissingFile(f"-C {directory} is not a directory")
    ctx.meta[_VERBOSE] = options["verbose"]
    ctx.obj = Settings(
        directory,
        json=ctx.meta[_JSON],
        quiet=options["quiet"],
        verbose=options["verbose"],
        clock=ctx.obj,
    )


@contextmanager
def _reported(ctx: click.Context) -> Iterator[None]:
    """End with two lines and a status where the block raises an error, mlpack's or another's."""
    try:
        yield
    except MlpackError as error:
        _fail(ctx, Failure(str(error), error.hint, error.exit_status), error)
    except click.exceptions.NoArgsIsHelpError as error:
        if not ctx.meta.get(_JSON):
            raise  # a group without its command shows its help
        _fail(ctx, _wrong_usage(click.UsageError("Missing command.", error.ctx)), error)
    except click.UsageError as error:
        _fail(ctx, _wrong_usage(error), error)
    except KeyboardInterrupt:
        _interrupted(ctx)
    except BrokenPipeError:
        _leave_the_pipe()
    except OSError as error:
        _drop_the_rest()
        where = f"{error.filename}: " if error.filename else ""
        _fail(ctx, Failure(f"{where}{error.strerror or error}", _os_hint(error), 1), error)


def _wrong_usage(error: click.UsageError) -> Failure:
    """Return what click found wrong with the arguments, in mlpack's words."""
    where = error.ctx.command_path if error.ctx else "mlpack"
    said = error.format_message().rstrip(".?")
    said = _MEANT.sub(r" (did you mean \1?)", said)
    said = re.sub(r",?\n\t", ", ", said.replace(". Choose from:\n\t", ": one of "))
    if isinstance(error, click.BadParameter) and error.param is not None:
        known = getattr(error.param.type, "choices", ())
        given = _GIVEN.search(said)
        said += nearest(given[1], known) if given else ""
    return Failure(f"{said[:1].lower()}{said[1:]}", f"see: {where} --help", error.exit_code)


@dataclass(frozen=True, slots=True)
class Failure:
    """What a command that failed prints: two lines, or with ``--json`` one document."""

    message: str
    hint: str
    status: int


def _fail(ctx: click.Context, failure: Failure, error: BaseException | None = None) -> NoReturn:
    """Print what went wrong and what to do on stderr, and end with the status.

    With ``--json`` it is one line of JSON, the last of stderr: ``{"error": {…}}``.
    """
    if ctx.meta.get(_JSON):
        echo(json.dumps({"error": asdict(failure)}, ensure_ascii=False))
        sys.exit(failure.status)
    for label, text, color in (
        ("error:", failure.message, "red"),
        ("hint:", failure.hint, "cyan"),
    ):
        if text:
            shown = wrapped(f"{label} {_line(text)}", " " * (len(label) + 1))
            echo(styled(label, sys.stderr, fg=color, bold=True) + shown.removeprefix(label))
    if ctx.meta.get(_VERBOSE) and error is not None:
        for cause in _causes(error):
            echo(wrapped(f"because: {type(cause).__name__}: {_line(str(cause))}", " " * 9))
    sys.exit(failure.status)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that ``error`` was raised from, the last first."""
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _line(text: str) -> str:
    """``text`` on one line: a name in it may hold a line break or a terminal's codes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def main() -> None:
    """Entry point of the ``mlpack`` script."""
    # A terminated command must clean up as an interrupted one does.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        cli.main(prog_name="mlpack", complete_var="_MLPACK_COMPLETE", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _leave_the_pipe()
    except (click.Abort, KeyboardInterrupt):
        _interrupted()
    except RuntimeError as error:
        # Python before 3.12 wraps what interrupts the creation of a class, as imports do.
        if isinstance(error.__cause__, KeyboardInterrupt):
            _interrupted()
        raise


def _leave_the_pipe() -> NoReturn:
    """End as programs do whose reader went away (``mlpack report | head``)."""
    _drop_the_rest()
    sys.exit(SIGPIPE_STATUS)


def _drop_the_rest() -> None:
    """Send what stdout does not take nowhere, instead of failing again (status 120) at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted(ctx: click.Context | None = None) -> NoReturn:
    # A terminal shows ^C, and the message would stand behind it.
    click.echo("", err=True, nl=sys.stderr.isatty())
    failure = Failure("interrupted; nothing half-done was left", "", SIGINT_STATUS)
    _fail(ctx or click.Context(cli), failure)


def _terminated(*_: object) -> None:
    raise KeyboardInterrupt


def _os_hint(error: OSError) -> str:
    import errno

    return {
        errno.ENOSPC: "free some disk space and run the command again",
        errno.EDQUOT: "free some disk space and run the command again",
        errno.EACCES: "check who owns the file or directory",
        errno.EPERM: "check who owns the file or directory",
        errno.ENOTDIR: "a part of this path is a file, not a directory",
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.EROFS: "the file system is read-only: choose another directory with -C",
    }.get(error.errno or 0, "")
