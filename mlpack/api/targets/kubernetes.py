"""``--target kubernetes``: the objects that run a release on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlpack.api.deployment_content import PinnedRelease, pinned_release
from mlpack.api.render import Rendered, rendered_objects
from mlpack.api.requests import Render
from mlpack.errors import MlpackError
from mlpack.iotedge.module import ALL, wants_gpu
from mlpack.oci.image import Image
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import rebuilt_bytes
from mlpack.render.kubernetes import (
    RELEASE_PATH,
    ImageVolume,
    Workload,
    left_out,
    manifests,
    require_open,
)
from mlpack.settings.targets import NODE_LABEL, UnknownGroup, unknown_group
from mlpack.stores.store import images, read_image

APP_ROOT = "/var/azureml-app"


class NotOnThatBase(MlpackError):
    """A release that is not the locked base and one layer, so that the two cannot be joined."""

    hint = "build the release on the base in mlpack.lock, or leave --image-volume out"


def render(project: ProjectDirectory, request: Render, environment: Mapping[str, str]) -> Rendered:
    """Return the objects that run a release on a cluster, checked.

    Without a device group a Deployment, with one a DaemonSet on the group's nodes.
    """
    recipe = project.settings
    release = pinned_release(project, request)
    found, settings, group = release.found, recipe.module, request.device_group
    if wants_gpu(found.image) and not settings.gpu:
        settings = replace(settings, gpu=ALL)
    require_open(settings)
    only = request.platform is not None or found.index is None
    workload = Workload(
        module=release.module,
        image=release.image,
        model=release.name,
        version=release.version,
        settings=settings,
        cluster=recipe.kubernetes,
        group=group,
        nodes=_nodes(project, group) if group else {},
        platform=found.image.platform if only else None,
        volume=_volume(project, release, request) if request.image_volume else None,
        rebuilt=rebuilt_bytes(found),
    )
    return rendered_objects(
        request, release, manifests(workload), warnings=tuple(left_out(settings))
    )


def _nodes(project: ProjectDirectory, group: str) -> Mapping[str, str]:
    """Return the labels of the group's nodes."""
    recipe = project.settings
    if group in recipe.kubernetes.groups:
        return recipe.kubernetes.groups[group]
    if group not in recipe.deploy.groups:
        message, hint = unknown_group(group, recipe.deploy.groups)
        if not recipe.deploy.groups:
            hint = f'add [kubernetes.groups] {group} = {{ "{NODE_LABEL}" = "{group}" }}'
        raise UnknownGroup(message, hint=hint)
    return {NODE_LABEL: group}


def _volume(
    project: ProjectDirectory, release: PinnedRelease, request: Render
) -> ImageVolume | None:
    """Return the base of a release by digest, and what the release's config adds to it."""
    if request.image_volume is None:
        return None
    lock, found = project.lock().base, release.found
    for image in [found.image] if request.platform else images(found.store, found.target):
        locked = lock.on(image.platform)
        below = tuple(each.layer for each in locked.layers) if locked else ()
        # One more, or the anchor's and a patch.
        above = len(image.layers) - len(below)
        if locked is None or image.layers[: len(below)] != below or above not in (1, 2):
            raise NotOnThatBase(f"{found.name} is not the base in mlpack.lock and one layer")
    platform = lock.on(found.image.platform)
    if platform is None:
        raise NotOnThatBase(f"mlpack.lock has no base for {found.image.platform}")
    base = read_image(project.layout, platform.manifest)
    digest = platform.manifest.digest if request.platform else lock.index.digest
    return ImageVolume(base=request.image_volume.pinned(digest), env=_moved(found.image, base))


def _moved(release: Image, base: Image) -> Mapping[str, str]:
    """Return the release's own variables, with paths below its mount."""
    own = {key: value for key, value in release.env.items() if base.env.get(key) != value}
    moved = {
        key: RELEASE_PATH + value if value.startswith(APP_ROOT) else value
        for key, value in own.items()
    }
    return {"AML_APP_ROOT": RELEASE_PATH + APP_ROOT, **moved}
