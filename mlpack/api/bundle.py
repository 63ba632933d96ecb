"""``mlpack bundle``: a file that brings a device from one image to another, without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlpack.api.diff import find_move
from mlpack.errors import UsageError
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.plan.bundle import LOAD, REFUSAL, Bundle, bundle
from mlpack.plan.engines import engine as known_engine
from mlpack.stores.bundle import Checked, check_bundle, write_bundle
from mlpack.stores.project import Project
from mlpack.stores.references import Found, find_image
from mlpack.stores.registries import Registries
from mlpack.stores.releases import MODEL, VERSION


@dataclass(frozen=True)
class Bundled:
    """A bundle that was written."""

    path: Path
    bundle: Bundle
    file: Descriptor

    @property
    def command(self) -> str:
        """What a device runs to take it in."""
        return LOAD[self.bundle.engine].format(file=self.path.name)

    @property
    def refusal(self) -> str:
        """What the engine says on a device that lacks the base."""
        return REFUSAL[self.bundle.engine]

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json bundle make``."""
        made = self.bundle
        return {
            "file": str(self.path),
            "bytes": self.file.size,
            "digest": str(self.file.digest),
            "engine": made.engine,
            "name": made.name,
            "platform": str(made.image.platform),
            "image": str(made.image.digest),
            "onto": str(made.onto) if made.onto else None,
            "layers": [
                {"digest": str(each.digest), "bytes": each.size, "carried": each in made.carried}
                for each in made.image.layers
            ],
            "load": self.command,
            "refusal": self.refusal if made.onto else None,
        }


def make(
    project: Project | None,
    new: str,
    old: str,
    out: Path,
    *,
    engine: str = "",
    name: str = "",
    platform: Platform | None = None,
    registries: Registries | None = None,
) -> Bundled:
    """Write what a device on ``old`` (or ``none``) lacks of ``new`` to ``out``.

    Engine is the project's where none is given. Raises
    :class:`~mlpack.plan.bundle.NothingShared`, and what finding an image raises.
    """
    chosen = known_engine(engine or (project.recipe.device.engine if project else "moby"))
    found = find_image(project, new, platform, registries=registries)
    move = find_move(project, old, found, registries=registries)
    onto = move.old.image if move.old else None
    made = bundle(chosen.name, name or default_name(project, move.new), move.new.image, onto)
    return Bundled(out, made, write_bundle(move.new.store, made, out))


def verify(path: Path) -> Checked:
    """Check every member of the bundle at ``path`` against its list."""
    return check_bundle(path)


def default_name(project: Project | None, found: Found) -> str:
    """What an engine shall call a release: its repository, or ``localhost``, and its version."""
    labels = found.image.labels
    if MODEL not in labels or VERSION not in labels:
        raise UsageError(
            f"{found.name} is no release of mlpack, so it has no name of its own",
            hint="say what the engine shall call it with: --name REPOSITORY:TAG",
        )
    where = project.recipe.repository if project else None
    repository = f"{where.registry}/{where.repository}" if where else f"localhost/{labels[MODEL]}"
    return f"{repository}:{labels[VERSION]}"
