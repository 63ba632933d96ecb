"""Patches: lossless whatever the files hold, small where they can be, the same every time."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import bsdiff4
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpack.delta import make_patch
from mlpack.delta.spans import Span
from mlpack.delta.spans.span import Kind
from mlpack.runtime.patch import container
from mlpack.runtime.patch.arrays import F32, Array, exponents, ordered, unordered
from mlpack.runtime.patch.container import read_header
from mlpack.runtime.patch.program import ARRAY, COPY, ROUNDED, Operation, read_program
from tests.delta.files import Change, Pair, applied, pair, sparse, trained, unrelated
from tests.support import require

PAIRS = Path(__file__).resolve().parents[3] / "shared/data/pairs"


def made(of: Pair) -> bytes:
    patch = make_patch(
        memoryview(of.old), memoryview(of.new), old_spans=of.old_spans, new_spans=of.new_spans
    )
    assert applied(of.old, patch) == of.new
    return patch


def program(patch: bytes) -> list[Operation]:
    header = read_header(memoryview(patch))
    part = header.parts[0]
    assert part.stream == container.PROGRAM
    end = header.length + part.stored
    stream = container.Stream([(part, memoryview(patch)[header.length : end])], memoryview(b""))
    return read_program(stream.read(part.size), header.old_size, header.new_size)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("change", [trained, sparse, unrelated])
def test_every_kind_of_numbers_and_of_change(kind: Kind, change: Change) -> None:
    of = pair(change, kind)
    assert len(made(of)) < len(of.new) + 200


def test_a_trained_model_is_far_smaller_than_its_weights() -> None:
    of = pair(trained, shape=(128, 64, 3, 3), arrays=2)
    assert len(made(of)) < 0.56 * len(of.new)
    assert all(each.form and each.form.delta for each in program(made(of)) if each.code == ARRAY)


def test_weights_that_decay_are_scaled() -> None:
    of = pair(lambda values, _: values * 0.9993, shape=(64, 64))
    scales = [each.form.scale for each in program(made(of)) if each.form]
    assert scales == pytest.approx([0.9993] * 3, abs=1e-5)
    assert len(made(of)) < 0.1 * len(of.new)


def test_only_what_changed_is_written_where_little_did() -> None:
    of = pair(sparse, shape=(512, 512), arrays=1)
    steps = program(made(of))
    assert any(each.form and each.form.masked for each in steps)


def moved_in_steps(old: Array, random: np.random.Generator, step: int) -> Array:
    """Floats (their bits) moved by a few times 2**step, in units as wide as that at 2**-127."""
    widths = np.clip(step - exponents(F32, old).astype(int), 0, F32.widest)
    moves = np.rint(random.normal(0, 2, old.shape)).astype(np.int64) << widths
    return unordered(F32, ordered(F32, old) + moves.astype("<u4"))


def one_array(old: Array, new: Array) -> Pair:
    span = Span("w", 0, old.nbytes, Kind.F32, old.shape)
    return Pair(old.tobytes(), new.tobytes(), (span,), (span,))


def test_a_rounded_model_s_differences_are_steps() -> None:
    random = np.random.default_rng(2)
    old = random.normal(0, 0.5, 50_000).astype("<f4").view("<u4")
    exact = made(one_array(old, moved_in_steps(old, random, 0)))
    of = one_array(old, moved_in_steps(old, random, 140))
    assert {each.code for each in program(made(of))} == {ROUNDED}
    assert len(made(of)) < len(old) / 2, "less than four bits a number"
    assert len(exact) < len(old), "differences of a few units are small by themselves"


def test_one_number_that_is_no_step_is_not_lost() -> None:
    """Whether differences are steps is asked of all numbers, not of a sample."""
    random = np.random.default_rng(3)
    old = random.normal(0, 0.5, 300_000).astype("<f4").view("<u4")
    new = moved_in_steps(old, random, 140)
    assert {each.code for each in program(made(one_array(old, new)))} == {ROUNDED}
    new[123_457] += 1
    assert ROUNDED not in {each.code for each in program(made(one_array(old, new)))}


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
    assert [each.code for each in program(patch)].count(COPY) >= 3


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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=3000), st.binary(max_size=3000), st.data())
def test_any_files_with_any_spans(old: bytes, new: bytes, data: st.DataObject) -> None:
    """Spans are hints: whatever they say, the patch makes the new file."""

    def spans(content: bytes) -> tuple[Span, ...]:
        kind = data.draw(st.sampled_from(list(Kind)))
        at = data.draw(st.integers(0, len(content)))
        count = (len(content) - at) // kind.width
        return (Span("w", at, count * kind.width, kind, (count,)),) if count else ()

    made(Pair(old, new, spans(old), spans(new)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@pytest.mark.parametrize(
    ("folder", "old", "new"),
    [
        ("yunet-n-320-onnx", "v1-7985249d0.onnx", "v2-2b5e61dee.onnx"),
        ("kickflip-sklearn-joblib", "v1.joblib", "v2.joblib"),
        ("esphome-okay-nabu-v2-tflite", "v1.tflite", "v2.tflite"),
        ("papertrader-xgb-json", "v1-f47be64.json", "v2-d778892.json"),
        ("rfb320-mnn-int8", "v2-int8-KL.mnn", "v3-int8-ADMM.mnn"),
        ("silero-vad-16k-onnx", "v1.onnx", "v2.onnx"),
    ],
)
def test_real_versions_are_never_larger_than_the_best_peer(folder: str, old: str, new: str) -> None:
    before, after = (require(PAIRS / folder / each).read_bytes() for each in (old, new))
    patch = make_patch(memoryview(before), memoryview(after))
    assert applied(before, patch) == after
    assert len(patch) <= 1.01 * min(peers(before, after).values()) + 200


def test_floats_in_a_file_of_no_known_format_are_found_by_trying() -> None:
    random = np.random.default_rng(6)
    old = random.normal(0, 0.1, 100_000).astype("<f4")
    new = (old + random.normal(0, 1e-5, old.size)).astype("<f4")
    head = random.bytes(1024)
    of = Pair(head + old.tobytes(), head + new.tobytes(), (), ())
    assert len(made(of)) < 0.5 * len(of.new)
    assert len(made(of)) < 0.9 * min(peers(of.old, of.new).values())
