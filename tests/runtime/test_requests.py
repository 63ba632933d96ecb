"""One reader of requests: each transport takes the same and refuses the same, for one reason."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import orjson
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlpack.project.importers.onnx_file import read_onnx
from mlpack.runtime import iotedge
from mlpack.runtime.http_errors import HttpError
from mlpack.runtime.mqtt import client as mqtt
from mlpack.runtime.onnx import request_at_fault
from mlpack.runtime.predictor import Predictor, read_message
from mlpack.runtime.scorer import Payload
from mlpack.runtime.scoring_service import ScoringService
from mlpack.runtime.settings import NotServable, RuntimeSettings
from mlpack.runtime.signature import Signature, Tensor, unservable
from tests.runtime import models
from tests.runtime.support import FAN, ask, release, started

INFER = "/v2/models/fan/infer"
Answer = tuple[int, Any]


@contextmanager
def serving(
    folder: Path, model: onnx.ModelProto, *, allow_nan: bool = False
) -> Iterator[ScoringService]:
    made = release(folder)
    onnx.save(model, str(made.model_dir / "model.onnx"))
    with started(replace(made, allow_nan=allow_nan)) as module:
        yield module


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    made = helper.make_graph(nodes, "made", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10 if opset > 20 else 8)


def value(
    name: str, kind: int = TensorProto.FLOAT, shape: models.Dimensions | None = ("N", 2)
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


IDENTITY = graph([helper.make_node("Identity", ["x"], ["y"])], [value("x")], [value("y")])


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringService]:
    with serving(tmp_path_factory.mktemp("identity"), IDENTITY) as module:
        yield module


def post(module: ScoringService, content: bytes, path: str = "/score", **headers: str) -> Answer:
    named = {name.replace("_", "-"): each for name, each in headers.items()}
    answer = ask(module, "POST", path, content, named)
    return answer.status_code, answer.json()


def predicted(module: ScoringService, message: Payload) -> Answer:
    """The prediction for a message, or the status and reason of its refusal."""
    predictor = Predictor(module, "mqtt")
    try:
        read_message(message, fields=module.scorer.fields, most=module.settings.max_body)
    except HttpError as error:
        return error.status, {"message": error.message}
    found = predictor.predict(message, threading.Event())
    return (200, orjson.loads(found)) if found else (400, {})


ROWS = b'{"x": [[1, 2.5]]}'
RESULT = {"result": [[1.0, 2.5]]}
TEXTS: list[tuple[bytes, str]] = [
    (ROWS, "application/json"),
    (ROWS, "application/json; charset=utf-8"),
    (ROWS, 'Application/JSON;Charset="UTF-8"'),
    (ROWS, "application/vnd.readings+json"),
    (ROWS, "text/plain"),
    (b"\xef\xbb\xbf" + ROWS, "application/json"),
    (ROWS.decode().encode("utf-16"), "application/json; charset=utf-16"),
    (ROWS, "application/json; charset=iso-8859-1"),
]


@pytest.mark.parametrize(("content", "kind"), TEXTS)
def test_media_types_are_alike_over_http_and_mqtt(
    identity: ScoringService, content: bytes, kind: str
) -> None:
    assert post(identity, content, content_type=kind) == (200, RESULT)
    assert predicted(identity, Payload(content=content, content_type=kind)) == (200, RESULT)


def test_a_charset_is_taken_over_every_transport_by_scripts(tmp_path: Path) -> None:
    script = "def init(): pass\ndef run(data): return data\n"
    with started(release(tmp_path, script)) as module:
        content = '{"ä": 1}'.encode("utf-16")
        kind = "application/json; charset=UTF-16"
        assert post(module, content, content_type=kind) == (200, '{"ä": 1}')
        found = predicted(module, Payload(content=content, content_type=kind))
        assert found == (200, {"result": '{"ä": 1}'})
        assert post(module, content, content_type="application/json; charset=klingon")[0] == 415
        assert post(module, b"\xff", content_type="application/json")[0] == 400


@pytest.mark.parametrize("path", ["/score", INFER])
@pytest.mark.parametrize(
    ("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_coded_requests_are_taken(
    identity: ScoringService, path: str, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}
    content = orjson.dumps({"inputs": [tensor]}) if path == INFER else ROWS
    status, answer = post(identity, encode(content), path, content_encoding=coding)
    assert status == 200
    assert answer == RESULT or answer["outputs"][0]["data"] == [1.0, 2.5]
    assert post(identity, content, path, content_encoding="identity")[0] == 200
    assert post(identity, content, path, content_encoding=coding)[0] == 400
    refused = ask(identity, "POST", path, content, {"content-encoding": "br"})
    assert refused.status_code == 415
    assert refused.headers["accept-encoding"] == "gzip, deflate, identity"
    bomb = encode(bytes(70_000_000))
    assert post(identity, bomb, path, content_encoding=coding)[0] == 413
    assert identity.body_bytes == 0


def test_coded_messages_are_taken(identity: ScoringService) -> None:
    def message(content: bytes, coding: str) -> Payload:
        return Payload(content=content, headers={"content-encoding": coding})

    assert predicted(identity, message(gzip.compress(ROWS), "gzip")) == (200, RESULT)
    unnamed = Payload(content=gzip.compress(ROWS), content_type="")
    assert predicted(identity, unnamed) == (200, RESULT), "as pictures, by its first bytes"
    assert predicted(identity, replace(unnamed, content=unnamed.content[:-8]))[0] == 400
    assert predicted(identity, message(gzip.compress(ROWS), "br"))[0] == 415
    assert predicted(identity, message(gzip.compress(bytes(70_000_000)), "gzip"))[0] == 413


def test_a_rawhttp_script_gets_the_body_as_it_was_sent(tmp_path: Path) -> None:
    script = (
        "from azureml.contrib.services.aml_request import rawhttp\n"
        "from azureml.contrib.services.aml_response import AMLResponse\n"
        "def init(): pass\n"
        "@rawhttp\ndef run(request): return AMLResponse(request.get_data(), 200)\n"
    )
    content = gzip.compress(ROWS)
    with started(release(tmp_path, script)) as module:
        answer = ask(module, "POST", "/score", content, {"content-encoding": "gzip"})
    assert answer.content == content


def test_messages_of_paho_and_of_microsoft_s_client_are_payloads() -> None:
    properties = SimpleNamespace(
        ContentType="application/json; charset=utf-8",
        UserProperty=[("a", "b"), ("Content-Encoding", "gzip")],
    )
    for known, kind, headers in (
        (properties, "application/json; charset=utf-8", {"content-encoding": "gzip"}),
        (SimpleNamespace(), "", {}),
        (None, "", {}),
    ):
        found = mqtt.to_payload(SimpleNamespace(payload=bytearray(b"{}"), properties=known))
        assert found == Payload(content=b"{}", content_type=kind, headers=headers)
    for data, kind, encoding, expected in (
        ("{}", "", "", ("", {})),
        (b"{}", "application/json", "UTF-16", ("application/json;charset=UTF-16", {})),
        (b"{}", "", "gzip", ("", {"content-encoding": "gzip"})),
    ):
        message = SimpleNamespace(data=data, content_type=kind, content_encoding=encoding)
        found = iotedge.to_payload(message)
        assert (found.content, found.content_type, found.headers) == (b"{}", *expected)


@pytest.mark.parametrize(
    "body",
    [
        {"x": [[1, 2.5]]},
        {"data": [[1, 2.5]]},
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}]},
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2.5]]}]},
    ],
)
def test_one_dialect_over_http_and_mqtt(identity: ScoringService, body: dict[str, object]) -> None:
    for more in ({}, {"deviceID": "7"}):
        content = orjson.dumps(body | more)
        assert post(identity, content) == (200, RESULT)
        assert predicted(identity, Payload(content=content)) == (200, more | RESULT)


def test_readings_by_field_are_taken_over_http_as_over_mqtt(tmp_path: Path) -> None:
    reading = {"deviceID": "7", "temperature": 40, "a_b": 150, "rotation": 600}
    with started(release(tmp_path, FAN)) as module:
        direct = post(module, b'{"params": [600, 40, 150]}')
        assert direct[0] == 200
        assert post(module, orjson.dumps(reading)) == direct
        assert predicted(module, Payload(content=orjson.dumps(reading)))[1] == {
            "deviceID": "7",
            **direct[1],
        }
        del reading["rotation"]
        assert post(module, orjson.dumps(reading))[0] == 400


COLUMNS = graph(
    [
        helper.make_node("Cast", ["age"], ["number"], to=TensorProto.STRING),
        helper.make_node("Concat", ["number", "plan"], ["y"], axis=1),
    ],
    [value("age", TensorProto.INT64, ("N", 1)), value("plan", TensorProto.STRING, ("N", 1))],
    [value("y", TensorProto.STRING, ("N", 2))],
)


def test_a_row_of_named_columns_needs_no_lists(tmp_path: Path) -> None:
    with serving(tmp_path, COLUMNS) as module:
        for age, plan in ((5, "pro"), ([5], ["pro"]), ([[5]], [["pro"]]), (5.0, ["pro"])):
            body = orjson.dumps({"age": age, "plan": plan, "deviceID": 1})
            assert post(module, body) == (200, {"result": [["5", "pro"]]})
            assert predicted(module, Payload(content=body))[1]["result"] == [["5", "pro"]]
        rows = b'{"age": [5, 6], "plan": ["pro", "free"]}'
        assert post(module, rows) == (200, {"result": [["5", "pro"], ["6", "free"]]})
        assert post(module, b'{"age": [5, 6], "plan": "pro"}')[0] == 400
        assert post(module, b'{"age": "5", "plan": "pro"}')[1]["field"] == "age"


MISSING = b'{"x": [[1, null]]}'
MISSING_V2 = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, null]}]}'


def test_missing_values_are_refused_with_the_setting_that_takes_them(
    identity: ScoringService,
) -> None:
    npy = np.array([[1, np.nan]], np.float32)
    octets = post(identity, npy.tobytes(), content_type="application/octet-stream")
    for status, answer in (
        post(identity, MISSING),
        post(identity, b'{"x": [[1, NaN]]}'),
        post(identity, MISSING_V2, INFER),
        octets,
    ):
        assert status == 400
        assert "MLPACK_ALLOW_NAN=1" in (answer.get("message") or answer["error"])
    assert predicted(identity, Payload(content=MISSING)) == (400, {})


def test_missing_values_are_taken_and_returned_alike_where_they_are_allowed(tmp_path: Path) -> None:
    environment = {"MLPACK_ALLOW_NAN": "1"}
    allowed = RuntimeSettings.read(environment).allow_nan
    with serving(tmp_path, IDENTITY, allow_nan=allowed) as module:
        result = {"result": [[1.0, None]]}
        assert post(module, MISSING) == (200, result)
        assert post(module, b'{"x": [[1, NaN]]}') == (200, result)
        assert predicted(module, Payload(content=MISSING)) == (200, result)
        assert post(module, MISSING_V2, INFER)[1]["outputs"][0]["data"] == [1.0, None]
        assert post(module, b'{"x": [[1, 1e99]]}')[0] == 400, "too large is not missing"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/x-npy;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, application/x-npy", "application/x-npy"),
        ("Application/Octet-Stream", "application/octet-stream"),
        ("application/x-npy;q=0, */*", "application/json"),
        ("text/html", "application/json"),
    ],
)
def test_accept_is_weighed(identity: ScoringService, accept: str, kind: str) -> None:
    answer = ask(identity, "POST", "/score", ROWS, {"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind


def one(
    operator: str,
    inputs: Sequence[onnx.ValueInfoProto],
    *constants: onnx.TensorProto,
    kind: int = TensorProto.FLOAT,
    **attributes: object,
) -> onnx.ModelProto:
    names = [*(each.name for each in constants), *(each.name for each in inputs)]
    node = helper.make_node(operator, names, ["y"], **attributes)  # type: ignore[arg-type]
    return graph([node], inputs, [value("y", kind, None)], constants)


THREE = numpy_helper.from_array(np.arange(3, dtype=np.float32), "d")
INDEX = value("i", TensorProto.INT64, ("N",))
TEXT = value("x", TensorProto.STRING, ("N", 1))
FREE = value("x", TensorProto.FLOAT, ("N", "M"))
ML = "ai.onnx.ml"
MISTAKES: dict[str, tuple[onnx.ModelProto, object, str]] = {
    "category": (
        one("OneHotEncoder", [TEXT], cats_strings=["a", "b"], zeros=0, domain=ML),
        {"x": [["z"]]},
        "OneHotEncoder: Unknown Category",
    ),
    "number for a text": (
        one("OneHotEncoder", [TEXT], cats_strings=["a", "b"], zeros=0, domain=ML),
        {"x": [[1]]},
        r"\[0, 0\] is a number, not all are texts",
    ),
    "index": (one("Gather", [INDEX], THREE), {"i": [9]}, "Gather: indices element out of data bo"),
    "index of elements": (
        one("GatherElements", [INDEX], THREE),
        {"i": [9]},
        "GatherElements: GatherElements op: Out of range",
    ),
    "text that is no number": (
        one("Cast", [TEXT], to=TensorProto.FLOAT),
        {"x": [["abc"]]},
        "Cast: stod",
    ),
    "columns": (
        one("LinearRegressor", [FREE], coefficients=[1.0, 2.0], intercepts=[0.0], domain=ML),
        {"x": [[1, 2, 3]]},
        r"LinearRegressor: .*coefficients length \(2\)",
    ),
    "shapes": (
        one("Reshape", [value("x", shape=("N",)), value("s", TensorProto.INT64, ("M",))]),
        {"x": [1, 2, 3, 4], "s": [3]},
        "Reshape: .*cannot be reshaped",
    ),
    "rows": (IDENTITY, {"x": []}, r"zero rows: the values have shape \[0\]"),
    "no columns": (IDENTITY, {"x": [[]]}, r"no elements: the values have shape \[1, 0\]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_client_s_mistake_is_answered_400(mistake: str, tmp_path: Path) -> None:
    model, body, reason = MISTAKES[mistake]
    with serving(tmp_path, model) as module:
        status, answer = post(module, orjson.dumps(body))
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(answer["message"])
        assert status == 400
        assert "onnxruntime_src" not in answer["message"]
        predictor = Predictor(module, "mqtt")
        assert predictor.predict(Payload(content=orjson.dumps(body)), threading.Event()) is None


def test_zero_rows_of_the_protocol_are_named(identity: ScoringService) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [0, 2], "data": []}
    status, answer = post(identity, orjson.dumps({"inputs": [tensor]}), INFER)
    assert status == 400
    assert "zero rows" in answer["error"]


def test_values_that_need_too_much_memory_are_too_large(tmp_path: Path) -> None:
    shape = value("s", TensorProto.INT64, ("N",))
    with serving(tmp_path, one("ConstantOfShape", [shape])) as module:
        status, answer = post(module, b'{"s": [4398046511104]}')
        assert status == 413
        assert "too much memory" in answer["message"]
        assert post(module, b'{"s": [2]}') == (200, {"result": [0.0, 0.0]})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Fail", "[ONNXRuntimeError] : 1 : FAIL : something of the session"),
        ("NotImplemented", "Non-zero status code returned while running A node. Status Message: b"),
        ("EPFail", "Non-zero status code returned while running A node. Status Message: b"),
        (
            "Fail",
            "Non-zero status code returned while running Conv node. Name:'' Status Message: "
            "/onnxruntime_src/a.cc:1 bool f() CUDA failure 700: an illegal memory access",
        ),
        ("RuntimeError", "No corresponding Numpy type for Tensor Type."),
        ("TypeError", "unexpected"),
    ],
)
def test_failures_of_the_model_or_device_are_not_the_client_s(kind: str, message: str) -> None:
    assert request_at_fault(kind, message) is None


CAST = [
    TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E5M2,
    TensorProto.INT4,
    TensorProto.UINT4,
]


@pytest.mark.parametrize("kind", CAST)
@pytest.mark.parametrize("side", ["input", "output"])
def test_types_that_no_message_carries_are_refused_at_start(
    kind: int, side: str, tmp_path: Path
) -> None:
    given, returned = (kind, TensorProto.FLOAT) if side == "input" else (TensorProto.FLOAT, kind)
    node = helper.make_node("Cast", ["x"], ["y"], to=returned)
    model = graph([node], [value("x", given)], [value("y", returned)], opset=21)
    with pytest.raises(NotServable, match=f"can carry {side}"), serving(tmp_path, model):
        pass


def test_types_that_are_carried() -> None:
    carried = ["tensor(float16)", "seq(tensor(string))", "seq(map(int64,tensor(float)))"]
    carried += ["map(string,tensor(float))", "optional(seq(tensor(int64)))"]
    others = ["seq(tensor(bfloat16))", "sparse_tensor(float)", "tensor(complex64)", "opaque(a,b)"]
    for kind in carried + others:
        reason = unservable(Signature((), (Tensor("y", kind, ()),)))
        assert (reason is None) == (kind in carried)
    for kind in ("seq(tensor(float))", "map(int64,float)"):
        assert unservable(Signature((Tensor("x", kind, ()),), ())) is not None


def test_sequences_are_returned(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    node = helper.make_node("SplitToSequence", ["x"], ["s"], axis=0)
    with serving(tmp_path, graph([node], [value("x")], [sequence])) as module:
        assert post(module, b'{"x": [[1, 2], [3, 4]]}') == (
            200,
            {"result": [[[1.0, 2.0]], [[3.0, 4.0]]]},
        )


def test_optional_types_may_be_left_out(tmp_path: Path) -> None:
    held = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N"])
    optional = helper.make_value_info("o", helper.make_optional_type_proto(held))
    node = helper.make_node("OptionalHasElement", ["o"], ["y"])
    model = graph([node], [optional], [value("y", TensorProto.BOOL, ())], opset=18)
    onnx.save(model, str(tmp_path / "model.onnx"))
    registered = read_onnx(tmp_path / "model.onnx").graph
    assert registered is not None
    assert [str(each) for each in registered.signature.inputs] == ["o: float32 [N] (optional)"]
    with serving(tmp_path, model) as module:
        assert post(module, b'{"o": [1.5]}') == (200, {"result": True})
        for body in (b"{}", b'{"o": null}'):
            assert post(module, body) == (200, {"result": False})


def test_an_input_without_a_shape_takes_any_and_a_scalar_does_not(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    free = graph([node], [value("x", shape=None)], [value("y", shape=None)])
    with serving(tmp_path / "free", free) as module:
        for found in (1.5, [1.5], [[1.5], [2.5]]):
            assert post(module, orjson.dumps({"x": found})) == (200, {"result": found})
        assert "of any shape" in str(module.scorer.signature)
    scalar = graph([node], [value("x", shape=())], [value("y", shape=())])
    with serving(tmp_path / "scalar", scalar) as module:
        assert post(module, b'{"x": 1.5}') == (200, {"result": 1.5})
        assert post(module, b'{"x": [1.5]}')[0] == 400


def test_a_model_without_inputs_is_scored_over_both_protocols(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.arange(2, dtype=np.float32), "v")
    node = helper.make_node("Constant", [], ["y"], value=constant)
    with serving(tmp_path, graph([node], [], [value("y", shape=(2,))])) as module:
        assert post(module, b"{}") == (200, {"result": [0.0, 1.0]})
        assert post(module, b'{"inputs": []}', INFER)[1]["outputs"][0]["data"] == [0.0, 1.0]


def test_a_name_with_a_line_break_adds_no_header(tmp_path: Path) -> None:
    name = "y\r\nX-Evil: 1"
    node = helper.make_node("Identity", ["x"], [name])
    with serving(tmp_path, graph([node], [value("x")], [value(name)])) as module:
        answer = ask(module, "POST", "/score", ROWS, {"accept": "application/octet-stream"})
    assert answer.headers["x-tensor-name"] == "y%0D%0AX-Evil%3A%201"


def test_exact_whole_numbers_reach_the_model(tmp_path: Path) -> None:
    kinds = {"a": TensorProto.INT64, "b": TensorProto.UINT64}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    inputs = [value(name, kind, ("N",)) for name, kind in kinds.items()]
    outputs = [value(f"{name}_out", kind, ("N",)) for name, kind in kinds.items()]
    with serving(tmp_path, graph(nodes, inputs, outputs)) as module:
        body = b'{"a": [9007199254740993, 2.0], "b": [18446744073709551615, 9007199254740993.0]}'
        expected = {"a_out": [9007199254740993, 2], "b_out": [2**64 - 1, 9007199254740993]}
        assert post(module, body) == (200, {"result": expected})
        given = orjson.loads(b'[{"name":"a","datatype":"INT64","shape":[1]}]')
        tensors = [
            {**given[0], "data": [9007199254740993]},
            {**given[0], "name": "b", "datatype": "UINT64", "data": [2**64 - 1]},
        ]
        _, answer = post(module, orjson.dumps({"inputs": tensors}), INFER)
        assert [each["data"] for each in answer["outputs"]] == [[9007199254740993], [2**64 - 1]]
