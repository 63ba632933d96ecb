"""A model that its image holds as an older release's files and patches: made whole at start.

The record (:mod:`.identity`) says of each file what it comes from. All files of the version are
laid into one folder, so that scripts and onnxruntime find there what a release with the whole
model has. Nothing is loaded that is not, byte for byte, what was released.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import hashlib
import logging
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .identity import File, damaged
from .settings import NotServable, Settings

PREFIX = "mlpack-model-"
"""Names of folders in the temporary one."""

_PART = ".part"
_CHUNK = 1024 * 1024
_WAIT_SECONDS, _PAUSE = 60.0, 0.05
"""For another container that fills the same folder of the cache."""
_SETTLED_SECONDS = 60
"""Age from which on a temporary folder that nobody holds is one that was left behind."""

_log = logging.getLogger("mlpack_runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """Where the model's files are now, and what that took."""

    folder: Path
    bytes: int
    """Of all files."""

    made: int
    """Of the files that were not in the cache, whole."""

    seconds: float

    def __str__(self) -> str:
        what = f"rebuilding {self.made} bytes" if self.made else f"checking {self.bytes} bytes"
        return f"{self.seconds:.2f} s for {what} in {self.folder}"


def rebuild(files: Sequence[File], settings: Settings) -> Rebuilt | None:
    """Make the files whole; ``None`` where the image has them all as they are.

    They go below ``MLPACK_MODEL_CACHE`` where that is set and can be used, else into a
    folder that ends with the process. Raises :class:`NotServable`.
    """
    if not any(each.source for each in files):
        return None
    start = time.perf_counter()
    folder, made = _in_cache(files, settings) or _in_temporary(files, settings)
    return Rebuilt(
        folder=folder,
        bytes=sum(each.size for each in files),
        made=made,
        seconds=time.perf_counter() - start,
    )


def key(files: Sequence[File]) -> str:
    """The name of a version's folder in the cache: the sha256 of its ``sha256sum`` list."""
    listed = "".join(f"{each.sha256}  {each.path}\n" for each in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _in_cache(files: Sequence[File], settings: Settings) -> tuple[Path, int] | None:
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


def _in_temporary(files: Sequence[File], settings: Settings) -> tuple[Path, int]:
    try:
        return _temporary(files, settings)
    except OSError as error:
        size = sum(each.size for each in files)
        raise NotServable(
            f"there is no room to rebuild the model ({error.strerror or error}): it takes {size} "
            "bytes below TMPDIR or /tmp; give the container a larger tmpfs there, or a volume "
            "that MLPACK_MODEL_CACHE names"
        ) from error


def _fill(folder: Path, files: Sequence[File], settings: Settings) -> int:
    """See that ``folder`` holds all files, each whole; the bytes that were written.

    ``OSError`` is about ``folder``: what the image lacks is :class:`NotServable`.
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


def _whole(place: Path, file: File) -> bool:
    try:
        with place.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return False
    if found != file.sha256:
        _log.warning("%s is damaged: it is made again", place)
    return found == file.sha256


def _write(place: Path, file: File, settings: Settings) -> None:
    """Make one file under another name first, so that a reader or a crash sees no part of it."""
    part = place.with_name(place.name + _PART)
    # Who was killed while writing left one; the folder is locked, so nobody writes it now.
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


def _content(file: File, settings: Settings, write: Callable[[memoryview], object]) -> None:
    """Give the whole file to ``write``; raise :class:`NotServable` where it cannot be made."""
    if not file.patch:
        whole = settings.app_root / file.source if file.source else settings.model_dir / file.path
        _copy(_mapped(whole), whole, file, write)
        return
    try:
        from .patch import BadPatch, apply_patch, read_header
    except ImportError as error:
        raise NotServable(f"this base cannot apply patches ({error}); make a new one") from error
    place = settings.app_root / file.patch
    old, patch = _mapped(settings.app_root / file.source), _mapped(place)
    try:
        header = read_header(patch)
        if (header.new_size, header.new_sha256) != (file.size, file.sha256):
            raise BadPatch(
                f"it makes a file of {header.new_size} bytes and sha256 {header.new_sha256}, "
                f"and {file.path} has {file.size} and {file.sha256}"
            )
        apply_patch(old, patch, write)
    except BadPatch as error:
        raise damaged(f"{place} cannot be applied to {file.source} ({error})") from error
    except ImportError as error:
        raise NotServable(f"this base cannot apply the patch ({error}); make a new one") from error


def _copy(
    content: memoryview, place: Path, file: File, write: Callable[[memoryview], object]
) -> None:
    running = hashlib.sha256()
    for start in range(0, len(content), _CHUNK):
        piece = content[start : start + _CHUNK]
        running.update(piece)
        write(piece)
    if running.hexdigest() != file.sha256:
        raise damaged(f"{place} has sha256 {running.hexdigest()}, not {file.sha256}")


def _mapped(place: Path) -> memoryview:
    """A file of the image; its pages stay the kernel's, which drops them when it needs room."""
    try:
        with place.open("rb") as content:
            if not os.fstat(content.fileno()).st_size:
                return memoryview(b"")
            return memoryview(mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise damaged(
            f"{place} cannot be read ({error.strerror or error}), and the model is made of it"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let no other container fill ``folder``; raise ``OSError`` where one does for too long.

    The folder itself is locked, which also a volume that is mounted read-only allows.
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


def _temporary(files: Sequence[File], settings: Settings) -> tuple[Path, int]:
    """Fill a folder of this process's own, removed at its end; a killed one's is removed now."""
    root = Path(tempfile.gettempdir())
    for left in list(root.glob(f"{PREFIX}*")):
        if _left_behind(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    # Held as long as the process lives, which is how others see that it does.
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
