"""Requests to tensors and back: JSON, raw bytes and .npy."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.runtime import tensors
from mlpack.runtime.codec import to_json as dumps
from mlpack.runtime.http_errors import BadRequest, NotAcceptable
from mlpack.runtime.json_arrays import reading
from mlpack.runtime.scorer import Array
from mlpack.runtime.signature import Signature, Tensor, kind_of
from mlpack.runtime.tensors import (
    check,
    from_npy,
    from_octets,
    only_output,
    plain,
    read_npy,
    to_json,
    to_npy,
    to_octets,
)

TABLE = Tensor("params", "tensor(float)", ("N", 4))
IDS = Tensor("ids", "tensor(int64)", (None, 2))
NAMES = Tensor("names", "tensor(string)", ("N",))
BYTES = Tensor("bytes", "tensor(uint8)", (2,))
FLAGS = Tensor("flags", "tensor(bool)", (2,))
FREE = Tensor("free", "tensor(float)", ("N", "M"))
HALF = Tensor("half", "tensor(float16)", (1,))


def takes(*inputs: Tensor) -> Signature:
    return Signature(inputs, ())


def from_json(text: bytes, signature: Signature) -> dict[str, Array]:
    return reading(text, lambda document: tensors.from_json(document, signature))


def parse(text: bytes, *inputs: Tensor) -> dict[str, object]:
    found = from_json(text, takes(*inputs))
    check(found, takes(*inputs), allow_nan=False)
    return {name: array.tolist() for name, array in found.items()}


def test_one_input_is_called_data_or_by_its_name() -> None:
    for key in ("data", "params"):
        found = from_json(json.dumps({key: [[1, 2, 3, 4]]}).encode(), takes(TABLE))
        assert found["params"].dtype == np.float32
        assert found["params"].tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_several_inputs_go_by_name() -> None:
    body = json.dumps({"params": [[1, 2, 3, 4]], "ids": [[1, 2]], "names": ["ä\0"]}).encode()
    assert parse(body, TABLE, IDS, NAMES) == {
        "params": [[1.0, 2.0, 3.0, 4.0]],
        "ids": [[1, 2]],
        "names": ["ä\0"],
    }


def test_whole_numbers_may_be_written_as_decimals() -> None:
    assert parse(b'{"data": [[1.0, 2]]}', IDS) == {"ids": [[1, 2]]}
    assert parse(b'{"data": [true, false]}', FLAGS) == {"flags": [True, False]}


@pytest.mark.parametrize(
    ("body", "inputs", "message", "field"),
    [
        (b"", [TABLE], "is not JSON", None),
        (b"\xff\xfe\xfd", [TABLE], "is not JSON", None),
        (b"[" * 100_000, [TABLE], "is not JSON", None),
        (b'{"data":' + b"[" * 900 + b"]" * 900 + b"}", [TABLE], "do not fit", "data"),
        (b'{"data": [[NaN, 2, 3, 4]]}', [TABLE], "is not JSON", None),
        (b"[1]", [TABLE], r"not a JSON object; the model takes params tensor\(float\) \[N", None),
        (b"{}", [TABLE], "has no params", "params"),
        (b'{"data": [[1, 2]]}', [TABLE, IDS], "no input data", "data"),
        (b'{"data": [1, 2, 3, 4]}', [TABLE], r"shape \[4\]", "data"),
        (b'{"data": [[1, 2, 3]]}', [TABLE], r"shape \[1, 3\]", "data"),
        (b'{"data": []}', [TABLE], r"shape \[0\]", "data"),
        (b'{"data": [[]]}', [FREE], r"shape \[1, 0\]", "data"),
        (b'{"data": [[1, 2, 3, 4], [1]]}', [TABLE], "do not fit", "data"),
        (b'{"params": [["a", 2, 3, 4]]}', [TABLE], "do not fit", "params"),
        (b'{"data": [["1", "2", "3", "4"]]}', [TABLE], "do not fit", "data"),
        (b'{"data": [[null, 2, 3, 4]]}', [TABLE], "do not fit", "data"),
        (b'{"data": [[true, true, true, true]]}', [TABLE], "do not fit", "data"),
        (b'{"data": [[1e99, 2, 3, 4]]}', [TABLE], "too large", "data"),
        (b'{"data": [1e9]}', [HALF], "too large", "data"),
        (b'{"data": {"a": 1}}', [TABLE], "do not fit", "data"),
        (b'{"data": null}', [TABLE], "params", "data"),
        (b'{"data": [[99999999999999999999, 1]]}', [IDS], "too large", "data"),
        (b'{"data": [[1.5, 1]]}', [IDS], "do not fit", "data"),
        (b'{"data": [256, 1]}', [BYTES], "too large", "data"),
        (b'{"data": [-1, 1]}', [BYTES], "too small", "data"),
        (b'{"data": [1, 0]}', [FLAGS], "do not fit", "data"),
        (b'{"data": ["a", 1]}', [NAMES], "not all are texts", "data"),
        (b'{"data": [1]}', [Tensor("m", "map(string,tensor(float))", ())], "write a score", None),
    ],
)
def test_what_does_not_fit_is_refused(
    body: bytes, inputs: list[Tensor], message: str, field: str | None
) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        parse(body, *inputs)
    assert caught.value.field == field


@given(st.binary(max_size=200))
def test_no_request_makes_it_fail_otherwise(body: bytes) -> None:
    try:
        found = from_json(body, takes(TABLE))
    except BadRequest:
        return
    assert found["params"].shape[1] == 4


_NUMBERS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just([])
)


@given(
    st.recursive(_NUMBERS, lambda inner: st.lists(inner, max_size=4), max_leaves=12),
    st.sampled_from([TABLE, IDS, NAMES, BYTES, FLAGS, HALF]),
)
def test_no_values_make_it_fail_otherwise(value: object, expected: Tensor) -> None:
    try:
        parse(json.dumps({"data": value}).encode(), expected)
    except BadRequest as error:
        assert error.message


def octets(content: bytes, expected: Tensor = TABLE, **headers: str) -> object:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found = from_octets(content, named, takes(expected))
    check(found, takes(expected), allow_nan=False)
    return found[expected.name].tolist()


def test_raw_bytes_are_elements() -> None:
    content = struct.pack("<8f", *range(8))
    rows = [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert octets(content) == rows
    assert octets(content, x_tensor_shape="2,4") == rows
    assert octets(content, x_tensor_shape=" [2, 4] ") == rows
    assert octets(struct.pack("<4q", 1, 2, 3, 4), IDS) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("content", "expected", "headers", "message"),
    [
        (b"abc", TABLE, {}, "3 bytes are not a whole number of elements"),
        (b"", TABLE, {}, r"shape \[0, 4\]"),
        (bytes(12), TABLE, {}, "3 elements do not fill"),
        (bytes(20), TABLE, {}, "5 elements do not fill .*: it takes 4 or a multiple of that"),
        (bytes(16), FREE, {}, "X-Tensor-Shape"),
        (bytes(16), TABLE, {"x_tensor_shape": "4,1"}, r"shape \[4, 1\]"),
        (bytes(16), TABLE, {"x_tensor_shape": "1,5"}, "are 4 elements"),
        (bytes(16), TABLE, {"x_tensor_shape": "-1,4"}, "list of lengths"),
        (bytes(16), TABLE, {"x_tensor_shape": ""}, "list of lengths"),
        (bytes(16), TABLE, {"x_tensor_shape": "9" * 400}, "list of lengths"),
        (bytes(16), TABLE, {"x_tensor_shape": "1," * 400 + "4"}, "list of lengths"),
        (bytes(16), TABLE, {"x_tensor_name": "params"}, "Open Inference Protocol"),
        (bytes(16), NAMES, {}, "send JSON"),
        (struct.pack("<4f", 1, 2, 3, float("nan")), TABLE, {}, "params has numbers that are not"),
        (struct.pack("<4f", 1, 2, 3, float("inf")), TABLE, {}, "not finite"),
    ],
)
def test_raw_bytes_that_do_not_fit(
    content: bytes, expected: Tensor, headers: dict[str, str], message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        octets(content, expected, **headers)


def test_raw_bytes_are_for_one_input() -> None:
    with pytest.raises(BadRequest, match="name their tensors"):
        from_octets(bytes(16), {}, takes(TABLE, IDS))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(8, dtype=np.float32).reshape(2, 4),
        np.arange(8, dtype=np.float64).reshape(2, 4),
        np.arange(8, dtype=">f4").reshape(2, 4),
        np.asfortranarray(np.arange(8, dtype=np.float32).reshape(2, 4)),
        np.arange(8).reshape(2, 4),
    ],
)
def test_npy(array: np.ndarray) -> None:
    found = from_npy(npy(array), takes(TABLE))
    assert found["params"].dtype == np.dtype(np.float32)
    assert found["params"].flags.c_contiguous
    assert found["params"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a valid .npy file"),
        (b"\x93NUMPY", "not a valid .npy file"),
        (npy(np.zeros((1, 4), np.float32))[:-1], "its size"),
        (npy(np.zeros((1, 4), np.float32)) + b"x", "its size"),
        (npy(np.array([{"a": 1}], object)), "not an array of numbers"),
        (npy(np.zeros((1, 5), np.float32)), r"shape \[1, 5\]"),
        (npy(np.array([["a", "b", "c", "d"]])), "is not params"),
        (npy(np.zeros((1, 4), np.complex64)), "complex64 is not params"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }"), "not an array"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (99**9999,), }"), "valid .npy"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**30, 4)}"), "valid .npy"),
        (header("{'descr': '|V0', 'fortran_order': False, 'shape': (4,), }"), "not an array"),
        (
            header("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (4,), }"),
            "not an array",
        ),
        (header("(" * 9000 + ")" * 9000), "not a valid .npy file"),
        (header("{" * 5000), "not a valid .npy file"),
        (header("x", b"\x09\x00"), "version"),
        (header("__import__('os').abort()"), "not a valid .npy file"),
    ],
)
def test_npy_that_does_not_fit(content: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        from_npy(content, takes(TABLE))


def test_npy_of_numbers_too_large_for_the_model() -> None:
    for array, expected in (
        (np.full((1, 4), 1e99), TABLE),
        (np.full((1, 2), 2**63, np.uint64), IDS),
        (np.array([256, 1], np.uint16), BYTES),
    ):
        with pytest.raises(BadRequest, match="too large"):
            from_npy(npy(array), takes(expected))


@given(st.binary(max_size=120))
def test_no_npy_makes_it_fail_otherwise(content: bytes) -> None:
    for prefix in (b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x40\x00{'descr': '<f4', "):
        try:
            read_npy(prefix + content)
        except BadRequest as error:
            assert "\n" not in error.message


def test_checks_are_by_name_type_and_number() -> None:
    good = np.zeros((1, 4), np.float32)
    for given_, message in (
        ({"other": good}, "no input other"),
        ({}, "has no params"),
        ({"params": good.astype(np.float64)}, "float64 is not params"),
        ({"params": good.reshape(4)}, r"shape \[4\]"),
        ({"params": np.full((1, 4), np.nan, np.float32)}, "not finite"),
    ):
        with pytest.raises(BadRequest, match=message):
            check(given_, takes(TABLE), allow_nan=False)
    check({"params": np.full((1, 4), np.nan, np.float32)}, takes(TABLE), allow_nan=True)


def test_one_output_is_the_result_itself() -> None:
    assert dumps(to_json({"y": np.array([[1.5, 0.1]], np.float32)})) == b'{"result":[[1.5,0.1]]}'


def test_several_outputs_go_by_name() -> None:
    outputs = {
        "label": np.array([1], np.int64),
        "probabilities": [{0: np.float32(0.25), 1: np.float32(0.75)}],
        "raw": np.array([b"a"], object),
        "scalar": np.array(2.5),
        "columns": np.asfortranarray(np.arange(4.0).reshape(2, 2)),
    }
    assert json.loads(dumps(to_json(outputs))) == {
        "result": {
            "label": [1],
            "probabilities": [{"0": 0.25, "1": 0.75}],
            "raw": ["a"],
            "scalar": 2.5,
            "columns": [[0, 1], [2, 3]],
        }
    }


def test_plain_values_are_json() -> None:
    assert json.loads(dumps(plain(np.arange(4).reshape(2, 2)))) == [[0, 1], [2, 3]]
    assert plain((np.int64(1), b"\xff", None)) == [1, "\ufffd", None]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"{}"),  # as in Azure ML
        (2**70, b"1180591620717411303424"),
        ("\ud800", b'"\\ud800"'),
        ({1: float("nan")}, b'{"1":null}'),
        ('{"a": 1}', b'"{\\"a\\": 1}"'),
        ([np.arange(6)[::2]], b"[[0, 2, 4]]"),
    ],
)
def test_what_json_is_written(value: object, text: bytes) -> None:
    assert dumps(value) == text


@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}])
def test_what_is_no_json(value: object) -> None:
    with pytest.raises(TypeError):
        dumps(value)


def test_binary_answers_are_the_only_tensor() -> None:
    array = np.arange(4, dtype=">f4").reshape(2, 2)
    assert only_output({"y": array}) == ("y", array)
    assert to_octets(array) == struct.pack("<4f", 0, 1, 2, 3)
    assert read_npy(to_npy(array)).tolist() == [[0, 1], [2, 3]]
    several: list[dict[str, object]] = [
        {"a": array, "b": array},
        {"a": [{}]},
        {"a": np.array(["x"], object)},
    ]
    for outputs in several:
        with pytest.raises(NotAcceptable, match="accept application/json"):
            only_output(outputs)


def test_kinds() -> None:
    assert kind_of("object") == kind_of("string") == "tensor(string)"
    with pytest.raises(ValueError, match="unknown element type"):
        kind_of("float33")
