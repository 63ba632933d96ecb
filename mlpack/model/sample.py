"""What a user gives to be scored, as the body of a request."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mlpack.errors import UsageError

STDIN = "-"
JPEG, PNG, NPY, JSON = "image/jpeg", "image/png", "application/x-npy", "application/json"

_SIGNATURES = ((b"\xff\xd8\xff", JPEG), (b"\x89PNG\r\n\x1a\n", PNG), (b"\x93NUMPY", NPY))


class NotAnInput(UsageError):
    """Something no module takes."""

    hint = (
        "give a picture (JPEG or PNG), a .npy, .json or .csv file, values as 600,38,150 or "
        "tenure=5,plan=pro, or -"
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """One request's body; ``name`` is what the user called it."""

    name: str
    content: bytes
    content_type: str
    rows: int = 0
    """The number of rows of a CSV file in it; 0 for a request that is made of no such file."""


def recognise(name: str, content: bytes) -> Sample:
    """The request for a file, by what is in it; raise :class:`NotAnInput`.

    >>> recognise("a.npy", b'{"data": [[1]]}').content_type
    'application/json'
    """
    for signature, content_type in _SIGNATURES:
        if content.startswith(signature):
            return Sample(name, content, content_type)
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        what = "is empty" if not content else "is neither a JPEG, PNG or .npy file, nor JSON"
        raise NotAnInput(f"{name} {what}") from None
    return Sample(name, content, JSON)
