"""Rebuilds, at start, a model that is stored packed, or as an older release's files and patches.

The record (:mod:`.identity`) has the origin of each file. All files of the version are placed in
one directory, so that scripts and onnxruntime find the same as in a release with the whole model.
Nothing is loaded that differs in any byte from what was released.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import hashlib
import logging
import mmap
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .identity import FileRecord, damaged
from .settings import NotServable, RuntimeSettings

PREFIX = "mlpack-model-"
"""Prefix of temporary directories; the process that made one and mkdtemp's text follow."""

_TEMPORARY = re.compile(rf"{PREFIX}[0-9]+-[a-z0-9_]{{8}}")

_PART = ".part"
_CHUNK = 1024 * 1024
_WAIT_SECONDS, _PAUSE = 60.0, 0.05
"""How long to wait for another container that fills the same directory of the cache."""
_SETTLED_SECONDS = 60
"""Age from which a temporary directory without a lock counts as left behind."""

_EMPTY = memoryview(b"")

_log = logging.getLogger("mlpack_runtime")

Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuiltModel:
    """Where the model's files are now, and what rebuilding took."""

    folder: Path
    bytes: int
    """Size of all files."""

    made: int
    """Size of the files that were not complete in the cache."""

    seconds: float

    def __str__(self) -> str:
        what = f"rebuilding {self.made} bytes" if self.made else f"checking {self.bytes} bytes"
        return f"{self.seconds:.2f} s for {what} in {self.folder}"


def rebuild(files: Sequence[FileRecord], settings: RuntimeSettings) -> RebuiltModel | None:
    """Rebuild the files; return ``None`` if the image has all of them complete.

    They are written below ``MLPACK_MODEL_CACHE`` if it is set and usable, otherwise into a
    directory that is removed with the process. Raises :class:`NotServable`.
    """
    if all(each.complete for each in files):
        return None
    start = time.perf_counter()
    folder, made = _in_cache(files, settings) or _in_temporary(files, settings)
    return RebuiltModel(
        folder=folder,
        bytes=sum(each.size for each in files),
        made=made,
        seconds=time.perf_counter() - start,
    )


def key(files: Sequence[FileRecord]) -> str:
    """Return the name of a version's directory: the sha256 of its ``sha256sum`` list."""
    listed = "".join(f"{each.sha256}  {each.path}\n" for each in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _in_cache(files: Sequence[FileRecord], settings: RuntimeSettings) -> tuple[Path, int] | None:
    if settings.model_cache is None:
        return None
    folder = settings.model_cache / key(files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            return folder, _fill(folder, files, settings)
    except OSError as error:
        _log.warning(
            "MLPACK_MODEL_CACHE=%s cannot be used (%s): the model goes into a temporary folder",
            settings.model_cache,
            error.strerror or error,
        )
    return None


def _in_temporary(files: Sequence[FileRecord], settings: RuntimeSettings) -> tuple[Path, int]:
    try:
        return _temporary(files, settings)
    except OSError as error:
        size = sum(each.size for each in files)
        raise NotServable(
            f"there is no room to rebuild the model ({error.strerror or error}): it takes {size} "
            "bytes below TMPDIR or /tmp; give the container a larger tmpfs there, or a volume "
            "that MLPACK_MODEL_CACHE names"
        ) from error


def _fill(folder: Path, files: Sequence[FileRecord], settings: RuntimeSettings) -> int:
    """Make sure ``folder`` has all files, complete; return the number of bytes written.

    An ``OSError`` concerns ``folder``; files missing in the image are :class:`NotServable`.
    """
    made = 0
    for each in files:
        place = folder / each.path
        if _whole(place, each):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        _write(place, each, settings)
        made += each.size
    return made


def _whole(place: Path, file: FileRecord) -> bool:
    try:
        with place.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return False
    if found != file.sha256:
        _log.warning("%s is damaged and will be rebuilt", place)
    return found == file.sha256


def _write(place: Path, file: FileRecord, settings: RuntimeSettings) -> None:
    """Write one file under another name first, so that nobody sees an incomplete one."""
    part = place.with_name(place.name + _PART)
    # A process killed while writing leaves one; the directory is locked, so nobody writes it now.
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as out:
            _content(file, settings, out.write)
            out.flush()
            os.fsync(out.fileno())
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)
    above = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def _content(file: FileRecord, settings: RuntimeSettings, write: Write) -> None:
    """Pass the whole file to ``write``; raise :class:`NotServable` if that is impossible."""
    root = settings.app_root
    if not (file.packed or file.patch):
        whole = root / file.source if file.source else settings.model_dir / file.path
        _copy(_mapped(whole), whole, file, write)
        return
    try:
        from .patch import read_header
    except ImportError as error:
        raise NotServable(f"this base cannot apply patches ({error}); make a new one") from error
    last = root / (file.patch or file.packed)
    with _explained(last, file):
        header = read_header(_mapped(last))
    if (header.new_size, header.new_sha256) != (file.size, file.sha256):
        raise damaged(
            f"{last} makes a file of {header.new_size} bytes and sha256 {header.new_sha256}, "
            f"and {file.path} has {file.size} and {file.sha256}"
        )
    if not file.patch:
        _apply(_EMPTY, last, file, write)
    elif file.packed:
        _apply(_unpacked(root / file.packed, header.old_size, file), last, file, write)
    else:
        _apply(_mapped(root / file.source), last, file, write)


def _apply(old: memoryview, patch: Path, file: FileRecord, write: Write) -> None:
    """Apply ``patch`` to ``old`` and pass the new file to ``write``; its sha256 is checked."""
    from .patch import apply_patch

    with _explained(patch, file):
        apply_patch(old, _mapped(patch), write)


def _unpacked(packed: Path, size: int, file: FileRecord) -> memoryview:
    """Unpack the anchor's file of ``size`` bytes into memory, where only a patch reads it."""
    if not size:
        return _EMPTY
    try:
        memory = mmap.mmap(-1, size)
    except (OSError, OverflowError) as error:
        raise _no_memory(size) from error
    try:
        _apply(_EMPTY, packed, file, memory.write)
    except ValueError as error:  # beyond the end of the map
        raise damaged(f"{packed} holds more than the {size} bytes that were patched") from error
    return memoryview(memory)


@contextmanager
def _explained(patch: Path, file: FileRecord) -> Iterator[None]:
    """Turn errors of applying ``patch`` into :class:`NotServable`."""
    from .patch import BadPatch

    try:
        yield
    except BadPatch as error:
        to = f" to {file.source}" if file.source else ""
        raise damaged(f"{patch} cannot be applied{to} ({error})") from error
    except ImportError as error:
        raise NotServable(f"this base cannot apply {patch} ({error}); make a new one") from error
    except MemoryError as error:
        raise _no_memory(file.size) from error


def _no_memory(size: int) -> NotServable:
    return NotServable(
        f"there is not enough memory to rebuild the model ({size} bytes); give the container more"
    )


def _copy(content: memoryview, place: Path, file: FileRecord, write: Write) -> None:
    running = hashlib.sha256()
    for start in range(0, len(content), _CHUNK):
        piece = content[start : start + _CHUNK]
        running.update(piece)
        write(piece)
    if running.hexdigest() != file.sha256:
        raise damaged(f"{place} has sha256 {running.hexdigest()}, not {file.sha256}")


def _mapped(place: Path) -> memoryview:
    """Map a file of the image; the kernel can drop its pages when it needs memory."""
    try:
        with place.open("rb") as content:
            if not os.fstat(content.fileno()).st_size:
                return _EMPTY
            return memoryview(mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise damaged(
            f"{place} cannot be read ({error.strerror or error}), and the model needs it"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock ``folder`` against other containers; raise ``OSError`` if one holds it too long.

    The directory itself is locked, which also works on a read-only volume.
    """
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + _WAIT_SECONDS
    try:
        while not _lock(held):
            if time.monotonic() > deadline:
                raise OSError(errno.EAGAIN, f"another process holds {folder}")
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(held)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _temporary(files: Sequence[FileRecord], settings: RuntimeSettings) -> tuple[Path, int]:
    """Fill a directory that is removed with this process; remove those of killed processes."""
    root = Path(tempfile.gettempdir())
    for left in list(root.glob(f"{PREFIX}*")):
        if _TEMPORARY.fullmatch(left.name) and _left_behind(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    # Locked as long as the process lives, which shows others that it does.
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(held)
        made = _fill(folder, files, settings)
    except BaseException:
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, made


def _left_behind(folder: Path) -> bool:
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        about = os.fstat(held)
        old = time.time() - about.st_mtime > _SETTLED_SECONDS
        return about.st_uid == os.geteuid() and old and _lock(held)
    finally:
        os.close(held)
