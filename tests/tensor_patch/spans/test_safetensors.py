"""Where the arrays of safetensors files lie."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from mlpack.tensor_patch.spans import Kind
from mlpack.tensor_patch.spans.safetensors import MAX_HEADER
from tests.tensor_patch.spans.checks import by_name, damaged, sound, values

RANDOM = np.random.default_rng(5)


def by_hand(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def tensor(dtype: str, shape: list[object], begin: object, end: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("f2", Kind.F16),
        ("f4", Kind.F32),
        ("f8", Kind.F64),
        ("i1", Kind.I8),
        ("u1", Kind.I8),
        ("?", Kind.I8),
        ("i2", Kind.I16),
        ("u2", Kind.I16),
        ("i4", Kind.I32),
        ("u4", Kind.I32),
        ("i8", Kind.I64),
        ("u8", Kind.I64),
        (ml_dtypes.bfloat16, Kind.BF16),
        (ml_dtypes.float8_e4m3fn, Kind.I8),
    ],
)
def test_every_type(dtype: str, kind: Kind) -> None:
    array = RANDOM.integers(0, 2, (3, 5)).astype(dtype)
    content = save({"a.weight": array}, {"format": "np"})
    (span,) = sound(content)
    assert (span.name, span.kind, span.shape) == ("a.weight", kind, (3, 5))
    assert content[span.offset : span.offset + span.length] == array.tobytes()


def test_several_tensors() -> None:
    arrays = {
        name: RANDOM.standard_normal((2, size)).astype(np.float32)
        for name, size in (("b", 3), ("a", 70), ("empty", 0), ("__metadata", 1))
    }
    content = save(arrays)
    spans = by_name(content)
    assert set(spans) == {"a", "b", "__metadata"}
    assert all(np.array_equal(values(content, spans[name]), arrays[name]) for name in spans)


def test_types_of_less_than_a_byte_have_no_shape() -> None:
    (span,) = sound(by_hand({"a": tensor("F4", [3, 2], 0, 3)}, b"123"))
    assert (span.kind, span.shape) == (Kind.I8, (3,))


def test_complex_numbers_are_pairs() -> None:
    (span,) = sound(by_hand({"a": tensor("C64", [3], 0, 24)}, b"\0" * 24))
    assert (span.kind, span.shape) == (Kind.F32, (3, 2))


def test_tied_tensors_are_one_span() -> None:
    said = tensor("F32", [2], 0, 8)
    overlapping = {"b": said, "a": said, "c": tensor("F32", [2], 4, 12)}
    assert [span.name for span in sound(by_hand(overlapping, b"\0" * 12))] == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        by_hand({"a": tensor("F32", [2], 0, 8)}, b"\0" * 7),  # cut
        by_hand({"a": tensor("F32", [2], 8, 0)}, b"\0" * 8),
        by_hand({"a": tensor("F32", [2], -8, 0)}, b"\0" * 8),
        by_hand({"a": tensor("F32", [2], 0, 2**70)}, b"\0" * 8),
        by_hand({"a": tensor("F32", [2], 0, 8.0)}, b"\0" * 8),
        by_hand({"a": tensor("F32", [2], False, 8)}, b"\0" * 8),
        by_hand({"a": tensor("F32", ["2"], 0, 8)}, b"\0" * 8),
        by_hand({"a": tensor("F32", [-2, -1], 0, 8)}, b"\0" * 8),
        by_hand({"a": {"dtype": "F32"}}),
        by_hand({"a": {**tensor("F32", [2], 0, 8), "data_offsets": [0]}}, b"\0" * 8),
        by_hand({"a": []}),
        by_hand(b'{"a": '),
        by_hand(b'{"a": "\xff"}'),
        by_hand(b'{"a":' * 200_000),
        by_hand(b'{"a": ' + b"1" * 10_000 + b"}"),
        (2**63).to_bytes(8, "little") + b"{}",
        (3).to_bytes(8, "little") + b"{}",
        (0).to_bytes(8, "little") + b"{}",
    ],
)
def test_damaged_and_hostile_headers_are_opaque(content: bytes) -> None:
    assert sound(content) == ()


def test_a_header_of_half_a_file_of_gigabytes_is_not_read() -> None:
    text = b"{}" + b" " * MAX_HEADER
    assert sound(by_hand(text)) == ()


VALID = save({"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.int8)}, {"k": "v"})


@given(damaged([VALID]))
def test_a_damaged_file_is_sound(content: bytes) -> None:
    sound(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.binary(max_size=30))
def test_any_header_is_sound(header: object, body: bytes) -> None:
    sound(by_hand(header, body))


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.builds(
            tensor,
            st.sampled_from(["F32", "F64", "I8", "F8_E4M3", "C64", "X"]),
            st.lists(st.integers(0, 4), max_size=4),
            st.integers(-1, 40),
            st.integers(-1, 40),
        ),
    )
)
def test_any_offsets_are_sound(header: object) -> None:
    sound(by_hand(header, b"\0" * 32))
