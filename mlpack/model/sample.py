"""What a user gives to be scored, as the body of a request."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from mlpack.errors import UsageError

STDIN = "-"
JPEG, PNG, NPY, JSON = "image/jpeg", "image/png", "application/x-npy", "application/json"

_NUMBERS = re.compile(r"[-+.\deE]+(?:\s*,\s*[-+.\deE]+)*")
_SIGNATURES = ((b"\xff\xd8\xff", JPEG), (b"\x89PNG\r\n\x1a\n", PNG), (b"\x93NUMPY", NPY))


class NotAnInput(UsageError):
    """Something no module takes."""

    hint = "give a picture (JPEG or PNG), a .npy or .json file, numbers as 600,38,150,47, or -"


@dataclass(frozen=True, slots=True)
class Sample:
    """One request's body; ``name`` is what the user called it."""

    name: str
    content: bytes
    content_type: str


def numbers(text: str) -> Sample | None:
    """The request for numbers with commas between them; ``None`` where ``text`` is none.

    >>> numbers("600, 38,150.5,47").content
    b'{"params": [600, 38, 150.5, 47]}'
    >>> numbers("dog.jpg") is None
    True
    """
    if not _NUMBERS.fullmatch(text.strip()):
        return None
    try:
        read = [_number(each) for each in text.split(",")]
    except ValueError:
        return None
    if not all(math.isfinite(each) for each in read):
        raise NotAnInput(f"{text}: a number is beyond all that a model takes")
    return Sample(text, json.dumps({"params": read}).encode(), JSON)


def _number(text: str) -> int | float:
    return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)


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
