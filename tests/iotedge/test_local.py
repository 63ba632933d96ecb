"""A manifest's modules as containers here: edgeAgent's readings, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from mlpack.iotedge.checks import require_valid
from mlpack.iotedge.local import Local, LocalModule, NothingToRun, read_local
from mlpack.iotedge.manifest import AGENT, HUB, InvalidDeployment
from mlpack.iotedge.module import split_options
from mlpack.iotedge.secrets import Passwords
from mlpack.iotedge.shapes import MAX_STARTUP_ORDER
from mlpack.oci.descriptor import InvalidContent

IMAGE = f"registry.example.com/edge/fan@sha256:{'a' * 64}"


def entry(options: object = None, image: str = IMAGE, **more: object) -> dict[str, Any]:
    made = {"image": image, "createOptions": json.dumps(options)} if options else {"image": image}
    return {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": made,
        **more,
    }


def whole(
    modules: Mapping[str, object],
    *,
    routes: Mapping[str, object] | None = None,
    logins: Mapping[str, object] | None = None,
    **twins: object,
) -> bytes:
    system = {"type": "docker", "settings": {"image": "mcr.microsoft.com/x:1.5.2"}}
    agent = {
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {"registryCredentials": logins or {}}},
        "systemModules": {
            "edgeAgent": system,
            "edgeHub": {**system, "status": "running", "restartPolicy": "always"},
        },
        "modules": modules,
    }
    hub = {
        "schemaVersion": "1.1",
        "routes": routes or {},
        "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
    }
    sections = {AGENT: agent, HUB: hub, **twins}
    content = {name: {"properties.desired": each} for name, each in sections.items()}
    return json.dumps({"modulesContent": content}).encode()


def local(content: bytes) -> Local:
    return read_local(require_valid(content, Passwords.EITHER))


def module(options: object = None, **more: object) -> LocalModule:
    [found] = local(whole({"fan": entry(options) | more})).modules
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {}),
        (
            {"HostConfig": {"Memory": 1024, "Binds": ["/a:/b"]}, "Cmd": ["x"]},
            {"HostConfig": {"Memory": 1024, "Binds": ["/a:/b"]}, "Cmd": ["x"]},
        ),
        # Docker's names are not case-sensitive, and null is nothing.
        (
            {"hostconfig": {"memory": 1024, "CPUSHARES": None}, "entrypoint": ["x"], "User": None},
            {"HostConfig": {"Memory": 1024}, "Entrypoint": ["x"]},
        ),
        ({"HostConfig": None}, {}),
    ],
)
def test_options_are_in_dockers_spelling(options: object, expected: dict[str, object]) -> None:
    assert module(options).options == expected


def test_the_restart_policy_is_the_manifests() -> None:
    options = {"HostConfig": {"RestartPolicy": {"Name": "no"}}}
    assert module(options).restart == "always"
    assert module(options, restartPolicy="never").restart == "no"


def test_the_modules_variables_have_precedence_over_those_of_the_options() -> None:
    values = {"A": {"value": "2"}, "D": {"value": True}, "E": {"value": 1.5}}
    found = module({"Env": ["A=1", "B=x=y", "C="]}, env=values).env
    assert found == {"A": "2", "B": "x=y", "C": "", "D": "true", "E": "1.5"}


def test_options_in_pieces_are_joined() -> None:
    options = {"Cmd": ["word"] * 300}
    settings = {"image": IMAGE, **split_options(options)}
    assert "createOptions02" in settings
    [found] = local(whole({"fan": entry() | {"settings": settings}})).modules
    assert found.options["Cmd"] == ["word"] * 300


@pytest.mark.parametrize(
    ("more", "order", "pull"),
    [
        ({}, MAX_STARTUP_ORDER, True),
        ({"startupOrder": 3, "imagePullPolicy": "on-create"}, 3, True),
        ({"imagePullPolicy": "never"}, MAX_STARTUP_ORDER, False),
    ],
)
def test_a_modules_own_settings(more: dict[str, object], order: int, pull: bool) -> None:
    found = module(**more)
    assert (found.image, found.order, found.pull) == (IMAGE, order, pull)


def test_a_stopped_module_is_left_out_and_named() -> None:
    found = local(whole({"fan": entry(), "broker": entry(status="stopped")}))
    assert [each.name for each in found.modules] == ["fan"]
    assert "module broker is not started: its status is stopped" in map(str, found.skipped)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ('{"Env": 1}', r"createOptions\.Env: is not an array"),
        ('{"Env": ["A"]}', r"createOptions\.Env\[0\]: 'A' has no value"),
        ('{"Env": [1]}', r"createOptions\.Env\[0\]: is not a string"),
        ('{"HostConfig": []}', r"createOptions\.HostConfig: is not an object"),
    ],
)
def test_options_that_are_none_are_named(options: str, problem: str) -> None:
    content = whole({"fan": entry() | {"settings": {"image": IMAGE, "createOptions": options}}})
    with pytest.raises((InvalidContent, InvalidDeployment), match=problem):
        local(content)


def test_what_needs_a_device_is_left_out_and_named() -> None:
    routes = {
        "up": "FROM /messages/*  INTO $upstream",
        "late": {"route": "FROM /messages/* INTO $upstream", "priority": 1},
    }
    found = local(whole({"fan": entry()}, routes=routes, fan={"limit": 1}))
    assert [str(each) for each in found.skipped] == [
        "edgeAgent is not started: it needs an IoT Edge device",
        "edgeHub is not started: it needs an IoT Edge device",
        "route up is skipped, because edgeHub does not run here: FROM /messages/* INTO $upstream",
        "route late is skipped, because edgeHub does not run here: FROM /messages/* INTO $upstream",
        "twin of fan is not delivered, because edgeHub does not run here",
    ]


def login(password: str, address: str = "registry.example.com") -> dict[str, object]:
    return {"ours": {"address": address, "username": "edge", "password": password}}


def test_a_login_is_found_by_the_images_registry_and_is_not_shown() -> None:
    found = local(whole({"fan": entry()}, logins=login("hunter2 and more")))
    known = found.login(IMAGE)
    assert known is not None
    assert known.usable
    assert known.password == "hunter2 and more"
    assert "hunter2" not in repr(found)
    assert found.login("other.example.com/fan:1") is None
    assert found.login("mosquitto:2") is None


def test_a_login_that_is_a_variable_is_none() -> None:
    known = local(whole({"fan": entry()}, logins=login("${ACR_PASSWORD}"))).login(IMAGE)
    assert known is not None
    assert not known.usable


def test_a_layered_deployment_is_read_by_its_paths() -> None:
    content = {
        AGENT: {"properties.desired.modules.fan": entry({"Cmd": ["x"]}, startupOrder=1)},
        HUB: {"properties.desired.routes.up": "FROM /messages/* INTO $upstream"},
        "fan": {"properties.desired.limit": 1},
    }
    found = local(json.dumps({"content": {"modulesContent": content}}).encode())
    [only] = found.modules
    assert (only.name, only.order, only.options["Cmd"]) == ("fan", 1, ["x"])
    assert [each.what for each in found.skipped] == ["route up", "twin of fan"]
    assert found.logins == ()


def test_a_part_of_a_module_is_refused() -> None:
    content = {AGENT: {"properties.desired.modules.fan.env": {"A": {"value": "1"}}}}
    with pytest.raises(InvalidDeployment, match=r"modules\.fan: has no image"):
        local(json.dumps({"modulesContent": content}).encode())


def test_a_base_deployment_has_nothing_to_run() -> None:
    with pytest.raises(NothingToRun, match="no modules except IoT Edge's own"):
        local(whole({}))
