"""Releases in the layout: put a model's layer on bases, store the images and name them.

:class:`OciBuilder` needs nothing but this process; the builders that go through Docker or Azure
are in :mod:`mlpack.builders`.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, Protocol

from mlpack import __version__
from mlpack.errors import MlpackError
from mlpack.model.order import age_order, moment_after
from mlpack.model.version import SCORING, ModelVersion
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import (
    Descriptor,
    Digest,
    Hashed,
    Hashing,
    InvalidDigest,
    Reference,
    Writable,
    canonical,
)
from mlpack.oci.image import Image, Index, Layer, append, build_index, require_prefix
from mlpack.oci.layer import PACKING, Entry, OpenFile, write_layer
from mlpack.stores.layout import BASE_NAME, LayoutStore
from mlpack.stores.records import (
    CONTENT,
    CREATED,
    MODEL,
    VERSION,
    RecordContent,
    keep_record,
    record_times,
    release_tag,
)
from mlpack.stores.store import put_bytes, put_image

if TYPE_CHECKING:
    from mlpack.model.lock import Lock

APP_ROOT = "var/azureml-app"
"""The directory of the scoring script and the models in Azure ML's inference images."""

MODELS = "azureml-models"
"""The directory of all models, below :data:`APP_ROOT`."""

ENTRY_SCRIPT = "AZUREML_ENTRY_SCRIPT"
"""The variable that names the scoring script, ``score.py`` without it."""

SERVED = "mlpack.json"
"""The record next to the scoring script that lists the model's files."""


class TagTaken(MlpackError):
    """Two models whose releases would have one name in the layout."""

    hint = "register the model under another name"


def model_dir(model: ModelVersion) -> str:
    """Return what ``AZUREML_MODEL_DIR`` names, relative to the image's root."""
    return f"{APP_ROOT}/{MODELS}/{model.name}/{model.version}"


def model_folder(model: ModelVersion) -> str:
    """Return the directory of the model's files in the image, relative to its root."""
    return f"{model_dir(model)}/{model.folder}".rstrip("/")


def model_env(model: ModelVersion, below: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Return the variables that a release adds to the environment of the image ``below``."""
    script = model.scoring.path if model.scoring else SCORING
    named = script != (below or {}).get(ENTRY_SCRIPT, SCORING)
    entry = {ENTRY_SCRIPT: script} if named else {}
    return {"AZUREML_MODEL_DIR": f"/{model_dir(model)}", **entry}


def model_labels(model: ModelVersion) -> Mapping[str, str]:
    """Return the labels of a release: few, since a device pays for each byte of them."""
    return {MODEL: model.name, VERSION: model.version, CONTENT: str(model.digest)}


@dataclass(frozen=True, slots=True)
class Origin:
    """How a file of a packed or patch release is rebuilt; paths are below :data:`APP_ROOT`."""

    source: str = ""
    """The anchor's file, if it has it whole."""

    packed: str = ""
    """The packed file, of this release or of its anchor."""

    patch: str = ""
    """The patch to either; empty if the file is the same."""

    def to_json(self) -> dict[str, object]:
        """Return the members in the record in the image."""
        members = {"from": self.source, "packed": self.packed, "patch": self.patch}
        return {name: path for name, path in members.items() if path}


def served_record(model: ModelVersion, origins: Mapping[str, Origin] | None = None) -> bytes:
    """Return the record of the model inside its image, which the runtime checks.

    Format: docs/reference/formats.md.

    ``origins`` says by path which files are not in the image as they are. The image's config
    has name, version and digest, too; but no process inside sees that.
    """
    files = [
        {
            "path": posixpath.join(model.folder, each.path),
            "sha256": each.digest.hex,
            "size": each.size,
            **(origins[each.path].to_json() if origins and each.path in origins else {}),
        }
        for each in model.files
    ]
    named = {"name": model.name, "version": model.version, "digest": str(model.digest)}
    proved: dict[str, object] = {"rows_independent": True} if model.rows_independent else {}
    return canonical({**named, **proved, "files": files}) + b"\n"


def model_files(layout: LayoutStore, model: ModelVersion) -> tuple[list[Entry], OpenFile]:
    """Return the entries of a release's layer: the model's files, its record, script and code."""
    from mlpack.project.directory import ModelStore

    models = ModelStore(layout)
    record, recorded = served_record(model), f"{APP_ROOT}/{SERVED}"
    files = {f"{model_folder(model)}/{each.path}": each for each in model.files}
    files |= {f"{APP_ROOT}/{each.path}": each for each in model.scripts}

    @contextmanager
    def open_file(path: str) -> Iterator[BinaryIO]:
        if path == recorded:
            yield io.BytesIO(record)
            return
        with models.open_file(files[path]) as content:
            yield content

    entries = [Entry(path, size=each.size) for path, each in files.items()]
    return [*entries, Entry(recorded, size=len(record))], open_file


def measure_model_layer(layout: LayoutStore, model: ModelVersion) -> Layer:
    """Return the layer that :class:`OciBuilder` would write; nothing is kept."""
    entries, open_file = model_files(layout, model)
    return write_layer(entries, open_file, Hashing(_Nowhere()))


class _Nowhere:
    """Discards writes."""

    def write(self, data: bytes, /) -> int:
        return len(data)


class _Both:
    """Passes writes on to ``copy``, too."""

    def __init__(self, out: Hashed, copy: Writable) -> None:
        self._out = out
        self._copy = copy

    def write(self, data: bytes, /) -> None:
        self._copy.write(data)
        self._out.write(data)

    @property
    def digest(self) -> Digest:
        return self._out.digest

    @property
    def size(self) -> int:
        return self._out.size


def keep_release(
    layout: LayoutStore,
    model: ModelVersion,
    images: Sequence[Image],
    record: RecordContent,
    now: datetime,
) -> tuple[Descriptor, Index | None]:
    """Store a release in the layout and name it; the name comes last.

    Returns the named descriptor, and the index if there are several platforms.
    Raises :class:`TagTaken` before anything is named.
    """
    check_free(layout, model.name, model.version)
    for image in images:
        put_image(layout, image)
    index = build_index(images) if len(images) > 1 else None
    target = put_bytes(layout, index.content, media.INDEX) if index else images[0].descriptor
    name_release(layout, (model.name, model.version), target, record, now)
    return target, index


def check_free(layout: LayoutStore, name: str, version: str) -> Descriptor | None:
    """Return the release ``name``:``version``, if any; raise :class:`TagTaken`.

    The tag is taken if an image that is not a release of model ``name`` has it.
    """
    tag = release_tag(name, version)
    holder = layout.tags().get(tag)
    if holder is not None and holder.annotations.get(MODEL) != name:
        raise TagTaken(f"the store has an image called {tag!r} that is not a release of {name}")
    return holder


def name_release(
    layout: LayoutStore,
    release: tuple[str, str],
    target: Descriptor,
    record: RecordContent,
    now: datetime,
) -> None:
    """Keep the record of ``release``, a model and a version, and tag ``target`` as it.

    A new one is the model's newest, whatever the clock shows; one that is named already keeps its
    time.
    """
    name, version = release
    made = {each.version: each for each in named_releases(layout, name)}
    held = made.pop(version, None)
    if held is not None and held.target.digest == target.digest:
        created = held.created
    else:
        created = moment_after(now, (each.created for each in made.values()))
    notes = {MODEL: name, VERSION: version, **({CREATED: created} if created else {})}
    named = replace(target, annotations=notes)
    keep_record(layout, name, version, named, record)
    layout.tag(named, release_tag(name, version))


@dataclass(frozen=True, slots=True)
class NamedRelease:
    """A release that the layout names."""

    name: str
    version: str
    target: Descriptor
    created: str
    """When it was made (ISO 8601); empty if that is not known."""


def named_releases(layout: LayoutStore, name: str = "") -> tuple[NamedRelease, ...]:
    """Return the releases of model ``name``, or of all models: by model, then the oldest first.

    They are found by their annotations: ``fan-failure-1`` alone is ambiguous. An entry without a
    time, of an older mlpack or of a push, gets that of its record, or of its model version.
    """
    tags = layout.tags()
    found = {
        (each.annotations[MODEL], each.annotations[VERSION]): each
        for each in tags.values()
        if VERSION in each.annotations and name in ("", each.annotations.get(MODEL))
        if MODEL in each.annotations
    }
    undated = any(CREATED not in each.annotations for each in found.values())
    times = record_times(layout, layout.entries()) if undated else {}

    def created(model: str, version: str, target: Descriptor) -> str:
        stated = target.annotations.get(CREATED) or times.get(target.digest)
        if stated:
            return stated
        from mlpack.project.directory import ModelStore

        return ModelStore(layout).created(model, version)

    made = (NamedRelease(*key, each, created(*key, each)) for key, each in found.items())
    return tuple(sorted(made, key=lambda each: (each.name, *age_order(each.created, each.version))))


def identity(
    lock: Lock,
    model: ModelVersion,
    images: Sequence[Image],
    anchor: Digest | None = None,
    whole: Layer | None = None,
) -> dict[str, object]:
    """Return the identity record of a release: equal records mean equal images.

    ``anchor`` is the release that a patch is made against, and ``whole`` the layer that would
    hold the model as it is, which reports compare a patch or packed model with.
    """
    layer = images[0].layers[-1]
    return {
        "model": {"name": model.name, "version": model.version, "digest": str(model.digest)},
        "source_commit": model.source_commit,
        "base": str(lock.base.index.digest),
        "layer": {"digest": str(layer.digest), "diff_id": str(layer.diff_id)},
        "images": {str(image.platform): str(image.digest) for image in images},
        "packing": PACKING.to_json(),
        "strategy": "patch" if anchor else "packed" if whole else "layer",
        **({"anchor": str(anchor)} if anchor else {}),
        **({"whole": _named(whole), "rebuilt": sum(f.size for f in model.files)} if whole else {}),
        "mlpack": __version__,
    }


def record_strategy(record: Mapping[str, object]) -> str:
    """Return the strategy in an identity record, or nothing; a graft has one for each platform."""
    stated = record.get("strategy")
    if isinstance(stated, Mapping):
        return "graft" if "graft" in stated.values() else "new"
    return stated if isinstance(stated, str) else ""


def record_base(record: Mapping[str, object]) -> Digest | None:
    """Return the base in an identity record, or nothing; of a graft, the first image it is for."""
    old = record.get("old")
    stated = next(iter(old.values()), None) if isinstance(old, Mapping) else record.get("base")
    try:
        return Digest.parse(stated) if isinstance(stated, str) else None
    except InvalidDigest:
        return None


def _named(layer: Layer) -> dict[str, object]:
    return {**layer.descriptor.to_json(), "diff_id": str(layer.diff_id)}


def remember_base(layout: LayoutStore, tag: str, place: Reference) -> None:
    """Note that the image tagged ``tag`` was built on the base at ``place``."""
    target = layout.resolve(tag)
    noted = {**target.annotations, BASE_NAME: str(place)}
    layout.tag(replace(target, annotations=noted), tag)


def base_place(layout: LayoutStore, target: Descriptor) -> Reference | None:
    """Return the place of the base of ``target``, if it was built on one in a registry."""
    for entry in layout.entries():
        if entry.digest == target.digest and BASE_NAME in entry.annotations:
            return Reference.parse(entry.annotations[BASE_NAME])
    return None


class BuildFailed(MlpackError):
    """A build that failed; the message ends with the builder's words."""


class NotOneLayer(MlpackError):
    """An image that is not its base and exactly one layer more."""

    hint = "the Dockerfile may hold one COPY after its last FROM, and no RUN or ADD"


class Builder(Protocol):
    """Puts a model version on bases."""

    def build(
        self, layout: LayoutStore, model: ModelVersion, bases: Sequence[Image]
    ) -> tuple[Image, ...]:
        """Build an image on each base: the base and one layer, which is put into ``layout``."""
        ...


@dataclass(frozen=True)
class OciBuilder:
    """Appends the layer without a daemon; the bytes are the same on every machine."""

    copy: Writable | None = None
    """Gets the layer's bytes, too, while they are written."""

    def build(
        self, layout: LayoutStore, model: ModelVersion, bases: Sequence[Image]
    ) -> tuple[Image, ...]:
        """Write the layer once and put it on every base."""
        entries, open_file = model_files(layout, model)
        with layout.stage() as out:
            layer = write_layer(entries, open_file, _Both(out, self.copy) if self.copy else out)
            out.commit(layer.descriptor)
        labels = model_labels(model)
        return tuple(
            append(base, layer, env=model_env(model, base.env), labels=labels) for base in bases
        )


def require_one_layer(image: Image, base: Image) -> None:
    """Raise unless ``image`` is ``base`` and exactly one layer above it."""
    require_prefix(image, base)
    if len(image.layers) != len(base.layers) + 1:
        raise NotOneLayer(
            f"image {image.digest.short} has {len(image.layers) - len(base.layers)} layers "
            f"above base {base.digest.short}, not one"
        )
