"""Patch releases in the layout: the anchor they stand on, and the layer that holds the patch."""

from __future__ import annotations

import io
import mmap
import posixpath
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from mlpack.model.version import SCORING, ModelFile, ModelVersion
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest, Hashing
from mlpack.oci.document import MAX_DOCUMENT_BYTES, InvalidContent, parse
from mlpack.oci.image import Image, Layer
from mlpack.oci.layer import write_layer
from mlpack.oci.tree import Entry
from mlpack.plan.patching import Pair, pairs
from mlpack.stores.base import Corrupt, images
from mlpack.stores.layout import LayoutStore
from mlpack.stores.models import ModelStore
from mlpack.stores.releases import APP_ROOT, SERVED, Origin, model_folder, served_record

if TYPE_CHECKING:
    from mlpack.delta.spans import Span

PATCHES = "mlpack"
"""Folder of the patches, below the application's."""

_SMALL = 1024 * 1024
"""Bytes of a file up to which it is deflated to see whether it is not smaller than its patch."""

ONNX = ".onnx"

Advance = Callable[[int], object]
Spans = tuple["Span", ...]


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The release that patches of a model are made against."""

    target: Descriptor
    images: tuple[Image, ...]
    model: ModelVersion
    """The version it holds, whose files this store has."""


@dataclass(frozen=True)
class PatchLayer:
    """A layer that was made and is not in the store yet."""

    layer: Layer
    content: bytes = field(repr=False)

    def keep(self, layout: LayoutStore) -> None:
        """Put it into the store."""
        layout.put(self.layer.descriptor, io.BytesIO(self.content))


def find_target(layout: LayoutStore, digest: Digest) -> Descriptor | None:
    """The image or index called ``digest``, named or not; ``None`` where it is not here."""
    path = layout.path(Descriptor(media.MANIFEST, digest, 0))
    if not path.is_file() or path.stat().st_size > MAX_DOCUMENT_BYTES:
        return None
    try:
        content = path.read_bytes()
        media_type = parse(content, "manifest").need("mediaType").text()
        return Descriptor(media_type, digest, len(content))
    except InvalidContent:
        return None


def anchor_images(layout: LayoutStore, target: Descriptor) -> tuple[Image, ...]:
    """The images of an anchor; none where a document of one is not here, whole."""
    try:
        return images(layout, target)
    except (Corrupt, InvalidContent):
        return ()


def make_patch_layer(
    layout: LayoutStore,
    model: ModelVersion,
    anchor: ModelVersion,
    advance: Advance = lambda _: None,
) -> PatchLayer:
    """The one layer that turns the files of release ``anchor`` into those of ``model``.

    The same two versions give the same bytes. ``advance`` is told bytes of the new files.
    """
    content = _Content(layout, model, anchor)
    for each in pairs(model.files, anchor.files):
        content.add(each, advance)
    content.add_script()
    return content.layer()


class _Content:
    """What goes into the layer, file by file."""

    def __init__(self, layout: LayoutStore, model: ModelVersion, anchor: ModelVersion) -> None:
        self._layout = layout
        self._model = model
        self._anchor = anchor
        self._patches: list[tuple[ModelFile, str, bytes]] = []
        self._origins: dict[str, Origin] = {}
        self._whole: dict[str, ModelFile] = {}
        self._gone: list[Entry] = []
        self._inside = _Inside(layout)

    def add(self, pair: Pair, advance: Advance) -> None:
        """Take a file as it is, from the anchor, or as a patch, whichever is smallest."""
        new, old = pair.new, pair.old
        if old is None:
            self._whole[f"{model_folder(self._model)}/{new.path}"] = new
            advance(new.size)
            return
        place = model_folder(self._anchor).removeprefix(f"{APP_ROOT}/")
        source = f"{place}/{old.path}"
        if pair.same:
            self._origins[new.path] = Origin(source)
            advance(new.size)
            return
        inside = (self._inside.of(self._anchor, old), self._inside.of(self._model, new))
        patch = _patch(self._layout, old, new, inside, advance)
        if patch is None:
            self._whole[f"{model_folder(self._model)}/{new.path}"] = new
        else:
            self._patches.append((new, source, patch))

    def add_script(self) -> None:
        """The scoring script, where it is another; what hides the anchor's, where there is none."""
        ours, theirs = self._model.scoring, self._anchor.scoring
        place = f"{APP_ROOT}/{SCORING}"
        if ours is None and theirs is not None:
            self._gone.append(Entry(place, kind="whiteout"))
        elif ours is not None and (theirs is None or theirs.digest != ours.digest):
            self._whole[place] = ours

    def layer(self) -> PatchLayer:
        """Write it, in memory."""
        held: dict[str, bytes] = {}
        for number, (file, source, patch) in enumerate(self._patches, 1):
            name = "patch.mlpd" if len(self._patches) == 1 else f"patch-{number}.mlpd"
            self._origins[file.path] = Origin(source, f"{PATCHES}/{name}")
            held[f"{APP_ROOT}/{PATCHES}/{name}"] = patch
        held[f"{APP_ROOT}/{SERVED}"] = served_record(self._model, self._origins)
        models = ModelStore(self._layout)

        @contextmanager
        def open_file(path: str) -> Iterator[BinaryIO]:
            if path in held:
                yield io.BytesIO(held[path])
                return
            with models.open_file(self._whole[path]) as content:
                yield content

        entries = [Entry(path, size=len(content)) for path, content in held.items()]
        entries += [Entry(path, size=each.size) for path, each in self._whole.items()]
        out = io.BytesIO()
        made = write_layer([*entries, *self._gone], open_file, Hashing(out))
        return PatchLayer(made, out.getvalue())


class _Inside:
    """What models say of the files beside them: where in these their tensors lie."""

    def __init__(self, layout: LayoutStore) -> None:
        self._layout = layout
        self._known: dict[str, dict[str, Spans]] = {}

    def of(self, model: ModelVersion, file: ModelFile) -> Spans | None:
        """The tensors in ``file``; ``None`` where no other file of ``model`` names it."""
        key = str(model.digest)
        if key not in self._known:
            self._known[key] = dict(self._named(model))
        found = self._known[key].get(file.path)
        if found is None:
            return None
        return tuple(each for each in found if each.offset + each.length <= file.size)

    def _named(self, model: ModelVersion) -> Iterator[tuple[str, Spans]]:
        from mlpack.delta.spans import external_spans

        for each in model.files:
            if not each.path.endswith(ONNX):
                continue
            with _mapped(self._layout, each) as content:
                beside = external_spans(content)
            folder = posixpath.dirname(each.path)
            for location, spans in beside.items():
                yield posixpath.normpath(posixpath.join(folder, location)), spans


def _patch(
    layout: LayoutStore,
    old: ModelFile,
    new: ModelFile,
    inside: tuple[Spans | None, Spans | None],
    advance: Advance,
) -> bytes | None:
    """The patch from one file to another; ``None`` where the file itself is as small."""
    # Not at the top: numpy takes as long to import as all of mlpack.
    from mlpack.delta import make_patch
    from mlpack.runtime.patch import read_header

    with _mapped(layout, old) as before, _mapped(layout, new) as after:
        patch = make_patch(before, after, old_spans=inside[0], new_spans=inside[1], advance=advance)
        header = read_header(memoryview(patch))
        made = {old: header.old_sha256, new: header.new_sha256}
        for file, sha256 in made.items():
            if sha256 != file.digest.hex:
                raise Corrupt(
                    f"{file.path} in the store is not what was registered ({file.digest})",
                    hint="register the model again: that writes the file anew",
                )
        if new.size <= _SMALL and len(zlib.compress(bytes(after), 9)) <= len(patch):
            return None
    return patch


@contextmanager
def _mapped(layout: LayoutStore, file: ModelFile) -> Iterator[memoryview]:
    with layout.open(Descriptor(media.LAYER_TAR, file.digest, file.size)) as content:
        if not file.size:
            yield memoryview(b"")
            return
        # Left to the end of its last view: arrays over it may outlive this block.
        yield memoryview(mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ))


def same_platforms(anchor: Sequence[Image], bases: Sequence[Image]) -> tuple[Image, ...]:
    """The anchor's image on each of ``bases``; none where it lacks one, or stands on another.

    An anchor is its base and one layer: what stands on a patch would grow with its history.
    """
    found = [
        next(
            (
                each
                for each in anchor
                if each.layers[: len(base.layers)] == base.layers
                and len(each.layers) == len(base.layers) + 1
                and each.platform == base.platform
            ),
            None,
        )
        for base in bases
    ]
    return tuple(each for each in found if each) if all(found) else ()
