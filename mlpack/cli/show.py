"""``mlpack show``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from mlpack.cli import console
from mlpack.model.comparison import describe

if TYPE_CHECKING:
    from mlpack.api.models import ShownModel
    from mlpack.model.comparison import Comparison
    from mlpack.model.version import Derivation, ModelFile

_SHOWN_FILES = 20
_SHOWN_SHA256 = 12
"""Of its digits; --json has all."""


@console.command(
    "show",
    examples="""
    mlpack show fan              the newest version
    mlpack show fan:1 --json
    """,
)
@click.argument("model", metavar="NAME[:VERSION]")
def show(model: str) -> None:
    """Show one model version: files, signature, metrics."""
    found = console.project().show(model)
    console.answer(found, lambda: "\n".join(_lines(found)))


def _lines(shown: ShownModel) -> Iterator[str]:
    version = shown.version
    yield f"{version}  ({version.framework}, {console.size(version.size)})"
    for label, text in _facts(shown):
        yield f"  {label:<14} {text}"


def _facts(shown: ShownModel) -> Iterator[tuple[str, str]]:
    version = shown.version
    yield "digest", str(version.digest)
    yield "release", str(shown.release) if shown.release else f"none yet: mlpack build {version}"
    if shown.aliases:
        yield "aliases", ", ".join(shown.aliases)
    yield "registered", version.created
    if version.source_commit:
        yield "commit", version.source_commit
    yield from _files("file", version.files)
    if version.folder:
        yield "folder", f"AZUREML_MODEL_DIR/{version.folder}"
    if version.scoring:
        yield from _files("scoring", (version.scoring,))
    yield from _files("code", version.code)
    yield from (("input", str(each)) for each in version.signature.inputs)
    yield from (("output", str(each)) for each in version.signature.outputs)
    if version.opsets:
        opsets = ", ".join(f"{domain} {number}" for domain, number in version.opsets.items())
        yield "opsets", f"{opsets} (file format {version.ir_version})"
    yield from (("metric", f"{key} = {value}") for key, value in version.metrics.items())
    yield from (("tag", f"{key} = {value}") for key, value in version.tags.items())
    if version.compared:
        yield from _compared(version.compared)
    if version.derived:
        yield from _derived(version.derived)


def _compared(record: Comparison) -> Iterator[tuple[str, str]]:
    """How it answers compared with the estimator it was converted from."""
    rows = f"rows of sha256 {record.check[:_SHOWN_SHA256]}" if record.check else "made rows"
    yield "compared", f"{describe(record.difference)}, on {record.rows:,} {rows}"
    if record.rounding and record.rounding_matters:
        yield "rounding", f"{describe(record.rounding)}, before numbers are rounded to float32"
    versions = ", ".join(f"{name} {version}" for name, version in record.packages.items())
    yield "converted by", versions


def _files(label: str, files: Sequence[ModelFile]) -> Iterator[tuple[str, str]]:
    for file in files[:_SHOWN_FILES]:
        yield label, f"{file.path}  {console.size(file.size)}"
    if len(files) > _SHOWN_FILES:
        yield "", f"and {len(files) - _SHOWN_FILES} more: see --json"


def _derived(record: Derivation) -> Iterator[tuple[str, str]]:
    """How it was rounded from another version, and the proof of its quality."""
    yield "rounded from", f"{record.exact.version}  {record.exact.digest}"
    yield "onto", f"{record.anchor.version}  {record.anchor.digest}"
    sizes = f"{console.size(record.rounded_patch)} instead of {console.size(record.exact_patch)}"
    yield "patch", sizes
    yield "checked on", f"{record.rows:,} rows of sha256 {record.check[:_SHOWN_SHA256]}"
    allowed = record.max_error_allowed
    yield (
        "max error",
        f"{record.max_error:.3g}" + ("" if allowed is None else f" ({allowed:g} allowed)"),
    )
    if record.agreement is not None:
        yield "agreement", f"{int(10_000 * record.agreement) / 100:.2f} % of decisions"
    if record.exact_accuracy is not None and record.rounded_accuracy is not None:
        before, after = 100 * record.exact_accuracy, 100 * record.rounded_accuracy
        yield "accuracy", f"{after:.2f} % (exact: {before:.2f} %)"
    for each in record.curve:
        yield "curve", f"{console.size(each.patch)}, max error {each.max_error:.3g}"
