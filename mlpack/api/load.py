"""``mlpack load``: an image into Docker or podman on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.api.bundle import default_name
from mlpack.engines.engine import Engine, load_image, opened
from mlpack.plan.bundle import Bundle
from mlpack.project.references import rebuilt_bytes
from mlpack.stores.copy import DigestChange

if TYPE_CHECKING:
    from mlpack.api.requests import Load
    from mlpack.api.session import Session


@dataclass(frozen=True)
class Loaded:
    """An image an engine loaded."""

    engine: str
    bundle: Bundle
    rebuilt: int = 0
    """Bytes of its model that it makes below /tmp when it starts."""

    converted: DigestChange | None = None
    """How the image's digest changed, if it did."""

    @property
    def name(self) -> str:
        """What the engine calls it."""
        return self.bundle.name

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json load``."""
        image = self.bundle.image
        return {
            "name": self.name,
            "engine": self.engine,
            "platform": image.platform,
            "digest": image.digest,
            "converted": self.converted,
            "config": image.config_descriptor.digest,
            "layers": len(image.layers),
            "loaded": len(self.bundle.carried),
        }


def load(session: Session, request: Load) -> Loaded:
    """Load an image into an engine; of several platforms the engine's own.

    Docker with its own image store is given only the layers it lacks, any other store all.
    Raises :class:`~mlpack.engines.engine.EngineError` and what finding the image raises.
    """
    with opened(request.engine) as engine:
        return load_into(engine, session, request)


def load_into(engine: Engine, session: Session, request: Load) -> Loaded:
    """Load an image into an engine that is open."""
    found = session.find(request.image, engine.platform)
    name = request.name or default_name(session.project_if_any, found)
    made = load_image(engine, found.store, found.image, name)
    change = DigestChange.between(found.image.descriptor, made.image.descriptor)
    return Loaded(engine.program, made, rebuilt_bytes(found), change)
