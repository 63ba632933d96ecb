"""``mlpack register``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import output
from mlpack.cli.options import Count, command, now, project, setting, settings

if TYPE_CHECKING:
    from mlpack.api.register import Registered
    from mlpack.api.workspace import InWorkspace
    from mlpack.model.registration import About

MAX_METRICS_BYTES = 1024 * 1024
_METRICS_HINT = 'a file of metrics is a JSON object of numbers: {"accuracy": 0.98}'


@command(
    "register",
    examples="""
    mlpack register fan.onnx
    mlpack register fan.onnx --metric accuracy=0.95 --tag trained-on=2024-06
    mlpack register model/ --name detector --version 1.4.0 --scoring detect.py
    mlpack register model.joblib --trust-pickle        converted to ONNX; never shipped
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
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
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
    "--features", type=Count(1, 10_000_000), metavar="N", help="Input columns of an estimator."
)
@click.option(
    "--workspace",
    metavar="SUBSCRIPTION/GROUP/WORKSPACE",
    help="The Azure ML workspace to register in as well, or to fetch from (then also "
    "MLPACK_WORKSPACE).",
)
def register(
    path: str,
    name: str,
    version: str,
    scoring: Path | None,
    tags: tuple[str, ...],
    metrics: tuple[str, ...],
    metrics_file: Path | None,
    source_commit: str,
    trust_pickle: bool,
    features: int | None,
    workspace: str | None,
) -> None:
    """Keep a model as a version in the project's store.

    PATH is an ONNX file, a directory, a scikit-learn estimator (.joblib, .pkl), or a model
    of Azure ML: azureml:NAME:VERSION, or its address in a registry.
    The same content keeps its version. Prints NAME:VERSION, and nothing else, on stdout.
    """
    from mlpack.api import register as api
    from mlpack.model.registration import About

    here = settings().directory  # paths are relative to -C DIR, as git's are
    about = About(
        name=name,
        version=version,
        tags=_pairs("--tag", tags),
        metrics=(_read_metrics(here / metrics_file) if metrics_file else {})
        | _pairs("--metric", metrics),
        source_commit=source_commit,
    )
    script = here / scoring if scoring else None
    if path.startswith("azureml:"):
        if trust_pickle or features is not None:
            raise click.UsageError("nothing of Azure ML is loaded as a pickle: register a file")
        _answer(_from_azure(path, about, workspace or setting("workspace"), script))
        return
    if workspace:
        from mlpack.api.workspace import register_there
        from mlpack.azure.management import CLOUD, workspace_account

        there = register_there(
            project(),
            here / path,
            about,
            workspace_account(workspace, setting("azure_endpoint") or CLOUD),
            scoring=script,
            trust_pickle=trust_pickle,
            features=features,
            now=now(),
        )
        _answer(there)
        return
    done = api.register(
        project(),
        here / path,
        about,
        scoring=script,
        trust_pickle=trust_pickle,
        features=features,
        now=now(),
    )
    _say(done)
    output.answer(done.to_json(), str(done.version))


def _from_azure(text: str, about: About, workspace: str, scoring: Path | None) -> InWorkspace:
    from mlpack.api.workspace import register_from
    from mlpack.azure.aml import Address
    from mlpack.azure.management import CLOUD, workspace_account

    address = Address.parse(text)
    endpoint = setting("azure_endpoint") or CLOUD
    return register_from(
        project(),
        address,
        about,
        workspace_account(workspace, endpoint) if workspace else None,
        endpoint=endpoint,
        scoring=scoring,
        now=now(),
    )


def _answer(made: InWorkspace) -> None:
    _say(made.registered)
    output.note(f"in Azure ML it is {made.uri}")
    output.answer(made.to_json(), str(made.registered.version))


def _say(done: Registered) -> None:
    found = done.version
    for each in done.notes:
        output.note(each)
    if not done.already:
        kept = f"{len(found.files)} files" if len(found.files) > 1 else found.files[0].path
        script = f" and {found.scoring.path}" if found.scoring else ""
        output.note(f"registered {found}: {kept}{script}, {output.size(found.size)}")


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
        pairs[key.strip()] = value.strip()
    return pairs


def _read_metrics(path: Path) -> dict[str, str]:
    """Numbers by name; nested objects and texts are no metrics and are refused by name."""
    from decimal import Decimal

    from mlpack.errors import UsageError
    from mlpack.oci.document import InvalidContent, parse

    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}", hint=_METRICS_HINT)
    if path.stat().st_size > MAX_METRICS_BYTES:
        raise UsageError(f"{path} is larger than {MAX_METRICS_BYTES} bytes", hint=_METRICS_HINT)
    found = {}
    try:
        for key, node in parse(path.read_bytes(), str(path)).items():
            if isinstance(node.value, bool) or not isinstance(node.value, int | float):
                raise InvalidContent(node.where, "is not a number")
            found[key] = str(Decimal(repr(node.value)))
    except InvalidContent as error:
        raise InvalidContent(error.where, error.problem, hint=_METRICS_HINT) from error
    return found
