"""Checks of ``$edgeHub``: routes, and how long messages are kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import partial

from mlpack.oci.document import Node
from mlpack.render.iotedge.agent import schema_version
from mlpack.render.iotedge.manifest import Section
from mlpack.render.iotedge.problem import (
    Problem,
    member,
    members,
    run,
    whole_number,
)
from mlpack.render.iotedge.routes import InvalidRoute, Route, parse_route
from mlpack.words import nearest

SCHEMAS = ("1.0", "1.1", "1.2", "1.3")
MAX_PRIORITY = 9
MAX_SECONDS = 4294967295
FOREVER = -1
"""A time to live of storeAndForwardConfiguration that never ends."""

_NAME = re.compile(r"[^.$# ]+")


def check_hub(section: Section, modules: Collection[str] | None) -> Iterator[Problem]:
    """Check the section of a whole deployment; ``modules`` is ``None`` where they are unknown."""
    desired = section.desired
    optional = ("storeAndForwardConfiguration", "mqttBroker", "integrations")
    yield from run(
        desired,
        members(("schemaVersion", "routes"), optional),
        member("schemaVersion", schema_version(SCHEMAS)),
        member("storeAndForwardConfiguration", _store_and_forward),
        _object_routes_need_1_1,
        _routes,
    )
    if modules is not None:
        yield from run(desired, partial(_routes_name_modules, modules=modules))


def check_layered_hub(section: Section) -> Iterator[Problem]:
    """Check the section of a layered deployment; its modules may come from the base one."""
    for key, node in section.desired.items():
        if key != "routes":
            yield Problem(node.where, "belongs in the base deployment, not in a layered one")
    yield from run(section.desired, _routes)


def _store_and_forward(node: Node) -> Iterator[Problem]:
    yield from run(
        node,
        members(("timeToLiveSecs",), ("storeLimits",)),
        member("timeToLiveSecs", whole_number(FOREVER, MAX_SECONDS)),
    )


def _each_route(desired: Node) -> Iterator[tuple[str, Node]]:
    routes = desired.get("routes")
    if routes is not None:
        yield from routes.items()


def _routes(desired: Node) -> Iterator[Problem]:
    for name, node in _each_route(desired):
        if not _NAME.fullmatch(name):
            yield Problem(node.where, f"{name!r} is no route name (no dot, $, # or space)")
        if isinstance(node.value, dict):
            yield from run(
                node,
                members(("route",), ("priority", "timeToLiveSecs")),
                member("priority", whole_number(0, MAX_PRIORITY)),
                member("timeToLiveSecs", whole_number(0, MAX_SECONDS)),
            )
        yield from run(node, _route)


def _route(node: Node) -> Iterator[Problem]:
    text = _text_of(node)
    if text is None:
        return
    try:
        parse_route(text.text())
    except InvalidRoute as error:
        yield Problem(text.where, str(error))


def _text_of(node: Node) -> Node | None:
    """The route itself, which stands alone or beside a priority."""
    return node.get("route") if isinstance(node.value, dict) else node


def _object_routes_need_1_1(desired: Node) -> Iterator[Problem]:
    version = desired.get("schemaVersion")
    if version is None or version.value != "1.0":
        return
    for _, node in _each_route(desired):
        if isinstance(node.value, dict):
            yield Problem(node.where, "with priority or time to live needs schemaVersion 1.1")


def _routes_name_modules(desired: Node, *, modules: Collection[str]) -> Iterator[Problem]:
    for _, node in _each_route(desired):
        text = _text_of(node)
        if text is None or not isinstance(text.value, str):
            continue
        try:
            route = parse_route(text.value)
        except InvalidRoute:
            continue  # said by _routes already
        for what in _unknown_modules(route, modules):
            yield Problem(text.where, what)


def _unknown_modules(route: Route, modules: Collection[str]) -> Iterator[str]:
    # edgeHub compares sources without case (BaseMessageSource.cs), endpoints with it.
    if route.source_module and route.source_module.lower() not in {m.lower() for m in modules}:
        yield f"takes messages of {_missing(route.source_module, modules)}"
    if route.module and route.module not in modules:
        yield f"sends messages to {_missing(route.module, modules)}"


def _missing(name: str, modules: Collection[str]) -> str:
    return f"{name!r}, which is no module of this deployment{nearest(name, sorted(modules))}"
