"""What runs inside a release: a small server that scores with the model beside it.

Shipped in the base as the package ``mlpack_runtime``; it imports the standard
library, numpy, onnxruntime, orjson, starlette, uvicorn and prometheus_client,
and nothing of mlpack. Start it with ``python -m mlpack_runtime``.

Scoring scripts take :func:`open_model` and :class:`BadRequest` from here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .onnx import Model, open_model
    from .problems import BadRequest
    from .settings import NotServable

__all__ = ["BadRequest", "Model", "NotServable", "open_model"]

# Outside an image, too, scripts find it under the name that it has in one.
sys.modules.setdefault("mlpack_runtime", sys.modules[__name__])


def __getattr__(name: str) -> object:
    """Import what is asked for only then: most of it takes longer than a script's own start."""
    if name in ("open_model", "Model"):
        from . import onnx

        return getattr(onnx, name)
    if name == "BadRequest":
        from .problems import BadRequest

        return BadRequest
    if name == "NotServable":
        from .settings import NotServable

        return NotServable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
