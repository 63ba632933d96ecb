"""Something that scores, whatever is behind it: the user's script, or an ONNX model alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from .signature import Signature

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[np.generic]

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One request, whatever it came over; names of headers are in lower case."""

    content: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/score"
    query: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that is not simply a value for JSON."""

    status: int = 200
    content: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Scorer(Protocol):
    """Answers requests, one at a time, always on the thread that opened it."""

    @property
    def signature(self) -> Signature | None:
        """The tensors it takes; ``None`` where only JSON and raw requests are taken."""
        ...

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the numbers in ``{"params": […]}``; none where there are none."""
        ...

    @property
    def ranges(self) -> Mapping[str, tuple[float, float, float]]:
        """Lowest, highest and usual value of fields, where they are known."""
        ...

    @property
    def images(self) -> bool:
        """Whether image/jpeg and image/png are taken, by ``run_image``."""
        ...

    @property
    def tensors(self) -> bool:
        """Whether ``run_tensors`` works."""
        ...

    @property
    def generic(self) -> bool:
        """Whether JSON, too, is nothing but tensors by the signature."""
        ...

    @property
    def raw(self) -> bool:
        """Whether ``run`` takes requests of every content type, as they came."""
        ...

    @property
    def batches(self) -> bool:
        """Whether tensors of several requests may be joined on axis 0."""
        ...

    @property
    def prediction(self) -> tuple[str, ...]:
        """Members of an answer that go out as a prediction over MQTT; none: all of them."""
        ...

    def configure(self, properties: Mapping[str, object]) -> None:
        """Take the settings of a device twin; raise :class:`~.problems.BadRequest`."""
        ...

    def run(self, payload: Payload) -> object:
        """Azure ML's contract: a value for JSON, or a :class:`Reply`."""
        ...

    def run_tensors(self, tensors: Mapping[str, Array]) -> Mapping[str, object]:
        """Outputs by name, of inputs by name that fit the signature."""
        ...

    def run_image(self, image: Image) -> object:
        """A value for JSON, of a picture that is opened but not yet decoded."""
        ...
