"""A file whose bytes are compared with their digest while somebody else reads it."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Descriptor


class Checked:
    """Hashes what is read in order from the first byte, and compares at the end.

    A reader may jump about (a layer writer takes samples, an upload that broke goes back):
    the hash goes on where the reading in order goes on. Whoever reads to the end has read
    ``target``, or ``wrong`` is raised.
    """

    def __init__(self, content: BinaryIO, target: Descriptor, wrong: MlpackError) -> None:
        self._content = content
        self._target = target
        self._wrong = wrong
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; raises where they, together with all before, are not the target."""
        left = self._target.size - self._at
        # One more than there should be, so that a file that goes on is noticed.
        data = self._content.read(max(0, left + 1) if size < 0 else max(0, min(size, left + 1)))
        start, self._at = self._at, self._at + len(data)
        if start <= self._hashed < self._at:
            self._hash.update(memoryview(data)[self._hashed - start :])
            self._hashed = self._at
        ended = not data and size != 0
        if self._hashed > self._target.size or (ended and self._hashed < self._target.size):
            raise self._wrong
        if self._at == self._hashed == self._target.size:
            self._compare()
        return data

    def seekable(self) -> bool:
        """Where the content is."""
        return self._content.seekable()

    def seek(self, offset: int, /) -> int:
        """Go to ``offset``; bytes jumped over are not hashed until they are read."""
        self._at = self._content.seek(offset)
        return self._at

    def tell(self) -> int:
        """Where the next read starts."""
        return self._at

    def _compare(self) -> None:
        if self._hash.hexdigest() != self._target.digest.hex:
            raise self._wrong
