"""Rounded arrays: close to the exact ones, the same everywhere, and small as patches."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.runtime.patch.arrays import (
    BF16,
    F16,
    F32,
    F64,
    Array,
    NumberType,
    stepped,
)
from mlpack.tensor_patch import apply_patch, make_patch
from mlpack.tensor_patch.rounding import (
    ChangedArray,
    changed_arrays,
    round_array,
    rounded_files,
)
from mlpack.tensor_patch.step_choice import by_worth, choose, groups
from mlpack.tensor_patch.steps import LARGEST, STEPS, rounding_step, steps, values

FLOATS = (F16, BF16, F32, F64)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[NumberType, Array, Array, int]:
    """Any bits at all, or bits near to others; and a step from all that there are."""
    kind = draw(st.sampled_from(FLOATS))
    bits = st.integers(0, 2**kind.bits - 1)
    old = draw(st.lists(bits, min_size=1, max_size=40))
    moves = st.integers(-(2**12), 2**12)
    new = [draw(bits | moves.map(each.__add__)) % 2**kind.bits for each in old]
    step = draw(st.integers(STEPS[0], STEPS[-1]))
    return kind, np.array(old, kind.unsigned), np.array(new, kind.unsigned), step


@given(arrays())
def test_no_number_is_further_than_half_a_step_from_what_it_was(
    case: tuple[NumberType, Array, Array, int],
) -> None:
    kind, old, new, step = case
    made = round_array(kind, old, new, step)
    before, after, found = (values(kind, each) for each in (old, new, made))
    with np.errstate(invalid="ignore", over="ignore"):
        fits = np.abs(after - before) <= LARGEST * 2.0**step
        # Numbers near zero have no smaller last place.
        least = 2 - kind.exponents // 2 - kind.fraction
        last_places = np.ldexp(1.0, np.maximum(np.frexp(found)[1] - kind.fraction - 1, least))
        close = np.abs(found - after) <= 2.0 ** (step - 1) + last_places / 2 * (1 + 2.0**-12)
    assert np.array_equal(made[~fits], new[~fits]), "not finite, or too far for a multiple"
    assert np.all(close[fits])
    assert np.array_equal(np.isfinite(found), np.isfinite(after))
    decoded = stepped(kind, old, steps(kind, old, made, step), step)
    assert np.all((decoded == made) | (made == new)), "what is rounded, a patch can make"
    assert np.array_equal(round_array(kind, old, made, step), made), "twice is once"


@given(arrays())
def test_a_step_that_is_found_makes_the_very_array(
    case: tuple[NumberType, Array, Array, int],
) -> None:
    kind, old, new, step = case
    for other in (new, round_array(kind, old, new, step)):
        found = rounding_step(kind, old, other)
        if found is not None:
            assert np.array_equal(stepped(kind, old, steps(kind, old, other, found), found), other)


@pytest.mark.parametrize("kind", FLOATS, ids=lambda each: each.name)
def test_the_step_of_an_array_is_found(kind: NumberType) -> None:
    before, after = (np.frombuffer(each, kind.unsigned) for each in _weights(kind, 20_000))
    if kind in (F32, F64):
        assert rounding_step(kind, before, after) is None
    assert rounding_step(kind, before, before) is None
    step = {F16: -9, BF16: -6}.get(kind, -12)
    made = round_array(kind, before, after, step)
    assert rounding_step(kind, before, made) == step
    few = np.where(np.arange(len(before)) % 50 == 7, made, before)
    assert (rounding_step(kind, before, few) or -99) >= step, "where few numbers changed"


def _weights(kind: NumberType, count: int) -> list[bytes]:
    rng = np.random.default_rng(3)
    first = rng.normal(0, 0.1, count)
    made = []
    for numbers in (first, first + rng.normal(0, 3e-3, count)):
        if kind == BF16:
            made.append((numbers.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes())
        else:
            made.append(numbers.astype(np.dtype(kind.scalar).newbyteorder("<")).tobytes())
    return made


def _rounded(kind: NumberType, count: int, step: int) -> tuple[bytes, bytes, bytes]:
    """An old and a new file of safetensors, and the new one with its array rounded."""
    files = [_safetensors(each, kind, count) for each in _weights(kind, count)]
    before, after = ({"model": memoryview(each)} for each in files)
    (array,) = changed_arrays(before, after)
    assert (array.name, array.kind) == ("w", kind)
    return files[0], files[1], rounded_files(after, [(array, step)])["model"]


def _safetensors(content: bytes, kind: NumberType, count: int) -> bytes:
    entry = {"dtype": kind.name.upper(), "shape": [count], "data_offsets": [0, len(content)]}
    head = json.dumps({"w": entry}).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + content


@pytest.mark.parametrize("kind", FLOATS, ids=lambda each: each.name)
def test_every_kind_of_float_is_rounded_as_a_patch_writes_it(kind: NumberType) -> None:
    old, new, made = _rounded(kind, 20_000, {F16: -8, BF16: -8}.get(kind, -9))
    patch = make_patch(memoryview(old), memoryview(made))
    back = bytearray()
    apply_patch(memoryview(old), memoryview(patch), back.extend)
    assert back == made
    assert len(patch) * 8 < 20_000 * 3, "some bits for each number"
    assert len(patch) < len(make_patch(memoryview(old), memoryview(new)))


def test_integers_and_what_comes_of_nothing_stay() -> None:
    old, new = (np.arange(4096, dtype="<i4") * each for each in (1, 2))
    for pair in ((old, new), (old.astype("<f4"), new.astype("<f8"))):
        before, after = ({"w.npy": memoryview(_npy(each))} for each in pair)
        assert changed_arrays(before, after) == []
    few = [{"w.npy": memoryview(_npy(np.full(15, each, "<f4")))} for each in (1, 2)]
    assert changed_arrays(*few) == [], "sizes in ONNX's Resize, for example"
    assert changed_arrays({}, {"w.npy": memoryview(_npy(new))}) == []


def _npy(array: Array) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def test_the_same_model_is_made_on_every_machine() -> None:
    found = {}
    for kind in FLOATS:
        *_, made = _rounded(kind, 3000, -9)
        found[kind.name] = hashlib.sha256(made).hexdigest()[:16]
    assert found == GOLDEN


GOLDEN = {
    "f16": "d2336c79db3ffa0a",
    "bf16": "99d5380e1e521898",
    "f32": "78e994d9b508ae7b",
    "f64": "27256dc5bc18a53a",
}


def _arrays(counts: dict[str, int]) -> list[ChangedArray]:
    rng = np.random.default_rng(2)
    made = list[ChangedArray]()
    for name, count in counts.items():
        old, change = rng.normal(0, 0.1, count), rng.normal(0, 1e-3, count)
        old, new = (each.astype("<f4").view("<u4") for each in (old, old + change))
        made.append(ChangedArray("model", name, len(made), F32, old, new))
    return made


def test_arrays_of_like_names_have_one_step() -> None:
    layers = {f"layer.{n}.{each}": 2000 for n in range(30) for each in ("query", "key")}
    small = {f"layer.{n}.norm{n % 3}.{each}": 8 for n in range(30) for each in ("scale", "bias")}
    found = groups(_arrays(layers | small | {"head": 4000}))
    names = [{each.name.rpartition(".")[2] for each in group.arrays} for group in found]
    assert names == [{"query"}, {"key"}, {"head"}, {"scale"}, {"bias"}]
    assert len(groups(_arrays({f"layer.{n}": 2000 for n in range(30)}))) == 30
    assert len(groups(_arrays({f"{chr(97 + n)}": 8 for n in range(20)}))) == 1


def test_bytes_go_where_they_save_most_harm() -> None:
    found = groups(_arrays({"much": 4000, "little": 4000}))
    measured = [
        {group.usual: harm, group.last: harm * 4.0 ** (group.last - group.usual)}
        for group, harm in zip(found, (1.0, 2.0**-4), strict=True)
    ]
    total = sum(group.sizes[group.usual] for group in found)
    much, little = choose(found, measured, total)
    assert little - much in (1, 2, 3), "the harm of both is the same"
    sizes = [group.sizes[step] for group, step in zip(found, (much, little), strict=True)]
    assert sum(sizes) <= total
    assert choose(found, measured, 0) == tuple(group.last for group in found)
    assert by_worth(found, measured, (much, little - 2)) == [1, 0]
    assert by_worth(found, measured, (found[0].last, little)) == [1]
