"""Reading models: what is found in good ones, and what is said of bad ones."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from mlpack.errors import MlpackError, UsageError
from mlpack.project.importers.estimator import EstimatorOptions
from mlpack.project.importers.estimator_pickle import Untrusted
from mlpack.project.importers.reading import read_model
from mlpack.project.importers.source import ModelSource, UnreadableModel, measure, read_scoring
from tests.support import SHARED, repeats, require, tiny_onnx

CHECKOUT = Path(__file__).resolve().parents[2]


def reading(path: Path, *, trust: bool = False, features: int | None = None) -> ModelSource:
    return read_model(path, EstimatorOptions(trusted=trust, features=features))


def with_external(path: Path, location: str, **said: int) -> Path:
    """A model whose one weight of 4 floats says it lies at ``location``."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **said}.items():
        weight.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def custom_operator(path: Path, *, local: bool) -> Path:
    """A model with an operator of its own domain, which it may define itself."""
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="my.ops")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", None])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    twice = helper.make_function(
        "my.ops", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], imports[:1]
    )
    functions = [twice] if local else []
    model = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_an_onnx_file_says_its_signature_and_needs(tmp_path: Path) -> None:
    found = reading(tiny_onnx(tmp_path / "m.onnx"))
    assert found.framework == "onnx"
    assert found.graph is not None
    assert [str(each) for each in found.graph.signature.inputs] == ["x: float32 [N, 4]"]
    assert [str(each) for each in found.graph.signature.outputs] == ["y: float32 [N, 1]"]
    assert (found.graph.opsets, found.graph.domains) == ({"ai.onnx": 17}, ("ai.onnx",))
    assert found.graph.ir_version == 8
    assert [file.path for file in measure(found)] == ["m.onnx"]


@pytest.mark.parametrize("local", [True, False])
def test_custom_domains_count_unless_the_model_defines_them(tmp_path: Path, local: bool) -> None:
    found = reading(custom_operator(tmp_path / "m.onnx", local=local)).graph
    assert found is not None
    assert found.domains == (("ai.onnx",) if local else ("my.ops",))
    assert found.signature.inputs[0].shape == (None, 4)
    assert found.signature.outputs[0].shape == ("N", None)


def test_operators_inside_branches_are_found(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["z"], domain="com.microsoft")],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = reading(tmp_path / "m.onnx").graph
    assert found is not None
    assert found.domains == ("ai.onnx", "com.microsoft")


@pytest.mark.parametrize(
    ("name", "opset", "domains", "inputs"),
    [
        ("mnist-early-model.onnx", 1, ("ai.onnx",), ["Input3: float32 [1, 1, 28, 28]"]),
        ("shufflenet-v2-12-int8.onnx", 12, ("ai.onnx", "com.microsoft"), None),
        ("version-RFB-320.onnx", 9, ("ai.onnx",), ["input: float32 [1, 3, 240, 320]"]),
        ("super_resolution-early.onnx", 10, ("ai.onnx",), None),
    ],
)
def test_real_models_are_read(
    name: str, opset: int, domains: tuple[str, ...], inputs: list[str] | None
) -> None:
    found = reading(require(SHARED / "onnx-zoo" / name)).graph
    assert found is not None
    assert (found.opsets["ai.onnx"], found.domains) == (opset, domains)
    assert len(found.signature.inputs) == 1, "weights listed as inputs are no inputs"
    assert inputs is None or [str(each) for each in found.signature.inputs] == inputs


def test_external_data_comes_along(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(b"\0" * 16)
    found = reading(with_external(tmp_path / "m.onnx", "weights/w.bin", length=16))
    assert [file.path for file in measure(found)] == ["m.onnx", "weights/w.bin"]


def outside(tmp_path: Path) -> Path:
    (tmp_path.parent / "outside.bin").write_bytes(b"\0" * 16)
    (tmp_path / "link.bin").symlink_to(tmp_path.parent / "outside.bin")
    return with_external(tmp_path / "m.onnx", "link.bin")


def short(tmp_path: Path, **said: int) -> Path:
    (tmp_path / "w.bin").write_bytes(b"\0" * 15)
    return with_external(tmp_path / "m.onnx", "w.bin", **said)


def huge_dims(tmp_path: Path) -> Path:
    model = onnx.load(str(tiny_onnx(tmp_path / "m.onnx")))
    model.graph.initializer[0].dims[:] = [10**9, 10**9]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "m.onnx"


def cut(tmp_path: Path, count: int) -> Path:
    path = tiny_onnx(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:count])
    return path


def content(tmp_path: Path, start: bytes, name: str = "m.onnx") -> Path:
    (tmp_path / name).write_bytes(start)
    return tmp_path / name


def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def sparse(tmp_path: Path) -> Path:
    with (tmp_path / "m.onnx").open("wb") as out:
        out.truncate(2**31)
    return tmp_path / "m.onnx"


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p / "m.onnx", "does not exist"),
    "empty": (lambda p: content(p, b""), "is empty"),
    "text": (lambda p: content(p, b"hello world\n" * 9), "is not an ONNX file$"),
    "zeros": (lambda p: content(p, b"\0" * 99), "is not an ONNX file$"),
    "csv": (lambda p: content(p, b"a,b\n1,2\n", "m.csv"), "is not an ONNX file$"),
    "pickle": (lambda p: content(p, b"\x80\x04K\x01."), "not an ONNX file but a pickle"),
    "zip": (lambda p: content(p, b"PK\x03\x04rest"), "ZIP archive"),
    "keras": (lambda p: content(p, b"\x89HDF\r\n\x1a\n"), "HDF5"),
    "tflite": (lambda p: content(p, b"\x1c\0\0\0TFL3rest"), "TensorFlow Lite"),
    "lfs": (lambda p: content(p, b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "html": (lambda p: content(p, b"<!doctype html>"), "HTML"),
    "truncated": (lambda p: cut(p, 100), "is cut short or damaged"),
    "only a start": (lambda p: cut(p, 2), "is cut short or damaged"),
    "huge dims": (huge_dims, "raw_data size"),
    "pipe": (fifo, "is not a regular file, but a device, socket or pipe"),
    "too long": (sparse, "at most 2147483647"),
    "up": (lambda p: with_external(p / "m.onnx", "../w.bin"), "outside its directory"),
    "inner up": (lambda p: with_external(p / "m.onnx", "a/../../w.bin"), "outside its directory"),
    "absolute": (lambda p: with_external(p / "m.onnx", "/etc/hostname"), "outside its directory"),
    "no place": (lambda p: with_external(p / "m.onnx", ""), "outside its directory"),
    "link": (outside, "a link out of its directory"),
    "absent": (lambda p: with_external(p / "m.onnx", "w.bin"), "which is missing"),
    "short": (short, "16 bytes at 0 of w.bin, which has 15"),
    "huge": (lambda p: short(p, length=10**15), "1000000000000000 bytes"),
    "far": (lambda p: short(p, offset=10**15), "bytes at 1000000000000000 of"),
    "negative": (lambda p: short(p, offset=-16), "bytes at -16 of"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    make, said = BAD_FILES[case]
    with pytest.raises(UnreadableModel, match=said) as caught:
        reading(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@given(cut=st.integers(0, 141), flip=st.integers(0, 141), bit=st.integers(0, 7))
@settings(
    max_examples=repeats(50, 150), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_never_raises_anything_else(tmp_path: Path, cut: int, flip: int, bit: int) -> None:
    path = tiny_onnx(tmp_path / "m.onnx")
    damaged = bytearray(path.read_bytes())
    damaged[flip] ^= 1 << bit
    path.write_bytes(damaged[: len(damaged) - cut])
    try:
        found = reading(path)
    except MlpackError as error:
        assert "\n" not in str(error)
    else:
        assert found.graph is not None


def test_a_directory_is_all_its_files(tmp_path: Path) -> None:
    for name in ("labels.txt", "sub/deep/w.bin", ".git/config", "__pycache__/a.pyc", "empty"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" if name != "empty" else b"")
    (tmp_path / "again.txt").symlink_to("labels.txt")
    (tmp_path / "also").symlink_to("sub/deep")
    found = reading(tmp_path)
    assert found.framework == "directory"
    assert found.graph is None
    paths = [file.path for file in measure(found)]
    assert paths == ["again.txt", "also/w.bin", "empty", "labels.txt", "sub/deep/w.bin"]
    assert found.notes == ("left out: .git, __pycache__",)


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["model.onnx"], True),
        (["net.onnx"], True),
        (["sub/net.onnx"], True),
        (["model.onnx", "other.onnx"], True),
        (["a.onnx", "b.onnx"], False),
    ],
)
def test_the_one_onnx_file_of_a_directory_is_read(
    tmp_path: Path, names: list[str], read: bool
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tiny_onnx(tmp_path / name)
    assert (reading(tmp_path).graph is not None) is read


def test_a_pickle_in_a_directory_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"x")
    assert "model.pkl: whoever loads a pickle" in reading(tmp_path).notes[0]


def link(path: Path, target: str) -> None:
    path.symlink_to(target)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


BAD_DIRECTORIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: None, "is an empty directory"),
    "only ignored": (lambda p: (p / ".DS_Store").write_bytes(b"x"), "is an empty directory"),
    "link out": (lambda p: link(p / "a", "/etc/hostname"), "symlink out of the directory"),
    "link up": (lambda p: link(p / "a", "../../x"), "link (out|to nothing)"),
    "directory out": (lambda p: link(p / "a", "/etc"), "symlink out of the directory"),
    "to itself": (lambda p: link(p / "a", "a"), "circular link"),
    "to its parent": (lambda p: link(p / "a", "."), "a directory it lies in"),
    "to nothing": (lambda p: link(p / "a", "b"), "link to nothing"),
    "pipe": (lambda p: os.mkfifo(p / "a"), "device, socket or pipe"),
    "socket": (lambda p: unix_socket(p / "a"), "device, socket or pipe"),
    "whiteout": (lambda p: (p / ".wh.a").write_bytes(b"x"), "looks like a whiteout"),
    "backslash": (lambda p: (p / "a\\b").write_bytes(b"x"), "not a relative path"),
    "not UTF-8": (lambda p: Path(os.fsdecode(bytes(p) + b"/\xff")).write_bytes(b""), "not UTF-8"),
    "bad model": (lambda p: (p / "model.onnx").write_bytes(b"x"), "is not an ONNX file"),
}


@pytest.mark.parametrize("case", BAD_DIRECTORIES)
def test_a_bad_directory_is_refused(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = BAD_DIRECTORIES[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    make(Path("m"))
    with pytest.raises(UnreadableModel, match=said) as caught:
        reading(Path("m"))
    assert caught.value.hint


def readings(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    made = np.random.default_rng(1).normal(size=(count, 4))
    return made, (made.sum(axis=1) > 0).astype(int)


def predict(source: ModelSource, batch: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    made = next(iter(source.content.values()))
    assert isinstance(made, bytes)
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    answers: list[np.ndarray] = session.run(None, {"X": batch.astype(np.float32)})
    return answers


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(5, random_state=1),
        LinearRegression(),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize("suffix", ["joblib", "pkl"])
def test_an_estimator_is_converted_and_not_shipped(
    tmp_path: Path, estimator: LogisticRegression, suffix: str
) -> None:
    batch, answers = readings()
    path = tmp_path / f"m.{suffix}"
    fitted = estimator.fit(batch, answers)
    if suffix == "pkl":
        path.write_bytes(pickle.dumps(fitted))
    else:
        joblib.dump(fitted, path)
    found = reading(path, trust=True)
    assert (found.framework, list(found.content)) == ("sklearn", ["m.onnx"])
    assert found.graph is not None
    assert [str(each) for each in found.graph.signature.inputs] == ["X: float32 [?, 4]"]
    predicted = predict(found, batch)[0].ravel()
    assert np.allclose(predicted, fitted.predict(batch.astype(np.float32)).ravel(), atol=1e-4)
    assert "is not shipped" in found.notes[0]
    assert measure(reading(path, trust=True)) == measure(found), "converted again, other bytes"


@pytest.mark.slow
def test_conversion_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    joblib.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(*readings()), path)
    code = (
        "import sys; from pathlib import Path; "
        "from mlpack.project.importers.estimator import EstimatorOptions, read_estimator as read; "
        "found = read(Path(sys.argv[1]), EstimatorOptions(trusted=True)); "
        "sys.stdout.buffer.write(found.content['m.onnx'])"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            cwd=CHECKOUT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(made) == 1


def test_probabilities_are_a_tensor(tmp_path: Path) -> None:
    batch, answers = readings()
    joblib.dump(LogisticRegression().fit(batch, answers), tmp_path / "m.joblib")
    found = predict(reading(tmp_path / "m.joblib", trust=True), batch)
    assert found[1].shape == (len(batch), 2)


class Evil:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return os.symlink, ("loaded", str(self.path))


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "m.pickle", "m", "m.model"])
def test_a_pickle_is_not_loaded_without_the_word(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Evil(tmp_path / "evidence")))
    with pytest.raises(Untrusted, match="runs the code in it") as caught:
        reading(tmp_path / name)
    assert "--trust-pickle" in caught.value.hint
    assert not (tmp_path / "evidence").is_symlink()


def dump(path: Path, value: object) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


class Unknown(LogisticRegression):  # type: ignore[misc]
    pass


BAD_PICKLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "text": (lambda p: p.write_bytes(b"hello"), "cannot be loaded"),
    "cut short": (lambda p: p.write_bytes(pickle.dumps([1] * 99)[:50]), "cannot be loaded"),
    "no estimator": (
        lambda p: dump(p, {"a": 1}),
        "holds an object of type dict",
    ),
    "missing module": (
        lambda p: p.write_bytes(b"cno_such_module\nThing\n."),
        "Python module 'no_such_module'",
    ),
    "huge size": (lambda p: p.write_bytes(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f."), "cannot be"),
    "deep": (lambda p: p.write_bytes(b"\x80\x04" + b"(" * 100_000 + b"."), "cannot be loaded"),
    "unfitted": (lambda p: dump(p, LogisticRegression()), "was never fitted"),
    "unknown": (lambda p: dump(p, Unknown().fit(*readings())), "has no converter for .*Unknown"),
}


@pytest.mark.parametrize("case", BAD_PICKLES)
def test_a_bad_pickle_is_refused(tmp_path: Path, case: str) -> None:
    make, said = BAD_PICKLES[case]
    make(tmp_path / "m.pkl")
    with pytest.raises(UnreadableModel, match=said) as caught:
        reading(tmp_path / "m.pkl", trust=True, features=None if case == "unknown" else 4)
    assert "\n" not in str(caught.value)


def test_the_number_of_columns_is_asked_for_and_compared(tmp_path: Path) -> None:
    dump(tmp_path / "silent.pkl", Normalizer())
    with pytest.raises(UsageError, match="does not say how many") as caught:
        reading(tmp_path / "silent.pkl", trust=True)
    assert "--features" in caught.value.hint
    dump(tmp_path / "fitted.pkl", LogisticRegression().fit(*readings()))
    with pytest.raises(UsageError, match="takes 4 input columns, --features says 5"):
        reading(tmp_path / "fitted.pkl", trust=True, features=5)


def test_a_pickle_of_another_scikit_learn_says_so(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(*readings())
    made = pickle.dumps(fitted)
    import sklearn

    old = made.replace(sklearn.__version__.encode(), b"1.0.1"[: len(sklearn.__version__)])
    (tmp_path / "m.pkl").write_bytes(old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = reading(tmp_path / "m.pkl", trust=True)
    assert "1.0.1" in found.notes[0]
    assert found.compared is not None


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("def init(): ...\ndef run(raw): ...\n", 0),
        ("from shared import init, run\n", 0),
        ("from shared import *\n", 0),
        ("run = print\nasync def init(): ...\n", 0),
        ("def run(raw): ...\n", 1),
        ("x = 1\n", 1),
    ],
)
def test_a_scoring_script_is_read(tmp_path: Path, text: str, notes: int) -> None:
    (tmp_path / "s.py").write_text(text)
    assert len(read_scoring(tmp_path / "s.py")) == notes


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"def run(:\n", r"s\.py:1: "),
        (b"", "is empty"),
        (b"x = '\0'\n", "s.py"),
        (b"\xff\xfe", "s.py"),
        (b"x = " + b"+".join([b"1"] * 5000) + b"\n", "nested too deeply"),
        (b"#" * (1024 * 1024 + 1), "more than the 1048576"),
    ],
)
def test_a_bad_scoring_script_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "s.py").write_bytes(content)
    with pytest.raises(UnreadableModel, match=said):
        read_scoring(tmp_path / "s.py")
