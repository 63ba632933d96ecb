"""Another image in a manifest that is there: every other byte stays as it is.

A manifest read and written anew would differ in spaces, order and escapes; in
``createOptions`` such a difference alone makes edgeAgent create the container again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mlpack.errors import MlpackError
from mlpack.oci.reference import Reference
from mlpack.render.iotedge.manifest import AGENT, PLACES
from mlpack.words import nearest

_DECODER = json.JSONDecoder()
_ELEMENT = "[]"
_MODULES = ("properties", "desired", "modules")
_IMAGE = ("settings", "image")


class InvalidPatch(MlpackError):
    """A manifest in which there is no image to replace."""


def patch(text: str, module: str, image: Reference) -> str:
    """``text`` with ``image`` as the image of ``module``.

    ``text`` is JSON that was read before. Whole and layered deployments are taken.
    Raises :class:`InvalidPatch` where it has no such module.
    """
    images = dict(_images(text))
    if module not in images:
        known = ", ".join(sorted(images)) or "none"
        raise InvalidPatch(
            f"the deployment has no module {module!r}{nearest(module, images)}",
            hint=f"its modules: {known}; name the one that runs the release with --module",
        )
    start, end = images[module]
    return text[:start] + json.dumps(str(image)) + text[end:]


def _images(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every module of the user, and where the text of its image lies, quotes and all."""
    for path, start, end in _texts(text):
        before, agent, inside = _around(path)
        # A layered deployment has dots in its names where a whole one has objects.
        keys = tuple(".".join(inside).split("."))
        if agent and before in PLACES and keys[:3] == _MODULES and keys[4:] == _IMAGE:
            yield keys[3], (start, end)


def _around(path: tuple[str, ...]) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    at = path.index(AGENT) if AGENT in path else len(path)
    return path[:at], at < len(path), path[at + 1 :]


def _texts(text: str) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Every string that is a value, by its path, with where it starts and ends."""
    # Not recursive: how deep a document may nest is for its reader to say.
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
