"""Releases listed and dropped, and what nothing names any more removed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from mlpack.api.project import Project
from mlpack.api.releases import GroupRollout, deployed_releases
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Digest
from mlpack.project.directory import ProjectDirectory
from mlpack.project.ledger import Ledger, RolloutRecord
from mlpack.registry.serve.app import create_app
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_bytes
from mlpack.stores.store_use import alone
from tests.interrupts import interrupted_at
from tests.registry.serve.server import listening
from tests.support import dense_onnx, make_project, released_project, run

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with the releases fan:1 and fan:2."""
    return released_project(tmp_path / "fan", 2)


@pytest.fixture
def patched(tmp_path: Path) -> ProjectDirectory:
    """A project with an anchor, fan:1, and a patch on it, fan:2."""
    made = make_project(tmp_path / "fan")
    for tuned in (0, 1):
        model = dense_onnx(tmp_path / f"{tuned}.onnx", tuned=tuned)
        assert at(made, "register", str(model)).exit_code == 0
        strategy = "patch" if tuned else "layer"
        built = at(made, "build", "fan", "--strategy", strategy)
        assert built.exit_code == 0, built.stderr
    return made


def at(project: ProjectDirectory, *args: str) -> Result:
    return run("-C", str(project.root), *args)


def document(project: ProjectDirectory, *args: str) -> Any:  # noqa: ANN401  # JSON
    done = at(project, "--json", *args)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def rolled_out(project: ProjectDirectory, version: str, state: str, group: str = "vans") -> None:
    Ledger(project.ledger).record_rollout(
        RolloutRecord(
            group=group,
            release_digest=project.layout.resolve(f"fan-{version}").digest,
            devices=3,
            planned={},
            measured={"state": state} if state else None,
            created=NOON,
        )
    )


def held(project: ProjectDirectory) -> set[str]:
    return {each.name for each in (project.layout.root / "blobs" / "sha256").iterdir()}


def test_releases_say_what_they_are_and_where(patched: ProjectDirectory) -> None:
    rolled_out(patched, "1", "complete")
    rolled_out(patched, "2", "rolling")
    at(patched, "tag", "fan:1", "champion")
    first, second = document(patched, "releases")["releases"]
    assert (first["name"], first["version"], first["strategy"]) == ("fan", "1", "layer")
    assert (second["version"], second["strategy"]) == ("2", "patch")
    assert first["digest"] == str(patched.layout.resolve("fan-1").digest)
    assert first["base"] == second["base"] == document(patched, "base", "show")["digest"]
    assert second["bytes"] < first["bytes"]
    assert first["started"] in ("started", "never")
    assert (first["aliases"], second["aliases"]) == (["champion"], [])
    assert first["deployed"] == [{"group": "vans", "state": "complete"}]
    assert second["deployed"] == [{"group": "vans", "state": "rolling"}]
    table = at(patched, "releases", "fan").stdout
    for word in ("fan:1", "@champion", "patch", "vans"):
        assert word in table


def test_a_pulled_release_is_listed(project: ProjectDirectory, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other", base=False)
    assert "there is no release yet" in at(other, "releases").stderr
    with listening(create_app(LayoutStore(tmp_path / "served"))) as port:
        for each in ("2", "1"):
            document(project, "push", f"fan:{each}", "--to", f"127.0.0.1:{port}/fan")
            document(other, "pull", f"127.0.0.1:{port}/fan:{each}")
    assert document(other, "releases")["releases"] == document(project, "releases")["releases"]
    one, two = (Ledger(each.ledger).releases() for each in (project, other))
    assert {each.digest: each for each in one} == {each.digest: each for each in two}
    rolled_out(other, "1", "complete")
    assert document(other, "releases")["releases"][0]["deployed"][0]["group"] == "vans"


def test_a_damaged_release_does_not_hide_the_others(project: ProjectDirectory) -> None:
    project.layout.path(project.layout.resolve("fan-1")).write_bytes(b"{}")
    found = document(project, "releases")
    assert [each["version"] for each in found["releases"]] == ["2"]
    assert list(found["damaged"]) == ["fan:1"]
    assert "drop it with: mlpack releases --drop fan:1" in at(project, "releases").stderr
    refused = at(project, "gc", "--yes")
    assert refused.exit_code == 1
    assert "what fan-1 names is not known" in refused.stderr
    assert at(project, "releases", "--drop", "fan:1", "--force").exit_code == 0
    cleared = at(project, "gc", "--yes")
    assert cleared.exit_code == 0
    assert max(map(len, cleared.stdout.splitlines())) < 80


@pytest.mark.parametrize(
    ("rollouts", "expected"),
    [
        ((), {}),
        ((("a", "complete"),), {"a": "complete"}),
        ((("a", "complete"), ("b", "complete")), {"b": "complete"}),
        ((("a", "complete"), ("b", "rolling")), {"a": "complete", "b": "rolling"}),
        ((("a", "complete"), ("b", "undone")), {"a": "complete"}),
        ((("a", "complete"), ("b", "rolling"), ("c", "")), {"b": "rolling", "c": "rolling"}),
        ((("a", "complete"), ("b", "complete"), ("a", "complete")), {"a": "complete"}),
        ((("a", "complete"), ("a", "undone")), {}),
    ],
)
def test_where_releases_are(
    rollouts: tuple[tuple[str, str], ...], expected: dict[str, str]
) -> None:
    records = [
        RolloutRecord(
            group="vans",
            release_digest=Digest.of(name.encode()),
            devices=1,
            planned={},
            measured={"state": state} if state else None,
            created=NOON,
        )
        for name, state in rollouts
    ]
    found = {
        Digest.of(name.encode()): (GroupRollout(group="vans", state=state),)
        for name, state in expected.items()
    }
    assert deployed_releases(records) == found


def test_a_dropped_release_is_gone_and_its_model_stays(project: ProjectDirectory) -> None:
    dropped = at(project, "releases", "--drop", "fan:1")
    assert (dropped.exit_code, dropped.stdout) == (0, "fan:1\n")
    assert [each["version"] for each in document(project, "releases")["releases"]] == ["2"]
    assert "release/fan/1" not in project.layout.tags()
    assert document(project, "show", "fan:1")["release_digest"] is None
    assert at(project, "build", "fan:1").exit_code == 0, "it can be built again"
    assert document(project, "report", "fan")["release"] == "fan:1", "as the newest"
    for args, said in (
        (("--drop", "fan:7"), "fan:7 has no release"),
        (("--drop", "fan"), "names no version"),
        (("--drop", "fan@champion"), "names no version"),
        (("--drop", "pump:1"), "no model 'pump'"),
        (("fan", "--drop", "fan:2"), "do not go together"),
        (("--force",), "--force is for --drop"),
        (("pump",), "no model 'pump'"),
    ):
        done = at(project, "releases", *args)
        assert done.exit_code in (1, 2)
        assert said in done.stderr


def test_a_release_in_use_is_dropped_by_force_only(patched: ProjectDirectory) -> None:
    rolled_out(patched, "2", "complete")
    refused = at(patched, "releases", "--drop", "fan:2")
    assert refused.exit_code == 1
    assert "it is deployed to vans" in refused.stderr
    assert "--force" in refused.stderr
    anchor = at(patched, "releases", "--drop", "fan:1")
    assert "mlpack.lock names it as an anchor" in anchor.stderr
    assert "it is the anchor of fan:2" in anchor.stderr
    assert at(patched, "releases", "--drop", "fan:1", "--force").exit_code == 0
    found = document(patched, "gc", "--yes")
    assert found["removed"]
    assert document(patched, "report", "fan:2")["release"] == "fan:2", "the anchor is kept"
    assert at(patched, "build", "fan:2", "--strategy", "patch").exit_code == 0
    assert validate(patched.layout) == ()


def test_a_release_that_an_alias_names_is_not_dropped(project: ProjectDirectory) -> None:
    at(project, "tag", "fan:1", "champion")
    assert at(project, "releases", "--drop", "fan:1").exit_code == 0, "its model is still there"
    at(project, "build", "fan:1")
    project.layout.untag("model/fan/1")
    assert "fan:1 is fan@champion" in at(project, "releases", "--drop", "fan:1").stderr


def test_gc_shows_first_and_removes_what_has_no_name(project: ProjectDirectory) -> None:
    assert "nothing to remove" in at(project, "gc").stderr
    named, size = held(project), project.layout.resolve("fan-2").size
    at(project, "releases", "--drop", "fan:2")
    at(project, "models", "--drop", "fan:2")
    shown = document(project, "gc")
    assert not shown["removed"]
    assert shown["bytes"] > size
    assert held(project) == named, "a dry run"
    assert "this was a dry run" in at(project, "gc").stderr
    removed = document(project, "gc", "--yes")
    assert removed == {**shown, "removed": True}
    assert held(project) == named - {each["digest"][7:] for each in shown["blobs"]}
    assert validate(project.layout) == ()
    assert document(project, "report", "fan")["release"] == "fan:1"
    assert document(project, "gc")["blobs"] == []


def test_gc_keeps_what_only_the_lock_names(project: ProjectDirectory) -> None:
    base = project.layout.resolve("base")
    at(project, "releases", "--drop", "fan:1")
    at(project, "releases", "--drop", "fan:2")
    project.layout.untag("base")
    document(project, "gc", "--yes")
    assert project.layout.exists(base)
    assert at(project, "build", "fan").exit_code == 0


def test_a_release_that_was_pushed_here_goes_with_its_record(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    served = make_project(tmp_path / "served", base=False)
    with listening(create_app(served.layout)) as port:
        document(project, "push", "fan:1", "--to", f"127.0.0.1:{port}/fan")
    assert [str(each) for each in Project.open(served.root).releases().releases] == ["fan:1"]
    assert at(served, "releases", "--drop", "fan:1").exit_code == 0
    assert dict(served.layout.tags()) == {}
    assert document(served, "gc", "--yes")["bytes"] > 0
    assert held(served) == set()


def test_an_interrupted_gc_is_finished_by_the_next(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    for version in ("1", "2"):
        at(project, "models", "--drop", f"fan:{version}")
        at(project, "releases", "--drop", f"fan:{version}")
    kept = held(project) - {each["digest"][7:] for each in document(project, "gc")["blobs"]}
    root = tmp_path / "copy"

    def prepare() -> tuple[str, ...]:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(project.root, root)
        return ("-C", str(root), "gc", "--yes")

    _, _, effects = interrupted_at(prepare(), None)
    for number in range(0, len(effects), max(1, len(effects) // 12)):
        interrupted_at(prepare(), number)
        copy = ProjectDirectory(root)
        assert validate(copy.layout) == ()
        assert document(copy, "gc", "--yes")["removed"]
        assert held(copy) == kept


def test_gc_touches_no_store_without_names(tmp_path: Path) -> None:
    made = make_project(tmp_path / "new", base=False)
    assert document(made, "gc", "--yes") == {"removed": True, "bytes": 0, "blobs": []}
    assert not made.layout.root.exists()
    put_bytes(made.layout, b"of a command that has not ended", media.EMPTY)
    assert document(made, "gc", "--yes")["blobs"] == []


def test_gc_leaves_other_files_alone(project: ProjectDirectory) -> None:
    notes = project.layout.root / "blobs" / "sha256" / "notes.txt"
    notes.write_text("mine")
    document(project, "gc", "--yes")
    assert notes.read_text() == "mine"


def test_an_interrupted_gc_leaves_no_document_without_its_parts(
    project: ProjectDirectory,
) -> None:
    for version in ("1", "2"):
        at(project, "releases", "--drop", f"fan:{version}")
        at(project, "models", "--drop", f"fan:{version}")
    with Project.open(project.root) as opened:
        blobs = opened.gc().blobs
    kinds = [
        json.loads(content) if content[:1] == b"{" else {} for content in _contents(project, blobs)
    ]
    documents = ["manifests" in each or "layers" in each for each in kinds]
    assert documents == sorted(documents, reverse=True), "documents first"
    assert "manifests" in kinds[0], "and of these, indexes"


def _contents(project: ProjectDirectory, blobs: Any) -> list[bytes]:  # noqa: ANN401  # Blob
    folder = project.layout.root / "blobs" / "sha256"
    return [(folder / each.digest.hex).read_bytes() for each in blobs]


WRITER = """
import io, sys
from pathlib import Path
from mlpack.oci import descriptor as media
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import (put_bytes)
from mlpack.stores.store_use import writing
layout = LayoutStore(Path(sys.argv[1]))
with writing(layout.root):
    target = put_bytes(layout, b"not named yet", media.EMPTY)
    print("written", flush=True)
    sys.stdin.readline()
    layout.tag(target, "named")
    print("named", flush=True)
"""


def test_what_another_process_writes_is_not_removed(project: ProjectDirectory) -> None:
    root = project.layout.root
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "written\n"
        refused = at(project, "gc", "--yes")
        assert refused.exit_code == 1
        assert "another process of mlpack writes into" in refused.stderr
        assert document(project, "gc")["blobs"], "a dry run removes nothing"
        writer.stdin.write("go on\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "named\n"
    assert document(project, "gc", "--yes")["blobs"] == []
    assert project.layout.exists(project.layout.resolve("named"))


def test_a_killed_writer_leaves_no_lock(project: ProjectDirectory) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(project.layout.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    assert len(document(project, "gc", "--yes")["blobs"]) == 1


def test_a_writer_waits_for_gc(project: ProjectDirectory) -> None:
    root = project.layout.root
    with alone(root):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(1)
        assert not list(held(project) & {Digest.of(b"not named yet").hex})
    assert writer.wait(120) == 0


@pytest.mark.parametrize(
    "command", ["register model.onnx", "build fan", "tag fan champion", "copy fan oci:copy"]
)
def test_every_verb_that_writes_is_seen_by_gc(
    project: ProjectDirectory, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense_onnx(project.root / "model.onnx")
    monkeypatch.chdir(project.root)
    with alone(project.layout.root):
        words = [sys.executable, "-m", "mlpack", *command.split()]
        writer = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(2)
    assert writer.wait(120) == 0


def test_the_python_api_is_the_same(project: ProjectDirectory) -> None:
    put_bytes(project.layout, b"left over", media.EMPTY)
    with Project.open(project.root) as opened:
        assert [str(each) for each in opened.releases("fan").releases] == ["fan:1", "fan:2"]
        assert opened.drop_release("fan:1").release == "fan:1"
        found = opened.gc()
        assert found.bytes > len(b"left over")
        assert opened.gc(delete=True) == replace(found, removed=True)
