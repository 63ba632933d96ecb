"""``mlpack gc``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import console
from mlpack.humanize import counted

if TYPE_CHECKING:
    from mlpack.api.gc import Garbage

_SHOWN_BLOBS = 20


@console.command(
    "gc",
    examples="""
    mlpack gc              what would be removed
    mlpack gc --yes
    """,
)
@click.option("--yes", "--delete", "delete", is_flag=True, help="Remove them.")
def gc(delete: bool) -> None:
    """Show what nothing in the store names any more, or remove it.

    Files of versions and releases that were dropped stay until then. What a release, an alias,
    mlpack.lock or the record of a kept release names is not removed. While another process writes
    into the store, nothing is.
    """
    found = console.project().gc(delete=delete)
    if not found.blobs:
        console.note("nothing to remove: everything in the store has a name")
    elif not delete:
        console.note("this was a dry run: remove them with: mlpack gc --yes")
    console.answer(found, lambda: _text(found))


def _text(found: Garbage) -> str:
    if not found.blobs:
        return ""
    verb = "removed" if found.removed else "would remove"
    largest = sorted(found.blobs, key=lambda each: -each.bytes)
    lines = [f"{verb} {counted(len(found.blobs), 'blob')} of {console.size(found.bytes)}"]
    lines += [
        f"  {each.digest.short}  {console.size(each.bytes)}" for each in largest[:_SHOWN_BLOBS]
    ]
    if len(largest) > _SHOWN_BLOBS:
        lines.append(f"  and {len(largest) - _SHOWN_BLOBS} more: see --json")
    return "\n".join(lines)
