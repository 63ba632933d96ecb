"""``mlpack show``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from mlpack.cli import output
from mlpack.cli.options import command, project

if TYPE_CHECKING:
    from mlpack.api.models import Shown
    from mlpack.model.derivation import Derivation

_SHOWN_FILES = 20


@command(
    "show",
    examples="""
    mlpack show fan              the newest version
    mlpack show fan:1 --json
    """,
)
@click.argument("model", metavar="NAME[:VERSION]")
def show(model: str) -> None:
    """Show one model version: files, signature, metrics."""
    from mlpack.api import models as api

    found = api.show(project(), model)
    output.answer(found.to_json(), lambda: "\n".join(_lines(found)))


def _lines(shown: Shown) -> Iterator[str]:
    version = shown.version
    yield f"{version}  ({version.framework}, {output.size(version.size)})"
    for label, text in _facts(shown):
        yield f"  {label:<14} {text}"


def _facts(shown: Shown) -> Iterator[tuple[str, str]]:
    version = shown.version
    yield "digest", str(version.digest)
    yield "release", str(shown.release) if shown.release else f"none yet: mlpack build {version}"
    yield "registered", version.created
    if version.source_commit:
        yield "commit", version.source_commit
    for file in version.files[:_SHOWN_FILES]:
        yield "file", f"{file.path}  {output.size(file.size)}"
    if len(version.files) > _SHOWN_FILES:
        yield "", f"and {len(version.files) - _SHOWN_FILES} more: see --json"
    if version.scoring:
        yield "scoring", f"{version.scoring.path}  {output.size(version.scoring.size)}"
    yield from (("input", str(each)) for each in version.signature.inputs)
    yield from (("output", str(each)) for each in version.signature.outputs)
    if version.opsets:
        opsets = ", ".join(f"{domain} {number}" for domain, number in version.opsets.items())
        yield "opsets", f"{opsets} (file format {version.ir_version})"
    yield from (("metric", f"{key} = {value}") for key, value in version.metrics.items())
    yield from (("tag", f"{key} = {value}") for key, value in version.tags.items())
    if version.derived:
        yield from _derived(version.derived)


def _derived(record: Derivation) -> Iterator[tuple[str, str]]:
    """How it was made of another version, and what proves that it will do."""
    yield "rounded from", f"{record.exact.version}  {record.exact.digest}"
    yield "onto", f"{record.anchor.version}  {record.anchor.digest}"
    sizes = f"{output.size(record.rounded_patch)} instead of {output.size(record.exact_patch)}"
    yield "patch", f"{sizes}, {record.keep_bits} bits of each difference kept"
    yield "checked on", f"{record.rows:,} rows of sha256 {record.check}"
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
