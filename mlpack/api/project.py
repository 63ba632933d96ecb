"""The public facade: a project, and a method for each verb of the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mlpack.api.session import Progress, Session

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlpack.api import register_request, requests
    from mlpack.api.base import BuiltBase, ShownBase
    from mlpack.api.build import Release
    from mlpack.api.bundle import WrittenBundle
    from mlpack.api.copy import ImageCopy
    from mlpack.api.deploy import BaseDeployment
    from mlpack.api.devices import FoundDevices
    from mlpack.api.doctor import Diagnosis
    from mlpack.api.gc import Garbage
    from mlpack.api.graft import GraftResult
    from mlpack.api.init import Started
    from mlpack.api.load import Loaded
    from mlpack.api.models import Dropped, ModelList, ShownModel
    from mlpack.api.patch import Applied, Patched
    from mlpack.api.pull import PullResult
    from mlpack.api.push import PushResult
    from mlpack.api.register import Registered
    from mlpack.api.registry import ServerInfo
    from mlpack.api.releases import DroppedRelease, ReleaseList
    from mlpack.api.render import Rendered
    from mlpack.api.report import FleetReport
    from mlpack.api.rollback import PreparedRollback
    from mlpack.api.round import Rounding
    from mlpack.api.run import Running
    from mlpack.api.score import Results
    from mlpack.api.serve import Served
    from mlpack.api.tag import Tagged
    from mlpack.api.token import IssuedToken
    from mlpack.api.up import DownResult, UpResult
    from mlpack.plan.fleet import FleetPlan
    from mlpack.plan.transfer import PullDiff
    from mlpack.project.device_groups import Groups
    from mlpack.rollout.record import RolloutReport
    from mlpack.rollout.run import PreparedRollout, RolloutResult
    from mlpack.rollout.show import GroupStatus
    from mlpack.settings.project_settings import ProjectSettings
    from mlpack.stores.bundle import VerifiedBundle
    from mlpack.tensor_patch import Description

R = TypeVar("R")


def request_of(kind: type[R], given: R | Path | str) -> R:
    """Return a request, or the one that its subject alone stands for.

    Raises ``TypeError`` for anything else, another verb's request too.
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, str | Path):
        what = type(given).__name__
        raise TypeError(f"expected a {kind.__name__}, or its subject as a text, not {what}")
    from_subject: Callable[[str], R] = kind
    return from_subject(str(given))


class Project:
    """A project directory, its store, and the registries and hubs that it works with.

    Each method takes one request. If its subject is all there is to say, the subject alone is
    enough: ``project.build("fan:2")`` is ``project.build(Build("fan:2"))``. Errors are
    :class:`~mlpack.errors.MlpackError`. Connections stay open until :meth:`close`, or the end of
    a ``with`` block.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @classmethod
    def open(
        cls, directory: Path | str = ".", progress: Callable[[Progress], None] | None = None
    ) -> Project:
        """Open the project in ``directory``; raise ``NotAProject`` if it has no mlpack.toml.

        ``progress`` is called while a verb runs, with the step and how much of it is done.
        """
        session = Session(Path(directory).absolute())
        if progress is not None:
            session.progress = progress
        session.project  # noqa: B018  # raises
        return cls(session)

    @classmethod
    def create(cls, directory: Path | str, *, template: str = "minimal", name: str = "") -> Project:
        """Start a project in ``directory``, and open it; files that exist stay as they are."""
        from mlpack.api.requests import Init

        made = cls(Session(Path(directory).absolute()))
        made.init(Init(template=template, name=name))
        return made

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    @property
    def directory(self) -> Path:
        """The project's directory."""
        return self._session.directory

    @property
    def settings(self) -> ProjectSettings:
        """The settings in mlpack.toml and the environment."""
        return self._session.project.settings

    def sleep(self, seconds: float) -> None:
        """Wait by the session's clock."""
        self._session.clock.sleep(seconds)

    def init(self, request: requests.Init) -> Started:
        """Start a project, or add to one the steps that publish a model after training."""
        from mlpack.api.init import init
        from mlpack.api.requests import Init

        return init(self._session, request_of(Init, request))

    def doctor(self, *, deep: bool = False, quick: bool = False) -> Diagnosis:
        """Check this machine and this project; ``quick`` starts no program."""
        from mlpack.api.doctor import doctor

        return doctor(self._session, deep=deep, quick=quick)

    # Models

    def register(self, request: register_request.Register | Path | str) -> Registered:
        """Keep a model file, a directory or a model of Azure ML as a version."""
        from mlpack.api.register import register
        from mlpack.api.register_request import Register

        with self._session.writing():
            return register(self._session, request_of(Register, request))

    def models(self, name: str = "") -> ModelList:
        """List the versions of all models, or of model ``name``."""
        from mlpack.api.models import list_models

        return list_models(self._session, name)

    def show(self, model: str) -> ShownModel:
        """Return one model version (``NAME[:VERSION]``) and its release."""
        from mlpack.api.models import show

        return show(self._session, model)

    def drop(self, model: str) -> Dropped:
        """Remove the name of a model version (``NAME:VERSION``) from the store."""
        from mlpack.api.models import drop

        return drop(self._session, model)

    def tag(self, request: requests.TagVersion | str) -> Tagged:
        """Give a model version an alias, move or delete it; of a name alone, list its aliases."""
        from mlpack.api.requests import TagVersion
        from mlpack.api.tag import tag

        with self._session.writing():
            return tag(self._session, request_of(TagVersion, request))

    def releases(self, name: str = "") -> ReleaseList:
        """List the releases of all models, or of model ``name``."""
        from mlpack.api.releases import list_releases

        return list_releases(self._session, name)

    def drop_release(self, release: str, *, force: bool = False) -> DroppedRelease:
        """Remove the name of a release (``NAME:VERSION``) from the store."""
        from mlpack.api.releases import drop_release

        return drop_release(self._session, release, force=force)

    def gc(self, *, delete: bool = False) -> Garbage:
        """Find what nothing in the store names any more; with ``delete`` remove it."""
        from mlpack.api.gc import gc

        return gc(self._session, delete=delete)

    def round(self, request: requests.Round) -> Rounding:
        """Make a version whose patch is several times smaller, within bounds that are checked."""
        from mlpack.api.requests import Round
        from mlpack.api.round import round_onto

        with self._session.writing():
            return round_onto(self._session, request_of(Round, request))

    # The base, releases, registries

    def build_base(self, request: requests.BuildBase | None = None) -> BuiltBase:
        """Make the base image that mlpack.toml describes, and lock it."""
        from mlpack.api.base import build
        from mlpack.api.requests import BuildBase

        with self._session.writing():
            return build(self._session, request or BuildBase())

    def show_base(self) -> ShownBase:
        """Return the locked base."""
        from mlpack.api.base import show

        return show(self._session)

    def build(self, request: requests.Build | str = "") -> Release:
        """Make a release: the base and one layer with the model, or a patch on its anchor."""
        from mlpack.api.build import build
        from mlpack.api.requests import Build

        with self._session.writing():
            return build(self._session, request_of(Build, request))

    def push(self, request: requests.Push | str = "") -> PushResult:
        """Send a release to its registry: only what it lacks."""
        from mlpack.api.push import push
        from mlpack.api.requests import Push

        return push(self._session, request_of(Push, request))

    def pull(self, request: requests.Pull | str) -> PullResult:
        """Bring an image from a registry into the project's store."""
        from mlpack.api.pull import pull
        from mlpack.api.requests import Pull

        with self._session.writing():
            return pull(self._session, request_of(Pull, request))

    def copy(self, request: requests.Copy) -> ImageCopy:
        """Copy an image between registries, layouts and archives."""
        from mlpack.api.copy import copy_image
        from mlpack.api.requests import Copy

        with self._session.writing():
            return copy_image(self._session, request_of(Copy, request))

    def diff(self, request: requests.Diff) -> PullDiff:
        """Plan what a device on one image fetches to reach another."""
        from mlpack.api.plan import diff
        from mlpack.api.requests import Diff

        return diff(self._session, request_of(Diff, request))

    def graft(self, request: requests.Graft) -> GraftResult:
        """Turn an image built by any tool into one layer on what devices hold."""
        from mlpack.api.graft import graft
        from mlpack.api.requests import Graft

        with self._session.writing():
            return graft(self._session, request_of(Graft, request))

    # Files that bring an update

    def make_patch(self, request: requests.MakePatch) -> Patched:
        """Write a patch that turns one file into another."""
        from mlpack.api.patch import make
        from mlpack.api.requests import MakePatch

        return make(self._session, request_of(MakePatch, request))

    def apply_patch(self, request: requests.ApplyPatch) -> Applied:
        """Turn a file into another by a patch."""
        from mlpack.api.patch import apply
        from mlpack.api.requests import ApplyPatch

        return apply(self._session, request_of(ApplyPatch, request))

    def inspect_patch(self, file: Path | str) -> Description:
        """Return what a patch is for and what it is made of."""
        from mlpack.api.patch import inspect

        return inspect(self._session.file(file))

    def bundle(self, request: requests.MakeBundle) -> WrittenBundle:
        """Write a file that updates a device without a network."""
        from mlpack.api.bundle import make
        from mlpack.api.requests import MakeBundle

        return make(self._session, request_of(MakeBundle, request))

    def verify_bundle(self, file: Path | str) -> VerifiedBundle:
        """Check every part of a bundle against the list of digests in it."""
        from mlpack.stores.bundle import check_bundle

        return check_bundle(self._session.file(file))

    # Devices

    def report(self, request: requests.Report | str = "") -> FleetReport:
        """Work out what a release costs a fleet, in bytes and money."""
        from mlpack.api.report import report
        from mlpack.api.requests import Report

        return report(self._session, request_of(Report, request))

    def rollout_report(self, number: int = 0) -> RolloutReport:
        """Return rollout ``number`` of the ledger, planned and measured; 0 is the last one."""
        from mlpack.rollout.record import rollout_report

        return rollout_report(self._session.project, number)

    def groups(self) -> Groups:
        """List the device groups of mlpack.toml."""
        from mlpack.project.device_groups import list_groups

        return list_groups(self._session.project)

    def devices(self, request: requests.Devices | str) -> FoundDevices:
        """List the devices of a group, and what each runs."""
        from mlpack.api.devices import devices
        from mlpack.api.requests import Devices

        return devices(self._session, request_of(Devices, request))

    def plan(self, request: requests.Plan) -> FleetPlan:
        """Work out what a release takes on a device group; nothing is sent."""
        from mlpack.api.plan import plan_request
        from mlpack.api.requests import Plan

        return plan_request(self._session, request_of(Plan, request))

    def prepare_deploy(self, request: requests.Deploy) -> PreparedRollout:
        """Check everything that a rollout needs, and find its first step; change nothing."""
        from mlpack.api.deploy import prepare

        return prepare(self._session, request)

    def deploy(
        self, request: requests.Deploy, prepared: PreparedRollout | None = None
    ) -> RolloutResult:
        """Roll a release out to a device group: one step, or with ``wait`` every stage.

        ``prepared`` is what :meth:`prepare_deploy` returned for the request.
        """
        from mlpack.api.deploy import deploy

        return deploy(self._session, request, prepared or self.prepare_deploy(request))

    def prepare_base_deployment(self, device_group: str) -> BaseDeployment:
        """Return the base deployment of a group, and whether the hub has it."""
        from mlpack.api.deploy import prepare_base

        return prepare_base(self._session, device_group)

    def create_base_deployment(self, prepared: BaseDeployment) -> None:
        """Create a base deployment that the hub does not have."""
        from mlpack.api.deploy import create_base

        create_base(self._session, prepared)

    def status(self, device_group: str = "") -> tuple[GroupStatus, ...]:
        """Return the state of the rollout to each group, or to one."""
        from mlpack.api.devices import status

        return status(self._session, device_group)

    def prepare_rollback(self, request: requests.Rollback | str) -> PreparedRollback:
        """Find the way to an earlier release; change nothing."""
        from mlpack.api.requests import Rollback
        from mlpack.api.rollback import prepare

        return prepare(self._session, request_of(Rollback, request))

    def rollback(
        self, request: requests.Rollback | str, prepared: PreparedRollback | None = None
    ) -> PreparedRollback:
        """Return a device group to an earlier release, which its devices still hold."""
        from mlpack.api.rollback import rollback

        found = prepared or self.prepare_rollback(request)
        rollback(self._session, found)
        return found

    def render(self, request: requests.Render | str = "") -> Rendered:
        """Make the manifest of a release, checked, and write it to the request's file, if any.

        Variables are those of the request and of the environment.
        """
        from mlpack.api.render import render
        from mlpack.api.requests import Render

        asked, session = request_of(Render, request), self._session
        environment = {**session.environment, **asked.environment}
        return render(session.project, replace(asked, environment=environment))

    def issue_token(self, request: requests.IssueToken | str) -> IssuedToken:
        """Make the registry login of a device group."""
        from mlpack.api.requests import IssueToken
        from mlpack.api.token import issue_token

        return issue_token(self._session, request_of(IssueToken, request))

    # This machine

    def load(self, request: requests.Load | str) -> Loaded:
        """Bring an image into Docker or podman on this machine."""
        from mlpack.api.load import load
        from mlpack.api.requests import Load

        return load(self._session, request_of(Load, request))

    def run(self, request: requests.Run | str) -> Running:
        """Start an image as a container on this machine, and wait until it answers."""
        from mlpack.api.requests import Run
        from mlpack.api.run import run

        return run(self._session, request_of(Run, request))

    def up(self, request: requests.Up | str) -> UpResult:
        """Run a deployment manifest on this machine's Docker."""
        from mlpack.api.requests import Up
        from mlpack.api.up import up

        return up(self._session, request_of(Up, request))

    def down(self, request: requests.Down | str) -> DownResult:
        """Stop and remove what :meth:`up` started."""
        from mlpack.api.requests import Down
        from mlpack.api.up import down

        return down(self._session, request_of(Down, request))

    def score(self, request: requests.Score) -> Results:
        """Send pictures, readings or tensors to a module."""
        from mlpack.api.requests import Score
        from mlpack.api.score import score

        return score(self._session, request_of(Score, request))

    def serve(self, request: requests.Serve | str) -> AbstractContextManager[Served]:
        """Serve a model version on this machine, without a container, in a ``with`` block."""
        from mlpack.api.requests import Serve
        from mlpack.api.serve import serve

        return serve(self._session, request_of(Serve, request))

    def serve_registry(
        self, request: requests.ServeRegistry, ready: Callable[[ServerInfo], None]
    ) -> None:
        """Serve the project's releases as a registry until the process is interrupted."""
        from mlpack.api.registry import serve

        serve(self._session, request, ready)
