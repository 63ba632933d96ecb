"""Download files whose size and sha256 are known: resumed, checked, and whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ATTEMPTS = 4
"""How many responses in a row may bring nothing."""

CHUNK = 1 << 20
SECONDS = 30


class NotDownloaded(Exception):
    """An address that does not have the file, or could not be reached."""


@dataclass(frozen=True)
class KnownFile:
    """A file on the web; ``urls`` are tried in their order."""

    urls: tuple[str, ...]
    size: int
    sha256: str

    def __str__(self) -> str:
        return self.urls[0].rpartition("/")[2]

    def is_at(self, path: Path) -> bool:
        """Whether ``path`` is this file, byte for byte."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == self.sha256


def download_all(files: Mapping[str, KnownFile], folder: Path) -> None:
    """Download what ``folder`` lacks of ``files``; end the program if an address fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        place = folder / name
        if not file.is_at(place):
            print(f"fetching {file} ({file.size:,} bytes) to {place}", file=sys.stderr)
            try:
                download(file, place)
            except (NotDownloaded, OSError) as error:
                sys.exit(
                    f"error: {error}\nhint: download the file by other means and put it at {place};"
                    " or: python make_weights.py makes a model.onnx of the same size, with weights"
                    " of chance"
                )
        print(f"{place} is {file}")


def download(file: KnownFile, path: Path, pause: float = 1) -> None:
    """Download ``file`` to ``path``; what arrived before an interruption stays in PATH.part.

    Raises :class:`NotDownloaded` of the last address if none has the file.
    """
    part = path.with_name(f"{path.name}.part")
    for number, url in enumerate(file.urls, 1):
        try:
            _complete(file, url, part, pause)
            if not file.is_at(part):
                part.unlink()  # may have been begun with other bytes
                _complete(file, url, part, pause)
            if not file.is_at(part):
                part.unlink()
                raise NotDownloaded(f"{url} has other bytes than sha256 {file.sha256}")
            part.rename(path)
            return
        except NotDownloaded:
            if number == len(file.urls):
                raise


def _complete(file: KnownFile, url: str, part: Path, pause: float) -> None:
    """Append to ``part`` until it is as long as the file."""
    failures = 0
    while (have := part.stat().st_size if part.exists() else 0) != file.size:
        if have > file.size:
            part.unlink()
            continue
        try:
            _append(file, url, part, have)
        except urllib.error.HTTPError as error:
            error.close()
            raise NotDownloaded(f"{url} answers {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            grown = part.exists() and part.stat().st_size > have
            failures = 1 if grown else failures + 1
            if failures >= ATTEMPTS:
                raise NotDownloaded(f"{url}: {error}") from error
            time.sleep(pause)


def _append(file: KnownFile, url: str, part: Path, have: int) -> None:
    """Append the rest of the file, or write all of it if the server ignores the range."""
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (https, from the list)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        if answer.status != 206:
            have = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise NotDownloaded(f"{url} sent other bytes than those from {have}")
        length = answer.headers.get("Content-Length")
        if length is not None and have + int(length) != file.size:
            raise NotDownloaded(f"{url} is another file: {have + int(length)} bytes")
        with part.open("r+b" if have else "wb") as out:
            out.seek(have)
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                _show(file, out.tell())
                if out.tell() > file.size:
                    part.unlink()
                    raise NotDownloaded(f"{url} is another file: more than {file.size} bytes")
    if part.stat().st_size < file.size:
        raise OSError(f"the connection ended after {part.stat().st_size} of {file.size} bytes")


def _show(file: KnownFile, done: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == file.size else ""
        print(f"\r{file}: {done * 100 // file.size} %", end=end, file=sys.stderr, flush=True)
