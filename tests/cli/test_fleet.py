"""``mlpack groups``, ``devices`` and ``plan`` on a project with a fleet file: no hub is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.support import make_project, run, tiny_onnx

GROUPS = """
[deploy.groups.vans]
target = "tags.deviceGroup = 'vans'"
link = "64 kbit/s"
tariff = "origin-bundle"

[deploy.groups.drones]
target = "tags.kind = 'quad' OR tags.kind = 'hexa'"
engine = "podman"
require = "fan:1"
"""


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project of two releases and two device groups."""
    made = make_project(tmp_path / "project", settings=GROUPS)
    for bias in (1.0, 2.0):
        model = tiny_onnx(tmp_path / "model.onnx", bias=bias)
        assert at(made, "register", str(model)).exit_code == 0
        assert at(made, "build", "fan").exit_code == 0
    return made


def at(project: ProjectDirectory, *args: str) -> Any:  # noqa: ANN401  # click's Result
    return run("-C", str(project.root), *args)


def document(project: ProjectDirectory, *args: str) -> Any:  # noqa: ANN401  # a JSON document
    result = at(project, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fleet(project: ProjectDirectory, *entries: dict[str, Any]) -> str:
    (project.root / "fleet.json").write_text(json.dumps(list(entries)))
    return "fleet.json"


def image(project: ProjectDirectory, name: str) -> str:
    return f"registry.example.com/edge/fan@{project.layout.resolve(name).digest}"


def test_groups_are_listed(project: ProjectDirectory) -> None:
    found = document(project, "groups")
    assert [each["name"] for each in found["groups"]] == ["vans", "drones"]
    assert found["groups"][0]["stages"] == "1%,10%,50%,100%"
    shown = at(project, "groups").stdout
    assert "tags.deviceGroup = 'vans'" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_a_project_without_groups_says_how_to_add_one(tmp_path: Path) -> None:
    made = make_project(tmp_path / "project", base=False)
    result = at(made, "groups")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "add [deploy.groups.vans]" in result.stderr
    result = at(made, "devices", "--device-group", "vans")
    assert result.exit_code == 1
    assert "mlpack.toml has no device group" in result.stderr


def test_an_unknown_group_has_a_suggestion(project: ProjectDirectory) -> None:
    result = at(project, "plan", "--device-group", "vens")
    assert result.exit_code == 1
    assert "there is no device group 'vens' (did you mean 'vans'?)" in result.stderr


def test_devices_of_a_file_by_what_they_hold(project: ProjectDirectory) -> None:
    path = fleet(
        project,
        {"deviceId": "a", "image": image(project, "fan-1"), "platform": "linux/arm64"},
        {"deviceId": "b", "release": "fan:2", "status": "running", "lastSeen": "2026-11-20T10:00Z"},
        {"deviceId": "c", "image": "other@sha256:" + "0" * 64, "tags": {"deviceGroup": "vans"}},
        {"deviceId": "d", "tags": {"deviceGroup": "drones"}},
        {"deviceId": "e"},
    )
    found = document(project, "devices", "--device-group", "vans", "--fleet", path)
    assert [each["release"] for each in found["devices"]] == ["fan:1", "fan:2", "unknown", "none"]
    only = at(project, "devices", "--device-group", "vans", "--fleet", path, "--holds", "fan:2")
    assert "b " in only.stdout
    assert "1 device in vans: 1 on fan:2" in only.stderr
    # What it prints is a fleet file.
    (project.root / "again.json").write_text(json.dumps(found))
    again = document(project, "devices", "--device-group", "vans", "--fleet", "again.json")
    assert again["devices"] == found["devices"]


def test_a_plan_is_bytes_and_money_by_cohort(project: ProjectDirectory) -> None:
    path = fleet(
        project,
        {"deviceId": "old", "release": "fan:1", "count": 9000, "platform": "linux/arm64"},
        {"deviceId": "new", "count": 600},
        {"deviceId": "odd", "release": "unknown", "count": 300},
        {"deviceId": "done", "release": "fan:2", "count": 100},
    )
    found = document(project, "plan", "--device-group", "vans", "--fleet", path)
    assert (found["release"], found["devices"], found["engine"]) == ("fan:2", 10_000, "moby")
    assert [each["devices"] for each in found["cohorts"]] == [9000, 600, 300, 100]
    assert [each["devices"] for each in found["stages"]] == [100, 900, 4000, 5000]
    ours, empty = (
        {way["name"]: way["transfer"]["total"] for way in each["strategies"]}
        for each in found["cohorts"][:2]
    )
    assert ours["layer"] < ours["usual"] < empty["layer"] == empty["whole"]
    assert found["bytes"] == 9000 * ours["layer"] + 900 * empty["layer"]
    assert sum(each["bytes"] for each in found["stages"]) == found["bytes"]
    assert found["seconds"] == pytest.approx(empty["layer"] / 8000, abs=0.1)
    (cost,) = (each["cost"] for each in found["strategies"] if each["name"] == "layer")
    # 10,000 devices are 20 bundles, and what is sent is in their pool.
    assert (cost["fixed"], cost["devices"]) == ("14400.00", 10_000)
    text = at(project, "plan", "--device-group", "vans", "--fleet", path).stdout
    assert text.startswith("fan:2 to 10,000 devices of vans: ")
    assert "300 hold an image" in text
    assert max(map(len, text.splitlines())) <= 100
    assert (
        "| fan:1 |"
        in at(project, "plan", "--device-group", "vans", "--fleet", path, "--markdown").stdout
    )


def test_a_plan_for_devices_that_have_the_release_is_a_sentence(project: ProjectDirectory) -> None:
    path = fleet(project, {"deviceId": "done", "release": "fan:2", "count": 100})
    shown = at(project, "plan", "--device-group", "vans", "--fleet", path)
    assert shown.exit_code == 0
    assert len(shown.stdout.splitlines()) == 1
    assert "100 devices" in shown.stdout
    assert document(project, "plan", "--device-group", "vans", "--fleet", path)["bytes"] == 0


def test_a_plan_for_platforms_without_an_image_is_refused(project: ProjectDirectory) -> None:
    other = {"deviceId": "big", "platform": "linux/s390x"}
    path = fleet(project, other)
    refused = at(project, "plan", "--device-group", "vans", "--fleet", path)
    assert refused.exit_code == 1
    assert "linux/s390x" in refused.stderr
    path = fleet(project, other, {"deviceId": "a", "release": "fan:1", "platform": "linux/arm64"})
    shown = at(project, "plan", "--device-group", "vans", "--fleet", path)
    assert shown.exit_code == 0
    assert "no image" in shown.stdout


def test_a_plan_uses_the_engine_and_the_stages_it_is_given(project: ProjectDirectory) -> None:
    path = fleet(project, {"deviceId": "q", "release": "fan:1", "tags": {"kind": "quad"}})
    args = ("plan", "--device-group", "drones", "--fleet", path, "--stages", "50%,100%", "fan:2")
    found = document(project, *args)
    assert (found["engine"], len(found["stages"])) == ("podman", 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{}]", "fleet.json[0]: 'deviceId' is missing"),
        ("[3]", "fleet.json[0]: is not an object"),
        ('{"x": []}', "fleet.json: 'devices' is missing"),
        ("not json", "is not JSON"),
        ('[{"deviceId": "a"}, {"deviceId": "a"}]', "has the device 'a' twice"),
        ('[{"deviceId": "a", "platform": "vax"}]', "fleet.json[0].platform: 'vax'"),
        ('[{"deviceId": "a", "count": 0}]', "fleet.json[0].count: is 0, less than 1"),
        (
            '[{"deviceId": "a", "relase": "fan:1"}]',
            "did you mean 'release'?",
        ),
    ],
)
def test_a_broken_fleet_file_is_one_error(project: ProjectDirectory, text: str, said: str) -> None:
    (project.root / "fleet.json").write_text(text)
    result = at(project, "devices", "--device-group", "vans", "--fleet", "fleet.json")
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 2


def test_without_a_hub_or_a_file_it_says_what_to_do(project: ProjectDirectory) -> None:
    for args in (("devices", "--device-group", "vans"), ("status",)):
        result = at(project, *args)
        assert result.exit_code == 1
        assert "MLPACK_IOTHUB_CONNECTION_STRING" in result.stderr


def test_wrong_stages_are_wrong_usage(project: ProjectDirectory) -> None:
    result = at(project, "plan", "--device-group", "vans", "--stages", "50%,10%")
    assert result.exit_code == 2
    assert "do not rise" in result.stderr
