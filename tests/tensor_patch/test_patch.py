"""Patches: lossless whatever the files hold, small where they can be, the same every time."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bsdiff4
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlpack.runtime.patch.arrays import F32, KINDS, Array, NumberType, stepped
from mlpack.runtime.patch.program import ARRAY, COPY, MASKED
from mlpack.tensor_patch import Arrays, Effort, estimate, make_patch
from mlpack.tensor_patch.spans import Span
from mlpack.tensor_patch.spans.span import Kind
from mlpack.tensor_patch.steps import values
from tests.runtime.patch.plain import forms, operations
from tests.support import repeats, require
from tests.tensor_patch.files import (
    Change,
    Pair,
    applied,
    by_rows,
    made,
    of_arrays,
    pair,
    rounded,
    sparse,
    stored,
    trained,
    unrelated,
    weights,
)

CHECKOUT = Path(__file__).resolve().parents[2]
DATA = CHECKOUT.parent / "shared/data"
PAIRS = DATA / "pairs"
REPEATED = settings(
    max_examples=repeats(20, 300), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
FLOATS = tuple(each for each in KINDS if each.fraction)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("change", [trained, sparse, unrelated])
def test_every_kind_of_numbers_and_of_change(kind: Kind, change: Change) -> None:
    of = pair(change, kind)
    assert len(made(of)) < len(of.new) + 200


def test_a_trained_model_is_far_smaller_than_its_weights() -> None:
    of = pair(trained, shape=(128, 64, 3, 3), arrays=2)
    assert len(made(of)) < 0.56 * len(of.new)
    assert all(each.form and each.form.delta for each in operations(made(of)) if each.code == ARRAY)


def test_weights_that_decay_are_scaled() -> None:
    of = pair(lambda values, _: values * 0.9993, shape=(64, 64))
    scales = [each.form.scale for each in operations(made(of)) if each.form]
    assert scales == pytest.approx([0.9993] * 3, abs=1e-5)
    assert len(made(of)) < 0.1 * len(of.new)


def test_only_what_changed_is_written_where_little_did() -> None:
    def some_rows(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        moved = values.copy()
        moved[random.choice(len(values), 12, replace=False)] *= 1.01
        return moved

    of = pair(some_rows, shape=(1024, 64), arrays=1)
    assert MASKED in {each.code for each in operations(made(of))}
    assert len(made(of)) < 12 * 64 * 4


def moved_in_steps(old: Array, random: np.random.Generator, step: int) -> Array:
    """Floats (their bits) moved by a few times 2**step."""
    return stepped(F32, old, np.rint(random.normal(0, 2, old.shape)).astype("<i4"), step)


def steps_of(patch: bytes) -> set[int | None]:
    return {each.step for each in forms(patch)}


def test_a_rounded_model_s_differences_are_steps() -> None:
    random = np.random.default_rng(2)
    old = random.normal(0, 0.5, 50_000).astype("<f4").view("<u4")
    of = of_arrays(F32, old, moved_in_steps(old, random, -10))
    assert steps_of(made(of)) == {-10}
    assert len(made(of)) < len(old) / 2, "less than four bits a number"


def test_one_number_that_is_no_step_is_not_lost() -> None:
    """Whether differences are steps is a question to all numbers, not to a sample."""
    random = np.random.default_rng(3)
    old = random.normal(0, 0.5, 300_000).astype("<f4").view("<u4")
    new = moved_in_steps(old, random, -10)
    assert steps_of(made(of_arrays(F32, old, new))) == {-10}
    new[123_457] += 1
    assert steps_of(made(of_arrays(F32, old, new))) != {-10}


def test_estimates_are_near_what_patches_take() -> None:
    of = pair(trained, shape=(128, 64, 3, 3), arrays=2)
    arrays = Arrays(of.old_spans, of.new_spans)
    found = estimate(memoryview(of.old), memoryview(of.new), arrays)
    assert found.patch == pytest.approx(len(made(of)), rel=0.2)
    packed = len(made(Pair(b"", of.new, (), of.new_spans)))
    assert found.packed == pytest.approx(packed, rel=0.2)


@pytest.mark.parametrize("kind", list(Kind))
def test_rows_that_moved_differently_have_a_table(kind: Kind) -> None:
    """Tables over axes, over exponents, and none give the same file; a table pays."""
    of = pair(by_rows, kind, (64, 256), arrays=1)
    found = forms(made(of))
    assert not found or found[0].kind.name == kind.value
    if kind in (Kind.F32, Kind.F64):
        before, after = (replace(each[0], shape=()) for each in (of.old_spans, of.new_spans))
        flat = replace(of, old_spans=(before,), new_spans=(after,))
        assert found[0].factors
        assert len(made(of)) < len(made(flat))


@pytest.mark.parametrize("kind", FLOATS, ids=lambda each: each.name)
def test_numbers_that_moved_by_a_share_of_themselves_have_a_table_of_exponents(
    kind: NumberType,
) -> None:
    old = weights(kind, 20_000)
    moves = np.random.default_rng(5).normal(1, 2.0 ** (2 - kind.fraction // 2), len(old))
    new = stored(values(kind, old) * moves, Kind(kind.name))
    [found] = forms(made(of_arrays(kind, old, np.frombuffer(new, kind.unsigned))))
    assert found.exponents


@pytest.mark.parametrize("rank", [2, 9, 12])
def test_arrays_of_any_rank_have_no_more_tables_than_are_read(rank: int) -> None:
    random = np.random.default_rng(rank)
    shape = (2,) * (rank - 1) + (600,)
    moves = np.ones(shape)
    for axis in range(rank - 1):
        place = [1] * rank
        place[axis] = 2
        moves = moves * np.array([1.0, 8.0]).reshape(place)
    old = random.normal(0, 0.5, shape).astype("<f4")
    new = (old + random.normal(0, 1e-7, shape) * moves).astype("<f4")
    of = of_arrays(F32, old.view("<u4"), new.view("<u4"))
    assert made(of)


SPECIAL_STEPS = (0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 2.0**-14, -(2.0**-14), 0.75, -1.5)


@pytest.mark.parametrize("kind", FLOATS, ids=lambda each: each.name)
@pytest.mark.parametrize("step", [-24, -10, -3, 0, 3])
def test_rounded_arrays_of_every_kind_keep_what_is_not_finite(kind: NumberType, step: int) -> None:
    of = rounded(kind, 6000, step)
    old, new = (np.frombuffer(each, kind.unsigned).copy() for each in (of.old, of.new))
    special = np.frombuffer(stored(np.array(SPECIAL_STEPS), Kind(kind.name)), kind.unsigned)
    old[: len(special)] = new[: len(special)] = special
    # The sum of x and -x is 0; no step makes it -0.
    new[100:110] = 0
    made(of_arrays(kind, old, new))
    other = new.copy()
    other[200:203] = special[1:4]
    made(of_arrays(kind, old, other))


@pytest.mark.parametrize("kind", FLOATS, ids=lambda each: each.name)
def test_rounded_arrays_of_every_kind_are_coded_in_steps(kind: NumberType) -> None:
    of = rounded(kind, 20_000, -6)
    old, new = (np.frombuffer(each, kind.unsigned).copy() for each in (of.old, of.new))
    special = np.frombuffer(stored(np.array(SPECIAL_STEPS), Kind(kind.name)), kind.unsigned)
    old[500 : 500 + len(special)] = new[500 : 500 + len(special)] = special
    patch = made(of_arrays(kind, old, new))
    assert steps_of(patch) == {-6}
    assert len(patch) * 8 < 4 * len(old), "less than four bits a number"


def test_a_new_head_costs_the_head_only() -> None:
    of = pair(lambda values, _: values, arrays=4)
    head = of.new_spans[-1]
    content = bytearray(of.new)
    random = np.random.default_rng(5)
    numbers = random.normal(0, 0.5, head.length // 4).astype("<f4").tobytes()
    content[head.offset : head.offset + head.length] = numbers
    patch = made(replace(of, new=bytes(content)))
    assert len(patch) < head.length + 300


def test_renamed_and_moved_arrays_are_found_by_content() -> None:
    of = pair(lambda values, _: values, arrays=3)
    pieces = [of.new[each.offset : each.offset + each.length] for each in of.new_spans]
    content, spans = b"moved", []
    for place, piece in enumerate(reversed(pieces)):
        spans.append(Span(f"other{place}", len(content), len(piece), Kind.F32, (32, 16, 3, 3)))
        content += piece
    patch = made(Pair(of.old, content, of.old_spans, tuple(spans)))
    assert len(patch) < 300
    assert [each.code for each in operations(patch)].count(COPY) >= 3


def test_renamed_arrays_that_changed_are_found_by_likeness() -> None:
    of = pair(trained, arrays=3)
    shuffled = {"w0": "w1", "w1": "w2", "w2": "w0"}
    spans = tuple(replace(each, name=shuffled[each.name]) for each in of.new_spans)
    assert len(made(replace(of, new_spans=spans))) < 1.05 * len(made(of))


def test_a_table_that_grew_is_paired_as_far_as_it_goes() -> None:
    random = np.random.default_rng(4)
    old = random.normal(0, 1, (100, 64)).astype("<f4")
    new = np.concatenate([old, random.normal(0, 1, (3, 64)).astype("<f4")])
    of = Pair(
        old.tobytes(),
        new.tobytes(),
        (Span("words", 0, old.nbytes, Kind.F32, old.shape),),
        (Span("words", 0, new.nbytes, Kind.F32, new.shape),),
    )
    assert len(made(of)) < 3 * 64 * 4 + 300


SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1.1754944e-38, 3.4e38, -3.4e38, 1.0)


def test_numbers_that_are_none_and_those_at_the_ends() -> None:
    old = np.resize(np.array(SPECIAL, "<f4"), 4096)
    new = np.roll(old, 7)
    payload = struct.unpack("<f", struct.pack("<I", 0x7FC12345))[0]
    new[100] = payload
    span = Span("w", 0, old.nbytes, Kind.F32, old.shape)
    made(Pair(old.tobytes(), new.tobytes(), (span,), (span,)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"", b"new"),
        (b"old", b""),
        (b"same" * 100, b"same" * 100),
        (bytes(100_000), bytes(100_001)),
        (b"x", bytes(range(256)) * 50),
    ],
)
def test_files_without_arrays(old: bytes, new: bytes) -> None:
    patch = made(Pair(old, new, (), ()))
    assert len(patch) < len(new) + 150


@settings(
    max_examples=repeats(20, 300), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.binary(max_size=3000), st.binary(max_size=3000), st.data())
def test_any_files_with_any_spans(old: bytes, new: bytes, data: st.DataObject) -> None:
    """Spans are hints: whatever they say, the patch makes the new file."""

    def spans(content: bytes) -> tuple[Span, ...]:
        kind = data.draw(st.sampled_from(list(Kind)))
        at = data.draw(st.integers(0, len(content)))
        count = (len(content) - at) // kind.width
        return (Span("w", at, count * kind.width, kind, (count,)),) if count else ()

    made(Pair(old, new, spans(old), spans(new)))


@settings(
    max_examples=repeats(20, 300), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.sampled_from(list(Kind)), st.data())
def test_any_bits_of_numbers(kind: Kind, data: st.DataObject) -> None:
    """NaN of any payload, subnormal numbers, any jump between two versions."""
    count = data.draw(st.integers(1, 300))
    width = kind.width
    old = data.draw(st.binary(min_size=count * width, max_size=count * width))
    moves = data.draw(st.lists(st.integers(0, count * width - 1), max_size=20))
    new = bytearray(old)
    for each in moves:
        new[each] = (new[each] + data.draw(st.integers(0, 255))) % 256
    span = Span("w", 0, len(old), kind, (count,))
    made(Pair(old, bytes(new), (span,), (span,)))


def test_the_same_files_give_the_same_patch() -> None:
    of = pair(trained)
    again = Pair(bytes(bytearray(of.old)), bytes(bytearray(of.new)), of.old_spans, of.new_spans)
    assert made(of) == made(again)


_DIGESTS = """
import hashlib
from mlpack.tensor_patch import Effort
from mlpack.tensor_patch.spans import Kind
from tests.runtime.patch.fuzz import FLOATS
from tests.tensor_patch.files import *
pairs = [pair(trained, kind, (64, 40), 2) for kind in Kind] + [rounded(kind) for kind in FLOATS]
pairs.append(pair(sparse, shape=(512, 64)))
for of in pairs:
    for effort in Effort:
        print(hashlib.sha256(made(of, effort)).hexdigest())
"""


def test_processes_of_other_seeds_and_threads_give_the_same_patches() -> None:
    found = []
    for seed, threads in ((1, 1), (2, 8)):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(seed),
            "OMP_NUM_THREADS": str(threads),
            "RAYON_NUM_THREADS": str(threads),
        }
        done = subprocess.run(
            [sys.executable, "-c", _DIGESTS],
            cwd=CHECKOUT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(done.stdout)
    assert found[0] == found[1]
    assert len(found[0].split()) == 3 * 13


def peers(old: bytes, new: bytes) -> dict[str, int]:
    """What others take for the same pair, in this process."""
    held = zstandard.ZstdCompressionDict(old, zstandard.DICT_TYPE_RAWCONTENT)
    window = (len(old) + len(new)).bit_length()
    chosen = zstandard.ZstdCompressionParameters.from_level(19, window_log=window)
    out = io.BytesIO()
    bsdiff4.format.write_patch(out, len(new), *bsdiff4.core.diff(old, new))
    return {
        "zstd": len(zstandard.compress(new, 19)),
        "zstd --patch-from": len(
            zstandard.ZstdCompressor(dict_data=held, compression_params=chosen).compress(new)
        ),
        "bsdiff": len(out.getvalue()),
    }


REAL = (
    ("yunet-n-320-onnx", "v1-7985249d0.onnx", "v2-2b5e61dee.onnx"),
    ("kickflip-sklearn-joblib", "v1.joblib", "v2.joblib"),
    ("esphome-okay-nabu-v2-tflite", "v1.tflite", "v2.tflite"),
    ("papertrader-xgb-json", "v1-f47be64.json", "v2-d778892.json"),
    ("rfb320-mnn-int8", "v2-int8-KL.mnn", "v3-int8-ADMM.mnn"),
    ("silero-vad-16k-onnx", "v1.onnx", "v2.onnx"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "old", "new"), REAL)
def test_real_versions_are_never_larger_than_the_best_peer(folder: str, old: str, new: str) -> None:
    before, after = (require(PAIRS / folder / each).read_bytes() for each in (old, new))
    patch = make_patch(memoryview(before), memoryview(after))
    assert applied(before, patch) == after
    assert len(patch) <= 1.01 * min(peers(before, after).values()) + 150


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "old", "new"), REAL)
@pytest.mark.parametrize("packed", [False, True])
def test_more_effort_makes_no_larger_patch_of_real_versions(
    folder: str, old: str, new: str, *, packed: bool
) -> None:
    before, after = (require(PAIRS / folder / each).read_bytes() for each in (old, new))
    before = b"" if packed else before
    length = {}
    for effort in Effort:
        patch = make_patch(memoryview(before), memoryview(after), effort=effort)
        assert applied(before, patch) == after
        length[effort] = len(patch)
    assert length[Effort.MAX] <= length[Effort.DEFAULT] <= 1.05 * length[Effort.FAST]


def real_files() -> list[Path]:
    folders = (DATA / "onnx-zoo", *sorted(PAIRS.glob("*")))
    return [each for folder in folders for each in sorted(folder.glob("*")) if each.suffix != ".md"]


@pytest.mark.slow
@pytest.mark.parametrize("path", real_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_packed_models_are_never_larger_than_by_gzip(path: Path) -> None:
    content = path.read_bytes()
    patch = make_patch(memoryview(b""), memoryview(content))
    assert applied(b"", patch) == content
    assert len(patch) <= len(gzip.compress(content, 9)) + 200


def test_floats_in_a_file_of_no_known_format_are_found_by_trying() -> None:
    random = np.random.default_rng(6)
    old = random.normal(0, 0.1, 100_000).astype("<f4")
    new = (old + random.normal(0, 1e-5, old.size)).astype("<f4")
    head = random.bytes(1024)
    of = Pair(head + old.tobytes(), head + new.tobytes(), (), ())
    assert len(made(of)) < 0.5 * len(of.new)
    assert len(made(of)) < 0.9 * min(peers(of.old, of.new).values())


@pytest.mark.slow
def test_more_numbers_of_like_size_than_pcodec_takes_at_once() -> None:
    random = np.random.default_rng(8)
    old = random.integers(-100, 100, (1 << 24) + 70_000, dtype="<i2")
    new = old + random.integers(-3, 4, old.size, dtype="<i2")
    span = Span("w", 0, old.nbytes, Kind.I16, old.shape)
    patch = made(Pair(old.tobytes(), new.tobytes(), (span,), (span,)), Effort.FAST)
    assert len(patch) < 0.2 * new.nbytes


@pytest.mark.slow
def test_long_texts_that_changed_a_little_find_what_they_repeat() -> None:
    random = np.random.default_rng(9)
    numbers = random.random(600_000)
    old = " ".join(f"{each:.6f}" for each in numbers).encode()
    numbers[::60] = random.random(10_000)
    new = " ".join(f"{each:.6f}" for each in numbers).encode()
    patch = made(Pair(b"one" * 999 + old, new, (), ()))
    assert len(patch) < 0.03 * len(new)
