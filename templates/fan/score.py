"""Scores fan readings, as Azure ML calls it: init() once, then run() for each request.

A request is {"params": [rotation, temperature, vibration, sound]} for one reading
or {"data": [[…], […]]} for several. An answer has the fault, "0" or "1", and how
probable a fault is.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FEATURES = ("rotation", "temperature", "vibration", "sound")

session: Any = None


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


def run(raw: str) -> dict[str, Any]:
    """Answer one request; raise ValueError for one that cannot be understood."""
    request = json.loads(raw)
    if not isinstance(request, dict) or ("params" in request) == ("data" in request):
        raise ValueError('send {"params": [...]} for one reading or {"data": [[...]]} for several')
    single = "params" in request
    answers = score([request["params"]] if single else request["data"])
    return answers[0] if single else {"result": answers}


def score(readings: list[list[float]]) -> list[dict[str, Any]]:
    """Score readings of four numbers each."""
    try:
        batch = np.asarray(readings, dtype=np.float32)
    except (TypeError, ValueError):
        batch = np.empty(0, dtype=np.float32)
    if batch.ndim != 2 or batch.shape[1] != len(FEATURES) or not np.isfinite(batch).all():
        raise ValueError(f"a reading is four numbers: {', '.join(FEATURES)}")
    labels, probabilities = session.run(None, {"params": batch})
    return [
        {"fault": str(label), "probability": round(float(each[1]), 6)}
        for label, each in zip(labels, probabilities, strict=True)
    ]
