"""Where the arrays of ONNX models lie."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestRegressor

from mlpack.tensor_patch.spans import Kind, external_spans, find_spans
from mlpack.tensor_patch.spans import protobuf as wire
from tests.support import SHARED, require
from tests.tensor_patch.spans.checks import by_name, damaged, sound, values

RANDOM = np.random.default_rng(3)
WEIGHT = RANDOM.standard_normal((4, 3, 2)).astype(np.float32)


def model(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> bytes:
    graph = helper.make_graph(list(nodes), "graph", [], [], list(tensors))
    return bytes(helper.make_model(graph).SerializeToString())


def message(number: int, payload: bytes) -> bytes:
    """One field with a length, by hand."""
    return varint(number << 3 | wire.LEN) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def raw(name: str, array: np.ndarray[Any, Any]) -> TensorProto:
    tensor = numpy_helper.from_array(array, name)
    assert isinstance(tensor, TensorProto)
    return tensor


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
        (ml_dtypes.float8_e5m2, Kind.I8),
    ],
)
def test_raw_data_of_every_type(dtype: str, kind: Kind) -> None:
    array = RANDOM.integers(0, 2, (3, 5)).astype(dtype)
    content = model(tensors=(raw("a", array),))
    (span,) = sound(content)
    assert (span.name, span.kind, span.shape) == ("a", kind, (3, 5))
    assert content[span.offset : span.offset + span.length] == array.tobytes()


@pytest.mark.parametrize(
    ("dtype", "kind", "tail"), [("c8", Kind.F32, (2,)), ("c16", Kind.F64, (2,))]
)
def test_complex_numbers_are_pairs(dtype: str, kind: Kind, tail: tuple[int, ...]) -> None:
    array = (WEIGHT + 1j).astype(dtype)
    (span,) = sound(model(tensors=(raw("a", array),)))
    assert (span.kind, span.shape) == (kind, array.shape + tail)


def test_four_bits_are_bytes_without_a_shape() -> None:
    tensor = TensorProto(name="a", data_type=TensorProto.INT4, dims=[3, 3], raw_data=b"12345")
    (span,) = sound(model(tensors=(tensor,)))
    assert (span.kind, span.shape) == (Kind.I8, (5,))


def test_typed_fields_are_spans_where_they_are_packed_numbers() -> None:
    floats = helper.make_tensor("floats", TensorProto.FLOAT, (4, 3, 2), WEIGHT.ravel())
    doubles = helper.make_tensor("doubles", TensorProto.DOUBLE, (24,), WEIGHT.ravel())
    ints = helper.make_tensor("ints", TensorProto.INT64, (3,), [1, 2, 3])
    halves = helper.make_tensor("halves", TensorProto.FLOAT16, (2,), [1.0, 2.0])
    texts = TensorProto(name="texts", data_type=8, dims=[2], string_data=[b"abcd", b"efgh"])
    content = model(tensors=(floats, doubles, ints, halves, texts))
    spans = by_name(content)
    assert set(spans) == {"floats", "doubles"}
    assert np.array_equal(values(content, spans["floats"]), WEIGHT)
    assert np.array_equal(values(content, spans["doubles"]), WEIGHT.ravel())


def test_an_empty_tensor_has_no_span_and_a_scalar_has_one() -> None:
    empty, scalar = np.zeros((0, 3), np.float32), np.float32(2.5)
    (span,) = sound(model(tensors=(raw("empty", empty), raw("scalar", np.asarray(scalar)))))
    assert (span.name, span.shape) == ("scalar", ())


@pytest.mark.parametrize("dims", [[5], [-1, -24], [2**62, 2**62, 0], [1] * 40])
def test_dims_that_do_not_fit_are_left_out(dims: list[int]) -> None:
    tensor = TensorProto(name="a", data_type=1, dims=dims, raw_data=WEIGHT.tobytes())
    (span,) = sound(model(tensors=(tensor,)))
    assert span.shape == (24,)


def test_bytes_that_are_no_whole_numbers_are_no_span() -> None:
    tensor = TensorProto(name="a", data_type=1, dims=[2], raw_data=b"1234567")
    assert sound(model(tensors=(tensor,))) == ()


def test_names_are_apart_in_the_order_of_the_file() -> None:
    tensors = tuple(raw(name, WEIGHT) for name in ("a", "a", "a#2", "a"))
    assert [span.name for span in sound(model(tensors=tensors))] == ["a", "a#2", "a#2#2", "a#3"]


def test_tensors_of_attributes_and_of_graphs_within() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=raw("", WEIGHT))
    inner = helper.make_graph([constant], "then", [], [], [raw("w", WEIGHT + 1)])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner)
    several = helper.make_node("Two", ["x"], ["z"], both=[raw("", WEIGHT), raw("k", WEIGHT)])
    content = model(branch, several)
    spans = by_name(content)
    assert set(spans) == {
        "y.then_branch/c.value",
        "y.then_branch/w",
        "z.both",
        "z.both.k",
    }
    assert np.array_equal(values(content, spans["y.then_branch/w"]), WEIGHT + 1)


def test_sparse_tensors_have_values_and_indices() -> None:
    indices = np.array([1, 5, 7], np.int64)
    sparse = helper.make_sparse_tensor(
        raw("s", np.ones(3, np.float32)), raw("s.i", indices), [3, 3]
    )
    graph = helper.make_graph([], "graph", [], [], sparse_initializer=[sparse])
    content = helper.make_model(graph).SerializeToString()
    spans = by_name(content)
    assert set(spans) == {"s", "indices.s.i"}
    assert np.array_equal(values(content, spans["indices.s.i"]), indices)


def test_functions_and_training_graphs_are_looked_into() -> None:
    node = helper.make_node("Constant", [], ["c"], value=raw("", WEIGHT))
    default = helper.make_attribute("d", raw("", WEIGHT))
    function = helper.make_function("own", "f", [], ["c"], [node], [], attribute_protos=[default])
    graph = helper.make_graph([], "graph", [], [])
    made = helper.make_model(graph, functions=[function])
    made.training_info.add().algorithm.CopyFrom(
        helper.make_graph([], "step", [], [], [raw("rate", WEIGHT)])
    )
    assert set(by_name(made.SerializeToString())) == {"f/c.value", "f.d", "training/rate"}


def test_floats_of_attributes_are_records_of_a_tag_and_four_bytes() -> None:
    numbers = WEIGHT.ravel()
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], nodes_values=numbers.tolist(), ids=[1, 300, 70000]
    )
    content = model(node)
    (span,) = sound(content)
    assert (span.name, span.kind, span.shape) == ("y.nodes_values", Kind.I8, (24, 5))
    records = values(content, span)
    assert set(records[:, 0]) == {7 << 3 | wire.FIXED32}
    assert records[:, 1:].tobytes() == numbers.tobytes()


def test_packed_floats_of_attributes_are_floats() -> None:
    # Writers of proto3 pack them.
    attribute = message(1, b"values") + message(7, WEIGHT.tobytes())
    content = message(7, message(1, message(2, b"y") + message(5, attribute)))
    (span,) = sound(content)
    assert (span.name, span.kind, span.shape) == ("y.values", Kind.F32, (24,))
    assert values(content, span).tobytes() == WEIGHT.tobytes()


def test_dims_may_be_packed() -> None:
    tensor = message(1, bytes([4, 3, 2])) + b"\x10\x01" + message(9, WEIGHT.tobytes())
    (span,) = sound(message(7, message(5, tensor)))
    assert span.shape == (4, 3, 2)


def test_a_tree_ensemble_as_skl2onnx_writes_it() -> None:
    features = RANDOM.standard_normal((200, 4)).astype(np.float32)
    forest = RandomForestRegressor(8, random_state=0).fit(features, features[:, 0])
    content = to_onnx(forest, features[:1]).SerializeToString()
    attributes = onnx.load_from_string(content).graph.node[0].attribute
    expected = {
        f"variable.{each.name}": np.array(each.floats, "<f4").tobytes()
        for each in attributes
        if each.floats
    }
    assert len(expected) > 2
    spans = by_name(content)
    found = {name: values(content, spans[name])[:, 1:].tobytes() for name in spans}
    assert found == expected


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_a_real_model_is_found_as_onnx_reads_it(version: str) -> None:
    path = require(SHARED / "pairs" / "silero-vad-16k-onnx" / f"{version}.onnx")
    content = path.read_bytes()
    pieces = {content[each.offset : each.offset + each.length] for each in sound(content)}
    tensors = all_tensors(onnx.load(path).graph)
    assert len(tensors) > 100
    assert {each.raw_data for each in tensors if each.raw_data} == pieces


def all_tensors(graph: onnx.GraphProto) -> list[TensorProto]:
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            found += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                found += all_tensors(inner)
    return found


# Files beside the model


def outside(location: str, **said: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=1, dims=[4, 3, 2], data_location="EXTERNAL")
    for key, value in {"location": location, **said}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_external_data_as_onnx_writes_it(tmp_path: Path) -> None:
    tensors = (raw("a", WEIGHT), raw("b", WEIGHT + 1))
    made = onnx.load_from_string(model(tensors=tensors))
    onnx.save(
        made, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    content, weights = (tmp_path / "m.onnx").read_bytes(), (tmp_path / "w.bin").read_bytes()
    assert sound(content) == ()
    found = external_spans(content)
    assert set(found) == {"w.bin"}
    a, b = found["w.bin"]
    assert (a.name, b.name) == ("a", "b")
    assert np.array_equal(values(weights, a), WEIGHT)
    assert np.array_equal(values(weights, b), WEIGHT + 1)


def test_a_length_that_is_not_said_is_the_shapes() -> None:
    (span,) = external_spans(model(tensors=(outside("./d//w", offset="8"),)))["d/w"]
    assert (span.offset, span.length) == (8, WEIGHT.nbytes)


OUTSIDE = ["/etc/w", "../w", "a/../../w", "..", "", ".", "C:\\w", "a\\w", "w\0", "a" * 5000]


@pytest.mark.parametrize("location", OUTSIDE)
def test_a_location_outside_the_models_folder_is_refused(location: str) -> None:
    assert external_spans(model(tensors=(outside(location),))) == {}


@pytest.mark.parametrize(
    "said",
    [
        {"offset": "-1"},
        {"offset": "x"},
        {"offset": "9" * 5000},
        {"offset": str(2**63)},
        {"length": str(2**63 - 4), "offset": "8"},
        {"length": "-8"},
        {"length": "7"},
        {"length": "٣٢"},
    ],
)
def test_numbers_that_no_file_can_have_are_refused(said: dict[str, str]) -> None:
    found = external_spans(model(tensors=(outside("w", **said),)))
    assert not any(found.values())


def test_tied_weights_are_one_span() -> None:
    tensors = (outside("w", offset="0"), outside("w", offset="0"), outside("w", offset="4"))
    assert len(external_spans(model(tensors=tensors))["w"]) == 1


# Damaged and hostile files


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\x08",
        b"\x08\x07",
        b"not a model at all",
        b"\x0b\x0c",  # a group
        b"\x0f\x00",  # no wire type
        b"\x00\x00",  # no field
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a graph of 2**64 - 1 bytes
        b"\x3a" + b"\xff" * 11,  # a varint that does not end
        b"\x38\x01",  # a graph that is a number
        b"\x3a\x02\x0b\x0c",  # a group in the graph
        b"\x3a\x05\x2a\x0a12",  # a tensor that ends after its graph
        model(tensors=(raw("a", WEIGHT),)) + b"\x01",
    ],
)
def test_what_is_no_whole_model_is_opaque(content: bytes) -> None:
    assert sound(content) == ()


def test_every_truncation_is_sound() -> None:
    node = helper.make_node("Constant", [], ["c"], value=raw("", WEIGHT))
    content = model(node, tensors=(raw("a", WEIGHT),))
    for size in range(len(content)):
        sound(content[:size])


@pytest.mark.parametrize(("depth", "spans"), [(5, 1), (32, 1), (33, 0), (20_000, 0)])
def test_graphs_within_graphs_end_somewhere(depth: int, spans: int) -> None:
    graph = message(5, b"\x10\x01" + message(9, WEIGHT.tobytes()))
    for _ in range(depth):
        graph = message(1, message(5, message(6, graph)))
    assert len(sound(message(7, graph))) == spans


def test_a_file_of_nothing_but_fields_ends_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    content = message(7, message(5, b"\x10\x01" + message(9, b"1234")) * 50)
    assert len(sound(content)) == 50
    monkeypatch.setattr(wire, "MAX_FIELDS", 100)
    assert sound(content) == ()


def test_a_file_of_nothing_but_tensors_ends_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    content = model(tensors=tuple(raw(str(each), WEIGHT) for each in range(20)))
    monkeypatch.setattr("mlpack.tensor_patch.spans.onnx.MAX_SPANS", 10)
    assert sound(content) == ()


def test_a_long_name_is_cut() -> None:
    tensors = (raw("x" * 10_000 + "a", WEIGHT), raw("x" * 10_000 + "b", WEIGHT))
    names = [span.name for span in sound(model(tensors=tensors))]
    assert names == ["x" * 256, "x" * 256 + "#2"]


def test_a_name_that_is_no_text_is_no_obstacle() -> None:
    tensor = message(8, b"\xff\xfe") + b"\x10\x01" + message(9, b"1234")
    (span,) = sound(message(7, message(5, tensor)))
    assert span.name == "��"


def test_a_map_of_a_file_is_read_in_place_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in (model(tensors=(raw("a", WEIGHT),)), b"\x3a\x05\x2a\x0a12"):
        path.write_bytes(content)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as map_:
            assert find_spans(map_) == find_spans(bytearray(content))
            external_spans(map_)


def test_numbers_are_stepped_over() -> None:
    # Not one million fields of a tree ensemble but one run of them, or this would end at the limit.
    node = helper.make_node("T", ["x"], ["y"], ids=[300] * 1_500_000, values=[1.5] * 1_500_000)
    (span,) = sound(model(node))
    assert span.shape == (1_500_000, 5)


THEN = helper.make_graph(
    [helper.make_node("Constant", [], ["c"], value=raw("", WEIGHT))], "then", [], []
)
VALID = model(
    helper.make_node("If", ["x"], ["y"], then_branch=THEN),
    helper.make_node("T", ["x"], ["z"], values=[1.5] * 4, ids=[1, 300]),
    tensors=(raw("a", WEIGHT), outside("w", offset="8", length="96")),
)


@given(damaged([VALID]))
def test_a_damaged_model_is_sound(content: bytes) -> None:
    sound(content)


@given(st.binary(max_size=200))
def test_random_bytes_are_sound(content: bytes) -> None:
    sound(content)
    sound(message(7, content))
    sound(message(7, message(5, content)))
