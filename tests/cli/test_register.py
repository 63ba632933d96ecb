"""``mlpack register``, ``models`` and ``show``, as a user types them."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import pytest
from sklearn.linear_model import LinearRegression

from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.stores.integrity import validate
from tests.support import SHARED, make_project, require, run, tiny_onnx

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    return make_project(tmp_path / "p")


def mlpack(project: ProjectDirectory, *args: str, status: int = 0) -> tuple[str, str]:
    done = run("-C", str(project.root), *args)
    assert done.exit_code == status, done.stderr
    return done.stdout, done.stderr


def registered(project: ProjectDirectory, *args: str) -> dict[str, object]:
    found = json.loads(mlpack(project, "--json", "register", *args)[0])
    assert isinstance(found, dict)
    return found


def test_a_model_becomes_version_1_and_its_name_is_printed(project: ProjectDirectory) -> None:
    tiny_onnx(project.root / "fan.onnx")
    out, err = mlpack(project, "register", "fan.onnx", "--metric", "accuracy=0.98")
    assert out == "fan:1\n"
    assert err == "registered fan:1: fan.onnx, 142 B\n"
    assert validate(project.layout) == ()


def test_an_estimator_is_compared_with_what_it_is_converted_to(project: ProjectDirectory) -> None:
    line = LinearRegression().fit([[1.0, 0.0], [2.0, 1.0]], [1.0, 3.0])
    joblib.dump(line, project.root / "line.joblib")
    (project.root / "rows.csv").write_text("1,2\n3,4\n5,6\n")
    made = registered(project, "line.joblib", "--trust-pickle")
    compared = made["compared"]
    assert isinstance(compared, dict)
    assert (compared["check"], compared["inputs"]) == ("", "float32")
    assert compared["difference"]["max_error"] < 1e-5
    assert compared["difference"]["unequal"] is None
    given = registered(project, "line.joblib", "--trust-pickle", "--check", "rows.csv")
    assert given["already"] is True
    assert isinstance(given["compared"], dict)
    assert (given["compared"]["rows"], len(given["compared"]["check"])) == (3, 64)
    shown, _ = mlpack(project, "show", "fan:1")
    assert "on 3 rows of sha256" in shown
    assert "converted by   onnxruntime" in shown


def test_rows_are_compared_for_an_estimator_only(project: ProjectDirectory) -> None:
    tiny_onnx(project.root / "fan.onnx")
    _, err = mlpack(project, "register", "fan.onnx", "--check", "rows.csv", status=1)
    assert "rows.csv does not exist" in err
    (project.root / "rows.csv").write_text("1\n")
    _, err = mlpack(project, "register", "fan.onnx", "--check", "rows.csv", status=2)
    assert "is not an estimator" in err


def test_paths_are_relative_to_the_directory_of_c(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    tiny_onnx(tmp_path / "elsewhere.onnx")
    mlpack(project, "register", "elsewhere.onnx", status=1)
    mlpack(project, "register", "../elsewhere.onnx")
    mlpack(project, "register", str(tmp_path / "elsewhere.onnx"), "--name", "other")


def test_the_same_content_keeps_its_version_and_gains_what_is_said(
    project: ProjectDirectory,
) -> None:
    tiny_onnx(project.root / "fan.onnx")
    tiny_onnx(project.root / "renamed.onnx")
    mlpack(project, "register", "fan.onnx", "--metric", "accuracy=0.98", "--tag", "stage=lab")
    out, err = mlpack(project, "register", "fan.onnx", "--metric", "f1=0.9", "--tag", "stage=field")
    assert out == "fan:1\n"
    assert "the same content is fan:1 already\nadded to fan:1: stage=field, f1=0.9\n" in err
    again = registered(project, "renamed.onnx")
    assert (again["version"], again["already"]) == ("1", True)
    assert again["metrics"] == {"accuracy": "0.98", "f1": "0.9"}
    assert again["notes"] == [
        "the same content is fan:1 already, where the file is called fan.onnx"
    ]


def test_new_content_takes_the_next_number(project: ProjectDirectory) -> None:
    for number in range(1, 4):
        tiny_onnx(project.root / "fan.onnx", bias=number)
        assert registered(project, "fan.onnx")["version"] == str(number)
    tiny_onnx(project.root / "fan.onnx", bias=9)
    assert registered(project, "fan.onnx", "--version", "10")["version"] == "10"
    tiny_onnx(project.root / "fan.onnx", bias=10)
    _, err = mlpack(project, "register", "fan.onnx", "--version", "10", status=1)
    assert err.startswith("error: fan:10 holds other content (")
    assert "hint: leave --version out" in err


def test_a_scoring_script_comes_from_the_settings_or_the_command(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    text = (project.root / "mlpack.toml").read_text()
    settings = text.replace('"fan"\n', '"fan"\nscoring = "score.py"\n', 1)
    (project.root / "mlpack.toml").write_text(settings)
    tiny_onnx(project.root / "fan.onnx")
    missing = registered(project, "fan.onnx")
    assert missing["scoring"] is None
    assert "names score.py, which is not there" in str(missing["notes"])
    (project.root / "score.py").write_text("def init(): ...\ndef run(raw): ...\n")
    assert registered(project, "fan.onnx")["version"] == "2"
    (project.root / "my.py").write_text("def init(): ...\ndef run(raw): return raw\n")
    given = registered(project, "fan.onnx", "--scoring", "my.py")
    assert given["version"] == "3"
    assert isinstance(given["scoring"], dict)
    assert given["scoring"]["path"] == "score.py"


def test_metrics_come_from_a_file_and_from_the_command(project: ProjectDirectory) -> None:
    tiny_onnx(project.root / "fan.onnx")
    (project.root / "metrics.json").write_text('{"accuracy": 0.9515, "loss": 1e-05, "rows": 4000}')
    found = registered(project, "fan.onnx", "--metrics", "metrics.json", "--metric", "accuracy=1")
    assert found["metrics"] == {"accuracy": "1", "loss": "0.00001", "rows": "4000"}


def test_the_commit_is_git_s_unless_it_is_given(project: ProjectDirectory) -> None:
    tiny_onnx(project.root / "fan.onnx")
    git = ["git", "-C", str(project.root), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "mlpack.toml"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert registered(project, "fan.onnx")["source_commit"] == head.stdout.strip()
    tiny_onnx(project.root / "fan.onnx", bias=2)
    with (project.root / "mlpack.toml").open("a") as out:
        out.write("\n# changed\n")
    assert registered(project, "fan.onnx")["source_commit"] == f"{head.stdout.strip()}-dirty"
    tiny_onnx(project.root / "fan.onnx", bias=3)
    found = registered(project, "fan.onnx", "--source-commit", "abc")
    assert found["source_commit"] == "abc"


def test_a_model_the_base_cannot_run_is_registered_and_said(project: ProjectDirectory) -> None:
    path = require(SHARED / "onnx-zoo" / "mnist-early-model.onnx")
    notes = str(registered(project, str(path), "--name", "mnist")["notes"])
    assert "its opset 1 is older than 7" in notes
    assert "mlpack build starts the release and decides" in notes


def test_a_lock_that_cannot_be_read_does_not_stop_a_registration(project: ProjectDirectory) -> None:
    (project.root / "mlpack.lock").write_text("version = 1")
    out, err = mlpack(project, "register", str(tiny_onnx(project.root / "m.onnx")))
    assert out == "fan:1\n"
    assert "whether the base can run it is not known: mlpack.lock was changed by hand" in err


def bad_input(project: ProjectDirectory) -> None:
    (project.root / "empty.onnx").write_bytes(b"")
    (project.root / "empty.pkl").write_bytes(b"")
    (project.root / "text.onnx").write_text("hello")
    (project.root / "m.joblib").write_bytes(pickle.dumps({"a": 1}))
    (project.root / "folder").mkdir()
    (project.root / "folder" / "link").symlink_to("/etc/hostname")
    (project.root / "metrics.json").write_text('{"accuracy": "high"}')
    (project.root / "list.json").write_text("[1, 2]")
    (project.root / "null.py").write_bytes(b"\0")
    (project.root / "named").mkdir()
    (project.root / "named" / "a\nb").write_text("x")
    cut = tiny_onnx(project.root / "cut.onnx")
    cut.write_bytes(cut.read_bytes()[:-20])
    tiny_onnx(project.root / "fan.onnx")


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["absent.onnx"], 1, "does not exist"),
        (["empty.onnx"], 1, "is empty (0 bytes)"),
        (["empty.pkl", "--trust-pickle"], 1, "is empty (0 bytes)"),
        (["text.onnx"], 1, "is not an ONNX file"),
        (["cut.onnx"], 1, "is cut short or damaged"),
        (["m.joblib"], 1, "is a pickle: loading it runs the code in it"),
        (["m.joblib", "--trust-pickle"], 1, "not a scikit-learn estimator"),
        (["folder"], 1, "is a symlink out of the directory"),
        (["fan.onnx", "--name", "x/.."], 2, "'x/..' is not a model name"),
        (["fan.onnx", "--name", "../x"], 2, "'../x' is not a model name"),
        (["fan.onnx", "--version", "1/.."], 2, "'1/..' is not a version"),
        (["fan.onnx", "--version", "latest"], 2, "means the newest version"),
        (["fan.onnx", "--metric", "accuracy=good"], 2, "not a number"),
        (["fan.onnx", "--metrics", "metrics.json"], 1, "metrics.json.accuracy: is not a number"),
        (["fan.onnx", "--metrics", "list.json"], 1, "list.json: is not an object"),
        (["fan.onnx", "--metrics", "none.json"], 1, "none.json does not exist"),
        (["fan.onnx", "--scoring", "none.py"], 1, "none.py does not exist"),
        (["fan.onnx", "--scoring", "folder"], 1, "folder is not a regular file"),
        (["fan.onnx", "--scoring", "null.py"], 1, "null.py: source code string cannot contain"),
        (["fan.onnx", "--tag", "why=a\nb"], 2, "tag 'why' is 'a\\nb': a line break"),
        (["fan.onnx", "--tag", "why=" + "x" * 257], 2, "tag 'why' has 257 characters"),
        (["fan.onnx", "--name", "none"], 2, "'none' cannot be a model name"),
        (["fan.onnx", "--features", "4"], 2, "fan.onnx is not an estimator"),
        (["folder", "--features", "4"], 2, "folder is not an estimator"),
        (["named"], 1, "holds a line break or control character"),
        (["."], 1, "holds the project's store"),
        ([".mlpack/oci/blobs"], 1, "is in the project's store"),
        (["two\nlines.onnx"], 1, "two\\nlines.onnx does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_leaves_nothing(
    project: ProjectDirectory, args: list[str], status: int, said: str
) -> None:
    bad_input(project)
    before = sorted(project.layout.root.rglob("*"))
    out, err = mlpack(project, "register", *args, status=status)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert out == ""
    assert len(errors) == 1
    assert said in errors[0]
    assert err.splitlines()[0] == errors[0]
    assert [line.partition(" ")[0] for line in err.splitlines()[1:]] == ["hint:"]
    assert sorted(project.layout.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (["--tag", "x"], "write it as --tag NAME=VALUE"),
        (["--metric", "=1"], "write it as --metric NAME=NUMBER"),
        (["--features", "0"], "see: mlpack register --help"),
        ([], "see: mlpack register --help"),
    ],
)
def test_wrong_usage_is_status_2(project: ProjectDirectory, args: list[str], advice: str) -> None:
    path = ["fan.onnx"] if args else []
    done = subprocess.run(
        [sys.executable, "-m", "mlpack", "-C", str(project.root), "register", *path, *args],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        check=False,
    )
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint == f"hint: {advice}"


def test_processes_at_once_take_different_versions(project: ProjectDirectory) -> None:
    count = 4
    started = []
    for number in range(count):
        path = tiny_onnx(project.root / f"{number}.onnx", bias=number)
        command = [sys.executable, "-m", "mlpack", "-C", str(project.root), "register", path.name]
        started.append(
            subprocess.Popen(
                command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    said = []
    for process in started:
        out, err = process.communicate()
        assert process.returncode == 0, err
        said.append(out.strip())
    assert sorted(said) == [f"fan:{number}" for number in range(1, count + 1)]
    held = ModelStore(project.layout).versions("fan")
    assert {each.files[0].path for each in held} == {f"{number}.onnx" for number in range(count)}
    assert validate(project.layout) == ()


@pytest.mark.slow
def test_an_interrupted_registration_leaves_nothing(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    with (folder / "weights.bin").open("wb") as out:
        out.truncate(1_000_000_000)
    before = sorted(project.layout.root.rglob("*"))
    with subprocess.Popen(
        [sys.executable, "-m", "mlpack", "-C", str(project.root), "register", str(folder)],
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not any(path.stat().st_size for path in project.root.rglob(".part-*")):
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "error: interrupted; nothing half-done was left\n"
    assert sorted(project.layout.root.rglob("*")) == before
    assert validate(project.layout) == ()


def test_content_lost_from_the_store_comes_back_by_registering_again(
    project: ProjectDirectory,
) -> None:
    tiny_onnx(project.root / "fan.onnx")
    mlpack(project, "register", "fan.onnx")
    held = ModelStore(project.layout).get("fan")
    (project.layout.root / "blobs" / "sha256" / held.files[0].digest.hex).unlink()
    assert len(validate(project.layout)) == 1
    mlpack(project, "register", "fan.onnx")
    assert validate(project.layout) == ()


def test_versions_whose_releases_would_share_a_name_are_refused(project: ProjectDirectory) -> None:
    tiny_onnx(project.root / "m.onnx")
    mlpack(project, "register", "m.onnx", "--name", "fan", "--version", "b-1")
    _, err = mlpack(project, "register", "m.onnx", "--name", "fan-b", status=1)
    assert "fan-b:1 and fan:b-1 would both be released as fan-b-1" in err
    mlpack(project, "register", "m.onnx", "--name", "fan-b", "--version", "2")
    tiny_onnx(project.root / "m.onnx", bias=3)
    _, err = mlpack(project, "register", "m.onnx", "--version", "b-2", status=1)
    assert "fan:b-2 and fan-b:2 would both be released as fan-b-2" in err


def test_nothing_of_the_machine_reaches_the_content(tmp_path: Path) -> None:
    digests = set()
    for number, mask in enumerate((0o022, 0o077)):
        before = os.umask(mask)
        try:
            project = make_project(tmp_path / f"project {number}")
            folder = project.root / "model"
            folder.mkdir()
            for name in ("b", "a") if number else ("a", "b"):
                (folder / name).write_text(name)
            digests.add(registered(project, "model")["digest"])
        finally:
            os.umask(before)
    assert len(digests) == 1


def test_models_lists_what_there_is(project: ProjectDirectory) -> None:
    assert json.loads(mlpack(project, "--json", "models")[0]) == {"models": [], "damaged": {}}
    out, err = mlpack(project, "models")
    assert (out, err) == ("", "no model is registered yet: mlpack register PATH\n")
    tiny_onnx(project.root / "fan.onnx")
    mlpack(project, "register", "fan.onnx", "--metric", "accuracy=0.98")
    mlpack(project, "register", "fan.onnx", "--name", "van")
    out, _ = mlpack(project, "models")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["model", "version", "kind", "bytes", "metrics", "registered", "(UTC)"]
    assert lines[2][:7] == ["fan", "1", "onnx", "142", "B", "accuracy", "0.98"]
    assert len(json.loads(mlpack(project, "--json", "models")[0])["models"]) == 2
    assert len(json.loads(mlpack(project, "--json", "models", "van")[0])["models"]) == 1
    _, err = mlpack(project, "models", "bus", status=1)
    assert err.startswith("error: there is no model 'bus' here (there is: fan, van)\nhint: ")


def test_show_says_all_of_one_version(project: ProjectDirectory) -> None:
    tiny_onnx(project.root / "fan.onnx")
    (project.root / "s.py").write_text("def init(): ...\ndef run(raw): ...\n")
    said = ["--metric", "accuracy=0.98", "--tag", "stage=lab", "--source-commit", "abc"]
    mlpack(project, "register", "fan.onnx", "--scoring", "s.py", *said)
    out, _ = mlpack(project, "show", "fan")
    for line in (
        "fan:1  (onnx, 176 B)",
        "  release        none yet: mlpack build fan:1",
        "  commit         abc",
        "  file           fan.onnx  142 B",
        "  scoring        score.py  34 B",
        "  input          x: float32 [N, 4]",
        "  output         y: float32 [N, 1]",
        "  opsets         ai.onnx 17 (file format 8)",
        "  metric         accuracy = 0.98",
        "  tag            stage = lab",
    ):
        assert line in out.splitlines()
    assert json.loads(mlpack(project, "--json", "show", "fan:1")[0])["release_digest"] is None
    built = json.loads(mlpack(project, "--json", "build", "fan:1")[0])
    assert (
        json.loads(mlpack(project, "--json", "show", "fan:1")[0])["release_digest"]
        == built["digest"]
    )
    assert built["digest"] in mlpack(project, "show", "fan:1")[0]
    _, err = mlpack(project, "show", "fan:2", status=1)
    assert "has no version '2' (it has: 1)" in err
    mlpack(project, "show", "fan/..", status=2)


def test_a_build_reads_no_onnx(project: ProjectDirectory) -> None:
    tiny_onnx(project.root / "fan.onnx")
    mlpack(project, "register", "fan.onnx")
    for command in (["build", "fan"], ["show", "fan"], ["models"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "mlpack", "-C", str(project.root), *command],
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            check=True,
        )
        found = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
        assert not found & {"onnx", "numpy", "google.protobuf", "sklearn", "joblib"}
