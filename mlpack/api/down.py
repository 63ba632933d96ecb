"""``mlpack down``: ends what ``mlpack up`` started, and removes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlpack.api.up_images import Say
from mlpack.plan.up import ended_in
from mlpack.stores.containers import Containers
from mlpack.stores.docker_api import connected


@dataclass(frozen=True, kw_only=True)
class Down:
    """What was removed of a deployment, or with ``dry_run`` would be."""

    deployment: Path
    removed: tuple[str, ...]
    """Modules in the order they ended in."""

    network: str
    """Its network; empty where there was none."""

    others: tuple[str, ...]
    """Other deployments that are here."""

    dry_run: bool

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json down``."""
        return {
            "deployment": str(self.deployment),
            "removed": list(self.removed),
            "network": self.network or None,
            "dry_run": self.dry_run,
        }


def down(path: Path, say: Say, *, dry_run: bool = False) -> Down:
    """Stop and remove the containers of the manifest at ``path``, and their network.

    Whoever started last ends first. The manifest itself need not be there any more; images
    and volumes with names stay. Raises :class:`~mlpack.stores.docker_api.NoDocker` and
    :class:`~mlpack.stores.docker_api.DockerRefused`.
    """
    with connected() as client:
        here = Containers(client, str(path.resolve()))
        there = here.find()
        ours = ended_in([each for each in there if each.deployment == here.deployment])
        network = here.network if here.has_network() else ""
        if not dry_run:
            for each in ours:
                if each.alive:
                    say(f"stopping {each.module}")
                    here.stop(each.id)
                here.remove(each.id)
            if network:
                here.remove_network()
    others = {each.deployment for each in there} - {"", here.deployment}
    return Down(
        deployment=path.resolve(),
        removed=tuple(each.module for each in ours),
        network=network,
        others=tuple(sorted(others)),
        dry_run=dry_run,
    )
