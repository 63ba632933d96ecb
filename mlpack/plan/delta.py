"""What moving a device from one image to another takes, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

from mlpack.plan.engines import LayerStep, engine
from mlpack.plan.transfer import Pull, Transfer, weigh


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One device's way from ``old`` to ``new`` with one engine."""

    engine: str
    old: str
    """What the device holds, as the user wrote it; ``none`` for an empty device."""

    new: str
    steps: tuple[LayerStep, ...]
    """One per layer of the new image, bottom first."""

    transfer: Transfer

    def to_json(self) -> dict[str, object]:
        """The document ``mlpack diff --json`` prints."""
        return {
            "engine": self.engine,
            "old": self.old,
            "new": self.new,
            "layers": [step.to_json() for step in self.steps],
            "transfer": self.transfer.to_json(),
        }


def delta(name: str, old: str, new: str, pull: Pull) -> Delta:
    """Plan ``pull`` with engine ``name``; raise :class:`UnknownEngine`."""
    steps = engine(name).steps(pull.image, pull.state)
    return Delta(engine=name, old=old, new=new, steps=steps, transfer=weigh(name, pull, steps))
