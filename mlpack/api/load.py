"""``mlpack load``: an image into Docker or podman on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlpack.api.bundle import default_name
from mlpack.plan.bundle import Bundle, lacking
from mlpack.plan.engines import DeviceState
from mlpack.stores.bundle import write_archive
from mlpack.stores.daemon import Daemon
from mlpack.stores.project import Project
from mlpack.stores.references import find_image, rebuilt_bytes
from mlpack.stores.registries import Registries


@dataclass(frozen=True)
class Loaded:
    """An image an engine took in."""

    daemon: Daemon
    bundle: Bundle
    rebuilt: int = 0
    """Bytes that it rebuilds when it starts."""

    @property
    def name(self) -> str:
        """What the engine calls it."""
        return self.bundle.name

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json load``."""
        image = self.bundle.image
        return {
            "name": self.name,
            "engine": self.daemon.program,
            "platform": str(image.platform),
            "image": str(image.digest),
            "config": str(image.config_descriptor.digest),
            "layers": len(image.layers),
            "loaded": len(self.bundle.carried),
        }


def load(
    project: Project | None,
    text: str,
    *,
    engine: str = "docker",
    name: str = "",
    registries: Registries | None = None,
) -> Loaded:
    """Bring the image ``text`` into ``engine``, called ``name`` or what a release is called.

    Of several platforms the engine's own is taken. Docker is given only the layers
    it has not unpacked; podman compares blobs by itself and is given all.
    """
    daemon = Daemon.named(engine)
    found = find_image(project, text, daemon.platform(), registries=registries)
    held = daemon.chain_ids() if daemon.form == "moby" else frozenset()
    state = DeviceState(chain_ids=held)
    made = Bundle(
        engine=daemon.form,
        name=name or default_name(project, found),
        image=found.image,
        carried=lacking(daemon.form, found.image, state),
        onto=None,
    )
    with tempfile.TemporaryDirectory(prefix="mlpack-load-") as folder:
        archive = Path(folder) / "image.tar"
        with archive.open("wb") as out:
            write_archive(found.store, made, out)
        daemon.load(archive)
    return Loaded(daemon, made, rebuilt_bytes(found))
