"""Files: read if they are regular, written whole to outputs that were checked; and their locks.

A command's output is never one of its inputs; a symbolic link at an output is followed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from mlpack.errors import MlpackError, UsageError
from mlpack.interruptions import held_back

SHARED = 0o644
"""mkstemp makes private files; git, skopeo and the group must read what mlpack writes."""
PRIVATE = 0o600
_PART = ".part-mlpack-"
_TEMPORARY = re.compile(rf"{re.escape(_PART)}[0-9]+-[a-z0-9_]{{8}}")
"""The whole name of a temporary file: the process that made it, and what mkstemp adds."""

_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}
_HINTS = {
    errno.ENOSPC: "free some disk space, or write to another path",
    errno.EDQUOT: "free some disk space, or write to another path",
    errno.EFBIG: "write to another file system, which allows larger files",
    errno.EROFS: "the file system is read-only: write to another path",
    errno.EACCES: "check who owns the file or directory, or write to another path",
    errno.EPERM: "check who owns the file or directory, or write to another path",
    errno.ENOTDIR: "a part of this path is a file, not a directory",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links form a circle: write to another path",
}
_ELSEWHERE = "write to another path"


class NotAFile(MlpackError):
    """A path that is missing, or is not a regular file."""

    hint = "name a file"


class OutputIsInput(UsageError):
    """An output that is an input of the same command, or part of one."""

    hint = _ELSEWHERE


class CannotWrite(MlpackError):
    """An output that cannot be written."""


@runtime_checkable
class OnDisk(Protocol):
    """A store in a file or directory."""

    root: Path


def require_file(path: Path) -> int:
    """Return the size of the regular file at ``path``; raise :class:`NotAFile`.

    Nothing is opened: opening a pipe waits for its writer, and a device may act on it.
    """
    try:
        return _size(path, path.stat())
    except FileNotFoundError:
        raise NotAFile(f"{path} does not exist", hint="check the path") from None


def open_file(path: Path) -> BufferedReader:
    """Open the regular file at ``path`` to read; raise :class:`NotAFile`."""
    require_file(path)
    # It may have been replaced by a pipe since: without this flag, open would wait for a writer.
    opened = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _size(path, os.fstat(opened.fileno()))
    except BaseException:
        opened.close()
        raise
    return opened


def read_file(path: Path) -> bytes:
    """Return the bytes of the regular file at ``path``; raise :class:`NotAFile`."""
    with open_file(path) as content:
        return content.read()


def _size(path: Path, found: os.stat_result) -> int:
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a device, socket or pipe"
        raise NotAFile(f"{path} is not a regular file, but {kind}")
    return found.st_size


@contextmanager
def atomic(path: Path, mode: int = SHARED) -> Iterator[BinaryIO]:
    """Write ``path`` whole or not at all: temporary file, fsync, rename, fsync of the folder.

    A block that raises changes nothing, and leaves no temporary file. If ``path`` is a symbolic
    link, it stays, and what it points at is replaced.
    """
    place = followed(path)
    with staged(place.parent, path) as (content, keep):
        yield content
        keep(place, mode)


def followed(path: Path) -> Path:
    """Return what the symbolic link ``path`` points at, or ``path`` if it is not a link."""
    if not path.is_symlink():
        return path
    place = Path(os.path.realpath(path))
    if place.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return place


@contextmanager
def staged(
    folder: Path, path: Path | None = None
) -> Iterator[tuple[BinaryIO, Callable[[Path, int], None]]]:
    """Open a temporary file in ``folder``; the function returned with it keeps it under a name.

    Its writer holds a lock on it: one without a lock was left by a killed process, and is removed
    here. Errors of writing name ``path``, by default the folder.
    """
    make_folder(folder)
    _clear_abandoned(folder)
    with naming(path or folder), ExitStack() as undo:
        with held_back():
            content, temporary = _create(folder)
            undo.callback(_remove, temporary)
            undo.enter_context(content)
        yield content, partial(_keep, content, temporary)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name ``path`` in an error of writing that names no file, or a temporary one of mlpack."""
    try:
        yield
    except OSError as error:
        anonymous = error.filename is None and error.errno in _OF_WRITING
        named = error.filename if isinstance(error.filename, str) else ""
        if anonymous or _TEMPORARY.fullmatch(Path(named).name):
            error.filename, error.filename2 = str(path), None
        raise


def _remove(path: Path) -> None:
    with held_back():
        path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Make a folder for this user alone, which is removed when the block ends.

    As :class:`tempfile.TemporaryDirectory`, but no interruption leaves it.
    """
    with ExitStack() as undo:
        with held_back():
            folder = tempfile.mkdtemp(prefix=prefix)
            undo.callback(_remove_tree, folder)
        yield Path(folder)


def _remove_tree(folder: str) -> None:
    with held_back():
        shutil.rmtree(folder)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents unless they exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        # A file has this path; "exists" alone would not help.
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", str(folder)) from error


def _create(folder: Path) -> tuple[BinaryIO, Path]:
    while True:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=f"{_PART}{os.getpid()}-")
        content = os.fdopen(descriptor, "w+b")
        fcntl.flock(content, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return content, Path(name)
        # Another process removed it as abandoned between its creation and our lock.
        content.close()


def _clear_abandoned(folder: Path) -> None:
    """Remove temporary files of killed mlpack processes, and no other file."""
    left: list[Path] = []
    with suppress(PermissionError), os.scandir(folder) as entries:
        left = [Path(each.path) for each in entries if _is_temporary(each)]
    for path in left:
        with suppress(OSError, NotAFile), open_file(path) as content:
            fcntl.flock(content, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _is_temporary(entry: os.DirEntry[str]) -> bool:
    return bool(_TEMPORARY.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)


def _keep(content: BinaryIO, temporary: Path, path: Path, mode: int) -> None:
    content.flush()
    os.fchmod(content.fileno(), mode)
    os.fsync(content.fileno())
    make_folder(path.parent)
    temporary.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync ``folder``, so that a rename in it survives a power cut.

    Impossible, and left undone, for a folder that may be written to but not read.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an inter-process lock on ``path`` during the block; others wait.

    The lock ends with the process (flock): a killed one leaves none.
    """
    make_folder(path.parent)
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "r+b") as handle:
        _size(path, os.fstat(handle.fileno()))
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with open_file(path) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def output(path: Path, *inputs: Path) -> Iterator[Path]:
    """Check that a file can be written to ``path``; in the block, name it in errors of writing.

    ``inputs`` are the files and directories that the command reads; those that are missing do
    not count. Raises :class:`OutputIsInput` if ``path`` is one of them by whatever name (a link,
    a relative path) or is inside one, :class:`NotAFile` if it is a directory, device or pipe,
    and :class:`CannotWrite`.
    """
    try:
        _require_replaceable(path)
        require_apart(path, inputs)
        _require_writable(path)
        yield path
    except OSError as error:
        if error.errno not in _HINTS or not _of(path, error.filename):
            raise
        where = f"{error.filename}: " if error.filename != str(path) else ""
        what = f"cannot write {path}: {where}{error.strerror}"
        raise CannotWrite(what, hint=_HINTS[error.errno]) from error


def require_store(root: Path, *inputs: Path) -> None:
    """Check that images can be written to the layout at ``root``, which may be an input itself.

    Raises :class:`OutputIsInput` if an input is inside of it, or it is inside an input: names in
    a layout that is read may change, its files and what is next to them may not.
    """
    for each in inputs:
        if each.is_dir() and same_file(root, each):
            continue
        if each.exists() and _inside(each, root):
            raise OutputIsInput(f"{each} is read by this command, and is inside {root}")
        require_apart(root, (each,))


def same_file(one: Path, other: Path) -> bool:
    """Whether both exist and are one file or directory, by whatever names."""
    return one.exists() and other.exists() and one.samefile(other)


def _require_replaceable(path: Path) -> None:
    """Refuse to replace a directory, device or pipe by a file."""
    if path.is_dir():
        raise NotAFile(f"{path} is a directory", hint="name a file in it")
    if path.exists() and not path.is_file():
        raise NotAFile(f"{path} is not a regular file", hint=_ELSEWHERE)


def require_apart(path: Path, inputs: tuple[Path, ...]) -> None:
    """Raise :class:`OutputIsInput` if ``path`` is one of ``inputs``, or inside one."""
    for each in inputs:
        if not each.exists():
            continue
        if same_file(path, each):
            raise OutputIsInput(f"{path} is an input of this command, and would be overwritten")
        if each.is_dir() and _inside(path, each):
            raise OutputIsInput(f"{path} is inside {each}, which this command reads")


def _inside(path: Path, directory: Path) -> bool:
    """Whether ``path`` is in ``directory`` or below, whatever their names and links."""
    if not directory.is_dir():
        return False
    above = followed(path).absolute().parent.resolve()
    return any(same_file(each, directory) for each in (above, *above.parents))


def _require_writable(path: Path) -> None:
    """Raise ``OSError`` now if writing would raise it after all the work."""
    folder = followed(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise OSError(errno.ENOTDIR, "is not a directory", str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number), str(folder))


def _of(path: Path, named: str | bytes | int | None) -> bool:
    """Whether an error that names ``named`` is about writing ``path``: itself or above it."""
    if not isinstance(named, str):
        return False
    places = (path.absolute(), Path(os.path.realpath(path)))
    return any(Path(named).absolute() in (place, *place.parents) for place in places)
