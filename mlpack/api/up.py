"""``mlpack up``: a deployment manifest on this machine's Docker, as a device would run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpack.api.changing import Undo, remove_replaced, replace, undoing
from mlpack.api.up_images import Images, Progress, Say
from mlpack.api.up_outcome import Up, outcome
from mlpack.errors import MlpackError
from mlpack.plan.containers import HOST, Held, container
from mlpack.plan.up import Change, Step, decide, require_names
from mlpack.render.iotedge.local import Local, Skipped, read_local
from mlpack.render.iotedge.problem import Problem
from mlpack.render.iotedge.secrets import Passwords
from mlpack.render.iotedge.validate import require_valid
from mlpack.render.iotedge.warnings import warnings
from mlpack.stores.containers import Containers
from mlpack.stores.docker_api import DockerRefused, connected
from mlpack.stores.project import Project
from mlpack.stores.settling import Seen, settle

# What fleets have to know of: modules that are not started, and tags that move over the years.
_SYSTEM, _IMAGE = ".systemModules.", ".settings.image"


class NoManifest(MlpackError):
    """A manifest that is not there."""

    hint = "write it with: mlpack render NAME -o deployment.json"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is wanted of ``mlpack up``."""

    on_host: bool = False
    """In the host's network; else in one of its own, where Docker makes any."""

    seconds: float = 60
    """How long modules have until they are ready; with 0 nobody waits."""

    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Talk:
    """How what happens is said while it does."""

    say: Say
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Readable:
    """A manifest that was read: what runs here, and what there is to say about the rest."""

    path: Path
    local: Local
    warnings: tuple[Problem, ...]

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What of it means nothing here."""
        return self.local.skipped


def read(path: Path) -> Readable:
    """Read and check the manifest at ``path``.

    Raises :class:`NoManifest`, ``InvalidDeployment`` with every problem, or ``NothingToRun``.
    """
    if not path.exists():
        raise NoManifest(f"{path} is not there")
    manifest = require_valid(path.read_bytes(), Passwords.EITHER)
    ours = tuple(
        each
        for each in warnings(manifest)
        if _SYSTEM not in each.path and not each.path.endswith(_IMAGE)
    )
    return Readable(path=path.resolve(), local=read_local(manifest), warnings=ours)


def up(project: Project | None, readable: Readable, order: Order, talk: Talk) -> Up:
    """Make this machine's Docker run what the manifest says, and nothing else of it.

    Images are there before a container is touched; a failure leaves the containers that
    were there. Raises what finding images raises,
    :class:`~mlpack.stores.docker_api.NoDocker` and
    :class:`~mlpack.stores.docker_api.DockerRefused`.
    """
    with connected() as client:
        here = Containers(client, str(readable.path))
        require_names(here.deployment, [e.name for e in readable.local.modules], here.find())
        images = Images(
            client=client,
            project=project,
            local=readable.local,
            platform=here.platform(),
            say=talk.say,
            progress=talk.progress,
            look_only=order.dry_run,
        )
        held = {each.name: images.find(each) for each in readable.local.modules}
        network = HOST if order.on_host else here.network
        changes = _changes(here, readable.local, held, network)
        if order.dry_run:
            return outcome(readable.path, network, changes)
        with undoing(talk.say) as undo:
            if network != HOST and not _has_network(here, undo, talk.say):
                network, changes = HOST, _changes(here, readable.local, held, HOST)
            ids = replace(here, changes, undo)
        remove_replaced(here, changes)
        if network == HOST and here.has_network():
            here.remove_network()
        seen = _settled(here, changes, ids, order, talk.say)
        words = {id: here.logs(id) for id, each in seen.items() if each.health.failed}
        return outcome(readable.path, network, changes, ids, seen, words)


def _changes(
    here: Containers, local: Local, held: Mapping[str, Held], network: str
) -> tuple[Change, ...]:
    wanted = [
        container(here.deployment, each, held[each.name], network, list(held))
        for each in local.modules
    ]
    return decide(here.deployment, wanted, here.find())


def _has_network(here: Containers, undo: Undo, say: Say) -> bool:
    """Make the deployment's network where it is not there; ``False`` where Docker makes none."""
    if here.has_network():
        return True
    try:
        undo.take(here.make_network, lambda _: here.remove_network())
    except DockerRefused as error:
        say(f"{error}; so the modules share the network of this machine, and its ports")
        return False
    return True


def _settled(
    here: Containers, changes: Sequence[Change], ids: Mapping[str, str], order: Order, say: Say
) -> Mapping[str, Seen]:
    run = [each for each in changes if each.wanted and each.wanted.module.running]
    running = {ids[each.module]: each.wanted for each in run if each.wanted}
    started = {ids[each.module] for each in run if each.step is not Step.KEEP}
    if started and order.seconds:
        say(f"waiting until they are ready, {order.seconds:g} s at most")
    return settle(here, running, started, seconds=order.seconds)
