"""Layered deployments: one module over a device's base deployment."""

from __future__ import annotations

import json

import pytest

from mlpack.iotedge.checks import problems
from mlpack.iotedge.deployment import Deployment, layered
from mlpack.iotedge.manifest import InvalidDeployment, Route
from mlpack.iotedge.module import Module
from mlpack.oci.descriptor import Digest, Reference

IMAGE = Reference.parse("registry.example.com/edge/fan").pinned(Digest("a" * 64))
UP = Route(("messages", "modules", "fan", "outputs", "*"), priority=0, seconds=60)


def test_holds_paths_below_one_name_each() -> None:
    module = Module(name="fan", image=IMAGE, version="2", env={"A": "b"}, twin={"limit": 5})
    content = layered(Deployment(modules=(module,), routes={"fanToIoTHub": UP}))
    assert content == {
        "$edgeAgent": {
            "properties.desired.modules.fan": {
                "type": "docker",
                "status": "running",
                "restartPolicy": "always",
                "imagePullPolicy": "on-create",
                "startupOrder": 1,
                "version": "2",
                "env": {"A": {"value": "b"}},
                "settings": {"image": str(IMAGE), "createOptions": "{}"},
            }
        },
        "$edgeHub": {
            "properties.desired.routes.fanToIoTHub": {
                "route": "FROM /messages/modules/fan/outputs/* INTO $upstream",
                "priority": 0,
                "timeToLiveSecs": 60,
            }
        },
        "fan": {"properties.desired": {"limit": 5}},
    }
    assert problems(json.dumps({"modulesContent": content}).encode()) == ()


def test_without_routes_the_hub_is_left_alone() -> None:
    assert list(layered(Deployment(modules=(Module(name="fan", image=IMAGE),)))) == ["$edgeAgent"]


@pytest.mark.parametrize(
    ("module", "routes", "reason"),
    [
        (Module(name="fan.2", image=IMAGE), {}, r"modules\.fan\.2: is not a known member"),
        (Module(name="fan", image=IMAGE, restart_policy="on-failure"), {}, "restartPolicy"),
        (Module(name="fan", image=IMAGE), {"up": Route(("nowhere",))}, "routes.up.route"),
        (Module(name="fan", image=IMAGE, twin={"a b": 1}), {}, "'a b' is not a name in a twin"),
    ],
)
def test_what_a_device_would_refuse_is_not_made(
    module: Module, routes: dict[str, Route], reason: str
) -> None:
    with pytest.raises(InvalidDeployment, match=reason):
        layered(Deployment(modules=(module,), routes=routes))


def test_a_path_over_another_is_the_only_problem() -> None:
    prefix = "properties.desired.modules.x.env"
    agent = {f"{prefix}.LIMIT": {"value": "1"}, prefix: {"A": {"value": "1"}}}
    found = problems(json.dumps({"modulesContent": {"$edgeAgent": agent}}).encode())
    path = f"modulesContent.$edgeAgent.{prefix}"
    assert [str(each) for each in found] == [f"{path}: is set together with a path below it"]
