"""The starts of a release before it is named: begun with its layer, judged when both have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.base.requirements import check_runtime, unsupported
from mlpack.engines.local_runtime import stage
from mlpack.errors import MlpackError
from mlpack.kinds import ALLOW_ONNXRUNTIME, ALLOW_START
from mlpack.model.trial_start import TrialStart, never
from mlpack.oci.descriptor import Digest, Platform
from mlpack.oci.image import Image, Layer
from mlpack.project.releases import model_env
from mlpack.stores.records import read_starts, release_tag
from mlpack.stores.unpack import unpack

if TYPE_CHECKING:
    from mlpack.api.release_strategy import Subject
    from mlpack.api.requests import Build
    from mlpack.api.session import Session
    from mlpack.engines.trial_start import RunningTrial, Trial

SKIPPED = "not requested (--no-start)"


@dataclass(kw_only=True)
class TrialStarts:
    """The starts of one release, a platform each."""

    subject: Subject
    allow: Sequence[str]
    at: str
    trials: Mapping[Platform, Trial | str]
    """What each platform's image is tried with, or why none can be."""

    known: Mapping[Digest, TrialStart]
    """Starts of this version's images before, by the image's digest."""

    stack: ExitStack
    running: dict[Platform, RunningTrial] = field(default_factory=dict)

    def begin(self) -> None:
        """Start the model's own files, which the layer that is being made will hold.

        Not if the version was started before: its images may be the same again.
        """
        if not self.known:
            project, model = self.subject.project, self.subject.model
            for base in self.subject.bases:
                self._begin(base.platform, partial(stage, project.layout, model))

    def finish(self, images: Sequence[Image]) -> dict[Platform, TrialStart]:
        """Return the start of each image, by platform.

        Raises :class:`~mlpack.engines.trial_start.CannotStart`, and for images that could not be
        tried :class:`~mlpack.base.requirements.UnsupportedModel`.
        """
        for base, image in zip(self.subject.bases, images, strict=True):
            if image.digest not in self.known and image.platform not in self.running:
                above = image.layers[len(base.layers) :]
                self._begin(base.platform, partial(self._unpack, above))
        found = {image.platform: self._finish(image) for image in images}
        self.check_untried([platform for platform, s in found.items() if s.outcome == "never"])
        return found

    def check_untried(self, platforms: Sequence[Platform]) -> None:
        """Predict, for platforms whose image cannot be started here, whether it would load."""
        if ALLOW_ONNXRUNTIME not in self.allow:
            untried = [each for each in self.subject.platforms if each.platform in platforms]
            check_runtime(self.subject.model, untried)

    def _unpack(self, layers: Sequence[Layer], folder: Path) -> None:
        folder.mkdir()
        unpack(self.subject.project.layout, layers, folder)

    def _begin(self, platform: Platform, write: Callable[[Path], None]) -> None:
        from mlpack.engines.trial_start import begun

        trial, model = self.trials[platform], self.subject.model
        if isinstance(trial, str):
            return
        environment = {**trial.base.env, **model_env(model, trial.base.env)}
        started = begun(trial, write, environment, size=model.size)
        self.running[platform] = self.stack.enter_context(started)

    def _finish(self, image: Image) -> TrialStart:
        if image.digest in self.known:
            return self.known[image.digest]
        trial = self.trials[image.platform]
        if isinstance(trial, str):
            return never(trial)
        running = self.running[image.platform]
        start = running.finish(self.at)
        if start.outcome == "refused" and ALLOW_START not in self.allow:
            raise self._refusal(image.platform, start, running.log)
        return start

    def _refusal(self, platform: Platform, start: TrialStart, log: Sequence[str]) -> MlpackError:
        from mlpack.engines.trial_start import CannotStart

        model = self.subject.model
        locked = next(each for each in self.subject.platforms if each.platform == platform)
        predicted = unsupported(model, locked.onnxruntime)
        because = f" ({predicted})" if predicted else ""
        return CannotStart(f"{model} cannot start on {platform}: {start.note}{because}", log)


@contextmanager
def trial_starts(session: Session, subject: Subject, request: Build) -> Iterator[TrialStarts]:
    """Prepare the starts of a release; when the block ends, no process of them is left.

    Raises :class:`~mlpack.base.requirements.UnsupportedModel` now for platforms whose image cannot
    be tried here.
    """
    trials = {base.platform: _prepare(session, subject, base, request) for base in subject.bases}
    with ExitStack() as stack:
        found = TrialStarts(
            subject=subject,
            allow=request.allow,
            at=session.clock.now().isoformat(),
            trials=trials,
            known=_known(subject),
            stack=stack,
        )
        found.check_untried([each for each, trial in trials.items() if isinstance(trial, str)])
        yield found


def _prepare(session: Session, subject: Subject, base: Image, request: Build) -> Trial | str:
    if request.no_start:
        return SKIPPED
    from mlpack.engines.trial_start import prepare

    with session.step("unpacking the base"):
        return prepare(subject.project.layout, base, session.cache)


def _known(subject: Subject) -> Mapping[Digest, TrialStart]:
    """Return the successful starts in the record of this version's release, if it has one."""
    layout, model = subject.project.layout, subject.model
    target = layout.tags().get(release_tag(model.name, model.version))
    found = read_starts(layout, target) if target else {}
    return {digest: start for digest, start in found.items() if start.outcome == "started"}
