"""Writing bundle files, and verifying them."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from mlpack.errors import MlpackError
from mlpack.json_document import OR_NULL, written
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Digest,
    InvalidContent,
    Node,
    Writable,
    parse,
)
from mlpack.oci.image import Layer
from mlpack.oci.layer import BLOCK, END, Entry, Gzip, header, padding
from mlpack.plan.bundle import LIST, Bundle
from mlpack.stores.files import atomic, file_sha256, naming, open_file
from mlpack.stores.store import CHUNK, Readable, verified
from mlpack.stores.trees import open_plain

_BEST, _LARGE = 12, 6
_GZIP = b"\x1f\x8b"
MAX_MEMBERS = 300


class BadBundle(MlpackError):
    """A file that is not a bundle, or a bundle that changed in transit."""

    hint = "copy it again from its source, or make it again with: mlpack bundle"


def _listed(members: object) -> object:
    """Return a bundle's members as its document lists them."""
    sizes = members.items() if isinstance(members, Mapping) else ()
    return [{"path": path, "bytes": size} for path, size in sizes]


@dataclass(frozen=True, kw_only=True)
class VerifiedBundle:
    """A bundle whose members all match its list of digests."""

    engine: str
    name: str
    platform: str
    image: str
    onto: str = field(metadata=OR_NULL)
    """The digest of the image that a device must have; empty if it needs none."""

    members: Mapping[str, int] = field(metadata=written(_listed))
    """Bytes of each member, by path."""


def write_bundle(store: Readable, made: Bundle, path: Path) -> Descriptor:
    """Write ``made`` to ``path``, whole or not at all; the bytes are deterministic."""
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
    """Open a layer as the file has it; its compression is told by its bytes, as engines do."""
    if not unpack:
        with store.open(layer.descriptor) as blob:
            yield layer.size, verified(blob, layer.descriptor)
        return
    # A tar header has the size before the content, so the layer is unpacked to a file first.
    with tempfile.TemporaryFile() as aside:
        with naming(Path(tempfile.gettempdir())):
            size = _unpack(store, layer, cast(BinaryIO, aside))
        aside.seek(0)
        yield size, iter(lambda: aside.read(CHUNK), b"")


def _unpack(store: Readable, layer: Layer, out: BinaryIO) -> int:
    """Write a layer's tar to ``out``, and return its size; its diff id and length are checked."""
    size = 0
    with open_plain(store, layer) as content:
        while chunk := content.read(CHUNK):
            size += out.write(chunk)
    return size


def check_bundle(path: Path) -> VerifiedBundle:
    """Read ``path`` to its end; raise :class:`BadBundle` unless every member is as listed."""
    try:
        with open_file(path) as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            content = _CountingReader(gzip.GzipFile(fileobj=file) if packed else file)
            with tarfile.open(fileobj=content, mode="r|") as archive:  # type: ignore[call-overload]
                checked, size = _check(archive, str(path))
            if content.count_all() != size:
                raise BadBundle(f"{path} has data after its last member")
            return checked
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadBundle(f"{path} cannot be read to its end ({error})") from error
    except InvalidContent as error:
        raise BadBundle(f"{path}: {error}") from error


class _CountingReader:
    """Counts what is read: tarfile accepts an archive without an end."""

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


def _check(archive: tarfile.TarFile, where: str) -> tuple[VerifiedBundle, int]:
    """Compare all members with the list; also return how long the archive must be."""
    members = iter(archive)
    first = next(members, None)
    if first is None or first.name != LIST:
        raise BadBundle(f"{where} is not a bundle: it does not start with {LIST}")
    listed = parse(_document(archive, first), LIST)
    expected = listed.need("sha256").text_map()
    found = dict(_hashes(archive, members, where))
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise BadBundle(f"{where}: {name} is missing")
        if name not in expected:
            raise BadBundle(f"{where}: {name} is not in the list of digests")
        if found[name][0] != expected[name]:
            raise BadBundle(f"{where}: {name} does not match the list of digests")
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
        if member.name in seen or not member.isreg() or not _printable(member.name):
            raise BadBundle(f"{where}: {member.name!r} is listed twice, or is not a regular file")
        seen.add(member.name)
        content = archive.extractfile(member)
        digest = hashlib.file_digest(cast(io.BufferedReader, content), "sha256")
        yield member.name, (digest.hexdigest(), member.size)


def _printable(text: str) -> bool:
    """Whether a text may be printed: a foreign file may contain terminal escape sequences."""
    return text.isascii() and text.isprintable()


def _document(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    if content is None or member.size > MAX_DOCUMENT_BYTES:
        raise BadBundle(f"{member.name} is not a document")
    return content.read()


def _checked(listed: Node, members: Mapping[str, int]) -> VerifiedBundle:
    onto = listed.get("onto")
    texts = {key: listed.need(key).text() for key in ("engine", "name", "platform", "image")}
    if not all(_printable(text) for text in (*texts.values(), onto.text() if onto else "")):
        raise BadBundle(f"{LIST} contains unprintable characters")
    return VerifiedBundle(
        **texts,
        onto=onto.text() if onto else "",
        members=members,
    )
