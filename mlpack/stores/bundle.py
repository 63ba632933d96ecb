"""Writing a bundle to a file, and checking one that came from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.compression import Gzip
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest, Writable
from mlpack.oci.document import MAX_DOCUMENT_BYTES, InvalidContent, Node, parse
from mlpack.oci.image import Layer
from mlpack.oci.tarball import BLOCK, END, header, padding
from mlpack.oci.tree import Entry
from mlpack.plan.bundle import LIST, Bundle
from mlpack.stores.base import CHUNK, Corrupt, Readable, verified
from mlpack.stores.files import atomic, file_sha256

_BEST, _LARGE = 12, 6
_GZIP = b"\x1f\x8b"
MAX_MEMBERS = 300


class BadBundle(MlpackError):
    """A file that is no bundle, or one that changed on its way."""

    hint = "copy it again from where it was made, or make it again with: mlpack bundle"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A bundle whose every member is what its list says."""

    engine: str
    name: str
    platform: str
    image: str
    onto: str
    """The digest of the image a device must be on; empty where it may hold nothing."""

    members: Mapping[str, int]
    """Bytes of each member, by path."""

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json bundle verify``."""
        return {
            "engine": self.engine,
            "name": self.name,
            "platform": self.platform,
            "image": self.image,
            "onto": self.onto or None,
            "members": dict(self.members),
        }


def write_bundle(store: Readable, made: Bundle, path: Path) -> Descriptor:
    """Write ``made`` to ``path``, whole or not at all; the same bundle gives the same bytes."""
    with atomic(path) as out:
        if made.compressed:
            with closing(Gzip(out, _BEST if made.small else _LARGE)) as packed:
                write_archive(store, made, packed)
                packed.finish()
        else:
            write_archive(store, made, out)
    size = path.stat().st_size
    return Descriptor("application/x-tar", Digest(file_sha256(path)), size)


def write_archive(store: Readable, made: Bundle, out: Writable) -> None:
    """Write the tar: the list of digests, the documents, the layers."""
    for name, content in made.documents().items():
        out.write(header(Entry(name, size=len(content))))
        out.write(content + padding(len(content)))
    for name, layer in made.layers.items():
        with _content(store, layer, unpack=made.unpacks) as (size, chunks):
            out.write(header(Entry(name, size=size)))
            for chunk in chunks:
                out.write(chunk)
            out.write(padding(size))
    out.write(END)


@contextmanager
def _content(
    store: Readable, layer: Layer, *, unpack: bool
) -> Iterator[tuple[int, Iterator[bytes]]]:
    packed = layer.descriptor.media_type not in media.TAR_LAYERS
    with store.open(layer.descriptor) as blob:
        if not (unpack and packed):
            yield layer.size, verified(blob, layer.descriptor)
            return
        # A tar header says the size before the content: the layer is unpacked aside first.
        with tempfile.TemporaryFile() as aside:
            size = _unpack(blob, layer, cast(BinaryIO, aside))
            aside.seek(0)
            yield size, iter(lambda: aside.read(CHUNK), b"")


def _unpack(blob: BinaryIO, layer: Layer, out: BinaryIO) -> int:
    """Inflate a layer; its diff id vouches for the bytes. Deflate grows 1032-fold at most."""
    running, size = hashlib.sha256(), 0
    try:
        with gzip.GzipFile(fileobj=blob) as content:
            while chunk := content.read(CHUNK):
                running.update(chunk)
                size += out.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise Corrupt(f"layer {layer.digest} cannot be unpacked ({error})") from error
    if running.hexdigest() != layer.diff_id.hex:
        raise Corrupt(f"layer {layer.digest} unpacks to other bytes than its diff id says")
    return size


def check_bundle(path: Path) -> Checked:
    """Read ``path`` to its end; raise :class:`BadBundle` unless every member is as listed."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            content = _Counted(gzip.GzipFile(fileobj=file) if packed else file)
            with tarfile.open(fileobj=content, mode="r|") as archive:  # type: ignore[call-overload]
                checked, size = _check(archive, str(path))
            if content.count_all() != size:
                raise BadBundle(f"{path} does not end where its last part does")
            return checked
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadBundle(f"{path} cannot be read to its end ({error})") from error
    except InvalidContent as error:
        raise BadBundle(f"{path}: {error}") from error


class _Counted:
    """Counts what is read: tarfile itself takes an archive without an end."""

    def __init__(self, content: BinaryIO | gzip.GzipFile) -> None:
        self._content = content
        self._size = 0

    def read(self, size: int) -> bytes:
        data = self._content.read(size)
        self._size += len(data)
        return data

    def count_all(self) -> int:
        while self.read(CHUNK):
            pass
        return self._size


def _check(archive: tarfile.TarFile, where: str) -> tuple[Checked, int]:
    """Compare all members with the list; return also how long the archive must be."""
    members = iter(archive)
    first = next(members, None)
    if first is None or first.name != LIST:
        raise BadBundle(f"{where} is not a bundle: it does not start with {LIST}")
    listed = parse(_document(archive, first), LIST)
    wanted = listed.need("sha256").text_map()
    found = dict(_hashes(archive, members, where))
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise BadBundle(f"{where}: {name} is missing")
        if name not in wanted:
            raise BadBundle(f"{where}: {name} is not in the list of digests")
        if found[name][0] != wanted[name]:
            raise BadBundle(f"{where}: {name} holds other bytes than the list says")
    sizes = {name: size for name, (_, size) in found.items()}
    blocks = sum(BLOCK + size + len(padding(size)) for size in (first.size, *sizes.values()))
    return _checked(listed, sizes), blocks + len(END)


def _hashes(
    archive: tarfile.TarFile, members: Iterator[tarfile.TarInfo], where: str
) -> Iterator[tuple[str, tuple[str, int]]]:
    seen: set[str] = set()
    for member in members:
        if len(seen) > MAX_MEMBERS:
            raise BadBundle(f"{where} has more than {MAX_MEMBERS} members")
        if member.name in seen or not member.isreg() or not _plain(member.name):
            raise BadBundle(f"{where}: {member.name!r} is there twice, or is no plain file")
        seen.add(member.name)
        content = archive.extractfile(member)
        digest = hashlib.file_digest(cast(io.BufferedReader, content), "sha256")
        yield member.name, (digest.hexdigest(), member.size)


def _plain(text: str) -> bool:
    """Whether a text may be shown: a file from elsewhere may hold orders to a terminal."""
    return text.isascii() and text.isprintable()


def _document(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    if content is None or member.size > MAX_DOCUMENT_BYTES:
        raise BadBundle(f"{member.name} is no document")
    return content.read()


def _checked(listed: Node, members: Mapping[str, int]) -> Checked:
    onto = listed.get("onto")
    said = {key: listed.need(key).text() for key in ("engine", "name", "platform", "image")}
    if not all(_plain(text) for text in (*said.values(), onto.text() if onto else "")):
        raise BadBundle(f"{LIST} holds characters that are not for showing")
    return Checked(
        **said,
        onto=onto.text() if onto else "",
        members=members,
    )
