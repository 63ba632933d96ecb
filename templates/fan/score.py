"""Scores fan readings, as Azure ML calls it: init() once, then run() for each request.

A request is {"params": [rotation, temperature, vibration, sound]} for one reading,
{"params": [[…], […]]} or {"data": [[…], […]]} for several. An answer has the fault,
"0" or "1", and how probable a fault is. Over MQTT a reading is
{"deviceID": "1", "rotation": 600, …} and its prediction {"deviceID": "1", "fault": "0"}.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

# What Azure ML does not know, mlpack's runtime does: docs/reference/scoring.md.
FIELDS = {
    # Lowest, highest and usual: turns a minute, °C, mm/s, dB.
    "rotation": (400, 700, 600),
    "temperature": (35, 55, 40),
    "vibration": (100, 250, 150),
    "sound": (45, 60, 48),
}
INPUTS = {"params": ("float32", (None, 4))}
OUTPUTS = {"fault": ("int64", (None,)), "probability": ("float32", (None,))}
BATCHES = True
PREDICTION = ("fault",)

session: Any = None
threshold = 0.5
"""How probable a fault must be to be called one."""


def init() -> None:
    """Load the model; the container starts answering afterwards."""
    global session
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        raise RuntimeError(f"{folder} holds {len(found)} ONNX files, not one")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the network is tiny: threads would only wait
    session = onnxruntime.InferenceSession(
        str(found[0]), options, providers=["CPUExecutionProvider"]
    )
    configure({})


def configure(properties: dict[str, Any]) -> None:
    """Take the settings of the device's twin; raise ValueError for a threshold that is none."""
    global threshold
    wanted = properties.get("threshold", float(os.environ.get("FAN_THRESHOLD", "0.5")))
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 <= wanted <= 1:
        raise ValueError(f"threshold is {wanted!r}, not a number from 0 to 1")
    threshold = float(wanted)


def run(raw: str) -> dict[str, Any]:
    """Answer one request; raise ValueError for one that cannot be understood."""
    request = json.loads(raw)
    if not isinstance(request, dict) or ("params" in request) == ("data" in request):
        raise ValueError('send {"params": [...]} for one reading or {"data": [[...]]} for several')
    given = request["params"] if "params" in request else request["data"]
    several = isinstance(given, list) and bool(given) and isinstance(given[0], list)
    single = "params" in request and not several
    answers = score([given] if single else given)
    return answers[0] if single else {"result": answers}


def run_tensors(tensors: dict[str, Any]) -> dict[str, Any]:
    """Answer requests that are arrays already: params [N, 4] to fault [N] and probability [N]."""
    probability = session.run(["probabilities"], {"params": tensors["params"]})[0][:, 1]
    return {"fault": (probability >= threshold).astype(np.int64), "probability": probability}


def score(readings: list[list[float]]) -> list[dict[str, Any]]:
    """Score readings of four numbers each."""
    found = run_tensors({"params": checked(readings)})
    return [
        {"fault": str(fault), "probability": round(float(probability), 6)}
        for fault, probability in zip(found["fault"], found["probability"], strict=True)
    ]


def checked(readings: list[list[float]]) -> np.ndarray:
    """Return readings as an array [N, 4], with the checks of a model without a script."""
    try:
        batch = np.asarray(readings)
    except ValueError:
        batch = np.empty(0)
    # Neither texts nor true and false are numbers.
    if batch.dtype.kind in "iuf" and batch.ndim == 2 and batch.shape[1] == len(FIELDS):
        truth = any(isinstance(each, bool) for row in readings for each in row)
        with np.errstate(over="ignore"):
            batch = batch.astype(np.float32)
        if not truth and np.isfinite(batch).all():
            return batch
    raise ValueError(f"params, or each of data, is four numbers: {', '.join(FIELDS)}")
