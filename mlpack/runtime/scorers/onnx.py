"""``*.onnx``: a model scored by its signature."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..onnx import find_onnx, open_model
from ..onnx_categories import Categories, read_categories
from ..scorer import Array, Scorer
from ..settings import NotServable, RuntimeSettings
from ..signature import Signature, unservable


def open(settings: RuntimeSettings) -> Scorer:
    """Open the only ONNX model of the folder."""
    return OnnxScorer(find_onnx(settings.model_dir), settings.threads)


class OnnxScorer(Scorer):
    """An ONNX model without a script: it has no settings, and takes no pictures."""

    signature: Signature
    tensors = True
    generic = True

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._model = open_model(path, threads)
        self.signature = self._model.signature
        if problem := unservable(self.signature):
            raise NotServable(
                f"{path.name}: {problem}: cast it to another type in the model, or write a score.py"
            )

    def choices(self) -> Categories:
        """Return the categories that the model's encoders know."""
        return read_categories(self._model.path)

    def run_tensors(self, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """Return the outputs by name."""
        return self._model.run(inputs)
