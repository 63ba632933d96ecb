"""Download ResNet50v2 from the ONNX model zoo into model/, 102 MB; resumes, checks, writes whole.

Licence: Apache-2.0 (onnx/models). Size and sha256 are the zoo's. The second
address is the zoo's newer home; it is asked where the first one fails, and checked the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
from examples.download import KnownFile, download_all

FOLDER = Path(__file__).parent / "model"
ZOO = "https://media.githubusercontent.com/media/onnx/models/main/validated/vision/"

FILES = {
    "model.onnx": KnownFile(
        urls=(
            f"{ZOO}classification/resnet/model/resnet50-v2-7.onnx",
            "https://huggingface.co/onnxmodelzoo/resnet50-v2-7/resolve/main/resnet50-v2-7.onnx",
        ),
        size=102_442_452,
        sha256="79102261eb6e5fd7af5d27f41316293e388c5cb691e5d25bfb035c4f64fefe31",
    ),
}


if __name__ == "__main__":
    download_all(FILES, FOLDER)
