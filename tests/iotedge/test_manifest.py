"""Manifests as the hub, the portal, az and VS Code give them: read, patched, or refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from mlpack.iotedge.checks import problems, warnings
from mlpack.iotedge.manifest import read_manifest
from mlpack.iotedge.patch import patch
from mlpack.oci.descriptor import Digest, Reference
from tests.iotedge.test_iotedge_checks import FAN, FAN_AT, GOOD

NEW = Reference.parse("registry.example.com/edge/fan").pinned(Digest("b" * 64))
AGENT, HUB, DESIRED = "$edgeAgent", "$edgeHub", "properties.desired"
CONFIGURATION: dict[str, Any] = {
    "id": "vans-1",
    "schemaVersion": None,
    "labels": {},
    "targetCondition": "tags.env='device100' or tags.iiot=true",
    "createdTimeUtc": "2026-11-13T12:20:29.1437654Z",
    "lastUpdatedTimeUtc": "2026-11-13T12:20:29.1437654Z",
    "priority": 5,
    "systemMetrics": {"results": {}, "queries": {"targetedCount": "select deviceId from devices"}},
    "metrics": {"results": {}, "queries": {}},
    "etag": "MQ==",
}
LAYER: dict[str, Any] = {
    AGENT: {f"{DESIRED}.modules.fan": {**FAN, "env": {}}},
    HUB: {f"{DESIRED}.routes.up": {"route": "FROM /messages/modules/fan/* INTO $upstream"}},
    "fan": {},
}
Content = dict[str, Any]


def good() -> Content:
    found: Content = copy.deepcopy(GOOD["modulesContent"])
    return found


def changed(change: Callable[[Content, Content], object]) -> Content:
    """``GOOD`` with a change to its module and to its sections."""
    content = good()
    change(content[AGENT][DESIRED]["modules"]["fan"], content)
    return {"modulesContent": content}


PIECES = {"createOptions": '{"Host', "createOptions01": 'Config":', "createOptions02": "{}}"}
READ: dict[str, object] = {
    "by itself": GOOD,
    "in content": {"content": GOOD},
    "with a schema": {
        "$schema-template": "4.0.0",
        "$schema": "http://x.org/s",
        **GOOD,
    },
    "as az shows it": {
        **CONFIGURATION,
        "content": {"deviceContent": None, "moduleContent": None, **GOOD},
    },
    "a layer as the hub returns it": {**CONFIGURATION, "content": {"modulesContent": LAYER}},
    "of mlpack's own stage": {
        **CONFIGURATION,
        "targetCondition": "(tags.a = 1 OR tags.b = 2) AND tags.mlpack.bucket < 100",
        "content": {"modulesContent": LAYER},
    },
    "for no device": {**CONFIGURATION, "targetCondition": "", "content": GOOD},
    "for every device": {**CONFIGURATION, "targetCondition": "*", "content": GOOD},
    "without a condition": {**CONFIGURATION, "targetCondition": None, "content": GOOD},
    "without a priority": {**CONFIGURATION, "priority": None, "content": GOOD},
    "an empty module": changed(lambda _, content: content.update(fan={}, other={})),
    "an empty twin": changed(lambda _, content: content.update(fan={DESIRED: {}})),
    "no twin": changed(lambda _, content: content.pop("fan")),
    "no variables": changed(lambda fan, _: fan.update(env={})),
    "null for variables": changed(lambda fan, _: fan.update(env=None)),
    "variables of other types": changed(
        lambda fan, _: fan.update(
            env={"A": {"value": 1}, "B": {"value": True}, "C": {"value": 0.5}}
        )
    ),
    "no version": changed(lambda fan, _: fan.pop("version", None)),
    "an empty version": changed(lambda fan, _: fan.update(version="")),
    "a policy of pulls": changed(lambda fan, _: fan.update(imagePullPolicy="never")),
    "an order": changed(lambda fan, _: fan.update(startupOrder=0)),
    "options in pieces": changed(lambda fan, _: fan["settings"].update(PIECES)),
    "no options": changed(lambda fan, _: fan["settings"].pop("createOptions")),
    "empty options": changed(lambda fan, _: fan["settings"].update(createOptions="")),
    "null for options": changed(lambda fan, _: fan["settings"].update(createOptions=None)),
    "no logins": changed(
        lambda _, content: content[AGENT][DESIRED]["runtime"]["settings"].pop("registryCredentials")
    ),
    "a layer of all modules": {
        "modulesContent": {AGENT: {f"{DESIRED}.modules": {"fan": FAN}}, "fan": {}}
    },
    "a layer of an image": {
        "modulesContent": {AGENT: {f"{DESIRED}.modules.fan.settings.image": "r.io/fan:1.0.0"}}
    },
    "a layer with all of edgeHub": {
        "modulesContent": {
            AGENT: {f"{DESIRED}.modules.fan": FAN},
            HUB: {DESIRED: good()[HUB][DESIRED]},
        }
    },
    "a layer with an empty edgeHub": {
        "modulesContent": {AGENT: {f"{DESIRED}.modules.fan": FAN}, HUB: {}}
    },
}


@pytest.mark.parametrize("document", READ.values(), ids=READ.keys())
def test_it_is_read_and_kept_when_it_is_patched(document: object) -> None:
    text = json.dumps(document, indent=1)
    assert problems(text.encode()) == ()
    assert problems(b"\xef\xbb\xbf" + text.encode()) == ()
    before = json.loads(text)
    after = json.loads(patch(text, "fan", NEW))
    found = json.dumps(after).replace(str(NEW), "")
    assert found == json.dumps(before).replace(image_of(before), "")


def image_of(document: Any) -> str:  # noqa: ANN401  # any manifest
    """The image of its module ``fan``."""
    agent = read_manifest(json.dumps(document).encode()).sections[AGENT].desired.value
    assert isinstance(agent, dict)
    return str(agent["modules"]["fan"]["settings"]["image"])


def test_what_the_hub_knows_of_it_is_read() -> None:
    found = read_manifest(json.dumps({**CONFIGURATION, "content": GOOD}).encode())
    assert (found.priority, found.created) == (5, "2026-11-13T12:20:29.1437654Z")
    alone = read_manifest(json.dumps(GOOD).encode())
    assert (alone.priority, alone.created) == (None, "")


REFUSED: dict[str, tuple[object, str, str]] = {
    "a condition with a list": (
        {**CONFIGURATION, "targetCondition": "deviceId IN ['a', 'b']", "content": GOOD},
        "targetCondition",
        "no IN, a query only (write (deviceId = 'a' OR deviceId = 'b'))",
    ),
    "a condition for modules": (
        {
            **CONFIGURATION,
            "targetCondition": "from devices.modules where a=1",
            "content": GOOD,
        },
        "targetCondition",
        "column 1: 'from' belongs to a query",
    ),
    "a condition that is a number": (
        {**CONFIGURATION, "targetCondition": 1, "content": GOOD},
        "targetCondition",
        "is not a string",
    ),
    "a priority below 0": (
        {**CONFIGURATION, "priority": -1, "content": GOOD},
        "priority",
        "is -1, less than 0",
    ),
    "a priority of 32 bits": (
        {**CONFIGURATION, "priority": 2**31, "content": GOOD},
        "priority",
        "is 2147483648, more than 2147483647",
    ),
    "a priority in quotes": (
        {**CONFIGURATION, "priority": "5", "content": GOOD},
        "priority",
        "is not a whole number",
    ),
    "no content": ({**CONFIGURATION, "content": None}, "deployment", "'modulesContent' is missing"),
    "content for devices that are not IoT Edge's": (
        {**CONFIGURATION, "content": {"deviceContent": {"properties.desired.x": {}}}},
        "deployment.content",
        "'modulesContent' is missing",
    ),
    "an empty edgeAgent": (
        changed(lambda _, content: content.update({AGENT: {}})),
        "modulesContent",
        "'$edgeAgent' is missing",
    ),
    "a module that is null": (
        changed(lambda _, content: content.update(fan=None)),
        "modulesContent.fan",
        "is not an object",
    ),
    "options that are an object": (
        changed(lambda fan, _: fan["settings"].update(createOptions={"HostConfig": {}})),
        f"{FAN_AT}.settings.createOptions",
        "is an object, and edgeAgent reads JSON in a text",
    ),
    "a piece that is an object": (
        changed(lambda fan, _: fan["settings"].update(PIECES, createOptions01={})),
        f"{FAN_AT}.settings.createOptions01",
        "is an object",
    ),
    "a variable that is a text": (
        changed(lambda fan, _: fan.update(env={"A": "1"})),
        f"{FAN_AT}.env.A",
        "is not an object",
    ),
    "a variable without a value": (
        changed(lambda fan, _: fan.update(env={"A": {"value": None}})),
        f"{FAN_AT}.env.A",
        "'value' is missing",
    ),
    "no status": (changed(lambda fan, _: fan.pop("status")), FAN_AT, "'status' is missing"),
}


@pytest.mark.parametrize(("document", "path", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_in_a_line_with_its_path(document: object, path: str, what: str) -> None:
    found = problems(json.dumps(document).encode())
    assert [each.path for each in found][:1] == [path]
    assert what in found[0].what
    assert "\n" not in str(found[0])


def test_a_layer_with_all_of_edge_hub_is_warned_of() -> None:
    document = READ["a layer with all of edgeHub"]
    (found,) = warnings(read_manifest(json.dumps(document).encode()))
    assert found.path == f"modulesContent.{HUB}.{DESIRED}"
    assert "replaces all" in found.what
