"""Regions of numbers that are found in bytes of an unknown format."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.tensor_patch.spans import Kind
from mlpack.tensor_patch.spans.guess import LEAST, guess
from tests.tensor_patch.files import stored
from tests.tensor_patch.spans.checks import disjoint

RANDOM = np.random.default_rng(3)
WEIGHTS = np.concatenate([RANDOM.normal(0, scale, 20_000) for scale in (0.5, 0.05, 0.01, 1, 0.2)])
TEXT = " ".join(map(repr, WEIGHTS[:20_000].tolist())).encode()
NOISE = RANDOM.bytes(60_000)
FLOATS = [Kind.F16, Kind.BF16, Kind.F32, Kind.F64]
GUESSED = [*FLOATS, Kind.I16]


def regions(content: bytes) -> list[tuple[Kind, int, int]]:
    found = guess(memoryview(content))
    disjoint(found, len(content))
    return [(each.kind, each.offset, each.length) for each in found]


@pytest.mark.parametrize("kind", GUESSED)
@pytest.mark.parametrize("header", [0, 1, 2, 3, 5, 8, 4097])
def test_a_file_of_numbers_is_one_region(kind: Kind, header: int) -> None:
    content = NOISE[:header] + stored(WEIGHTS, kind)
    [(found, start, length)] = regions(content)
    assert found is kind
    assert start % kind.width == header % kind.width
    # Numbers at an end that are rather large or small may be left out, or bytes before taken in.
    assert abs(start - header) <= 64 * kind.width
    assert len(content) - start - length <= 2 * kind.width


@pytest.mark.parametrize("kind", FLOATS)
def test_pruned_weights_are_one_region(kind: Kind) -> None:
    content = stored(np.where(RANDOM.random(len(WEIGHTS)) < 0.7, 0.0, WEIGHTS), kind)
    assert regions(content) == [(kind, 0, len(content))]


@pytest.mark.parametrize("kind", GUESSED)
def test_zeros_and_names_between_arrays_do_not_divide_a_region(kind: Kind) -> None:
    half = stored(WEIGHTS[:50_000], kind)
    content = half + bytes(40_000) + half + b"layers/conv2d_1/bias:0  " * 8 + half
    assert regions(content) == [(kind, 0, len(content))]


def test_regions_of_different_kinds_in_one_file() -> None:
    kinds = [Kind.F32, Kind.F64, Kind.F16, Kind.BF16]
    content, places = b"", list[int]()
    for kind in kinds:
        content += NOISE[: 30_000 + len(places)] + TEXT[:10_001]
        places.append(len(content))
        content += stored(WEIGHTS[:20_000], kind)
    found = regions(content)
    assert [kind for kind, _, _ in found] == kinds
    for (kind, start, length), place in zip(found, places, strict=True):
        assert (start - place) % kind.width == 0
        assert abs(start - place) <= 1024
        assert abs(start + length - place - 20_000 * kind.width) <= 1024


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(100_000),
        NOISE,
        TEXT,
        stored(WEIGHTS / 5, Kind.I8),
        (WEIGHTS * 20 + 128).clip(0, 255).astype("u1").tobytes(),
        stored(WEIGHTS, Kind.F32)[: LEAST - 1],
    ],
    ids=["empty", "zeros", "noise", "text", "int8", "uint8", "too small"],
)
def test_other_bytes_have_no_regions(content: bytes) -> None:
    assert regions(content) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from([stored(WEIGHTS[:9_000], kind) for kind in Kind] + [TEXT, NOISE]),
            st.integers(0, 30_000),
        ),
        max_size=6,
    )
)
def test_any_bytes(pieces: list[tuple[bytes, int]]) -> None:
    content = b"".join(piece[:size] for piece, size in pieces)
    assert regions(content) == regions(bytes(content))


def test_a_large_file_is_found_whole_and_quickly() -> None:
    content = stored(np.tile(WEIGHTS, 100), Kind.F32)
    start = time.process_time()
    assert regions(content) == [(Kind.F32, 0, len(content))]
    assert time.process_time() - start < 1
