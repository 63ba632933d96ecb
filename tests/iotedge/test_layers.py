"""A base deployment and layers: what a device runs of them is what IoT Hub makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.iotedge.checks import require_valid
from mlpack.iotedge.layers import Deployed, Merged, SeveralBases, merge
from mlpack.iotedge.local import read_local
from mlpack.iotedge.manifest import InvalidDeployment, read_manifest
from mlpack.iotedge.secrets import Passwords
from tests.doubles.iothub import Configuration, combined

AGENT, HUB, DESIRED = "$edgeAgent", "$edgeHub", "properties.desired"
KEPT = {"storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}


def module(image: str = "r.io/fan:1.0.0", **more: object) -> dict[str, Any]:
    settings = {"image": image, "createOptions": "{}"}
    return {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": settings,
        **more,
    }


SYSTEM = {
    "edgeAgent": {"type": "docker", "settings": {"image": "m.io/agent:1.6.1"}},
    "edgeHub": module("m.io/hub:1.6.1"),
}


def base(
    modules: Mapping[str, object], routes: Mapping[str, object] | None = None, **twins: object
) -> dict[str, Any]:
    agent = {
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {}},
        "systemModules": SYSTEM,
        "modules": modules,
    }
    hub = {"schemaVersion": "1.1", "routes": routes or {}, **KEPT}
    return {AGENT: {DESIRED: agent}, HUB: {DESIRED: hub}, **twins}


def layer(parts: Mapping[str, object], **twins: object) -> dict[str, Any]:
    """A layered deployment; ``modules.fan`` is of edgeAgent, ``routes.up`` of edgeHub."""
    agent = {f"{DESIRED}.{key}": each for key, each in parts.items() if key[0] in "mr"}
    hub = {key: each for key, each in agent.items() if key.startswith(f"{DESIRED}.routes")}
    hub |= {f"{DESIRED}.{key}": each for key, each in parts.items() if key[0] == "s"}
    agent = {key: each for key, each in agent.items() if key not in hub}
    return {**({AGENT: agent} if agent else {}), **({HUB: hub} if hub else {}), **twins}


def deployed(content: object, name: str = "x", **configuration: object) -> Deployed:
    document = {"id": name, "content": {"modulesContent": content}, **configuration}
    return Deployed(name, require_valid(json.dumps(document).encode(), Passwords.EITHER))


def merged(*contents: object) -> Merged:
    names = "abcdef"
    found = [deployed(each, name) for each, name in zip(contents, names, strict=False)]
    return merge(found, Passwords.EITHER)


def tree(found: Merged, *path: str) -> object:
    name, *inside = path
    value: Any = found.manifest.sections[name].desired.value
    for part in inside:
        value = value[part]
    return value


FAN, OTHER = module(), module("r.io/fan:2.0.0")
BOTH = {"fan": FAN, "cam": OTHER}
WITH_ENV = module(env={"A": {"value": "1"}, "B": {"value": "2"}}, startupOrder=3)
UP = "FROM /messages/modules/fan/* INTO $upstream"
DOWN = "FROM /* INTO $upstream"
ROUTED = base({"fan": FAN}, {"up": UP})
TWIN = {"fan": {DESIRED: {"limits": {"low": 1, "high": 2}, "unit": "rpm"}}}


@pytest.mark.parametrize(
    ("contents", "path", "expected"),
    [
        # modules
        ([base({"fan": FAN}), layer({"modules.cam": OTHER})], "modules", BOTH),
        ([base({}), layer({"modules.cam": OTHER})], "modules", {"cam": OTHER}),
        ([base({"fan": WITH_ENV}), layer({"modules.fan": OTHER})], "modules", {"fan": OTHER}),
        (
            [base({"fan": WITH_ENV}), layer({"modules.fan.settings.image": "r.io/fan:3.0.0"})],
            "modules",
            {"fan": WITH_ENV | {"settings": {"image": "r.io/fan:3.0.0", "createOptions": "{}"}}},
        ),
        (
            [base({"fan": WITH_ENV}), layer({"modules.fan.settings": {"image": "r.io/fan:3.0.0"}})],
            "modules",
            {"fan": WITH_ENV | {"settings": {"image": "r.io/fan:3.0.0"}}},
        ),
        (
            [base({"fan": WITH_ENV}), layer({"modules.fan.env.B": {"value": "3"}})],
            "modules",
            {"fan": WITH_ENV | {"env": {"A": {"value": "1"}, "B": {"value": "3"}}}},
        ),
        (
            [base({"fan": WITH_ENV}), layer({"modules.fan.env": {"B": {"value": "3"}}})],
            "modules",
            {"fan": WITH_ENV | {"env": {"B": {"value": "3"}}}},
        ),
        (
            [base({"fan": FAN, "cam": FAN}), layer({"modules": {"fan": OTHER}})],
            "modules",
            {"fan": OTHER},
        ),
        (
            [base({"fan": FAN}), layer({"modules.fan": OTHER}), layer({"modules.fan": WITH_ENV})],
            "modules",
            {"fan": WITH_ENV},
        ),
        (
            [base({}), layer({"modules.fan": WITH_ENV}), layer({"modules.fan.startupOrder": 9})],
            "modules",
            {"fan": WITH_ENV | {"startupOrder": 9}},
        ),
        ([layer({"modules.cam": OTHER}), base({"fan": FAN})], "modules", BOTH),
        ([base({"fan": FAN})], "modules", {"fan": FAN}),
        # logins
        (
            [
                base({}),
                layer({
                    "runtime.settings.registryCredentials.acr": {
                        "address": "r.io", "username": "u", "password": "${P}"
                    }
                }),
            ],
            "runtime",
            {
                "type": "docker",
                "settings": {
                    "registryCredentials": {
                        "acr": {"address": "r.io", "username": "u", "password": "${P}"}
                    }
                },
            },
        ),
    ],
)  # fmt: skip
def test_what_edge_agent_gets(contents: list[object], path: str, expected: object) -> None:
    assert tree(merged(*contents), AGENT, path) == expected


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ([ROUTED, layer({"routes.down": DOWN})], {"routes": {"up": UP, "down": DOWN}, **KEPT}),
        ([ROUTED, layer({"routes.up": DOWN})], {"routes": {"up": DOWN}, **KEPT}),
        ([ROUTED, layer({"routes": {"down": DOWN}})], {"routes": {"down": DOWN}, **KEPT}),
        (
            [ROUTED, layer({"routes.up": {"route": UP, "priority": 1}})],
            {"routes": {"up": {"route": UP, "priority": 1}}, **KEPT},
        ),
        (
            [ROUTED, layer({"storeAndForwardConfiguration.timeToLiveSecs": 60})],
            {"routes": {"up": UP}, "storeAndForwardConfiguration": {"timeToLiveSecs": 60}},
        ),
        # as the hub returns a layered deployment whose author gave edgeHub whole
        (
            [
                ROUTED,
                {
                    AGENT: {f"{DESIRED}.modules.cam": FAN},
                    HUB: {DESIRED: {"schemaVersion": "1.1", "routes": {"down": DOWN}, **KEPT}},
                    "cam": {},
                },
            ],
            {"routes": {"down": DOWN}, **KEPT},
        ),
    ],
)
def test_what_edge_hub_gets(contents: list[object], expected: dict[str, object]) -> None:
    assert tree(merged(*contents), HUB) == {"schemaVersion": "1.1", **expected}


@pytest.mark.parametrize(
    ("twin", "expected"),
    [
        ({}, {"limits": {"low": 1, "high": 2}, "unit": "rpm"}),
        ({DESIRED: {"unit": "Hz"}}, {"unit": "Hz"}),
        ({DESIRED: {}}, {}),
        ({f"{DESIRED}.unit": "Hz"}, {"limits": {"low": 1, "high": 2}, "unit": "Hz"}),
        ({f"{DESIRED}.limits": {"low": 0}}, {"limits": {"low": 0}, "unit": "rpm"}),
        ({f"{DESIRED}.limits.low": 0}, {"limits": {"low": 0, "high": 2}, "unit": "rpm"}),
        ({f"{DESIRED}.a.b": 1}, {"limits": {"low": 1, "high": 2}, "unit": "rpm", "a": {"b": 1}}),
        (
            {f"{DESIRED}.unit.short": "Hz"},
            {"limits": {"low": 1, "high": 2}, "unit": {"short": "Hz"}},
        ),
    ],
)
def test_what_a_module_gets(twin: object, expected: object) -> None:
    found = merged(base({"fan": FAN}, **TWIN), layer({"modules.fan": OTHER}, fan=twin))
    assert tree(found, "fan") == expected


@pytest.mark.parametrize(
    ("ranks", "applied", "left_out"),
    [
        ({"low": (1, ""), "a": (5, ""), "b": (9, "")}, ["low", "a", "b"], []),
        ({"low": (1, ""), "a": (9, ""), "b": (5, "")}, ["low", "b", "a"], []),
        ({"low": (1, ""), "a": (5, "2026-02"), "b": (5, "2026-01")}, ["low", "b", "a"], []),
        ({"low": (5, ""), "a": (5, "9"), "b": (6, "")}, ["low", "b"], ["a is left out: its"]),
        ({"low": (7, ""), "a": (2, ""), "b": (6, "")}, ["low"], ["a is left", "b is left"]),
        ({"low": (1, ""), "high": (4, ""), "a": (5, "")}, ["high", "a"], ["low is left"]),
        ({"low": (4, "2"), "high": (4, "1"), "a": (5, "")}, ["low", "a"], ["high is left"]),
        ({"low": (None, ""), "a": (9, ""), "b": (5, "")}, ["low", "a", "b"], []),
        ({"a": (9, ""), "b": (5, "")}, ["b", "a"], []),
    ],
)  # fmt: skip
def test_the_order_is_that_of_priorities(
    ranks: dict[str, tuple[int | None, str]], applied: list[str], left_out: list[str]
) -> None:
    contents = {"low": base({}), "high": base({"fan": FAN}), "a": layer({"modules.fan": OTHER})}
    contents["b"] = layer({"modules.fan": WITH_ENV})
    found = merge(
        [
            deployed(contents[name], name, priority=priority, createdTimeUtc=created)
            for name, (priority, created) in ranks.items()
        ],
        Passwords.EITHER,
    )
    assert list(found.applied) == applied
    assert len(found.left_out) == len(left_out)
    assert all(line.startswith(said) for line, said in zip(found.left_out, left_out, strict=True))
    image = {"a": "r.io/fan:2.0.0", "b": "r.io/fan:1.0.0"}.get(applied[-1])
    if image:
        assert [each.image for each in read_local(found.manifest).modules] == [image]


def test_two_base_deployments_without_priorities_are_refused() -> None:
    with pytest.raises(SeveralBases, match="a and b are base deployments"):
        merged(base({}), base({"fan": FAN}))


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (
            [base({}), layer({"routes.up": UP})],
            r"merged modulesContent.\$edgeHub.*receives messages from 'fan', which is not a module",
        ),
        (
            [base({}), layer({"modules.fan.settings.image": "r.io/fan:1.0.0"})],
            r"merged modulesContent.\$edgeAgent.*modules.fan: 'type' is missing",
        ),
        (
            [base({f"m{n}": FAN for n in range(50)}), layer({"modules.fan": FAN})],
            "has 51 modules; a deployment may have 50",
        ),
        (
            [
                base({"fan": FAN}, fan={DESIRED: {f"a{n}": "x" * 4000 for n in range(4)}}),
                layer({}, fan={f"{DESIRED}.b{n}": "x" * 4000 for n in range(5)}),
            ],
            r"merged modulesContent.fan.properties.desired: has 36018 bytes; a twin may have 32768",
        ),
    ],
)
def test_what_a_device_would_refuse_of_both_together(contents: list[object], said: str) -> None:
    with pytest.raises(InvalidDeployment, match=said):
        merged(*contents)


def test_layers_alone_stay_layers() -> None:
    found = merged(layer({"modules.fan": FAN}), layer({"modules.cam": OTHER}, fan=TWIN["fan"]))
    assert found.manifest.layered
    assert [each.name for each in read_local(found.manifest).modules] == ["fan", "cam"]


KEYS = st.sampled_from(["a", "b", "c"])
TREES = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=5
)
TWINS = st.one_of(
    st.fixed_dictionaries({DESIRED: st.dictionaries(KEYS, TREES, max_size=3)}),
    st.just({}),
    st.dictionaries(
        st.lists(KEYS, min_size=1, max_size=3).map(lambda path: ".".join([DESIRED, *path])),
        TREES,
        min_size=1,
        max_size=3,
    ),
)


@given(st.lists(TWINS, min_size=1, max_size=4))
def test_it_is_what_the_hub_makes_of_them(twins: list[dict[str, object]]) -> None:
    """The tests' hub merges by itself."""
    contents = [base({"fan": FAN}, fan={DESIRED: {"a": {"b": 1}}})]
    contents += [layer({"modules.fan": FAN}, fan=each) for each in twins]
    documents: list[dict[str, object]] = [
        {"content": {"modulesContent": each}} for each in contents
    ]
    if any(read_manifest(json.dumps(each).encode()).problems for each in documents):
        return  # a path above another of one layer
    now = datetime(2026, 11, 20, tzinfo=UTC)
    hubs = combined([
        Configuration(each, now, number, lambda _: True, updated=now)
        for number, each in enumerate(documents)
    ])  # fmt: skip
    found = merged(*contents).manifest.sections
    assert {name: each.desired.value for name, each in found.items()} == hubs
