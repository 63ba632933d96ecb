"""Download FER+ and a face detector from the ONNX model zoo into model/; resumes, checks.

35 MB and 1.3 MB. Licences: MIT both (onnx/models, emotion_ferplus and ultraface). Sizes and sha256
are the zoo's. The second addresses are its newer home; they are asked where the first fail, and
checked the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.stores.fetch import KnownFile, Shown, fetch

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


def main() -> None:
    """Have every file."""
    for name, file in FILES.items():
        if not (FOLDER / name).exists():
            print(f"fetching {file} ({file.size:,} bytes) to {FOLDER / name}", file=sys.stderr)
        try:
            fetch(file, FOLDER / name, progress=Shown(file, sys.stderr))
        except (MlpackError, OSError) as error:
            hint = getattr(error, "hint", "")
            other = (
                "python make_weights.py makes a model.onnx of the same size, with weights of chance"
            )
            sys.exit(f"error: {error}\nhint: {hint + ', or: ' if hint else ''}{other}")
        print(f"{FOLDER / name} is {file}")


if __name__ == "__main__":
    main()
