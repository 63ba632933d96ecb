"""JSON values become arrays exactly, or are refused for the true reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.runtime.http_errors import BadRequest
from mlpack.runtime.json_arrays import Unfit, array_of, reading
from mlpack.runtime.scorer import Array
from mlpack.runtime.signature import DTYPES

NUMBERS = {str(dtype): dtype for dtype in DTYPES.values() if dtype.kind in "iuf"}
WHOLE = {name: np.iinfo(name) for name, dtype in NUMBERS.items() if dtype.kind in "iu"}
FLOATS = [name for name, dtype in NUMBERS.items() if dtype.kind == "f"]


def read(text: str, dtype: str, *, allow_nan: bool = False) -> Array:
    def made(document: object) -> Array:
        return array_of(document, np.dtype(dtype), allow_nan=allow_nan)

    return reading(text.encode(), made, allow_nan=allow_nan)


@pytest.mark.parametrize("dtype", WHOLE)
def test_every_whole_number_of_a_type_is_taken_and_no_other(dtype: str) -> None:
    low, high = int(WHOLE[dtype].min), int(WHOLE[dtype].max)
    assert read(f"[{low}, {high}]", dtype).tolist() == [low, high]
    assert read(f"[{low}.0, {high}.0, 1e0]", dtype).tolist() == [low, high, 1]
    assert read(f"[{low}, 2.0, {high}]", dtype).tolist() == [low, 2, high]
    for beyond in (
        f"{high + 1}",
        f"{high + 1}.0",
        "1e400",
        "1e99999999999999999999",
    ):
        with pytest.raises(Unfit, match=r"\[1\] is too large"):
            read(f"[1, {beyond}]", dtype)
    for beyond in (f"{low - 1}", f"{low - 1}.0", "-1e300"):
        with pytest.raises(Unfit, match=r"\[1\] is too small"):
            read(f"[1, {beyond}]", dtype)
    for part in ("1.5", "0.1", "-1e-300"):
        with pytest.raises(Unfit, match=r"\[1\] is not a whole number"):
            read(f"[1, {part}]", dtype)


@pytest.mark.parametrize(
    ("text", "dtype", "values"),
    [
        ("[9007199254740993, 2.0]", "int64", [9007199254740993, 2]),
        ("[9007199254740993.0, 9007199254740993]", "int64", [9007199254740993] * 2),
        ("[18446744073709551615]", "uint64", [2**64 - 1]),
        ("[18446744073709551615, 1]", "uint64", [2**64 - 1, 1]),
        ("[9223372036854775807, -9223372036854775808]", "int64", [2**63 - 1, -(2**63)]),
        ("[1e18, 1E+2]", "int64", [10**18, 100]),
    ],
)
def test_no_whole_number_is_rounded(text: str, dtype: str, values: list[int]) -> None:
    assert read(text, dtype).tolist() == values


@given(st.data(), st.sampled_from(sorted(WHOLE)))
def test_whole_numbers_are_those_of_numpy(data: st.DataObject, dtype: str) -> None:
    near = [n + d for n in (0, 2**31, 2**53, 2**63, 2**64, -(2**63)) for d in range(-3, 4)]
    whole = st.one_of(st.sampled_from(near), st.integers(-(2**66), 2**66), st.integers(-300, 300))
    numbers = data.draw(st.lists(whole, min_size=1, max_size=5))
    written = [data.draw(st.sampled_from(["", ".0", "e0", ".000"])) for _ in numbers]
    text = f"[{', '.join(f'{n}{end}' for n, end in zip(numbers, written, strict=True))}]"
    fits = all(WHOLE[dtype].min <= n <= WHOLE[dtype].max for n in numbers)
    try:
        found = read(text, dtype)
    except Unfit:
        assert not fits
    else:
        assert fits
        assert found.dtype == dtype
        assert found.tolist() == np.array(numbers, dtype).tolist() == numbers


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, min_size=1), st.sampled_from(FLOATS))
def test_floats_are_rounded_as_numpy_does(numbers: list[float], dtype: str) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(numbers, np.float64).astype(dtype)
    try:
        found = read(json.dumps(numbers), dtype)
    except Unfit as error:
        assert "too large" in str(error)
        assert np.isinf(expected).any()
    else:
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_limits_of_floats(dtype: str) -> None:
    most = float(np.finfo(dtype).max)
    assert read(json.dumps([most, -most]), dtype).tolist() == [most, -most]
    assert read("[18446744073709551615]", "float64").tolist() == [2.0**64]
    for beyond in ("1e400", "-1e400", "1" + "0" * 400):
        for allow_nan in (False, True):
            with pytest.raises(Unfit, match=r"\[0\] is too large"):
                read(f"[{beyond}]", dtype, allow_nan=allow_nan)


@pytest.mark.parametrize("dtype", FLOATS)
def test_missing_values_are_taken_where_they_are_allowed(dtype: str) -> None:
    found = read("[[1.5, null], [NaN, -Infinity]]", dtype, allow_nan=True)
    assert found.shape == (2, 2)
    np.testing.assert_array_equal(found, np.array([[1.5, np.nan], [np.nan, -np.inf]], dtype))
    with pytest.raises(Unfit, match=r"\[0, 1\] is null; .*MLPACK_ALLOW_NAN=1"):
        read("[[1.5, null]]", dtype)
    with pytest.raises(BadRequest, match=r"NaN; .*MLPACK_ALLOW_NAN=1"):
        read("[[1.5, NaN]]", dtype)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "object"])
def test_only_floats_may_be_missing(dtype: str) -> None:
    for text in ("[null]", "[NaN]"):
        with pytest.raises(Unfit, match=r"null|not finite"):
            read(text, dtype, allow_nan=True)


@pytest.mark.parametrize(
    ("text", "dtype", "reason"),
    [
        ("[[1, 2], [3]]", "float32", "rows differ in length"),
        ("[[1, 2], 3]", "float32", "rows differ in length"),
        ('[1, "2"]', "float32", r"\[1\] is a text, not all are numbers"),
        ("[1, true]", "float32", r"\[1\] is true or false, not all are numbers"),
        ("[0, false]", "int8", r"\[1\] is true or false, not all are whole numbers"),
        ('[{"a": 1}]', "int8", r"\[0\] is an object"),
        ('["a", 1]', "object", r"\[1\] is a number, not all are texts"),
        ("[true, 0]", "bool", r"\[1\] is a number, not all are true or false"),
        ('"a"', "float32", "it is a text"),
    ],
)
def test_the_true_reason_is_named(text: str, dtype: str, reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        read(text, dtype)


def test_a_long_text_among_numbers_takes_no_memory() -> None:
    # numpy would make every element as wide as the widest text: 40 GB.
    text = json.dumps(["x" * 100_000, *[1] * 100_000])
    with pytest.raises(Unfit, match="a text"):
        read(text, "float32")


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN', "[NaN] x", '["\\ud800", NaN]', "[1e400", "\udcff NaN", "[" * 2000 + "NaN"],
)
def test_what_is_not_json_with_nan_either(text: str) -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        reading(text.encode("utf-8", "surrogateescape"), lambda document: document, allow_nan=True)


def test_deep_documents_are_refused_when_read_again() -> None:
    text = "[" * 1000 + "9007199254740993.0" + "]" * 1000
    with pytest.raises((BadRequest, Unfit)):
        read(text, "int64")


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([str(each) for each in DTYPES.values()]), st.booleans())
def test_no_values_make_it_fail_otherwise(value: object, dtype: str, allow_nan: bool) -> None:
    try:
        found = read(json.dumps(value), dtype, allow_nan=allow_nan)
    except (Unfit, BadRequest):
        return
    assert found.dtype == dtype
