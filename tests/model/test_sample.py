"""What is sent to a module, and what is refused before."""

from __future__ import annotations

import pytest

from mlpack.model.sample import JPEG, JSON, NPY, PNG, NotAnInput, recognise


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"\xff\xd8\xff\xe0", JPEG),
        (b"\x89PNG\r\n\x1a\n", PNG),
        (b"\x93NUMPY\x01\x00", NPY),
        (b'{"data": []}', JSON),
    ],
)
def test_a_file_is_known_by_its_content(content: bytes, content_type: str) -> None:
    found = recognise("any.name", content)
    assert (found.name, found.content, found.content_type) == ("any.name", content, content_type)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"[" * 100_000, b"\xff\xfe"])
def test_another_file_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(NotAnInput, match=r"pug\.gif"):
        recognise("pug.gif", content)
