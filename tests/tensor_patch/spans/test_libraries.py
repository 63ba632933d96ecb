"""Where the arrays of files that other libraries wrote lie: HDF5, GGUF, CatBoost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.tensor_patch.spans import Kind, binary
from tests.tensor_patch.spans.checks import by_name, damaged, sound, values

MADE = Path(__file__).parent / "made"
FILES = {path.name: path.read_bytes() for path in sorted(MADE.iterdir()) if path.suffix != ".md"}


def counted(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.arange(float(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize("name", ["earliest.h5", "latest.h5"])
def test_datasets_have_their_paths(name: str) -> None:
    content = FILES[name]
    spans = by_name(content)
    for place in range(3):
        kernel = spans[f"model_weights/dense_{place}/kernel:0"]
        assert (kernel.kind, kernel.shape) == (Kind.F32, (8, 4))
        assert np.array_equal(values(content, kernel), counted(8, 4) + place)
        assert np.array_equal(
            values(content, spans[f"model_weights/dense_{place}/bias:0"]), counted(4)
        )
    assert np.array_equal(values(content, spans["half"]), counted(5))
    assert (spans["big"].kind, spans["big"].shape) == (Kind.I8, (3, 2, 4))
    assert not {"packed", "text"} & spans.keys()


def test_chunks_without_compression_are_arrays() -> None:
    content = FILES["earliest.h5"]
    spans = by_name(content)
    first, second = spans["chunked[0,0]"], spans["chunked[4,0]"]
    assert (first.kind, first.shape) == (Kind.F64, (4, 4))
    assert np.array_equal(values(content, first), counted(4, 4))
    assert np.array_equal(values(content, second)[:2], counted(6, 4)[4:])


def test_datasets_of_large_groups_are_found() -> None:
    content = FILES["many.h5"]
    found = [values(content, span) for span in sound(content)]
    assert len(found) == 20
    assert sorted(each[0] for each in found) == list(range(20))


def test_tensors_of_gguf() -> None:
    content = FILES["model.gguf"]
    spans = by_name(content)
    assert np.array_equal(values(content, spans["a.weight"]), counted(4, 8))
    assert np.array_equal(values(content, spans["h"]), counted(3, 5))
    assert (spans["q"].kind, spans["q"].shape) == (Kind.I8, (8, 34))
    assert (spans["bf"].kind, spans["bf"].shape) == (Kind.BF16, (2, 32))


def test_arrays_of_catboost() -> None:
    content = FILES["model.cbm"]
    spans = by_name(content)
    leaves = values(content, spans["leaves"])
    assert leaves.shape == (32,)
    assert leaves[:2] == pytest.approx([-0.51759799, 0.00148855], rel=1e-5)
    assert list(values(content, spans["weights"])[:4]) == [63, 69, 0, 66]
    assert (spans["borders.0"].kind, spans["borders.0"].shape) == (Kind.F32, (10,))
    assert list(values(content, spans["sizes"])) == [3, 3, 3, 3]


@pytest.mark.parametrize("name", FILES)
def test_reading_ends_somewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "MAX_READS", 10)
    monkeypatch.setattr("mlpack.tensor_patch.spans.gguf.MAX_READS", 10)
    assert sound(FILES[name]) == ()


def test_a_group_in_itself_is_read_once() -> None:
    content = bytearray(FILES["earliest.h5"])
    root = int.from_bytes(content[64:72], "little")
    child = content.find(b"SNOD")
    while child >= 0:
        # Every entry leads back to the root.
        for entry in range(int.from_bytes(content[child + 6 : child + 8], "little")):
            at = child + 16 + 40 * entry
            content[at : at + 8] = root.to_bytes(8, "little")
        child = content.find(b"SNOD", child + 1)
    assert sound(bytes(content)) == ()


def test_a_tree_in_itself_is_damaged() -> None:
    content = bytearray(FILES["earliest.h5"])
    at = content.find(b"TREE")
    content[at + 5] = 1
    content[at + 32 : at + 40] = at.to_bytes(8, "little")
    sound(bytes(content))


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_a_damaged_file_is_sound(name: str, data: st.DataObject) -> None:
    sound(data.draw(damaged([FILES[name]])))


@pytest.mark.parametrize("name", FILES)
def test_truncations_are_sound(name: str) -> None:
    for length in range(0, len(FILES[name]), 97):
        sound(FILES[name][:length])
