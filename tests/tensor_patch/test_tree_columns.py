"""Models of trees whose numbers are gathered in columns, and files that join them again."""

from __future__ import annotations

import json
import lzma
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.runtime.patch import BadPatch
from mlpack.runtime.patch.arrays import ArrayForm
from mlpack.runtime.patch.columns import RULES, join
from mlpack.runtime.patch.program import LITERAL, LITERALS, Operation, read_index
from mlpack.tensor_patch import Effort, make_patch
from mlpack.tensor_patch.compression import compress, patch_file, write_index
from mlpack.tensor_patch.spans import Kind, Span
from mlpack.tensor_patch.tree_columns import LEAST, gathered
from tests.support import SHARED
from tests.tensor_patch.files import applied
from tests.tensor_patch.spans.checks import damaged, disjoint

RANDOM = np.random.default_rng(11)


def columns(content: bytes) -> dict[str, Span]:
    """The columns of a file, after checking that it is made again from them."""
    found = gathered(memoryview(content))
    if found is None:
        return {}
    assert b"".join(join(memoryview(found.packed))) == content
    disjoint(found.spans, len(found.packed))
    assert set(found.decimals) <= set(found.spans)
    return {each.name: each for each in found.spans}


def shortest(value: np.float32) -> str:
    """A float as XGBoost writes it (Ryu)."""
    digits, exponent = np.format_float_scientific(value, unique=True, trim="-").split("e")
    return f"{digits}E{int(exponent)}"


def forest(form: str, trees: int = 20, leaves: int = 31) -> str:
    """Trees as JSON whose weights have one form."""
    made = list[str]()
    for _ in range(trees):
        values = RANDOM.normal(0, 10 ** RANDOM.uniform(-8, 8, leaves), leaves)
        write = {"xgboost": lambda each: shortest(np.float32(each))}.get(
            form, lambda each: form % each
        )
        weights = ",".join(map(write, values))
        children = ",".join(map(str, RANDOM.integers(-1, leaves, leaves)))
        made.append(f'{{"id":{len(made)},"left":[{children}],"weights":[{weights}]}}')
    return f'{{"name":"é","trees":[{",".join(made)}],"version":[3,2,0]}}'


@pytest.mark.parametrize(
    ("form", "kinds"),
    [
        ("xgboost", [Kind.F32]),
        ("%.17g", [Kind.F64]),
        ("%r", [Kind.F64]),
        ("%g", [Kind.I32, Kind.I8]),
        ("%.3f", [Kind.I32, Kind.I8]),
        ("%d", [Kind.I32]),
    ],
)
def test_numbers_of_every_form_are_columns(form: str, kinds: list[Kind]) -> None:
    form = form if form != "%r" else "%s"
    found = columns(forest(form).encode())
    assert found["left.0"].kind is Kind.I8
    assert found["left.0"].length == 620
    wide = [each.kind for name, each in found.items() if name.startswith("weights.")]
    if form == "%.3f":  # some numbers have too many digits
        assert wide in ([], kinds)
    else:
        assert wide == kinds


def test_lines_of_lightgbm_are_columns() -> None:
    lines = ["tree", "version=v4"]
    for tree in range(30):
        values = " ".join(f"{each:.17g}" for each in RANDOM.normal(0, 1, 31))
        gains = " ".join(f"{each:g}" for each in RANDOM.gamma(1, 1000, 30))
        lines += [
            f"Tree={tree}",
            f"split_gain={gains}",
            f"leaf_value={values}",
            "shrinkage=0.1",
            "",
        ]
    for before, after in ((b"", b""), (b"\x80\x04\x8e pickled \x81", b"\x94\x85.")):
        found = columns(before + "\n".join(lines).encode() + after)
        assert found["leaf_value.0"].kind is Kind.F64
        assert found["split_gain.0"].shape == (900,)


def ubjson(name: str, kind: str, values: list[float]) -> bytes:
    head = b"L" + struct.pack(">q", len(name)) + name.encode()
    form = {"l": "i", "L": "q", "d": "f", "D": "d", "I": "h"}[kind]
    numbers = struct.pack(f">{len(values)}{form}", *values)
    return head + b"[$" + kind.encode() + b"#L" + struct.pack(">q", len(values)) + numbers


@pytest.mark.parametrize(
    ("kind", "values", "stored"),
    [
        ("l", [3, -1, 5], Kind.I8),
        ("l", [300, -1, 5], Kind.I16),
        ("l", [2**31 - 1, 0, 5], Kind.I32),
        ("L", [2**40, 0, 5], Kind.I64),
        ("I", [1000, 0, 5], Kind.I16),
        ("d", [0.1, float("nan"), -0.0], Kind.F32),
        ("D", [0.1, float("inf"), -0.0], Kind.F64),
    ],
)
def test_arrays_of_ubjson_are_columns(kind: str, values: list[float], stored: Kind) -> None:
    content = b"\x80\x04pickled" + ubjson("weights", kind, values) * LEAST
    found = columns(content + ubjson("few", kind, values))
    assert (found["weights.0"].kind, found["weights.0"].shape) == (stored, (3 * LEAST,))
    assert "few.0" not in found


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[" + b"1," * (LEAST - 2) + b"1]",
        b"[" + b"007," * 100 + b"1]",
        b'{"a":[' + b"9" * 5000 + b",1" * 100 + b"]}",
        b"a" * 100_000,
        RANDOM.bytes(100_000),
    ],
)
def test_other_files_have_no_columns(content: bytes) -> None:
    assert columns(content) == {}


NUMBERS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**70), 2**70)
    | st.floats(width=32, allow_nan=False, allow_infinity=False).map(float)
    | st.sampled_from([0, -0.0, 1, -1, 1e22, 1e-5, 0.0001, 123456])
)


@given(st.dictionaries(st.text(max_size=3), st.lists(NUMBERS, max_size=5)), st.integers(1, 30))
def test_any_json_is_made_again(tree: dict[str, list[float]], times: int) -> None:
    columns(json.dumps([tree] * times).encode())
    columns(json.dumps([tree] * times, separators=(",", ":"), ensure_ascii=False).encode())


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_any_float_of_xgboost_is_made_again(values: list[float]) -> None:
    text = ",".join([shortest(np.float32(each)) for each in values] * LEAST)
    found = columns(f'{{"w":[{text}]}}'.encode())
    assert found["w.0"].kind in (Kind.F32, Kind.I8)


@given(st.data())
def test_damaged_columns_are_refused_or_small(data: st.DataObject) -> None:
    assert PACKED
    content = data.draw(damaged([PACKED.packed]))
    try:
        made = sum(map(len, join(memoryview(content))))
    except ValueError:
        return
    assert made < 200 * len(content)


PACKED = gathered(memoryview(forest("xgboost", 5).encode()))


@pytest.mark.parametrize("old", [b"", forest("%.17g").encode()])
@pytest.mark.parametrize("form", ["xgboost", "%.17g", "%g"])
def test_patches_have_columns_where_they_are_smaller(form: str, old: bytes) -> None:
    new = forest(form).encode()
    patch = make_patch(memoryview(old), memoryview(new))
    assert applied(old, patch) == new
    assert read_index(memoryview(patch))[1].columns
    assert len(patch) < 0.9 * len(lzma.compress(new))
    small = forest(form, trees=1, leaves=3).encode()
    assert applied(old, make_patch(memoryview(old), memoryview(small))) == small


def test_columns_make_no_more_than_the_new_file() -> None:
    assert PACKED
    new = b"".join(join(memoryview(PACKED.packed)))
    literal: list[Operation[ArrayForm]] = [Operation(LITERAL, len(PACKED.packed))]
    parts = [compress(LITERALS, PACKED.packed, Effort.FAST)]
    index = write_index(parts, [], b"", literal)
    bodies = [each.stored for each in parts]
    size = len(PACKED.packed)
    made = patch_file(memoryview(b""), memoryview(new), index, bodies, size)
    assert applied(b"", made) == new
    less = patch_file(memoryview(b""), memoryview(new[:-1]), index, bodies, size)
    with pytest.raises(BadPatch, match="more than"):
        applied(b"", less)
    wrong = patch_file(memoryview(b""), memoryview(new[:10]), index, bodies, size)
    with pytest.raises(BadPatch, match="bytes of columns"):
        applied(b"", wrong)


def test_rules_keep_their_numbers() -> None:
    # Patches name them.
    assert [len(each.forms) for each in RULES] == [1] * 7 + [2] + [1] * 11


@pytest.mark.parametrize("folder", ["papertrader-xgb-json", "papertrader-xgb-joblib"])
def test_real_models(folder: str) -> None:
    files = [path for path in sorted((SHARED / "pairs" / folder).glob("v*")) if path.is_file()]
    if not files:
        pytest.skip("no models here")
    for path in files:
        found = columns(path.read_bytes())
        assert found["base_weights.0"].kind is Kind.F32
        assert found["left_children.0"].kind in (Kind.I8, Kind.I16)
