"""Scoring with an ONNX model alone, from its own signature."""

from __future__ import annotations

from pathlib import Path

from .settings import NotServable
from .tensors import Input, parse_request, to_json

_ERRORS_ONLY = 3


class OnnxModel:
    """One ``.onnx`` file, loaded."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # A model may warn once for each of its weights, at every start.
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise NotServable(f"{path} cannot be loaded: {error}") from error
        self.inputs = tuple(
            Input(each.name, each.type, tuple(each.shape)) for each in self._session.get_inputs()
        )
        self._outputs = [each.name for each in self._session.get_outputs()]

    def score(self, body: bytes) -> object:
        """The model's outputs for the tensors in a request."""
        tensors = parse_request(body, self.inputs)
        results = self._session.run(self._outputs, tensors)
        return to_json(dict(zip(self._outputs, results, strict=True)))
