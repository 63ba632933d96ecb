"""Building through a Docker daemon: for those whose policy or base image wants it.

Docker dates what it copies, so its layers are not the same bytes from build to build,
and its config carries a history; the file system is that of the other builders.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mlpack.builders.builder import BuildFailed, NotOneLayer, require_one_layer
from mlpack.builders.context import docker_release, write_context
from mlpack.model.version import ModelVersion
from mlpack.oci import descriptor as media
from mlpack.oci.image import Image, Layer, NotOnBase, assemble
from mlpack.oci.layer import pack_layer
from mlpack.oci.reference import Reference
from mlpack.stores.archive import ArchiveStore
from mlpack.stores.base import read_image, verified
from mlpack.stores.docker_api import connected, give, one_line
from mlpack.stores.layout import LayoutStore

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image as DockerImage

_LAST_LINES = 5
_FAILED = "see what the daemon's log says, or build without it: --builder oci"


@dataclass(frozen=True)
class DockerBuilder:
    """Sends the context to a daemon, and takes the layer it made into the project's store."""

    base_at: Reference | None = None
    """The repository that has the base; the daemon pulls it where it is not in the store."""

    def build(
        self, layout: LayoutStore, model: ModelVersion, bases: Sequence[Image]
    ) -> tuple[Image, ...]:
        """Build for each base in turn; the base is given to the daemon where it lacks it."""
        with _client() as client:
            return tuple(self._one(client, layout, model, base) for base in bases)

    def _one(
        self, client: DockerClient, layout: LayoutStore, model: ModelVersion, base: Image
    ) -> Image:
        there = self.base_at and str(self.base_at.pinned(base.digest))
        built = _run(client, layout, model, base, there or _give_base(client, layout, base))
        return _read(layout, built, base)


def _read(layout: LayoutStore, built: DockerImage, base: Image) -> Image:
    with tempfile.TemporaryDirectory(prefix="mlpack-docker-") as folder:
        saved = Path(folder) / "image.tar"
        with saved.open("wb") as out:
            for chunk in built.save():
                out.write(chunk)
        return _take(layout, ArchiveStore(saved), base)


@contextmanager
def _client() -> Iterator[DockerClient]:
    """The daemon; what goes wrong with a build says so, and how to build without it."""
    with connected(otherwise="build without it: --builder oci") as client:
        import docker

        try:
            yield client
        except docker.errors.BuildError as error:
            log = [str(line.get("stream", "")) for line in error.build_log]
            said = "; ".join([one_line(text) for text in log if text.strip()][-_LAST_LINES:])
            after = f" (after: {said})" if said else ""
            raise BuildFailed(
                f"docker build: {one_line(error.msg)}{after}", hint=_FAILED
            ) from error
        except docker.errors.APIError as error:
            raise BuildFailed(
                f"docker: {one_line(error.explanation or error)}", hint=_FAILED
            ) from error


def _give_base(client: DockerClient, layout: LayoutStore, base: Image) -> str:
    """Name the base in the daemon, by a tag made of its config's digest, and return that."""
    config = base.config_descriptor.digest
    name = f"localhost/mlpack-base:{config.hex}"
    held = client.images.list()
    if str(config) in {image.id for image in held if name in image.tags}:
        return name
    give(client, layout, base, name)
    return name


def _run(
    client: DockerClient, layout: LayoutStore, model: ModelVersion, base: Image, old: str
) -> DockerImage:
    platform = base.platform
    variant = platform.variant and f"-{platform.variant}"
    with tempfile.TemporaryFile() as context:
        write_context(layout, model, docker_release(model, old), context)
        context.seek(0)
        # No platform is asked for: the base says it, and 20.10 takes the cached model stage of
        # another platform and then refuses it.
        image, _ = client.images.build(
            fileobj=context,
            custom_context=True,
            tag=f"localhost/{model.name}:{model.version}-{platform.architecture}{variant}",
            rm=True,
            forcerm=True,
        )
    return cast("DockerImage", image)


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
