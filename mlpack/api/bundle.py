"""``mlpack bundle``: a file that brings a device from one image to another, without a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.plan import session_update
from mlpack.api.requests import Diff
from mlpack.errors import UsageError
from mlpack.oci.descriptor import Descriptor
from mlpack.plan.bundle import Bundle, bundle, load_refusals
from mlpack.plan.engines import engine as known_engine
from mlpack.plan.refusals import Refusal, require_taken
from mlpack.project.directory import ProjectDirectory
from mlpack.project.engine_support import layer_facts
from mlpack.project.references import FoundImage
from mlpack.settings.project_settings import DeviceSettings
from mlpack.stores.bundle import write_bundle
from mlpack.stores.copy import DigestChange
from mlpack.stores.records import MODEL, VERSION

if TYPE_CHECKING:
    from mlpack.api.requests import MakeBundle
    from mlpack.api.session import Session


@dataclass(frozen=True)
class WrittenBundle:
    """A bundle that was written."""

    path: Path
    bundle: Bundle
    file: Descriptor
    refusals: tuple[Refusal, ...] = ()
    """What the engine unpacks to other files."""
    converted: DigestChange | None = None
    """How the image's digest changed, if it did."""

    @property
    def command(self) -> str:
        """What a device runs to load it."""
        return self.bundle.load.command.format(file=self.path.name)

    @property
    def refusal(self) -> str:
        """What the engine says on a device that lacks the base."""
        return self.bundle.load.refusal

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json bundle make``."""
        made = self.bundle
        return {
            "path": self.path,
            "bytes": self.file.size,
            "digest": self.file.digest,
            "engine": made.engine,
            "name": made.name,
            "platform": made.image.platform,
            "image": made.image.digest,
            "converted": self.converted,
            "onto": made.onto,
            "layers": [
                {"digest": each.digest, "bytes": each.size, "carried": each in made.carried}
                for each in made.image.layers
            ],
            "load": self.command,
            "refusal": self.refusal if made.onto else None,
            "refusals": self.refusals,
        }


def make(session: Session, request: MakeBundle) -> WrittenBundle:
    """Write what a device on one image (or ``none``) lacks of another to a file.

    The engine is the project's by default. Raises
    :class:`~mlpack.plan.bundle.NothingShared`, :class:`~mlpack.plan.refusals.NotTaken`,
    :class:`~mlpack.stores.files.OutputIsInput`, and what finding an image raises.
    """
    project = session.project_if_any
    device = project.settings.device if project else DeviceSettings()
    chosen = known_engine(request.engine or device.engine)
    asked = Diff(request.onto, request.new, platform=request.platform)
    update = session_update(session, asked, session.find(request.new, request.platform))
    onto = update.old.image if update.old else None
    name = request.name or default_name(project, update.new)
    made = bundle(chosen.name, name, update.new.image, onto)
    facts = layer_facts(update.new.store, made.image, chosen)
    refusals = load_refusals(chosen, made.image, facts)
    require_taken(request.new, [each for each in refusals if each.effect == "refused"])
    read = (*update.new.location, *(update.old.location if update.old else ()))
    with session.output(request.out, *read) as out:
        written = write_bundle(update.new.store, made, out)
    change = DigestChange.between(update.new.image.descriptor, made.image.descriptor)
    return WrittenBundle(Path(request.out), made, written, refusals, change)


def default_name(project: ProjectDirectory | None, found: FoundImage) -> str:
    """The name of a release in an engine: its repository, or ``localhost``, and its version."""
    labels = found.image.labels
    if MODEL not in labels or VERSION not in labels:
        raise UsageError(
            f"{found.name} is not a release of mlpack, so it has no default name",
            hint="name it for the engine with: --name REPOSITORY:TAG",
        )
    where = project.settings.repository if project else None
    repository = f"{where.registry}/{where.repository}" if where else f"localhost/{labels[MODEL]}"
    return f"{repository}:{labels[VERSION]}"
