"""JSON to tensors and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.runtime.scoring import BadRequest
from mlpack.runtime.tensors import Input, parse_request, plain, to_json

TABLE = Input("params", "tensor(float)", ("N", 4))
IDS = Input("ids", "tensor(int64)", (None, 2))
NAMES = Input("names", "tensor(string)", ("N",))


def test_one_input_is_called_data_or_by_its_name() -> None:
    for key in ("data", "params"):
        found = parse_request(json.dumps({key: [[1, 2, 3, 4]]}).encode(), [TABLE])
        assert found["params"].dtype == np.float32
        assert found["params"].tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_several_inputs_go_by_name() -> None:
    body = json.dumps({"params": [[1, 2, 3, 4]], "ids": [[1, 2]], "names": ["ä"]}).encode()
    found = parse_request(body, [TABLE, IDS, NAMES])
    assert {name: array.tolist() for name, array in found.items()} == {
        "params": [[1.0, 2.0, 3.0, 4.0]],
        "ids": [[1, 2]],
        "names": ["ä"],
    }


@pytest.mark.parametrize(
    ("body", "inputs", "message"),
    [
        (b"", [TABLE], "is not JSON"),
        (b"\xff\xfe\xfd", [TABLE], "is not JSON"),
        (b"[" * 100_000, [TABLE], "is not JSON"),
        (b"[1]", [TABLE], r"not a JSON object; the model takes params tensor\(float\) \[N, 4\]"),
        (b"{}", [TABLE], "has no params"),
        (b'{"data": [[1, 2]]}', [TABLE, IDS], "has no params, ids"),
        (b'{"data": [1, 2, 3, 4]}', [TABLE], r"shape \[4\]"),
        (b'{"data": [[1, 2, 3]]}', [TABLE], r"shape \[1, 3\]"),
        (b'{"data": [[1, 2, 3, 4], [1]]}', [TABLE], "do not fit"),
        (b'{"data": [["a", 2, 3, 4]]}', [TABLE], "do not fit"),
        (b'{"data": [[1e99, 2, 3, 4]]}', [TABLE], "do not fit"),
        (b'{"data": {"a": 1}}', [TABLE], "do not fit"),
        (b'{"data": null}', [TABLE], "params"),
        (b'{"data": [[99999999999999999999, 1]]}', [IDS], "do not fit"),
        (b'{"data": [1]}', [Input("m", "map(string,tensor(float))", ())], "write a score.py"),
    ],
)
def test_what_does_not_fit_is_refused(body: bytes, inputs: list[Input], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse_request(body, inputs)


@given(st.binary(max_size=200))
def test_no_request_makes_it_fail_otherwise(body: bytes) -> None:
    try:
        found = parse_request(body, [TABLE])
    except BadRequest:
        return
    assert found["params"].shape[1] == 4


def test_one_output_is_the_result_itself() -> None:
    assert to_json({"y": np.array([[1.5]], np.float32)}) == {"result": [[1.5]]}


def test_several_outputs_go_by_name() -> None:
    outputs = {
        "label": np.array([1], np.int64),
        "probabilities": [{0: np.float32(0.25), 1: np.float32(0.75)}],
        "raw": np.array([b"a"], object),
    }
    assert to_json(outputs) == {
        "result": {"label": [1], "probabilities": [{"0": 0.25, "1": 0.75}], "raw": ["a"]}
    }


def test_plain_values_are_json() -> None:
    assert json.loads(json.dumps(plain(np.arange(4).reshape(2, 2)))) == [[0, 1], [2, 3]]
