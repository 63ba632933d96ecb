"""``mlpack init``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Init
from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.api.init import Started


@console.command(
    "init",
    Init,
    examples="""
    mlpack init --template fan fan      the fan failure example, in ./fan
    mlpack init                         a project for your own model, here
    mlpack init pump --name pump-wear
    mlpack init --ci github             the steps after training, into a project that is there
    """,
)
@click.argument("directory", type=click.Path(path_type=Path), default=Path(), metavar="[DIR]")
@click.option(
    "--template",
    type=click.Choice(["minimal", "fan"]),
    default="minimal",
    show_default=True,
    help="What to start from.",
)
@click.option("--name", default="", metavar="NAME", help="The model's name.")
@click.option(
    "--ci",
    type=click.Choice(["github", "azure"]),
    help="Add the steps that publish a model after training, for GitHub or Azure Pipelines.",
)
def init(request: Init) -> None:
    """Start a project: mlpack.toml, requirements.in.

    An ONNX model needs no scoring script. Existing files are never overwritten. A .gitignore
    gets the lines it lacks. With --ci, an existing project gets only those files.
    """
    started = console.project().init(request)
    if started.guessed:
        folder = started.directory.resolve().name
        console.note(
            f"{folder!r} cannot be a model's name, so the model is called {started.name!r}: "
            "change [model] name in mlpack.toml, or give --name"
        )
    console.answer(started, lambda: _text(started))


def _text(started: Started) -> str:
    directory, name, files = started.directory, started.name, started.files
    written = "\n".join(f"  {directory / each}" for each in files)
    if "mlpack.toml" not in files:
        return f"written:\n{written}"
    steps = [
        f"mlpack register {name}.onnx",
        f"mlpack serve {name}",
        "mlpack base build",
        f"mlpack build {name}",
    ]
    if "train.py" in files:
        steps.insert(0, "python train.py")
    if directory.resolve() != Path.cwd():
        steps.insert(0, f"cd {shlex.quote(str(directory))}")
    return f"written:\n{written}\nnext:\n" + "\n".join(f"  {each}" for each in steps)
