"""``mlpack round``: a trained model, rounded within bounds, registered as what was checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mlpack.model.version import ModelVersion
from mlpack.project.directory import ModelStore, ProjectDirectory
from tests.runtime.models import two_inputs
from tests.support import make_project, run

Array = NDArray[Any]
INPUTS, HIDDEN, CLASSES = 64, 128, 10


def readings(count: int, seed: int) -> tuple[Array, Array]:
    """Points around ten centres, and which centre each is around."""
    centres = np.random.default_rng(0).normal(0, 1, (CLASSES, INPUTS))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    return (centres[labels] + rng.normal(0, 1.5, (count, INPUTS))).astype(np.float32), labels


class Network:
    """Two layers, trained by gradient descent."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.first = rng.normal(0, 0.1, (INPUTS, HIDDEN))
        self.bias = np.zeros(HIDDEN)
        self.second = rng.normal(0, 0.1, (HIDDEN, CLASSES))

    def train(self, rows: Array, labels: Array, rate: float, rounds: int) -> None:
        for _ in range(rounds):
            hidden = np.maximum(rows @ self.first + self.bias, 0)
            scores = np.exp(hidden @ self.second)
            scores /= scores.sum(1, keepdims=True)
            scores[np.arange(len(rows)), labels] -= 1
            scores /= len(rows)
            back = (scores @ self.second.T) * (hidden > 0)
            self.second -= rate * hidden.T @ scores
            self.first -= rate * rows.T @ back
            self.bias -= rate * back.sum(0)

    def save(self, path: Path, *, data: str = "") -> Path:
        numbers = {"first": self.first, "bias": self.bias, "second": self.second}
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "first"], ["a"]),
                helper.make_node("Add", ["a", "bias"], ["b"]),
                helper.make_node("Relu", ["b"], ["c"]),
                helper.make_node("MatMul", ["c", "second"], ["d"]),
                helper.make_node("Softmax", ["d"], ["y"], axis=-1),
            ],
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", INPUTS])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
            [numpy_helper.from_array(v.astype(np.float32), k) for k, v in numbers.items()],
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        if data:
            onnx.save(model, path, save_as_external_data=True, location=data, size_threshold=0)
        else:
            onnx.save(model, path)
        return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models, one trained on from the other, and check data."""
    folder = tmp_path_factory.mktemp("trained")
    network = Network()
    network.train(*readings(2000, 2), rate=0.2, rounds=60)
    network.save(folder / "1.onnx")
    network.save(folder / "one" / "model.onnx", data="model.onnx.data")
    network.train(*readings(2000, 3), rate=0.05, rounds=20)
    network.save(folder / "2.onnx")
    network.save(folder / "two" / "model.onnx", data="model.onnx.data")
    rows, labels = readings(500, 4)
    np.savez(folder / "check.npz", x=rows, labels=labels)
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "fan", base=False)
    for each in ("1.onnx", "2.onnx"):
        done = run("-C", str(made.root), "register", str(trained / each), "--metric", "loss=0.5")
        assert done.exit_code == 0, done.stderr
    return made


def rounded(project: ProjectDirectory, check: Path, *args: str, exact: str = "fan:2") -> Any:  # noqa: ANN401
    return run(
        *("-C", str(project.root), "round", exact, "--onto", "fan:1", "--check", str(check)), *args
    )


def versions(project: ProjectDirectory) -> list[ModelVersion]:
    return list(ModelStore(project.layout).versions("fan"))


def test_what_was_checked_is_registered_and_its_patch_is_a_fraction(
    project: ProjectDirectory, trained: Path, tmp_path: Path
) -> None:
    check = trained / "check.npz"
    done = rounded(project, check, "--max-error", "0.02", "--min-agreement", "99%", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    record = found["registered"]["derived"]
    assert found["exact_patch_bytes"] >= 4 * record["rounded_patch"]
    exact, anchor, made = (versions(project)[each] for each in (1, 0, 2))
    assert record["exact"] == {"version": "fan:2", "digest": str(exact.digest)}
    assert record["anchor"] == {"version": "fan:1", "digest": str(anchor.digest)}
    assert record["check"] == hashlib.sha256(check.read_bytes()).hexdigest()
    assert record["rows"] == 500
    assert 0 < record["max_error"] <= 0.02 == record["max_error_allowed"]
    assert 0.99 <= record["agreement"] <= 1
    assert min(record["exact_accuracy"], record["rounded_accuracy"]) > 0.5
    found_again = rounded(project, check, "--keep-bits", "2", "--min-accuracy", "50%", "--json")
    assert json.loads(found_again.stdout)["registered"]["derived"]["accuracy_wanted"] == 0.5
    for each, point in zip(found["attempts"], record["curve"], strict=True):
        assert (each["patch_bytes"], each["max_error"]) == (point["patch"], point["max_error"])
        assert bool(each["broken"]) == (each["patch_bytes"] < record["rounded_patch"])
    errors = [each["max_error"] for each in record["curve"]]
    assert errors == sorted(errors, reverse=True)
    assert (made.metrics, made.signature) == ({}, exact.signature)
    # What devices rebuild from the patch is what was scored, byte for byte.
    args = ("patch", "make", "fan:1", "fan:3", "-o", str(tmp_path / "p"))
    assert run("-C", str(project.root), *args).exit_code == 0
    assert (tmp_path / "p").stat().st_size == record["rounded_patch"]
    out = tmp_path / "out.onnx"
    args = ("patch", "apply", str(trained / "1.onnx"), str(tmp_path / "p"), "-o", str(out))
    assert run(*args).exit_code == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() == made.files[0].digest.hex
    errors = np.abs(_answers(trained / "2.onnx", check) - _answers(out, check))
    assert errors.max() == record["max_error"]


def _answers(path: Path, check: Path) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes())
    rows = np.load(check)["x"]
    made = [session.run(None, {"x": rows[at : at + 32]})[0] for at in range(0, len(rows), 32)]
    answers: Array = np.concatenate(made).astype(np.float64)
    return answers


def test_the_record_is_shown_and_survives_registering_again(
    project: ProjectDirectory, trained: Path
) -> None:
    check = trained / "check.npz"
    done = rounded(project, check, "--max-error", "0.05")
    assert (done.exit_code, done.stdout) == (0, "fan:3\n")
    assert "fan:2 onto fan:1, 500 rows" in done.stderr
    before = versions(project)[2]
    shown = run("-C", str(project.root), "show", "fan:3").stdout
    assert "rounded from   fan:2" in shown
    assert "(0.05 allowed)" in shown
    assert "accuracy" in shown
    assert "curve" in shown
    copy = trained / "copy.onnx"
    copy.write_bytes(project.layout.path(_blob(before)).read_bytes())
    assert run("-C", str(project.root), "register", str(copy)).stdout == "fan:3\n"
    assert versions(project)[2].derived == before.derived
    done = rounded(project, check, "--max-error", "0.05")
    assert (done.exit_code, done.stdout) == (0, "fan:3\n")
    assert "the same content is fan:3 already" in done.stderr
    assert "derived" not in json.loads(
        run("-C", str(project.root), "--json", "show", "fan:2").stdout
    )


def _blob(version: ModelVersion) -> Any:  # noqa: ANN401
    from mlpack.project.directory import blob

    return blob(version.files[0])


def test_beyond_the_bounds_nothing_is_registered(project: ProjectDirectory, trained: Path) -> None:
    check = trained / "check.npz"
    for args in (
        ("--max-error", "0"),
        ("--max-error", "0.0001", "--keep-bits", "0"),
    ):
        done = rounded(project, check, *args)
        assert (done.exit_code, done.stdout) == (3, ""), args
        assert "error: fan:2 cannot be rounded: with " in done.stderr
        assert "hint: " in done.stderr
        assert len(versions(project)) == 2


def test_a_dry_run_shows_several_sizes(project: ProjectDirectory, trained: Path) -> None:
    done = rounded(project, trained / "check.npz", "--dry-run", "--json")
    found = json.loads(done.stdout)
    sizes = [each["patch_bytes"] for each in found["attempts"]]
    assert sizes == sorted(sizes)
    assert sizes[0] * 8 < found["exact_patch_bytes"]
    dropped = [each["max_error"] for each in found["attempts"]]
    assert dropped[-1] * 16 < dropped[0]
    assert found["registered"] is None
    assert len(versions(project)) == 2
    text = rounded(project, trained / "check.npz", "--dry-run", "--max-error", "0.02").stdout
    assert "refused" in text
    assert "the exact version" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_model_with_external_data_is_rounded_in_its_data(trained: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path / "fan", base=False)
    for each in ("one", "two"):
        done = run("-C", str(project.root), "register", str(trained / each))
        assert done.exit_code == 0, done.stderr
    done = rounded(project, trained / "check.npz", "--max-error", "0.02")
    assert (done.exit_code, done.stdout) == (0, "fan:3\n"), done.stderr
    _, two, three = versions(project)
    same = {each.path for each in three.files} - {
        each.path for each, other in zip(three.files, two.files, strict=True) if each != other
    }
    assert same == {"model.onnx"}
    assert three.derived
    assert three.derived.exact_patch > 3 * three.derived.rounded_patch


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        ((), 2, "no bound says how far"),
        (("--max-error", "nan"), 2, "--max-error must be a number"),
        (("--max-error", "-1"), 2, "--max-error must be a number"),
        (("--max-error", "1", "--keep-bits", "99"), 2, "cannot be kept"),
        (("--max-error", "1", "--version", "2"), 1, "holds other content"),
        (("--max-error", "1", "--keep-bits", "nan"), 2, "cannot be kept"),
        (("--max-error", "1", "--min-agreement", "lots"), 2, "is not a share"),
    ],
)
def test_what_makes_no_sense_is_said(
    project: ProjectDirectory, trained: Path, args: tuple[str, ...], status: int, said: str
) -> None:
    done = rounded(project, trained / "check.npz", *args)
    assert (done.exit_code, done.stdout) == (status, ""), done.stderr
    assert said in done.stderr
    assert len(versions(project)) == 2


def test_versions_that_cannot_be_rounded(project: ProjectDirectory, trained: Path) -> None:
    check, bound = trained / "check.npz", ("--max-error", "0.05")
    done = rounded(project, check, *bound, exact="fan:1")
    assert (done.exit_code, "the same content" in done.stderr) == (1, True)
    assert rounded(project, check, *bound).exit_code == 0
    done = rounded(project, check, *bound, exact="fan:3")
    assert (done.exit_code, "rounded already, from fan:2" in done.stderr) == (2, True)
    assert rounded(project, check, *bound, exact="fan:9").exit_code == 1
    blob = project.layout.path(_blob(versions(project)[1]))
    blob.write_bytes(blob.read_bytes()[:-4] + b"nope")
    done = rounded(project, check, *bound, exact="fan:2")
    assert done.exit_code == 1
    assert "hint: " in done.stderr


ROWS = np.zeros((3, INPUTS), np.float32)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": ROWS.astype(float)}, "holds float64, not float32"),
        ({"x": ROWS[:, :5]}, "has shape [3, 5]; the model takes x tensor(float) [N, 64]"),
        ({"x": ROWS[0]}, "has shape [64]"),
        ({"x": ROWS[:0]}, "there are no rows"),
        ({"x": ROWS, "extra": ROWS}, "has no input 'extra'"),
        ({"a": ROWS, "b": ROWS}, "no array for input 'x' (there is: a, b)"),
        ({"labels": np.zeros(3)}, "no array for input 'x' (there is: no array)"),
        ({"x": ROWS, "labels": np.zeros(4)}, "4 labels for 3 decisions"),
        ({"x": np.array([{}, None])}, "'x.npy' is not an array of numbers"),
        ({}, "holds no array"),
    ],
)
def test_check_data_that_does_not_fit_is_said(
    project: ProjectDirectory, tmp_path: Path, arrays: dict[str, Array], said: str
) -> None:
    path = tmp_path / "check.npz"
    np.savez(path, allow_pickle=True, **arrays)
    done = rounded(project, path, "--max-error", "1")
    assert (done.exit_code, done.stdout) == (1, ""), done.stderr
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert len(versions(project)) == 2


def test_check_data_that_is_no_such_file_is_said(
    project: ProjectDirectory, trained: Path, tmp_path: Path
) -> None:
    whole = (trained / "check.npz").read_bytes()
    (tmp_path / "text").write_text("no zip")
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "other").write_bytes(whole[:2000] + b"changed" + whole[2007:])
    np.save(tmp_path / "one.npy", ROWS)
    for name in ("missing", "", "text", "cut", "other", "one.npy"):
        done = rounded(project, tmp_path / name, "--max-error", "1")
        assert (done.exit_code, done.stdout) == (1, ""), name
        assert done.stderr.startswith("error: "), name
        assert len(done.stderr.splitlines()) == 2, done.stderr


def test_an_archive_that_unpacks_to_very_much_is_refused_before_it_does(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    import zipfile

    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"")
        # What the archive's directory says, as it would of a member that is so large.
        archive.infolist()[0].file_size = 5 << 30
    done = rounded(project, path, "--max-error", "1")
    assert done.exit_code == 1
    assert "unpacks to more than 4 GiB" in done.stderr


def test_the_only_array_needs_no_name_and_labels_are_not_needed(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    np.savez_compressed(tmp_path / "check.npz", readings(40, 9)[0])
    done = rounded(project, tmp_path / "check.npz", "--max-error", "0.05", "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)["registered"]["derived"]
    assert (record["rows"], record["exact_accuracy"]) == (40, None)
    done = rounded(project, tmp_path / "check.npz", "--min-accuracy", "50%")
    assert (done.exit_code, "check.npz has no labels" in done.stderr) == (1, True)


def test_a_model_without_numbers_has_nothing_to_round(tmp_path: Path) -> None:
    project = make_project(tmp_path / "fan", base=False)
    for version in ("1", "2"):
        path = two_inputs(tmp_path / version / "model.onnx")
        model = onnx.load(path)
        model.producer_name = f"of version {version}"
        onnx.save(model, path)
        assert run("-C", str(project.root), "register", str(path)).exit_code == 0
    rows = np.ones((4, 2), np.float32)
    np.savez(tmp_path / "check.npz", a=rows, b=rows)
    done = rounded(project, tmp_path / "check.npz", "--max-error", "1")
    assert done.exit_code == 1
    assert "no array of floats changed" in done.stderr
