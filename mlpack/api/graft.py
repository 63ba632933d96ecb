"""``mlpack graft``: what another tool built anew, as one small layer on what devices hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from mlpack.api.copy import open_target
from mlpack.api.diff import find_move
from mlpack.errors import MlpackError, UsageError
from mlpack.model.recipe import DeviceRecipe
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.difference import Difference, difference
from mlpack.oci.image import Image, Layer
from mlpack.oci.layer import write_arranged
from mlpack.plan.engines import engine as known_engine
from mlpack.plan.graft import Choice, choose, grafted
from mlpack.plan.transfer import Link
from mlpack.stores.base import Store, put_image
from mlpack.stores.copy import FirstOf, MountFrom, copy
from mlpack.stores.layout import LayoutStore
from mlpack.stores.project import Project
from mlpack.stores.references import Found, find_image
from mlpack.stores.registries import Registries
from mlpack.stores.registry import RegistryStore
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
    registries: Registries | None = None,
    advance: Advance = lambda _: None,
) -> Graft:
    """Publish at ``out`` what brings a device on ``old`` to ``new`` cheapest.

    That is ``old`` with one layer and ``new``'s settings, or ``new`` itself. The tree is
    read back from what was written, and nothing is sent or named unless it is ``new``'s.
    ``out`` is ``oci:PATH:TAG`` or in a registry. Raises :class:`NotLinux`,
    :class:`Ungraftable`, and what finding and reading images raises.
    """
    reach = registries or Registries()
    target, tag = open_target(out, reach)
    device = project.recipe.device if project else DeviceRecipe()
    rule = known_engine(engine or device.engine)
    found = find_image(project, new, platform, registries=reach)
    move = find_move(project, old, found, registries=reach)
    if move.old is None:
        raise UsageError("a graft needs an image to stand on", hint="give OLD, not none")
    if move.new.image.platform.os != "linux":
        raise NotLinux(f"{new} is for {move.new.image.platform}")
    with TemporaryDirectory(prefix="mlpack-graft-") as name:
        work = LayoutStore(Path(name) / "oci")
        pair = (_near(move.old, work), _near(move.new, work))
        made = _make(work, pair, advance)
        choice = choose(move.old.image, move.new.image, made.image, rule, Link.of(device))
        if choice.strategy == "graft":
            made.check(work)
        put_image(work, choice.image)
        source = FirstOf(work, *(each.store for each in pair))
        root = choice.image.descriptor
        copy(source, target, root, mount=_mount(move.old, target))
        if tag:
            target.tag(root, tag)
    return Graft(
        reference=_reference(target, out, root),
        old=move.old.image,
        new=move.new.image,
        choice=choice,
        layer=made.layer,
        difference=made.difference,
    )


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A graft as written, and the two trees it is between."""

    image: Image
    layer: Layer | None
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


def _near(found: Found, work: LayoutStore) -> Found:
    """``found``, brought here where it is in a registry: its layers are read more than once."""
    if not isinstance(found.store, RegistryStore):
        return found
    copy(found.store, work, found.image.descriptor)
    return replace(found, store=work)


def _reference(target: Store, out: str, root: Descriptor) -> str:
    return str(target.place.pinned(root.digest)) if isinstance(target, RegistryStore) else out


def _mount(old: Found, target: Store) -> MountFrom | None:
    """Where the registry has OLD's layers already, in another repository."""
    if not isinstance(target, RegistryStore) or not isinstance(old.store, RegistryStore):
        return None
    ours, theirs = old.store.place, target.place
    if ours.registry != theirs.registry or ours.repository == theirs.repository:
        return None
    return MountFrom(ours.repository, frozenset(each.digest for each in old.image.layers))


def _make(work: LayoutStore, pair: tuple[Found, Found], advance: Advance) -> _Made:
    before, after = _read(*pair, advance)
    found = difference(before.tree, after.tree)
    layer = _write(work, found, after) if found.entries else None
    image = grafted(pair[0].image, pair[1].image, layer)
    return _Made(image=image, layer=layer, difference=found, before=before, after=after)


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
