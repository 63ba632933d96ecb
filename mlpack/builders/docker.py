"""Build through a Docker daemon, for those whose policy or base image requires it.

Docker dates what it copies, so its layers are not the same bytes from build to build,
and its config carries a history; the file system is that of the other builders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlpack.builders.context import docker_release, write_context
from mlpack.engines.docker import DockerEngine, connect
from mlpack.engines.engine import EngineRefused, load_image
from mlpack.model.version import ModelVersion
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Reference
from mlpack.oci.image import Image, Layer, NotOnBase, assemble
from mlpack.oci.layer import pack_layer
from mlpack.project.releases import BuildFailed, NotOneLayer, require_one_layer
from mlpack.stores.archive import ArchiveStore
from mlpack.stores.files import temporary_folder
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import read_image, verified

_FAILED = "see what the daemon's log says, or build without it: --builder oci"


@dataclass(frozen=True)
class DockerBuilder:
    """Sends the context to a daemon and keeps the layer it made in the project's store."""

    base_at: Reference | None = None
    """The repository with the base if it is not in the store; the daemon pulls it from there."""

    def build(
        self, layout: LayoutStore, model: ModelVersion, bases: Sequence[Image]
    ) -> tuple[Image, ...]:
        """Build for each base in turn; a base the daemon lacks is loaded into it."""
        engine = connect(otherwise="build without it: --builder oci")
        try:
            return tuple(self._one(engine, layout, model, base) for base in bases)
        except EngineRefused as error:
            raise BuildFailed(str(error), hint=_FAILED) from error
        finally:
            engine.close()

    def _one(
        self, engine: DockerEngine, layout: LayoutStore, model: ModelVersion, base: Image
    ) -> Image:
        old = str(self.base_at.pinned(base.digest)) if self.base_at else ""
        release = docker_release(model, old or _load_base(engine, layout, base))
        platform = base.platform
        variant = platform.variant and f"-{platform.variant}"
        tag = f"localhost/{model.name}:{model.version}-{platform.architecture}{variant}"
        with temporary_folder("mlpack-docker-") as folder:
            context, saved = folder / "context.tar", folder / "image.tar"
            with context.open("wb") as out:
                write_context(layout, model, release, out)
            with context.open("rb") as content, saved.open("wb") as out:
                engine.build(content, tag, out)
            return _take(layout, ArchiveStore(saved), base)


def _load_base(engine: DockerEngine, layout: LayoutStore, base: Image) -> str:
    """Load the base, named by its config's digest, unless the daemon has it; return the name."""
    name = f"localhost/mlpack-base:{base.config_descriptor.digest.hex}"
    there = engine.image(name)
    if there is None or not there.is_image(base):
        load_image(engine, layout, base, name)
    return name


def _take(layout: LayoutStore, archive: ArchiveStore, base: Image) -> Image:
    """Keep the layer above the base, compressed, and make the image of it and Docker's config."""
    made = read_image(archive, archive.resolve(""))
    if made.diff_ids[: len(base.layers)] != base.diff_ids:
        raise NotOnBase("Docker built on another base than it was given")
    above = made.layers[len(base.layers) :]
    if len(above) != 1:
        raise NotOneLayer(f"Docker put {len(above)} layers on the base, not one")
    image = assemble(made.config, (*base.layers, _keep(layout, archive, above[0])))
    require_one_layer(image, base)
    return image


def _keep(layout: LayoutStore, archive: ArchiveStore, layer: Layer) -> Layer:
    with archive.open(layer.descriptor) as content:
        if layer.descriptor.media_type not in media.TAR_LAYERS:
            layout.put(layer.descriptor, content)
            return layer
        with layout.stage() as out:
            packed = pack_layer(verified(content, layer.descriptor), layer.size, out)
            out.commit(packed.descriptor)
    return packed
