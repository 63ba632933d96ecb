"""Files and patches of files on disk: read by mapping them, written whole or not at all."""

from __future__ import annotations

import mmap
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mlpack.delta import InvalidPatch, apply_patch, make_patch
from mlpack.delta.files import within
from mlpack.delta.spans import Span, external_spans, find_spans
from mlpack.errors import MlpackError
from mlpack.runtime.patch import BadPatch
from mlpack.stores.files import atomic


class NotAFile(MlpackError):
    """A path where a file is needed, and that is missing or something else."""

    hint = "name a file"


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """The bytes of the file at ``path`` while the block runs, read as they are needed.

    The file must not be cut meanwhile: the system ends a process that reads what is gone.
    Raises :class:`NotAFile`.
    """
    size = _require_file(path)
    with path.open("rb") as file:
        if not size:  # nothing cannot be mapped
            yield memoryview(b"")
            return
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(content)
        try:
            yield view
        finally:
            # Where the block raised, its frames may still hold pieces; the map goes with them.
            with suppress(BufferError):
                view.release()
                content.close()


def _require_file(path: Path) -> int:
    """The size of the file at ``path``. Opening a pipe instead would wait for ever."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise NotAFile(f"{path} does not exist", hint="check the path") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a device, socket or pipe"
        raise NotAFile(f"{path} is {kind}, not a file")
    return found.st_size


def write_patch(
    old: Path, new: Path, out: Path, *, advance: Callable[[int], object] = lambda _: None
) -> None:
    """Write the patch that makes the file ``new`` of the file ``old`` to ``out``.

    ``advance`` is told how many bytes of ``new`` are done. Whole or not at all: where anything
    is raised, ``out`` is what it was. Raises :class:`NotAFile`.
    """
    _require_replaceable(out)
    with mapped(old) as before, mapped(new) as after:
        patch = make_patch(
            before,
            after,
            old_spans=file_spans(old, before),
            new_spans=file_spans(new, after),
            advance=advance,
        )
    with atomic(out) as content:
        content.write(patch)


def apply_to(
    old: Path, patch: Path, out: Path, *, advance: Callable[[int], object] = lambda _: None
) -> None:
    """Write to ``out`` what ``patch`` makes of the file ``old``; ``out`` may be ``old``.

    It gets its name only when its sha256 is the one that the patch declares; until then, and
    where anything is raised, ``out`` is what it was. Raises
    :class:`~mlpack.delta.InvalidPatch` and :class:`NotAFile`.
    """
    _require_replaceable(out)

    with mapped(old) as before, mapped(patch) as given, atomic(out) as content:

        def write(piece: memoryview) -> None:
            content.write(piece)
            advance(len(piece))

        try:
            apply_patch(before, given, write)
        except BadPatch as error:
            raise InvalidPatch(f"{patch}, applied to {old}: {error}") from error


def _require_replaceable(out: Path) -> None:
    """Refuse to put a file in the place of a directory or device."""
    if out.exists() and not out.is_file():
        raise NotAFile(f"{out} is there and no file", hint="write to another path")


def file_spans(path: Path, content: memoryview) -> Sequence[Span]:
    """Where the arrays lie in the file at ``path`` with this ``content``.

    A file of external data says nothing of itself: the one ONNX model beside it that names it
    does. Where several do, or none, it is opaque.
    """
    found = find_spans(content)
    if found or not content:
        return found
    said = []
    for model in sorted(path.parent.glob("*.onnx")):
        if model.is_file() and model.name != path.name:
            with mapped(model) as graph:
                said.append(external_spans(graph).get(path.name, ()))
    named = [spans for spans in said if spans]
    if len(named) != 1:
        return ()
    return within(named[0], len(content))
