"""ResNet50v2: the made network is the zoo's, its module's numbers are onnxruntime's own."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from PIL import Image

from mlpack.settings.project_settings import ProjectSettings
from tests.examples.conftest import EXAMPLES, load, run_script
from tests.support import SHARED, make_project, require, run

HERE = EXAMPLES / "resnet50v2"
MADE = "300d91995a203718bc6394beab269119f9286ef19bc201135b26d64c61419da8"
"""sha256 of what make_weights.py makes with seed 1, on any machine."""

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

Floats = npt.NDArray[np.float32]


def picture(width: int = 300, height: int = 260, seed: int = 1) -> Image.Image:
    """A picture with edges and areas, so that scaling it wrongly shows."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (13, 15, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:  # noqa: ANN401
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def pixels(count: int = 1, seed: int = 1) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3, 224, 224), np.uint8)


def expected(model: Path, values: npt.NDArray[np.generic]) -> Floats:
    """Probabilities from onnxruntime alone; mean and deviation as torchvision documents them."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    normal = values.astype(np.float64) / 255
    for channel in range(3):
        normal[:, channel] = (normal[:, channel] - MEAN[channel]) / DEVIATION[channel]
    (scores,) = session.run(None, {session.get_inputs()[0].name: normal.astype(np.float32)})
    powers = np.exp(scores.astype(np.float64) - scores.max())
    found: Floats = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def middle(image: Image.Image) -> npt.NDArray[np.uint8]:
    """torchvision's Resize(256) and CenterCrop(224), written down: all is scaled, then cut."""
    width, height = image.size
    shorter = min(width, height)
    size = (int(256 * width / shorter), int(256 * height / shorter))
    scaled = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 224) / 2.0), round((size[1] - 224) / 2.0)
    return np.asarray(scaled.crop((left, top, left + 224, top + 224)))


def post(client: httpx.Client, content: bytes, kind: str = "application/json") -> httpx.Response:
    return client.post("/score", content=content, headers={"content-type": kind})


def test_the_made_network_has_the_zoo_s_size_names_and_shapes(resnet_folder: Path) -> None:
    path = resnet_folder / "model.onnx"
    assert path.stat().st_size == 102_442_452
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    assert [each.version for each in model.opset_import] == [7]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("data", ["N", 3, 224, 224])
    assert (made.name, made.shape) == ("resnetv24_dense0_fwd", ["N", 1000])
    shapes = {each.name: tuple(each.dims) for each in model.graph.initializer}
    assert sum(name.startswith("resnetv24_stage3_conv") for name in shapes) == 6 * 3 + 1
    assert shapes["resnetv24_conv0_weight"] == (64, 3, 7, 7)
    assert shapes["resnetv24_stage4_conv3_weight"] == (2048, 1024, 1, 1)
    assert shapes["resnetv24_dense0_weight"] == (1000, 2048)
    kinds = [each.op_type for each in model.graph.node]
    # The downsampling of four shortcuts is not counted among the 50 layers.
    assert kinds.count("Conv") - 4 + kinds.count("Gemm") == 50
    assert sum(math.prod(shape) for shape in shapes.values()) == 25_595_062


def test_the_same_seed_gives_the_same_bytes(resnet_folder: Path) -> None:
    assert hashlib.sha256((resnet_folder / "model.onnx").read_bytes()).hexdigest() == MADE


def test_the_script_writes_what_it_says(tmp_path: Path) -> None:
    done = run_script(
        HERE / "make_weights.py", "--seed", "2", "--output", "m/x.onnx", folder=tmp_path
    )
    assert done[:2] == (0, "wrote m/x.onnx: 102,442,452 bytes, weights of chance (seed 2)\n")
    assert hashlib.sha256((tmp_path / "m/x.onnx").read_bytes()).hexdigest() != MADE


def test_every_class_has_a_label() -> None:
    lines = (HERE / "model/labels.txt").read_text(encoding="utf-8").splitlines()
    ids = [line.partition(" ")[0] for line in lines]
    labels = [line.partition(" ")[2] for line in lines]
    assert len(lines) == 1000
    assert ids == sorted(set(ids))
    assert all(each and each == each.strip() and " " not in each for each in labels)
    assert {each for each in labels if labels.count(each) > 1} == {"crane", "maillot"}
    assert (labels[0], labels[153], labels[282], labels[999]) == (
        "tench",
        "Maltese_dog",
        "tiger_cat",
        "toilet_tissue",
    )
    keras = json.loads(require(SHARED / "images/imagenet_class_index.json").read_text())
    assert ids == [keras[str(number)][0] for number in range(1000)]


def test_json_gives_onnxruntime_s_numbers(resnet: httpx.Client, resnet_folder: Path) -> None:
    values = pixels()
    wanted = expected(resnet_folder / "model.onnx", values)[0]
    for data in (values, values[0]):
        answer = post(resnet, json.dumps({"data": data.tolist()}).encode())
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert set(found) == {"result", "time"}
        assert found["time"] > 0
        np.testing.assert_allclose(found["result"], wanted, rtol=2e-4)
        assert sum(found["result"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("count", [2, 9])
def test_several_pictures_give_several_lists(
    resnet: httpx.Client, resnet_folder: Path, count: int
) -> None:
    values = pixels(count)
    answer = post(resnet, json.dumps({"data": values.tolist(), "top": 2}).encode()).json()
    wanted = expected(resnet_folder / "model.onnx", values)
    np.testing.assert_allclose(answer["result"], wanted, rtol=2e-4)
    for row, best in zip(answer["result"], answer["top"], strict=True):
        assert [each["class"] for each in best] == np.argsort(row)[::-1][:2].tolist()


def test_the_best_classes_are_named_when_asked(resnet: httpx.Client) -> None:
    answer = post(resnet, json.dumps({"data": pixels()[0].tolist(), "top": 3}).encode()).json()
    result, best = answer["result"], answer["top"]
    lines = (HERE / "model/labels.txt").read_text().splitlines()
    assert [each["class"] for each in best] == np.argsort(result)[::-1][:3].tolist()
    assert [each["probability"] for each in best] == sorted(result)[::-1][:3]
    assert [each["label"] for each in best] == [
        lines[each["class"]].partition(" ")[2] for each in best
    ]


def test_tensors_are_raw_pixels_too(resnet: httpx.Client, resnet_folder: Path) -> None:
    values = pixels(2).astype(np.float32)
    wanted = expected(resnet_folder / "model.onnx", values)
    raw = resnet.post(
        "/score",
        content=values.tobytes(),
        headers={"content-type": "application/octet-stream", "x-tensor-shape": "2,3,224,224"},
    )
    assert raw.status_code == 200, raw.text
    np.testing.assert_allclose(raw.json()["result"], wanted, rtol=2e-4)
    out = io.BytesIO()
    np.save(out, values)
    npy = resnet.post(
        "/score",
        content=out.getvalue(),
        headers={"content-type": "application/x-npy", "accept": "application/x-npy"},
    )
    assert npy.status_code == 200, npy.text
    np.testing.assert_allclose(np.load(io.BytesIO(npy.content)), wanted, rtol=2e-4)


@pytest.mark.parametrize("size", [(300, 260), (260, 300), (224, 224), (1000, 40), (64, 64)])
def test_a_picture_is_scaled_and_cut_as_torchvision_does(size: tuple[int, int]) -> None:
    score = load(HERE / "score.py")
    image = picture(*size)
    found = np.asarray(score.crop(image)).transpose(1, 2, 0)
    difference = np.abs(found - middle(image).astype(float))
    # The last digit of a scaled pixel depends on where the arithmetic begins.
    assert difference.max() <= 1
    assert difference.mean() < 0.01


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_gives_its_classes(resnet: httpx.Client, resnet_folder: Path, kind: str) -> None:
    content = encoded(picture(), kind)
    answer = post(resnet, content, f"image/{kind.lower()}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) == {"result", "time", "top"}
    assert len(found["top"]) == 5
    cut = middle(Image.open(io.BytesIO(content))).transpose(2, 0, 1)[np.newaxis]
    wanted = expected(resnet_folder / "model.onnx", cut)[0]
    np.testing.assert_allclose(found["result"], wanted, rtol=0.05)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_pictures_of_other_colors_are_taken(resnet: httpx.Client, mode: str) -> None:
    image = Image.new("I;16", (50, 50)) if mode == "I;16" else picture(50, 50).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert post(resnet, encoded(image, kind), f"image/{kind.lower()}").status_code == 200


def test_a_picture_is_seen_as_it_was_held() -> None:
    score = load(HERE / "score.py")
    held = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    turned = held.transpose(Image.Transpose.ROTATE_90)
    seen = Image.open(io.BytesIO(encoded(turned, exif=exif)))
    np.testing.assert_array_equal(score.crop(seen), score.crop(held))
    broken = Image.open(io.BytesIO(encoded(held, exif=b"Exif\0\0nothing")))
    np.testing.assert_array_equal(score.crop(broken), score.crop(held))


def test_a_real_network_knows_the_dog_and_the_cat(shufflenet: httpx.Client) -> None:
    images = SHARED / "images"
    dog = post(shufflenet, require(images / "dog.jpg").read_bytes(), "image/jpeg").json()
    assert dog["top"][0]["label"] == "Maltese_dog"
    # How sure it is depends on the processor: this network computes in 8 bits.
    assert dog["top"][0]["probability"] > 1.5 * dog["top"][1]["probability"]
    cat = post(shufflenet, require(images / "cat.jpg").read_bytes(), "image/jpeg").json()
    assert "tiger_cat" in [each["label"] for each in cat["top"][:3]]
    # Its batch is fixed at one; as pixels, both at once are the same.
    both = [middle(Image.open(images / name)).transpose(2, 0, 1) for name in ("dog.jpg", "cat.jpg")]
    data = json.dumps({"data": np.stack(both).tolist(), "top": 1}).encode()
    answer = post(shufflenet, data).json()
    assert [each[0]["label"] for each in answer["top"]] == ["Maltese_dog", "tiger_cat"]


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        ({}, "data", "send"),
        ({"params": [1]}, "data", "send"),
        ([], "data", "send"),
        ({"data": []}, "data", "shape [0]"),
        ({"data": None}, "data", "do not fit data tensor(float)"),
        ({"data": "picture"}, "data", "do not fit data tensor(float)"),
        ({"data": [["1"]]}, "data", "do not fit data tensor(float)"),
        ({"data": [[1], [1, 2]]}, "data", "do not fit data tensor(float)"),
        ({"data": [[True]]}, "data", "do not fit data tensor(float)"),
        ({"data": [[10**30]]}, "data", "shape [1, 1]"),
        ({"data": 5}, "data", "shape []"),
        ({"data": [[[1.0]]]}, "data", "shape [1, 1, 1, 1], not [3, 224, 224]"),
        ({"data": np.zeros((3, 224, 223)).tolist()}, "data", "[1, 3, 224, 223]"),
        ({"data": np.full((3, 224, 224), -0.5).tolist()}, "data", "0 to 255"),
        ({"data": np.full((3, 224, 224), 256).tolist()}, "data", "0 to 255"),
        ({"data": [], "top": 0}, "top", "1 to 1000"),
        ({"data": [], "top": 1001}, "top", "1 to 1000"),
        ({"data": [], "top": True}, "top", "1 to 1000"),
        ({"data": [], "top": "5"}, "top", "1 to 1000"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    resnet: httpx.Client, request_: object, field: str, says: str
) -> None:
    answer = post(resnet, json.dumps(request_).encode())
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b'{"data": [NaN]}', "application/json"),
        (b'{"data": ' + b"[" * 100_000, "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"no picture", "image/jpeg"),
        (encoded(picture(), "JPEG")[:2000], "image/jpeg"),
        (encoded(picture())[:2000], "image/png"),
        (encoded(picture()), "image/jpeg"),
        (b"\0" * 100, "application/octet-stream"),
        (b"\x93NUMPY\x01\0", "application/x-npy"),
        (b"x", "text/csv"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(
    resnet: httpx.Client, content: bytes, kind: str
) -> None:
    answer = post(resnet, content, kind)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["message"]
    assert post(resnet, encoded(picture(50, 50)), "image/png").status_code == 200


def test_a_folder_without_all_labels_does_not_start(
    resnet_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").symlink_to(resnet_folder / "model.onnx")
    (tmp_path / "labels.txt").write_text("n01440764 tench\n")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match="1 lines, not 1000"):
        load(HERE / "score.py").init()


def test_the_client_prints_the_classes(shufflenet: httpx.Client, tmp_path: Path) -> None:
    url = str(shufflenet.base_url.join("/score"))
    dog = str(require(SHARED / "images/dog.jpg"))
    status, said, errors = run_script(HERE / "client.py", "--url", url, dog, folder=tmp_path)
    assert (status, errors) == (0, "")
    assert "%  Maltese_dog\n" in said
    (tmp_path / "x.png").write_bytes(b"x")
    status, _, errors = run_script(HERE / "client.py", "--url", url, "x.png", folder=tmp_path)
    assert status == 1
    assert errors.startswith("error: x.png: 400 ")
    for args in (["--url", "http://127.0.0.1:9/score", dog], ["missing.jpg"]):
        status, _, errors = run_script(HERE / "client.py", *args, folder=tmp_path)
        assert (status, errors.count("\n")) == (1, 1)


def test_what_is_fetched_is_the_zoo_s_file() -> None:
    module: ModuleType = load(HERE / "fetch.py")
    (file,) = module.FILES.values()
    assert (file.size, str(file)) == (load(HERE / "make_weights.py").SIZE, "resnet50-v2-7.onnx")
    assert all(url.startswith("https://") for url in file.urls)


def test_it_is_registered_and_built(resnet_folder: Path, tmp_path: Path) -> None:
    recipe = ProjectSettings.parse((HERE / "mlpack.toml").read_text())
    assert (recipe.model, recipe.scoring) == ("resnet50v2", "score.py")
    project = make_project(tmp_path / "p")
    for name in ("mlpack.toml", "score.py"):
        (project.root / name).write_bytes((HERE / name).read_bytes())
    place = ["-C", str(project.root), "--json"]
    done = run(*place, "register", str(resnet_folder))
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    # The project's lock here is of a small base; the example's own requirements.in has Pillow.
    packages = [each for each in found["notes"] if "requirements.in" in each]
    assert {each.split()[3].strip(",") for each in packages} <= {"PIL", "orjson", "numpy"}
    assert [each for each in found["notes"] if each not in packages] == [
        f"its files are in AZUREML_MODEL_DIR/{resnet_folder.name}, where Azure ML has them"
    ]
    assert [each["path"] for each in found["files"]] == ["labels.txt", "model.onnx"]
    assert found["signature"]["inputs"][0]["shape"] == ["N", 3, 224, 224]
    built = run(*place, "build", "resnet50v2")
    assert built.exit_code == 0, built.stderr
    assert 80_000_000 < json.loads(built.stdout)["layer"]["bytes"] < 102_600_000
