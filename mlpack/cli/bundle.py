"""``mlpack bundle``: updates for devices without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.api.requests import MakeBundle
from mlpack.cli import console
from mlpack.humanize import nearest
from mlpack.kinds import ENGINE_CHOICE
from mlpack.plan.refusals import warnings

if TYPE_CHECKING:
    from mlpack.api.bundle import WrittenBundle
    from mlpack.stores.bundle import VerifiedBundle


class Bundles(click.Group):
    """A group whose first command may be left out: ``mlpack bundle fan:2 …`` makes one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``make`` before anything that is neither a command nor a help option."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            if "--onto" not in args and (meant := nearest(args[0], self.commands)):
                raise click.UsageError(f"no such command {args[0]!r}{meant}", ctx)
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(
    "bundle",
    cls=Bundles,
    epilog="\b\nExamples:\n"
    "  mlpack bundle fan:2 --onto fan:1 -o fan-2.tar.gz\n"
    "  mlpack bundle verify fan-2.tar.gz",
)
def bundle() -> None:
    """Make or check a file that updates a device without a network."""


@console.command(
    "make",
    MakeBundle,
    examples="""
    mlpack bundle make fan:2 --onto fan:1 -o fan-2.tar.gz
    mlpack bundle fan:2 --onto fan:1 -o fan-2.tar --engine containerd
    mlpack bundle fan:1 --onto none -o whole.tar.gz           for a device that holds nothing
    """,
)
@click.argument("new", metavar="NEW")
@click.option("--onto", required=True, metavar="OLD", help="The image the device is on, or none.")
@click.option("-o", "out", required=True, type=console.OUTPUT, metavar="FILE")
@click.option("--engine", default="", metavar="NAME", help=f"{ENGINE_CHOICE}.")
@click.option("--name", default="", metavar="REPOSITORY:TAG", help="What the device calls it.")
@click.option("--platform", type=console.PLATFORM, help="Which image of several to bundle.")
def make(request: MakeBundle) -> None:
    """Write a file with what a device on OLD lacks of NEW.

    The device's own engine loads it, without a registry and a network. It holds only
    the layers that OLD lacks; on a device without OLD the engine refuses it.
    NEW and OLD are written as for mlpack diff.
    """
    made = console.project().bundle(request)
    _notes(made, request.onto)
    console.note_conversion(made.converted)
    console.answer(made, str(request.out))


@console.command(
    "verify",
    examples="""
    mlpack bundle verify fan-2.tar.gz
    mlpack --json bundle verify fan-2.tar
    """,
)
@click.argument("file", type=console.FILE)
def verify(file: Path) -> None:
    """Check every part of a bundle against the list of digests in it."""
    checked = console.project().verify_bundle(file)
    console.answer(checked, lambda: _text(checked))


bundle.add_command(make)
bundle.add_command(verify)


def _notes(made: WrittenBundle, onto: str) -> None:
    plan = made.bundle
    carried = sum(layer.size for layer in plan.carried)
    console.note(
        f"{plan.name} for {plan.image.platform}: {console.size(made.file.size)}, "
        f"{len(plan.carried)} of {len(plan.image.layers)} layers ({console.size(carried)})"
    )
    for each in warnings(made.refusals):
        console.note(f"warning: {each}")
    console.note(f"on the device: {made.command}")
    if plan.onto:
        console.note(f"a device that is not on {onto} refuses it, saying {made.refusal!r}")


def _text(checked: VerifiedBundle) -> str:
    onto = f"a device on {checked.onto}" if checked.onto else "any device"
    rows = [(name, console.size(size)) for name, size in checked.members.items()]
    lines = [
        f"{checked.name} ({checked.platform}), image {checked.image}",
        f"for {onto}, engine {checked.engine}: every part is as listed",
        "",
        console.table(("part", "bytes"), rows, right=(1,)),
    ]
    return "\n".join(lines)
