"""Commands that are stopped in the middle, and disks that fill up: nothing half-written stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from mlpack.stores.integrity import validate
from tests.support import make_project, run, unavailable

CHECKOUT = Path(__file__).resolve().parents[2]
LARGE = 240_000_000


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with a version of 240 MB: building it takes long enough to be stopped."""
    made = make_project(tmp_path / "p")
    model = tmp_path / "large"
    model.mkdir()
    with (model / "model.bin").open("wb") as out:
        for _ in range(LARGE // 4_000_000):
            out.write(os.urandom(4_000_000))
    done = run("-C", str(made.root), "register", str(model))
    assert done.exit_code == 0, done.stderr
    shutil.rmtree(model)
    return made


def unfinished(project: ProjectDirectory) -> list[Path]:
    """The temporary files below the project."""
    return sorted(project.root.rglob(".part-*"))


def stopped_in_the_middle(project: ProjectDirectory, number: signal.Signals) -> tuple[int, str]:
    """Start a build, send ``number`` once it writes the layer, and wait for its end."""
    with subprocess.Popen(
        [sys.executable, "-m", "mlpack", "-C", str(project.root), "build", "fan"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in unfinished(project)):
            assert process.poll() is None, "the build ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_leaves_nothing(project: ProjectDirectory, number: signal.Signals) -> None:
    before = dict(project.layout.tags())
    status, said = stopped_in_the_middle(project, number)
    assert status == 130
    assert said == "error: interrupted; nothing half-done was left\n"
    assert "Traceback" not in said
    assert unfinished(project) == []
    assert dict(project.layout.tags()) == before
    assert validate(project.layout) == ()
    assert run("-C", str(project.root), "build", "fan").exit_code == 0


@pytest.mark.slow
def test_a_killed_build_leaves_a_valid_store_that_builds_again(project: ProjectDirectory) -> None:
    before = dict(project.layout.tags())
    status, _ = stopped_in_the_middle(project, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert dict(project.layout.tags()) == before
    assert validate(project.layout) == ()
    assert run("-C", str(project.root), "build", "fan").exit_code == 0
    assert unfinished(project) == [], "the next command clears what a killed one left"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        unavailable(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_clear_line_and_nothing_is_lost(
    small_disk: Path, tmp_path: Path
) -> None:
    project = make_project(small_disk / "p")
    model = tmp_path / "model"
    model.mkdir()
    (model / "a.bin").write_bytes(os.urandom(2_500_000))
    assert run("-C", str(project.root), "register", str(model)).exit_code == 0
    before = dict(project.layout.tags())

    (model / "b.bin").write_bytes(os.urandom(9_000_000))
    for command in (["register", str(model)], ["build", "fan"]):
        if command[0] == "build":
            (project.root / "fill").write_bytes(bytes(1_500_000))
        done = run("-C", str(project.root), *command)
        assert done.exit_code == 1, command
        assert done.stderr.splitlines()[0].startswith("error: "), done.stderr
        assert "No space left on device" in done.stderr
        assert "hint: free some disk space" in done.stderr
        assert unfinished(project) == []
        assert dict(project.layout.tags()) == before
        assert validate(project.layout) == ()
    (project.root / "fill").unlink()
    assert run("-C", str(project.root), "build", "fan").exit_code == 0


def test_a_patch_that_does_not_fit_is_one_clear_line_and_leaves_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    old, new, patch, out = (tmp_path / "old", tmp_path / "new", tmp_path / "p", small_disk / "out")
    old.write_bytes(b"old")
    new.write_bytes(os.urandom(9_000_000))
    assert run("patch", "make", str(old), str(new), "-o", str(patch)).exit_code == 0
    for command in (["make", str(old), str(new)], ["apply", str(old), str(patch)]):
        done = run("patch", *command, "-o", str(out))
        assert done.exit_code == 1, command
        assert done.stderr.startswith("error: "), done.stderr
        assert "No space left on device" in done.stderr
        assert "hint: free some disk space" in done.stderr
        assert list(small_disk.iterdir()) == []
