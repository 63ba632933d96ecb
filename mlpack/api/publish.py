"""``mlpack build --push``: built and pushed in one go, a large layer sent while it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from mlpack.api.build import Release, build
from mlpack.api.push import Advance, NowhereToPush, Pushed, push
from mlpack.api.strategy import Cohorts
from mlpack.builders.builder import Builder, OciBuilder
from mlpack.model.version import ModelVersion
from mlpack.oci.descriptor import Platform
from mlpack.oci.reference import Reference
from mlpack.stores.models import ModelStore
from mlpack.stores.project import Project
from mlpack.stores.registries import Registries
from mlpack.stores.releases import releases
from mlpack.stores.stream import Stream, streaming

if TYPE_CHECKING:
    from mlpack.api.remote_base import RemoteBase

WORTH = 4 * 1024 * 1024
"""Bytes of a model from which on its layer is sent as it is made: below, it takes no time."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was built, and what was pushed of it."""

    release: Release
    pushed: Pushed

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json build --push``."""
        return {**self.release.to_json(), "pushed": self.pushed.to_json()}


def publish(
    project: Project,
    registries: Registries,
    name: str,
    version: str = "",
    *,
    to: Reference | None = None,
    platforms: Sequence[Platform] = (),
    builder: Builder | None = None,
    base: RemoteBase | None = None,
    strategy: str = "auto",
    cohorts: Cohorts | None = None,
    now: datetime,
    advance: Advance = lambda _: None,
    agree: Callable[[Release], None] = lambda _: None,
) -> Published:
    """Build as :func:`~mlpack.api.build.build` does, then push as :func:`~mlpack.api.push.push`.

    A large layer of mlpack's own builder is on its way while it is written; whether it
    arrived decides only how much is left to push. ``agree`` may raise when it sees what was
    built: then nothing gets a name in the registry. Raises :class:`NowhereToPush` before
    anything is built.
    """
    place = to or project.recipe.repository
    if place is None:
        raise NowhereToPush("it is not said where to push the release")
    model = ModelStore(project.layout).get(name, version)
    ahead: AbstractContextManager[Stream | None]
    if strategy == "patch" or (strategy == "auto" and _anchored(project, model)):
        # It may well be a patch: then the layer is not what the registry needs.
        ahead = nullcontext(None)
    else:
        ahead = _ahead(project, registries, model, place, builder)
    with ahead as stream:
        release = build(
            project,
            name,
            model.version,
            platforms=platforms,
            builder=OciBuilder(stream) if stream else builder,
            base=base,
            strategy=strategy,
            cohorts=cohorts,
            now=now,
        )
        agree(release)
        layer = release.layer.descriptor
        arrived = stream is not None and stream.finish(layer)
    pushed = push(project, registries, str(model), to=to, advance=advance)
    if arrived:
        copied = pushed.copied
        copied = replace(
            copied,
            sent=(layer, *copied.sent),
            present=tuple(each for each in copied.present if each.digest != layer.digest),
        )
        pushed = replace(pushed, copied=copied)
    return Published(release=release, pushed=pushed)


def _anchored(project: Project, model: ModelVersion) -> bool:
    return project.has_lock and model.name in project.lock().anchors


@contextmanager
def _ahead(
    project: Project,
    registries: Registries,
    model: ModelVersion,
    place: Reference,
    builder: Builder | None,
) -> Iterator[Stream | None]:
    """A stream to the registry where it is worth one: not for a release that was built before."""
    small = sum(each.size for each in model.files) < WORTH
    if builder is not None or small or model.version in releases(project.layout, model.name):
        yield None
        return
    with streaming(registries.store(place, push=True)) as stream:
        yield stream
