"""The ``mlpack`` command: the group, and the one place where an error becomes a message."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from mlpack import __version__
from mlpack.cli.options import Settings, setting
from mlpack.errors import MlpackError, UsageError

COMMANDS = {
    "init": "Start a project: mlpack.toml, score.py, requirements.in.",
    "register": "Keep a model as a version in the project's store.",
    "models": "List models and their versions.",
    "show": "Show one model version: files, signature, metrics.",
    "round": "Make a version whose patch is several times smaller, and prove that it will do.",
    "base": "Build or show the stable base image.",
    "build": "Make a release: the base and one layer with the model, or a patch on its anchor.",
    "push": "Send a release to its registry: only what it lacks.",
    "pull": "Bring an image from a registry into the project's store.",
    "copy": "Copy an image between registries, layouts and archives.",
    "diff": "Show what a device on OLD fetches to reach NEW.",
    "graft": "Turn an image built by any tool into one layer on what devices hold.",
    "patch": "Make, apply or look into a patch: what makes NEW of OLD.",
    "report": "Show bytes and money per release and fleet.",
    "groups": "List the device groups of mlpack.toml.",
    "devices": "Show the devices of a group, and what each runs.",
    "plan": "Show what a release takes on a device group; nothing is sent.",
    "deploy": "Roll a release out to a device group, stage by stage.",
    "status": "Show how the rollouts to the device groups stand.",
    "rollback": "Go back to an earlier release, which the devices still hold.",
    "bundle": "Make or check a file that updates a device without a network.",
    "load": "Bring an image into Docker or podman on this machine.",
    "run": "Start a release as a container here, and wait until it answers.",
    "score": "Ask a module what it makes of pictures, readings or tensors.",
    "serve": "Serve a model version on this machine, without a container, until interrupted.",
    "render": "Write the deployment manifest of a release.",
    "up": "Run a deployment manifest on this machine's Docker, to see it work.",
    "down": "Stop and remove what mlpack up started.",
    "azure": "Ask Azure for what devices need: registry logins.",
    "registry": "Serve this project's releases as a registry.",
    "doctor": "Check this machine and this project.",
}
"""Every command and its one-line help, in the order of the user's way through.

Listed here so that ``mlpack --help`` imports none of them; a test compares the
lines with each command's own help.
"""

SIGINT_STATUS, SIGPIPE_STATUS = 130, 141
_EMPTY_OPTION = re.compile(r"--[a-z-]+=")


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, the command's too; an empty one means nothing anywhere."""
        with _reported():
            if any(not arg or _EMPTY_OPTION.fullmatch(arg) for arg in args):
                raise UsageError("an argument is empty", hint="is a variable of the shell not set?")
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; what goes wrong becomes ``error:`` and ``hint:`` and a status."""
        with _reported():
            return super().invoke(ctx)


@click.group(
    "mlpack",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nThe way through:\n"
    "  mlpack init --template fan fan && cd fan\n"
    "  mlpack base build\n"
    "  mlpack register fan.onnx && mlpack build fan\n"
    "  mlpack report fan",
)
@click.option(
    "-C",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Run in DIR instead of here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.version_option(__version__, prog_name="mlpack")
@click.pass_context
def cli(ctx: click.Context, directory: Path, as_json: bool) -> None:
    """Ship models to edge fleets as one small layer on the image the devices hold."""
    ctx.obj = Settings(directory, as_json or setting("json") == "1")


@contextmanager
def _reported() -> Iterator[None]:
    """End with two lines and a status where the block raises an error, mlpack's or another's."""
    try:
        yield
    except MlpackError as error:
        fail(str(error), error.hint, error.exit_status)
    except click.exceptions.NoArgsIsHelpError:
        raise  # a group without its command shows its help
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "mlpack"
        said = error.format_message().rstrip(".")
        fail(f"{said[:1].lower()}{said[1:]}", f"see: {where} --help", error.exit_code)
    except KeyboardInterrupt:
        _interrupted()
    except BrokenPipeError:
        _leave_the_pipe()
    except OSError as error:
        _drop_the_rest()
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}", _os_hint(error), 1)


def fail(message: str, hint: str, status: int) -> NoReturn:
    """Print what went wrong and what to do, one line each, and end with ``status``."""
    click.echo(f"error: {_line(message)}", err=True)
    if hint:
        click.echo(f"hint: {_line(hint)}", err=True)
    sys.exit(status)


def _line(text: str) -> str:
    """``text`` on one line: a name in it may hold a line break or a terminal's codes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def main() -> None:
    """Entry point of the ``mlpack`` script."""
    # A terminated command must clean up as an interrupted one does.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        cli.main(prog_name="mlpack", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _leave_the_pipe()
    except (click.Abort, KeyboardInterrupt):
        _interrupted()


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


def _interrupted() -> NoReturn:
    # A terminal shows ^C, and the message would stand behind it.
    click.echo("", err=True, nl=sys.stderr.isatty())
    fail("interrupted; nothing half-done was left", "", SIGINT_STATUS)


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
