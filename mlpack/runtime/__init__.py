"""The runtime inside a release: a small server that scores with the release's model.

It ships in the base as the package ``mlpack_runtime`` and imports the standard
library, numpy, onnxruntime, orjson, starlette, uvicorn and prometheus_client,
and nothing of mlpack. Start it with ``python -m mlpack_runtime``.

Scoring scripts import :func:`open_model`, :func:`read_array` and :class:`BadRequest` from here.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .http_errors import BadRequest
    from .onnx import Model, open_model
    from .settings import NotServable
    from .tensors import read_array

__all__ = ["BadRequest", "Model", "NotServable", "open_model", "read_array"]

# Scripts import it under this name outside an image, too.
sys.modules.setdefault("mlpack_runtime", sys.modules[__name__])


_MODULES = {"BadRequest": "http_errors", "NotServable": "settings", "read_array": "tensors"}


def __getattr__(name: str) -> object:
    """Import lazily: most modules take longer to import than a script to start."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES.get(name, 'onnx')}", __name__), name)
