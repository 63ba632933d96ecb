"""Rounded models: close in the floats' order, the same everywhere, and small as patches."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.delta import apply_patch, describe, make_patch
from mlpack.delta.rounding import (
    low_widths,
    round_array,
    round_model,
    usual_step,
    values,
)
from mlpack.delta.spans import Kind as SpanKind
from mlpack.delta.spans import Span
from mlpack.runtime.patch.arrays import BF16, F16, F32, F64, KINDS, Array, Kind, exponents, ordered

FLOATS = (F16, BF16, F32, F64)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Kind, Array, Array, int]:
    """Any bits at all, or bits near to others; and a step from all that there are."""
    kind = draw(st.sampled_from(FLOATS))
    bits = st.integers(0, 2**kind.bits - 1)
    old = draw(st.lists(bits, min_size=1, max_size=40))
    moves = st.integers(-(2**12), 2**12)
    new = [draw(bits | moves.map(each.__add__)) % 2**kind.bits for each in old]
    step = draw(st.integers(-(kind.exponents // 2) - kind.fraction, kind.exponents // 2))
    return kind, np.array(old, kind.unsigned), np.array(new, kind.unsigned), step


def whole(kind: Kind, numbers: Array) -> list[int]:
    """The places of floats in their order, as integers of any size."""
    return [int(each) for each in ordered(kind, numbers)]


@given(arrays())
@settings(deadline=None)
def test_no_number_is_further_than_half_a_step_from_what_it_was(
    case: tuple[Kind, Array, Array, int],
) -> None:
    kind, old, new, step = case
    made = round_array(kind, old, new, step)
    widths = [int(each) for each in low_widths(kind, old, step)]
    reals = [values(kind, each) for each in (old, new, made)]
    top = int(exponents(kind, np.array([2**kind.bits - 1], kind.unsigned))[0])
    for number, (before, after, found) in enumerate(
        zip(*(whole(kind, each) for each in (old, new, made)), strict=True)
    ):
        ends = [int(exponents(kind, each[number : number + 1])[0]) for each in (old, new, made)]
        if top in ends[:2]:
            assert found == after, "what is no finite number stays"
            continue
        assert ends[2] != top, "no finite number becomes another"
        step_here = 2 ** widths[number]
        if abs(after - before) >= 2 ** (kind.bits - 1):
            assert found == after
        else:
            if found == before:
                snapped = np.abs(reals[1][number] - reals[0][number])
                close = snapped <= 2.0 ** (step - 1) * (1 + 2.0**-3)
                assert close or abs(after - before) * 2 <= step_here
                continue
            assert (found - before) % step_here == 0
            largest = int(exponents(kind, new[number : number + 1])[0]) >= top - 1
            assert abs(found - after) * 2 <= step_here or (
                largest and abs(found - after) < step_here
            )


@given(arrays())
@settings(deadline=None)
def test_rounding_twice_is_rounding_once(case: tuple[Kind, Array, Array, int]) -> None:
    kind, old, new, step = case
    made = round_array(kind, old, new, step)
    assert np.array_equal(round_array(kind, old, made, step), made)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=50).filter(any), st.integers(0, 16))
def test_the_step_is_the_power_of_two_below_the_usual_difference(
    differences: list[float], keep: int
) -> None:
    new = np.array(differences)
    step = usual_step(F64, np.zeros_like(new).view("<u8"), new.view("<u8"), keep)
    root = float(np.abs(new).max()) * float(np.sqrt(np.mean((new / np.abs(new).max()) ** 2)))
    if step is None:
        assert root < 1e-300
        return
    assert 0.49 < root / 2.0 ** (step - 2 + keep) / 2 < 1.01


@pytest.mark.parametrize("kind", FLOATS, ids=lambda each: each.name)
@pytest.mark.parametrize("keep", [0, 1, 4, 16])
def test_every_kind_of_float_is_rounded_as_a_patch_writes_it(kind: Kind, keep: int) -> None:
    content, span = _weights(kind, 20_000)
    old, new = (memoryview(each) for each in content)
    made = memoryview(round_model(old, new, keep_bits=keep, old_spans=[span], new_spans=[span]))
    exact = make_patch(old, new, old_spans=[span], new_spans=[span])
    patch = make_patch(old, made, old_spans=[span], new_spans=[span])
    back = bytearray()
    apply_patch(old, memoryview(patch), back.extend)
    assert back == made
    assert len(patch) <= len(exact)
    if keep == 1:
        assert len(patch) * 8 < 20_000 * 3, "a bit or three for each number"
        assert describe(memoryview(patch)).made("rounded differences") == span.length
    before, after, found = (
        values(kind, np.frombuffer(each, kind.unsigned)) for each in (old, new, made)
    )
    step = float(np.sqrt(np.mean(np.square(after - before)))) * 2.0 ** (2 - keep) * 1.07
    # Where a number grew, its last place is worth more than the old one's, by which it is rounded.
    grown = np.maximum(np.exp2(np.ceil(np.log2(np.abs(after / before)))), 1)
    assert np.all(np.abs(found - after) <= 0.51 * step * grown)


def _change(count: int) -> Array:
    change: Array = np.random.default_rng(4).normal(0, 3e-3, count)
    return change


def _weights(kind: Kind, count: int, deviation: float = 0.1) -> tuple[tuple[bytes, bytes], Span]:
    first = np.random.default_rng(3).normal(0, deviation, count)
    made = []
    for numbers in (first, first + _change(count)):
        if kind == BF16:
            made.append((numbers.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes())
        else:
            made.append(numbers.astype(np.dtype(kind.scalar).newbyteorder("<")).tobytes())
    return (made[0], made[1]), Span("w", 0, len(made[0]), SpanKind(kind.name), (count,))


def test_integers_and_what_comes_of_nothing_stay() -> None:
    rng = np.random.default_rng(5)
    for kind in KINDS:
        span = Span("w", 0, 4096 * kind.size, SpanKind(kind.name), (4096,))
        old, new = (memoryview(rng.bytes(span.length)) for _ in range(2))
        spans = [] if kind.fraction else [span]
        for before in (spans, []):
            made = round_model(old, new, keep_bits=1, old_spans=before, new_spans=[span])
            assert made == new


def test_the_same_model_is_made_on_every_machine() -> None:
    """Written down once: sums of floats would differ in their last bits between processors."""
    found = {}
    for kind in FLOATS:
        (old, new), span = _weights(kind, 3000)
        made = round_model(
            memoryview(old), memoryview(new), keep_bits=2, old_spans=[span], new_spans=[span]
        )
        found[kind.name] = hashlib.sha256(made).hexdigest()[:16]
    assert found == GOLDEN


GOLDEN = {
    "f16": "d9c2a5556c9b58e0",
    "bf16": "8fcee664d6846aea",
    "f32": "7fd83bbc1e156f1c",
    "f64": "3a0b9e8386d62c4d",
}


def test_a_model_of_which_few_numbers_changed_much_is_written_in_steps() -> None:
    """At few bits most differences are none; those that are left still have no low bits."""
    (old, new), span = _weights(F32, 50_000, 2.0)
    views = memoryview(old), memoryview(new)
    made = round_model(*views, keep_bits=0, old_spans=[span], new_spans=[span])
    same = np.frombuffer(made, "<u4") == np.frombuffer(old, "<u4")
    assert same.mean() > 0.75
    patch = make_patch(views[0], memoryview(made), old_spans=[span], new_spans=[span])
    assert len(patch) * 8 < 50_000 * 1.3
