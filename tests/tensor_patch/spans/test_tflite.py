"""Where the arrays of TensorFlow Lite models lie."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.tensor_patch.spans import Kind, binary
from tests.support import SHARED, require
from tests.tensor_patch.spans.checks import by_name, damaged, sound, values

RANDOM = np.random.default_rng(11)
WEIGHT = RANDOM.standard_normal((3, 4)).astype(np.float32)


@dataclass
class Tensor:
    name: str
    kind: int
    buffer: int
    shape: Sequence[int] = ()


class Writer:
    """A model by the schema's places of fields, since the schema's own code is TensorFlow."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(0)

    def table(self, fields: dict[int, tuple[str, int]]) -> int:
        self.builder.StartObject(max(fields, default=-1) + 1)
        for place, (form, value) in fields.items():
            if form == "offset":
                self.builder.PrependUOffsetTRelativeSlot(place, value, 0)
            else:
                getattr(self.builder, f"Prepend{form}Slot")(place, value, 0)
        return int(self.builder.EndObject())

    def tables(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def tensor(self, said: Tensor) -> int:
        name = self.builder.CreateString(said.name)
        self.builder.StartVector(4, len(said.shape), 4)
        for dim in reversed(said.shape):
            self.builder.PrependInt32(dim)
        shape = self.builder.EndVector()
        return self.table(
            {
                0: ("offset", shape),
                1: ("Int8", said.kind),
                2: ("Uint32", said.buffer),
                3: ("offset", name),
            }
        )

    def buffer(self, said: bytes | tuple[int, int]) -> int:
        if isinstance(said, tuple):
            return self.table({1: ("Uint64", said[0]), 2: ("Uint64", said[1])})
        data = self.builder.CreateByteVector(said) if said else 0
        return self.table({0: ("offset", data)} if said else {})


def model(tensors: Sequence[Tensor], buffers: Sequence[bytes | tuple[int, int]]) -> bytes:
    writer = Writer()
    graph = writer.table({0: ("offset", writer.tables([writer.tensor(each) for each in tensors]))})
    graphs = writer.tables([graph])
    places = writer.tables([writer.buffer(each) for each in buffers])
    root = writer.table({0: ("Uint32", 3), 2: ("offset", graphs), 4: ("offset", places)})
    writer.builder.Finish(root, b"TFL3")
    return bytes(writer.builder.Output())


@pytest.mark.parametrize(
    ("number", "dtype", "kind"),
    [
        (0, "<f4", Kind.F32),
        (1, "<f2", Kind.F16),
        (2, "<i4", Kind.I32),
        (3, "u1", Kind.I8),
        (4, "<i8", Kind.I64),
        (6, "?", Kind.I8),
        (7, "<i2", Kind.I16),
        (9, "i1", Kind.I8),
        (10, "<f8", Kind.F64),
        (12, "<u8", Kind.I64),
        (15, "<u4", Kind.I32),
        (16, "<u2", Kind.I16),
        (18, "<u2", Kind.BF16),
    ],
)
def test_every_type(number: int, dtype: str, kind: Kind) -> None:
    array = RANDOM.integers(0, 2, (3, 4)).astype(dtype)
    content = model([Tensor("w", number, 1, (3, 4))], [b"", array.tobytes()])
    (span,) = sound(content)
    assert (span.name, span.kind, span.shape) == ("w", kind, (3, 4))
    assert content[span.offset : span.offset + span.length] == array.tobytes()


def test_tensors_without_numbers_have_no_span() -> None:
    tensors = [Tensor("input", 0, 0, (1, 4)), Tensor("text", 5, 1), Tensor("far", 0, 9, (3, 4))]
    assert sound(model(tensors, [b"", WEIGHT.tobytes()])) == ()


def test_complex_numbers_are_pairs() -> None:
    (span,) = sound(model([Tensor("w", 8, 1, (3, 2))], [b"", WEIGHT.tobytes()]))
    assert (span.kind, span.shape) == (Kind.F32, (3, 2, 2))


def test_four_bits_and_unknown_shapes() -> None:
    tensors = [Tensor("w", 17, 0, (3, 3)), Tensor("v", 0, 1, (-1, 4)), Tensor("u", 0, 2, [1] * 40)]
    spans = by_name(model(tensors, [b"12345", WEIGHT.tobytes(), b"1234"]))
    assert {name: span.shape for name, span in spans.items()} == {"w": (5,), "v": (12,), "u": (1,)}


def test_tensors_of_one_buffer_are_one_span() -> None:
    tensors = [Tensor("b", 0, 1, (3, 4)), Tensor("a", 0, 1, (4, 3))]
    (span,) = sound(model(tensors, [b"", WEIGHT.tobytes()]))
    assert (span.name, span.shape) == ("a", (4, 3))


def test_buffers_behind_the_flatbuffer() -> None:
    tensors = [Tensor("w", 0, 1, (3, 4)), Tensor("nothing", 0, 2, (3, 4))]

    def placed(at: int) -> bytes:
        return model(tensors, [b"", (at, WEIGHT.nbytes), (1, 0)])

    start = len(placed(2**20)) + 16
    content = placed(start).ljust(start, b"\0") + WEIGHT.tobytes()
    (span,) = sound(content)
    assert np.array_equal(values(content, span), WEIGHT)
    assert sound(content[:-1]) == ()
    assert sound(model(tensors, [b"", (2**64 - 4, 2**64 - 4), (2, 2**63)])) == ()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_real_model(version: str) -> None:
    path = require(SHARED / "pairs" / "esphome-okay-nabu-v2-tflite" / f"{version}.tflite")
    content = path.read_bytes()
    spans = sound(content)
    assert len(spans) > 30
    assert sum(span.length for span in spans) > len(content) // 3
    assert all(len(span.shape) > 1 for span in spans if span.length > 1000)


GOOD = model([Tensor("w", 0, 1, (3, 4))], [b"", WEIGHT.tobytes()])


def changed(place: int, value: int) -> bytes:
    whole = bytearray(GOOD)
    struct.pack_into("<L", whole, place, value)
    return bytes(whole)


def test_no_four_bytes_lead_out_of_the_file() -> None:
    # Offsets to the end, behind it, backwards, nowhere, and in a circle to the start.
    for place in [0, *range(8, len(GOOD) - 3)]:
        for value in (0, 1, 4, len(GOOD), 2**31 - 1, 2**31, 2**32 - 1, -place % 2**32):
            sound(changed(place, value))


@pytest.mark.parametrize("root", [0, len(GOOD) - 2, len(GOOD), 2**31, 2**32 - 1])
def test_a_root_that_leads_nowhere_is_opaque(root: int) -> None:
    assert sound(changed(0, root)) == ()


def test_one_table_under_many_names_ends_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # A thousand graphs that are one, of a thousand tensors that are one: a million in 8 KB.
    writer = Writer()
    tensors = writer.tables([writer.tensor(Tensor("w", 0, 0, (3, 4)))] * 1000)
    graphs = writer.tables([writer.table({0: ("offset", tensors)})] * 1000)
    buffers = writer.tables([writer.buffer(WEIGHT.tobytes())])
    writer.builder.Finish(writer.table({2: ("offset", graphs), 4: ("offset", buffers)}), b"TFL3")
    monkeypatch.setattr(binary, "MAX_READS", 100_000)
    assert sound(bytes(writer.builder.Output())) == ()


def test_every_truncation_is_sound() -> None:
    for size in range(len(GOOD)):
        sound(GOOD[:size])


@given(damaged([GOOD]))
def test_a_damaged_model_is_sound(content: bytes) -> None:
    sound(content)


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_random_bytes_are_sound(content: bytes, root: int) -> None:
    sound(root.to_bytes(4, "little") + b"TFL3" + content)
    sound(b"\x08\0\0\0TFL3" + content)
