"""Where the arrays of .npy and .npz files lie."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis.extra import numpy as nps
from numpy.lib import format as npy

from mlpack.tensor_patch.spans import Kind
from mlpack.tensor_patch.spans import zip as archive
from tests.tensor_patch.spans.checks import by_name, damaged, sound, values

RANDOM = np.random.default_rng(7)


def saved(array: np.ndarray[Any, Any], version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    npy.write_array(file, array, version=version, allow_pickle=False)
    return file.getvalue()


def by_hand(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("<f2", Kind.F16),
        ("<f4", Kind.F32),
        ("<f8", Kind.F64),
        ("i1", Kind.I8),
        ("?", Kind.I8),
        ("<u2", Kind.I16),
        ("<i4", Kind.I32),
        ("<u8", Kind.I64),
        ("<M8[ns]", Kind.I64),
    ],
)
def test_every_type_and_version(dtype: str, kind: Kind, version: tuple[int, int]) -> None:
    array = RANDOM.integers(0, 2, (3, 5)).astype(dtype)
    content = saved(array, version)
    (span,) = sound(content)
    assert (span.name, span.kind, span.shape) == ("array", kind, (3, 5))
    assert content[span.offset : span.offset + span.length] == array.tobytes()


def test_in_fortrans_order_the_shape_is_that_of_the_bytes() -> None:
    array = RANDOM.standard_normal((3, 5)).astype(np.float32)
    content = saved(np.asfortranarray(array))
    (span,) = sound(content)
    assert span.shape == (5, 3)
    assert np.array_equal(values(content, span).T, array)


@pytest.mark.parametrize(
    ("dtype", "kind", "tail"),
    [
        ("<c8", Kind.F32, (2,)),
        ("<c16", Kind.F64, (2,)),
        (">f4", Kind.I8, (4,)),
        (">c8", Kind.I8, (2, 4)),
        ([("x", "<f4"), ("y", "<f4", (3, 2))], Kind.F32, (7,)),
        ([("x", "<u2"), ("", "<i2")], Kind.I16, (2,)),
        ([("x", "<f4")], Kind.F32, (1,)),
    ],
)
def test_elements_of_several_numbers(
    dtype: npt.DTypeLike, kind: Kind, tail: tuple[int, ...]
) -> None:
    array = np.zeros((3, 5), dtype)
    (span,) = sound(saved(array))
    assert (span.kind, span.shape) == (kind, (3, 5, *tail))


@pytest.mark.parametrize(
    "dtype",
    ["S3", "U3", [("x", "<f4"), ("y", "<f8")], [("x", "S4")], [("x", [("y", "<f4")])], "V4"],
)
def test_what_is_no_array_of_one_kind_has_no_span(dtype: npt.DTypeLike) -> None:
    assert sound(saved(np.zeros(3, dtype))) == ()


def test_objects_have_no_span() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    assert sound(file.getvalue()) == ()


def test_a_scalar_and_an_empty_array() -> None:
    (span,) = sound(saved(np.asarray(2.5)))
    assert span.shape == ()
    assert sound(saved(np.zeros((0, 3)))) == ()


def test_headers_of_other_writers() -> None:
    header = "{'shape':(2,),'fortran_order':False,'descr':'<f4'}\n"
    (span,) = sound(by_hand(header, b"\0" * 8))
    assert (span.kind, span.shape) == (Kind.F32, (2,))
    (span,) = sound(by_hand(header.replace("(2,)", "(2L,)"), b"\0" * 8))
    assert span.shape == (2,)


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    "content",
    [
        by_hand(GOOD, b"\0" * 7),  # cut
        by_hand(GOOD.replace("2", "9" * 19), b"\0" * 8),
        by_hand(GOOD.replace("2", "9" * 10_000), b"\0" * 8),
        by_hand(GOOD.replace("2,", "1," * 40), b"\0" * 8),
        by_hand(GOOD.replace("2", "-2"), b"\0" * 8),
        by_hand(GOOD.replace("(2,)", "(" * 20_000), b"\0" * 8),
        by_hand("[" * 60_000),
        by_hand("1" * 60_000 + "!"),
        by_hand("'shape': (" + "1" * 60_000),
        by_hand("'descr': [" + "]" * 60_000),
        by_hand(GOOD.replace("'<f4'", "[" + "('a'," * 10_000 + "]"), b"\0" * 8),
        by_hand(GOOD.replace("'<f4'", "[]"), b"\0" * 8),
        by_hand(""),
        by_hand(GOOD)[:-1],
        b"\x93NUMPY",
        b"\x93NUMPY\x01",
        b"\x93NUMPY\x01\x00\xff",
        b"\x93NUMPY\x04\x00\x00\x00\x00\x00\x00\x00",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
    ],
)
def test_damaged_and_hostile_headers_are_opaque(content: bytes) -> None:
    assert sound(content) == ()


@given(nps.arrays(nps.array_dtypes() | nps.scalar_dtypes(), nps.array_shapes(max_side=4)))
def test_whatever_numpy_saves_is_sound(array: np.ndarray[Any, Any]) -> None:
    sound(saved(array, (3, 0)))


# Archives


def zipped(**arrays: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "weight": RANDOM.standard_normal((3, 4)).astype(np.float32),
    "bias": RANDOM.standard_normal(4),
    "ids": np.arange(5),
}


def test_an_archive_as_numpy_writes_it() -> None:
    content = zipped(**ARRAYS)
    spans = by_name(content)
    assert set(spans) == set(ARRAYS)
    assert all(np.array_equal(values(content, spans[name]), ARRAYS[name]) for name in spans)


def test_compressed_members_are_left_alone() -> None:
    file = io.BytesIO(zipped(weight=ARRAYS["weight"]))
    with zipfile.ZipFile(file, "a") as writer:
        writer.writestr("bias.npy", saved(ARRAYS["bias"]), zipfile.ZIP_DEFLATED)
        writer.writestr("notes.txt", "not an array")
        writer.writestr("false.npy", "not an array")
    assert [span.name for span in sound(file.getvalue())] == ["weight"]


def test_sizes_behind_the_member_and_sizes_of_eight_bytes() -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise OSError

        def tell(self) -> int:
            raise OSError

    plain, behind, long = saved(ARRAYS["bias"]), Unseekable(), io.BytesIO()
    for file in (behind, long):
        with (
            zipfile.ZipFile(file, "w") as writer,
            writer.open("a.npy", "w", force_zip64=True) as member,
        ):
            member.write(plain)
        content = file.getvalue()
        (span,) = sound(content)
        assert np.array_equal(values(content, span), ARRAYS["bias"])


def long_zip(content: bytes) -> bytes:
    """The same archive with an end of eight-byte numbers, as torch writes them."""
    at = content.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HLL", content, at + 10)
    long = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0
    )  # fmt: skip
    return content[:at] + long + locator + end


def test_a_long_archive() -> None:
    plain = zipped(**ARRAYS)
    assert sound(long_zip(plain)) == sound(plain) != ()
    assert sound(long_zip(plain).replace(b"PK\x06\x06", b"PK\x06\x08")) == ()


def changed(content: bytes, place: int, layout: str, value: int) -> bytes:
    whole = bytearray(content)
    struct.pack_into(layout, whole, place, value)
    return bytes(whole)


ONE = zipped(a=ARRAYS["bias"])
CENTRAL, END = ONE.rindex(b"PK\x01\x02"), ONE.rindex(b"PK\x05\x06")


@pytest.mark.parametrize(
    "content",
    [
        changed(ONE, 8, "<H", 8),  # the header before the member says it is compressed
        changed(ONE, 18, "<L", 100),  # and another size
        changed(ONE, 22, "<L", 100),
        changed(ONE, 26, "<H", 4),  # and another length of its name
        changed(ONE, 30, "<B", ord("b")),  # and another name
        changed(ONE, CENTRAL + 20, "<L", 100),
        changed(ONE, CENTRAL + 24, "<L", 2**31),
        changed(ONE, CENTRAL + 24, "<L", 2**32 - 1),
        changed(ONE, CENTRAL + 42, "<L", 4),  # the header is elsewhere
        changed(ONE, CENTRAL + 42, "<L", 2**31),
        changed(ONE, END + 10, "<H", 2),  # one member too many
        changed(ONE, END + 12, "<L", 2**31),
        changed(ONE, END + 16, "<L", 2**31),
        changed(ONE, END + 20, "<H", 5),  # a comment that is not there
        ONE + b"\0",
        ONE[:END],
        ONE[:-1],
        b"PK\x03\x04",
    ],
)
def test_an_archive_that_can_be_read_in_two_ways_is_opaque(content: bytes) -> None:
    assert len(sound(ONE)) == 1
    assert sound(content) == ()


def test_a_name_that_overruns_the_directory_is_cut_as_zipfile_does() -> None:
    assert sound(changed(ONE, CENTRAL + 28, "<H", 60_000)) == sound(ONE)


def test_a_directory_too_large_to_read_is_opaque(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_DIRECTORY", 16)
    assert sound(ONE) == ()


def test_an_encrypted_member_is_left_alone() -> None:
    assert sound(changed(ONE, CENTRAL + 8, "<H", 1)) == ()


def test_members_in_one_place_are_refused() -> None:
    directory = ONE[CENTRAL:END]
    twice = changed(ONE[:CENTRAL] + directory * 2 + ONE[END:], END + len(directory) + 10, "<H", 2)
    twice = changed(twice, END + len(directory) + 12, "<L", 2 * len(directory))
    assert sound(twice) == ()


def test_members_end_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    assert sound(zipped(**ARRAYS)) == ()


VALID = [zipped(**ARRAYS), long_zip(ONE), saved(ARRAYS["weight"])]


@given(damaged(VALID))
def test_a_damaged_file_is_sound(content: bytes) -> None:
    sound(content)


@pytest.mark.parametrize("valid", VALID, ids=["npz", "long npz", "npy"])
def test_every_truncation_is_sound(valid: bytes) -> None:
    for size in range(len(valid)):
        assert sound(valid[:size]) == ()
