"""Make a graft: one layer on what devices have, read back; and whether to ship it or NEW."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Node, canonical, parse
from mlpack.oci.difference import Difference, difference
from mlpack.oci.image import Image, Layer, assemble, require_prefix
from mlpack.oci.layer import write_arranged
from mlpack.plan.engines import DeviceState, EngineRule, Link
from mlpack.plan.refusals import NotTaken, Refusal
from mlpack.plan.transfer import Transfer, transfer
from mlpack.project.references import FoundImage
from mlpack.stores.files import temporary_folder
from mlpack.stores.layout import LayoutStore
from mlpack.stores.trees import LayeredTree, copy_contents, layer_compression, read_tree

Advance = Callable[[int], None]
"""Progress callback; called with the bytes of each layer that was read."""

Strategy = Literal["graft", "new"]

_KEPT = ("architecture", "os", "os.features", "os.version", "variant")
_OF_THE_BUILD = ("Image", "Hostname", "Domainname")
"""Written by Docker's classic builder about its build container; no engine reads it."""


class Ungraftable(MlpackError):
    """A graft that does not produce the tree of NEW; nothing is published."""

    hint = "publish NEW as it is, and report this with both images' digests"


@dataclass(frozen=True, kw_only=True)
class Grafted:
    """A graft that was written, and the two trees it leads from and to."""

    image: Image
    layer: Layer | None
    """``None`` if the file systems are equal."""

    difference: Difference
    before: LayeredTree
    after: LayeredTree
    engine: EngineRule
    """What the devices run: the layer leads from what that engine shows of OLD."""

    def check(self, work: LayoutStore) -> None:
        """Apply the written layer to the old tree; raise unless the result is the new tree."""
        added, how = [self.layer] if self.layer else [], self.engine.support.unpacking
        found = read_tree(work, added, self.before, unpacking=how)
        result, wanted = found.shown, self.after.tree
        if result != wanted:
            paths = {*result, *wanted}
            wrong = sorted(path for path in paths if result.get(path) != wanted.get(path))
            raise Ungraftable(f"the graft would differ from NEW in {', '.join(wrong[:5])}")
        if self.layer and (broken := found.facts[-1].broken):
            raise NotTaken(
                f"{self.engine.measured} refuses the graft: {broken}",
                hint="change this in NEW, or name what devices run with --engine",
            )


def make_graft(
    work: LayoutStore, old: FoundImage, new: FoundImage, engine: EngineRule, advance: Advance
) -> Grafted:
    """Write into ``work`` the layer that turns ``old`` into ``new``, and describe the image.

    It leads from what ``engine`` shows of ``old`` to what ``new`` is by the specification.
    """
    before, after = _read(old, new, engine, advance)
    found = difference(before.shown, after.tree)
    layer = _write(work, found, after) if found.entries else None
    image = grafted(old.image, new.image, layer)
    return Grafted(
        image=image, layer=layer, difference=found, before=before, after=after, engine=engine
    )


def _read(
    old: FoundImage, new: FoundImage, engine: EngineRule, advance: Advance
) -> tuple[LayeredTree, LayeredTree]:
    """Read both images' trees; the layers at the bottom of both are read once."""

    def add(found: FoundImage, layers: Sequence[Layer], tree: LayeredTree) -> LayeredTree:
        for layer in layers:
            tree = read_tree(found.store, [layer], tree, unpacking=engine.support.unpacking)
            advance(layer.size)
        return tree

    chains = zip(old.image.chain_ids, new.image.chain_ids, strict=False)
    shared = len([ours for ours, theirs in chains if ours == theirs])
    bottom = add(new, new.image.layers[:shared], LayeredTree())
    # The same tars, perhaps packed otherwise.
    packed = (layer_compression(old.store, layer) for layer in old.image.layers[:shared])
    each = zip(bottom.facts, packed, strict=True)
    olds = replace(bottom, facts=tuple(replace(fact, compression=kind) for fact, kind in each))
    return (
        add(old, old.image.layers[shared:], olds),
        add(new, new.image.layers[shared:], bottom),
    )


def _write(work: LayoutStore, found: Difference, after: LayeredTree) -> Layer:
    """Write the layer; contents are kept in a folder, since layers can be read forward only."""
    with temporary_folder("mlpack-graft-") as folder:
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


@dataclass(frozen=True, kw_only=True)
class GraftDecision:
    """The image to publish, and what each strategy costs a device with the old one."""

    strategy: Strategy
    image: Image
    why: str
    graft: Transfer | None
    """``None`` if a graft is impossible."""

    new: Transfer
    new_refusals: tuple[Refusal, ...] = ()
    """Why the engine does not take NEW as it is."""

    graft_refusals: tuple[Refusal, ...] = ()
    """Why it does not take the graft."""

    old_refusals: tuple[Refusal, ...] = ()
    """What it unpacks to other files in OLD's layers; the graft leads from these."""

    @property
    def transfer(self) -> Transfer:
        """The cost of the chosen strategy."""
        return self.graft if self.strategy == "graft" and self.graft else self.new


def grafted(old: Image, new: Image, layer: Layer | None) -> Image:
    """Combine ``old``'s layers, ``layer`` on top, and ``new``'s settings.

    Everything in ``new``'s config that an engine reads is kept; history, times and empty members
    are dropped, because a device pays for each byte. ``layer`` is ``None`` if the file systems are
    equal. It is listed for the platform that ``new`` is listed for.
    """
    read = parse(new.config, "config")
    config: dict[str, object] = {
        key: value.value for key, value in read.items() if key in _KEPT and value.value
    }
    layers = (*old.layers, layer) if layer else old.layers
    config["config"] = _settings(read.get("config"))
    config["rootfs"] = {"type": "layers", "diff_ids": [str(each.diff_id) for each in layers]}
    image = replace(assemble(canonical(config), layers), listed=new.listed)
    require_prefix(image, old)
    return image


def choose(old: Image, new: Image, graft: Image, engine: EngineRule, link: Link) -> GraftDecision:
    """Choose the cheaper image for a device with ``old``; ``new`` itself if they cost the same."""
    state = DeviceState.holding(old)
    whole = transfer(engine, new, None, state, link)
    ours = transfer(engine, graft, None, state, link)
    if ours.total < whole.total:
        why = "the graft is cheaper"
        return GraftDecision(strategy="graft", image=graft, why=why, graft=ours, new=whole)
    why = "NEW itself costs the same" if ours.total == whole.total else "NEW itself is cheaper"
    return GraftDecision(strategy="new", image=new, why=why, graft=ours, new=whole)


def choose_taken(
    made: Grafted, new: Image, cheaper: GraftDecision, *, named: bool
) -> GraftDecision:
    """Choose the cheaper image that the devices' engine takes.

    If it takes neither, that is an error only if the engine is ``named``, and not the default.

    Other files that the engine unpacks of OLD's layers do not count against the graft, which leads
    from these to NEW. Raises :class:`~mlpack.plan.refusals.NotTaken`.
    """
    rule = made.engine
    theirs = rule.refusals(new, facts=made.after.lasting_facts)
    found = rule.refusals(made.image, facts=made.before.lasting_facts)
    ours = tuple(each for each in found if each.effect == "refused")
    told = replace(
        cheaper,
        new_refusals=theirs,
        graft_refusals=ours,
        old_refusals=tuple(each for each in found if each.effect == "altered"),
    )
    if theirs and ours and not named:
        return told
    if theirs and ours:
        raise NotTaken(
            f"neither the graft nor NEW can be published. The graft: {ours[0]}. NEW: {theirs[0]}",
            hint=f"{theirs[0].remedy}; or name what devices run with --engine",
        )
    if theirs and cheaper.strategy == "new":
        return replace(told, strategy="graft", image=made.image, why=_not(theirs[0], "NEW"))
    if ours and cheaper.strategy == "graft":
        return replace(told, strategy="new", image=new, why=_not(ours[0], "the graft"))
    return told


def _not(refusal: Refusal, what: str) -> str:
    return f"{refusal.engine} {refusal.verb} {what} ({refusal.where}: {refusal.why})"


def _settings(node: Node | None) -> dict[str, object]:
    if node is None:
        return {}
    return {
        key: value.value for key, value in node.items() if value.value and key not in _OF_THE_BUILD
    }
