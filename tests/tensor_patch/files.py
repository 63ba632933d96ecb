"""Files with arrays of numbers in them, and newer versions of those, for tests of patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlpack.runtime.patch import apply_patch
from mlpack.runtime.patch.arrays import Array, NumberType, stepped
from mlpack.tensor_patch import Arrays, Effort, make_patch
from mlpack.tensor_patch.spans import Span
from mlpack.tensor_patch.spans.span import Kind

Change = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]

NUMPY = {Kind.F16: "<f2", Kind.F32: "<f4", Kind.F64: "<f8"}
INTEGERS = {Kind.I8: "<i1", Kind.I16: "<i2", Kind.I32: "<i4", Kind.I64: "<i8"}


@dataclass(frozen=True)
class Pair:
    """Two versions of a file, and where their arrays are."""

    old: bytes
    new: bytes
    old_spans: tuple[Span, ...]
    new_spans: tuple[Span, ...]


def stored(values: NDArray[np.float64], kind: Kind) -> bytes:
    """``values`` as numbers of a kind."""
    if kind is Kind.BF16:
        return (values.astype("<f4").view("<u4") >> np.uint32(16)).astype("<u2").tobytes()
    if kind in INTEGERS:
        return np.rint(values * 100).astype(INTEGERS[kind]).tobytes()
    return values.astype(NUMPY[kind]).tobytes()


def trained(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Weights that decayed a little, and moved a little."""
    return values * 0.9993 + random.normal(0, 0.0005, values.shape)


def sparse(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """A few rows' worth of other numbers."""
    return np.where(random.random(values.shape) < 0.1, values * 1.5 + 0.01, values)


def unrelated(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """A network trained from nothing."""
    return random.normal(0, 0.5, values.shape)


def by_rows(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Each row moved by as much as its own rate of learning."""
    rows = np.exp2(random.integers(-14, -6, (values.shape[0], *(1 for _ in values.shape[1:]))))
    return values + random.normal(0, 1, values.shape) * rows


def weights(kind: NumberType, count: int, seed: int = 2) -> Array:
    """The bits of normally distributed floats."""
    values = np.random.default_rng(seed).normal(0, 0.5, count)
    return np.frombuffer(stored(values, Kind(kind.name)), kind.unsigned)


def of_arrays(kind: NumberType, old: Array, new: Array) -> Pair:
    """Files that are one array each, given by its bits."""
    span = Span("w", 0, old.nbytes, Kind(kind.name), old.shape)
    return Pair(old.tobytes(), new.tobytes(), (span,), (replace(span, length=new.nbytes),))


def rounded(kind: NumberType, count: int = 2000, step: int = -6, seed: int = 3) -> Pair:
    """An array of floats moved by whole multiples of ``2**step``."""
    old = weights(kind, count)
    moves = np.rint(np.random.default_rng(seed).normal(0, 2, count)).astype(np.int32)
    return of_arrays(kind, old, stepped(kind, old, moves, step))


def pair(
    change: Change = trained,
    kind: Kind = Kind.F32,
    shape: tuple[int, ...] = (32, 16, 3, 3),
    arrays: int = 3,
    seed: int = 1,
) -> Pair:
    """Versions of a file of ``arrays`` arrays with text between them."""
    random = np.random.default_rng(seed)
    old, new = bytearray(b"model v1 "), bytearray(b"model version two ")
    old_spans: list[Span] = []
    new_spans: list[Span] = []
    for each in range(arrays):
        rows = random.gamma(2, 0.4, (shape[0], *(1 for _ in shape[1:])))
        values = random.normal(0, 0.5, shape) * rows
        for content, spans, numbers in (
            (old, old_spans, values),
            (new, new_spans, change(values, random)),
        ):
            content += f"node {each} of the graph".encode()
            held = stored(numbers, kind)
            spans.append(Span(f"w{each}", len(content), len(held), kind, shape))
            content += held
    return Pair(bytes(old + b"end"), bytes(new + b"the end"), tuple(old_spans), tuple(new_spans))


def made(of: Pair, effort: Effort = Effort.DEFAULT) -> bytes:
    """The patch of a pair, which makes the new file."""
    arrays = Arrays(of.old_spans, of.new_spans)
    patch = make_patch(memoryview(of.old), memoryview(of.new), arrays=arrays, effort=effort)
    assert applied(of.old, patch) == of.new
    return patch


def applied(old: bytes, patch: bytes) -> bytes:
    """The new file."""
    pieces: list[bytes] = []
    apply_patch(memoryview(old), memoryview(patch), lambda piece: pieces.append(bytes(piece)))
    return b"".join(pieces)
