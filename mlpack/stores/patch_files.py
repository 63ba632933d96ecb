"""Patching files on disk: they are mapped to read, and written whole or not at all."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mlpack.runtime.patch import BadPatch
from mlpack.stores.files import atomic, file_sha256, open_file
from mlpack.tensor_patch import Arrays, Description, InvalidPatch, apply_patch, describe, make_patch
from mlpack.tensor_patch.patch import within
from mlpack.tensor_patch.spans import DESCRIBING, Span, external_spans, find_spans


class WrongOldFile(InvalidPatch):
    """A patch that is applied to another file than the one it is for."""


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """Map the file at ``path`` during the block; its bytes are read when they are used.

    The file must not be truncated meanwhile: the system kills a process that reads beyond its end.
    Raises :class:`~mlpack.stores.files.NotAFile`.
    """
    with open_file(path) as file:
        if not os.fstat(file.fileno()).st_size:  # an empty file cannot be mapped
            yield memoryview(b"")
            return
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(content)
        try:
            yield view
        finally:
            # If the block raised, its frames may still hold pieces; the map is closed with them.
            with suppress(BufferError):
                view.release()
                content.close()


def write_patch(
    old: Path, new: Path, out: Path, *, advance: Callable[[int], object] = lambda _: None
) -> None:
    """Write the patch from the file ``old`` to the file ``new`` to ``out``, whole or not at all.

    ``advance`` is called with the number of bytes of ``new`` that are done. Raises
    :class:`~mlpack.stores.files.NotAFile`.
    """
    with mapped(old) as before, mapped(new) as after:
        patch = make_patch(
            before,
            after,
            arrays=Arrays(file_spans(old, before), file_spans(new, after)),
            advance=advance,
        )
    with atomic(out) as content:
        content.write(patch)


def apply_to(
    old: Path, patch: Path, out: Path, *, advance: Callable[[int], object] = lambda _: None
) -> None:
    """Apply ``patch`` to the file ``old`` and write the result to ``out``.

    ``out`` is replaced only if the sha256 of the result is the one that the patch declares. Raises
    :class:`WrongOldFile`, :class:`~mlpack.tensor_patch.InvalidPatch` for a damaged patch, and
    :class:`~mlpack.stores.files.NotAFile`.
    """
    with mapped(old) as before, mapped(patch) as given, atomic(out) as content:

        def write(piece: memoryview) -> None:
            content.write(piece)
            advance(len(piece))

        try:
            apply_patch(before, given, write)
        except BadPatch as error:
            _require_old(old, patch, describe(given))
            raise InvalidPatch(f"{patch}, applied to {old}: {error}") from error


def _require_old(old: Path, patch: Path, made: Description) -> None:
    """Raise :class:`WrongOldFile` if the old file, and not the patch, is the cause of an error."""
    found, wanted = file_sha256(old), made.old.sha256
    if found.startswith(wanted):  # a header may hold its first digits only
        return
    if found == made.new.sha256:
        raise WrongOldFile(
            f"{old} is already what {patch} makes (sha256 {found}); the patch is for the version "
            "before it",
            hint="there is nothing to apply",
        )
    raise WrongOldFile(
        f"the patch is for another file than {old}, which has sha256 {found}",
        hint=f"give the file of {made.old.size:,} bytes with sha256 {wanted}{_rest(wanted)}",
    )


def _rest(sha256: str) -> str:
    return "" if len(sha256) == 64 else "…"


def file_spans(path: Path, content: memoryview) -> Sequence[Span]:
    """Return where the arrays are in the file at ``path`` with this ``content``.

    A file of external data does not describe itself: the one model in its folder that names it
    does (an ONNX model, a TensorFlow index, a TensorFlow.js model). If several do, or none, it is
    opaque.
    """
    found = find_spans(content)
    if found or not content:
        return found
    described = []
    for model in models_beside(path):
        with mapped(model) as graph:
            described.append(external_spans(graph, model.name).get(path.name, ()))
    named = [spans for spans in described if spans]
    if len(named) != 1:
        return ()
    return within(named[0], len(content))


def models_beside(path: Path) -> Sequence[Path]:
    """Return the models next to the file at ``path`` that may describe its arrays."""
    found = sorted(each for each in path.parent.iterdir() if each.name.endswith(DESCRIBING))
    return [each for each in found if each.is_file() and each.name != path.name]
