"""Installed Python packages as the files of a layer: what is kept, and what it links to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpack.base.elf import MAGIC, needs, shrink
from mlpack.base.items import Advance, Item, file, symlink
from mlpack.base.rules import PACKAGES, Dropped, rule_for

_LAZY_STUBS = b"attach_stub"
"""``lazy_loader`` reads a package's type stub when it is imported (scikit-image does)."""


@dataclass(frozen=True)
class PackagesPart:
    """The files of the packages layer."""

    items: tuple[Item, ...]
    dropped: tuple[Dropped, ...]
    needs: Mapping[str, tuple[str, ...]]
    """By path: the libraries each shared object is linked to."""

    @property
    def needed(self) -> frozenset[str]:
        """All libraries something in here is linked to."""
        return frozenset(name for names in self.needs.values() for name in names)


def collect(directory: Path, place: str, advance: Advance = lambda _: None) -> PackagesPart:
    """What of ``directory``, where uv installed, goes to ``place`` in the image.

    Shared objects are shrunk where they lie: ``directory`` is the caller's to change.
    ``advance`` is asked before each file, and stops the work by raising.
    """
    items: list[Item] = []
    linked: dict[str, tuple[str, ...]] = {}
    counted: dict[str, Dropped] = {}
    for source in _files(directory):
        advance(0)
        path = source.relative_to(directory).as_posix()
        rule = rule_for(PACKAGES, path)
        if rule is not None and not _read_when_imported(source):
            before = counted.get(rule.why, Dropped(rule.why, 0, 0))
            size = before.bytes + source.lstat().st_size
            counted[rule.why] = Dropped(rule.why, before.files + 1, size)
            continue
        item = _item(source, f"{place}/{path}")
        items.append(item)
        if item.entry.kind == "file" and _is_elf(source):
            linked[item.path] = needs(source.read_bytes())
    return PackagesPart(tuple(items), tuple(counted.values()), linked)


def _files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield path


def _item(source: Path, path: str) -> Item:
    if source.is_symlink():
        return symlink(path, str(source.readlink()))
    mode = source.stat().st_mode
    if _is_elf(source):
        before = source.read_bytes()
        after = shrink(before)
        if after != before:
            source.write_bytes(after)
    elif path.endswith(".dist-info/METADATA"):
        return file(path, metadata_head(source.read_bytes()), mode)
    return file(path, source, mode)


def metadata_head(content: bytes) -> bytes:
    """A package's metadata without its long description, which is its web page.

    >>> metadata_head(b"Name: a\\nVersion: 1\\n\\n# A\\n\\nLong.\\n")
    b'Name: a\\nVersion: 1\\n'
    """
    head, blank, _ = content.partition(b"\n\n")
    return head + b"\n" if blank else content


def _is_elf(path: Path) -> bool:
    with path.open("rb") as content:
        return content.read(len(MAGIC)) == MAGIC


def _read_when_imported(path: Path) -> bool:
    """Whether a type stub is one that its package reads at run time."""
    if path.suffix != ".pyi":
        return False
    module = path.with_suffix(".py")
    return module.is_file() and _LAZY_STUBS in module.read_bytes()
