"""The newest version is the one registered last, the newest release the one built last."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlpack.api.session import Clock
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import releases
from mlpack.registry.serve.app import create_app
from mlpack.stores.layout import REF_NAME, LayoutStore
from mlpack.stores.records import CREATED
from tests.registry.serve.server import listening
from tests.support import make_project, run, tiny_onnx

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
STOPPED = Clock(now=lambda: NOON)


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    return make_project(tmp_path / "fan")


def document(project: ProjectDirectory, *args: str, clock: Clock = STOPPED) -> Any:  # noqa: ANN401  # JSON
    done = run("-C", str(project.root), "--json", *args, clock=clock)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def register(project: ProjectDirectory, version: str, clock: Clock = STOPPED) -> None:
    model = tiny_onnx(project.root.parent / "model.onnx", bias=len(project.layout.tags()))
    document(project, "register", str(model), "--version", version, clock=clock)


def release(project: ProjectDirectory, *versions: str) -> None:
    for each in versions:
        register(project, each)
        document(project, "build", f"fan:{each}")


@pytest.mark.parametrize(
    "versions",
    [("1.9.0", "1.10.0"), ("1.10.0", "1.9.0"), ("beta", "10", "alpha"), ("10", "2", "7f3a2c1")],
)
def test_the_last_one_is_the_newest(project: ProjectDirectory, versions: tuple[str, ...]) -> None:
    release(project, *versions)
    newest = f"fan:{versions[-1]}"
    assert document(project, "show", "fan")["version"] == versions[-1]
    assert document(project, "report", "fan")["release"] == newest
    assert document(project, "report", "fan:latest")["release"] == newest
    digest = str(releases(project.layout, "fan")[versions[-1]].digest)
    assert digest in json.dumps(document(project, "render", "fan"))
    listed = document(project, "models")["models"]
    assert [each["version"] for each in listed] == list(versions)


def test_a_clock_that_goes_back_makes_no_version_older(project: ProjectDirectory) -> None:
    for number, hours in (("1", 0), ("2", 5), ("3", -5)):
        now = NOON + timedelta(hours=hours)
        register(project, number, Clock(now=lambda now=now: now))  # type: ignore[misc]
    assert document(project, "show", "fan")["version"] == "3"


def test_a_release_built_again_stays_in_its_place(project: ProjectDirectory) -> None:
    register(project, "1")
    register(project, "2")
    for each in ("2", "1", "2"):
        document(project, "build", f"fan:{each}")
    assert list(releases(project.layout, "fan")) == ["2", "1"]
    assert document(project, "report", "fan")["release"] == "fan:1"
    assert document(project, "show", "fan")["version"] == "2", "registered last"


def test_a_report_is_from_the_closest_lower_number(project: ProjectDirectory) -> None:
    release(project, "1.9.0", "2.0.0", "1.9.1")
    assert document(project, "report", "fan")["old"] == "fan:1.9.0"
    assert document(project, "report", "fan:2.0.0")["old"] == "fan:1.9.0"


def test_releases_without_a_time_are_in_the_order_of_their_models(
    project: ProjectDirectory,
) -> None:
    release(project, "beta", "alpha")
    forget_times(project.layout, "fan-beta", "fan-alpha", "release/fan/beta", "release/fan/alpha")
    project.layout.untag("release/fan/beta", "release/fan/alpha")
    assert document(project, "report", "fan")["release"] == "fan:alpha"
    project.layout.untag("model/fan/beta", "model/fan/alpha")
    assert list(releases(project.layout, "fan")) == ["alpha", "beta"], "no time is left"


def forget_times(layout: LayoutStore, *names: str) -> None:
    """Drop the times of entries, as an older mlpack wrote them."""
    from dataclasses import replace

    for name in names:
        target = layout.resolve(name)
        kept = {k: v for k, v in target.annotations.items() if k not in (CREATED, REF_NAME)}
        layout.tag(replace(target, annotations=kept), name)


def test_the_order_survives_a_push_and_a_pull(project: ProjectDirectory, tmp_path: Path) -> None:
    release(project, "1.10.0", "1.9.0", "beta")
    served = LayoutStore(tmp_path / "served")
    other = make_project(tmp_path / "other", base=False)
    with listening(create_app(served)) as port:
        place = f"127.0.0.1:{port}/edge/fan"
        for each in ("beta", "1.9.0", "1.10.0"):
            document(project, "push", f"fan:{each}", "--to", place)
        for each in ("1.9.0", "beta", "1.10.0"):
            document(other, "pull", f"{place}:{each}")
    assert list(releases(other.layout, "fan")) == ["1.10.0", "1.9.0", "beta"]
    assert document(other, "report", "fan", "--from", "none")["release"] == "fan:beta"


def test_a_push_to_a_served_project_keeps_the_order(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    release(project, "b", "a")
    served = LayoutStore(tmp_path / "served")
    with listening(create_app(served)) as port:
        for each in ("a", "b"):
            document(project, "push", f"fan:{each}", "--to", f"127.0.0.1:{port}/fan")
    assert list(releases(served, "fan")) == ["b", "a"]
