"""FER+: the made network is the zoo's, faces are found, numbers are onnxruntime's own."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from PIL import Image

from mlpack.settings.project_settings import ProjectSettings
from tests.examples.conftest import EXAMPLES, load, run_script, served
from tests.support import SHARED, make_project, require, run

HERE = EXAMPLES / "ferplus"
MADE = "7e222ba70f15229b24df1223fae80be16e5b2797427a613df45216522776701d"
"""sha256 of what make_weights.py makes with seed 1, on any machine."""

EMOTIONS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]
FACES = ("face-sad.jpg", "face-anger.jpg")
VECTORS = SHARED / "testvectors" / "ferplus"

Floats = npt.NDArray[np.float32]


def session(model: Path) -> Any:  # noqa: ANN401
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def expected(folder: Path, values: npt.NDArray[np.generic]) -> Floats:
    """Probabilities of one face from onnxruntime alone, of pixels 0 to 255 as they are."""
    given = {"Input3": values.reshape(1, 1, 64, 64).astype(np.float32)}
    (scores,) = session(folder / "model.onnx").run(["Plus692_Output_0"], given)
    powers = np.exp(scores[0].astype(np.float64))
    found: Floats = (powers / powers.sum()).astype(np.float32)
    return found


def pixels(count: int = 1) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 1, 64, 64), np.uint8)


def post(client: httpx.Client, content: bytes, kind: str = "application/json") -> httpx.Response:
    return client.post("/score", content=content, headers={"content-type": kind})


def face(name: str) -> Path:
    return require(SHARED / "images" / name)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_the_made_network_has_the_zoo_s_size_names_and_shapes(ferplus_folder: Path) -> None:
    path = ferplus_folder / "model.onnx"
    assert path.stat().st_size == 35_040_571
    model = onnx.load(str(path))
    # Every size that was written down is the one that follows from the operators.
    onnx.checker.check_model(model, full_check=True)
    assert [each.version for each in model.opset_import] == [8]
    opened = session(path)
    (given,), (made,) = opened.get_inputs(), opened.get_outputs()
    assert (given.name, given.shape) == ("Input3", [1, 1, 64, 64])
    assert (made.name, made.shape) == ("Plus692_Output_0", [1, 8])
    kinds = [each.op_type for each in model.graph.node]
    assert (kinds.count("Conv"), kinds.count("MatMul"), kinds.count("MaxPool")) == (10, 3, 4)
    shapes = [tuple(each.dims) for each in model.graph.initializer]
    assert sum(math.prod(shape) for shape in shapes) == 8_757_710


def test_the_same_seed_gives_the_same_bytes(ferplus_folder: Path, tmp_path: Path) -> None:
    assert hashlib.sha256((ferplus_folder / "model.onnx").read_bytes()).hexdigest() == MADE
    done = run_script(HERE / "make_weights.py", "--seed", "2", "--output", "x", folder=tmp_path)
    assert done[:2] == (0, "wrote x: 35,040,571 bytes, weights of chance (seed 2)\n")
    assert hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest() != MADE


def test_json_gives_onnxruntime_s_numbers(ferplus: httpx.Client, ferplus_folder: Path) -> None:
    values = pixels()
    wanted = expected(ferplus_folder, values)
    for data in (values, values[0, 0]):
        found = post(ferplus, json.dumps({"data": data.tolist()}).encode()).json()
        assert set(found) == {"result", "time"}
        assert found["time"] > 0
        np.testing.assert_allclose(found["result"], wanted, rtol=2e-4)
        assert sum(found["result"]) == pytest.approx(1, abs=1e-6)


def test_several_faces_give_several_lists(ferplus: httpx.Client, ferplus_folder: Path) -> None:
    values = pixels(3)
    answer = post(ferplus, json.dumps({"data": values.tolist(), "top": 2}).encode()).json()
    for each, row, best in zip(values, answer["result"], answer["top"], strict=True):
        np.testing.assert_allclose(row, expected(ferplus_folder, each), rtol=2e-4)
        order = np.argsort(row)[::-1][:2]
        assert [one["label"] for one in best] == [EMOTIONS[number] for number in order]
        assert [one["probability"] for one in best] == [row[number] for number in order]


def test_tensors_are_raw_pixels_too(ferplus: httpx.Client, ferplus_folder: Path) -> None:
    values = pixels(2).astype(np.float32)
    answer = ferplus.post(
        "/score",
        content=values.tobytes(),
        headers={"content-type": "application/octet-stream", "x-tensor-shape": "2,1,64,64"},
    )
    assert answer.status_code == 200, answer.text
    for each, row in zip(values, answer.json()["result"], strict=True):
        np.testing.assert_allclose(row, expected(ferplus_folder, each), rtol=2e-4)


@pytest.mark.parametrize("name", FACES)
def test_the_face_is_found_and_scored(
    ferplus: httpx.Client, ferplus_folder: Path, name: str
) -> None:
    content = face(name).read_bytes()
    answer = post(ferplus, content, "image/jpeg").json()
    assert set(answer) == {"result", "time", "top", "face", "faces"}
    (found,) = answer["faces"]
    assert found["probability"] > 0.99
    assert found["box"] == answer["face"]
    left, top, right, bottom = answer["face"]
    # Both pictures are 512 x 512 and show one face in the middle, hair and chin included.
    assert 100 < left < 160
    assert 350 < right < 420
    assert 30 < top < 100
    assert 450 < bottom <= 512
    assert [each["label"] for each in answer["top"]] == [
        EMOTIONS[each] for each in np.argsort(answer["result"])[::-1]
    ]
    side, middle = bottom - top, (left + right) // 2
    image = Image.open(io.BytesIO(content)).convert("RGB")
    around = image.crop((middle - side // 2, top, middle - side // 2 + side, bottom))
    grey = np.asarray(around.convert("L").resize((64, 64), Image.Resampling.LANCZOS))
    wanted = expected(ferplus_folder, grey)
    np.testing.assert_allclose(answer["result"], wanted, atol=0.01)


def test_of_several_faces_the_most_certain_is_scored(ferplus: httpx.Client) -> None:
    both = Image.new("RGB", (1024, 512))
    for place, name in enumerate(FACES):
        both.paste(Image.open(face(name)), (512 * place, 0))
    answer = post(ferplus, png(both), "image/png").json()
    first, second = answer["faces"]
    assert first["probability"] >= second["probability"]
    assert answer["face"] == first["box"]
    halves = {each["box"][0] // 512 for each in (first, second)}
    assert halves == {0, 1}


def test_a_picture_without_a_face_is_scored_whole(
    ferplus: httpx.Client, ferplus_folder: Path
) -> None:
    grey = Image.fromarray(pixels()[0, 0]).resize((200, 100))
    answer = post(ferplus, png(grey), "image/png").json()
    assert set(answer) == {"result", "time", "top"}
    whole = np.asarray(grey.resize((64, 64), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(answer["result"], expected(ferplus_folder, whole), atol=1e-4)


def test_without_the_detector_the_whole_picture_is_scored(
    ferplus_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").symlink_to(ferplus_folder / "model.onnx")
    with served("ferplus", tmp_path) as client:
        answer = post(client, face(FACES[0]).read_bytes(), "image/jpeg").json()
        assert set(answer) == {"result", "time", "top"}


def test_boxes_that_are_one_face_are_one() -> None:
    score = load(HERE / "score.py")
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 1.9], [0, 0, 1, 1], [5, 5, 6, 6]], np.float32)
    scores = np.array([0.8, 0.9, 0.95, 0.75], np.float32)
    assert score.suppress(boxes, scores, np.arange(4)) == [2, 1, 3]
    assert score.overlap(boxes[0], boxes[2]) == pytest.approx(0.25)
    assert score.overlap(boxes[0], boxes[3]) == 0
    assert score.overlap(boxes[3][[0, 1, 0, 1]], boxes[3]) == 0
    assert score.square([10, 0, 20, 30]) == (0, 0, 30, 30)


def test_the_oldest_test_vectors_are_of_another_range(ferplus_folder: Path) -> None:
    """They hold x / 127.5 - 1; this network begins with (x - 127.5) / 255 and takes 0 to 255."""
    opened = session(ferplus_folder / "model.onnx")
    scores: dict[str, list[Floats]] = {"as they are": [], "as pixels": []}
    recorded = []
    for path in sorted(require(VECTORS).glob("*.npz")):
        with np.load(path) as vector:
            inputs, output = vector["inputs"], vector["outputs"]
        assert (inputs.shape, output.shape) == ((1, 64, 64), (1, 8))
        assert inputs.min() >= -1
        assert inputs.max() <= 1
        assert EMOTIONS[int(output.argmax())] == "neutral"
        recorded.append(output[0])
        values = (inputs + 1) * 127.5
        # Whole numbers: they were pixels once.
        assert np.abs(values - values.round()).max() < 1e-3
        for name, given in (("as they are", inputs), ("as pixels", values)):
            (found,) = opened.run(None, {"Input3": given.reshape(1, 1, 64, 64)})
            scores[name].append(found[0])
    apart = {name: float(np.ptp(found, axis=0).max()) for name, found in scores.items()}
    assert float(np.ptp(recorded, axis=0).max()) > 1
    # Given as they are, three different faces are one and the same grey to this network.
    assert apart["as they are"] < 0.01 < 0.1 < apart["as pixels"]


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        ({}, "data", "send"),
        ([], "data", "send"),
        ({"data": []}, "data", "shape [0]"),
        ({"data": "face"}, "data", "do not fit data tensor(float)"),
        ({"data": [[1], [1, 2]]}, "data", "do not fit data tensor(float)"),
        ({"data": np.zeros((64, 63)).tolist()}, "data", "[1, 1, 64, 63]"),
        ({"data": np.zeros((1, 3, 64, 64)).tolist()}, "data", "[1, 3, 64, 64]"),
        ({"data": np.full((64, 64), -1).tolist()}, "data", "0 to 255"),
        ({"data": np.zeros((64, 64)).tolist(), "top": 9}, "top", "1 to 8"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    ferplus: httpx.Client, request_: object, field: str, says: str
) -> None:
    answer = post(ferplus, json.dumps(request_).encode())
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"no picture", "image/jpeg"),
        (b"\0" * 100, "application/octet-stream"),
        (b"x", "text/csv"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(
    ferplus: httpx.Client, content: bytes, kind: str
) -> None:
    answer = post(ferplus, content, kind)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["message"]


def test_half_a_picture_is_refused(ferplus: httpx.Client) -> None:
    content = face(FACES[0]).read_bytes()
    answer = post(ferplus, content[: len(content) // 2], "image/jpeg")
    assert answer.status_code == 400
    assert "broken" in answer.json()["message"]


def test_the_client_prints_the_face_and_its_emotions(ferplus: httpx.Client, tmp_path: Path) -> None:
    url = str(ferplus.base_url.join("/score"))
    picture = face(FACES[0])
    done = run_script(HERE / "client.py", "--url", url, str(picture), folder=tmp_path)
    assert (done[0], done[2]) == (0, "")
    assert done[1].startswith(f"{picture}: face at [129, 75, 391, 492] (")
    assert sum(f"%  {each}\n" in done[1] for each in EMOTIONS) == 8


def test_what_is_fetched_is_the_zoo_s_files() -> None:
    files = load(HERE / "fetch.py").FILES
    assert set(files) == {"model.onnx", load(HERE / "score.py").DETECTOR}
    assert files["model.onnx"].size == load(HERE / "make_weights.py").SIZE
    assert files["version-RFB-320.onnx"].is_at(require(SHARED / "onnx-zoo/version-RFB-320.onnx"))
    assert all(url.startswith("https://") for each in files.values() for url in each.urls)


def test_it_is_registered_and_built(ferplus_folder: Path, tmp_path: Path) -> None:
    recipe = ProjectSettings.parse((HERE / "mlpack.toml").read_text())
    assert (recipe.model, recipe.scoring) == ("ferplus", "score.py")
    project = make_project(tmp_path / "p")
    for name in ("mlpack.toml", "score.py"):
        (project.root / name).write_bytes((HERE / name).read_bytes())
    place = ["-C", str(project.root), "--json"]
    done = run(*place, "register", str(ferplus_folder))
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each["path"] for each in found["files"]] == ["model.onnx", "version-RFB-320.onnx"]
    assert found["signature"]["inputs"][0] == {
        "name": "Input3",
        "dtype": "float32",
        "shape": [1, 1, 64, 64],
    }
    built = run(*place, "build", "ferplus")
    assert built.exit_code == 0, built.stderr
    assert 28_000_000 < json.loads(built.stdout)["layer"]["bytes"] < 36_400_000
