"""Another image in an existing manifest, where every other byte stays as it is.

A manifest read and written again would differ in spaces, order and escapes; in ``createOptions``
such a difference alone makes edgeAgent create the container again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mlpack.errors import MlpackError
from mlpack.humanize import nearest
from mlpack.iotedge.manifest import AGENT, PLACES
from mlpack.oci.descriptor import Reference

_DECODER = json.JSONDecoder()
_ELEMENT = "[]"
_MODULES_AT = ("properties", "desired", "modules")
_IMAGE = ("settings", "image")


class NoSuchModule(MlpackError):
    """A manifest without the image to replace."""


def patch(text: str, module: str, image: Reference) -> str:
    """Return ``text`` with ``image`` as the image of ``module``.

    ``text`` is JSON that was read before, of a whole or a layered deployment. Raises
    :class:`NoSuchModule` if it has no such module.
    """
    images = dict(_images(text))
    if module not in images:
        known = ", ".join(sorted(images)) or "none"
        raise NoSuchModule(
            f"the deployment has no module {module!r}{nearest(module, images)}",
            hint=f"its modules: {known}; name the one that runs the release with --module",
        )
    start, end = images[module]
    return text[:start] + json.dumps(str(image)) + text[end:]


def _images(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield every module of the user, and the span of its image's text with its quotes."""
    for path, start, end in _texts(text):
        before, agent, inside = _around(path)
        # A layered deployment has dots in its names where a whole one has objects.
        keys = tuple(".".join(inside).split("."))
        if agent and before in PLACES and keys[:3] == _MODULES_AT and keys[4:] == _IMAGE:
            yield keys[3], (start, end)


def _around(path: tuple[str, ...]) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    at = path.index(AGENT) if AGENT in path else len(path)
    return path[:at], at < len(path), path[at + 1 :]


def _texts(text: str) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Yield every string that is a value: its path, its start and its end."""
    # Not recursive: the reader limits how deep a document may nest.
    path: list[str] = []
    at, is_key = 0, False
    while at < len(text):
        char = text[at]
        if char == '"':
            found, end = _DECODER.raw_decode(text, at)
            if is_key:
                path[-1], is_key = str(found), False
            else:
                yield tuple(path), at, end
            at = end
            continue
        if char in "{[":
            path.append(_ELEMENT if char == "[" else "")
        elif char in "}]":
            path.pop()
        if char in "{,":
            is_key = path[-1] != _ELEMENT
        elif char in "}]":
            is_key = False
        at += 1
