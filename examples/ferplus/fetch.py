"""Download FER+ and a face detector from the ONNX model zoo into model/; resumes, checks.

35 MB and 1.3 MB. Licences: MIT both (onnx/models, emotion_ferplus and ultraface). Sizes and sha256
are the zoo's. The second addresses are its newer home; they are asked where the first fail, and
checked the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
from examples.download import KnownFile, download_all

FOLDER = Path(__file__).parent / "model"
ZOO = "https://media.githubusercontent.com/media/onnx/models/main/validated/vision/body_analysis/"
NEW_ZOO = "https://huggingface.co/onnxmodelzoo/"

FILES = {
    "model.onnx": KnownFile(
        urls=(
            f"{ZOO}emotion_ferplus/model/emotion-ferplus-8.onnx",
            f"{NEW_ZOO}emotion-ferplus-8/resolve/main/emotion-ferplus-8.onnx",
        ),
        size=35_040_571,
        sha256="a2a2ba6a335a3b29c21acb6272f962bd3d47f84952aaffa03b60986e04efa61c",
    ),
    "version-RFB-320.onnx": KnownFile(
        urls=(
            f"{ZOO}ultraface/models/version-RFB-320.onnx",
            f"{NEW_ZOO}version-RFB-320/resolve/main/version-RFB-320.onnx",
        ),
        size=1_270_727,
        sha256="34cd7e60aeff28744c657de7a3dc64e872d506741de66987f3426f2b79f88017",
    ),
}


if __name__ == "__main__":
    download_all(FILES, FOLDER)
