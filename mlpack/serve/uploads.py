"""Blobs on their way in: each is written, and hashed, as its pieces arrive."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass

from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.serve.errors import Refused
from mlpack.stores.base import Corrupt, Sink
from mlpack.stores.layout import LayoutStore

MAX_OPEN = 100
"""Uploads begun and not ended; the oldest idle one is forgotten for one more."""


@dataclass(eq=False)
class Upload:
    """One blob so far. A client whose connection broke goes on at ``size``."""

    name: str
    sink: Sink
    open: ExitStack
    size: int = 0
    busy: bool = False

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.sink.write(data)
        self.size += len(data)


class Uploads:
    """The uploads of one server; they do not outlive it, and clients then begin anew."""

    def __init__(self, layout: LayoutStore) -> None:
        self._layout = layout
        self._open: dict[str, Upload] = {}

    def begin(self) -> Upload:
        """Make room for one blob."""
        if len(self._open) >= MAX_OPEN:
            idle = next((each for each in self._open.values() if not each.busy), None)
            if idle is None:
                raise Refused("TOOMANYREQUESTS", f"{MAX_OPEN} uploads are under way")
            self.forget(idle)
        stack = ExitStack()
        sink = stack.enter_context(self._layout.stage())
        upload = Upload(secrets.token_hex(16), sink, stack)
        self._open[upload.name] = upload
        return upload

    def find(self, name: str) -> Upload:
        """The upload called ``name``; raise :class:`Refused`."""
        if name not in self._open:
            raise Refused("BLOB_UPLOAD_UNKNOWN", "there is no such upload; begin it again")
        return self._open[name]

    def finish(self, upload: Upload, digest: Digest) -> None:
        """Keep the blob if it is ``digest``; either way the upload is over."""
        try:
            upload.sink.commit(Descriptor("application/octet-stream", digest, upload.size))
        except Corrupt as error:
            raise Refused("DIGEST_INVALID", f"what was sent is not {digest}") from error
        finally:
            self.forget(upload)

    def forget(self, upload: Upload) -> None:
        """End an upload; what was not kept is gone."""
        self._open.pop(upload.name, None)
        upload.open.close()

    def close(self) -> None:
        """End all uploads."""
        for upload in list(self._open.values()):
            self.forget(upload)
