"""Patch and packed releases in the layout: their anchor, and the layer that is made of patches."""

from __future__ import annotations

import io
import mmap
import posixpath
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO

from mlpack.model.version import ModelFile, ModelVersion
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Digest,
    Hashing,
    InvalidContent,
    parse,
)
from mlpack.oci.image import Image, Layer
from mlpack.oci.layer import Entry, write_layer
from mlpack.plan.release_strategy import LEAST_PERCENT, ExpectedSizes, FilePair, pairs
from mlpack.project.directory import ModelStore
from mlpack.project.releases import APP_ROOT, SERVED, Origin, model_folder, served_record
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import PACKED
from mlpack.stores.store import Corrupt, images

if TYPE_CHECKING:
    from mlpack.tensor_patch.spans import Span

PATCHES = "mlpack"
"""The folder of patches and packed files below the application's."""

_SMALL = 1024 * 1024
"""Files of up to so many bytes are deflated, to compare their size with the patch's."""

_NOT_PACKED = 4096
"""Bytes of a file below which packing is not tried: a packed file begins with about 60."""

_PIECE, _PIECES = 64 * 1024, 16
"""Bytes of a sample of a file, and how many are deflated."""

_NOISE = 99
"""Percent of its size from which a deflated sample shows that the file is compressed already."""

_PROBE, _NEAR = 64, 256 * 1024
"""Bytes that are looked for in the old file, and how far from the same relative place."""

Advance = Callable[[int], object]
Spans = tuple["Span", ...]


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The release that patches of a model are made against."""

    target: Descriptor
    images: tuple[Image, ...]
    model: ModelVersion
    """The version it holds, whose files this store has."""

    def origin(self, file: ModelFile) -> Origin:
        """Return where a device that holds the anchor has ``file``; raise ``InvalidContent``."""
        number = self.model.files.index(file) + 1
        if number in packed_files(self.images[0], len(self.model.files)):
            return Origin(packed=_packed_path(number))
        folder = model_folder(self.model).removeprefix(f"{APP_ROOT}/")
        return Origin(source=f"{folder}/{file.path}")


def packed_files(image: Image, files: int) -> frozenset[int]:
    """Return which of a release's ``files`` its image holds packed, by their numbers from 1.

    Raises :class:`~mlpack.oci.descriptor.InvalidContent` if its label is not what mlpack wrote.
    """
    label = image.labels.get(PACKED)
    if label is None:
        return frozenset()
    numbers = label.split(",")
    if not all(each.isdecimal() and 0 < int(each) <= files for each in numbers):
        raise InvalidContent(f"label {PACKED}", f"is {label!r}, and the model has {files} files")
    return frozenset(map(int, numbers))


def _packed_path(number: int) -> str:
    """Return the path of packed file ``number``: a patch on it has another name."""
    return f"{PATCHES}/packed-{number}.mlpd"


@dataclass(frozen=True)
class MadeLayer:
    """A layer in memory, made of patches."""

    layer: Layer
    content: bytes = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of its image, besides those of every release."""

    def keep(self, layout: LayoutStore) -> None:
        """Put it into the store."""
        layout.put(self.layer.descriptor, io.BytesIO(self.content))


def find_target(layout: LayoutStore, digest: Digest) -> Descriptor | None:
    """Return the image or index with this digest, tagged or not; ``None`` if it is not here."""
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
    """Return the images of an anchor; none if a document of one is missing or damaged."""
    try:
        return images(layout, target)
    except (Corrupt, InvalidContent):
        return ()


@dataclass(frozen=True, slots=True)
class Encoding:
    """How patches are made."""

    effort: str = "default"
    """One of :data:`~mlpack.kinds.EFFORTS`."""

    advance: Advance = lambda _: None
    """Called with numbers of bytes of the new files that are done."""


def make_patch_layer(
    layout: LayoutStore, model: ModelVersion, anchor: Anchor, encoding: Encoding = Encoding()
) -> MadeLayer:
    """Make the layer that turns the files of release ``anchor`` into those of ``model``.

    The same two versions give the same bytes.
    """
    content = _Content(layout, model, encoding)
    for each in pairs(model.files, anchor.model.files):
        content.add(each, anchor)
    content.add_scripts(anchor.model.scripts)
    return content.layer()


def make_packed_layer(
    layout: LayoutStore, model: ModelVersion, encoding: Encoding = Encoding()
) -> MadeLayer:
    """Make the layer that holds the files of ``model`` packed, where that makes them smaller.

    The same version gives the same bytes.
    """
    content = _Content(layout, model, encoding)
    packed = [n for n, each in enumerate(model.files, 1) if content.pack(n, each)]
    content.add_scripts(())
    labels = {PACKED: ",".join(map(str, packed))} if packed else {}
    return replace(content.layer(), labels=labels)


class _Content:
    """What goes into the layer, file by file."""

    def __init__(self, layout: LayoutStore, model: ModelVersion, encoding: Encoding) -> None:
        self._layout = layout
        self._model = model
        self._encoding = encoding
        self._patches: list[tuple[ModelFile, Origin, bytes]] = []
        self._origins: dict[str, Origin] = {}
        self._held: dict[str, bytes] = {}
        self._whole: dict[str, ModelFile] = {}
        self._gone: list[Entry] = []
        self._inside = _Inside(layout)

    def add(self, pair: FilePair, anchor: Anchor) -> None:
        """Add a file as it is, as a reference to the anchor's, or as a patch: the smallest."""
        new, old = pair.new, pair.old
        if old is None:
            self._add_whole(new)
            return
        origin = anchor.origin(old)
        if pair.same:
            self._origins[new.path] = origin
            self._encoding.advance(new.size)
            return
        patch = self._patch(new, old, self._inside.of(anchor.model, old))
        if patch is not None:
            self._patches.append((new, origin, patch))

    def pack(self, number: int, file: ModelFile) -> bool:
        """Add a file packed, or as it is if that is as small; return whether it is packed."""
        if file.size < _NOT_PACKED:
            self._add_whole(file)
            return False
        packed = self._patch(file, None, None)
        if packed is None:
            return False
        path = _packed_path(number)
        self._origins[file.path] = Origin(packed=path)
        self._held[f"{APP_ROOT}/{path}"] = packed
        return True

    def _add_whole(self, file: ModelFile) -> None:
        self._whole[f"{model_folder(self._model)}/{file.path}"] = file
        self._encoding.advance(file.size)

    def _patch(self, new: ModelFile, old: ModelFile | None, before: Spans | None) -> bytes | None:
        """Make a patch; if the file is as small, add that and return ``None``."""
        after = self._inside.of(self._model, new)
        patch = _patch(self._layout, old, new, (before, after), self._encoding)
        if patch is None:
            self._whole[f"{model_folder(self._model)}/{new.path}"] = new
        return patch

    def add_scripts(self, theirs: Sequence[ModelFile]) -> None:
        """Add the script and its code where they differ from the anchor's, ``theirs``."""
        ours = {each.path: each for each in self._model.scripts}
        old = {each.path: each for each in theirs}
        for path, file in ours.items():
            if path not in old or old[path].digest != file.digest:
                self._whole[f"{APP_ROOT}/{path}"] = file
        for path in old:
            # A file that becomes a folder, or lies in a folder that becomes a file, is replaced.
            if not any(_overlap(path, each) for each in ours):
                self._gone.append(Entry(f"{APP_ROOT}/{path}", kind="whiteout"))

    def layer(self) -> MadeLayer:
        """Write it, in memory."""
        held = self._held
        for number, (file, origin, patch) in enumerate(self._patches, 1):
            name = "patch.mlpd" if len(self._patches) == 1 else f"patch-{number}.mlpd"
            self._origins[file.path] = replace(origin, patch=f"{PATCHES}/{name}")
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
        return MadeLayer(made, out.getvalue())


def _overlap(one: str, other: str) -> bool:
    """Return whether two paths are the same, or one lies below the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


class _Inside:
    """Where the tensors of a model lie in the files with its external data."""

    def __init__(self, layout: LayoutStore) -> None:
        self._layout = layout
        self._known: dict[str, dict[str, Spans]] = {}

    def of(self, model: ModelVersion, file: ModelFile) -> Spans | None:
        """Return the tensors in ``file``; ``None`` if no other file of ``model`` names it."""
        key = str(model.digest)
        if key not in self._known:
            self._known[key] = dict(self._named(model))
        found = self._known[key].get(file.path)
        if found is None:
            return None
        return tuple(each for each in found if each.offset + each.length <= file.size)

    def _named(self, model: ModelVersion) -> Iterator[tuple[str, Spans]]:
        from mlpack.tensor_patch.spans import DESCRIBING, external_spans

        for each in model.files:
            if not each.path.endswith(DESCRIBING):
                continue
            with _mapped(self._layout, each) as content:
                beside = external_spans(content, each.path)
            folder = posixpath.dirname(each.path)
            for location, spans in beside.items():
                yield posixpath.normpath(posixpath.join(folder, location)), spans


def _patch(
    layout: LayoutStore,
    old: ModelFile | None,
    new: ModelFile,
    inside: tuple[Spans | None, Spans | None],
    encoding: Encoding,
) -> bytes | None:
    """Make the patch from one file, or none, to another; ``None`` if ``new`` itself is as small."""
    # Not at the top: importing numpy takes as long as importing all of mlpack.
    from mlpack.runtime.patch import read_header
    from mlpack.tensor_patch import Arrays, Effort, make_patch
    from mlpack.tensor_patch.spans import find_spans

    with _mapped(layout, old) as before, _mapped(layout, new) as after:
        spans = [
            find_spans(content) if given is None else given
            for content, given in zip((before, after), inside, strict=True)
        ]
        patch = make_patch(
            before,
            after,
            arrays=Arrays(*spans),
            effort=Effort(encoding.effort),
            advance=encoding.advance,
        )
        header = read_header(memoryview(patch))
        _check_registered(new, header.new_sha256)
        if old:
            _check_registered(old, header.old_sha256)
        if new.size <= _SMALL and len(zlib.compress(bytes(after), 9)) <= len(patch):
            return None
    return patch


def _check_registered(file: ModelFile, sha256: str) -> None:
    """Raise unless ``sha256``, which may be shortened, is that of the registered file."""
    if not file.digest.hex.startswith(sha256):
        raise Corrupt(
            f"{file.path} in the store is not what was registered ({file.digest})",
            hint="register the model again, which restores the file",
        )


def expected_sizes(
    layout: LayoutStore, model: ModelVersion, anchor: Anchor | None
) -> ExpectedSizes:
    """Estimate the layers of a release from samples of its files."""
    layer = packed = least = patch = 0
    inside = _Inside(layout)
    for each in pairs(model.files, anchor.model.files if anchor else ()):
        with _mapped(layout, each.new) as after, _mapped(layout, each.old) as before:
            deflated = _deflated(after)
            noise = deflated * 100 >= len(after) * _NOISE
            if len(after) <= _PIECE:
                found = deflated, 0
            elif noise:
                found = deflated, _not_near(before, after)
            else:
                spans = inside.of(model, each.new)
                old = inside.of(anchor.model, each.old) if anchor and each.old else None
                found = _estimates(before, after, (old or (), spans) if spans else None)
        layer += deflated
        packed += min(deflated, found[0])
        least += deflated if noise else min(deflated, found[0]) * LEAST_PERCENT // 100
        patch += 0 if each.same else min(deflated, found[1])
    size = sum(each.size for each in model.files)
    return ExpectedSizes(model=size, layer=layer, packed=packed, least_packed=least, patch=patch)


def _estimates(
    before: memoryview, after: memoryview, spans: tuple[Spans, Spans] | None
) -> tuple[int, int]:
    """Estimate the bytes of the packed file, and of the patch from ``before``."""
    from mlpack.tensor_patch import Arrays, estimate

    found = estimate(before, after, Arrays(*spans) if spans else None)
    return found.packed, found.packed if found.patch is None else found.patch


def _not_near(before: memoryview, after: memoryview) -> int:
    """Estimate the bytes of a compressed file that the old one does not have near the same place.

    Without importing numpy: most compressed files have nothing in common.
    """
    step = max(_PROBE, len(after) // _PIECES)
    places = range(0, len(after), step)
    missing = 0
    for at in places:
        place = at * len(before) // len(after)
        around = bytes(before[max(0, place - _NEAR) : place + _NEAR])
        missing += around.find(bytes(after[at : at + _PROBE])) < 0
    return len(after) * missing // len(places) if places else 0


def _deflated(content: memoryview) -> int:
    """Estimate the bytes of a file in a layer, from pieces over its whole length."""
    step = max(_PIECE, len(content) // _PIECES)
    pieces = [bytes(content[at : at + _PIECE]) for at in range(0, len(content), step)]
    sampled = sum(map(len, pieces))
    deflated = sum(min(len(zlib.compress(each, 6)), len(each)) for each in pieces)
    return deflated * len(content) // sampled if sampled else 0


@contextmanager
def _mapped(layout: LayoutStore, file: ModelFile | None) -> Iterator[memoryview]:
    """Map a file of the store; the content of ``None`` is empty."""
    if file is None:
        yield memoryview(b"")
        return
    with layout.open(Descriptor(media.LAYER_TAR, file.digest, file.size)) as content:
        if not file.size:
            yield memoryview(b"")
            return
        # Closed with its last view: arrays over it may outlive this block.
        yield memoryview(mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ))


def same_platforms(anchor: Sequence[Image], bases: Sequence[Image]) -> tuple[Image, ...]:
    """Return the anchor's image on each of ``bases``; none if one is missing or on another base.

    An anchor is its base and one layer: images on top of a patch would grow with their history.
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
