"""``mlpack graft``: what another tool built anew, as one small layer on what devices hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from mlpack.api.diff import find_move
from mlpack.errors import MlpackError, UsageError
from mlpack.model.recipe import DeviceRecipe
from mlpack.oci.descriptor import Platform
from mlpack.oci.difference import Difference, difference
from mlpack.oci.image import Image, Layer
from mlpack.oci.layer import write_arranged
from mlpack.plan.engines import engine as known_engine
from mlpack.plan.graft import Choice, choose, grafted
from mlpack.plan.transfer import Link
from mlpack.stores.base import put_image
from mlpack.stores.layout import LayoutStore
from mlpack.stores.project import Project
from mlpack.stores.references import Found
from mlpack.stores.trees import Pile, copy_contents, read_tree

Advance = Callable[[int], None]
"""Told the bytes of each layer that has been read."""


class NotLinux(MlpackError):
    """Layers of Windows hold other things than files."""

    hint = "mlpack grafts images for linux"


class Ungraftable(MlpackError):
    """A graft that does not give the tree it should: nothing is published."""

    hint = "publish NEW as it is, and report this with both images' digests"


@dataclass(frozen=True, kw_only=True)
class Graft:
    """What was published, and why this way."""

    reference: str
    old: Image
    new: Image
    choice: Choice
    layer: Layer | None
    """What the graft adds; ``None`` where the file systems are equal."""

    difference: Difference

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json graft``."""
        layer = self.layer if self.choice.strategy == "graft" else None
        return {
            "reference": self.reference,
            "digest": str(self.choice.image.digest),
            "strategy": self.choice.strategy,
            "why": self.choice.why,
            "platform": str(self.choice.image.platform),
            "old": str(self.old.digest),
            "new": str(self.new.digest),
            "layer": {
                "digest": str(layer.digest),
                "diff_id": str(layer.diff_id),
                "bytes": layer.size,
            }
            if layer
            else None,
            "paths": {
                "added": self.difference.added,
                "changed": self.difference.changed,
                "removed": self.difference.removed,
            },
            "transfer": self.choice.transfer.to_json(),
            "transfer_new": self.choice.new.to_json(),
            "transfer_graft": self.choice.graft.to_json() if self.choice.graft else None,
        }


def graft(
    project: Project | None,
    old: str,
    new: str,
    out: str,
    *,
    engine: str = "",
    platform: Platform | None = None,
    advance: Advance = lambda _: None,
) -> Graft:
    """Publish at ``out`` (``oci:PATH:TAG``) what brings a device on ``old`` to ``new`` cheapest.

    That is ``old`` with one layer and ``new``'s settings, or ``new`` itself. The tree is
    read back from what was written, and nothing is named unless it is ``new``'s. Raises
    :class:`NotLinux`, :class:`Ungraftable`, and what finding and reading images raises.
    """
    layout, tag = _target(out)
    device = project.recipe.device if project else DeviceRecipe()
    chosen = known_engine(engine or device.engine)
    move = find_move(project, old, new, platform=platform)
    if move.old is None:
        raise UsageError("a graft needs an image to stand on", hint="give OLD, not none")
    if move.new.image.platform.os != "linux":
        raise NotLinux(f"{new} is for {move.new.image.platform}")
    before, after = _read(move.old, move.new, advance)
    found = difference(before.tree, after.tree)
    layer = _write(layout, found, after) if found.entries else None
    choice = choose(
        move.old.image,
        move.new.image,
        grafted(move.old.image, move.new.image, layer),
        chosen,
        Link.of(device),
    )
    if choice.strategy == "graft":
        _check(layout, layer, before, after)
    _keep(layout, choice.image, (move.old, move.new))
    layout.tag(put_image(layout, choice.image), tag)
    return Graft(
        reference=out,
        old=move.old.image,
        new=move.new.image,
        choice=choice,
        layer=layer,
        difference=found,
    )


def _target(out: str) -> tuple[LayoutStore, str]:
    kind, _, rest = out.partition(":")
    path, _, tag = rest.rpartition(":")
    if kind != "oci" or not path or not tag or "/" in tag:
        raise UsageError(
            f"{out!r} is no place for a graft",
            hint="write it as oci:DIR:TAG; copy it from there: skopeo copy oci:DIR:TAG docker://…",
        )
    return LayoutStore(Path(path)), tag


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


def _write(layout: LayoutStore, found: Difference, after: Pile) -> Layer:
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

        with layout.stage() as out:
            layer = write_arranged(found.entries, open_file, out)
            out.commit(layer.descriptor)
    return layer


def _check(layout: LayoutStore, layer: Layer | None, before: Pile, after: Pile) -> None:
    """Read the layer as it lies there now, on the old tree: it must give the new one."""
    result = read_tree(layout, [layer] if layer else [], before).tree
    if result != after.tree:
        paths = {*result, *after.tree}
        wrong = sorted(path for path in paths if result.get(path) != after.tree.get(path))
        raise Ungraftable(f"the graft would differ from NEW in {', '.join(wrong[:5])}")


def _keep(layout: LayoutStore, image: Image, sources: Sequence[Found]) -> None:
    """Copy the layers of ``image`` that are not in ``layout`` from where they are."""
    held = {layer.digest: found.store for found in sources for layer in found.image.layers}
    for layer in image.layers:
        if not layout.exists(layer.descriptor):
            with held[layer.digest].open(layer.descriptor) as content:
                layout.put(layer.descriptor, content)
