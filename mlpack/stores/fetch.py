"""Downloading a file whose size and sha256 are known: resumed, checked, and whole or not there."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from mlpack.stores.base import Corrupt
from mlpack.stores.exchange import Refused, RegistryError, Request, Response, Unreachable
from mlpack.stores.files import SHARED, file_sha256, make_folder, sync_folder
from mlpack.stores.http import ATTEMPTS, Client

Progress = Callable[[int], None]
"""Is told how many bytes are there."""

_HINT = "download the file by other means and put it there; it is checked before it is used"


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """A file on the web, by content; ``urls`` are tried in their order."""

    urls: tuple[str, ...]
    size: int
    sha256: str

    def __str__(self) -> str:
        return self.urls[0].rpartition("/")[2]

    def is_at(self, path: Path) -> bool:
        """Whether ``path`` is this file, byte for byte."""
        found = path.is_file() and path.stat().st_size == self.size
        return found and file_sha256(path) == self.sha256


class Shown:
    """Writes how far a download is to a terminal; to anything else nothing."""

    def __init__(self, file: KnownFile, out: TextIO) -> None:
        self._file = file
        self._out = out
        self._percent = -1

    def __call__(self, done: int) -> None:
        """``done`` bytes are there."""
        percent = done * 100 // self._file.size
        if self._out.isatty() and percent != self._percent:
            self._percent = percent
            end = "\n" if percent == 100 else ""
            self._out.write(f"\r{self._file}: {percent} % of {self._file.size:,} bytes{end}")
            self._out.flush()


def fetch(
    file: KnownFile,
    path: Path,
    *,
    client: Client | None = None,
    progress: Progress = lambda _: None,
) -> bool:
    """Have ``file`` at ``path``; return whether anything had to be downloaded.

    What arrived of an interrupted download stays beside it as PATH.part, and the
    next one goes on from there. Raises :class:`~mlpack.stores.exchange.RegistryError`
    or :class:`Corrupt` of the last address where none gave the file; ``path`` is
    then as it was.
    """
    make_folder(path.parent)
    with _open_part(path.with_name(f"{path.name}.part")) as part:
        if file.is_at(path):
            Path(part.name).unlink()
            return False
        own = client or Client()
        try:
            _from_any(file, part, own, progress)
        finally:
            if client is None:
                own.close()
            if not part.tell():
                Path(part.name).unlink()
        os.fchmod(part.fileno(), SHARED)
        os.fsync(part.fileno())
        Path(part.name).rename(path)
        sync_folder(path.parent)
    return True


def _open_part(path: Path) -> BinaryIO:
    """Open ``path`` at its end, locked: a second download waits, and finds the file done."""
    while True:
        part = path.open("a+b")
        fcntl.flock(part, fcntl.LOCK_EX)
        if _is_at(part, path):
            part.seek(0, os.SEEK_END)
            return part
        # Whoever had the lock gave it its name, or removed it.
        part.close()


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether the open ``file`` is what ``path`` names; one call, since others rename meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _from_any(file: KnownFile, part: BinaryIO, client: Client, progress: Progress) -> None:
    for number, url in enumerate(file.urls, 1):
        try:
            _from_one(file, url, part, client, progress)
            return
        except (RegistryError, Corrupt) as error:
            if number == len(file.urls):
                error.hint = _HINT
                raise


def _from_one(
    file: KnownFile, url: str, part: BinaryIO, client: Client, progress: Progress
) -> None:
    """Fill ``part`` from ``url`` and check it; wrong bytes from before are given one chance."""
    resumed = part.tell() > 0
    _fill(file, url, part, client, progress)
    part.flush()
    found = file_sha256(Path(part.name))
    if found == file.sha256:
        return
    _clear(part)
    if not resumed:
        raise Corrupt(f"{url} has other bytes: sha256 {found}, not {file.sha256}")
    _from_one(file, url, part, client, progress)


def _fill(file: KnownFile, url: str, part: BinaryIO, client: Client, progress: Progress) -> None:
    """Download until all bytes are there; raise after ATTEMPTS in a row that brought none."""
    failures = 0
    if part.tell() > file.size:
        _clear(part)
    while part.tell() < file.size:
        before = part.tell()
        try:
            _receive(file, url, part, client, progress)
        except Unreachable:
            failures = 1 if part.tell() > before else failures + 1
            if failures >= ATTEMPTS:
                raise
            client.pause(failures)


def _receive(file: KnownFile, url: str, part: BinaryIO, client: Client, progress: Progress) -> None:
    """Append one answer's bytes; one that breaks off is :class:`Unreachable`."""
    at = part.tell()
    headers = {"Range": f"bytes={at}-"} if at else {}
    request = Request(method="GET", url=url, headers=headers)
    with client.send(request) as response:
        total = _total(response, at)
        if response.status == 200:
            # The server knows no ranges, or nothing was asked of it.
            _clear(part)
        if total is not None and total != file.size:
            _clear(part)
            raise Corrupt(f"{url} is {total} bytes, not {file.size}: it is another file")
        for chunk in response.chunks:
            if part.tell() + len(chunk) > file.size:
                _clear(part)
                raise Corrupt(f"{url} is more than {file.size} bytes: it is another file")
            part.write(chunk)
            progress(part.tell())
    if part.tell() < file.size:
        raise Unreachable(f"{request}: it ended after {part.tell()} of {file.size} bytes")


def _total(response: Response, at: int) -> int | None:
    """Bytes of the whole file as the answer says; raise where it is no answer to go on from."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
        if found is None or int(found[1]) != at:
            raise Corrupt(f"{response.url} was asked for the bytes from {at} and sent others")
        return int(found[2]) if found[2] != "*" else None
    if response.status != 200:
        raise Refused(f"{response.url} answers {response.status}", response.status)
    declared = response.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else None


def _clear(part: BinaryIO) -> None:
    part.seek(0)
    part.truncate()
