"""What two models' answers have in common: numbers, decisions, labels, and the bounds on them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlpack.tensor_patch.output_comparison import Agreement, Array, Bounds, NotComparable, compare

SCORES = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.5, 0.5]], np.float32)
CLASSES = np.array([1, 0, 0, 0])


def agreed(one: Array, other: Array, labels: Array | None = None) -> Agreement:
    return compare([{"y": one}], [{"y": other}], labels)


def test_the_same_answers_agree() -> None:
    found = agreed(SCORES, SCORES.copy(), CLASSES)
    assert found == Agreement(
        max_error=0.0, agreement=1.0, exact_accuracy=1.0, rounded_accuracy=1.0
    )


def test_errors_decisions_and_labels_are_counted_over_all_batches_and_outputs() -> None:
    other = SCORES + np.array([[0, 0], [0, 0.7], [0, 0], [0, 0]], np.float32)
    extra = np.zeros((4, 1), np.float32)
    exact = [{"y": SCORES[:2], "z": extra[:2]}, {"y": SCORES[2:], "z": extra[2:]}]
    rounded = [{"y": other[:2], "z": extra[:2]}, {"y": other[2:], "z": extra[2:] - 3}]
    found = compare(exact, rounded, CLASSES.reshape(4, 1))
    assert found.max_error == 3
    assert (found.agreement, found.exact_accuracy, found.rounded_accuracy) == (0.75, 1.0, 0.75)


@pytest.mark.parametrize(
    ("one", "other", "error"),
    [
        ([1.0, math.inf], [1.5, math.inf], 0.5),
        ([1.0, math.inf], [1.0, -math.inf], math.inf),
        ([1.0, 0.0], [1.0, math.nan], math.inf),
        ([1.0, math.nan], [1.0, math.nan], math.inf),
        ([1.0, 2.0], [[1.0, 2.0]], math.inf),
        ([], [], 0.0),
    ],
)
def test_what_is_no_number_is_infinitely_far(
    one: list[float], other: list[float], error: float
) -> None:
    assert agreed(np.array(one), np.array(other)).max_error == error


def test_integers_and_texts_are_decisions_where_no_output_has_classes() -> None:
    labels = np.array([3, 5], np.int64)
    found = agreed(labels, np.array([3, 7], np.int64))
    assert (found.max_error, found.agreement) == (2, 0.5)
    texts = np.array(["ok", "fault"], object)
    found = agreed(texts, np.array(["ok", "ok"], object), np.array(["ok", "fault"]))
    assert (found.max_error, found.agreement, found.rounded_accuracy) == (math.inf, 0.5, 0.5)
    assert agreed(np.zeros((3, 1), np.float32), np.ones((3, 1), np.float32)).agreement is None


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(NotComparable, match="3 labels for 4 decisions"):
        agreed(SCORES, SCORES, CLASSES[:3])
    with pytest.raises(NotComparable, match="no output that is a decision"):
        agreed(SCORES[:, :1], SCORES[:, :1], CLASSES)
    with pytest.raises(NotComparable, match="not the same"):
        compare([{"y": SCORES}], [{"z": SCORES}])
    with pytest.raises(NotComparable, match="batches"):
        compare([{"y": SCORES}], [])


@pytest.mark.parametrize(
    ("bounds", "broken"),
    [
        (Bounds(), ""),
        (Bounds(max_error=0.02), ""),
        (Bounds(max_error=0.02, min_agreement=0.99), ""),
        (Bounds(max_error=0.019), "0.02, 0.019 is allowed"),
        (Bounds(max_error=1, min_agreement=0.995), "99 % of decisions agree, 99.5 % are required"),
    ],
)
def test_bounds(bounds: Bounds, broken: str) -> None:
    found = Agreement(max_error=0.02, agreement=0.99, exact_accuracy=None, rounded_accuracy=None)
    assert broken in bounds.broken(found)
    assert bool(bounds.broken(found)) == bool(broken)


def test_nothing_to_decide_breaks_a_bound_on_decisions() -> None:
    found = Agreement(
        max_error=math.inf, agreement=None, exact_accuracy=None, rounded_accuracy=None
    )
    assert "no output is a decision" in Bounds(min_agreement=0.5).broken(found)
    assert "inf" in Bounds(max_error=1e308).broken(found)
