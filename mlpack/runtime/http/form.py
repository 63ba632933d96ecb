"""The page's form: what it asks for, and a first request that scores.

Everything is decided here, so that tests can send what the page would send; the page's script draws
the form and puts the person's values in the places of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import orjson

from ..scorer import JSON, Scorer
from ..signature import Dimension, Tensor
from ..tensors import OCTETS

MOST_FIELDS = 64
"""Values of one input that get a field each; more are one text."""

_NUMBER, _INTEGER, _TRUTH, _TEXT = "number", "integer", "truth", "text"
_KINDS = {"b": _TRUTH, "u": _INTEGER, "i": _INTEGER, "f": _NUMBER, "O": _TEXT}

_LENGTHS = (1, 2, 3, 8, 16, 64, 224, 512)
"""Lengths to try for free dimensions other than the first."""
_MOST_TRIED = 2**20
"""Elements of an input that is tried with several lengths."""
_LEAST_SIDE = 8
"""Pixels below which an input is not taken for a picture."""
_PIXELS = ("tensor(uint8)", "tensor(float16)", "tensor(float)", "tensor(double)")


@dataclass(frozen=True, slots=True)
class Part:
    """One input: its values in row-major order, or what each of its many values is."""

    name: str
    kind: str
    shape: tuple[int, ...]
    fill: object
    values: tuple[object, ...] = ()
    labels: tuple[str, ...] = ()
    choices: tuple[tuple[object, ...], ...] = ()
    """Known categories of each value; empty if none are known."""

    optional: bool = False
    about: str = ""
    """The input's type and shape, for people."""

    def value(self) -> object:
        """Return the value as in JSON."""
        count = math.prod(self.shape)
        flat = list(self.values) or [self.fill] * count
        return _nested(flat, self.shape)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as an input: its sides in pixels, and the order of its values."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    channels: int
    height: int
    width: int
    planar: bool
    """Whether all values of one color come before those of the next (NCHW)."""

    alone: bool = True
    """Whether it can be sent as bytes: the model's only input."""


@dataclass(frozen=True, slots=True)
class Form:
    """What the page asks for: a picture file, a picture's pixels, parts, or JSON as text."""

    parts: tuple[Part, ...] = ()
    picture: Picture | None = None
    file: bool = False
    """Whether a picture file is sent as it is."""

    octets: str = ""
    """The element type in which the only part is sent as bytes: JSON is the script's own."""

    text: str = ""
    """A request as JSON, if nothing is known about it."""

    ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A request to ``/score``."""

    content: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def forms(scorer: Scorer) -> Iterator[Form]:
    """Yield forms with other first values, the likeliest first; only a model's are several."""
    if scorer.images:
        yield Form(file=True)
    elif scorer.fields:
        yield _fields_form(scorer)
    elif not _sendable(scorer):
        yield Form(text='{"data": []}')
    elif scorer.generic or (scorer.tensors and _as_octets(scorer)):
        yield from _tensor_forms(scorer)
    else:
        inputs = scorer.signature.required if scorer.signature else ()
        parts = [_part(each, 1, 1, "", {}) for each in inputs]
        names = ["data"] if len(parts) == 1 else [each.name for each in parts]
        values = {name: each.value() for name, each in zip(names, parts, strict=True)}
        yield Form(text=orjson.dumps(values).decode())


def request(form: Form) -> Request | None:
    """Return the request of the form as it is at first; ``None`` for a picture file."""
    if form.file:
        return None
    if form.picture is not None and form.picture.alone:
        return _octets(form.picture.shape, np.dtype(form.picture.dtype), 0)
    if form.octets:
        [part] = form.parts
        return _octets(part.shape, np.dtype(form.octets), part.fill)
    if form.text:
        return Request(form.text.encode())
    values = {each.name: each.value() for each in form.parts if not each.optional}
    if form.picture is not None:
        values[form.picture.name] = np.zeros(form.picture.shape, np.uint8).tolist()
    return Request(orjson.dumps(values))


def _octets(shape: Sequence[int], dtype: np.dtype[np.generic], fill: object) -> Request:
    array = np.full(shape, fill, dtype.newbyteorder("<"))
    sizes = ",".join(map(str, shape))
    return Request(array.tobytes(), OCTETS, {"x-tensor-shape": sizes} if sizes else {})


def _fields_form(scorer: Scorer) -> Form:
    usual = tuple(scorer.ranges[each][2] if each in scorer.ranges else 0 for each in scorer.fields)
    part = Part("params", _NUMBER, (len(usual),), 0, usual, scorer.fields)
    return Form(parts=(part,), ranges=dict(scorer.ranges))


def _sendable(scorer: Scorer) -> bool:
    """Return whether clients can send every input that has no default."""
    known = scorer.signature
    return known is not None and all(each.dtype is not None for each in known.required)


def _as_octets(scorer: Scorer) -> bool:
    """Return whether a request is the bytes of the only input."""
    inputs = scorer.signature.inputs if scorer.signature else ()
    return len(inputs) == 1 and inputs[0].kind != "tensor(string)"


def _tensor_forms(scorer: Scorer) -> Iterator[Form]:
    inputs = scorer.signature.inputs if scorer.signature else ()
    required = [each for each in inputs if not each.optional]
    if len(required) == 1:
        pictures = [*_pictures(required[0], alone=len(inputs) == 1)]
        optional = tuple(_part(each, 1, 0, "", {}) for each in inputs if each.optional)
        yield from (Form(picture=each, parts=optional) for each in pictures)
        if pictures:
            return
    octets = "" if scorer.generic else str(inputs[0].dtype)
    known = scorer.choices()
    for length, number, text in _first_values(required):
        parts = tuple(_part(each, length, number, text, known) for each in inputs)
        yield Form(parts=parts, octets=octets)


def _first_values(inputs: Sequence[Tensor]) -> Iterator[tuple[int, int, str]]:
    """Yield the length of free dimensions, the number and the text that a first request has.

    One comes before zero: a division of whole numbers by zero ends the process.
    """
    yield from ((1, 1, "example"), (1, 0, ""), (1, 1, "1"))
    free = any(not isinstance(size, int) for each in inputs for size in each.shape)
    for length in _LENGTHS[1:] if free else ():
        if all(math.prod(_sizes(each.shape, length)) <= _MOST_TRIED for each in inputs):
            yield length, 1, "example"
            yield -length, 1, "example"


def _part(
    tensor: Tensor,
    length: int,
    number: int,
    text: str,
    choices: Mapping[tuple[str, int], Sequence[object]],
) -> Part:
    dtype = tensor.dtype
    kind = _KINDS[dtype.kind] if dtype is not None else _TEXT
    fill: object = {_TRUTH: bool(number), _TEXT: text}.get(kind, number)
    shape = _sizes(tensor.shape if tensor.ranked else (None, None), length)
    made = Part(tensor.name, kind, shape, fill, optional=tensor.optional, about=_about(tensor))
    count = math.prod(shape)
    if count > MOST_FIELDS or tensor.optional or not tensor.ranked:
        return made
    columns = range(shape[-1]) if shape else range(1)
    known = [tuple(choices.get((tensor.name, each), ())) for each in columns]
    listed = tuple(known[place % len(known)] for place in range(count))
    values = tuple(each[0] if each else fill for each in listed)
    return replace(
        made,
        values=values,
        labels=_labels(tensor.name, shape),
        choices=listed if any(known) else (),
    )


def _labels(name: str, shape: Sequence[int]) -> tuple[str, ...]:
    """Return a label for each value; leading dimensions of one are left out.

    >>> _labels("x", (1, 1)), _labels("x", (1, 2)), _labels("x", (2, 1))
    (('x',), ('x[0]', 'x[1]'), ('x[0, 0]', 'x[1, 0]'))
    """
    if math.prod(shape) == 1:
        return (name,)
    first = next(place for place, size in enumerate(shape) if size != 1)
    places = np.ndindex(*shape[first:])
    return tuple(f"{name}[{', '.join(map(str, place))}]" for place in places)


def _about(tensor: Tensor) -> str:
    kind = tensor.kind.removeprefix("tensor(").removesuffix(")")
    sizes = ", ".join("?" if each is None else str(each) for each in tensor.shape)
    return f"{kind} [{sizes}]" if tensor.ranked else f"{kind} of any shape"


def _sizes(shape: Sequence[Dimension], length: int) -> tuple[int, ...]:
    """Return a shape whose free dimensions have ``length``, except for the first, which has one.

    A negative length is that of the first dimension, too. Names such as ``past + 1`` are sums.
    """
    found = []
    for place, size in enumerate(shape):
        free = 1 if place == 0 and length > 0 and len(shape) > 1 else abs(length)
        found.append(size if isinstance(size, int) else _sum(size or "", free))
    return tuple(found)


def _sum(name: str, length: int) -> int:
    words = [each.strip() for each in name.split("+")]
    return sum(int(each) if each.isdecimal() and len(each) < 5 else length for each in words)


def _pictures(tensor: Tensor, *, alone: bool) -> Iterator[Picture]:
    """Yield the picture that an input takes, if free sides have one of several lengths."""
    for side in (224, 32, 640):
        shape = _picture_shape(tensor.shape, side)
        if shape is None or tensor.kind not in _PIXELS:
            return
        planar = shape[-3] in (1, 3)
        channels, height, width = shape[-3:] if planar else (shape[-1], *shape[-3:-1])
        dtype = str(tensor.dtype)
        yield Picture(tensor.name, dtype, shape, channels, height, width, planar, alone)
        if all(isinstance(each, int) for each in tensor.shape[-3:]):
            return


def _picture_shape(shape: Sequence[Dimension], side: int) -> tuple[int, ...] | None:
    """Return the shape of one picture: [N, C, H, W] or [N, H, W, C], or without N."""
    batch, rest = shape[:-3], shape[-3:]
    if len(shape) not in (3, 4) or any(isinstance(each, int) and each != 1 for each in batch):
        return None
    sides = rest[1:] if rest[0] in (1, 3) else rest[:2] if rest[2] in (1, 3) else ()
    free = [not isinstance(each, int) for each in sides]
    if not sides or (any(free) and not (batch and all(free))):
        return None
    if any(isinstance(each, int) and each < _LEAST_SIDE for each in sides):
        return None
    return (*(1 for _ in batch), *(each if isinstance(each, int) else side for each in rest))


def _nested(flat: Sequence[object], shape: Sequence[int]) -> object:
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return list(flat)
    step = len(flat) // shape[0] if shape[0] else 0
    rows = range(shape[0])
    return [_nested(flat[row * step : (row + 1) * step], shape[1:]) for row in rows]
