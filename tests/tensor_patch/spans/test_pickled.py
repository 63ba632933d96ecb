"""Where numpy's arrays lie in pickles, which are never loaded."""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from sklearn.ensemble import RandomForestRegressor
from sklearn.preprocessing import StandardScaler

from mlpack.tensor_patch.spans import Kind, pickle_machine
from tests.support import SHARED, require
from tests.tensor_patch.spans.checks import by_name, damaged, sound, values

RANDOM = np.random.default_rng(13)
WEIGHT = RANDOM.standard_normal((30, 4)).astype(np.float32)


class Model:
    """An object with arrays in it, as a framework's are."""

    def __init__(self) -> None:
        self.layers = [{"weight": WEIGHT, "bias": np.arange(40.0)}, {"weight": WEIGHT + 1}]
        self.shared = self.layers[0]
        self.shape = (3, (4, np.ones(70, np.int16)))
        self.itself = self


ARRAYS = {
    "layers.0.weight": WEIGHT,
    "layers.0.bias": np.arange(40.0),
    "layers.1.weight": WEIGHT + 1,
    "shape.1.1": np.ones(70, np.int16),
}


def dumped(value: object, **options: object) -> bytes:
    file = io.BytesIO()
    joblib.dump(value, file, **options)
    return file.getvalue()


def check(content: bytes, arrays: dict[str, npt.NDArray[Any]]) -> None:
    spans = by_name(content)
    assert set(spans) == set(arrays)
    assert all(np.array_equal(values(content, spans[name]), arrays[name]) for name in spans)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_in_a_plain_pickle(protocol: int) -> None:
    check(pickle.dumps(Model(), protocol), ARRAYS)


def test_the_arrays_of_old_protocols_are_texts() -> None:
    assert sound(pickle.dumps(Model(), 2)) == sound(pickle.dumps(Model(), 0)) == ()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_as_joblib_writes_them(protocol: int) -> None:
    check(dumped(Model(), protocol=protocol), ARRAYS)


def test_what_joblib_compressed_is_opaque() -> None:
    assert sound(dumped(Model(), compress=3)) == ()


def test_arrays_in_arrays_of_objects() -> None:
    inner = np.array([WEIGHT, {"bias": np.arange(40.0)}], object)
    content = dumped({"trees": inner, "last": WEIGHT + 1})
    check(
        content,
        {"trees.0": WEIGHT, "trees.1.bias": np.arange(40.0), "last": WEIGHT + 1},
    )


@pytest.mark.parametrize("write", [pickle.dumps, dumped])
@pytest.mark.parametrize(
    ("dtype", "kind", "tail"),
    [
        ("<f2", Kind.F16, ()),
        ("<f8", Kind.F64, ()),
        ("<c8", Kind.F32, (2,)),
        (">f4", Kind.I8, (4,)),
        ("?", Kind.I8, ()),
        ("u1", Kind.I8, ()),
        ("<u2", Kind.I16, ()),
        ("<i4", Kind.I32, ()),
        ("<M8[ns]", Kind.I64, ()),
    ],
)
def test_every_type(write: Any, dtype: str, kind: Kind, tail: tuple[int, ...]) -> None:  # noqa: ANN401
    array = RANDOM.integers(0, 2, (20, 5)).astype(dtype)
    content = write({"a": array})
    (span,) = sound(content)
    assert (span.name, span.kind, span.shape) == ("a", kind, (20, 5, *tail))
    assert content[span.offset : span.offset + span.length] == array.tobytes()


@pytest.mark.parametrize("write", [pickle.dumps, dumped])
def test_in_fortrans_order_the_shape_is_that_of_the_bytes(write: Any) -> None:  # noqa: ANN401
    content = write({"a": np.asfortranarray(WEIGHT)})
    (span,) = sound(content)
    assert np.array_equal(values(content, span).T, WEIGHT)


@pytest.mark.parametrize("write", [pickle.dumps, dumped])
def test_records_and_texts_are_stepped_over(write: Any) -> None:  # noqa: ANN401
    before = [np.zeros(30, [("x", "<f4"), ("y", "<f8")]), np.zeros(30, "U7"), np.zeros(30, "S5")]
    content = write({"before": before, "a": WEIGHT})
    check(content, {"a": WEIGHT})


def test_models_of_scikit_learn() -> None:
    features = RANDOM.standard_normal((200, 4))
    scaler = StandardScaler().fit(features)
    forest = RandomForestRegressor(5, random_state=0).fit(features, features[:, 0])
    for content in (dumped([scaler, forest]), pickle.dumps([scaler, forest])):
        spans = by_name(content)
        assert np.array_equal(values(content, spans["0.mean_"]), scaler.mean_)
        for place, tree in enumerate(forest.estimators_):
            span = spans[f"1.estimators_.{place}.tree_.values"]
            assert np.array_equal(values(content, span), tree.tree_.value)


@pytest.mark.parametrize("version", ["v1-8f9c2cf", "v2-d526bb8"])
def test_a_real_forest(version: str) -> None:
    path = require(SHARED / "pairs" / "aqi-rf-sklearn-joblib" / f"{version}.joblib")
    spans = by_name(path.read_bytes())
    trees = [spans[f"estimators_.{place}.tree_.values"] for place in range(100)]
    assert {(span.kind, span.shape[1:]) for span in trees} == {(Kind.F64, (1, 1))}


@pytest.mark.parametrize(
    "pair", ["kickflip-sklearn-joblib/v1.joblib", "papertrader-xgb-joblib/v1-f47be64.joblib"]
)
def test_real_pickles_are_sound(pair: str) -> None:
    sound(require(SHARED / "pairs" / pair).read_bytes())


# Damaged and hostile pickles

END = pickle.dumps(WEIGHT, 3)[2:]
"""An array that follows what a test puts before it, whatever that left in the memo."""


def with_array(before: bytes) -> bytes:
    """A pickle of a pair: what a test wants, and an array."""
    return b"\x80\x04" + before + END[:-1] + b"\x86."


def test_nothing_is_imported_or_called(tmp_path: Any) -> None:  # noqa: ANN401
    mark = tmp_path / "mark"

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(mark), "w"))

    content = pickle.dumps([Hostile(), WEIGHT])
    check(content, {"1": WEIGHT})
    assert not mark.exists()
    assert len(sound(with_array(b"cno_such_module\nat_all\n)R"))) == 1


@pytest.mark.parametrize(
    "before",
    [
        b"(lp0\n",
        b"(dp0\n",
        b"(S'key'\nI1\nd",
        b"(I1\nI01\nL12345678901234567890123L\nV\xe4\nF1.5\nl",
        b"(cos\nsystem\nS'x'\no",
        b"(S'x'\nios\nsystem\n",
        b"cos\nsystem\n)}\x92",
        b"N2a",
        b"]p0\ng0\na",
        b"(K\x01K\x021N",
        b"(0N",
        b"\x8f(K\x01\x90",
        b"(K\x01\x91",
        b"\x82\x01",
        b"Psome name\n",
        b"K\x01Q",
        b"N}b",
        b"\x97\x98",
        b"NN\x86NNN\x87\x86",
        b"U\x03abcT\x03\x00\x00\x00abc\x86",
        b"G?\xf8\0\0\0\0\0\0",
        b"\x8a\x09123456789",
        b"NK\x01\x93",
    ],
)
def test_every_instruction_is_known(before: bytes) -> None:
    (span,) = sound(with_array(before))
    assert span.shape == WEIGHT.shape


@pytest.mark.parametrize(
    "before",
    [
        b"0",
        b"a",
        b"N(a",
        b"(N0001",
        b"t",
        b"1",
        b"\x85",
        b"R",
        b"b",
        b"\x93",
        b"h\x07",
        b"j\xff\xff\xff\xff",
        b"g7\n",
        b"(Nd",
        b"}(Nu",
        b"\xff",
        b"\x00",
        b"X\xff\xff\xff\xff",
        b"T\xff\xff\xff\xff",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
        b"I" + b"1" * 5000 + b"\n",
        b"cno newline",
        b".",
    ],
)
def test_a_broken_pickle_is_opaque(before: bytes) -> None:
    assert sound(with_array(before)) == ()


def test_objects_in_objects_are_looked_into_so_far() -> None:
    for depth, found in ((50, 1), (200, 0), (20_000, 0)):
        wrapped = b"\x80\x04" + END[:-1] + b"\x85" * depth + b"."
        assert len(sound(wrapped)) == found
        lists = b"\x80\x04" + b"]" * depth + END[:-1] + b"a" * depth + b"."
        assert len(sound(lists)) == found


def test_a_thousand_millions_of_ways_to_one_array_are_one() -> None:
    doubled = b"\x80\x04" + END[:-1] + b"2\x86" * 60 + b"."
    assert len(sound(doubled)) == 1


def test_instructions_end_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_INSTRUCTIONS", 1000)
    assert len(sound(with_array(b"N0" * 400 + b"N"))) == 1
    assert sound(with_array(b"N0" * 500 + b"N")) == ()


def nested(depth: int) -> bytes:
    """joblib writes an array of objects as a pickle within; its reader takes any pickle there."""
    wrapper = dumped(np.array([None], object))
    before, content = wrapper[: wrapper.index(b"\x80\x05")], dumped(WEIGHT)
    for _ in range(depth):
        content = before + content + b"."
    return content


@pytest.mark.parametrize(("depth", "found"), [(0, 1), (2, 1), (8, 1), (9, 0), (300, 0)])
def test_pickles_in_pickles_end_somewhere(depth: int, found: int) -> None:
    assert len(sound(nested(depth))) == found


def test_a_length_that_is_not_there_is_refused() -> None:
    content = dumped({"a": WEIGHT})
    assert sound(content[: content.index(WEIGHT.tobytes()) + 100]) == ()
    long = content.replace(b"K\x1eK\x04\x86", b"J\xff\xff\xff\x7fK\x04\x86")
    assert long != content
    assert sound(long) == ()
    wide = content.replace(b"\x8c\x02f4", b"\x8c\x02V4")
    assert wide != content
    assert sound(wide) == ()


@given(nps.arrays(nps.array_dtypes() | nps.scalar_dtypes(), nps.array_shapes(max_side=4)))
def test_whatever_numpy_pickles_is_sound(array: npt.NDArray[Any]) -> None:
    sound(pickle.dumps(array))
    sound(dumped(array))


VALID = [
    pickle.dumps(Model(), 4),
    dumped(Model()),
    dumped([np.array([WEIGHT], object), StandardScaler().fit(WEIGHT)]),
]


@given(damaged(VALID))
def test_a_damaged_pickle_is_sound(content: bytes) -> None:
    sound(content)


@given(st.lists(st.integers(0, 255).map(lambda code: struct.pack("B", code))), st.binary())
def test_random_instructions_are_sound(codes: list[bytes], arguments: bytes) -> None:
    sound(b"\x80\x04" + b"".join(codes) + arguments)
    sound(with_array(b"(NK\x01]}" + b"".join(codes)))
