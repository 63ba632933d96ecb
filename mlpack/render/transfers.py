"""Transfers and differences between images, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from mlpack.plan.delta import Delta
from mlpack.plan.transfer import Transfer
from mlpack.render.document import Block, Heading, Paragraph, Table
from mlpack.words import counted, size


def transfer_table(transfers: Sequence[Transfer]) -> Table:
    """One column per transfer: its parts, their sum and the number of requests."""
    rows = [
        ("layers", *(size(each.layers) for each in transfers)),
        ("manifest", *(size(each.manifest) for each in transfers)),
        ("config", *(size(each.config) for each in transfers)),
        ("HTTP headers", *(size(each.headers) for each in transfers)),
        ("TLS handshakes", *(size(each.handshakes) for each in transfers)),
        ("total", *(size(each.total) for each in transfers)),
        ("requests", *(str(each.requests) for each in transfers)),
    ]
    engines = [each.engine for each in transfers]
    return Table(("part", *engines), rows, right=range(1, len(engines) + 1))


def device_on(old: str) -> str:
    """The subject of a sentence about a device that holds ``old``."""
    if old == "none":
        return "An empty device"
    return "A device on the base" if old == "base" else f"A device on {old}"


def diff_blocks(delta: Delta) -> tuple[Block, ...]:
    """The answer of ``mlpack diff``: a sentence, the layers from the top, the bytes by part."""
    fetched = sum(step.action == "fetch" for step in delta.steps)
    rows = [
        (step.action, size(step.layer.size), step.layer.digest.short, step.why)
        for step in reversed(delta.steps)
    ]
    return (
        Paragraph(
            f"{device_on(delta.old)} fetches {size(delta.transfer.total)} to reach {delta.new} "
            f"with {delta.engine}: {fetched} of {counted(len(delta.steps), 'layer')}."
        ),
        Heading("Layers, the top one first"),
        Table(("action", "size", "layer", "why"), rows, right=(1,)),
        Heading("Bytes on the wire, by part"),
        transfer_table([delta.transfer]),
    )
