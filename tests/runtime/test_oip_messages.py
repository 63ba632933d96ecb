"""Requests and answers of the Open Inference Protocol, without a server."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes

from mlpack.runtime.http_errors import BadRequest
from mlpack.runtime.oip_messages import InferRequest, make_response, metadata, parse_request
from mlpack.runtime.oip_tensors import DTYPES, Array, from_bytes, from_json, to_bytes, to_json
from mlpack.runtime.signature import Signature, Tensor

FAN = Signature(
    inputs=(Tensor("x", "tensor(float)", ("N", 4)),),
    outputs=(Tensor("y", "tensor(float)", ("N", 1)), Tensor("label", "tensor(int64)", ("N",))),
)


def request(**changes: object) -> dict[str, Any]:
    """One row for the fan, flat."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2.5, -3, 0]}
    return {"inputs": [{**tensor, **changes}]}


def parse(document: object, blob: bytes = b"", signature: Signature | None = FAN) -> InferRequest:
    text = orjson.dumps(document)
    return parse_request(text + blob, str(len(text)) if blob else None, signature)


def test_a_flat_and_a_nested_tensor_are_the_same() -> None:
    flat = parse({**request(), "id": "42"})
    nested = parse(request(data=[[1, 2.5, -3, 0]]))
    for found in (flat.inputs["x"], nested.inputs["x"]):
        assert found.dtype == np.float32
        assert found.tolist() == [[1, 2.5, -3, 0]]
    assert (flat.id, nested.id) == ("42", None)


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-1.5, 65504.0],
    "FP32": [-1.5, 2.0**20],
    "FP64": [-1.5, 1e300],
    "BYTES": ["", "Zoë"],
}


def test_all_datatypes_are_tried() -> None:
    assert set(VALUES) == set(DTYPES)


@pytest.mark.parametrize("datatype", VALUES)
def test_each_datatype_is_read_and_written_as_json_and_as_bytes(datatype: str) -> None:
    values = VALUES[datatype]
    read = from_json(values, datatype, [2])
    assert orjson.loads(orjson.dumps(to_json(read), option=orjson.OPT_SERIALIZE_NUMPY)) == values
    again = from_bytes(memoryview(to_bytes(read)), datatype, [2, 1])
    assert again.reshape(-1).tolist() == values
    assert again.flags.c_contiguous


def test_the_bytes_are_those_of_the_extension() -> None:
    assert to_bytes(np.array([[1, 2], [3, 4]], ">u4")) == struct.pack("<4I", 1, 2, 3, 4)
    assert to_bytes(np.array([True, False])) == b"\1\0"
    assert to_bytes(np.array(["ab", "ë"], dtype=object)) == b"\2\0\0\0ab\2\0\0\0\xc3\xab"
    # Columns of a table lie apart in memory; they are written one after the other.
    assert to_bytes(np.arange(4, dtype="u1").reshape(2, 2).T) == bytes([0, 2, 1, 3])


@given(
    shapes.arrays(
        st.sampled_from([np.dtype(each) for each in DTYPES.values() if each != np.dtype(object)]),
        shapes.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.integers(0, 7),
)
def test_any_tensor_comes_back_from_its_bytes(array: Array, offset: int) -> None:
    datatype = next(name for name, dtype in DTYPES.items() if dtype == array.dtype)
    content = memoryview(bytes(offset) + to_bytes(array))[offset:]
    found = from_bytes(content, datatype, array.shape)
    assert found.flags.aligned
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": [1, 2, 3]}, "has 4 elements, but data has 3"),
        ({"data": [1, 2, 3, "4"]}, "does not fit FP32: .*not all are numbers"),
        ({"data": ["1", "2", "3", "4"]}, "does not fit FP32: .*not all are numbers"),
        ({"data": [True, True, True, True]}, "does not fit FP32: .*not all are numbers"),
        ({"data": [1, 2, 3, True]}, "does not fit FP32: .*not all are numbers"),
        ({"data": [[1, 2.5, 3, False]]}, "does not fit FP32: .*not all are numbers"),
        ({"data": [1, 2, 3, None]}, "null; .*MLPACK_ALLOW_NAN=1"),
        ({"data": [1, 2, 3, 1e39]}, "does not fit FP32"),
        ({"data": [1, 2, 3, 2**63]}, None),
        ({"data": [[1, 2], [3, 4]]}, r"nested as \[2, 2\]"),
        ({"data": [[1, 2], [3]]}, "rows differ"),
        ({"data": "1234"}, "not a list"),
        ({"data": None}, "not a list"),
        ({"shape": [4]}, r"FP32 \[4\], the model takes FP32 \[-1, 4\]"),
        ({"shape": [1, 5], "data": [0] * 5}, r"the model takes FP32 \[-1, 4\]"),
        ({"shape": [-1, 4]}, "whole numbers from 0"),
        ({"shape": [1.0, 4]}, "whole numbers from 0"),
        ({"shape": [True, 4]}, "whole numbers from 0"),
        ({"shape": 4}, "shape is not a list"),
        ({"shape": [10**18, 4]}, "elements, but data has 4"),
        ({"datatype": "FP64"}, "the model takes FP32"),
        ({"datatype": "float32"}, "datatype must be one of BOOL"),
        ({"datatype": ["FP32"]}, "datatype must be one of"),
        ({"name": "z"}, "no input z"),
        ({"name": None}, "has no name"),
        ({"parameters": []}, "not an object"),
        ({"parameters": {"binary_data_size": 16}}, "both data and binary_data_size"),
        ({"parameters": {"shared_memory_region": "a"}}, "not supported"),
    ],
)
def test_an_input_that_makes_no_sense(changes: dict[str, Any], message: str | None) -> None:
    if message is None:
        parse(request(**changes))
        return
    with pytest.raises(BadRequest, match=message) as raised:
        parse(request(**changes))
    assert raised.value.field


@pytest.mark.parametrize(
    ("datatype", "data", "message"),
    [
        ("INT8", [128], "does not fit INT8"),
        ("UINT8", [-1], "does not fit UINT8"),
        ("INT64", [1.5], "not a whole number"),
        ("INT64", [2**63], "does not fit INT64"),
        ("UINT64", [2**64], "does not fit UINT64"),
        ("BOOL", [1], "not all are true or false"),
        ("FP16", [70000], "does not fit FP16"),
        ("BYTES", [1], "not all are texts"),
        ("BYTES", [["a"], ["b", "c"]], "differ"),
    ],
)
def test_a_value_that_is_not_of_its_type(datatype: str, data: list[object], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        from_json(data, datatype, [len(data)])


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        ([], None, "not a JSON object"),
        ({}, "inputs", "inputs has no x"),
        ({"inputs": []}, "inputs", "inputs has no x"),
        ({"inputs": {}}, "inputs", "not a list of objects"),
        ({"inputs": [1]}, "inputs", "not a list of objects"),
        ({"inputs": request()["inputs"] * 2}, "inputs[1]", "appears twice"),
        ({**request(), "id": 7}, "id", "not a text"),
        ({**request(), "outputs": [{"name": "z"}]}, "outputs[0]", "no output z"),
        ({**request(), "outputs": [{"name": "y"}] * 2}, "outputs[1]", "appears twice"),
        (
            {**request(), "outputs": [{"name": "y", "parameters": {"classification": 2}}]},
            "parameters",
            "classification is not supported",
        ),
        (
            {**request(), "parameters": {"binary_data_output": 1}},
            "binary_data_output",
            "neither true nor false",
        ),
    ],
)
def test_a_request_that_makes_no_sense(document: object, field: str | None, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as raised:
        parse(document)
    assert raised.value.field == field


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"inputs": NaN}'])
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        parse_request(body, None, FAN)


@pytest.mark.parametrize("header", ["", "-1", "0", "1.5", "999", "²", "9" * 5000, "0x10"])
def test_a_length_of_the_json_that_makes_no_sense(header: str) -> None:
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length") as raised:
        parse_request(orjson.dumps(request()), header, FAN)
    assert raised.value.field == "Inference-Header-Content-Length"


def in_bytes(size: object = 16, **changes: object) -> dict[str, Any]:
    found = request(parameters={"binary_data_size": size}, **changes)
    del found["inputs"][0]["data"]
    return found


def test_a_tensor_behind_the_json() -> None:
    found = parse(in_bytes(), struct.pack("<4f", 1, 2.5, -3, 0))
    assert found.inputs["x"].tolist() == [[1, 2.5, -3, 0]]


def test_tensors_behind_the_json_follow_in_the_order_of_the_inputs() -> None:
    document: dict[str, list[dict[str, object]]] = {
        "inputs": [
            {"name": "a", "shape": [2, 2], "datatype": "UINT32"},
            {"name": "j", "shape": [1], "datatype": "INT8", "data": [7]},
            {"name": "b", "shape": [3], "datatype": "BOOL"},
        ]
    }
    for place, size in ((0, 16), (2, 3)):
        document["inputs"][place]["parameters"] = {"binary_data_size": size}
    found = parse(document, struct.pack("<4I", 1, 2, 3, 4) + b"\1\0\1", None).inputs
    assert {name: each.tolist() for name, each in found.items()} == {
        "a": [[1, 2], [3, 4]],
        "j": [7],
        "b": [True, False, True],
    }


@pytest.mark.parametrize(
    ("document", "blob", "message"),
    [
        (in_bytes(), bytes(15), "has only 15 more bytes"),
        (in_bytes(), bytes(17), "1 bytes of the body belong to no input"),
        (in_bytes(12), bytes(12), "has 16 bytes, not binary_data_size=12"),
        (in_bytes(-16), bytes(16), "not a number of bytes"),
        (in_bytes(True), bytes(16), "not a number of bytes"),
        (in_bytes("16"), bytes(16), "not a number of bytes"),
        (in_bytes(shape=[2**62, 4]), bytes(16), "has 73786976294838206464 bytes"),
        (request(), bytes(16), "belong to no input"),
    ],
)
def test_bytes_that_do_not_fit(document: object, blob: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse(document, blob)


@pytest.mark.parametrize(
    ("datatype", "blob", "message"),
    [
        ("BOOL", b"\2", "neither 0 nor 1"),
        ("BYTES", b"\1\0\0\0", "truncated"),
        ("BYTES", b"\1\0\0", "truncated"),
        ("BYTES", b"\1\0\0\0\xff", "not UTF-8"),
        ("BYTES", b"\0\0\0\0" * 2, "has 1 elements, but data has 2"),
    ],
)
def test_bytes_of_a_type_that_are_wrong(datatype: str, blob: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        from_bytes(memoryview(blob), datatype, [1])


@pytest.mark.parametrize("shape", [[0, 2**62], [1] * 70])
def test_a_shape_that_no_tensor_has(shape: list[int]) -> None:
    data: list[object] = [] if 0 in shape else [1]
    with pytest.raises(BadRequest, match="invalid shape"):
        from_json(data, "FP32", shape)


RESULTS = {
    "y": np.array([[0.25], [np.nan]], np.float32),
    "label": np.array(["fine", "b\u00e4d"], dtype=object),
    "map": [{0: 0.25}],
}


def test_an_answer_has_all_tensors_there_are() -> None:
    answer = make_response(InferRequest(inputs={}, id="a"), RESULTS, "fan", "2")
    assert answer.json_length is None
    assert orjson.loads(answer.body) == {
        "model_name": "fan",
        "model_version": "2",
        "id": "a",
        "outputs": [
            {"name": "y", "shape": [2, 1], "datatype": "FP32", "data": [0.25, None]},
            {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["fine", "b\u00e4d"]},
        ],
    }


def test_an_answer_has_what_was_asked_for_in_that_order_and_form() -> None:
    asked = InferRequest(inputs={}, outputs={"label": None, "y": False}, binary=True)
    answer = make_response(asked, RESULTS, "fan", "2")
    assert answer.json_length is not None
    document = orjson.loads(answer.body[: answer.json_length])
    assert "id" not in document
    assert document["outputs"] == [
        {
            "name": "label",
            "shape": [2],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": 16},
        },
        {"name": "y", "shape": [2, 1], "datatype": "FP32", "data": [0.25, None]},
    ]
    assert answer.body[answer.json_length :] == b"\4\0\0\0fine\4\0\0\0b\xc3\xa4d"


def test_an_output_that_is_no_tensor_cannot_be_asked_for() -> None:
    for name, message in (("map", "is not a tensor"), ("z", "did not return z")):
        with pytest.raises(BadRequest, match=message):
            make_response(InferRequest(inputs={}, outputs={name: None}), RESULTS, "fan", "2")


def test_what_scripts_return_is_written_too() -> None:
    results = {"a": 1.5, "b": [1, 2], "c": ["x"], "d": [[1], [2, 3]], "e": None, "f": np.str_("y")}
    answer = make_response(InferRequest(inputs={}), results, "fan", "2")
    found = {each["name"]: each for each in orjson.loads(answer.body)["outputs"]}
    assert {name: (each["datatype"], each["shape"]) for name, each in found.items()} == {
        "a": ("FP64", []),
        "b": ("INT64", [2]),
        "c": ("BYTES", [1]),
        "f": ("BYTES", []),
    }
    assert found["a"]["data"] == [1.5]


def test_metadata_leaves_out_what_has_no_datatype() -> None:
    tensors = (*FAN.inputs, Tensor("m", "seq(map(int64,tensor(float)))", ()))
    assert metadata(tensors) == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
MEMBERS = st.sampled_from(["name", "shape", "datatype", "data", "parameters"])


@given(JSON)
def test_any_json_is_refused_or_read(document: object) -> None:
    with contextlib.suppress(BadRequest):
        parse_request(json.dumps(document).encode(), None, FAN)


@given(st.dictionaries(MEMBERS, JSON), st.binary(max_size=20), st.booleans())
def test_any_change_of_an_input_is_refused_or_read(
    changes: dict[str, object], blob: bytes, known: bool
) -> None:
    text = json.dumps(request(**changes)).encode()
    with contextlib.suppress(BadRequest):
        found = parse_request(text + blob, str(len(text)), FAN if known else None)
        assert found.inputs


@given(
    st.sampled_from(list(DTYPES)), st.binary(max_size=40), st.lists(st.integers(0, 9), max_size=3)
)
def test_any_bytes_are_refused_or_read(datatype: str, blob: bytes, shape: list[int]) -> None:
    with contextlib.suppress(BadRequest):
        assert from_bytes(memoryview(blob), datatype, shape).shape == tuple(shape)
