"""Writing a new project's files beside what is there, and over none of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.stores.files import atomic

GITIGNORE = ".gitignore"


class AlreadyThere(MlpackError):
    """Files that a new project would overwrite."""

    hint = "choose an empty directory (mlpack init DIR), or move these files away first"


def write_starter(folder: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write all ``files`` into ``folder``, or none; return what was written.

    Raises :class:`AlreadyThere` naming every file that exists. Lines that an
    existing ``.gitignore`` lacks are added to it.
    """
    taken = [name for name in files if name != GITIGNORE and _exists(folder / name)]
    if taken:
        raise AlreadyThere(f"{folder} has {', '.join(taken)} already")
    before = {name: _content(folder / name) for name in files}
    try:
        for name, content in files.items():
            with atomic(folder / name) as out:
                out.write(merged_lines(before[name], content) if name == GITIGNORE else content)
    except BaseException:
        _put_back(folder, before)
        raise
    return tuple(files)


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def merged_lines(before: bytes | None, lines: bytes) -> bytes:
    """What was ``before`` in a file of lines, and those of ``lines`` it lacks."""
    if not before:
        return lines
    held = {line.strip() for line in before.splitlines()}
    missing = [line for line in lines.splitlines() if line.strip() and line.strip() not in held]
    end = b"" if before.endswith(b"\n") or not missing else b"\n"
    return before + end + b"".join(line + b"\n" for line in missing)


def _put_back(folder: Path, before: Mapping[str, bytes | None]) -> None:
    """Undo an interrupted start: a second try must not meet the first one's files."""
    for name, content in before.items():
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            with atomic(folder / name) as out:
                out.write(content)
