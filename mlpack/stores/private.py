"""Files with a secret: for their owner alone to read, and never for git to keep."""

from __future__ import annotations

from pathlib import Path

from mlpack.stores.files import PRIVATE, atomic
from mlpack.stores.starter import GITIGNORE, merged_lines


def write_private(path: Path, content: bytes) -> None:
    """Write ``path`` whole or not at all, mode 0600, after git was told to leave it out."""
    if any((folder / ".git").exists() for folder in path.resolve().parents):
        _ignore(path)
    with atomic(path, mode=PRIVATE) as out:
        out.write(content)


def _ignore(path: Path) -> None:
    """Name ``path`` in the ``.gitignore`` beside it, once."""
    ignore = path.parent / GITIGNORE
    said = ignore.read_bytes() if ignore.is_file() else None
    line = f"/{_escaped(path.name)}\n".encode()
    made = merged_lines(said, line)
    if made != said:
        with atomic(ignore) as out:
            out.write(made)


def _escaped(name: str) -> str:
    """A file's name as the pattern that matches it alone (gitignore(5))."""
    plain = "".join(f"\\{char}" if char in "\\*?[" else char for char in name)
    return f"{plain[:-1]}\\ " if plain.endswith(" ") else plain
