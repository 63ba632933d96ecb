"""Everything wrong with a deployment manifest, before it leaves this machine.

The public JSON schemas accept much that a device refuses: ``repository:tag@digest``,
text that is no route, schema version 9.9, values a twin cannot hold. These checks
follow the sources of edgeAgent and edgeHub and the limits of IoT Hub.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.render.iotedge import secrets, twins
from mlpack.render.iotedge.agent import check_agent, check_layered_agent
from mlpack.render.iotedge.hub import check_hub, check_layered_hub
from mlpack.render.iotedge.manifest import AGENT, DESIRED, HUB, Manifest, read_manifest
from mlpack.render.iotedge.problem import InvalidDeployment, Problem
from mlpack.render.iotedge.secrets import Passwords


def problems(content: bytes, passwords: Passwords = Passwords.PLACEHOLDER) -> tuple[Problem, ...]:
    """Everything that is wrong with a manifest's bytes; empty where nothing is."""
    try:
        manifest = read_manifest(content)
    except InvalidDeployment as error:
        return error.problems
    return manifest_problems(manifest, passwords)


def require_valid(content: bytes, passwords: Passwords = Passwords.PLACEHOLDER) -> Manifest:
    """Read a manifest; raise :class:`InvalidDeployment` with every problem it has."""
    manifest = read_manifest(content)
    found = manifest_problems(manifest, passwords)
    if found:
        raise InvalidDeployment(found)
    return manifest


def manifest_problems(
    manifest: Manifest, passwords: Passwords = Passwords.PLACEHOLDER
) -> tuple[Problem, ...]:
    """Everything that is wrong with a manifest that could be read.

    ``passwords`` says whether those of registries may stand in clear; no other secret may.
    """
    check = _layered if manifest.layered else _whole
    found = dict.fromkeys((*manifest.problems, *check(manifest)))
    named = {each.path for each in found}
    for name, section in manifest.sections.items():
        # A name refused for a better reason above is not refused again as a twin's key.
        found |= dict.fromkeys(p for p in twins.check(section.desired) if p.path not in named)
        found |= dict.fromkeys(secrets.check(name, section.desired, passwords))
    return tuple(found)


def _whole(manifest: Manifest) -> Iterator[Problem]:
    broken = {each.path for each in manifest.problems}
    for name in (AGENT, HUB):
        where = f"{manifest.where}.{name}"
        if name not in manifest.sections and not any(p.startswith(where) for p in broken):
            yield Problem(manifest.where, f"{name!r} is missing")
    if AGENT in manifest.sections:
        yield from check_agent(manifest.sections[AGENT])
    if HUB in manifest.sections:
        yield from check_hub(manifest.sections[HUB], manifest.modules)


def _layered(manifest: Manifest) -> Iterator[Problem]:
    checks = {AGENT: check_layered_agent, HUB: check_layered_hub}
    for name, check in checks.items():
        section = manifest.sections.get(name)
        if section is None:
            continue
        if section.layered:
            yield from check(section)
        else:
            yield Problem(
                section.desired.where,
                f"is whole in a layered deployment: give paths below {DESIRED}",
            )
