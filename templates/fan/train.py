"""Train the fan model: from four sensor readings, is the fan about to fail?

Readings are made as the sensor simulator of the scenario makes them, or come
from a CSV file with the columns Rotation, Temperature, Vibration, Sound and
Faulty. The network (60-30-10-1) is trained with scikit-learn and saved as ONNX,
its scaling inside, and must do at least as well as a logistic regression.

    pip install '/path/to/mlpack[sklearn]'
    python train.py                  version 1
    python train.py --retrain        version 2: the same network, more readings
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

COLUMNS = ("Rotation", "Temperature", "Vibration", "Sound")
NORMAL = ((500.0, 700.0), (35.0, 45.0), (100.0, 200.0), (45.0, 52.0))
FAULTY = ((400.0, 650.0), (35.0, 55.0), (100.0, 250.0), (45.0, 60.0))
"""What each sensor reads, lowest and highest: turns a minute, °C, mm/s, dB."""

LAYERS = (60, 30, 10)
EPOCHS = 40
FIRST_SHARE = 0.75
"""Of the training readings, what the first version sees; a retrained one sees all."""

OPSETS = {"": 17, "ai.onnx.ml": 3}
"""Old enough for every onnxruntime since 1.16, on any device."""


def simulate(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make ``count`` readings, half of them of failing fans, and say which."""
    random = np.random.default_rng(seed)
    half = count // 2
    readings = [
        random.uniform([low for low, _ in ranges], [high for _, high in ranges], (size, 4))
        for ranges, size in ((NORMAL, count - half), (FAULTY, half))
    ]
    faulty = np.repeat([0, 1], [count - half, half])
    order = random.permutation(count)
    return np.concatenate(readings)[order].round(1), faulty[order]


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a CSV file of readings; end with a message where it is not one."""
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = [
                ([float(row[name]) for name in COLUMNS], int(row["Faulty"]))
                for row in csv.DictReader(lines)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"error: {path} is not a CSV file of readings ({type(error).__name__}: {error})")
    if {faulty for _, faulty in rows} != {0, 1}:
        sys.exit(f"error: {path} must hold readings with Faulty 0 and with Faulty 1")
    return np.array([reading for reading, _ in rows]), np.array([faulty for _, faulty in rows])


def train(readings: np.ndarray, faulty: np.ndarray, seed: int) -> Pipeline:
    """Fit the network; the scaling of its input is part of it."""
    network = MLPClassifier(LAYERS, max_iter=EPOCHS, batch_size=200, random_state=seed)
    with warnings.catch_warnings():
        # A fixed number of epochs is meant: they are enough, and the training stays short.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), network).fit(readings, faulty)


def export(model: Pipeline) -> bytes:
    """Turn the pipeline into ONNX: float32 ``params`` [N, 4] → ``label`` and ``probabilities``."""
    converted = convert_sklearn(
        model,
        # Without a name skl2onnx makes up a random one, and the same model gets new bytes.
        name="fan",
        initial_types=[("params", FloatTensorType([None, len(COLUMNS)]))],
        options={id(model): {"zipmap": False}},
        target_opset=OPSETS,
    )
    # skl2onnx lists them in the order of a set, which differs from run to run.
    converted.opset_import.sort(key=lambda each: each.domain)
    return bytes(converted.SerializeToString(deterministic=True))


def arguments() -> argparse.Namespace:
    """What the user wants."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--data", type=Path, metavar="CSV", help="real readings; default: made up")
    parser.add_argument("--readings", type=int, default=20_000, help="how many to make up")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same model")
    parser.add_argument("--retrain", action="store_true", help="train with more readings")
    parser.add_argument("--output", type=Path, default=Path("fan.onnx"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics.json"))
    found = parser.parse_args()
    if found.readings < 100:
        parser.error("--readings: at least 100")
    return found


def main() -> None:
    """Train, compare with the baseline, and save the model and its metrics."""
    asked = arguments()
    made = read(asked.data) if asked.data else simulate(asked.readings, asked.seed)
    seen, unseen, answers, expected = train_test_split(
        *made, test_size=0.2, random_state=asked.seed, stratify=made[1]
    )
    if not asked.retrain:
        first = int(len(seen) * FIRST_SHARE)
        seen, answers = seen[:first], answers[:first]
    network = train(seen, answers, asked.seed)
    baseline = make_pipeline(StandardScaler(), LogisticRegression()).fit(seen, answers)
    accuracy = round(float(network.score(unseen, expected)), 4)
    baseline_accuracy = round(float(baseline.score(unseen, expected)), 4)
    report = (
        f"network 60-30-10-1: accuracy {accuracy} on {len(unseen)} unseen readings "
        f"(trained with {len(seen)})\n"
        f"logistic regression: accuracy {baseline_accuracy}\n"
    )
    sys.stdout.write(report)
    if accuracy < baseline_accuracy:
        sys.exit("error: the network is worse than the baseline; nothing was saved")
    model = export(network)
    asked.output.write_bytes(model)
    metrics = {"accuracy": accuracy, "baseline_accuracy": baseline_accuracy}
    asked.metrics.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"saved {asked.output} ({len(model)} bytes) and {asked.metrics}\n")


if __name__ == "__main__":
    main()
