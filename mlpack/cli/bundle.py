"""``mlpack bundle``: updates for devices without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.api.bundle import Bundled
    from mlpack.stores.bundle import Checked


class Bundles(click.Group):
    """A group whose first command may be left out: ``mlpack bundle fan:2 …`` makes one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``make`` in front of anything that is neither a command nor a call for help."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
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


@options.command(
    "make",
    examples="""
    mlpack bundle make fan:2 --onto fan:1 -o fan-2.tar.gz
    mlpack bundle fan:2 --onto fan:1 -o fan-2.tar --engine containerd
    mlpack bundle fan:1 --onto none -o whole.tar.gz           for a device that holds nothing
    """,
)
@click.argument("new", metavar="NEW")
@click.option("--onto", required=True, metavar="OLD", help="The image the device is on, or none.")
@click.option(
    "-o", "out", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE"
)
@click.option("--engine", default="", metavar="NAME", help="moby, containerd or podman.")
@click.option("--name", default="", metavar="REPOSITORY:TAG", help="What the device calls it.")
@click.option("--platform", metavar="OS/ARCH", help="Which image of several to bundle.")
def make(new: str, onto: str, out: Path, engine: str, name: str, platform: str | None) -> None:
    """Write a file with what a device on OLD lacks of NEW.

    The device's own engine loads it, without a registry and a network. It holds only
    the layers that OLD has not; on a device without OLD the engine refuses it.
    NEW and OLD are written as for mlpack diff.
    """
    from mlpack.api import bundle as api
    from mlpack.oci.descriptor import Platform

    made = api.make(
        options.project_if_any(),
        new,
        onto,
        out,
        engine=engine,
        name=name,
        platform=Platform.parse(platform) if platform else None,
        registries=options.registries() if "/" in onto + new else None,
    )
    _talk(made, onto)
    output.answer(made.to_json(), str(out))


@options.command(
    "verify",
    examples="""
    mlpack bundle verify fan-2.tar.gz
    mlpack --json bundle verify fan-2.tar
    """,
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify(file: Path) -> None:
    """Check every part of a bundle against the list of digests in it."""
    from mlpack.api import bundle as api

    checked = api.verify(file)
    output.answer(checked.to_json(), lambda: _text(checked))


bundle.add_command(make)
bundle.add_command(verify)


def _talk(made: Bundled, onto: str) -> None:
    plan = made.bundle
    carried = sum(layer.size for layer in plan.carried)
    output.note(
        f"{plan.name} for {plan.image.platform}: {output.size(made.file.size)}, "
        f"{len(plan.carried)} of {len(plan.image.layers)} layers ({output.size(carried)})"
    )
    output.note(f"on the device: {made.command}")
    if plan.onto:
        output.note(f"a device that is not on {onto} refuses it, saying {made.refusal!r}")


def _text(checked: Checked) -> str:
    onto = f"a device on {checked.onto}" if checked.onto else "any device"
    rows = [(name, output.size(size)) for name, size in checked.members.items()]
    lines = [
        f"{checked.name} ({checked.platform}), image {checked.image}",
        f"for {onto}, engine {checked.engine}: every part is as listed",
        "",
        output.table(("part", "bytes"), rows, right=(1,)),
    ]
    return "\n".join(lines)
