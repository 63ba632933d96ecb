"""What became of starting a release once, before it was named."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from mlpack.oci.descriptor import InvalidContent, Node

Outcome = Literal["started", "refused", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStart:
    """The start of a release's image on one platform."""

    outcome: Outcome
    """``started``: it loads. ``refused``: it does not. ``never``: it could not be tried."""

    way: str = ""
    """How it was isolated: ``namespaces``, ``chroot``, ``loader``, ``docker`` or ``podman``."""

    milliseconds: int = 0
    """From the start of the process to its end."""

    note: str = ""
    """Why it was refused or never tried; or why it scored no made request."""

    input: str = ""
    """The made request that it scored, in words; empty if it scored none."""

    at: str = ""
    """When it was tried (ISO 8601, UTC)."""

    @classmethod
    def from_json(cls, node: Node) -> TrialStart:
        """Read a member of a release's record."""
        outcome = node.need("outcome").text()
        for known in get_args(Outcome):
            if outcome == known:
                return cls(
                    outcome=known,
                    way=node.need("way").text(),
                    milliseconds=node.need("milliseconds").integer(),
                    note=node.need("note").text(),
                    input=node.need("input").text(),
                    at=node.need("at").text(),
                )
        raise InvalidContent(node.where, f"{outcome!r} is not an outcome of a start")

    def __str__(self) -> str:
        if self.outcome == "never":
            return f"never started: {self.note}"
        if self.outcome == "refused":
            return f"cannot start: {self.note}"
        scored = (
            f"scored a made request ({self.input})"
            if self.input
            else f"scored nothing: {self.note}"
        )
        return f"started in {self.milliseconds / 1000:.2f} s ({self.way}) and {scored}"


def never(note: str) -> TrialStart:
    """Return a start that could not be tried, and why."""
    return TrialStart(outcome="never", note=note)


def worst(starts: Iterable[TrialStart]) -> Outcome:
    """Return the outcome of a release: of its platforms', the one that says least for it."""
    outcomes = {each.outcome for each in starts}
    if "refused" in outcomes:
        return "refused"
    return "never" if "never" in outcomes or not outcomes else "started"


def summary(starts: Collection[TrialStart], platforms: int) -> str:
    """Return :func:`worst`, or on how many of a release's ``platforms`` it was started.

    >>> summary([never("no emulator"), TrialStart(outcome="started")], 2)
    'on 1 of 2'
    """
    outcome, started = worst(starts), sum(each.outcome == "started" for each in starts)
    return f"on {started} of {platforms}" if outcome == "never" and started else outcome


NOT_TRIED = never("its record has no start")
"""An image of an older mlpack, or one that was grafted."""
