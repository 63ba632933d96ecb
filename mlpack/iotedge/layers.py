"""What a device runs of several deployments: a base deployment and layers, merged as IoT Hub does.

A device gets the base deployment of the highest priority and all layered ones above it, the
highest last. ``properties.desired`` replaces everything a module has of the deployments below. A
path below it replaces what is at that path, whole: of a module with another image, nothing of the
module below stays, and nothing next to the path changes. No layer takes anything away.

Source: Microsoft Learn, "Understand IoT Edge automatic deployments" (priority, layered deployment).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mlpack.errors import MlpackError
from mlpack.iotedge.checks import manifest_problems
from mlpack.iotedge.manifest import CONTENT, InvalidDeployment, Manifest, Problem, Section
from mlpack.iotedge.secrets import Passwords
from mlpack.oci.descriptor import Node


class SeveralBases(MlpackError):
    """Base deployments that nothing ranks."""

    hint = "name one of them; the others may have layers, with paths below properties.desired"


@dataclass(frozen=True, slots=True)
class Deployed:
    """A manifest, and the name it has in messages."""

    name: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Merged:
    """What a device runs, and what it was made of."""

    manifest: Manifest
    applied: tuple[str, ...]
    """The deployments in it, the lowest first."""

    left_out: tuple[str, ...]
    """A line for each deployment that a device with these would not get."""


def merge(deployments: Sequence[Deployed], passwords: Passwords) -> Merged:
    """Merge deployments that were checked one by one.

    They are ranked by the priorities of their configurations, and of equal ones by when they
    were created; if one has no priority, the last is the highest. Raises :class:`SeveralBases`,
    and ``InvalidDeployment`` if a device would refuse what they make together.
    """
    ranked = _ranked(deployments)
    bases = [each for each in ranked if not each.manifest.layered]
    base = bases[-1] if bases else None
    if len(bases) > 1 and base is not None and not _all_ranked(deployments):
        names = " and ".join(each.name for each in bases)
        raise SeveralBases(f"{names} are base deployments, and a device gets one")
    applied, left_out = [base] if base else [], []
    for each in ranked:
        if each is base:
            continue
        if why := _why_not(each, base):
            left_out.append(f"{each.name} is left out: {why}")
        else:
            applied.append(each)
    made = _combined([each.manifest for each in applied], layered=base is None)
    if problems := manifest_problems(made, passwords):
        raise InvalidDeployment(Problem(f"merged {each.path}", each.what) for each in problems)
    return Merged(made, tuple(each.name for each in applied), tuple(left_out))


def _all_ranked(deployments: Sequence[Deployed]) -> bool:
    return all(each.manifest.priority is not None for each in deployments)


def _ranked(deployments: Sequence[Deployed]) -> list[Deployed]:
    if not _all_ranked(deployments):
        return list(deployments)
    return sorted(deployments, key=lambda each: (each.manifest.priority, each.manifest.created))


def _why_not(deployment: Deployed, base: Deployed | None) -> str:
    """Say why a device with ``base`` does not get another deployment; empty if it does."""
    ours = deployment.manifest
    if base is None or ours.priority is None or base.manifest.priority is None:
        return ""
    if not ours.layered:
        return f"{base.name} is the base deployment of higher priority, or the later one"
    if ours.priority <= base.manifest.priority:
        below = f"its priority, {ours.priority}, is not above that of {base.name}"
        return f"{below}, {base.manifest.priority}"
    return ""


def _combined(manifests: Sequence[Manifest], *, layered: bool) -> Manifest:
    trees: dict[str, Mapping[str, object]] = {}
    paths: dict[str, frozenset[tuple[str, ...]]] = {}
    for manifest in manifests:
        for name, section in manifest.sections.items():
            trees[name] = _over(trees.get(name, {}), section)
            # Without a base deployment the result is a layered one.
            below = paths.get(name, frozenset()) if section.layered else frozenset()
            paths[name] = below | section.paths if layered else frozenset()
    sections = {
        name: Section(Node(tree, f"{CONTENT}.{name}.properties.desired"), paths[name])
        for name, tree in trees.items()
    }
    return replace(manifests[0], where=CONTENT, sections=sections, priority=None, created="")


def _over(below: Mapping[str, object], section: Section) -> Mapping[str, object]:
    """Return a module's desired properties ``below``, with those of a section over them."""
    desired = section.desired.mapping()
    if not section.layered:
        return desired
    for path in sorted(section.paths):
        below = _with(below, path, _at(desired, path))
    return below


def _at(tree: object, path: tuple[str, ...]) -> object:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _with(tree: Mapping[str, object], path: tuple[str, ...], value: object) -> dict[str, object]:
    """Return ``tree`` with ``value`` at ``path``."""
    first, *rest = path
    if not rest:
        return {**tree, first: value}
    inner = tree.get(first)
    below = inner if isinstance(inner, dict) else {}
    return {**tree, first: _with(below, tuple(rest), value)}
