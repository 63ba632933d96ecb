"""``mlpack build --check --push``: hold a release against its budget, and push it.

A large layer of mlpack's own builder is on its way to the registry while it is written; whether it
arrived decides only how much is left to push.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlpack.api.build import PreparedBuild, Release, make
from mlpack.api.requests import Push, Report
from mlpack.oci.descriptor import Reference
from mlpack.project.references import releases

if TYPE_CHECKING:
    from mlpack.api.push import PushResult
    from mlpack.api.session import Session
    from mlpack.registry.upload import UploadStream

WORTH = 4 * 1024 * 1024
"""Bytes of a model from which on its layer is sent as it is made: below, it takes no time."""


def publish(session: Session, plan: PreparedBuild) -> Release:
    """Build what was planned; check it; push it unless it is over its budget."""
    before = session.registries.traffic if plan.pushes else None
    with ExitStack() as stack:
        ahead = _Ahead(session, plan, stack)
        release = make(session, plan, ahead.open)
        if plan.request.check:
            _check(session, release)
        arrived = ahead.finish(release)
    if before is None:
        return release
    from mlpack.api.push import push

    pushed = push(session, Push(str(release.version), to=plan.request.to))
    pushed = replace(pushed, traffic=session.registries.traffic.since(before))
    return replace(release, pushed=_with_stream(pushed, release) if arrived else pushed)


def _check(session: Session, release: Release) -> None:
    from mlpack.api.report import BudgetExceeded, report

    try:
        report(session, Report(str(release.version), check=True))
    except BudgetExceeded as error:
        raise BudgetExceeded(error, error.report, release) from error


def _with_stream(pushed: PushResult, release: Release) -> PushResult:
    """Count the layer that was sent while it was built."""
    copied, layer = pushed.copied, release.layer.descriptor
    present = tuple(each for each in copied.present if each.digest != layer.digest)
    return replace(pushed, copied=replace(copied, sent=(layer, *copied.sent), present=present))


@dataclass
class _Ahead:
    """The stream to the registry that a new, large layer takes while it is written."""

    session: Session
    plan: PreparedBuild
    stack: ExitStack
    stream: UploadStream | None = None

    def open(self) -> UploadStream | None:
        """Open it, unless the layer is small or was built before."""
        project, model, request = self.session.project, self.plan.model, self.plan.request
        small = sum(each.size for each in model.files) < WORTH
        place = Reference.parse(request.to) if request.to else project.settings.repository
        built = model.version in releases(project.layout, model.name)
        if self.plan.pushes and place and not (small or built):
            from mlpack.registry.upload import streaming

            repository = self.session.registries.store(place, push=True).session
            self.stream = self.stack.enter_context(streaming(repository))
        return self.stream

    def finish(self, release: Release) -> bool:
        """End the stream; return whether the registry has the layer now."""
        return self.stream is not None and self.stream.finish(release.layer.descriptor)
