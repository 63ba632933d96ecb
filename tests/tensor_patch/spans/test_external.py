"""Arrays in files beside the one that describes them: TensorFlow's variables, TensorFlow.js."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.tensor_patch.spans import Kind, Span, external_spans
from tests.tensor_patch.spans.checks import damaged, disjoint

DATA = "variables.data-00000-of-00001"


def varint(number: int) -> bytes:
    made = bytearray()
    while number >= 128:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def variable(dtype: int, dims: list[int], offset: int, size: int, shard: int = 0) -> bytes:
    shape = b"".join(field(2, field(1, dim)) for dim in dims)
    where = field(3, shard) + field(4, offset) + field(5, size)
    return field(1, dtype) + field(2, shape) + where + b"\x35abcd"


def block(entries: dict[str, bytes]) -> bytes:
    made, last = b"", b""
    for name, value in entries.items():
        key = name.encode()
        shared = next(
            (at for at, pair in enumerate(zip(key, last, strict=False)) if len(set(pair)) > 1),
            min(len(key), len(last)),
        )
        made += varint(shared) + varint(len(key) - shared) + varint(len(value))
        made += key[shared:] + value
        last = key
    return made + bytes(4) + (1).to_bytes(4, "little")


def index(entries: dict[str, bytes], shards: int = 1, *, compressed: bool = False) -> bytes:
    trailer = bytes([compressed]) + b"sums"
    first = block({"": field(1, shards), **entries})
    rest = block({"zz": varint(0) + varint(len(first))})
    at = len(first) + len(trailer)
    footer = varint(0) + varint(8) + varint(at) + varint(len(rest))
    magic = bytes.fromhex("57fb808b247547db")
    return first + trailer + rest + bytes(5) + footer.ljust(40, b"\0") + magic


VARIABLES = {
    "dense/bias": variable(1, [4], 0, 16),
    "dense/kernel": variable(1, [3, 4], 16, 48),
    "half": variable(19, [5], 64, 10),
    "name": variable(7, [], 74, 9),
    "step": variable(9, [], 83, 8),
}


def test_variables_of_tensorflow() -> None:
    found = external_spans(index(VARIABLES), "model/variables/variables.index")
    assert found == {
        DATA: (
            Span("dense/bias", 0, 16, Kind.F32, (4,)),
            Span("dense/kernel", 16, 48, Kind.F32, (3, 4)),
            Span("half", 64, 10, Kind.F16, (5,)),
            Span("step", 83, 8, Kind.I64, ()),
        )
    }


def test_variables_in_several_files() -> None:
    entries = {"a": variable(1, [2], 0, 8), "b": variable(1, [2], 0, 8, shard=1)}
    found = external_spans(index(entries, 2), "v.index")
    assert list(found) == ["v.data-00000-of-00002", "v.data-00001-of-00002"]


def test_compressed_tables_and_other_files_describe_nothing() -> None:
    assert external_spans(index(VARIABLES, compressed=True), "v.index") == {}
    assert external_spans(index(VARIABLES), "v.bin") == {}
    assert external_spans(b"", "v.index") == {}


def manifest(*groups: dict[str, Any], **more: object) -> bytes:
    return json.dumps({"format": "layers-model", "weightsManifest": groups, **more}).encode()


def weight(name: str, *shape: int, dtype: str = "float32", **more: object) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": dtype, **more}


def test_tensors_of_tensorflow_js() -> None:
    quantised = {"dtype": "uint8", "min": 0.0, "scale": 0.1}
    group = {
        "paths": ["group1-shard1of1.bin"],
        "weights": [weight("k", 3, 4), weight("q", 5, quantization=quantised), weight("b", 2)],
    }
    assert external_spans(manifest(group), "model.json") == {
        "group1-shard1of1.bin": (
            Span("k", 0, 48, Kind.F32, (3, 4)),
            Span("q", 48, 5, Kind.I8, (5,)),
            Span("b", 53, 8, Kind.F32, (2,)),
        )
    }


def test_tensors_over_shards_are_divided() -> None:
    group = {"paths": ["a/1", "a/2"], "weights": [weight("x", 1000), weight("y", 1100, 1000)]}
    found = external_spans(manifest(group), "model.json")
    shard = 4 * 2**20
    assert found["a/1"][1].length == shard - 4000
    assert found["a/2"] == (Span("y", 0, 4_404_000 - shard, Kind.F32, ((4_404_000 - shard) // 4,)),)


@pytest.mark.parametrize(
    "group",
    [
        {"paths": ["../x"], "weights": [weight("x", 10)]},
        {"paths": [7], "weights": [weight("x", 10)]},
        {"paths": [], "weights": [weight("x", 10)]},
        {"paths": ["x", "y"], "weights": [weight("x", 10)]},
        {"paths": ["x"], "weights": [weight("x", 10), {"name": "y"}]},
        {"paths": ["x"], "weights": [weight("x", -1)]},
        {"paths": ["x"], "weights": [weight("x", 10, dtype="string")]},
        {"paths": "x", "weights": {}},
        [],
    ],
)
def test_manifests_without_places_describe_nothing(group: dict[str, Any]) -> None:
    assert external_spans(manifest(group), "model.json") == {}


@pytest.mark.parametrize("text", [b"", b"[", b"[" * 100_000, b"3", b'{"weightsManifest": 3}'])
def test_other_texts_describe_nothing(text: bytes) -> None:
    assert external_spans(text, "config.json") == {}


@given(damaged([index(VARIABLES), index(VARIABLES, 3)]))
def test_a_damaged_index_is_sound(content: bytes) -> None:
    for spans in external_spans(content, "variables.index").values():
        disjoint(spans, 2**63)


@given(damaged([manifest({"paths": ["a"], "weights": [weight("x", 4), weight("y", 3, 3)]})]))
def test_a_damaged_manifest_is_sound(content: bytes) -> None:
    for spans in external_spans(content, "model.json").values():
        disjoint(spans, 2**63)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_any_manifest(groups: object) -> None:
    text = json.dumps({"weightsManifest": groups}).encode()
    assert external_spans(text, "model.json") == {}
