"""What is taken, and does not do what it seems to."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from mlpack.iotedge.checks import problems, warnings
from mlpack.iotedge.manifest import read_manifest
from tests.iotedge.test_iotedge_checks import FAN_AT, GOOD
from tests.support import SHARED, require


def warned(settings: dict[str, Any]) -> list[str]:
    document: Any = copy.deepcopy(GOOD)
    agent = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    agent["modules"]["fan"]["settings"] |= settings
    content = json.dumps(document).encode()
    assert problems(content) == ()
    return [str(each) for each in warnings(read_manifest(content))]


def options(value: object) -> dict[str, str]:
    return {"createOptions": json.dumps(value)}


def test_a_good_manifest_gives_none() -> None:
    assert warned({}) == []
    everything = {"Env": [], "hostconfig": {"binds": []}, "HostConfig": {"NanoCpus": 1}}
    assert warned(options(everything)) == []


@pytest.mark.parametrize(
    ("settings", "path", "what"),
    [
        (options({"Evn": []}), "createOptions.Evn", "(did you mean 'Env'?)"),
        (options({"MemorySwap": 0}), "createOptions.MemorySwap", "(it belongs in HostConfig)"),
        (
            options({"HostConfig": {"Env": []}}),
            "createOptions.HostConfig.Env",
            "(it belongs next to HostConfig)",
        ),
        (options({"HostConfig": {"Bindz": []}}), "createOptions.HostConfig.Bindz", "'Binds'"),
        ({"env": {"A": {"value": "b"}}}, "env", "edgeAgent reads env next to settings"),
        ({"image": "r.io/fan"}, "image", "r.io/fan is a tag that moves"),
        ({"image": "r.io:5000/fan:latest"}, "image", "is a tag that moves"),
        ({"image": "r.io/fan:1.6"}, "image", "is a tag that moves"),
    ],
)
def test_each_is_said_with_its_place(settings: dict[str, Any], path: str, what: str) -> None:
    (found,) = warned(settings)
    assert found.startswith(f"{FAN_AT}.settings.{path}: ")
    assert what in found


def test_a_real_manifest_with_a_member_in_the_wrong_place() -> None:
    name = "Azure_azure-iot-cli-extension__test_edge_deployment_layered.json"
    content = require(SHARED / "iotedge" / "manifests" / name).read_bytes()
    said = [each.what for each in warnings(read_manifest(content))]
    assert any("it belongs in HostConfig" in each for each in said)
