"""What a module scores with: the user's script where there is one, else the ONNX model."""

from __future__ import annotations

from .scorer import Scorer
from .settings import Settings


def open_scorer(settings: Settings) -> Scorer:
    """The script where there is one, else the ONNX model.

    Raises :class:`~.settings.NotServable`.
    """
    if settings.script.is_file():
        from .script import Script

        return Script(settings.script, settings)
    from .onnx import OnnxScorer, find_onnx

    return OnnxScorer(find_onnx(settings.model_dir), settings.threads)
