"""Unpacking layers to disk, as a container engine does, below one directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mlpack.oci.descriptor import Digest
from mlpack.oci.filesystem import FileNode
from mlpack.oci.image import Layer
from mlpack.stores.store import Readable
from mlpack.stores.trees import copy_contents, read_tree

_CONTENTS = ".contents"
_PERMISSIONS = 0o1777
"""Bits that are kept: nothing unpacked here may change its user."""


def unpack(store: Readable, layers: Sequence[Layer], folder: Path) -> None:
    """Write what ``layers``, bottom first, hold into ``folder``, which must be empty.

    Symlinks are made last, so that no write follows one; devices and pipes are left out. Owners
    are set only for root. Raises what :func:`~mlpack.stores.trees.read_tree` raises.
    """
    layered = read_tree(store, layers)
    tree, contents = layered.tree, folder / _CONTENTS
    contents.mkdir()
    files = [path for path, node in tree.items() if node.content is not None]
    copy_contents(layered, files, contents)
    for path, node in tree.items():
        if node.kind == "directory":
            (folder / path).mkdir(parents=True)
    placed: dict[tuple[Digest, int, int, int], Path] = {}
    for path in files:
        _place(tree[path], contents, folder / path, placed)
    shutil.rmtree(contents)
    for path, node in tree.items():
        if node.kind == "symlink":
            (folder / path).symlink_to(node.target)
    for path in sorted(tree, reverse=True):
        if tree[path].kind == "directory":
            _own(folder / path, tree[path], least=0o700)


def _place(
    node: FileNode, contents: Path, path: Path, placed: dict[tuple[Digest, int, int, int], Path]
) -> None:
    """Give the file of a node its name: moved, or linked if another equal one has it."""
    if node.content is None:
        return
    key = (node.content, node.mode, node.uid, node.gid)
    if key in placed:
        os.link(placed[key], path)
        return
    shutil.copyfile(contents / node.content.hex, path)
    _own(path, node, least=0o400)
    placed[key] = path


def _own(path: Path, node: FileNode, *, least: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, node.uid, node.gid)
    path.chmod(node.mode & _PERMISSIONS | least)
