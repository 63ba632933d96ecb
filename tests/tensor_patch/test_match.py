"""Which old array each new one is matched with."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from mlpack.tensor_patch import Arrays, make_patch
from mlpack.tensor_patch.match import ArrayPair, match
from mlpack.tensor_patch.spans import Kind, Span
from tests.tensor_patch.files import Pair, applied, made, pair, unrelated


def matched(of: Pair) -> list[ArrayPair]:
    return match(memoryview(of.old), memoryview(of.new), of.old_spans, of.new_spans)


def names(pairs: list[ArrayPair]) -> list[tuple[str, str | None]]:
    return [(each.new.name, each.old.name if each.old else None) for each in pairs]


@pytest.mark.parametrize("count", [1, 64, 65, 200, 1000])
@pytest.mark.parametrize("kind", [Kind.F32, Kind.BF16, Kind.I16])
def test_arrays_of_one_size_are_matched_by_name_whatever_their_number(
    count: int, kind: Kind
) -> None:
    of = pair(kind=kind, shape=(8, 6), arrays=count)
    assert names(matched(of)) == [(each.name, each.name) for each in of.new_spans]


def test_the_share_of_a_patch_does_not_grow_with_the_number_of_arrays() -> None:
    shares = []
    for count in (64, 200):
        of = pair(shape=(16, 16), arrays=count)
        made = make_patch(
            memoryview(of.old), memoryview(of.new), arrays=Arrays(of.old_spans, of.new_spans)
        )
        shares.append(len(made) / len(of.new))
    assert shares[1] < shares[0] * 1.01


@pytest.mark.parametrize("count", [10, 100, 300])
def test_renamed_arrays_are_matched_by_similarity(count: int) -> None:
    of = pair(shape=(8, 6), arrays=count)
    renamed = tuple(replace(each, name=f"layers.{each.name}") for each in of.new_spans)
    found = names(matched(replace(of, new_spans=renamed)))
    assert found == [(f"layers.{each.name}", each.name) for each in of.old_spans]


def test_shuffled_arrays_are_matched_by_similarity() -> None:
    of = pair(shape=(8, 6), arrays=100)
    order = np.random.default_rng(2).permutation(100)
    shuffled = tuple(
        replace(each, name=f"w{order[place]}") for place, each in enumerate(of.new_spans)
    )
    found = matched(replace(of, new_spans=shuffled))
    assert [each.old for each in found] == list(of.old_spans)


def test_equal_arrays_are_matched_by_content() -> None:
    of = pair(change=lambda values, _: values, shape=(8, 6), arrays=300)
    renamed = tuple(replace(each, name=f"{place}") for place, each in enumerate(of.new_spans))
    found = matched(replace(of, new_spans=renamed))
    assert all(each.same for each in found)
    assert [each.old for each in found] == list(of.old_spans)


def test_unrelated_arrays_keep_to_their_name() -> None:
    of = pair(change=unrelated, shape=(32, 16), arrays=100)
    assert names(matched(of)) == [(each.name, each.name) for each in of.new_spans]


OLD = np.random.default_rng(5).normal(0, 1, 1000).astype("<f4")
MORE = np.ones(24, "<f4")


@pytest.mark.parametrize(
    ("before", "after"), [((), (MORE,)), ((MORE,), ()), ((MORE,), (MORE, MORE))]
)
@pytest.mark.parametrize("shorter", [False, True])
def test_a_resized_array_is_matched_in_part(
    before: tuple[np.ndarray, ...], after: tuple[np.ndarray, ...], *, shorter: bool
) -> None:
    # The guess of where an array begins may differ in two files of which one has a longer header.
    header = b"" if before and after else b"a header"
    old = header + OLD.tobytes()
    middle = OLD * np.float32(1.001)
    new = header + b"".join(each.tobytes() for each in (*before, middle, *after))
    if shorter:
        old, new = new, old
    spans = [
        Span("w", len(header), len(each) - len(header), Kind.F32, ((len(each) - len(header)) // 4,))
        for each in (old, new)
    ]
    if before and after:
        start = 4 * len(MORE)
        longest = Span("w", start, len(max(old, new, key=len)) - start, Kind.F32, ())
        spans = [each if each.length == 4000 else longest for each in spans]
    found = match(memoryview(old), memoryview(new), spans[:1], spans[1:])
    assert sum(each.new.length for each in found) == spans[1].length
    [both] = [each for each in found if each.old]
    assert both.old is not None
    assert (both.new.length, both.old.length) == (4000, 4000)


def test_guessed_arrays_that_are_divided_in_one_file_are_matched_by_place() -> None:
    old, new = OLD.tobytes(), (OLD * np.float32(1.001)).tobytes()
    divided = [
        Span("f32 0", 0, 1200, Kind.F32, (300,)),
        Span("f32 1", 1200, 2000, Kind.F32, (500,)),
        Span("f32 2", 3600, 400, Kind.F32, (100,)),
    ]
    whole = [Span("f32 0", 0, 4000, Kind.F32, (1000,))]
    found = match(memoryview(old), memoryview(new), divided, whole)
    assert [(each.new.offset, each.old and each.old.offset) for each in found] == [
        (0, 0),
        (1200, 1200),
        (3200, None),
        (3600, 3600),
    ]
    found = match(memoryview(old), memoryview(new), whole, divided)
    assert [each.old and each.old.offset for each in found] == [0, 1200, 3600]
    # The same from the end, if one of the files has a longer header.
    moved = [replace(each, offset=each.offset + 8) for each in divided]
    found = match(memoryview(old), memoryview(bytes(8) + new), whole, moved)
    assert [each.old and each.old.offset for each in found] == [0, 1200, 3600]


def test_large_arrays_are_divided_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    # pcodec codes 2**24 numbers at once.
    monkeypatch.setattr("mlpack.tensor_patch.match.MOST", 100)
    monkeypatch.setattr("mlpack.tensor_patch.array_coding.MOST", 100)
    for shape, parts in (((50, 6), [(16, 6)] * 3 + [(2, 6)]), ((1, 250), [(100,), (100,), (50,)])):
        of = pair(shape=shape, arrays=2)
        found = matched(of)
        assert [each.new.shape for each in found] == parts * 2
        assert [each.old and each.old.shape for each in found] == parts * 2
        for old in (of, replace(of, old=b"", old_spans=())):
            assert applied(old.old, made(old)) == of.new


@pytest.mark.parametrize("narrow", ["f2", "bf16"])
def test_floats_that_were_narrower_take_no_more(narrow: str) -> None:
    values = np.random.default_rng(4).normal(0, 0.1, 20_000).astype("<f4")
    values = (
        (values.view("<u4") & 0xFFFF0000).view("<f4") if narrow == "bf16" else values.astype("f2")
    )
    content = values.astype("<f4").tobytes() + bytes(4) + np.float32(-0.0).tobytes()
    patch = make_patch(memoryview(b""), memoryview(content))
    assert applied(b"", patch) == content
    assert len(patch) < (0.4 if narrow == "bf16" else 0.5) * len(content)


def test_thousands_of_arrays_are_matched_quickly() -> None:
    of = pair(change=unrelated, shape=(16, 16), arrays=4000)
    renamed = tuple(replace(each, name=f"{place}") for place, each in enumerate(of.new_spans))
    start = time.process_time()
    found = matched(replace(of, new_spans=renamed))
    assert time.process_time() - start < 20
    assert all(each.old for each in found)
