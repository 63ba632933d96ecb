"""``mlpack completion``: the script by which a shell completes commands, options and values."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from mlpack.cli import console
from mlpack.errors import MlpackError

SHELLS = ("bash", "zsh", "fish")


@console.command(
    "completion",
    examples="""
    mlpack completion bash --install
    eval "$(mlpack completion zsh)"          in this shell only
    mlpack completion fish > ~/.config/fish/completions/mlpack.fish
    """,
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("--install", is_flag=True, help="Write the script where the shell looks for it.")
def completion(shell: str, install: bool) -> None:
    """Print or install the shell's completion script.

    It completes commands, options and their values: the project's models and versions, its
    device groups and platforms, engines and tariffs.
    """
    script = _script(shell)
    if not install:
        console.answer({"shell": shell, "script": script}, script)
        return
    from mlpack.stores.files import atomic

    path = install_path(shell)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as out:
        out.write(f"{script}\n".encode())
    if shell == "zsh":
        console.note(f"add to ~/.zshrc, before compinit: fpath+=({path.parent})")
    console.note("open a new shell to use it")
    console.answer({"shell": shell, "script": script, "path": path}, str(path))


def _script(shell: str) -> str:
    from mlpack.cli.main import cli

    made = get_completion_class(shell)
    if made is None:  # every one of SHELLS is click's
        raise MlpackError(f"no completion for {shell}")
    shown = made(cli, {}, "mlpack", console.COMPLETION)
    return (shown.source_template % shown.source_vars()).strip()


def install_path(shell: str) -> Path:
    """Return the file that ``shell`` reads completions of ``mlpack`` from, of this user."""
    home = Path(os.environ.get("HOME") or "~").expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return {
        "bash": data / "bash-completion" / "completions" / "mlpack",
        "zsh": data / "zsh" / "site-functions" / "_mlpack",
        "fish": config / "fish" / "completions" / "mlpack.fish",
    }[shell]
