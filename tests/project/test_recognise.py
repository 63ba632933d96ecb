"""Models of other frameworks are recognised by their bytes, whatever they are called."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpack.project.importers import recipes
from mlpack.project.importers.estimator import EstimatorOptions
from mlpack.project.importers.estimator_pickle import Untrusted
from mlpack.project.importers.reading import read_model
from mlpack.project.importers.recipes import BOOSTERS, RECIPES
from mlpack.project.importers.recognise import recognise, recognise_protobuf
from mlpack.project.importers.source import UnreadableModel
from tests.support import tiny_onnx

PAGE = Path(__file__).resolve().parents[2] / "docs" / "start" / "your-model.md"


def archive(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return made.getvalue()


def field(number: int, content: bytes) -> bytes:
    """One field of bytes of a protobuf message."""
    key, length = number << 3 | 2, len(content)
    return varint(key) + varint(length) + content


def varint(value: int) -> bytes:
    made = b""
    while value >= 0x80:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0\0\0\0"


SAVED_MODEL = b"\x08\x01" + field(2, field(1, field(4, b"serve") + field(5, b"2.16.1")))
NODE = field(1, b"x") + field(2, b"Placeholder")
TORCH_BEFORE_1_6 = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, 2)

FILES: dict[str, tuple[bytes, str]] = {
    "PyTorch": (archive("m/data.pkl", "m/version", "m/data/0"), "a PyTorch model"),
    "PyTorch before 1.6": (TORCH_BEFORE_1_6, "a PyTorch model"),
    "TorchScript": (archive("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"), "TorchScript"),
    "torch.export": (archive("m/archive_format", "m/models/model.json"), "torch.export"),
    "Keras": (archive("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
    "Keras HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99) + b"keras_version", "a Keras model in HDF5"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5 file without a Keras model"),
    "SavedModel": (SAVED_MODEL, "a TensorFlow SavedModel"),
    "frozen graph": (field(1, NODE) + field(4, b"\x08\x01"), "a frozen TensorFlow graph"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3rest", "a TensorFlow Lite file"),
    "LightGBM": (b"tree\nversion=v4\nnum_class=1\n", "a LightGBM model"),
    "LightGBM JSON": (b'{"name":"tree","max_feature_idx":2,"tree_info":[]}', "a LightGBM model"),
    "XGBoost JSON": (b'{"learner":{"gradient_booster":{"name":"gbtree"}}}', "an XGBoost model"),
    "XGBoost UBJSON": (b"{L\0\0\0\0\0\0\0\x07learner{L", "an XGBoost model"),
    "XGBoost before 1.0": (b"binf\0\0\0\0", "an XGBoost model"),
    "CatBoost": (b"CBM1@/\0\0", "a CatBoost model"),
    "CatBoost JSON": (b'{\n"features_info":{},"oblivious_trees":[]}', "a CatBoost model"),
    "ORT": (b"\x1c\0\0\0ORTM\0\0", r"\(\.ort\)"),
    "safetensors": (safetensors(), "safetensors"),
    "Core ML": (b"\x08\x04" + field(2, b"\x0a\x00") + field(500, b"\x0a\x00"), "a Core ML model"),
    "GGUF": (b"GGUF\3\0\0\0", "GGUF"),
    "PMML": (b'<?xml version="1.0"?>\n<PMML version="4.4">', "a PMML document"),
    "OpenVINO": (b'<?xml version="1.0"?>\n<net name="m" version="11">', "an OpenVINO model"),
    "R": (gzip.compress(b"X\n\0\0\0\3\0\4"), "an R object"),
    "R workspace": (gzip.compress(b"RDX3\nX\n\0\0\0\3"), "an R object"),
    "ExecuTorch": (b"\x38\0\0\0ET12", "an ExecuTorch program"),
    "TensorRT": (b"ftrt\0\0", "a TensorRT engine"),
    "Hugging Face's settings": (b'{"model_type": "bert"}', "a Hugging Face model"),
    "arrays": (archive("w.npy", "b.npy"), "NumPy"),
    "zipped MLflow": (archive("MLmodel", "model.pkl"), "an MLflow model"),
    "other ZIP": (archive("readme.txt"), "a ZIP archive: unpack it"),
}


@pytest.mark.parametrize("name", ["model.onnx", "model", "model.pkl", "model.h5"])
@pytest.mark.parametrize("case", FILES)
def test_a_file_is_called_what_it_is(tmp_path: Path, case: str, name: str) -> None:
    content, said = FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableModel, match=f"is not an ONNX file but .*{said}") as caught:
        read_model(tmp_path / name, EstimatorOptions())
    assert caught.value.hint


def files(folder: Path, **contents: bytes) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", ".").replace("_in_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "SavedModel": (
        lambda p: files(p, saved_model__pb=SAVED_MODEL, variables_in_index=b"x"),
        "a TensorFlow SavedModel",
    ),
    "MLflow": (lambda p: files(p, MLmodel=b"flavors:\n", model__pkl=b"x"), "an MLflow model"),
    "Core ML": (
        lambda p: files(p, Manifest__json=b"{}", Data_in_model__mlmodel=b"x"),
        "a Core ML model",
    ),
    "Hugging Face": (
        lambda p: files(p, config__json=b'{"model_type":"bert"}', m__safetensors=safetensors()),
        "a Hugging Face model",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_needs_a_script_is_called_what_it_is(tmp_path: Path, case: str) -> None:
    make, said = FOLDERS[case]
    make(tmp_path)
    notes = read_model(tmp_path).notes
    assert any(said in each and "a scoring script must load it" in each for each in notes)


def test_a_folder_with_an_onnx_file_needs_none(tmp_path: Path) -> None:
    FOLDERS["MLflow"][0](tmp_path)
    tiny_onnx(tmp_path / "model.onnx")
    assert not any("a scoring script" in each for each in read_model(tmp_path).notes)


class Booster:
    """Pickled as an object of LightGBM."""

    __module__ = "lightgbm.sklearn"


def test_a_pickle_of_another_framework_is_named_and_not_loaded(tmp_path: Path) -> None:
    content = b"\x80\x04\x8c\x10lightgbm.sklearn\x94\x8c\x0eLGBMClassifier\x94\x93)\x81."
    (tmp_path / "m.pkl").write_bytes(content)
    with pytest.raises(Untrusted, match="a pickle of lightgbm") as caught:
        read_model(tmp_path / "m.pkl")
    assert "convert_lightgbm" in caught.value.hint


def test_a_word_in_a_pickle_is_not_a_framework(tmp_path: Path) -> None:
    """ColumnTransformer has a member ``transformers``, a vocabulary any word."""
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"transformers": ["torch", "xgboost.core"]}))
    with pytest.raises(Untrusted, match="is a pickle: loading"):
        read_model(tmp_path / "m.pkl")


def test_a_framework_that_an_older_pickle_imports_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"\x80\x02cxgboost.sklearn\nXGBClassifier\n)\x81.")
    with pytest.raises(Untrusted, match="a pickle of xgboost"):
        read_model(tmp_path / "m.pkl")


@given(content=st.binary(max_size=200), start=st.sampled_from([each for each, _ in FILES.values()]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_recognised_or_not(tmp_path: Path, content: bytes, start: bytes) -> None:
    path = tmp_path / "m"
    for each in (content, start[: len(content)] + content, start[:-1]):
        path.write_bytes(each or b"x")
        recognise(path)
        recognise_protobuf(path)


def test_the_page_has_every_line() -> None:
    """Each recipe, and what messages say of formats without one of their own."""
    page = plain(PAGE.read_text())
    for lines in RECIPES.values():
        for line in lines.split("; "):
            assert plain(line) in page, line


def plain(text: str) -> str:
    """Leave out what differs between layouts of the same Python."""
    return re.sub(r",([)\]])", r"\1", re.sub(r"\s+", "", text).replace('"', "'"))


ROWS = np.random.default_rng(0).normal(size=(300, 3))
CLASSES = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(int)


def trained(framework: str) -> Any:  # noqa: ANN401  (classes of three packages)
    package = pytest.importorskip(framework)
    if framework == "catboost":
        model = package.CatBoostClassifier(iterations=5, verbose=0, allow_writing_files=False)
        model.fit(ROWS, CLASSES)
        model.save_model("model.cbm")
    elif framework == "lightgbm":
        model = package.LGBMClassifier(n_estimators=5, verbose=-1).fit(ROWS, CLASSES)
        model.booster_.save_model("model.txt")
    else:
        model = package.XGBClassifier(n_estimators=5).fit(ROWS, CLASSES)
        model.save_model("model.json")
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("framework", ["catboost", "lightgbm", "xgboost"])
def test_the_lines_export_a_model_that_answers_alike(
    tmp_path: Path, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    model = trained(framework)
    names = {framework: pytest.importorskip(framework), "FEATURES": 3}
    if framework in BOOSTERS:
        names["onnxmltools"] = pytest.importorskip("onnxmltools")
    exec(RECIPES[framework], names)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: ROWS.astype(np.float32)}
    found = session.run(None, feed)[1]
    table = [list(row.values()) if isinstance(row, dict) else row for row in found]
    assert np.allclose(table, model.predict_proba(ROWS), atol=1e-5)
    assert read_model(tmp_path / "model.onnx").graph is not None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("framework", sorted(BOOSTERS))
def test_a_booster_in_a_pipeline_is_converted(
    tmp_path: Path, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import joblib
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pytest.importorskip("onnxmltools")
    monkeypatch.chdir(tmp_path)
    model = make_pipeline(StandardScaler(), trained(framework))
    joblib.dump(model.fit(ROWS, CLASSES), "m.joblib")
    found = read_model(tmp_path / "m.joblib", EstimatorOptions(trusted=True))
    assert found.compared is not None
    assert found.compared.difference.max_error < 1e-5


def test_formats_are_called_with_their_article() -> None:
    named = [each for each in vars(recipes).values() if isinstance(each, recipes.Foreign)]
    assert len(named) > 25
    assert all(re.match("(an? [A-Z.a-z]|JSON|HTML|gzip)", each.name) for each in named)


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.pickle"])
def test_onnx_is_read_as_onnx_where_its_name_says_pickle(name: str, tmp_path: Path) -> None:
    assert read_model(tiny_onnx(tmp_path / name)).framework == "onnx"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_is_read_as_onnx(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": [1, 2.0, "b"]}, protocol))
    with pytest.raises(Untrusted):
        read_model(path)
