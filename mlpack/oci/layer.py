"""Layers: entries in, one blob and its two digests out, the same bytes on every machine.

:func:`arrange` checks the entries a caller wants in a layer, adds parent directories, normalises
and sorts them. :func:`ordered` checks and sorts only, for entries that must keep owners, modes,
extended attributes and devices of another image. Whiteouts have the names of image-spec, layer.md.

Headers are POSIX ustar (IEEE Std 1003.1, *pax*), with a pax extended header only if a name, a
link or a size does not fit. The compressor is libdeflate, pinned to a version: it gives the same
bytes on all processors, which ISA-L and Python's ``tarfile`` and ``zlib`` do not
(docs/design/decisions.md has the measurements).
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal, get_args

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import WHITEOUT, Descriptor, Hashed, Hashing, UnsafeEntry, Writable
from mlpack.oci.image import Layer, Packing

EntryKind = Literal[
    "file", "directory", "symlink", "hardlink", "whiteout", "opaque", "character", "block", "fifo"
]
DEVICES = frozenset({"character", "block", "fifo"})

OPAQUE = f"{WHITEOUT}.wh..opq"
_STICKY_SHARED = 0o1002
_NOT_LINKED = frozenset({"directory", "hardlink", "whiteout", "opaque"})
_NOT_FILES = frozenset(get_args(EntryKind)) - {"file"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer."""

    path: str
    """Relative POSIX path in the image (``var/azureml-app/score.py``)."""

    kind: EntryKind = "file"
    mode: int = 0o644
    size: int = 0
    """Size of a file in bytes; 0 for every other kind."""

    target: str = ""
    """The text of a symlink, or the path in the layer that a hardlink refers to."""

    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    """Extended attributes, sorted by name."""

    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device."""

    @property
    def name(self) -> str:
        """The member's name in the tar; whiteouts have special names."""
        folder, base = posixpath.split(self.path)
        if self.kind == "whiteout":
            return posixpath.join(folder, WHITEOUT + base)
        return posixpath.join(self.path, OPAQUE) if self.kind == "opaque" else self.path


def arrange(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Check, complete, normalise and sort ``entries``.

    Every parent directory is listed (engines create missing ones differently), modes become 0644,
    0755 or 1777, and entries are sorted by name, so the same files give the same bytes whatever
    their order was. Raises :class:`UnsafeEntry`.

    >>> [each.path for each in arrange([Entry("a/b")])]
    ['a', 'a/b']
    """
    kept: dict[str, Entry] = {}
    for entry in entries:
        _check(entry)
        if entry.name in kept and kept[entry.name] != _normal(entry):
            raise UnsafeEntry(f"{entry.path!r} is given twice, with different content")
        kept[entry.name] = _normal(entry)
    for entry in list(kept.values()):
        for parent in parents(entry.path if entry.kind != "opaque" else entry.name):
            found = kept.setdefault(parent, Entry(parent, "directory", 0o755))
            if found.kind != "directory":
                raise UnsafeEntry(f"{entry.path!r} lies below {parent!r}, a {found.kind}")
    _check_hardlinks(kept, _NOT_FILES)
    return tuple(sorted(kept.values(), key=_order))


def ordered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Check and sort ``entries`` without changing them.

    They must include every parent directory, because mlpack cannot know its owner and mode. Names
    that are not UTF-8 use ``surrogateescape``. Raises :class:`UnsafeEntry`.
    """
    kept: dict[str, Entry] = {}
    for entry in entries:
        media.check_clean(entry.path)
        _check_size(entry)
        if kept.setdefault(entry.name, entry) != entry:
            raise UnsafeEntry(f"{entry.path!r} is given twice, with different content")
    for entry in kept.values():
        parent = posixpath.dirname(entry.name)
        if parent and (parent not in kept or kept[parent].kind != "directory"):
            raise UnsafeEntry(
                f"{entry.path!r} lies below {parent!r}, which is not a directory of the layer"
            )
    _check_hardlinks(kept, _NOT_LINKED)
    return tuple(sorted(kept.values(), key=_exact_order))


def escapes(path: str, target: str) -> bool:
    """Whether a symlink at ``path`` with text ``target`` leads above the root of the tree.

    An absolute target starts at that root, as in a container.

    >>> escapes("a/link", "../b"), escapes("a/link", "../../b")
    (False, True)
    """
    start = "" if target.startswith("/") else posixpath.dirname(path)
    depth = len([part for part in start.split("/") if part])
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def _check(entry: Entry) -> None:
    media.check_path(entry.path)
    if entry.kind not in get_args(EntryKind) or entry.kind in DEVICES:
        raise UnsafeEntry(f"{entry.path!r} is a {entry.kind}: a layer holds files and links only")
    _check_size(entry)
    if entry.kind == "symlink" and (not entry.target or escapes(entry.path, entry.target)):
        raise UnsafeEntry(f"{entry.path!r} is a symlink out of the tree, to {entry.target!r}")
    if entry.kind == "hardlink":
        media.check_path(entry.target)


def _check_size(entry: Entry) -> None:
    if entry.size < 0 or (entry.size and entry.kind != "file"):
        raise UnsafeEntry(f"{entry.path!r}: a {entry.kind} of {entry.size} bytes")


def _normal(entry: Entry) -> Entry:
    entry = replace(entry, uid=0, gid=0, xattrs=(), device=(0, 0))
    if entry.kind == "file" or entry.kind == "hardlink":
        return replace(entry, mode=0o755 if entry.mode & 0o111 else 0o644)
    if entry.kind == "directory":
        shared = entry.mode & _STICKY_SHARED == _STICKY_SHARED
        return replace(entry, mode=0o1777 if shared else 0o755)
    return replace(entry, mode=0o777 if entry.kind == "symlink" else 0o644)


def parents(path: str) -> Iterator[str]:
    """Yield the directories above ``path``, the nearest first."""
    while path := posixpath.dirname(path):
        yield path


def _check_hardlinks(kept: dict[str, Entry], refused: frozenset[str]) -> None:
    """Raise :class:`UnsafeEntry` for a link to a missing path or of a ``refused`` kind."""
    for entry in kept.values():
        first = kept.get(entry.target)
        if entry.kind == "hardlink" and (first is None or first.kind in refused):
            raise UnsafeEntry(f"{entry.path!r} is a hardlink to {entry.target!r}, not a file here")


def _order(entry: Entry) -> tuple[object, ...]:
    # By parts, so that a directory comes right before its content ("a", "a/b", "a-b"), and an
    # opaque whiteout before what replaces it; hardlinks last, after the files they refer to.
    return (entry.kind == "hardlink", *entry.name.split("/"))


def _exact_order(entry: Entry) -> tuple[object, ...]:
    # As above, but an opaque whiteout comes right after its directory, before anything in it.
    mark = ("",) if entry.kind == "opaque" else ()
    return (entry.kind == "hardlink", *entry.path.split("/"), *mark)


PACKING = Packing(revision=1, compressor="deflate 0.9.0")
"""How this version of mlpack writes layers, as the constants of this module."""

MEMBER = 8 * 1024 * 1024
"""Bytes of tar in one gzip member (RFC 1952, 2.2); each takes twice as much memory. libdeflate
compresses one piece at a time, and engines read the members as one stream."""

_SMALL = 4 * 1024 * 1024
"""Up to this size the best level is cheap: a 6 KB model takes 1.5 ms, 1 MB of weights 40 ms."""

_BEST, _GENERAL, _WEIGHTS = 12, 10, 6
_NOISE, _DENSE = 0.99, 0.70
"""Samples that compress to more than the first share of their size are stored; more than the
second means weights, which slow levels hardly shrink (83.9 % at level 6, 83.7 % at level 12)."""

_SAMPLES, _SAMPLE = 16, 64 * 1024
_WORKERS = 2


class WrongCompressor(MlpackError):
    """A compressor other than the pinned one, on which layer digests depend."""

    hint = "install the pinned one: pip install deflate==0.9.0"


OpenFile = Callable[[str], AbstractContextManager[BinaryIO]]
"""Opens the content of a file by its path in the layer, as a stream that can seek."""


def choose_level(entries: Sequence[Entry], open_file: OpenFile) -> int:
    """Choose the compression level from the content alone; 0 means a plain tar.

    All three engines accept a plain tar (measured on Docker 20.10, containerd 1.6, podman
    4.3), and it costs a device nothing to inflate.
    """
    if sum(entry.size for entry in entries) <= _SMALL:
        return _BEST
    ratio = _sampled_ratio(entries, open_file)
    if ratio > _NOISE:
        return 0
    return _WEIGHTS if ratio > _DENSE else _GENERAL


class Gzip:
    """Compresses what is written into ``out``; :meth:`finish` ends the stream.

    Two threads compress members (libdeflate releases the GIL), which are written in order, so at
    most three are in memory.
    """

    def __init__(self, out: Writable, level: int) -> None:
        self._out = out
        self._level = level
        self._open = bytearray()
        self._pool: ThreadPoolExecutor | None = None
        self._running: deque[Future[bytes]] = deque()

    def write(self, data: bytes) -> None:
        """Write the next bytes of the tar."""
        self._open += data
        while len(self._open) >= MEMBER:
            self._submit(bytes(memoryview(self._open)[:MEMBER]))
            del self._open[:MEMBER]

    def finish(self) -> None:
        """Write what is left, and close."""
        while self._running:
            self._out.write(self._running.popleft().result())
        if self._open:
            self._out.write(_member(bytes(self._open), self._level))
        self.close()

    def close(self) -> None:
        """End the threads; unfinished members are discarded."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _submit(self, data: bytes) -> None:
        self._pool = self._pool or ThreadPoolExecutor(_WORKERS, thread_name_prefix="deflate")
        if len(self._running) == _WORKERS:
            self._out.write(self._running.popleft().result())
        self._running.append(self._pool.submit(_member, data, self._level))


def _member(data: bytes, level: int) -> bytes:
    """Return a gzip member; libdeflate writes no name, time 0 and system 255."""
    import deflate

    if PACKING.compressor != f"deflate {deflate.__version__}":
        raise WrongCompressor(
            f"deflate {deflate.__version__} is installed; layers are written with "
            f"{PACKING.compressor}, and another version may give other digests"
        )
    return bytes(deflate.gzip_compress(data, level))


def _sampled_ratio(entries: Sequence[Entry], open_file: OpenFile) -> float:
    """Return the compression ratio of samples of all large files at the fastest level."""
    before = after = 0
    for entry in (each for each in entries if each.size >= _SAMPLE):
        with open_file(entry.path) as content:
            for start in range(0, entry.size, max(_SAMPLE, entry.size // _SAMPLES)):
                content.seek(start)
                sample = content.read(_SAMPLE)
                before += len(sample)
                after += len(_member(sample, 1)) if sample else 0
    return after / before if before else 0.0


BLOCK = 512
END = b"\0" * (2 * BLOCK)
"""Two empty blocks end an archive, without padding to a record of 20."""

_TYPES = {
    "file": b"0", "whiteout": b"0", "opaque": b"0", "hardlink": b"1", "symlink": b"2",
    "character": b"3", "block": b"4", "directory": b"5", "fifo": b"6",
}  # fmt: skip
_MAX_OCTAL_SIZE = 8**11 - 1
_MAX_OCTAL_ID = 8**7 - 1
_NAME, _PREFIX = 100, 155


def header(entry: Entry) -> bytes:
    """Return the block before an entry's content, or three with an extended header.

    Owners are numbers without names, and the modification time is 0: a layer's name is a hash
    of these bytes, and nothing of the machine may reach it.
    """
    name = entry.name + ("/" if entry.kind == "directory" else "")
    raw, link = _encoded(name), _encoded(entry.target)
    records = {f"SCHILY.xattr.{key}": value for key, value in entry.xattrs}
    split = _split(raw)
    if split is None or not name.isascii():
        records["path"] = raw
        split = (raw[-_NAME:] if name.isascii() else b"pax", b"")
    if len(link) > _NAME or not entry.target.isascii():
        records["linkpath"], link = link, b""
    numbers = {"uid": entry.uid, "gid": entry.gid, "size": entry.size}
    for key, limit in (("uid", _MAX_OCTAL_ID), ("gid", _MAX_OCTAL_ID), ("size", _MAX_OCTAL_SIZE)):
        if numbers[key] > limit:
            records[key], numbers[key] = str(numbers[key]).encode(), 0
    main = _block(
        _Fields(split, _TYPES[entry.kind], entry.mode, link=link, device=entry.device, **numbers)
    )
    return _extended(records) + main if records else main


def _encoded(text: str) -> bytes:
    # Linux names are bytes; those that are not UTF-8 stay unchanged.
    return text.encode("utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """Return the zeros between the end of ``size`` bytes and the next block."""
    return b"\0" * (-size % BLOCK)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Return name and prefix fields of a ustar header, or ``None`` if the name is too long."""
    if len(name) <= _NAME:
        return name, b""
    for place, byte in enumerate(name[: _PREFIX + 1]):
        if byte == ord("/") and 0 < len(name) - place - 1 <= _NAME:
            return name[place + 1 :], name[:place]
    return None


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of one header block; numbers must fit."""

    names: tuple[bytes, bytes]
    kind: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)


def _block(header: _Fields) -> bytes:
    name, prefix = header.names
    fields = (
        name.ljust(100, b"\0"),
        b"%07o\0" % header.mode,
        b"%07o\0" % header.uid,
        b"%07o\0" % header.gid,
        b"%011o\0" % header.size,
        b"00000000000\0",  # mtime
        b" " * 8,  # checksum, summed as spaces
        header.kind,
        header.link.ljust(100, b"\0"),
        b"ustar\x0000",
        b"\0" * 64,  # user and group name
        b"%07o\0" % header.device[0],
        b"%07o\0" % header.device[1],
        prefix.ljust(155, b"\0"),
        b"\0" * 12,
    )
    block = b"".join(fields)
    if len(block) != BLOCK:
        raise MlpackError(f"a tar header of {len(block)} bytes for {name!r}")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _extended(records: dict[str, bytes]) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    head = _block(_Fields((b"pax", b""), b"x", 0o644, size=len(body)))
    return head + body + padding(len(body))


def _record(key: str, value: bytes) -> bytes:
    """Return a pax record; its length counts its own digits."""
    rest = b" " + _encoded(key) + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


CHUNK = 1024 * 1024


class ContentChanged(MlpackError):
    """A file whose size differs from when the layer was planned."""

    hint = "make sure nothing writes to the model's files while mlpack reads them, and run it again"


def write_layer(entries: Iterable[Entry], open_file: OpenFile, out: Hashed) -> Layer:
    """Write a layer of ``entries`` to ``out``, which is empty.

    The same entries and content give the same bytes on every machine, as :data:`PACKING` lays
    down. Memory stays flat: content passes through in chunks of 1 MiB. Raises
    :class:`~mlpack.oci.descriptor.UnsafeEntry` before anything is written, and
    :class:`ContentChanged` if a file does not have its announced size.
    """
    return write_arranged(arrange(entries), open_file, out)


def write_arranged(arranged: Sequence[Entry], open_file: OpenFile, out: Hashed) -> Layer:
    """Write entries that :func:`~mlpack.oci.layer.arrange` or ``ordered`` has returned."""
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
    """Compress a layer of ``size`` bytes that another tool wrote to ``out``."""
    with closing(Gzip(out, _BEST if size <= _SMALL else _WEIGHTS)) as gzip:
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
