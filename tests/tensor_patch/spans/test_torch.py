"""Where the tensors of PyTorch's files lie. The files are made as torch writes them, without it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from mlpack.tensor_patch.spans import Kind
from tests.tensor_patch.spans.checks import by_name, damaged, sound, values
from tests.tensor_patch.spans.test_npy import long_zip

RANDOM = np.random.default_rng(17)
WEIGHT = RANDOM.standard_normal((4, 3)).astype(np.float32)
BIAS = np.arange(5.0)


# Instructions of a pickle of protocol 2, as torch.save writes them.


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def numbers(*items: int) -> bytes:
    return b"(" + b"".join(b"J" + item.to_bytes(4, "little", signed=True) for item in items) + b"t"


def storage(kind: str, key: str, count: int) -> bytes:
    """A storage by its persistent id."""
    of_type = b"ctorch\n" + kind.encode() + b"\n"
    size = b"J" + count.to_bytes(4, "little")
    return b"(" + text("storage") + of_type + text(key) + text("cpu") + size + b"tQ"


def tensor(
    stored: bytes, size: Sequence[int], stride: Sequence[int], begin: int = 0, more: bytes = b""
) -> bytes:
    function = b"_rebuild_tensor_v3" if more else b"_rebuild_tensor_v2"
    at = b"J" + begin.to_bytes(4, "little")
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    axes = numbers(*size) + numbers(*stride)
    return b"ctorch._utils\n" + function + b"\n(" + stored + at + axes + hooks + more + b"tR"


def parameter(inner: bytes) -> bytes:
    hooks = b"\x88ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_parameter\n(" + inner + hooks + b"tR"


def state(**tensors: bytes) -> bytes:
    """The ordered dictionary that a module's state is, with torch's own attribute."""
    items = b"".join(text(name) + value for name, value in tensors.items())
    metadata = b"}" + text("_metadata") + b"ccollections\nOrderedDict\n)R" + b"sb"
    return b"ccollections\nOrderedDict\n)R(" + items + b"u" + metadata


def saved(value: bytes, storages: dict[str, bytes], **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        writer.writestr("archive/data.pkl", b"\x80\x02" + value + b".")
        for name, content in {"byteorder": b"little", **members}.items():
            writer.writestr(f"archive/{name}", content)
        for key, content in storages.items():
            writer.writestr(f"archive/data/{key}", content)
        writer.writestr("archive/version", b"3\n")
    return long_zip(file.getvalue())


def one(kind: str, content: bytes, count: int, **options: Any) -> bytes:  # noqa: ANN401
    made = tensor(storage(kind, "0", count), (count,), (1,), **options)
    return saved(state(a=made), {"0": content})


def test_a_state_as_torch_saves_it() -> None:
    weight = tensor(storage("FloatStorage", "0", 12), (4, 3), (3, 1))
    bias = parameter(tensor(storage("DoubleStorage", "1", 5), (5,), (1,)))
    content = saved(
        state(**{"fc.weight": weight, "fc.bias": bias}),
        {"0": WEIGHT.tobytes(), "1": BIAS.tobytes()},
    )
    spans = by_name(content)
    assert set(spans) == {"fc.weight", "fc.bias"}
    assert np.array_equal(values(content, spans["fc.weight"]), WEIGHT)
    assert np.array_equal(values(content, spans["fc.bias"]), BIAS)


def test_states_in_a_checkpoint_have_its_keys() -> None:
    weight = tensor(storage("FloatStorage", "0", 12), (4, 3), (3, 1))
    checkpoint = b"}(" + text("epoch") + b"K\x07" + text("model") + state(w=weight) + b"u"
    content = saved(checkpoint, {"0": WEIGHT.tobytes()})
    assert set(by_name(content)) == {"model.w"}


@pytest.mark.parametrize(
    ("name", "dtype", "kind"),
    [
        ("HalfStorage", "f2", Kind.F16),
        ("BFloat16Storage", "u2", Kind.BF16),
        ("FloatStorage", "f4", Kind.F32),
        ("DoubleStorage", "f8", Kind.F64),
        ("ComplexFloatStorage", "c8", Kind.F32),
        ("CharStorage", "i1", Kind.I8),
        ("ByteStorage", "u1", Kind.I8),
        ("BoolStorage", "?", Kind.I8),
        ("ShortStorage", "i2", Kind.I16),
        ("IntStorage", "i4", Kind.I32),
        ("LongStorage", "i8", Kind.I64),
        ("QInt8Storage", "i1", Kind.I8),
        ("QInt32Storage", "i4", Kind.I32),
        ("UnheardOfStorage", "i1", Kind.I8),
    ],
)
def test_every_storage(name: str, dtype: str, kind: Kind) -> None:
    array = RANDOM.integers(0, 2, 6).astype(dtype)
    (span,) = sound(one(name, array.tobytes(), 6))
    assert (span.name, span.kind, span.length) == ("a", kind, array.nbytes)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("uint16", Kind.I16), ("float32", Kind.F32), ("float8_e5m2", Kind.I8)]
)
def test_storages_without_a_type_have_their_tensors(dtype: str, kind: Kind) -> None:
    more = b"ctorch\n" + dtype.encode() + b"\n"
    (span,) = sound(one("UntypedStorage", b"12345678", 8 // kind.width, more=more))
    assert (span.kind, span.shape) == (kind, (8 // kind.width,))


@pytest.mark.parametrize(
    ("size", "stride", "shape"),
    [
        ((3, 4), (1, 3), (4, 3)),  # transposed
        ((2, 3, 1, 2), (6, 1, 6, 3), (2, 1, 2, 3)),  # channels last
        ((12, 1), (1, 7), (1, 12)),
        ((2, 2), (6, 1), (12,)),  # with gaps
        ((3,), (1,), (12,)),  # a part
        ((3, 4), (4,), (12,)),
        ((3, -4), (-4, 1), (12,)),
        ((1,) * 40, (1,) * 40, (12,)),
    ],
)
def test_shapes_are_those_of_the_bytes(
    size: tuple[int, ...], stride: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    made = tensor(storage("FloatStorage", "0", 12), size, stride)
    (span,) = sound(saved(state(a=made), {"0": WEIGHT.tobytes()}))
    assert span.shape == shape


def test_tensors_of_one_storage_are_one_span() -> None:
    stored = storage("FloatStorage", "0", 12)
    parts = {"a": tensor(stored, (6,), (1,)), "b": tensor(stored, (6,), (1,), begin=6)}
    (span,) = sound(saved(state(**parts), {"0": WEIGHT.tobytes()}))
    assert (span.name, span.shape) == ("a", (12,))


def test_the_other_byte_order_is_bytes() -> None:
    made = tensor(storage("FloatStorage", "0", 12), (4, 3), (3, 1))
    content = saved(state(a=made), {"0": WEIGHT.astype(">f4").tobytes()}, byteorder=b"big")
    (span,) = sound(content)
    assert (span.name, span.kind) == ("a", Kind.I8)


@pytest.mark.parametrize(
    "broken", [b"", b"R", b"(", b"\xff", b"cos\nsystem\n" + text("x") + b"\x85R"]
)
def test_storages_are_found_where_the_pickle_says_nothing(broken: bytes) -> None:
    content = saved(broken, {"0": WEIGHT.tobytes(), "1": b"123"})
    (span,) = sound(content)
    assert (span.name, span.kind, span.shape) == ("data/0", Kind.F32, (12,))


def test_a_pickle_does_not_go_on_behind_its_member() -> None:
    made = state(a=tensor(storage("DoubleStorage", "0", 6), (6,), (1,)))
    content = saved(b"N0" + made, {"0": WEIGHT.tobytes()})
    # The last instruction now has an argument of what follows the member.
    (span,) = sound(content.replace(b"sb.", b"sb\x8e"))
    assert span.name == "data/0"


def test_one_pickle_of_many_large_calls_is_quick() -> None:
    many = b"(" + storage("FloatStorage", "0", 1) + b"K\x00))" + b"N" * 20_000 + b"tq\x00"
    calls = b"NN" + many + b"R" + b"Nh\x00R" * 20_000
    (span,) = sound(saved(calls, {"0": WEIGHT.tobytes()}))
    assert span.kind is Kind.F32


VALID = [
    saved(
        state(
            a=tensor(storage("FloatStorage", "0", 12), (4, 3), (3, 1)),
            b=parameter(tensor(storage("DoubleStorage", "1", 5), (5,), (1,))),
        ),
        {"0": WEIGHT.tobytes(), "1": BIAS.tobytes()},
    )
]


@given(damaged(VALID))
def test_a_damaged_file_is_sound(content: bytes) -> None:
    sound(content)


def before_zips(value: bytes, storages: dict[str, bytes], widths: dict[str, int]) -> bytes:
    """A file as torch.save wrote it before 1.6, with the pickle of the system left short."""
    magic = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
    keys = b"](" + b"".join(text(key) for key in storages) + b"e"
    pickles = [b"M\xe9\x03", b"}" + text("little_endian") + b"\x88s", value, keys]
    content = magic + b"".join(b"\x80\x02" + each + b"." for each in pickles)
    for key, stored in storages.items():
        content += (len(stored) // widths[key]).to_bytes(8, "little") + stored
    return content


LEGACY = before_zips(
    state(
        a=tensor(storage("FloatStorage", "93", 12), (4, 3), (3, 1)),
        b=parameter(tensor(storage("DoubleStorage", "7", 5), (5,), (1,))),
    ),
    {"7": BIAS.tobytes(), "93": WEIGHT.tobytes()},
    {"7": 8, "93": 4},
)


def test_files_before_zips() -> None:
    spans = by_name(LEGACY)
    assert set(spans) == {"a", "b"}
    assert np.array_equal(values(LEGACY, spans["a"]), WEIGHT)
    assert np.array_equal(values(LEGACY, spans["b"]), BIAS)


@pytest.mark.parametrize(
    "content",
    [
        LEGACY[:-57],
        LEGACY[:40],
        LEGACY.replace(text("7"), text("8"), 1),
        LEGACY.replace((5).to_bytes(8, "little"), (2**60).to_bytes(8, "little")),
    ],
)
def test_damaged_files_before_zips(content: bytes) -> None:
    assert not any(span.name == "b" for span in sound(content))


@given(damaged([LEGACY]))
def test_a_damaged_file_before_zips_is_sound(content: bytes) -> None:
    sound(content)
