"""What a module's answer says, for people."""

from __future__ import annotations

import pytest

from mlpack.model.answer import CLASSES, FAULTS, Meaning, meaning, shown


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"fault": "none", "probability": 0.25}, Meaning(FAULTS, (("none", "25.0 %"),))),
        ({"fault": "bearing", "probability": True}, Meaning(FAULTS, (("bearing", ""),))),
        (
            {"result": [{"fault": "none", "probability": 1}, {"fault": "bearing"}]},
            Meaning(FAULTS, (("none", "100.0 %"), ("bearing", ""))),
        ),
        (
            {"top": [{"label": "pug", "probability": 0.9}, {"label": "cat", "probability": 0}]},
            Meaning(CLASSES, (("pug", "90.0 %"), ("cat", "0.0 %"))),
        ),
        (
            {"result": [0.1, 0.7, 0.2]},
            Meaning(
                CLASSES, (("number 1", "70.0 %"), ("number 2", "20.0 %"), ("number 0", "10.0 %"))
            ),
        ),
        (
            {"result": {"label": ["pro"], "p": [{"free": 0.25, "pro": 0.75}]}},
            Meaning(CLASSES, (("pro", "75.0 %"), ("free", "25.0 %"))),
        ),
        (
            {"result": {"label": [7], "probabilities": [[0.25, 0.75]]}},
            Meaning(CLASSES, (("number 1", "75.0 %"), ("number 0", "25.0 %")), "7"),
        ),
        (
            {"result": {"label": ["leaves"], "probabilities": [[0.25, 0.75]]}},
            Meaning(CLASSES, (("number 1", "75.0 %"), ("number 0", "25.0 %")), "leaves"),
        ),
        (
            {"result": [[0.25, 0.75]]},
            Meaning(CLASSES, (("number 1", "75.0 %"), ("number 0", "25.0 %"))),
        ),
        ({"result": [[0.25, 0.75], [0.5, 0.5]]}, None),
        ({"result": {"a": [1], "b": [[2.0]]}}, None),
        ([0.5, 0.5], None),
        ({}, None),
        ({"result": [1.0]}, None),
        ({"result": [0.5, 0.6]}, None),
        ({"result": [float("nan"), 1.0]}, None),
        ({"result": [-1.0, 2.0]}, None),
        ({"result": [True, False]}, None),
        ({"top": [{"label": "pug"}]}, None),
        ({"top": ["pug"]}, None),
    ],
    ids=str,
)
def test_classes_and_faults_are_found(document: object, expected: Meaning | None) -> None:
    assert meaning(document) == expected


def test_the_five_most_probable_classes_are_named() -> None:
    found = meaning({"result": [0.04] * 24 + [0.04]})
    assert found is not None
    assert [name for name, _ in found.rows] == [f"number {each}" for each in range(5)]


def test_a_long_answer_is_cut() -> None:
    assert shown({"größe": 1}) == '{"größe": 1}'
    cut = shown(["x" * 500])
    assert len(cut) < 250
    assert "504 characters" in cut
