"""Writing a layer: arranged entries in, one blob and its two digests out, in flat memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.compression import Gzip, OpenFile, choose_level, tar_level
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Hashed, Hashing, Writable
from mlpack.oci.image import Layer
from mlpack.oci.tarball import END, header, padding
from mlpack.oci.tree import Entry, arrange

CHUNK = 1024 * 1024


class ContentChanged(MlpackError):
    """A file that is not as long as it was when the layer was planned."""

    hint = "let nothing write to the model's files while mlpack reads them, and run it again"


def write_layer(entries: Iterable[Entry], open_file: OpenFile, out: Hashed) -> Layer:
    """Write the layer that holds ``entries`` to ``out``, which is empty, and return its names.

    The same entries and content give the same bytes on every machine, as
    :data:`~mlpack.oci.compression.PACKING` lays down. Memory stays flat: content
    passes through in chunks of 1 MiB. Raises :class:`~mlpack.oci.tree.UnsafeEntry`
    before anything is written, and :class:`ContentChanged` where a file is not of
    its announced size.
    """
    return write_arranged(arrange(entries), open_file, out)


def write_arranged(arranged: Sequence[Entry], open_file: OpenFile, out: Hashed) -> Layer:
    """Write entries that :func:`~mlpack.oci.tree.arrange` or ``ordered`` has returned."""
    level = choose_level(arranged, open_file)
    if not level:
        write_tar(arranged, open_file, out)
        return Layer(Descriptor(media.LAYER_TAR, out.digest, out.size), out.digest)
    with closing(Gzip(out, level)) as gzip:
        tar = Hashing(gzip)
        write_tar(arranged, open_file, tar)
        gzip.finish()
    return Layer(Descriptor(media.LAYER_GZIP, out.digest, out.size), tar.digest)


def pack_layer(tar: Iterable[bytes], size: int, out: Hashed) -> Layer:
    """Deflate the ``size`` bytes of a layer another tool wrote, as they are, to ``out``."""
    with closing(Gzip(out, tar_level(size))) as gzip:
        plain = Hashing(gzip)
        for chunk in tar:
            plain.write(chunk)
        gzip.finish()
    return Layer(Descriptor(media.LAYER_GZIP, out.digest, out.size), plain.digest)


def write_tar(entries: Iterable[Entry], open_file: OpenFile, out: Writable) -> None:
    """Write arranged entries as a tar, uncompressed."""
    for entry in entries:
        out.write(header(entry))
        if entry.kind == "file":
            _copy(entry, open_file, out)
            out.write(padding(entry.size))
    out.write(END)


def _copy(entry: Entry, open_file: OpenFile, out: Writable) -> None:
    left = entry.size
    with open_file(entry.path) as content:
        while left and (chunk := content.read(min(CHUNK, left))):
            out.write(chunk)
            left -= len(chunk)
        if left or content.read(1):
            raise ContentChanged(f"{entry.path} is not the {entry.size} bytes it was")
