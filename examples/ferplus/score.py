"""Says what a face shows: FER+'s eight emotions.

What it takes, always as grey pixels 0 to 255:

- JSON {"data": …} of shape [64, 64], [1, 1, 64, 64] or [N, 1, 64, 64]; with "top": 3 the best three
  emotions are named
- a tensor ``Input3``, float32 [N, 1, 64, 64]: the answer is a tensor ``result`` [N, 8]
- a picture, JPEG or PNG: the most certain face in it, or the whole picture without one

The answer to the first and the last is {"result": probabilities in the order of EMOTIONS, "time":
seconds}. For a picture all eight are named in "top", best first; "faces" lists what was found, most
certain first, and "face" is the first one's box [left, top, right, bottom] in pixels. Both need
version-RFB-320.onnx next to the model; without it the whole picture is scored.

The network itself begins with (pixel - 127.5) / 255: it is given 0 to 255. README.md says how this
is known, and what else has been believed.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from mlpack_runtime import BadRequest, open_model, read_array
from PIL import Image, ImageOps

EMOTIONS = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)
EDGE = 64

DETECTOR = "version-RFB-320.onnx"
WIDTH, HEIGHT = 320, 240
"""What the face detector takes, whatever shape the picture has."""

CERTAIN, SAME = 0.7, 0.5
"""A face is at least that certain; boxes that overlap by more (intersection over union) are one."""

INPUTS = {"Input3": ("float32", (None, 1, EDGE, EDGE))}
OUTPUTS = {"result": ("float32", (None, len(EMOTIONS)))}

Floats = npt.NDArray[np.float32]
Box = list[int]

model: Any = None
detector: Any = None


def init() -> None:
    """Load the model, and the face detector where it is there."""
    global model, detector
    model = open_model()
    found = model.path.parent / DETECTOR
    detector = open_model(found) if found.exists() else None


def run(data: str) -> dict[str, Any]:
    """Answer a request in JSON."""
    start = time.perf_counter()
    request = orjson.loads(data)
    if not isinstance(request, dict) or "data" not in request:
        raise BadRequest(f'send {{"data": pixels}} of shape [{EDGE}, {EDGE}]', field="data")
    top = count(request["top"]) if "top" in request else 0
    return answer(score(tensor(request["data"])), top, start)


def run_tensors(tensors: Mapping[str, Floats]) -> dict[str, Floats]:
    """Answer with tensors."""
    return {"result": score(tensors["Input3"])}


def run_image(image: Image.Image) -> dict[str, Any]:
    """Answer for a picture."""
    start = time.perf_counter()
    upright = turned(image.convert("RGB"))
    faces = detect(upright)
    pixels = grey(upright, faces[0]["box"] if faces else None)
    found = answer(score(pixels[np.newaxis, np.newaxis]), len(EMOTIONS), start)
    return {**found, "face": faces[0]["box"], "faces": faces} if faces else found


def count(value: object) -> int:
    """How many emotions are to be named."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= len(EMOTIONS):
        raise BadRequest(f"top is how many emotions to name, 1 to {len(EMOTIONS)}", field="top")
    return value


def tensor(value: object) -> Floats:
    """The pixels of a request, as [N, 1, 64, 64]."""
    found: Floats = read_array(value, "float32", field="data")
    if found.ndim == 2:
        found = found[np.newaxis, np.newaxis]
    if found.ndim != 4 or not found.size or found.shape[1:] != (1, EDGE, EDGE):
        raise BadRequest(
            f"data has shape {list(np.shape(found))}, not [{EDGE}, {EDGE}] "
            f"or [N, 1, {EDGE}, {EDGE}]",
            field="data",
        )
    return found


def turned(image: Image.Image) -> Image.Image:
    """The picture as its camera says it was held."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # metadata of a picture may be broken in many ways
        return image


def detect(image: Image.Image) -> list[dict[str, Any]]:
    """Faces, most certain first: {"box": [left, top, right, bottom], "probability": …}.

    The detector's boxes are corners as shares of width and height, already decoded from its
    anchors; scaling, threshold and suppression are those of its page in onnx/models,
    validated/vision/body_analysis/ultraface.
    """
    if detector is None:
        return []
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    pixels = (np.asarray(small, np.float32) - np.float32(127)) / np.float32(128)
    found = detector.run({"input": pixels.transpose(2, 0, 1)[np.newaxis]})
    scores, boxes = found["scores"][0, :, 1], found["boxes"][0]
    # Of a box that is thinner than a pixel nothing can be cut out.
    size = np.array([image.width, image.height] * 2)
    corners = np.clip(boxes * size, 0, size).round().astype(int)
    wide = (corners[:, 2:] - corners[:, :2] >= 1).all(axis=1)
    likely = np.flatnonzero((scores > CERTAIN) & wide)
    return [
        {"box": corners[each].tolist(), "probability": float(scores[each])}
        for each in suppress(boxes, scores, likely)
    ]


def suppress(boxes: Floats, scores: Floats, likely: npt.NDArray[np.intp]) -> list[int]:
    """Non-maximum suppression: of boxes that overlap, keep the most certain."""
    kept: list[int] = []
    for each in likely[np.argsort(-scores[likely], kind="stable")]:
        if all(overlap(boxes[each], boxes[other]) <= SAME for other in kept):
            kept.append(int(each))
    return kept


def overlap(first: Floats, second: Floats) -> float:
    """Intersection over union of two boxes."""
    corner = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    common = float(np.prod(np.clip(corner, 0, None)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (first, second)]
    return common / (sum(areas) - common) if common else 0.0


def grey(image: Image.Image, box: Box | None) -> Floats:
    """Grey pixels [64, 64] of the square around ``box``, or of the whole picture.

    FER+ was trained on square pictures of faces; a box is often higher than wide.
    """
    part = image if box is None else image.crop(square(box))
    small = part.convert("L").resize((EDGE, EDGE), Image.Resampling.LANCZOS)
    return np.asarray(small, np.float32)


def square(box: Box) -> tuple[int, int, int, int]:
    """The square with the same middle and the longer side; what is outside a picture is black."""
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    left, top = (left + right - side) // 2, (top + bottom - side) // 2
    return left, top, left + side, top + side


def score(pixels: Floats) -> Floats:
    """Probabilities [N, 8] of pixels [N, 1, 64, 64]; the model takes one face at a time."""
    if not pixels.size:
        raise BadRequest("data holds no face", field="data")
    if pixels.min() < 0 or pixels.max() > 255:
        raise BadRequest("pixels are numbers from 0 to 255, not yet normalised", field="data")
    name = model.signature.inputs[0].name
    rows = [next(iter(model.run({name: each[np.newaxis]}).values())) for each in pixels]
    scores = np.concatenate(rows)
    powers: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def answer(probabilities: Floats, top: int, start: float) -> dict[str, Any]:
    """The answer in JSON; what belongs to one face alone is not in a list of its own."""
    result: Any = probabilities.tolist()
    best: Any = [named(each, top) for each in probabilities] if top else []
    if len(probabilities) == 1:
        result, best = result[0], best[0] if best else []
    found = {"result": result, "time": time.perf_counter() - start}
    return {**found, "top": best} if top else found


def named(probabilities: Floats, top: int) -> list[dict[str, Any]]:
    """The best emotions."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [{"label": EMOTIONS[each], "probability": float(probabilities[each])} for each in order]
