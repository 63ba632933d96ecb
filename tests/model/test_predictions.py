"""Answers for many rows, as one table."""

from __future__ import annotations

import pytest

from mlpack.model.predictions import columns, predictions, written


@pytest.mark.parametrize(
    ("document", "rows", "expected"),
    [
        ({"result": [1.5, 2.5]}, 2, [{"result": 1.5}, {"result": 2.5}]),
        ({"result": [[1.5], [2.5]]}, 2, [{"result": 1.5}, {"result": 2.5}]),
        ({"result": [[1, 2], [3, 4]]}, 2, [{"result[0]": a, "result[1]": a + 1} for a in (1, 3)]),
        (
            {"result": {"label": ["a"], "p": [{"a": 0.9, "b": 0.1}]}},
            1,
            [{"label": "a", "p.a": 0.9, "p.b": 0.1}],
        ),
        ({"result": [{"fault": "0"}, {"fault": "1"}]}, 2, [{"fault": "0"}, {"fault": "1"}]),
        ({"fault": "0", "time": 3}, 1, [{"fault": "0"}]),
        ({"result": [[[1, 2], [3, 4]]]}, 1, [{"result": [[1, 2], [3, 4]]}]),
        # An output that is not the rows' is said of each.
        ({"result": {"y": [1, 2], "mean": 1.5}}, 2, [{"y": 1, "mean": 1.5}, {"y": 2, "mean": 1.5}]),
        ("words", 1, [{"result": "words"}]),
        (None, 1, [{"result": None}]),
        ({}, 2, [{}, {}]),
    ],
)
def test_rows_get_their_parts(document: object, rows: int, expected: list[object]) -> None:
    assert predictions(document, rows) == expected


def test_columns_are_in_the_order_in_which_they_come() -> None:
    assert columns([{"b": 1}, {"a": 2, "b": 3}]) == ("b", "a")
    assert written(True) == "true"
