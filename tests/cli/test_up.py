"""``mlpack up`` and ``mlpack down`` where nothing can run: one line says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.iotedge.test_local import IMAGE, entry, whole
from tests.support import make_project, run

pytest.importorskip("docker")


@pytest.fixture(autouse=True)
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A ``docker`` whose Compose says its version, and refuses to do anything else."""

    def install(version: str) -> None:
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir(exist_ok=True)
        asked = 'test "$*" = "compose version --short"'
        program.write_text(f"#!/bin/sh\n{asked} && test -n '{version}' && echo {version}\n")
        program.chmod(0o755)

    install("2.26.1-4")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    return install


NOBODY = "tcp://127.0.0.1:1"
FAN = {"fan": entry()}


def refused(*args: str, status: int = 1) -> tuple[str, str]:
    """The message and the hint, and nothing on stdout."""
    done = run(*args)
    assert done.exit_code == status, done.output
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    message = lines[0].removeprefix("error: ")
    return message, lines[1].removeprefix("hint: ") if len(lines) > 1 else ""


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"{", "deployment: is not JSON", "correct what is named above"),
        (b"[]", "deployment: is not an object", "correct what is named above"),
        (b"{}", "deployment: 'modulesContent' is missing", "correct what is named above"),
        (
            whole({"fan": entry(image="${REGISTRY}/fan:1")}),
            "modulesContent.$edgeAgent.properties.desired.modules.fan.settings.image: "
            "holds ${REGISTRY}, a placeholder that was not filled in",
            "correct what is named above",
        ),
        (
            whole({"fan": entry(image="__REGISTRY_IMAGE_LOCATION")}),
            "modulesContent.$edgeAgent.properties.desired.modules.fan.settings.image: "
            "'__REGISTRY_IMAGE_LOCATION' is not an image name",
            "correct what is named above",
        ),
        (
            whole({"fan": entry(restartPolicy="on-unhealthy")}),
            "modulesContent.$edgeAgent.properties.desired.modules.fan.restartPolicy: "
            "is 'on-unhealthy', which edgeAgent does not implement",
            "correct what is named above",
        ),
        (
            whole({}),
            "the deployment has no modules except IoT Edge's own",
            "mlpack render NAME -o deployment.json",
        ),
    ],
)
def test_a_manifest_that_cannot_run(
    tmp_path: Path, content: bytes, message: str, hint: str
) -> None:
    (tmp_path / "deployment.json").write_bytes(content)
    said, advice = refused("-C", str(tmp_path), "up")
    assert said.startswith(message)
    assert hint in advice


LAYER = {"$edgeAgent": {"properties.desired.modules.fan": entry(startupOrder=3)}}
UP = "FROM /messages/modules/cam/* INTO $upstream"
ROUTE = {"$edgeHub": {"properties.desired.routes.up": UP}}


def written(folder: Path, **layers: object) -> list[str]:
    """A base deployment without modules and layers over it, as arguments of ``up``."""
    (folder / "base.json").write_bytes(whole({}))
    for name, layer in layers.items():
        (folder / f"{name}.json").write_text(json.dumps(layer))
    given = (("--layer", f"{name}.json") for name in layers)
    return ["-C", str(folder), "up", "base.json", *(each for pair in given for each in pair)]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            {"fan": {"modulesContent": ROUTE}},
            "merged modulesContent.$edgeHub.properties.desired.routes.up: receives messages from "
            "'cam', which is not a module",
        ),
        (
            {"fan": {"modulesContent": LAYER}, "cam": {}},
            "{}/cam.json: deployment: 'modulesContent' is missing",
        ),
        (
            {
                "fan": {
                    "content": {"modulesContent": LAYER},
                    "targetCondition": "deviceId IN ['a']",
                }
            },
            "{}/fan.json: targetCondition: target condition, column 10: a target condition of IoT "
            "Hub has no IN, a query only (write deviceId = 'a')",
        ),
        (
            {"fan": json.loads(whole(FAN))},
            "{0}/base.json and {0}/fan.json are base deployments, and a device gets one",
        ),
    ],
)
def test_layers_that_cannot_run(tmp_path: Path, layers: dict[str, object], message: str) -> None:
    said, _ = refused(*written(tmp_path, **layers))
    assert said.startswith(message.format(tmp_path))


def test_a_layer_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "deployment.json").write_bytes(whole(FAN))
    said, _ = refused("-C", str(tmp_path), "up", "--layer", "vans.json")
    assert said == f"{tmp_path}/vans.json does not exist"


def test_layers_are_merged_in_the_order_of_their_priorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOBODY)
    base = json.loads(whole({"fan": entry()}))
    args = written(
        tmp_path,
        high={"content": {"modulesContent": LAYER}, "priority": 9},
        low={"content": {"modulesContent": LAYER}, "priority": 2},
    )
    (tmp_path / "base.json").write_text(json.dumps({"content": base, "priority": 2}))
    done = run(*args)
    assert done.exit_code == 1  # there is no Docker
    said = " ".join(done.stderr.split())
    assert f"merged, the highest last: {tmp_path}/base.json, {tmp_path}/high.json" in said
    assert f"{tmp_path}/low.json is left out: its priority, 2, is not above that of" in said


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    said, hint = refused("-C", str(tmp_path), "up", "vans.json")
    assert said == f"{tmp_path}/vans.json does not exist"
    assert hint == "write it with: mlpack render NAME -o deployment.json"


@pytest.mark.parametrize("command", ["up", "down"])
@pytest.mark.parametrize(
    ("version", "found"), [("", ""), ("1.29.2", " (found: 1.29.2)"), ("dev", " (found: dev)")]
)
def test_compose_is_looked_for_before_anything_is_done(
    tmp_path: Path,
    compose: Callable[[str], None],
    command: str,
    version: str,
    found: str,
) -> None:
    (tmp_path / "deployment.json").write_bytes(whole(FAN))
    compose(version)
    said, hint = refused("-C", str(tmp_path), command)
    assert said == f"docker compose version 2 is not installed{found}"
    assert "apt-get install docker-compose (Debian 13)" in hint
    assert not (tmp_path / ".mlpack").exists()


def test_no_docker_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deployment.json").write_bytes(whole(FAN))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused("-C", str(tmp_path), "up")[0] == "docker is not installed"


def test_a_setting_compose_cannot_express_is_named_before_docker_is_asked(tmp_path: Path) -> None:
    options = json.dumps({"HostConfig": {"Links": ["a:b"]}})
    settings = {"image": IMAGE, "createOptions": options}
    (tmp_path / "deployment.json").write_bytes(whole({"fan": entry() | {"settings": settings}}))
    said, _ = refused("-C", str(tmp_path), "up")
    assert said.endswith("createOptions.HostConfig.Links: has no equivalent in Docker Compose")


@pytest.mark.parametrize("command", ["up", "down"])
def test_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    (tmp_path / "deployment.json").write_bytes(whole(FAN))
    monkeypatch.setenv("DOCKER_HOST", NOBODY)
    said, hint = refused("-C", str(tmp_path), command)
    assert said == f"no Docker daemon answers at {NOBODY} (Connection refused)"
    assert hint == "start Docker"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["up", "--timeout", "0"], "invalid value for '--timeout'"),
        (["up", "--timeout", "soon"], "invalid value for '--timeout'"),
        (["up", "--network", "mine"], "invalid value for '--network'"),
        (["up", "a.json", "b.json"], "got unexpected extra argument (b.json)"),
        (["down", "--force"], "no such option"),
        (["up", ""], "an argument is empty"),
    ],
)
def test_wrong_usage(args: list[str], message: str) -> None:
    assert refused(*args, status=2)[0].lower().startswith(message)


def test_what_is_left_out_is_said_before_docker_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "fan")
    routes = {"up": "FROM /messages/* INTO $upstream"}
    options = json.dumps({"HostConfig": {"Memry": 1}})
    settings = {"image": IMAGE, "createOptions": options}
    content = whole({"fan": entry() | {"settings": settings}}, routes=routes)
    (project.root / "deployment.json").write_bytes(content)
    monkeypatch.setenv("DOCKER_HOST", NOBODY)
    done = run("-C", str(project.root), "up")
    assert done.exit_code == 1
    warning, *lines = done.stderr.splitlines()
    assert warning.endswith("has no effect (did you mean 'Memory'?)")
    assert lines[:3] == [
        "edgeAgent is not started: it needs an IoT Edge device",
        "edgeHub is not started: it needs an IoT Edge device",
        "route up is skipped, because edgeHub does not run here: FROM /messages/* INTO $upstream",
    ]
