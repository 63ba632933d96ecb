"""Scores fan readings, as Azure ML calls it: init() once, then run() for each request.

A request is {"params": [rotation, temperature, vibration, sound]} for one reading
or {"data": [[…], […]]} for several. An answer has the fault, "0" or "1", and how
probable a fault is. Over MQTT a reading is {"deviceID": "1", "rotation": 600, …}
and its prediction {"deviceID": "1", "fault": "0"}.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

# What Azure ML does not know, mlpack's runtime does: docs/scoring.md.
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
    single = "params" in request
    answers = score([request["params"]] if single else request["data"])
    return answers[0] if single else {"result": answers}


def run_tensors(tensors: dict[str, Any]) -> dict[str, Any]:
    """Answer requests that are arrays already: params [N, 4] to fault [N] and probability [N]."""
    probability = session.run(["probabilities"], {"params": tensors["params"]})[0][:, 1]
    return {"fault": (probability >= threshold).astype(np.int64), "probability": probability}


def score(readings: list[list[float]]) -> list[dict[str, Any]]:
    """Score readings of four numbers each."""
    try:
        batch = np.asarray(readings, dtype=np.float32)
    except (TypeError, ValueError):
        batch = np.empty(0, dtype=np.float32)
    if batch.ndim != 2 or batch.shape[1] != len(FIELDS) or not np.isfinite(batch).all():
        raise ValueError(f"params, or each of data, is four numbers: {', '.join(FIELDS)}")
    found = run_tensors({"params": batch})
    return [
        {"fault": str(fault), "probability": round(float(probability), 6)}
        for fault, probability in zip(found["fault"], found["probability"], strict=True)
    ]
