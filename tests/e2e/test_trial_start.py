"""Releases are started once before they are named, in every way that a machine allows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest

from mlpack.base.requirements import base_image
from mlpack.engines import trial_start
from mlpack.engines.local_runtime import stage
from mlpack.engines.trial_container import find_engine
from mlpack.engines.trial_start import Trial, begun, prepare
from mlpack.model.trial_start import TrialStart
from mlpack.oci.descriptor import Platform
from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.project.releases import model_env
from tests.e2e.engines import Docker
from tests.support import AMD64, ARM64, dense_onnx, repeats, run, tiny_onnx, unavailable
from tests.trial_models import made_models, text_onnx, type_error_onnx

pytestmark = pytest.mark.e2e

MODES = ("namespaces", "chroot", "loader")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's bases are unpacked."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPACK_CACHE", str(cache))


def build(
    project: ProjectDirectory, *args: str
) -> tuple[int, str, Mapping[str, Mapping[str, str]]]:
    done = run("-C", str(project.root), "--json", "build", *args)
    starts = json.loads(done.stdout)["start"] if done.exit_code == 0 else {}
    return done.exit_code, done.stderr, starts


def register(project: ProjectDirectory, path: Path, name: str, script: str = "") -> None:
    given = ["register", str(path), "--name", name]
    if script:
        place = path.parent / f"{name}.py"
        place.write_text(script)
        given += ["--scoring", str(place)]
    done = run("-C", str(project.root), *given)
    assert done.exit_code == 0, done.output


def trial(project: ProjectDirectory, cache: Path, platform: Platform = AMD64) -> Trial:
    locked = project.lock().base.on(platform)
    assert locked is not None
    found = prepare(project.layout, base_image(project, locked), cache)
    if isinstance(found, str) and platform == ARM64:
        pytest.skip(found)  # an emulator is not part of what CI must have
    assert not isinstance(found, str), found
    return found


def start(project: ProjectDirectory, found: Trial, name: str) -> TrialStart:
    model = ModelStore(project.layout).get(name)
    environment = {**found.base.env, **model_env(model)}
    write = lambda root: stage(project.layout, model, root)  # noqa: E731
    with begun(found, write, environment, size=model.size) as running:
        return running.finish("2026-01-02T03:04:05+00:00")


def test_a_release_is_started_before_it_is_named(
    real_project: ProjectDirectory, tmp_path: Path
) -> None:
    register(real_project, tiny_onnx(tmp_path / "tiny.onnx"), "good")
    status, said, starts = build(real_project, "good")
    assert status == 0, said
    assert starts["linux/amd64"]["outcome"] == "started"
    assert "linux/amd64: started in" in said


def test_the_same_images_are_not_started_again(
    real_project: ProjectDirectory, tmp_path: Path
) -> None:
    register(real_project, tiny_onnx(tmp_path / "tiny.onnx", bias=7), "once")
    _, _, first = build(real_project, "once", "--platform", "linux/amd64")
    _, _, again = build(real_project, "once", "--platform", "linux/amd64")
    _, _, skipped = build(real_project, "once", "--platform", "linux/amd64", "--no-start")
    assert first == again == skipped  # to the millisecond


def test_a_model_that_never_loads_is_refused_and_not_named(
    real_project: ProjectDirectory, tmp_path: Path
) -> None:
    register(real_project, type_error_onnx(tmp_path / "bad.onnx"), "bad")
    status, said, _ = build(real_project, "bad", "--platform", "linux/amd64")
    assert status == 1
    assert "bad:1 cannot start on linux/amd64" in said
    assert "tensor(float)" in said  # onnxruntime's own words
    assert "--allow start" in said
    assert "bad-1" not in real_project.layout.tags()
    status, said, starts = build(
        real_project, "bad", "--platform", "linux/amd64", "--allow", "start"
    )
    assert (status, starts["linux/amd64"]["outcome"]) == (0, "refused"), said
    shown = run("-C", str(real_project.root), "report", "bad").output
    assert "cannot start" in shown


def test_a_release_that_was_not_started_says_so(
    real_project: ProjectDirectory, tmp_path: Path
) -> None:
    register(real_project, tiny_onnx(tmp_path / "tiny.onnx", bias=3), "unseen")
    _, said, starts = build(real_project, "unseen", "--platform", "linux/amd64", "--no-start")
    assert starts["linux/amd64"]["outcome"] == "never"
    assert "never started: not requested (--no-start)" in said
    done = run("-C", str(real_project.root), "--json", "report", "unseen", "--from", "none")
    assert "never started" in json.loads(done.stdout)["never_started"][0]


def test_a_text_model_finds_its_locale(real_project: ProjectDirectory, tmp_path: Path) -> None:
    register(real_project, text_onnx(tmp_path / "text.onnx"), "text")
    status, said, starts = build(real_project, "text", "--platform", "linux/amd64")
    assert status == 0, said
    assert starts["linux/amd64"]["input"]


def test_a_patch_is_rebuilt_as_on_a_device(real_project: ProjectDirectory, tmp_path: Path) -> None:
    for version in (1, 2):
        register(
            real_project, dense_onnx(tmp_path / "d.onnx", tuned=version - 1, width=300), "dense"
        )
        strategy = ("packed", "patch")[version - 1]
        status, said, starts = build(
            real_project, f"dense:{version}", "--strategy", strategy, "--platform", "linux/amd64"
        )
        assert status == 0, said
        assert starts["linux/amd64"]["outcome"] == "started", said


SCRIPTS = {
    "missing": ("import nothing_like_it\ndef init(): pass\ndef run(d): return d\n", "nothing_like"),
    "later": ("def init(): pass\ndef run(d):\n    import nothing_like_it\n", "nothing_like_it"),
    "ended": ("import os\ndef init(): os._exit(3)\ndef run(d): return d\n", "status 3"),
    "killed": ("import os\ndef init(): os.abort()\ndef run(d): return d\n", "SIGABRT"),
    "raised": ("def init(): raise ValueError('a b c')\ndef run(d): return d\n", "a b c"),
    "online": (
        "import socket\ndef init(): socket.create_connection(('192.0.2.1', 9), 5)\n"
        "def run(d): return d\n",
        "nreachable",
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_that_cannot_start_are_refused(
    real_project: ProjectDirectory, tmp_path: Path, name: str
) -> None:
    script, words = SCRIPTS[name]
    register(real_project, tiny_onnx(tmp_path / "m.onnx"), f"s-{name}", script)
    status, said, _ = build(real_project, f"s-{name}", "--platform", "linux/amd64")
    assert status == 1, said
    assert words in said


def test_a_script_that_takes_another_request_starts(
    real_project: ProjectDirectory, tmp_path: Path
) -> None:
    script = "import json\ndef init(): pass\ndef run(d): return json.loads(d)['cabbages'] + 1\n"
    register(real_project, tiny_onnx(tmp_path / "m.onnx"), "own", script)
    status, said, starts = build(real_project, "own", "--platform", "linux/amd64")
    assert status == 0, said
    assert "cabbages" in starts["linux/amd64"]["note"]


@pytest.mark.parametrize("way", MODES)
def test_every_way_starts(
    real_project: ProjectDirectory,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    monkeypatch.setattr(trial_start, "WAYS", (way,))
    register(real_project, tiny_onnx(tmp_path / "m.onnx", bias=MODES.index(way)), f"w-{way}")
    found = start(real_project, trial(real_project, cache), f"w-{way}")
    if found.outcome == "never":
        unavailable(found.note)
    assert (found.outcome, found.way) == ("started", way)
    assert str(cache) not in Path("/proc/mounts").read_text()
    assert not list((trial(real_project, cache).root / "tmp").iterdir())


def test_a_script_sees_a_container_and_no_secret(
    real_project: ProjectDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPACK_TEST_SECRET", "hunter2")
    script = (
        "import os, pathlib\n"
        "def init():\n"
        "    assert 'MLPACK_TEST_SECRET' not in os.environ\n"
        "    assert os.getuid() == 65532, os.getuid()\n"
        "    assert __file__ == '/var/azureml-app/score.py', __file__\n"
        "    pathlib.Path('/tmp/x').write_text('x')\n"
        "    pathlib.Path('/dev/null').write_text('x')\n"
        "    assert os.listdir('/dev/shm') == []\n"
        "    for place in ('/var/azureml-app/x', '/usr/x', '/x'):\n"
        "        try:\n"
        "            pathlib.Path(place).write_text('x')\n"
        "        except OSError:\n"
        "            continue\n"
        "        raise SystemExit(place)\n"
        "def run(d): return d\n"
    )
    register(real_project, tiny_onnx(tmp_path / "m.onnx"), "inside", script)
    status, said, starts = build(real_project, "inside", "--platform", "linux/amd64")
    if status == 0 and starts["linux/amd64"]["way"] != "namespaces":
        unavailable("this machine has no namespaces")
    assert status == 0, said


def test_a_script_that_fills_its_disk_does_not_fill_the_machines_memory(
    real_project: ProjectDirectory, tmp_path: Path
) -> None:
    script = (
        "def init():\n"
        "    with open('/tmp/x', 'wb') as file:\n"
        "        for _ in range(4000):\n"
        "            file.write(bytes(1_000_000))\n"
        "def run(d): return d\n"
    )
    register(real_project, tiny_onnx(tmp_path / "m.onnx"), "filling", script)
    status, said, starts = build(real_project, "filling", "--platform", "linux/amd64")
    assert status == 0, said
    if "namespaces" not in starts["linux/amd64"]["note"]:
        unavailable("this machine has no namespaces")
    assert starts["linux/amd64"]["outcome"] == "never"
    assert "No space left" in starts["linux/amd64"]["note"]


def test_arm64_is_started_where_it_is_emulated(
    real_project: ProjectDirectory, tmp_path: Path, cache: Path
) -> None:
    found = trial(real_project, cache, ARM64)
    register(real_project, tiny_onnx(tmp_path / "m.onnx", bias=9), "arm")
    began = start(real_project, found, "arm")
    assert began.outcome == "started", began
    assert "qemu" in began.way


def containers(docker: Docker) -> set[str]:
    """All of Docker's, running or not."""
    done = subprocess.run(docker.command("ps", "-aq"), capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_an_engine_starts_where_the_machine_does_not(
    real_project: ProjectDirectory,
    tmp_path: Path,
    cache: Path,
    docker: Docker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker.address)
    found = trial(real_project, cache)
    engine = find_engine(real_project.layout, found.base, ("docker",))
    assert engine is not None
    before = containers(docker)
    register(real_project, tiny_onnx(tmp_path / "m.onnx", bias=11), "contained")
    began = start(real_project, replace(found, engine=engine), "contained")
    if began.outcome == "never":
        unavailable(began.note)
    assert (began.outcome, began.way) == ("started", "docker"), began
    assert containers(docker) == before


def test_an_interruption_leaves_no_process(
    real_project: ProjectDirectory, tmp_path: Path, cache: Path
) -> None:
    marker = "import time\ndef init(): time.sleep(1000)\ndef run(d): return d\n"
    register(real_project, tiny_onnx(tmp_path / "m.onnx"), "sleeps", marker)
    found = trial(real_project, cache)
    model = ModelStore(real_project.layout).get("sleeps")
    environment = {**found.base.env, **model_env(model)}
    write = lambda root: stage(real_project.layout, model, root)  # noqa: E731
    with (
        pytest.raises(KeyboardInterrupt),
        begun(found, write, environment, size=model.size) as running,
    ):
        process = running._process
        raise KeyboardInterrupt
    assert process is not None
    listed = subprocess.run(["ps", "-eo", "pgid"], capture_output=True, text=True, check=True)
    assert str(process.pid) not in listed.stdout.split()


def test_the_verdict_is_onnxruntimes(real_project: ProjectDirectory, tmp_path: Path) -> None:
    differ = []
    for name, made in made_models(repeats(25, 300)):
        path = tmp_path / f"{name}.onnx"
        onnx.save(made, str(path))
        loads = _loads(path)
        given = ["-C", str(real_project.root), "register", str(path), "--name", "made"]
        done = run(*given)
        if done.exit_code == 0:
            done = run("-C", str(real_project.root), "build", "made", "--platform", "linux/amd64")
        if (done.exit_code == 0) != loads:
            differ.append(f"{name}: onnxruntime loads it: {loads}; {done.stderr}")
    assert differ == []


def _loads(path: Path) -> bool:
    try:
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception:  # its errors share no other class
        return False
    return True
