"""What came of ``mlpack up``: each module's container, and how it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.plan.containers import Held
from mlpack.plan.up import Change
from mlpack.stores.settling import Seen


class ModulesFailed(MlpackError):
    """Modules that ended, or are not ready after all the time they had."""


@dataclass(frozen=True, kw_only=True)
class Module:
    """What became of one module."""

    change: Change
    image: Held
    container: str = ""
    seen: Seen | None = None
    last_words: str = ""
    """What it said last, where it failed."""

    @property
    def name(self) -> str:
        """Its id in the manifest."""
        return self.change.module

    @property
    def state(self) -> str:
        """A word for how it does; empty where nothing was started yet."""
        if self.change.wanted and not self.change.wanted.module.running:
            return "stopped"
        return self.seen.health.word if self.seen else ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it is reached from this machine; a release as an address of HTTP."""
        found = self.seen.addresses if self.seen and self.state != "stopped" else ()
        return tuple(f"http://{each}/" if self.image.release else each for each in found)

    def to_json(self) -> dict[str, object]:
        """This module as ``mlpack --json up`` lists it."""
        return {
            "name": self.name,
            "image": self.change.wanted.module.image if self.change.wanted else None,
            "image_id": self.image.id or None,
            "release": self.image.release or None,
            "container": self.container or None,
            "action": self.change.step.value,
            "why": self.change.why or None,
            "state": self.state or None,
            "addresses": list(self.addresses),
        }


@dataclass(frozen=True, kw_only=True)
class Up:
    """A deployment that runs here, or with ``dry_run`` would."""

    deployment: Path
    network: str
    modules: tuple[Module, ...]
    removed: tuple[str, ...]
    dry_run: bool

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json up``."""
        return {
            "deployment": str(self.deployment),
            "network": self.network,
            "modules": [each.to_json() for each in self.modules],
            "removed": list(self.removed),
            "dry_run": self.dry_run,
        }


def outcome(
    path: Path,
    network: str,
    changes: Sequence[Change],
    ids: Mapping[str, str] | None = None,
    seen: Mapping[str, Seen] | None = None,
    words: Mapping[str, str] | None = None,
) -> Up:
    """What came of ``changes``; with no ``ids`` what would."""
    modules = []
    for each in changes:
        if each.wanted is not None:
            id = (ids or {}).get(each.module, "")
            modules.append(
                Module(
                    change=each,
                    image=each.wanted.image,
                    container=id,
                    seen=(seen or {}).get(id),
                    last_words=(words or {}).get(id, ""),
                )
            )
    removed = tuple(each.module for each in changes if each.wanted is None)
    return Up(
        deployment=path,
        network=network,
        modules=tuple(modules),
        removed=removed,
        dry_run=ids is None,
    )


def require_ready(done: Up) -> None:
    """Raise :class:`ModulesFailed` where a module is not well."""
    failed = [each for each in done.modules if each.seen and each.seen.health.failed]
    if failed:
        raise ModulesFailed(
            "; ".join(f"module {each.name}: {each.state}" for each in failed),
            hint=f"look at all it said: docker logs {failed[0].name}",
        )
