"""The fan example: it beats its baseline, its ONNX is small, its scoring script answers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mlpack.settings.project_settings import ProjectSettings
from tests.support import SHARED, make_project, require, run

CHECKOUT = Path(__file__).resolve().parents[2]
TRAIN = CHECKOUT / "examples" / "fan" / "train.py"
TEMPLATE = CHECKOUT / "templates" / "fan"

NORMAL, FAULTY = [600.0, 40.0, 150.0, 48.0], [450.0, 52.0, 240.0, 58.0]


def train(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TRAIN), *args], cwd=folder, capture_output=True, text=True, check=False
    )


def metrics(folder: Path) -> dict[str, float]:
    found = json.loads((folder / "metrics.json").read_text())
    assert isinstance(found, dict)
    return found


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fan_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def trainer() -> ModuleType:
    return load(TRAIN)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of few readings: enough to tell clear cases apart."""
    folder = tmp_path_factory.mktemp("fan")
    done = train(folder, "--readings", "4000")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def score(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The scoring script, loaded and initialised as a server does it."""
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(trained))
    module = load(TEMPLATE / "score.py")
    module.init()
    yield module


@pytest.mark.slow
def test_on_real_readings_the_network_is_no_worse_than_the_baseline(tmp_path: Path) -> None:
    data = require(SHARED / "fan" / "fan.csv")
    done = train(tmp_path, "--data", str(data))
    assert done.returncode == 0, done.stderr
    found = metrics(tmp_path)
    assert found["accuracy"] >= found["baseline_accuracy"]
    assert f"accuracy {found['accuracy']} on 4000 unseen readings" in done.stdout
    assert f"logistic regression: accuracy {found['baseline_accuracy']}" in done.stdout


def test_the_model_is_small_and_typed(trained: Path) -> None:
    import onnx

    model = onnx.load(str(trained / "fan.onnx"))
    onnx.checker.check_model(model)
    assert (trained / "fan.onnx").stat().st_size < 13_000
    assert [each.name for each in model.graph.input] == ["params"]
    weights = [each for each in model.graph.initializer if len(each.dims) == 2 and each.dims[0] > 1]
    assert [tuple(each.dims) for each in weights] == [(4, 60), (60, 30), (30, 10), (10, 1)]
    assert {each.data_type for each in weights} == {onnx.TensorProto.FLOAT}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_and_a_retrained_one_differs(
    trained: Path, tmp_path: Path
) -> None:
    first = (trained / "fan.onnx").read_bytes()
    assert train(tmp_path, "--readings", "4000").returncode == 0
    assert (tmp_path / "fan.onnx").read_bytes() == first
    assert train(tmp_path, "--readings", "4000", "--retrain").returncode == 0
    retrained = (tmp_path / "fan.onnx").read_bytes()
    assert len(retrained) == len(first)
    assert retrained != first


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "Rotation,Temperature,Vibration,Sound,Faulty\n1,2,3,x,0\n",
        "Rotation,Temperature,Vibration,Sound,Faulty\n1,2,3,4,0\n",
    ],
)
def test_a_file_that_is_no_readings_is_refused(
    trainer: ModuleType, tmp_path: Path, text: str
) -> None:
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(SystemExit) as caught:
        trainer.read(tmp_path / "data.csv")
    assert str(caught.value).startswith(f"error: {tmp_path / 'data.csv'} ")
    assert "\n" not in str(caught.value)


def test_readings_are_within_the_simulator_s_ranges(trainer: ModuleType) -> None:
    readings, faulty = trainer.simulate(2001, seed=3)
    assert (readings.shape, int(faulty.sum())) == ((2001, 4), 1000)
    for label, ranges in ((0, trainer.NORMAL), (1, trainer.FAULTY)):
        for column, (low, high) in zip(readings[faulty == label].T, ranges, strict=True):
            assert low <= column.min() < column.max() <= high
            assert np.isclose(column.mean(), (low + high) / 2, rtol=0.05)


def test_one_reading_gives_one_answer(score: ModuleType) -> None:
    assert score.run(json.dumps({"params": NORMAL}))["fault"] == "0"
    answer = score.run(json.dumps({"params": FAULTY}))
    assert answer["fault"] == "1"
    assert answer["probability"] > 0.9
    assert json.loads(json.dumps(answer)) == answer


@pytest.mark.parametrize("member", ["data", "params"])
def test_several_readings_give_a_list(score: ModuleType, member: str) -> None:
    answer = score.run(json.dumps({member: [NORMAL, FAULTY]}))
    assert [each["fault"] for each in answer["result"]] == ["0", "1"]


@pytest.mark.parametrize(
    "request_",
    [
        "not JSON",
        "[]",
        "{}",
        '{"params": [1, 2, 3]}',
        '{"params": [1, 2, 3, "x"]}',
        '{"params": [1, 2, 3, null]}',
        '{"params": [[[1, 2, 3, 4]]]}',
        '{"params": [1, 2, 3, "4"]}',
        '{"params": [1, 2, 3, true]}',
        '{"data": [[1, 2, 3, 1e39]]}',
        '{"params": [1, 2, 3, NaN]}',
        '{"data": []}',
        '{"data": [[1, 2, 3, 4], [1]]}',
        '{"data": 5}',
        '{"params": [1, 2, 3, 4], "data": []}',
    ],
)
def test_a_request_that_cannot_be_meant_raises(score: ModuleType, request_: str) -> None:
    with pytest.raises(ValueError, match=r"send|four numbers|Expecting"):
        score.run(request_)


@pytest.mark.parametrize("count", [0, 2])
def test_a_folder_without_exactly_one_model_is_refused(
    score: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    for number in range(count):
        (tmp_path / f"{number}.onnx").write_bytes(b"")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match=f"holds {count} ONNX files"):
        score.init()


def test_the_settings_are_settings() -> None:
    recipe = ProjectSettings.parse((TEMPLATE / "mlpack.toml").read_text())
    assert (recipe.model, recipe.scoring) == ("fan", "score.py")


def test_the_example_is_the_template() -> None:
    assert TRAIN.samefile(TEMPLATE / "train.py")


def test_it_is_registered_with_its_accuracy_and_built(trained: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    settings = (TEMPLATE / "mlpack.toml").read_text()
    (project.root / "mlpack.toml").write_text(settings)
    (project.root / "score.py").write_bytes((TEMPLATE / "score.py").read_bytes())
    place = ["-C", str(project.root), "--json"]
    said = ["register", str(trained / "fan.onnx"), "--metrics", str(trained / "metrics.json")]
    done = run(*place, *said)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["metrics"]["accuracy"] == str(metrics(trained)["accuracy"])
    assert found["notes"] == []
    assert found["signature"]["inputs"][0] == {
        "name": "params",
        "dtype": "float32",
        "shape": [None, 4],
    }
    built = run(*place, "build", "fan")
    assert built.exit_code == 0, built.stderr
    assert json.loads(built.stdout)["layer"]["bytes"] < 14_000
