"""The fan model, trained once for all tests that need it, and releases of it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.support import SHARED, require

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fan"
FIELDS = ("rotation", "temperature", "vibration", "sound")


@functools.cache
def trained() -> bytes:
    """The ONNX file of a model of few readings: enough to tell clear cases apart."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(EXAMPLE / "train.py"), "--readings", "4000"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        return (Path(folder) / "fan.onnx").read_bytes()


def fan_release(folder: Path, version: str = "1") -> Path:
    """``/var/azureml-app`` of a release of the fan, in ``folder``."""
    place = folder / "azureml-models" / "fan" / version
    place.mkdir(parents=True)
    (place / "fan.onnx").write_bytes(trained())
    shutil.copy(EXAMPLE / "score.py", folder / "score.py")
    return folder


def real_readings(count: int) -> npt.NDArray[np.float32]:
    """The first readings of real fans."""
    data = require(SHARED / "fan" / "fan.csv")
    return np.loadtxt(
        data, np.float32, delimiter=",", skiprows=1, usecols=(2, 3, 4, 5), max_rows=count
    )


def expected(readings: npt.NDArray[np.float32]) -> list[str]:
    """The labels that onnxruntime gives, called directly."""
    import onnxruntime

    session = onnxruntime.InferenceSession(trained())
    return [str(label) for label in session.run(["label"], {"params": readings})[0]]
