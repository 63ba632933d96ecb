"""What a device takes without a word, and its owner will wonder about."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlpack.oci.document import InvalidContent, Node
from mlpack.render.iotedge import create_options
from mlpack.render.iotedge.docker_members import CONFIG, HOST_CONFIG
from mlpack.render.iotedge.manifest import AGENT, Manifest
from mlpack.render.iotedge.problem import Problem
from mlpack.words import nearest

_MOVING = re.compile(r":(?:latest|[0-9]+(?:\.[0-9]+)?)$")


def warnings(manifest: Manifest) -> tuple[Problem, ...]:
    """Everything in a manifest that is accepted, and does not do what it seems to."""
    section = manifest.sections.get(AGENT)
    found: list[Problem] = []
    for group in ("systemModules", "modules") if section else ():
        modules = section.desired.get(group) if section else None
        for _, module in modules.items() if modules and isinstance(modules.value, dict) else ():
            settings = module.get("settings") if isinstance(module.value, dict) else None
            if settings is not None and isinstance(settings.value, dict):
                found += _settings(settings)
    return tuple(found)


def _settings(settings: Node) -> Iterator[Problem]:
    env = settings.get("env")
    if env is not None:
        yield Problem(env.where, "has no effect: edgeAgent reads env beside settings, not in them")
    image = settings.get("image")
    if image is not None and isinstance(image.value, str):
        yield from _image(image.value.strip(), image.where)
    try:
        options = create_options.join(settings)
    except InvalidContent:
        return
    yield from _members(options, CONFIG)
    host = options.get("HostConfig")
    if host is not None and isinstance(host.value, dict):
        yield from _members(host, HOST_CONFIG)


def _image(name: str, where: str) -> Iterator[Problem]:
    tagged = ":" in name.rpartition("/")[2]
    if "@" not in name and (not tagged or _MOVING.search(name)):
        yield Problem(
            where,
            f"{name} is a tag that moves: devices made at different times run different images, "
            "and one that is made again fetches it whole",
        )


def _members(options: Node, known: frozenset[str]) -> Iterator[Problem]:
    # Docker reads names without case (encoding/json), and so does edgeAgent.
    lower = {each.lower() for each in known}
    elsewhere = HOST_CONFIG if known is CONFIG else CONFIG
    for key, value in options.items():
        if key.lower() in lower:
            continue
        belongs = key.lower() in {each.lower() for each in elsewhere}
        place = "in HostConfig" if known is CONFIG else "beside HostConfig"
        advice = f" (it belongs {place})" if belongs else nearest(key, known)
        yield Problem(value.where, f"is no setting of a container, and has no effect{advice}")
