"""A module's answers for many rows, as one table: a row of predictions for each row given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

Cells = Mapping[str, object]

_RESULT = "result"
_TIMES = ("time",)
"""Members of an answer that say nothing about its row."""


def predictions(document: object, rows: int) -> list[Cells]:
    """Return the cells of each of a request's ``rows``, from the answer to it.

    >>> predictions({"result": {"label": ["a", "b"], "p": [[0.9, 0.1], [0.2, 0.8]]}}, 2)[1]
    {'label': 'b', 'p[0]': 0.2, 'p[1]': 0.8}
    >>> predictions({"fault": "0", "probability": 0.1, "time": 0.2}, 1)
    [{'fault': '0', 'probability': 0.1}]
    """
    result = document
    if isinstance(document, Mapping):
        result = document.get(_RESULT, {k: v for k, v in document.items() if k not in _TIMES})
    outputs = result if isinstance(result, Mapping) else {_RESULT: result}
    found: list[dict[str, object]] = [{} for _ in range(rows)]
    for name, value in outputs.items():
        for row, part in zip(found, _parts(value, rows), strict=True):
            row.update(_cells(str(name), part))
    return list(found)


def columns(rows: Iterable[Cells]) -> tuple[str, ...]:
    """Return the names of all cells, in the order in which they come first."""
    return tuple({name: None for row in rows for name in row})


def written(value: object) -> str:
    """Return a cell as text.

    >>> written("pro"), written(0.25), written(None), written([1])
    ('pro', '0.25', '', '[1]')
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parts(value: object, rows: int) -> Sequence[object]:
    """Return the part of an output that belongs to each row; the whole where it has other parts."""
    if isinstance(value, list) and len(value) == rows:
        return value
    return [value] * rows


def _cells(name: str, value: object) -> Iterable[tuple[str, object]]:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        # A script's own members need no name before them.
        prefix = "" if name == _RESULT else f"{name}."
        return [(f"{prefix}{key}", each) for key, each in value.items()]
    if isinstance(value, list) and not any(isinstance(each, list | dict) for each in value):
        return [(f"{name}[{place}]", each) for place, each in enumerate(value)]
    return [(name, value)]
