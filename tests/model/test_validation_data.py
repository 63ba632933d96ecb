"""Validation data that fits a model, and what is said of data that does not."""

from __future__ import annotations

import numpy as np
import pytest

from mlpack.model.validation_data import Array, InvalidValidationData, ValidationData
from mlpack.runtime.signature import Signature, Tensor

FLOAT, TEXT = "tensor(float)", "tensor(string)"


def data(**arrays: Array) -> ValidationData:
    return ValidationData(name="check.npz", sha256="", arrays=arrays, labels=None)


def signature(*inputs: Tensor) -> Signature:
    return Signature(inputs, ())


def rows(count: int) -> Array:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


@pytest.mark.parametrize(
    ("first", "count", "sizes"),
    [("N", 70, [32, 32, 6]), (None, 3, [3]), (10, 30, [10, 10, 10])],
)
def test_rows_are_cut_into_batches(first: int | str | None, count: int, sizes: list[int]) -> None:
    found = data(any=rows(count)).fitted(signature(Tensor("x", FLOAT, (first, 4))))
    assert found.rows == count
    assert [len(each["x"]) for each in found.inputs] == sizes
    assert np.array_equal(np.concatenate([each["x"] for each in found.inputs]), rows(count))


def test_inputs_without_rows_are_in_every_batch() -> None:
    takes = signature(Tensor("x", FLOAT, ("N", 4)), Tensor("scale", FLOAT, ()))
    found = data(x=rows(40), scale=np.array(2, np.float32)).fitted(takes)
    assert [float(each["scale"]) for each in found.inputs] == [2, 2]


def test_other_models_get_all_at_once() -> None:
    takes = signature(Tensor("x", FLOAT, (3, 4)), Tensor("y", FLOAT, (2, 4)))
    found = data(x=rows(3), y=rows(2)).fitted(takes)
    assert (found.rows, len(found.inputs)) == (3, 1)


def test_texts_become_objects() -> None:
    found = data(x=np.array(["a", "b"])).fitted(signature(Tensor("x", TEXT, ("N",))))
    assert found.inputs[0]["x"].dtype == object


@pytest.mark.parametrize(
    ("arrays", "inputs", "expected"),
    [
        ({"x": rows(2), "z": rows(2)}, [("x", FLOAT, ("N", 4)), ("y", FLOAT, ("N", 4))], "'y'"),
        ({}, [("x", FLOAT, ("N", 4))], "'x'"),
        (
            {"x": rows(2), "y": rows(2), "z": rows(2)},
            [("x", FLOAT, ("N", 4)), ("y", FLOAT, ("N", 4))],
            "'z'",
        ),
        ({"x": rows(0)}, [("x", FLOAT, ("N", 4))], "empty"),
        ({"x": rows(3)}, [("x", FLOAT, (2, 4))], "3 rows"),
        ({"x": rows(3)}, [("x", FLOAT, ("N", 5))], r"shape \[3, 4\]"),
        ({"x": rows(3).astype("f8")}, [("x", FLOAT, ("N", 4))], "float64"),
        ({"x": rows(3)}, [("x", "seq(tensor(float))", ("N", 4))], "no array"),
    ],
)
def test_what_does_not_fit_is_said(
    arrays: dict[str, Array], inputs: list[tuple[str, str, tuple[int | str, ...]]], expected: str
) -> None:
    takes = signature(*(Tensor(*each) for each in inputs))
    with pytest.raises(InvalidValidationData, match=expected) as caught:
        data(**arrays).fitted(takes)
    assert str(caught.value).startswith("check.npz: ")
