"""``mlpack patch``: make, apply and look into patches of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output
from mlpack.words import counted, share

if TYPE_CHECKING:
    from mlpack.api.patch import Patched
    from mlpack.delta import Description

FILE = click.Path(path_type=Path)


@click.group(
    "patch",
    epilog="\b\nExamples:\n"
    "  mlpack patch make v1.onnx v2.onnx -o v2.mlpd\n"
    "  mlpack patch apply v1.onnx v2.mlpd -o v2.onnx\n"
    "  mlpack patch inspect v2.mlpd",
)
def patch() -> None:
    """Make, apply or look into a patch: what makes NEW of OLD."""


@options.command(
    "make",
    examples="""
    mlpack patch make v1.onnx v2.onnx -o v2.mlpd
    mlpack patch make fan:1 fan:2 -o fan-2.mlpd           model versions of one file
    mlpack patch make a/model.onnx.data b/model.onnx.data -o b.mlpd
    """,
)
@click.argument("old", type=FILE, metavar="OLD")
@click.argument("new", type=FILE, metavar="NEW")
@click.option("-o", "out", required=True, type=FILE, metavar="FILE", help="Where the patch goes.")
def make(old: Path, new: Path, out: Path) -> None:
    """Write a patch that makes the file NEW of the file OLD.

    Lossless for any two files, and small where they are versions of one model: arrays of
    numbers are found and matched, and their differences written. External data of an ONNX
    model is understood where the model lies beside it. OLD and NEW may be NAME:VERSION of
    this project.
    """
    from mlpack.api import patch as api

    here = options.settings().directory
    size = (here / new).stat().st_size if (here / new).is_file() else None
    with output.progress(f"making {out.name}", size) as advance:
        made = api.make(options.project_if_any(), old, new, out, directory=here, advance=advance)
    output.note(_said(made))
    output.answer(made.to_json(), str(out))


@options.command(
    "apply",
    examples="""
    mlpack patch apply v1.onnx v2.mlpd -o v2.onnx
    """,
)
@click.argument("old", type=FILE, metavar="OLD")
@click.argument("file", type=FILE, metavar="FILE")
@click.option("-o", "out", required=True, type=FILE, metavar="NEW", help="Where NEW goes.")
def apply(old: Path, file: Path, out: Path) -> None:
    """Make NEW of OLD and the patch FILE.

    NEW gets its name only when its sha256 is the one that the patch was made with; a patch
    that is damaged or for another file leaves nothing behind.
    """
    from mlpack.api import patch as api

    here = options.settings().directory
    with output.progress(f"making {out.name}") as advance:
        advance.expect(api.inspect(here / file).new.size)
        made = api.apply(here / old, here / file, here / out, advance=advance)
    whole = made.description.new
    output.note(f"{output.size(whole.size)}, sha256 {whole.sha256}")
    output.answer({**made.to_json(), "file": str(out)}, str(out))


@options.command(
    "inspect",
    examples="""
    mlpack patch inspect v2.mlpd
    mlpack patch inspect v2.mlpd --json
    """,
)
@click.argument("file", type=FILE, metavar="FILE")
def inspect(file: Path) -> None:
    """Show what a patch is for and what it is made of."""
    from mlpack.api import patch as api

    found = api.inspect(options.settings().directory / file)
    output.answer(found.to_json(), lambda: _text(found))


for _command in (make, apply, inspect):
    patch.add_command(_command)


def _said(made: Patched) -> str:
    """What a patch takes, and how it makes the new file, in a line."""
    found = made.description
    whole = found.new.size
    of = f", {share(found.size, whole)} of {output.size(whole)}" if whole else ""
    beside = f" ({output.size(made.zstd)} by zstd -19)" if made.zstd is not None else ""
    kinds = ", ".join(
        f"{output.size(each.size)} {each.kind} in {counted(each.operations, 'piece')}"
        for each in found.operations
    )
    return f"{output.size(found.size)}{of}{beside}" + (f": {kinds}" if kinds else "")


def _text(found: Description) -> str:
    streams = [
        (
            each.stream,
            each.coder,
            output.size(each.size),
            output.size(each.stored),
            share(each.stored, found.size),
        )
        for each in found.streams
    ]
    made = [
        (
            each.kind,
            f"{each.operations:,}",
            output.size(each.size),
            share(each.size, found.new.size),
        )
        for each in found.operations
    ]
    of = f", {share(found.size, found.new.size)} of the new file" if found.new.size else ""
    return "\n".join(
        [
            f"patch of {output.size(found.size)}{of} (format {found.version})",
            f"  old  {output.size(found.old.size):>9}  sha256 {found.old.sha256}",
            f"  new  {output.size(found.new.size):>9}  sha256 {found.new.sha256}",
            "",
            output.table(("the new file is", "pieces", "bytes", "share"), made, right=(1, 2, 3)),
            "",
            output.table(
                ("stream", "stored as", "bytes", "in the patch", "share"), streams, right=(2, 3, 4)
            ),
        ]
    )
