"""Rollouts through Microsoft's own client, on a simulated hub with simulated devices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlpack.project.ledger import Ledger
from mlpack.rollout.hub import IotHub as Hub
from tests.azure.fleet_project import VANS
from tests.azure.rollouts import GO, GROUP, Operator, failing, operator, silent
from tests.azure.transcript import transcript
from tests.doubles.authority import Answer, Request, as_json
from tests.doubles.iothub_devices import Pull
from tests.doubles.iothub_rest import Throttle

CHECKOUT = Path(__file__).resolve().parents[2]
STAGES = ("--stages", "20%,100%")
FEW = 40


@pytest.fixture
def vans(tmp_path: Path) -> Iterator[Operator]:
    """A few vans that run fan:1 over their base deployment."""
    with operator(tmp_path, FEW) as made:
        start(made)
        yield made


def start(made: Operator) -> None:
    made.done("deploy", *GROUP, "--base", "--yes")
    made.done("deploy", "fan:1", *GO, "--stages", "100%")
    assert made.holding(1) == FEW


def changes(made: Operator) -> list[str]:
    """The requests so far that changed something."""
    rest = made.hub.rest
    return [
        f"{each.method} {each.path}"
        for each in rest.requests
        if each.method != "GET" and each.path != "/devices/query"
    ]


@pytest.mark.slow
def test_ten_thousand_devices_a_bad_release_and_a_good_one(tmp_path: Path) -> None:
    written = (CHECKOUT / "docs" / "design" / "rollout.md").read_text(encoding="utf-8")
    assert transcript(tmp_path) == written, "run: make docs"


def test_running_it_twice_changes_nothing(vans: Operator) -> None:
    vans.done("deploy", *GO, *STAGES)
    assert vans.holding(2) == FEW
    before, ledger = vans.labels(), Ledger(vans.project.ledger).rollouts()
    vans.hub.rest.requests.clear()
    found = vans.document("deploy", *GO)
    assert (found["state"], found["stage"]) == ("complete", 2)
    vans.done("deploy", *GROUP, "--base", "--yes")
    assert changes(vans) == []
    assert vans.labels() == before
    assert Ledger(vans.project.ledger).rollouts() == ledger


def test_without_wait_each_run_is_a_step(vans: Operator) -> None:
    stdout, runs = "", 0
    while "complete" not in stdout:
        result = vans("deploy", *GROUP, *STAGES, "--yes")
        assert result.exit_code == 0, result.output
        stdout, runs = result.stdout, runs + 1
        assert ("--wait" in result.stderr) is (runs < 3)
        vans.hub.advance(60)
    assert runs == 3
    assert vans.holding(2) == FEW


def test_a_release_under_way_keeps_its_thresholds(vans: Operator) -> None:
    vans.done("deploy", *GROUP, *STAGES, "--max-failures", "10%", "--yes")
    result = vans("deploy", *GROUP, "--stages", "50%,100%", "--yes")
    assert result.exit_code == 1
    assert "is under way on vans with other stages or thresholds" in result.stderr
    vans.hub.advance(60)
    vans.done("deploy", *GO)
    labels = vans.labels()[next(id for id in vans.labels() if "fan-2" in id)]
    assert (labels["mlpack.stages"], labels["mlpack.failures"]) == ("20%,100%", "10%")


def test_nothing_is_sent_before_it_was_agreed_to(vans: Operator) -> None:
    vans.hub.rest.requests.clear()
    result = vans("deploy", *GROUP)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    shown = vans("deploy", *GROUP, "--dry-run")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("fan:2 to 40 devices of vans: ")
    assert max(map(len, shown.stdout.splitlines())) <= 100
    plan = vans.document("deploy", *GROUP, "--dry-run")["plan"]
    assert plan["bytes"] == vans.document("plan", *GROUP)["bytes"]
    assert changes(vans) == []


def test_a_group_needs_its_base_deployment_first(tmp_path: Path) -> None:
    with operator(tmp_path, 2) as vans:
        result = vans("deploy", *GO)
        assert result.exit_code == 1
        assert "mlpack deploy --device-group vans --base" in result.stderr
        assert changes(vans) == []
        assert vans("deploy", "fan", *GROUP, "--base").exit_code == 2
        shown = vans.done("deploy", *GROUP, "--base", "--dry-run")
        assert "would create mlpack-vans-base" in shown
        vans.done("deploy", *GROUP, "--base", "--yes")
        assert list(vans.labels()) == ["mlpack-vans-base"]


def test_devices_say_what_they_run(vans: Operator) -> None:
    vans.hub.behave = silent(lambda device: device == "van-00003")
    vans("deploy", *GO, "--stages", "100%", "--success", "90%")
    found = vans.document("devices", *GROUP)
    assert (found["count"], found["releases"]) == (FEW, {"fan:1": 1, "fan:2": FEW - 1})
    first = found["devices"][0]
    assert (first["deviceId"], first["status"], first["platform"]) == (
        "van-00000",
        "running",
        "linux/arm64",
    )
    assert first["lastSeen"].startswith("2026-11-20T08:")
    shown = vans("devices", *GROUP, "--holds", "fan:1").stdout
    assert "van-00003" in shown
    assert "van-00004" not in shown


def test_a_failure_undoes_it_and_costs_no_layer(vans: Operator) -> None:
    vans.hub.behave = failing(vans.project, 2, 30)
    result = vans("deploy", *GO, *STAGES)
    assert result.exit_code == 3
    assert "error: fan:2 was undone on vans: " in result.stderr
    vans.hub.advance(60)
    assert vans.holding(1) == FEW
    (record,) = (each for each in Ledger(vans.project.ledger).rollouts() if each.id == 2)
    assert record.measured is not None
    assert record.measured["state"] == "undone"
    # Another machine, without this ledger, is told so by the hub.
    vans.project.ledger.unlink()
    result = vans("deploy", *GO)
    assert result.exit_code == 3
    assert "fan:2 was undone on vans before" in result.stderr
    vans.hub.behave = lambda device, images: Pull()
    vans.done("deploy", *GO, *STAGES, "--again")
    assert vans.holding(2) == FEW


def test_a_pull_that_is_canceled_and_goes_on_is_no_failure(tmp_path: Path) -> None:
    with operator(tmp_path, FEW, settings=VANS.replace("link", "# link")) as vans:
        start(vans)
        vans.hub.behave = lambda device, images: Pull(seconds=3000)
        result = vans("deploy", *GO, "--stages", "100%", "--timeout", "30m", "--poll", "5m")
        assert result.exit_code == 3
        assert "the timeout expired: 0 of 40 run it, 38 are needed; 0 failed" in result.stderr
        reports = vans.hub.run_query(
            "SELECT deviceId FROM devices.modules WHERE moduleId = '$edgeAgent'"
            " AND properties.reported.lastDesiredStatus.code = 500"
        )
        assert len(reports) == FEW
        vans.done("deploy", *GO)
        assert vans.holding(2) == FEW


def test_silence_is_waited_for_and_then_said(vans: Operator) -> None:
    vans.hub.behave = silent(lambda device: int(device[-2:]) % 2 == 0)
    result = vans("deploy", *GO, *STAGES, "--timeout", "1h", "--poll", "10m")
    assert result.exit_code == 3
    assert "silent" in result.stderr
    (group,) = vans.document("status", *GROUP)["groups"]
    assert group["silent"] > 0
    assert group["state"] == "rolling"
    assert [each["state"] for each in group["stages"]] == ["now", "ahead"]
    shown = vans.done("status")
    assert "█" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_status_is_watched_until_all_is_done(vans: Operator) -> None:
    vans.done("deploy", *GROUP, *STAGES, "--yes")

    def sleep(seconds: float) -> None:
        vans.hub.advance(seconds)
        vans.done("deploy", *GROUP, "--yes")

    watching = replace(vans, clock=replace(vans.clock, sleep=sleep))
    shown = watching.done("status", *GROUP, "--watch", "--poll", "2m")
    assert "vans: fan:2, rolling" in shown
    assert "vans: fan:2, complete" in shown.split("rolling")[-1]
    assert "Earlier releases on the hub: fan:1" in shown


def test_status_says_what_failed_devices_say(vans: Operator) -> None:
    vans.hub.behave = failing(vans.project, 2, 30)
    vans.done("deploy", *GROUP, "--stages", "100%", "--max-failures", "90%", "--yes")
    vans.hub.advance(60)
    shown = vans.done("status")
    assert "backoff: Failed (1)" in shown
    (group,) = vans.document("status")["groups"]
    assert sum(group["reasons"].values()) == group["failed"] > 0


def test_a_deployment_of_others_that_goes_first_is_named(vans: Operator) -> None:
    theirs = {
        "id": "theirs",
        "priority": 50,
        "targetCondition": "tags.deviceGroup = 'vans'",
        "content": {"modulesContent": {"$edgeAgent": {"properties.desired.modules.fan": {}}}},
    }
    vans.hub.put(dict(theirs))
    shown = vans.done("deploy", *GROUP, "--dry-run")
    assert "the deployment theirs has a higher priority" in shown
    vans.hub.put({**theirs, "priority": 1})
    assert "theirs" not in vans.done("deploy", *GROUP, "--dry-run")


def test_labels_edited_by_hand_are_said_so(vans: Operator) -> None:
    vans.done("deploy", *GROUP, *STAGES, "--yes")
    (id,) = (each for each in vans.labels() if "fan-2" in each)
    labels = vans.hub.configurations[id].document["labels"]
    assert isinstance(labels, dict)
    for key, value in (("mlpack.stages", "some"), ("mlpack.success", None)):
        labels.pop(key)
        labels.update({key: value} if value else {})
        for command in (("status",), ("deploy", *GO)):
            result = vans(*command)
            assert result.exit_code == 1
            assert "has labels that were edited" in result.stderr
    vans.done("rollback", *GROUP, "--yes")
    assert id not in vans.labels()


def test_rollback_by_hand_and_to_nothing(vans: Operator) -> None:
    vans.done("deploy", *GO, "--stages", "100%")
    planned = vans.document("rollback", *GROUP, "--dry-run")
    assert (planned["from"], planned["to"], planned["devices"]) == ("fan:2", "fan:1", FEW)
    assert planned["transfer"]["layers"] == 0
    assert planned["bytes"] == FEW * planned["transfer"]["total"] < FEW * 4000
    assert vans("rollback", *GROUP).exit_code == 2
    vans.done("rollback", *GROUP, "--yes")
    vans.hub.advance(60)
    assert vans.holding(1) == FEW
    assert "fan:1" in vans.done("rollback", *GROUP, "--to", "fan:1", "--yes")
    result = vans("rollback", *GROUP, "--to", "fan:2", "--yes")
    assert result.exit_code == 1
    assert "mlpack deploy --device-group vans fan:2 --stages 100%" in result.stderr
    result = vans("rollback", *GROUP, "--yes")
    assert "the only release on vans" in result.stderr
    vans.done("rollback", *GROUP, "--to", "none", "--yes")
    vans.hub.advance(60)
    assert list(vans.labels()) == ["mlpack-vans-base"]
    assert (vans.holding(1), vans.holding(2)) == (0, 0)


def test_a_release_may_require_another(tmp_path: Path) -> None:
    with operator(tmp_path, FEW, releases=3, settings=f'{VANS}require = "fan:2"\n') as vans:
        vans.done("deploy", *GROUP, "--base", "--yes")
        result = vans("deploy", "fan:1", *GO)
        assert result.exit_code == 3
        assert "vans requires fan:2 or later, not fan:1" in result.stderr
        result = vans("deploy", "fan:3", *GO)
        assert result.exit_code == 3
        assert "but 40 hold nothing" in result.stderr
        assert "mlpack deploy --device-group vans fan:2" in result.stderr
        vans.done("deploy", "fan:2", *GO)
        vans.done("deploy", "fan:3", *GO)
        assert vans.holding(3) == FEW


def test_an_alias_is_deployed_required_and_gone_back_to(tmp_path: Path) -> None:
    with operator(tmp_path, FEW, releases=3, settings=f'{VANS}require = "fan@least"\n') as vans:
        vans.done("tag", "fan:2", "least")
        vans.done("deploy", *GROUP, "--base", "--yes")
        result = vans("deploy", "fan:1", *GO)
        assert "vans requires fan:2 or later, not fan:1" in result.stderr
        vans.done("tag", "fan:2", "champion")
        vans.done("deploy", "fan@champion", *GO)
        assert vans.holding(2) == FEW
        vans.done("deploy", "fan:3", *GO)
        found = vans.document("releases")["releases"]
        assert [each["deployed"] for each in found] == [
            [],
            [],
            [{"group": "vans", "state": "complete"}],
        ]
        assert "it is deployed to vans" in vans("releases", "--drop", "fan:3").stderr
        vans.done("rollback", *GROUP, "--to", "fan@champion", "--yes")
        vans.hub.advance(60)
        assert vans.holding(2) == FEW
        found = vans.document("releases")["releases"]
        assert found[1]["deployed"] == [{"group": "vans", "state": "complete"}]
        assert found[2]["deployed"] == []


def test_a_hub_that_throttles_is_waited_for(vans: Operator) -> None:
    for after in (None, 15):
        vans.hub.rest.throttle = Throttle(per_minute=2, retry_after=after)
        release = "fan:2" if after is None else "fan:1"
        if after:
            vans.done("rollback", *GROUP, "--to", "fan:1", "--yes")
        else:
            vans.done("deploy", release, *GO, *STAGES)
        assert vans.hub.rest.throttle.refused > 0
    assert len(vans.labels()) == 2


def test_old_deployments_are_deleted_and_a_full_hub_is_said(tmp_path: Path) -> None:
    with operator(
        tmp_path, FEW, releases=4, settings=VANS.replace("retain = 2", "retain = 2\nlimit = 4")
    ) as vans:
        vans.done("deploy", *GROUP, "--base", "--yes")
        for number in range(1, 5):
            vans.done("deploy", f"fan:{number}", *GO, "--stages", "100%")
        kept = [
            each["mlpack.release"] for each in vans.labels().values() if "mlpack.release" in each
        ]
        assert kept == ["fan:3", "fan:4"]


class Rival:
    """Another operator, who changes the deployment between this one's look and its change."""

    def __init__(self, made: Operator) -> None:
        self._made = made
        self.changed = False
        made.hub.rest.before = self

    def __call__(self, asked: Request) -> Answer | None:
        if asked.method == "PUT" and "if-match" in asked.headers and not self.changed:
            self.changed = True
            id = asked.path.rpartition("/")[2]
            self._made.hub.configurations[id].version += 1
        return None


def test_of_two_operators_the_second_is_told(vans: Operator) -> None:
    Rival(vans)
    result = vans("deploy", *GO, *STAGES)
    assert result.exit_code == 1
    assert "error: someone else changed the group's deployments at the same time" in result.stderr
    assert "mlpack status" in result.stderr
    vans.done("deploy", *GO, *STAGES)
    assert vans.holding(2) == FEW


def test_two_operators_begin_at_once(vans: Operator) -> None:
    def before(asked: Request) -> Answer | None:
        if asked.method == "PUT" and "if-match" not in asked.headers:
            vans.hub.rest.before = lambda _: None
            document = asked.json()
            assert isinstance(document, dict)
            vans.hub.put(document)
        return None

    vans.hub.rest.before = before
    result = vans("deploy", *GO, *STAGES)
    assert result.exit_code == 1
    assert "someone else changed the group's deployments" in result.stderr
    vans.done("deploy", *GO)
    assert vans.holding(2) == FEW


def begin(made: Operator, bad: int) -> None:
    """All vans run fan:1 and have lost their tags; fan:2 fails on ``bad`` per cent of them."""
    start(made)
    for each in made.hub.devices.values():
        each.twin["tags"] = {"deviceGroup": "vans"}
    made.hub.changed()
    made.hub.behave = failing(made.project, 2, bad)


class Died(BaseException):
    """The operator's machine lost its power."""


@pytest.mark.parametrize("bad", [0, 30])
def test_wherever_it_dies_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    """Die before and after every change of the hub and of the ledger; begin anew each time."""
    wanted = ended(tmp_path / "whole", bad, lambda made: None)
    calls = Mortal(monkeypatch)
    assert ended(tmp_path / "dying", bad, calls.arm) == wanted
    changed = ["record_rollout", "tag", "create", "record_measured", "update", "delete"]
    for name in changed if bad else changed[:-1]:
        assert {f"before {name}", f"after {name}"} <= set(calls.deaths)


def ended(folder: Path, bad: int, prepare: Callable[[Operator], None]) -> Any:  # noqa: ANN401
    """What is on the hub, on the devices and in the ledger at the end."""
    folder.mkdir()
    with operator(folder, FEW) as made:
        begin(made, bad)
        prepare(made)
        for _ in range(200):
            try:
                result = made("deploy", *GO, *STAGES)
                break
            except Died:
                made.hub.advance(7)
        made.hub.advance(120)
        records = Ledger(made.project.ledger).rollouts()
        states = [(each.measured or {}).get("state") for each in records]
        return made.labels(), made.holding(1), made.holding(2), result.exit_code, states


class Mortal:
    """Lets the process die before each change, and the next one right after it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._before = True
        self.deaths: list[str] = []

    def arm(self, _: Operator) -> None:
        for owner, names in (
            (Hub, ("create", "update", "delete", "tag")),
            (Ledger, ("record_rollout", "record_measured")),
        ):
            for name in names:
                self._patch.setattr(owner, name, self._mortal(name, getattr(owner, name)))

    def _mortal(self, name: str, whole: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            if not self._before:
                whole(*args, **more)
            self.deaths.append(f"{'before' if self._before else 'after'} {name}")
            self._before = not self._before
            raise Died

        return call


@pytest.mark.slow
@pytest.mark.parametrize("bad", [0, 30])
def test_a_killed_process_is_gone_on_with(tmp_path: Path, bad: int) -> None:
    """SIGKILL at each change of the hub, right after it was done and before it was answered."""
    whole = ended(tmp_path / "whole", bad, lambda made: None)
    folder = tmp_path / "killed"
    folder.mkdir()
    with operator(folder, FEW) as made:
        begin(made, bad)
        killed = Killer(made)
        status = -signal.SIGKILL
        with ticking(made):
            for _ in range(20):
                status = killed.process()
                if status != -signal.SIGKILL:
                    break
        made.hub.advance(120)
        assert status == whole[3]
        assert killed.count >= 4
        records = Ledger(made.project.ledger).rollouts()
        states = [(each.measured or {}).get("state") for each in records]
        found = made.labels(), made.holding(1), made.holding(2), status, states
        assert without_reasons(found) == without_reasons(whole)


def without_reasons(found: Any) -> Any:  # noqa: ANN401
    """How many had failed when it was stopped depends on when it was looked at."""
    labels = {
        id: {key: value for key, value in each.items() if key != "mlpack.undone"}
        for id, each in found[0].items()
    }
    return labels, *found[1:]


class Killer:
    """Kills the process that makes a change: one change each."""

    def __init__(self, made: Operator) -> None:
        self._made = made
        self._pid = 0
        self._spare = 0
        self.count = 0
        made.hub.rest.after = self._after

    def _after(self, asked: Request, answer: Answer) -> Answer:
        done = asked.method in ("PUT", "DELETE") or asked.path == "/devices"
        if done and self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._pid = 0
            self.count += 1
        return answer

    def process(self) -> int:
        """One run of the command, until it ends or is killed."""
        code = "import sys; from mlpack.cli.main import main; sys.argv[0] = 'mlpack'; main()"
        args = ("-C", str(self._made.project.root), "deploy", *GO, *STAGES, "--poll", "1s")
        child = subprocess.Popen(
            [sys.executable, "-c", code, *args],
            env={**os.environ, **self._made.environment()},
            cwd=CHECKOUT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._pid = child.pid
        try:
            child.communicate(timeout=180)
        finally:
            self._pid = 0
            child.kill()
        return child.returncode


class ticking:
    """Lets the hub's time pass while other processes work."""

    def __init__(self, made: Operator) -> None:
        self._made = made
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ends.is_set():
            self._made.hub.advance(20)
            time.sleep(0.05)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


def test_a_hub_that_is_down_is_one_clear_error(vans: Operator) -> None:
    vans.hub.rest.before = lambda _: as_json(500, {"Message": "ErrorCode:ServerError;broken"})
    result = vans("deploy", *GO)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 2
    assert "error: " in result.stderr


def test_the_key_of_the_hub_is_written_nowhere(vans: Operator, tmp_path: Path) -> None:
    said = ""
    for args in (
        ("deploy", *GO, *STAGES),
        ("status", "--json"),
        ("devices", *GROUP, "--json"),
        ("rollback", *GROUP, "--yes"),
        ("report", "--rollout", "0", "--json"),
    ):
        said += vans.done(*args)
    vans.hub.rest.before = lambda _: as_json(401, {"Message": "ErrorCode:IotHubUnauthorizedAccess"})
    said += vans("status").output
    written = b"".join(path.read_bytes() for path in vans.project.root.rglob("*") if path.is_file())
    for secret in vans.hub.access.secrets():
        assert secret not in said
        assert secret.encode() not in written


def test_the_ledger_has_what_was_planned_and_what_came_of_it(vans: Operator) -> None:
    vans.done("deploy", *GO, *STAGES)
    found = vans.document("report", "--rollout", "0")
    planned: Mapping[str, Any] = found["planned"]
    measured: Mapping[str, Any] = found["measured"]
    assert (found["group"], found["release"]) == ("vans", "fan:2")
    assert measured["state"] == "complete"
    assert (measured["running"], measured["bytes"]) == (FEW, planned["bytes"])
    assert [each["share"] for each in measured["stages"]] == ["20%", "100%"]
    assert "| devices | 40 | 40 |" in vans.done("report", "--rollout", "2", "--markdown")
    result = vans("report", "--rollout", "99")
    assert result.exit_code == 1
    assert "the ledger has no rollout 99" in result.stderr
    assert json.loads(vans("report", "--rollout", "1", "--json").stdout)["release"] == "fan:1"
