"""How rollouts stand, for people: a sentence, a bar per stage, what failed devices say."""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.plan import deployed
from mlpack.plan.status import GroupStatus
from mlpack.render.document import Block, Bullets, Heading, Paragraph, Table
from mlpack.words import counted

BAR = 20
"""Columns of a bar."""

MOST_REASONS = 5


def status_blocks(status: GroupStatus) -> tuple[Block, ...]:
    """One group's part of the answer of ``mlpack status``."""
    return tuple(_blocks(status))


def _blocks(status: GroupStatus) -> Iterator[Block]:
    current = status.current
    if current is None:
        yield Heading(f"{status.group.name}: no release is deployed")
        return
    since = current.labels.get(deployed.SINCE, "").replace("T", " ").removesuffix("Z")
    yield Heading(f"{status.group.name}: {current.release}, {current.state}, since {since} UTC")
    yield Paragraph(
        f"{counted(status.targeted, 'device')} meant; {status.applied:,} have it from the hub, "
        f"{status.running:,} run it, {status.failed:,} failed, {status.silent:,} silent."
    )
    rows = [
        (
            stage.share,
            f"{stage.devices:,}",
            bar(stage.running, stage.devices),
            f"{stage.running:,}",
            stage.state,
        )
        for stage in status.stages
    ]
    yield Table(("up to", "devices", "", "run it", ""), rows, right=(0, 1, 3))
    said = sorted(status.reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    if said:
        yield Bullets(tuple(f"{count:,} say: {reason}" for reason, count in said[:MOST_REASONS]))
    if status.older:
        yield Paragraph("Kept below it: " + ", ".join(each.release for each in status.older))


def bar(part: int, whole: int) -> str:
    """How much of a whole is there, as a bar of 20 columns.

    >>> bar(1, 2), bar(0, 0)
    ('██████████░░░░░░░░░░', '░░░░░░░░░░░░░░░░░░░░')
    """
    filled = BAR * part // whole if whole else 0
    return "█" * filled + "░" * (BAR - filled)
