"""``mlpack init``."""

from __future__ import annotations

from pathlib import Path

import click

from mlpack.cli import options, output


@options.command(
    "init",
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
def init(directory: Path, template: str, name: str, ci: str | None) -> None:
    """Start a project: mlpack.toml, score.py, requirements.in.

    Files that exist are never overwritten. A .gitignore gets the lines it lacks. With --ci,
    what is a project already gets those files alone.
    """
    from mlpack.api import init as api

    place = options.settings().directory / directory
    started = api.init(place, template=template, name=name, ci=ci or "")
    output.answer(started.to_json(), lambda: _text(started.directory, started.name, started.files))


def _text(directory: Path, name: str, files: tuple[str, ...]) -> str:
    written = "\n".join(f"  {directory / each}" for each in files)
    if "mlpack.toml" not in files:
        return f"written:\n{written}"
    steps = ["mlpack base build", f"mlpack register {name}.onnx", f"mlpack build {name}"]
    if "train.py" in files:
        steps.insert(0, "python train.py")
    if directory.resolve() != Path.cwd():
        steps.insert(0, f"cd {directory}")
    return f"written:\n{written}\nnext:\n" + "\n".join(f"  {each}" for each in steps)
