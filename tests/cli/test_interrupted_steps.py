"""Every command of several steps, interrupted before each of its effects: all or nothing."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from mlpack.project.ledger import Ledger
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import CREATED
from tests.cli.test_round import Network, readings
from tests.interrupts import INTERRUPTED, interrupted_at, interrupted_at_every_step
from tests.registry.registry import Registry
from tests.support import lasting_folder, make_project, repeats, run, tiny_onnx

# The standard library leaves the socket of an interrupted connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

REPOSITORY = "registry.example.com/edge/fan"


def layout_state(root: Path) -> object:
    """The names in a layout and what they name; every blob below them is whole."""
    layout = LayoutStore.existing(root)
    assert validate(layout) == ()
    # A model version and a release's record say when they were made: another digest each time.
    timed = ("model/", "release/")
    found: dict[str, object] = {}
    for name, each in layout.tags().items():
        noted = {**each.annotations, **({CREATED: "then"} if CREATED in each.annotations else {})}
        found[name] = noted if name.startswith(timed) else (each.digest, noted)
    return found


def folder_state(root: Path) -> dict[str, object]:
    """Every file of a folder a user sees, the names in its layouts and its ledger's releases."""
    assert not list(root.rglob(".part-*")), "a temporary file was left"
    found: dict[str, object] = {}
    # Content without a name is nothing, as in any registry.
    layouts = [each.parent for each in root.rglob("blobs")]
    for path in sorted(root.rglob("*")):
        inside = any(path.is_relative_to(each) for each in layouts)
        hidden = inside or ".mlpack" in path.parts or path.with_suffix("") in layouts
        if path.is_file() and not hidden:
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for each in layouts:
        if not (each / "index.json").is_file():
            continue
        found[f"{each.relative_to(root)}/"] = layout_state(each)
    for each in root.rglob("ledger.db"):
        found["ledger"] = sorted(str(row.digest) for row in Ledger(each).releases())
    found.setdefault("ledger", [])
    return found


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go, which is empty after every command."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    gc.collect()  # sockets of interrupted connects, while their warnings are ignored


@pytest.fixture(scope="module")
def template() -> Path:
    """A project with two versions of fan, of which the first is released, and a third model."""
    root = lasting_folder() / "p"
    project = make_project(root, settings="")
    rng = np.random.default_rng(1)
    for version in (1, 2):
        tiny_onnx(root / f"{version}.onnx", bias=float(version))
        assert run("-C", str(root), "register", f"{root}/{version}.onnx").exit_code == 0
    np.savez(root / "check.npz", rng.random((4, 2), dtype=np.float32))
    tiny_onnx(root / "3.onnx", bias=3.0)
    assert run("-C", str(root), "build", "fan:1").exit_code == 0
    made = run("-C", str(root), "patch", "make", "fan:1", "fan:2", "-o", "2.mlpd")
    assert made.exit_code == 0
    (root / "linked").symlink_to("2.mlpd")
    assert project.has_lock
    return root


Prepare = Callable[[], tuple[str, ...]]


def checked(root: Path, scratch: Path, template: Path, args: tuple[str, ...]) -> int:
    def prepare() -> tuple[str, ...]:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template, root, symlinks=True)
        return ("-C", str(root), *args)

    def state() -> object:
        # onnxruntime keeps a file of its own there.
        left = [each for each in scratch.iterdir() if each.name != ".ses"]
        assert left == [], "a temporary folder was left"
        return folder_state(root)

    return interrupted_at_every_step(prepare, state)


COMMANDS: Mapping[str, tuple[str, ...]] = {
    "register": ("register", "ROOT/3.onnx", "--name", "fan"),
    "build": ("build", "fan:2"),
    "render": ("render", "fan:1", "-o", "deployment.json", "--repository", REPOSITORY),
    "render with secrets": (
        *("render", "fan:1", "-o", "secret.json", "--with-secrets", "--repository", REPOSITORY),
    ),
    "render compose": (
        *("render", "fan:1", "-o", "c.yaml", "--target", "compose", "--repository", REPOSITORY),
    ),
    "bundle": ("bundle", "fan:1", "--onto", "base", "--engine", "moby", "-o", "ROOT/b.tar.gz"),
    "graft": ("graft", "base", "fan:1", "-o", "oci:ROOT/grafted:1"),
    "copy": ("copy", "fan:1", "oci:ROOT/copied:1"),
    "patch": ("patch", "make", "ROOT/1.onnx", "ROOT/2.onnx", "-o", "ROOT/fan.patch"),
    "patch over a file": ("patch", "make", "fan:1", "ROOT/2.onnx", "-o", "ROOT/2.mlpd"),
    "patch over a link": ("patch", "make", "fan:1", "ROOT/3.onnx", "-o", "ROOT/linked"),
    "patch apply": ("patch", "apply", "fan:1", "ROOT/2.mlpd", "-o", "ROOT/new.onnx"),
    "bundle over a file": ("bundle", "fan:1", "--onto", "base", "-o", "ROOT/linked"),
    "init": ("init", "ROOT/new", "--template", "fan"),
    "tag": ("tag", "fan:1", "champion"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_done_whole_or_not_at_all(
    name: str, tmp_path: Path, scratch: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPACK_REGISTRY_USERNAME", "edge")
    monkeypatch.setenv("MLPACK_REGISTRY_PASSWORD", "a password, sorry")
    root = tmp_path / "p"
    args = tuple(each.replace("ROOT", str(root)) for each in COMMANDS[name])
    assert checked(root, scratch, template, args) > 0


@pytest.mark.slow
def test_a_rounded_model_is_registered_whole_or_not_at_all(
    tmp_path: Path, scratch: Path, template: Path
) -> None:
    network = Network()
    root = shutil.copytree(template, tmp_path / "models")
    for each, rows in (("1.onnx", 2), ("2.onnx", 3)):
        network.train(*readings(2000, rows), rate=0.1, rounds=20)
        args = ("register", str(network.save(tmp_path / each)), "--name", "net")
        assert run("-C", str(root), *args).exit_code == 0
    inputs, labels = readings(100, 4)
    np.savez(root / "rows.npz", x=inputs, labels=labels)
    check = ("--check", str(root / "rows.npz"), "--max-error", "0.1")
    assert checked(tmp_path / "p", scratch, root, ("round", "net:2", "--onto", "net:1", *check)) > 0


def pushed(registry: Registry, repository: str) -> list[str]:
    """The tags of a repository; a release with a tag has its record, too."""
    url = f"http://{registry.host}/v2/{repository}/tags/list"
    try:
        with urllib.request.urlopen(url) as answer:
            tags = json.loads(answer.read())["tags"] or []
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return []
    names = [each for each in tags if not each.startswith("sha256-")]
    assert not names or len(names) < len(tags), "a release without its record"
    return sorted(names)


def test_a_release_is_pushed_whole_or_not_at_all(
    scratch: Path, template: Path, registry: Registry
) -> None:
    repositories: list[str] = []

    def prepare() -> tuple[str, ...]:
        repositories.append(f"interrupted/{uuid.uuid4().hex}")
        place = f"{registry.host}/{repositories[-1]}"
        return ("-C", str(template), "push", "fan:1", "--to", place)

    def state() -> object:
        assert list(scratch.iterdir()) == []
        return pushed(registry, repositories[-1])

    assert interrupted_at_every_step(prepare, state) > 0


def test_a_release_is_pulled_whole_or_not_at_all(
    tmp_path: Path, scratch: Path, template: Path, registry: Registry
) -> None:
    place = f"{registry.host}/interrupted/{uuid.uuid4().hex}"
    assert run("-C", str(template), "push", "fan:1", "--to", place).exit_code == 0
    empty = make_project(tmp_path / "empty")
    assert checked(tmp_path / "p", scratch, empty.root, ("pull", f"{place}:1")) > 0


PODMAN = """#!/bin/sh
# Keeps images and containers as files, and says what podman says to what mlpack asks.
cd "$(dirname "$0")"
case "$1" in
version) echo linux/amd64 ;;
load) touch images/loaded ;;
run) touch containers/c1; echo c1 ;;
inspect) test -e containers/c1 &&
    echo '[{"State": {"Status": "running", "ExitCode": 0}, "RestartCount": 0}]' ;;
logs) echo words ;;
rm) rm containers/c1 ;;
*) echo "podman: unknown command $1" >&2; exit 125 ;;
esac
"""


@pytest.mark.parametrize("command", ["load", "run"])
def test_an_interrupted_engine_keeps_no_container(
    command: str,
    tmp_path: Path,
    scratch: Path,
    template: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "engine"
    for each in ("images", "containers"):
        (folder / each).mkdir(parents=True)
    (folder / "podman").write_text(PODMAN)
    (folder / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    args: tuple[str, ...] = ("-C", str(template), command, "fan:1", "--engine", "podman")

    def containers() -> object:
        assert list(scratch.iterdir()) == []
        return sorted(each.name for each in (folder / "containers").iterdir())

    if command == "load":
        assert interrupted_at_every_step(lambda: args, containers) > 0
        return
    # It never answers: each run ends by an interruption or after its time, and leaves nothing.
    for at in range(repeats(8, 30)):
        status, _, names = interrupted_at(args, at)
        assert containers() == [], f"at {at} of {names}"
        assert status == INTERRUPTED
