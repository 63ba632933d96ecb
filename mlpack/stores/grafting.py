"""Making a graft: reading both images' trees, writing the layer between them, reading it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from mlpack.errors import MlpackError
from mlpack.oci.difference import Difference, difference
from mlpack.oci.image import Image, Layer
from mlpack.oci.layer import write_arranged
from mlpack.plan.graft import grafted
from mlpack.stores.layout import LayoutStore
from mlpack.stores.references import Found
from mlpack.stores.trees import Pile, copy_contents, read_tree

Advance = Callable[[int], None]
"""Told the bytes of each layer that has been read."""


class Ungraftable(MlpackError):
    """A graft that does not give the tree it should: nothing is published."""

    hint = "publish NEW as it is, and report this with both images' digests"


@dataclass(frozen=True, kw_only=True)
class Grafted:
    """A graft as written, and the two trees it is between."""

    image: Image
    layer: Layer | None
    """``None`` where the file systems are equal."""

    difference: Difference
    before: Pile
    after: Pile

    def check(self, work: LayoutStore) -> None:
        """Read the layer as it lies there now, on the old tree: it must give the new one."""
        added = [self.layer] if self.layer else []
        result, wanted = read_tree(work, added, self.before).tree, self.after.tree
        if result != wanted:
            paths = {*result, *wanted}
            wrong = sorted(path for path in paths if result.get(path) != wanted.get(path))
            raise Ungraftable(f"the graft would differ from NEW in {', '.join(wrong[:5])}")


def make_graft(work: LayoutStore, old: Found, new: Found, advance: Advance) -> Grafted:
    """Write into ``work`` the layer that turns ``old`` into ``new``, and describe the image."""
    before, after = _read(old, new, advance)
    found = difference(before.tree, after.tree)
    layer = _write(work, found, after) if found.entries else None
    image = grafted(old.image, new.image, layer)
    return Grafted(image=image, layer=layer, difference=found, before=before, after=after)


def _read(old: Found, new: Found, advance: Advance) -> tuple[Pile, Pile]:
    """Both images' trees; the layers at the bottom of both are read once."""
    chains = zip(old.image.chain_ids, new.image.chain_ids, strict=False)
    shared = len([ours for ours, theirs in chains if ours == theirs])
    bottom = _pile(new, new.image.layers[:shared], None, advance)
    return (
        _pile(old, old.image.layers[shared:], bottom, advance),
        _pile(new, new.image.layers[shared:], bottom, advance),
    )


def _pile(found: Found, layers: Sequence[Layer], on: Pile | None, advance: Advance) -> Pile:
    pile = on or Pile((), {})
    for layer in layers:
        pile = read_tree(found.store, [layer], pile)
        advance(layer.size)
    return pile


def _write(work: LayoutStore, found: Difference, after: Pile) -> Layer:
    """Write the layer; contents wait in a folder, since layers can be read forward only."""
    with TemporaryDirectory(prefix="mlpack-graft-") as name:
        folder = Path(name)
        copy_contents(after, found.files, folder)

        @contextmanager
        def open_file(path: str) -> Iterator[BinaryIO]:
            content = after.tree[path].content
            if content is None:
                raise Ungraftable(f"{path!r} is a file without content")
            with (folder / content.hex).open("rb") as opened:
                yield opened

        with work.stage() as out:
            layer = write_arranged(found.entries, open_file, out)
            out.commit(layer.descriptor)
    return layer
