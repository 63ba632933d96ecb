"""ONNX models alone: found, opened, run, and what is said of their providers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpack.runtime import onnx
from mlpack.runtime.codec import decode
from mlpack.runtime.http_errors import BadRequest
from mlpack.runtime.onnx import CPU, ProviderSelection, choose, find_onnx, open_model
from mlpack.runtime.scorer import Payload
from mlpack.runtime.scorers.onnx import OnnxScorer
from mlpack.runtime.settings import NotServable, RuntimeSettings
from tests.runtime import models

CUDA = "CUDAExecutionProvider"


def test_which_onnx_file_is_the_model(tmp_path: Path) -> None:
    with pytest.raises(NotServable, match="holds 0 ONNX models"):
        find_onnx(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.onnx").touch()
    assert find_onnx(tmp_path).name == "a.onnx"
    (tmp_path / "b.onnx").touch()
    with pytest.raises(NotServable, match="holds 2 ONNX models"):
        find_onnx(tmp_path)
    (tmp_path / "model.onnx").touch()
    assert find_onnx(tmp_path).name == "model.onnx"


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(NotServable, match=r"model\.onnx cannot be loaded") as caught:
        open_model(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    with pytest.raises(NotServable, match="cannot be loaded"):
        open_model(tmp_path / "none.onnx")


def test_scripts_open_the_only_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.doubled(tmp_path / "any.onnx")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    with onnx.recording() as opened:
        model = open_model()
    assert opened == [model]
    assert model.run({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2.0] * 4]
    assert str(model.signature) == "x tensor(float) [N, 4]"
    assert model.session.get_providers() == [CPU]


def test_inputs_the_model_does_not_take(tmp_path: Path) -> None:
    model = open_model(models.doubled(tmp_path / "model.onnx"))
    for given in (
        {"x": np.ones((1, 5), np.float32)},
        {"x": np.ones((1, 4), np.float64)},
        {"z": np.ones((1, 4), np.float32)},
    ):
        with pytest.raises(BadRequest):
            model.run(given)


def test_shapes_that_only_a_run_shows_to_be_wrong(tmp_path: Path) -> None:
    model = open_model(models.square(tmp_path / "model.onnx"))
    assert model.run({"x": np.ones((2, 2), np.float32)})["y"].tolist() == [[2.0, 2.0]] * 2
    with pytest.raises(BadRequest, match=r"MatMul: .*dimension mismatch"):
        model.run({"x": np.ones((2, 3), np.float32)})


def score(scorer: OnnxScorer, content: bytes) -> dict[str, Any]:
    work = decode(Payload(content=content), scorer, RuntimeSettings())
    assert work.tensors is not None
    return dict(scorer.run_tensors(work.tensors))


def test_json_is_scored(tmp_path: Path) -> None:
    scorer = OnnxScorer(models.two_inputs(tmp_path / "model.onnx"))
    found = score(scorer, b'{"a": [[1, 2]], "b": [[3, 4]]}')
    assert {name: array.tolist() for name, array in found.items()} == {
        "y": [[4.0, 6.0]],
        "z": [[-2.0, -2.0]],
    }
    texts = OnnxScorer(models.texts(tmp_path / "texts.onnx"))
    assert score(texts, '{"x": ["ä", "b"]}'.encode())["y"].tolist() == ["ä", "b"]


def test_threads_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.doubled(tmp_path / "model.onnx")

    def threads(given: int | None = None) -> int:
        found = open_model(path, given).session.get_session_options()
        return int(found.intra_op_num_threads)

    monkeypatch.setattr("mlpack.runtime.onnx.cpu_limit", lambda: None)
    assert threads() == 0
    monkeypatch.setattr("mlpack.runtime.onnx.cpu_limit", lambda: 1)
    assert threads() == 1
    assert threads(3) == 3
    monkeypatch.setenv("MLPACK_THREADS", "2")
    assert threads() == 2


@pytest.mark.parametrize(
    ("asked", "available", "use", "fell_back"),
    [
        ("cpu", [CPU], (CPU,), ()),
        ("", [CPU], (CPU,), ()),
        ("cuda,cpu", [CUDA, CPU], (CUDA, CPU), ()),
        ("CUDA", [CUDA, CPU], (CUDA, CPU), ()),
        ("cuda, cpu", [CPU], (CPU,), ("cuda is not in this onnxruntime",)),
        (CUDA, [CUDA, CPU], (CUDA, CPU), ()),
        ("NewExecutionProvider", ["NewExecutionProvider", CPU], ("NewExecutionProvider", CPU), ()),
        ("cpu,cuda,cpu", [CUDA, CPU], (CUDA, CPU), ()),
    ],
)
def test_providers(
    asked: str, available: list[str], use: tuple[str, ...], fell_back: tuple[str, ...]
) -> None:
    assert choose(asked or "cpu", available) == ProviderSelection(use, fell_back)


def test_a_provider_that_does_not_start() -> None:
    found = ProviderSelection((CUDA, CPU)).after([CPU])
    assert (str(found), len(found.fell_back)) == ("cpu", 1)
    assert "cuda did not start" in found.fell_back[0]
    assert ProviderSelection((CUDA, CPU)).after([CUDA, CPU]) == ProviderSelection((CUDA, CPU))


def test_a_name_that_is_no_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPACK_PROVIDERS", "gpu")
    with pytest.raises(NotServable, match=r"'gpu'.*cuda"):
        open_model(models.doubled(tmp_path / "model.onnx"))


def test_what_fell_back_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLPACK_PROVIDERS", "cuda,cpu")
    with caplog.at_level(logging.INFO, "mlpack_runtime"):
        open_model(models.doubled(tmp_path / "model.onnx"))
    assert caplog.messages == ["model.onnx runs on cpu; cuda is not in this onnxruntime"]
