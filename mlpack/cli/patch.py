"""``mlpack patch``: make, apply and look into patches of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.api.requests import ApplyPatch, MakePatch
from mlpack.cli import console
from mlpack.humanize import counted, share

if TYPE_CHECKING:
    from mlpack.api.patch import Patched
    from mlpack.tensor_patch import Description


@click.group(
    "patch",
    epilog="\b\nExamples:\n"
    "  mlpack patch make v1.onnx v2.onnx -o v2.mlpd\n"
    "  mlpack patch apply v1.onnx v2.mlpd -o v2.onnx\n"
    "  mlpack patch inspect v2.mlpd",
)
def patch() -> None:
    """Make, apply or inspect a patch that turns one file into another."""


@console.command(
    "make",
    MakePatch,
    examples="""
    mlpack patch make v1.onnx v2.onnx -o v2.mlpd
    mlpack patch make fan:1 fan:2 -o fan-2.mlpd           model versions of one file
    mlpack patch make a/model.onnx.data b/model.onnx.data -o b.mlpd
    """,
)
@click.argument("old", type=console.FILE, metavar="OLD")
@click.argument("new", type=console.FILE, metavar="NEW")
@click.option(
    "-o", "out", required=True, type=console.OUTPUT, metavar="FILE", help="Where the patch goes."
)
@console.effort
def make(request: MakePatch) -> None:
    """Write a patch that turns the file OLD into NEW.

    Lossless for any two files, and small if they are versions of one model: arrays of
    numbers are found and matched, and their differences written. External data of an ONNX
    model is understood if the model is next to it. OLD and NEW may be NAME[:VERSION] of
    this project. FILE is none of the files that are read.
    """
    made = console.project().make_patch(request)
    console.note(_summary(made))
    console.answer(made, str(request.out))


@console.command(
    "apply",
    ApplyPatch,
    examples="""
    mlpack patch apply v1.onnx v2.mlpd -o v2.onnx
    mlpack patch apply fan:1 fan-2.mlpd -o fan-2.onnx     the file of a model version
    """,
)
@click.argument("old", type=console.FILE, metavar="OLD")
@click.argument("file", type=console.FILE, metavar="FILE")
@click.option(
    "-o", "out", required=True, type=console.OUTPUT, metavar="NEW", help="Where NEW goes."
)
def apply(request: ApplyPatch) -> None:
    """Turn OLD into NEW by the patch FILE.

    NEW gets its name only when its sha256 is the one that the patch was made with; a patch
    that is damaged or for another file leaves nothing behind. OLD may be NAME[:VERSION] of
    this project. NEW is neither OLD nor FILE.
    """
    made = console.project().apply_patch(request)
    whole = made.description.new
    console.note(f"{console.size(whole.size)}, sha256 {whole.sha256}")
    console.answer(made, str(request.out))


@console.command(
    "inspect",
    examples="""
    mlpack patch inspect v2.mlpd
    mlpack patch inspect v2.mlpd --json
    """,
)
@click.argument("file", type=console.FILE, metavar="FILE")
def inspect(file: Path) -> None:
    """Show what a patch is for and what it is made of."""
    found = console.project().inspect_patch(file)
    console.answer(found, lambda: _text(found))


for _command in (make, apply, inspect):
    patch.add_command(_command)


def _summary(made: Patched) -> str:
    """What a patch takes, and how it makes the new file, in a line."""
    found = made.description
    whole = found.new.size
    of = f", {share(found.size, whole)} of {console.size(whole)}" if whole else ""
    beside = f" ({console.size(made.zstd)} by zstd -19)" if made.zstd is not None else ""
    kinds = ", ".join(
        f"{console.size(each.size)} {each.kind} in {counted(each.operations, 'piece')}"
        for each in found.operations
    )
    equal = found.old.size == whole and found.new.sha256.startswith(found.old.sha256)
    same = "; OLD and NEW are equal" if equal else ""
    return f"{console.size(found.size)}{of}{beside}" + (f": {kinds}" if kinds else "") + same


def _text(found: Description) -> str:
    streams = [
        (
            each.stream,
            each.coder,
            console.size(each.size),
            console.size(each.stored),
            share(each.stored, found.size),
        )
        for each in found.streams
    ]
    made = [
        (
            each.kind,
            f"{each.operations:,}",
            console.size(each.size),
            share(each.size, found.new.size),
        )
        for each in found.operations
    ]
    of = f", {share(found.size, found.new.size)} of the new file" if found.new.size else ""
    return "\n".join(
        [
            f"patch of {console.size(found.size)}{of} (format {found.version})",
            f"  old  {console.size(found.old.size):>9}  sha256 {found.old.sha256}",
            f"  new  {console.size(found.new.size):>9}  sha256 {found.new.sha256}",
            "",
            console.table(("the new file is", "pieces", "bytes", "share"), made, right=(1, 2, 3)),
            "",
            console.table(
                ("stream", "stored as", "bytes", "in the patch", "share"), streams, right=(2, 3, 4)
            ),
        ]
    )
