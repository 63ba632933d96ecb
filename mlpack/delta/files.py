"""Models of one or several files: where their arrays lie, and what patches of them take."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from mlpack.delta.patch import make_patch
from mlpack.delta.spans import Span, external_spans, find_spans

Contents = Mapping[str, memoryview]
"""The bytes of a model's files, by path."""

_NOTHING = memoryview(b"")


def within(spans: Sequence[Span], size: int) -> tuple[Span, ...]:
    """Those of ``spans`` that end before a file of ``size`` bytes does."""
    return tuple(each for each in spans if each.offset + each.length <= size)


def spans_by_file(contents: Contents) -> dict[str, tuple[Span, ...]]:
    """The arrays in each file; those of external data as the ONNX models among them say.

    A file that several models name has the arrays that the first of them says.
    """
    found = {path: find_spans(content) for path, content in contents.items()}
    for path in sorted(contents):
        if not path.endswith(".onnx"):
            continue
        for location, spans in external_spans(contents[path]).items():
            beside = posixpath.join(posixpath.dirname(path), location)
            if beside in contents and not found[beside]:
                found[beside] = within(spans, len(contents[beside]))
    return found


def counterparts(old: Contents, new: Contents) -> dict[str, str]:
    """For each path of ``new`` that has one, the path in ``old`` it comes of.

    That of the same path; a model's only file comes of the other's only file, whatever it is
    called.
    """
    if len(old) == len(new) == 1:
        return {next(iter(new)): next(iter(old))}
    return {path: path for path in new if path in old}


def patch_bytes(old: Contents, new: Contents) -> int:
    """Bytes of the patches that make the files of ``new`` of those of ``old``, in all."""
    old_spans, new_spans = spans_by_file(old), spans_by_file(new)
    come_of = counterparts(old, new)
    total = 0
    for path, content in new.items():
        before = come_of.get(path)
        patch = make_patch(
            old[before] if before else _NOTHING,
            content,
            old_spans=old_spans[before] if before else (),
            new_spans=new_spans[path],
        )
        total += len(patch)
    return total
