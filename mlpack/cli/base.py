"""``mlpack base``: build and show the stable base image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import BuildBase
from mlpack.cli import console
from mlpack.cli.console import answer, note, size, table

if TYPE_CHECKING:
    from mlpack.api.base import BuiltBase, ShownBase
    from mlpack.model.lock import LockedBase


@click.group("base", epilog="\b\nExamples:\n  mlpack base build\n  mlpack base show")
def base() -> None:
    """Build or show the stable base image."""


@console.command(
    "build",
    BuildBase,
    examples="""
    mlpack base build
    mlpack base build --upgrade
    mlpack --json base build
    """,
)
@click.option("--upgrade", is_flag=True, help="Take the newest versions, not the locked ones.")
def build(request: BuildBase) -> None:
    """Make the base that mlpack.toml describes, once; write mlpack.lock.

    A base that is locked and in the store is not made again.
    """
    built = console.project().build_base(request)
    _notes(built)
    answer(built, f"base@{built.base.index.digest}")


@console.command(
    "show",
    examples="""
    mlpack base show
    mlpack base show --packages
    mlpack --json base show
    """,
)
@click.option("--packages", is_flag=True, help="List every package with its version.")
def show(packages: bool) -> None:
    """Show the locked base: layers, bytes, packages."""
    shown = console.project().show_base()
    answer(shown, lambda: _text(shown, packages))


base.add_command(build)
base.add_command(show)


def _notes(built: BuiltBase) -> None:
    """Print what the user should know besides the digest."""
    if built.already:
        note("already built: the lock fits mlpack.toml, and the store has every byte")
        return
    for line in built.changes:
        note(f"changed: {line}")
    note(_layers(built.base))
    for platform, each in built.missing:
        note(
            f"warning: {platform}: {each.path} is linked to {each.library}, which the base does "
            "not have (its Debian package goes into [base] packages)"
        )


def _text(shown: ShownBase, packages: bool) -> str:
    lines = [
        f"base {shown.base.index.digest}",
        f"from {shown.base.source}",
        *(() if shown.in_store else ("not in the store: make it with mlpack base build",)),
        "",
        _layers(shown.base),
    ]
    return "\n".join([*lines, *(("", _packages(shown.base)) if packages else ())])


def _layers(base: LockedBase) -> str:
    rows = []
    for locked in base.platforms:
        for each in locked.layers:
            digest = each.layer.digest.short
            rows.append((str(locked.platform), each.role, size(each.layer.size), digest))
        whole = sum(each.layer.size for each in locked.layers)
        rows.append((str(locked.platform), "whole base", size(whole), locked.manifest.digest.short))
    return table(("platform", "layer", "bytes", "digest"), rows, right=(2,))


def _packages(base: LockedBase) -> str:
    rows = [
        (str(locked.platform), kind, each.name, each.version)
        for locked in base.platforms
        for kind, held in (("python", locked.python), ("debian", locked.debian))
        for each in held
    ]
    return table(("platform", "kind", "package", "version"), rows)
