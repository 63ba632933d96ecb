"""What a module scores with: the user's script, or a model alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .http_errors import UnsupportedMediaType
from .settings import RuntimeSettings
from .signature import Signature

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[np.generic]

JSON = "application/json"
ONNX = "onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One request over any transport; header names are in lower case."""

    content: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/score"
    query: str = ""
    scope: Mapping[str, Any] = field(default_factory=dict)
    """ASGI's scope of an HTTP request; empty on other transports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A response with its own status, content type and headers."""

    status: int = 200
    content: bytes = b""
    content_type: str = JSON
    """Empty: the response has none."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in lower case."""
    repeated: tuple[tuple[str, str], ...] = ()
    """Further values of headers that occur more than once."""
    chunks: Iterator[bytes] | None = None
    """The body of a response that is sent while it is made, instead of ``content``; only the
    scorer's thread may call it."""


class Scorer:
    """Scores requests one at a time, always on the thread that opened it.

    Subclasses override what they take; a scorer takes JSON and raw requests by default.
    """

    signature: Signature | None = None
    """The tensors it takes; ``None`` if it takes only JSON and raw requests."""
    fields: tuple[str, ...] = ()
    """Names of the numbers in ``{"params": […]}``; empty if it takes other requests."""
    ranges: Mapping[str, tuple[float, float, float]] = {}
    """Lowest, highest and usual value of fields, if known."""
    images = False
    """Whether ``run_image`` takes image/jpeg and image/png."""
    tensors = False
    """Whether ``run_tensors`` works."""
    generic = False
    """Whether JSON requests, too, are tensors of the signature."""
    raw = False
    """Whether ``run`` takes requests of every content type, unparsed."""
    batches = False
    """Whether the script allows to join the tensors of several requests on axis 0."""
    prediction: tuple[str, ...] = ()
    """Members of a result that a prediction over MQTT has; empty for all of them."""

    def choices(self) -> Mapping[tuple[str, int], Sequence[object]]:
        """Return the known categories by input and column; the page offers them."""
        return {}

    def configure(self, properties: Mapping[str, object]) -> None:
        """Take the settings of a device twin; raise :class:`~.http_errors.BadRequest`."""

    def run(self, payload: Payload) -> object:
        """Return a JSON value or a :class:`Reply` (Azure ML's contract)."""
        raise NotImplementedError

    def run_tensors(self, tensors: Mapping[str, Array]) -> Mapping[str, object]:
        """Return outputs by name, for inputs by name that fit the signature."""
        raise UnsupportedMediaType("this module takes no tensors")

    def run_image(self, image: Image) -> object:
        """Return a JSON value for a picture that is open but not yet decoded."""
        raise UnsupportedMediaType("this module takes no pictures")


def open_scorer(settings: RuntimeSettings) -> Scorer:
    """Open the script if there is one, else the model by the module named as its file's suffix.

    An ONNX model comes first. Raises :class:`~.settings.NotServable`.
    """
    if settings.script.is_file():
        from .script import ScriptScorer

        return ScriptScorer(settings.script, settings)
    from . import scorers

    names = sorted({each.name for each in iter_modules(scorers.__path__)} - {ONNX})
    held = (each for each in (ONNX, *names) if any(settings.model_dir.rglob(f"*.{each}")))
    opened: Scorer = import_module(f"{scorers.__name__}.{next(held, ONNX)}").open(settings)
    return opened
