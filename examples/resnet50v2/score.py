"""Says what is in a picture: ResNet50v2's 1000 classes of ImageNet.

What it takes, always as raw pixels 0 to 255, red, green and blue:

- JSON {"data": …} of shape [3, 224, 224] or [N, 3, 224, 224]; {"data": …, "top": 5} names classes
- a tensor ``data``, float32 [N, 3, 224, 224]: the answer is a tensor ``result`` [N, 1000]
- a picture, JPEG or PNG: scaled, its middle cut out, its five best classes named

The answer to the first and the last is {"result": probabilities, "time": seconds}: 1000 numbers
for one picture, N lists of them for several; "top" if requested, or if a picture was sent.

Scaling to a shorter side of 256 (bilinear, smoothed), the middle 224 x 224, and mean and deviation
of ImageNet per channel are those of the model's own page, onnx/models
validated/vision/classification/resnet, and of torchvision. The Azure sample
onnx-modelzoo-aml-deploy-resnet50 has the same request and answer; its loop runs over the pictures
where it means the channels, so with [1, 3, 224, 224] it takes red's figures for all three.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from mlpack_runtime import BadRequest, open_model, read_array
from PIL import Image, ImageOps

EDGE, SHORTER_SIDE, CLASSES = 224, 256, 1000
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
NAMED = 5
"""Classes that the answer to a picture names."""

TOGETHER = 8
"""Pictures in one run of the model: more take more memory, and hardly less time."""

INPUTS = {"data": ("float32", (None, 3, EDGE, EDGE))}
OUTPUTS = {"result": ("float32", (None, CLASSES))}
BATCHES = True

Floats = npt.NDArray[np.float32]

model: Any = None
labels: list[str] = []


def init() -> None:
    """Load the model and the names of its classes."""
    global model, labels
    model = open_model()
    lines = (model.path.parent / "labels.txt").read_text(encoding="utf-8").splitlines()
    labels = [line.partition(" ")[2] for line in lines]
    if len(labels) != CLASSES:
        raise RuntimeError(f"labels.txt has {len(labels)} lines, not {CLASSES}")


def run(data: str) -> dict[str, Any]:
    """Answer a request in JSON."""
    start = time.perf_counter()
    request = orjson.loads(data)
    if not isinstance(request, dict) or "data" not in request:
        raise BadRequest('send {"data": pixels} of shape [3, 224, 224]', field="data")
    top = count(request["top"]) if "top" in request else 0
    pixels = tensor(request["data"])
    return answer(score(pixels), top, start)


def run_tensors(tensors: Mapping[str, Floats]) -> dict[str, Floats]:
    """Answer with tensors."""
    return {"result": score(tensors["data"])}


def run_image(image: Image.Image) -> dict[str, Any]:
    """Answer for a picture."""
    start = time.perf_counter()
    return answer(score(crop(image)[np.newaxis]), NAMED, start)


def count(value: object) -> int:
    """How many classes are to be named."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= CLASSES:
        raise BadRequest(f"top is how many classes to name, 1 to {CLASSES}", field="top")
    return value


def tensor(value: object) -> Floats:
    """The pixels of a request, as [N, 3, 224, 224]."""
    found: Floats = read_array(value, "float32", field="data")
    if found.ndim == 3:
        found = found[np.newaxis]
    if found.ndim != 4 or not found.size or found.shape[1:] != (3, EDGE, EDGE):
        raise BadRequest(
            f"data has shape {list(np.shape(found))}, not [3, {EDGE}, {EDGE}] "
            f"or [N, 3, {EDGE}, {EDGE}]",
            field="data",
        )
    return found


def crop(image: Image.Image) -> Floats:
    """The middle of a picture as pixels [3, 224, 224].

    Only what is cut out is scaled, so a long thin picture takes no more memory; the result is that
    of scaling all of it first, as torchvision's Resize and CenterCrop do.
    """
    upright = turned(image.convert("RGB"))
    width, height = upright.size
    shorter = min(width, height)
    box: list[float] = []
    for side in (width, height):
        scaled = SHORTER_SIDE if side == shorter else SHORTER_SIDE * side // shorter
        start = round((scaled - EDGE) / 2)
        box += [start * side / scaled, (start + EDGE) * side / scaled]
    left, right, upper, lower = box
    middle = upright.resize(
        (EDGE, EDGE), Image.Resampling.BILINEAR, box=(left, upper, right, lower)
    )
    return np.asarray(middle, np.float32).transpose(2, 0, 1)


def turned(image: Image.Image) -> Image.Image:
    """The picture as its camera says it was held."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # metadata of a picture may be broken in many ways
        return image


def score(pixels: Floats) -> Floats:
    """Probabilities [N, 1000] of pixels [N, 3, 224, 224]."""
    if not pixels.size:
        raise BadRequest("data holds no picture", field="data")
    if pixels.min() < 0 or pixels.max() > 255:
        raise BadRequest("pixels are numbers from 0 to 255, not yet normalised", field="data")
    normal = ((pixels / np.float32(255) - MEAN) / DEVIATION).astype(np.float32, copy=False)
    (given,) = model.signature.inputs
    # A model whose batch is fixed at one picture gets them one by one.
    step = 1 if isinstance(given.shape[0], int) else TOGETHER
    parts = [normal[at : at + step] for at in range(0, len(normal), step)]
    scores = [next(iter(model.run({given.name: part}).values())) for part in parts]
    return softmax(np.concatenate(scores))


def softmax(scores: Floats) -> Floats:
    """Probabilities of each row of scores."""
    powers: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def answer(probabilities: Floats, top: int, start: float) -> dict[str, Any]:
    """The answer in JSON; what belongs to one picture alone is not in a list of its own."""
    result: Any = probabilities.tolist()
    best: Any = [named(each, top) for each in probabilities] if top else []
    if len(probabilities) == 1:
        result, best = result[0], best[0] if best else []
    found = {"result": result, "time": time.perf_counter() - start}
    return {**found, "top": best} if top else found


def named(probabilities: Floats, top: int) -> list[dict[str, Any]]:
    """The best classes; two names occur twice, the number tells them apart."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [
        {"label": labels[each], "probability": float(probabilities[each]), "class": int(each)}
        for each in order
    ]
