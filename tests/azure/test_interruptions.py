"""Rollouts that are interrupted, and requests that are refused before the hub is queried."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlpack.api.deploy import reaches
from mlpack.project.ledger import Ledger
from tests.azure.rollouts import GO, GROUP, Operator, failing, operator
from tests.doubles.authority import Answer, Request, as_json

FEW = 40
STAGES = ("--stages", "20%,100%")
SECONDS = 60
"""The longest an interrupted command may take to end, on a busy machine."""


@pytest.fixture(scope="module")
def vans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Two vans without any deployment."""
    with operator(tmp_path_factory.mktemp("vans"), 2) as made:
        yield made


@pytest.fixture
def settings(vans: Operator) -> Iterator[Path]:
    """The mlpack.toml of the vans, which a test may change."""
    path = vans.project.root / "mlpack.toml"
    text = path.read_text()
    yield path
    path.write_text(text)


def start(made: Operator) -> None:
    made.done("deploy", *GROUP, "--base", "--yes")
    made.done("deploy", "fan:1", *GO, "--stages", "100%")


class Interrupter:
    """Presses Ctrl-C while a request is under way: once before it is done, once after.

    Requests are told apart by method, path and the labels they set, so each step of a command is
    interrupted twice; the next run gets past it.
    """

    def __init__(self, made: Operator) -> None:
        self._made = made
        self._seen: set[tuple[str, str]] = set()
        self.steps: list[str] = []
        self.pressed = 0.0
        made.hub.rest.before, made.hub.rest.after = self._before, self._after

    def _before(self, asked: Request) -> Answer | None:
        return as_json(500, {"Message": "not done"}) if self._press("before", asked) else None

    def _after(self, asked: Request, answer: Answer) -> Answer:
        self._press("after", asked)
        return answer

    def _press(self, moment: str, asked: Request) -> bool:
        key = moment, _step(asked)
        if self.pressed or key in self._seen:
            return False
        self._seen.add(key)
        self.steps.append(" ".join(key))
        self.pressed = time.monotonic()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return True


def _step(asked: Request) -> str:
    """What a request is for."""
    found = asked.json() if asked.method == "PUT" else None
    labels = found.get("labels") if isinstance(found, dict) else None
    named = ("mlpack.state", "mlpack.stage", "mlpack.undone")
    said = [str(labels[name])[:20] for name in named if name in labels] if labels else []
    query = asked.json() if asked.path == "/devices/query" else None
    text = str(query.get("query"))[:40] if isinstance(query, dict) else ""
    return " ".join([asked.method, asked.path, *said, text])


def shown(made: Operator) -> tuple[Any, ...]:
    """What the hub and the ledger show, without moments."""
    made.hub.advance(120)
    records = Ledger(made.project.ledger).rollouts()
    states = [(each.planned["release"], (each.measured or {}).get("state")) for each in records]
    labels = {
        id: {key: value for key, value in each.items() if key not in {"mlpack.undone"}}
        for id, each in made.labels().items()
    }
    return labels, made.holding(1), made.holding(2), states


def check_ledger_follows(made: Operator) -> None:
    """At any moment: what the hub has is in the ledger, and what is undone is not rolling."""
    states = {
        str(each.planned["deployment"]): (each.measured or {}).get("state")
        for each in Ledger(made.project.ledger).rollouts()
    }
    for id, labels in made.labels().items():
        if labels["mlpack.state"] == "rolling":
            assert states[id] in (None, "rolling")
        elif labels["mlpack.state"] == "stopping":
            assert states[id] in ("rolling", "undone", "complete")


def deploys(bad: int) -> Callable[[Operator], tuple[str, ...]]:
    def prepare(made: Operator) -> tuple[str, ...]:
        start(made)
        for each in made.hub.devices.values():
            each.twin["tags"] = {"deviceGroup": "vans"}
        made.hub.changed()
        made.hub.behave = failing(made.project, 2, bad)
        return ("deploy", *GO, *STAGES)

    return prepare


def rolls_back(made: Operator) -> tuple[str, ...]:
    start(made)
    made.done("deploy", "fan:2", *GO, "--stages", "100%")
    return ("rollback", *GROUP, "--yes", "--to", "fan:1")


def creates_a_base(made: Operator) -> tuple[str, ...]:
    return ("deploy", *GROUP, "--base", "--yes")


@pytest.mark.parametrize(
    ("prepare", "status", "steps"),
    [
        pytest.param(deploys(0), 0, 22, id="deploy"),
        pytest.param(deploys(30), 3, 22, id="undo"),
        pytest.param(rolls_back, 0, 8, id="rollback"),
        pytest.param(creates_a_base, 0, 4, id="base"),
    ],
)
def test_interrupted_at_every_step_the_next_run_continues(
    tmp_path: Path, prepare: Callable[[Operator], tuple[str, ...]], status: int, steps: int
) -> None:
    (tmp_path / "whole").mkdir()
    with operator(tmp_path / "whole", FEW) as made:
        result = made(*prepare(made))
        assert result.exit_code == status, result.output
        whole = shown(made)
    (tmp_path / "interrupted").mkdir()
    with operator(tmp_path / "interrupted", FEW) as made:
        command = prepare(made)
        keys = Interrupter(made)
        while True:
            keys.pressed = 0.0
            result = made(*command)
            if not keys.pressed:
                break
            assert time.monotonic() - keys.pressed < SECONDS
            assert result.exit_code == 130, result.output
            assert "interrupted" in result.stderr
            check_ledger_follows(made)
        assert result.exit_code == status, result.output
        assert len(keys.steps) >= steps, keys.steps
        assert shown(made) == whole


REGISTRY = """[edge.registries.r]
address = "r.io"
username = "u"
password = "${NOT_SET}"
"""
TARGET = "target = \"tags.deviceGroup = 'vans'\""


@pytest.mark.parametrize(
    ("command", "changes", "said"),
    [
        (("deploy", "--device-group", "trucks"), {}, "trucks"),
        (("deploy", "--device-group", "trucks", "--base"), {}, "trucks"),
        (("rollback", "--device-group", "trucks"), {}, "trucks"),
        (("status", "--device-group", "trucks"), {}, "trucks"),
        (("devices", "--device-group", "trucks"), {}, "trucks"),
        (("plan", "--device-group", "trucks"), {}, "trucks"),
        (("deploy", "fan:9", *GROUP), {}, "fan:9"),
        (("deploy", *GROUP, "--stages", "50%,20%,100%"), {}, "50%,20%,100%"),
        (("deploy", *GROUP, "--stages", "20%"), {}, "100%"),
        (("deploy", *GROUP, "--success", "101%"), {}, "101%"),
        (("deploy", *GROUP, "--max-failures", "-1%"), {}, "-1%"),
        (("deploy", "fan:1", *GROUP, "--base"), {}, "--base"),
        (("deploy", *GROUP), {"repository = ": "# "}, "[image]"),
        (("deploy", *GROUP), {'tariff = "per-mb"': 'tariff = "away.toml"'}, "away.toml"),
        (("plan", *GROUP), {'tariff = "per-mb"': 'tariff = "away.toml"'}, "away.toml"),
        (("deploy", *GROUP), {TARGET: f'{TARGET}\nengine = "dokcer"'}, "dokcer"),
        (("rollback", *GROUP), {TARGET: f'{TARGET}\nengine = "dokcer"'}, "dokcer"),
        (("deploy", "fan:1", *GROUP), {TARGET: f'{TARGET}\nrequire = "fan:1.10"'}, "fan:1.10"),
        (
            ("deploy", *GROUP),
            {"[deploy]": '[edge.modules.fan]\nimage = "r.io/x:1"\n[deploy]'},
            "fan",
        ),
        (
            ("deploy", *GROUP, "--base"),
            {"[deploy]": f"{REGISTRY}\n[deploy]"},
            "registryCredentials.r.password",
        ),
    ],
)
def test_what_is_wrong_is_found_before_the_hub_is_queried(
    vans: Operator, settings: Path, command: tuple[str, ...], changes: dict[str, str], said: str
) -> None:
    text = settings.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    settings.write_text(text)
    vans.hub.rest.requests.clear()
    result = vans(*command, *(("--yes",) if command[0] in ("deploy", "rollback") else ()))
    assert result.exit_code in (1, 2, 3), result.output
    assert said in result.stderr
    assert vans.hub.rest.requests == []


@pytest.mark.parametrize(
    ("command", "file"),
    [("deploy", False), ("rollback", False), ("status", False), ("devices", True), ("plan", True)],
)
def test_without_a_hub_the_hint_names_what_the_command_takes(
    vans: Operator, monkeypatch: pytest.MonkeyPatch, command: str, file: bool
) -> None:
    monkeypatch.delenv("MLPACK_IOTHUB_CONNECTION_STRING")
    result = vans(command, *GROUP)
    assert result.exit_code == 1
    assert "[deploy] hub" in result.stderr
    assert ("--fleet" in result.stderr) is file


def test_a_later_version_has_the_higher_number() -> None:
    assert reaches("fan:1.10.0", "fan:1.9.0")
    assert not reaches("fan:1.9.0", "fan:1.10.0")
    assert not reaches("fan:10", "pump:9")
