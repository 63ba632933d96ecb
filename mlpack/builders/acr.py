"""Build in the cloud: Azure Container Registry's Tasks build the context and push.

What ``az acr build`` does, through the same REST API (2025-03-01-preview): ask where to
upload, upload the context, schedule the run, follow its log, read the digest it pushed.
The image is then read back from the registry, so the release is one like any other.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from mlpack.azure.management import Account, signed_in
from mlpack.builders.context import DOCKERFILE, docker_release, write_context
from mlpack.errors import MlpackError
from mlpack.model.version import ModelVersion
from mlpack.oci.descriptor import Platform, Reference
from mlpack.oci.image import Image, NotOnBase, in_oci
from mlpack.oci.layer import Gzip
from mlpack.project.releases import BuildFailed, require_one_layer
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import Readable, read_image

if TYPE_CHECKING:
    from azure.mgmt.containerregistrytasks import ContainerRegistryTasksMgmtClient
    from azure.mgmt.containerregistrytasks.models import Run
    from azure.storage.blob import BlobClient

_ENDED = frozenset({"Succeeded", "Failed", "Canceled", "Error", "Timeout"})
_LEVEL, _RUN_SECONDS = 6, 3600
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0


class NoBaseThere(MlpackError):
    """A registry without the base."""


@dataclass(frozen=True)
class AcrBuilder:
    """Builds with ACR Tasks into ``repository``, which must hold the base."""

    account: Account
    repository: Reference
    open_store: Callable[[Reference], Readable]
    """Opens a repository of a registry, to look for the base and to read the built image."""

    say: Callable[[str], None]
    """Called with the run's log, piece by piece."""

    base_at: Reference | None = None
    """The repository with the base if it is not in ``repository``."""

    pause: float = _FIRST_PAUSE
    """Seconds between two requests for the log; doubled while it does not grow, up to 15."""

    def build(
        self, layout: LayoutStore, model: ModelVersion, bases: Sequence[Image]
    ) -> tuple[Image, ...]:
        """Run a task for each base in turn."""
        store = self.open_store(self.repository)
        place = self.base_at or self.repository
        there = self.open_store(place)
        for base in bases:
            if not there.exists(base.descriptor):
                raise NoBaseThere(
                    f"{place.registry}/{place.repository} does not hold the base "
                    f"for {base.platform}",
                    hint="push it there first: mlpack push base",
                )
        with _client(self.account) as client:
            return tuple(self._one(client, store, layout, model, base) for base in bases)

    def _one(
        self,
        client: ContainerRegistryTasksMgmtClient,
        store: Readable,
        layout: LayoutStore,
        model: ModelVersion,
        base: Image,
    ) -> Image:
        old = str((self.base_at or self.repository).pinned(base.digest))
        with tempfile.TemporaryFile() as context:
            with closing(Gzip(context, _LEVEL)) as packed:
                write_context(layout, model, docker_release(model, old), packed)
                packed.finish()
            context.seek(0)
            source = self._upload(client, context)
        name = _image_name(self.repository, model, base.platform)
        run = self._run(client, source, name, base.platform)
        return _take(layout, store, _digest(run), base)

    def _upload(self, client: ContainerRegistryTasksMgmtClient, context: IO[bytes]) -> str:
        from azure.storage.blob import BlobClient

        where = self.account.resource_group, self.account.name
        place = client.registries.get_build_source_upload_url(*where)
        if not place.upload_url or not place.relative_path:
            raise BuildFailed("ACR returned no URL for the build context")
        with BlobClient.from_blob_url(place.upload_url) as blob:
            blob.upload_blob(context, blob_type="BlockBlob", overwrite=True)
        return place.relative_path

    def _run(
        self,
        client: ContainerRegistryTasksMgmtClient,
        source: str,
        name: str,
        platform: Platform,
    ) -> Run:
        from azure.mgmt.containerregistrytasks.models import DockerBuildRequest, PlatformProperties

        where = self.account.resource_group, self.account.name
        asked = DockerBuildRequest(
            image_names=[name],
            is_push_enabled=True,
            source_location=source,
            docker_file_path=DOCKERFILE,
            platform=PlatformProperties(
                os=platform.os.capitalize(),
                architecture=platform.architecture,
                variant=platform.variant or None,
            ),
            timeout=_RUN_SECONDS,
        )
        scheduled = client.registries.schedule_run(*where, asked)
        run_id = scheduled.properties.run_id if scheduled.properties else None
        if not run_id:
            raise BuildFailed("ACR scheduled a run without an id")
        try:
            run = self._follow(client, run_id)
        except KeyboardInterrupt:
            # A run that nobody waits for still costs money every second.
            client.runs.cancel(*where, run_id)
            raise
        return _require_success(run, run_id)

    def _follow(self, client: ContainerRegistryTasksMgmtClient, run_id: str) -> Run:
        """Pass on the log as it grows, until the run has ended."""
        from azure.storage.blob import BlobClient

        where = self.account.resource_group, self.account.name, run_id
        link = client.runs.get_log_sas_url(*where).log_link
        if not link:
            raise BuildFailed(f"ACR run {run_id} has no log")
        deadline = time.monotonic() + 2 * _RUN_SECONDS
        said, pause = 0, self.pause
        with BlobClient.from_blob_url(link) as blob:
            while True:
                run = client.runs.get(*where)
                before, said = said, self._say_more(blob, said)
                if run.properties and run.properties.status in _ENDED:
                    self._say_more(blob, said)
                    return run
                if time.monotonic() > deadline:
                    raise BuildFailed(f"ACR run {run_id} does not end")
                pause = self.pause if said > before else min(2 * pause, _LONGEST_PAUSE)
                time.sleep(pause)

    def _say_more(self, blob: BlobClient, said: int) -> int:
        """Pass on the log after its first ``said`` bytes; it appears some time after the start."""
        if not blob.exists():
            return said
        size = int(blob.get_blob_properties().size)
        if size > said:
            more = blob.download_blob(offset=said, length=size - said).readall()
            self.say(more.decode("utf-8", "replace").replace("\r\n", "\n").rstrip("\n"))
        return size


@contextmanager
def _client(where: Account) -> Iterator[ContainerRegistryTasksMgmtClient]:
    with signed_in(
        "Azure",
        role="ask for a role that may schedule runs in the registry, as Contributor",
        wrong="check subscription, resource group and registry",
    ) as credential:
        from azure.mgmt.containerregistrytasks import ContainerRegistryTasksMgmtClient

        with ContainerRegistryTasksMgmtClient(
            credential,
            where.subscription,
            base_url=where.endpoint,
            credential_scopes=[where.scope],
        ) as client:
            yield client


def _image_name(repository: Reference, model: ModelVersion, platform: Platform) -> str:
    """Return a tag for each model, version and platform; runs know the registry."""
    parts = (model.name, model.version, platform.architecture, platform.variant)
    return f"{repository.repository}:{'-'.join(part for part in parts if part)}"


def _require_success(run: Run, run_id: str) -> Run:
    properties = run.properties
    # The SDK's statuses are enums that would print as RunStatus.FAILED.
    status = str.__str__(properties.status) if properties and properties.status else "unknown"
    if status != "Succeeded":
        why = (properties.run_error_message if properties else "") or "see the log above"
        raise BuildFailed(f"ACR run {run_id} ended as {status}: {why}")
    return run


def _digest(run: Run) -> str:
    found = [each.digest for each in (run.properties.output_images or [])] if run.properties else []
    if len(found) != 1 or not found[0]:
        raise BuildFailed(f"ACR run {run.name} built {len(found)} images, not one")
    return found[0]


def _take(layout: LayoutStore, store: Readable, digest: str, base: Image) -> Image:
    """Read the image from the registry, with OCI's media types; keep the layer above the base."""
    image = read_image(store, store.resolve(digest))
    try:
        require_one_layer(image, base)
    except NotOnBase as error:
        # Docker packs a layer again if it knows no repository there to mount it from.
        raise NotOnBase(
            f"{error}: the run packed the base's layers again, so every device would fetch them",
            hint="put the base into the same repository: mlpack push base",
        ) from error
    layer = image.layers[-1].descriptor
    with store.open(layer) as content:
        layout.put(layer, content)
    return in_oci(image)
