"""Everything wrong with a deployment manifest, before it leaves this machine.

:mod:`mlpack.iotedge.shapes` has the shapes as data; here are the checks across them, the
limits of twins, and what a device accepts without doing what its owner expects. Secrets are found
by :mod:`mlpack.iotedge.secrets`.

Limits of twins: Microsoft Learn, "Understand and use device twins in IoT Hub" (2024-02) and
"IoT Hub quotas and throttling".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import replace

from mlpack.humanize import nearest
from mlpack.iotedge import shapes
from mlpack.iotedge.manifest import (
    AGENT,
    CONFIG,
    DESIRED,
    HOST_CONFIG,
    HUB,
    InvalidDeployment,
    InvalidRoute,
    Manifest,
    Problem,
    Section,
    members,
    parse_route,
    read_manifest,
)
from mlpack.iotedge.module import HostPort, host_ports, join_options
from mlpack.iotedge.secrets import Passwords, is_placeholder, secret_problems
from mlpack.oci.descriptor import InvalidContent, Node

MAX_TWIN_BYTES = 32 * 1024
MAX_VALUE_BYTES = 4 * 1024
MAX_KEY_BYTES = 1024
MAX_DEPTH = 10
_NUMBER_BYTES, _BOOL_BYTES = 8, 4
_MOVING = re.compile(r":(?:latest|[0-9]+(?:\.[0-9]+)?)$")


def problems(
    content: bytes,
    passwords: Passwords = Passwords.PLACEHOLDER,
    accepted: Collection[str] = (),
) -> tuple[Problem, ...]:
    """Return everything that is wrong with a manifest's bytes."""
    try:
        return manifest_problems(read_manifest(content), passwords, accepted)
    except InvalidDeployment as error:
        return error.problems


def require_valid(
    content: bytes,
    passwords: Passwords = Passwords.PLACEHOLDER,
    accepted: Collection[str] = (),
) -> Manifest:
    """Read a manifest; raise :class:`InvalidDeployment` with every problem it has."""
    manifest = read_manifest(content)
    found = manifest_problems(manifest, passwords, accepted)
    if found:
        raise InvalidDeployment(found)
    return manifest


def manifest_problems(
    manifest: Manifest,
    passwords: Passwords = Passwords.PLACEHOLDER,
    accepted: Collection[str] = (),
) -> tuple[Problem, ...]:
    """Return everything that is wrong with a manifest that could be read.

    ``passwords``: whether those of registries may be in clear; no other secret may, except those
    at the paths ``accepted``.
    """
    check = _layered if manifest.layered else _whole
    found = dict.fromkeys((*manifest.problems, *check(manifest)))
    named = {each.path for each in found}
    for name, section in manifest.sections.items():
        # A name refused for a better reason above is not refused again as a twin's key.
        found |= dict.fromkeys(p for p in twin_problems(section.desired) if p.path not in named)
        secrets = secret_problems(name, section.desired, passwords)
        found |= dict.fromkeys(each for each in secrets if each.path not in accepted)
    return tuple(found)


def _whole(manifest: Manifest) -> Iterator[Problem]:
    # One that cannot be read may be of a layered deployment, which needs no other.
    runtime = tuple(f"{manifest.where}.{name}" for name in (AGENT, HUB))
    broken = any(each.path.startswith(runtime) for each in manifest.problems)
    for name in (AGENT, HUB):
        if name not in manifest.sections and not broken:
            yield Problem(manifest.where, f"{name!r} is missing")
    if AGENT in manifest.sections:
        agent = manifest.sections[AGENT].desired
        yield from shapes.shape_problems(agent, shapes.AGENT_SHAPE)
        yield from _guarded(_startup_order_needs_1_1(agent))
        yield from _guarded(_one_module_per_host_port(agent))
    if HUB in manifest.sections:
        hub = manifest.sections[HUB].desired
        yield from _whole_hub(hub)
        if manifest.modules is not None:
            yield from _guarded(_routes_name_modules(hub, manifest.modules))


def _layered(manifest: Manifest) -> Iterator[Problem]:
    """Check the parts of a layered deployment; other parts may come from the base one."""
    agent, hub = (manifest.sections.get(name) for name in (AGENT, HUB))
    if agent is not None and not agent.layered:
        what = f"replaces all in a layered deployment: use paths below {DESIRED}"
        yield Problem(agent.desired.where, what)
    elif agent is not None:
        yield from _leave_base(agent.desired, "modules", "runtime")
        yield from _layered_agent(agent)
    if hub is not None and not hub.layered:
        yield from _whole_hub(hub.desired)
    elif hub is not None:
        yield from _leave_base(hub.desired, "routes", "storeAndForwardConfiguration")
        yield from shapes.shape_problems(hub.desired, shapes.LAYERED_HUB)


def _leave_base(desired: Node, *parts: str) -> Iterator[Problem]:
    for key, node in desired.items():
        if key not in parts:
            yield Problem(node.where, "belongs in the base deployment, not in a layered one")


def _whole_hub(desired: Node) -> Iterator[Problem]:
    yield from shapes.shape_problems(desired, shapes.HUB_SHAPE)
    yield from _guarded(_object_routes_need_1_1(desired))


def _layered_agent(section: Section) -> Iterator[Problem]:
    modules, runtime = (section.desired.get(key) for key in ("modules", "runtime"))
    for name, node in modules.items() if modules else ():
        # A path into a module changes part of what the base deployment has of it.
        whole = ("modules", name) in section.paths or ("modules",) in section.paths
        shape = shapes.MODULES if whole else replace(shapes.MODULES, shape=shapes.MODULE_PART)
        yield from shapes.shape_problems(_only(name, node), shape)
    if runtime:
        yield from shapes.shape_problems(runtime, shapes.LAYERED_RUNTIME)
    yield from _guarded(_one_module_per_host_port(section.desired))


def _only(name: str, node: Node) -> Node:
    """An object with one member of another, at the same path."""
    return Node({name: node.value}, node.where.removesuffix(f".{name}"))


def _guarded(found: Iterator[Problem]) -> Iterator[Problem]:
    """Yield what a check finds; a value it cannot read is a problem too."""
    try:
        yield from found
    except InvalidContent as error:
        yield Problem(error.where, error.problem)


def _every_module(desired: Node) -> Iterator[tuple[str, Node]]:
    for group in ("systemModules", "modules"):
        found = desired.get(group)
        if found is not None:
            yield from found.items()


def _has_schema_1_0(desired: Node) -> bool:
    version = desired.get("schemaVersion")
    return version is not None and version.value == "1.0"


def _startup_order_needs_1_1(desired: Node) -> Iterator[Problem]:
    # The public schemas take it with 1.0, where edgeAgent ignores it.
    if not _has_schema_1_0(desired):
        return
    for _, module in _every_module(desired):
        order = module.get("startupOrder")
        if order is not None:
            yield Problem(order.where, "needs schemaVersion 1.1")


def _one_module_per_host_port(desired: Node) -> Iterator[Problem]:
    taken: list[tuple[str, HostPort]] = []
    for name, module in _every_module(desired):
        settings = module.get("settings")
        if settings is not None:
            yield from _guarded(_taken_ports(settings, name, taken))


def _taken_ports(settings: Node, name: str, taken: list[tuple[str, HostPort]]) -> Iterator[Problem]:
    for bound in host_ports(join_options(settings)):
        other = next((who for who, each in taken if each.clashes(bound)), None)
        if other is None:
            taken.append((name, bound))
        else:
            who = "it" if other == name else other
            yield Problem(
                bound.where, f"binds port {bound.port} of the host, which {who} already binds"
            )


def _each_route(desired: Node) -> Iterator[Node]:
    routes = desired.get("routes")
    if routes is not None:
        yield from (node for _, node in routes.items())


def _object_routes_need_1_1(desired: Node) -> Iterator[Problem]:
    if not _has_schema_1_0(desired):
        return
    for node in _each_route(desired):
        if isinstance(node.value, dict):
            yield Problem(node.where, "with priority or time to live needs schemaVersion 1.1")


def _routes_name_modules(desired: Node, modules: Collection[str]) -> Iterator[Problem]:
    for node in _each_route(desired):
        text = node.get("route") if isinstance(node.value, dict) else node
        if text is None or not isinstance(text.value, str):
            continue
        try:
            route = parse_route(text.value)
        except InvalidRoute:
            continue  # the shape of a route has it already
        # edgeHub compares sources without case (BaseMessageSource.cs), endpoints with it.
        source, target = route.source_module, route.module
        if source and source.lower() not in {each.lower() for each in modules}:
            yield Problem(text.where, f"receives messages from {_missing(source, modules)}")
        if target and target not in modules:
            yield Problem(text.where, f"sends messages to {_missing(target, modules)}")


def _missing(name: str, modules: Collection[str]) -> str:
    return f"{name!r}, which is not a module of this deployment{nearest(name, sorted(modules))}"


def twin_bytes(value: object) -> int:
    """Count as IoT Hub does: keys and texts in UTF-8, 8 bytes a number, 4 a boolean.

    >>> twin_bytes({"on": True, "limit": 70, "unit": "rpm"})
    26
    """
    if isinstance(value, dict):
        return sum(len(key.encode()) + twin_bytes(each) for key, each in value.items())
    if isinstance(value, list):
        return sum(twin_bytes(each) for each in value)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bool):
        return _BOOL_BYTES
    return 0 if value is None else _NUMBER_BYTES


def twin_problems(desired: Node) -> Iterator[Problem]:
    """Hold the whole of one module's desired properties against the limits of a twin."""
    total = twin_bytes(desired.value)
    if total > MAX_TWIN_BYTES:
        yield Problem(desired.where, f"has {total} bytes; a twin may have {MAX_TWIN_BYTES}")
    yield from _twin_keys(desired)
    yield from _twin_values(desired, 0)


def _twin_values(node: Node, depth: int) -> Iterator[Problem]:
    if depth > MAX_DEPTH:
        yield Problem(node.where, f"is nested deeper than the {MAX_DEPTH} levels of a twin")
    elif isinstance(node.value, str):
        count = len(node.value.encode())
        if count > MAX_VALUE_BYTES:
            yield Problem(node.where, f"has {count} bytes; a value may have {MAX_VALUE_BYTES}")
    else:
        for each in _children(node):
            yield from _twin_values(each, depth + isinstance(each.value, dict))


def _twin_keys(node: Node) -> Iterator[Problem]:
    for key, each in members(node):
        if what := _key_problem(key):
            yield Problem(each.where, what)
    for each in _children(node):
        yield from _twin_keys(each)


def _children(node: Node) -> Iterator[Node]:
    yield from (each for _, each in members(node))
    if isinstance(node.value, list):
        yield from node.elements()


def _key_problem(key: str) -> str:
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"its name has {len(key.encode())} bytes; a twin's may have {MAX_KEY_BYTES}"
    if not key or any(char in ".$ " or not char.isprintable() for char in key):
        return f"{key!r} is not a name in a twin (no dot, $, space or control character)"
    return ""


def warnings(manifest: Manifest) -> tuple[Problem, ...]:
    """Return everything in a manifest that is accepted and does not do what it seems to."""
    return (*_replaced_hub(manifest), *_agent_warnings(manifest))


def _replaced_hub(manifest: Manifest) -> Iterator[Problem]:
    hub = manifest.sections.get(HUB)
    if manifest.layered and hub is not None and not hub.layered:
        what = "replaces all that the base deployment has of edgeHub, with its routes"
        yield Problem(hub.desired.where, f"{what}: paths below {DESIRED} add to it")


def _agent_warnings(manifest: Manifest) -> Iterator[Problem]:
    section = manifest.sections.get(AGENT)
    if section is None:
        return
    for group in ("systemModules", "modules"):
        for _, module in members(section.desired, group):
            if settings := dict(members(module)).get("settings"):
                yield from _settings_warnings(settings)
            yield from _variables(module)


def _variables(module: Node) -> Iterator[Problem]:
    """Find variables of a module whose values were to be filled in."""
    for _, variable in members(module, "env"):
        for key, node in members(variable):
            if key == "value" and isinstance(node.value, str) and is_placeholder(node.value):
                yield Problem(
                    node.where,
                    f"{node.value.strip()} is filled in by --with-secrets or mlpack deploy, and by "
                    "no device",
                )


def _settings_warnings(settings: Node) -> Iterator[Problem]:
    if not isinstance(settings.value, dict):
        return
    env, image = settings.get("env"), settings.get("image")
    if env is not None:
        yield Problem(env.where, "has no effect: edgeAgent reads env next to settings, not in them")
    if image is not None and isinstance(image.value, str):
        yield from _moving_tag(image.value.strip(), image.where)
    try:
        options = join_options(settings)
    except InvalidContent:
        return
    yield from _unknown_options(options, CONFIG)
    host = options.get("HostConfig")
    if host is not None and isinstance(host.value, dict):
        yield from _unknown_options(host, HOST_CONFIG)


def _moving_tag(name: str, where: str) -> Iterator[Problem]:
    tagged = ":" in name.rpartition("/")[2]
    if "@" not in name and (not tagged or _MOVING.search(name)):
        yield Problem(
            where,
            f"{name} is a tag that moves: devices installed at different times run different "
            "images, and one that is installed again fetches it whole",
        )


def _unknown_options(options: Node, known: frozenset[str]) -> Iterator[Problem]:
    # Docker reads names without case (encoding/json), and so does edgeAgent.
    lower = {each.lower() for each in known}
    elsewhere = {each.lower() for each in (HOST_CONFIG if known is CONFIG else CONFIG)}
    for key, value in options.items():
        if key.lower() in lower:
            continue
        place = "in HostConfig" if known is CONFIG else "next to HostConfig"
        belongs = key.lower() in elsewhere
        advice = f" (it belongs {place})" if belongs else nearest(key, known)
        yield Problem(value.where, f"is not a container setting, and has no effect{advice}")
