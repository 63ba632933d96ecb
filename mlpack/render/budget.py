"""A budget and what an update takes of it, for people."""

from __future__ import annotations

from mlpack.plan.budget import Verdict
from mlpack.render.document import Block, Heading, Table


def budget_blocks(verdict: Verdict) -> tuple[Block, ...]:
    """A heading that says how it went, and a row for every bound."""
    over = len(verdict.over)
    said = f"over in {over} of {len(verdict.lines)}" if over else "kept"
    rows = [
        (line.title, line.allowed, line.found, "over" if line.over else "within")
        for line in verdict.lines
    ]
    return (
        Heading(f"Budget: {said}"),
        Table(("[budget]", "allowed", "found", ""), rows, right=(1, 2)),
    )
