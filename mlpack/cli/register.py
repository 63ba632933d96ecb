"""``mlpack register``."""

from __future__ import annotations

from pathlib import Path

import click

from mlpack.api.register_request import Register
from mlpack.cli import console


@console.command(
    "register",
    Register,
    examples="""
    mlpack register fan.onnx
    mlpack register fan.onnx --metric accuracy=0.95 --tag trained-on=2024-06
    mlpack register model/ --name detector --version 1.4.0 --scoring detect.py
    mlpack register model/ --code src --scoring score.py
    mlpack register model.joblib --trust-pickle        converted to ONNX, and compared
    mlpack register model.joblib --trust-pickle --check rows.csv
    mlpack register fan.onnx --workspace 0000-0001/ml/lab     in Azure ML as well
    mlpack register azureml:fan:3 --workspace 0000-0001/ml/lab
    mlpack register azureml://registries/edge/models/fan/versions/3
    """,
)
@click.argument("path")
@click.option(
    "--name", default="", metavar="NAME", help="Model name. Default: [model] name of mlpack.toml."
)
@click.option(
    "--version", default="", metavar="VERSION", help="Version. Default: the next whole number."
)
@click.option(
    "--scoring",
    type=click.Path(path_type=Path),
    help="Scoring script with init() and run(). Default: [model] scoring of mlpack.toml.",
)
@click.option(
    "--code",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Source directory to ship with the script, as Azure ML does. Default: [model] code of "
    "mlpack.toml, or the modules next to the script that it imports.",
)
@console.pairs("--tag", "tags", metavar="NAME=VALUE", help="May be repeated.")
@console.pairs(
    "--metric",
    "metrics",
    metavar="NAME=NUMBER",
    help="A result of training, such as accuracy=0.98; may be repeated.",
)
@click.option(
    "--metrics",
    "metrics_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A JSON object of numbers, as training scripts write it.",
)
@click.option(
    "--source-commit",
    default="",
    metavar="COMMIT",
    help="Default: the commit git has checked out.",
)
@click.option(
    "--trust-pickle", is_flag=True, help="Load a pickle, which runs the code in it: only your own."
)
@click.option(
    "--features",
    type=console.Count(1, 10_000_000),
    metavar="N",
    help="Input columns of an estimator that does not say.",
)
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Rows to compare an estimator and its conversion on: .csv with a header, or .npz. "
    "Default: rows made from the ranges that the estimator knows.",
)
@click.option(
    "--max-error",
    type=click.FloatRange(0),
    default=1e-3,
    show_default=True,
    metavar="NUMBER",
    help="How far probabilities may be off; other numbers relative to their size.",
)
@click.option(
    "--max-unequal",
    type=console.SHARE,
    default="0%",
    show_default=True,
    help="How many of the rows may get another label: 0.1%.",
)
@click.option(
    "--workspace",
    metavar="SUBSCRIPTION/GROUP/WORKSPACE",
    help="The Azure ML workspace to register in as well, or to fetch from (then MLPACK_WORKSPACE "
    "and config.json are the defaults). Also the path of a config.json, or . to search it.",
)
def register(request: Register) -> None:
    """Keep a model as a version in the project's store.

    PATH is an ONNX file, a directory, a scikit-learn estimator (.joblib, .pkl), or a model
    of Azure ML: azureml:NAME:VERSION, or its address in a registry.
    The same content keeps its version. Prints NAME:VERSION, and nothing else, on stdout.
    """
    done = console.project().register(request)
    found = done.version
    for each in done.notes:
        console.note(each)
    if not done.already:
        kept = f"{len(found.files)} files" if len(found.files) > 1 else found.files[0].path
        script = f" and {found.scoring.path}" if found.scoring else ""
        script += f" with {_counted(len(found.code))}" if found.code else ""
        console.note(f"registered {found}: {kept}{script}, {console.size(found.size)}")
    if done.uri:
        console.note(f"in Azure ML it is {done.uri}")
    console.answer(done, str(found))


def _counted(files: int) -> str:
    return f"{files} file{'s' if files > 1 else ''} of code"
