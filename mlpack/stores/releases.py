"""Releases in the layout: writing a model's layer, keeping images, naming them, finding them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

from mlpack import __version__
from mlpack.errors import MlpackError
from mlpack.model.lock import Lock
from mlpack.model.version import SCORING, ModelVersion, version_order
from mlpack.oci import descriptor as media
from mlpack.oci.compression import PACKING, OpenFile
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest, Hashed, Hashing, Writable
from mlpack.oci.document import canonical
from mlpack.oci.image import Image, Layer
from mlpack.oci.index import Index, build_index
from mlpack.oci.layer import write_layer
from mlpack.oci.tree import Entry
from mlpack.stores.base import put_bytes, put_image
from mlpack.stores.layout import LayoutStore
from mlpack.stores.models import ModelStore
from mlpack.stores.records import keep_record

APP_ROOT = "var/azureml-app"
"""Where Azure ML's inference images keep the scoring script and the models."""

SERVED = "mlpack.json"
"""The record beside the scoring script that says which files make up the model."""

MODEL, VERSION, CONTENT = "io.mlpack.model", "io.mlpack.version", "io.mlpack.digest"


class TagTaken(MlpackError):
    """Two models whose releases would have one name in the layout."""

    hint = "register the model under another name"


def model_folder(model: ModelVersion) -> str:
    """The directory of the model's files in the image, relative to its root."""
    return f"{APP_ROOT}/azureml-models/{model.name}/{model.version}"


def model_env(model: ModelVersion) -> Mapping[str, str]:
    """What a release sets over the base's environment."""
    return {"AZUREML_MODEL_DIR": f"/{model_folder(model)}"}


def model_labels(model: ModelVersion) -> Mapping[str, str]:
    """The only labels a release adds: a device pays for each byte of them."""
    return {MODEL: model.name, VERSION: model.version, CONTENT: str(model.digest)}


@dataclass(frozen=True, slots=True)
class Origin:
    """What a file of a patch release is made of; paths are below :data:`APP_ROOT`."""

    source: str
    """The anchor's file."""

    patch: str = ""
    """The patch to it; empty where both files are the same."""

    def to_json(self) -> dict[str, object]:
        """For the record in the image."""
        return {"from": self.source, **({"patch": self.patch} if self.patch else {})}


def served_record(model: ModelVersion, origins: Mapping[str, Origin] | None = None) -> bytes:
    """The record of the model inside its image (docs/formats.md), which the runtime checks.

    ``origins`` says by path which files are not in the image as they are. The image's config
    has name, version and digest, too; but no process inside sees that.
    """
    files = [
        {
            "path": each.path,
            "sha256": each.digest.hex,
            "size": each.size,
            **(origins[each.path].to_json() if origins and each.path in origins else {}),
        }
        for each in model.files
    ]
    named = {"name": model.name, "version": model.version, "digest": str(model.digest)}
    return canonical({**named, "files": files}) + b"\n"


def model_files(layout: LayoutStore, model: ModelVersion) -> tuple[list[Entry], OpenFile]:
    """What a release adds to the image: the model's files, its record and scoring script."""
    models = ModelStore(layout)
    record, recorded = served_record(model), f"{APP_ROOT}/{SERVED}"
    files = {f"{model_folder(model)}/{each.path}": each for each in model.files}
    if model.scoring:
        files[f"{APP_ROOT}/{SCORING}"] = model.scoring

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
    """What :func:`write_model_layer` would write; nothing is kept."""
    entries, open_file = model_files(layout, model)
    return write_layer(entries, open_file, Hashing(_Nowhere()))


def write_model_layer(layout: LayoutStore, model: ModelVersion, copy: Writable | None) -> Layer:
    """Write the one layer a release adds, and each piece of it to ``copy`` as well."""
    entries, open_file = model_files(layout, model)
    with layout.stage() as out:
        layer = write_layer(entries, open_file, _Both(out, copy) if copy else out)
        out.commit(layer.descriptor)
    return layer


class _Nowhere:
    """Forgets what is written."""

    def write(self, data: bytes, /) -> int:
        return len(data)


class _Both:
    """What is written goes to ``copy``, too."""

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
    layout: LayoutStore, model: ModelVersion, images: Sequence[Image], record: Mapping[str, object]
) -> tuple[Descriptor, Index | None]:
    """Put a release into the layout and name it; the name comes last.

    Returns what it is called, and the index where there are several platforms.
    Raises :class:`TagTaken` before anything is named.
    """
    check_free(layout, model.name, model.version)
    for image in images:
        put_image(layout, image)
    index = build_index(images) if len(images) > 1 else None
    target = put_bytes(layout, index.content, media.INDEX) if index else images[0].descriptor
    keep_record(layout, model.name, model.version, target, record)
    name_release(layout, model.name, model.version, target)
    return target, index


def check_free(layout: LayoutStore, name: str, version: str) -> Descriptor | None:
    """What is released as ``name``:``version`` now; raise :class:`TagTaken` where it is another's.

    Another's means: an image that is no release of model ``name``, but would be called the same.
    """
    tag = release_tag(name, version)
    holder = layout.tags().get(tag)
    if holder is not None and holder.annotations.get(MODEL) != name:
        raise TagTaken(f"the store has an image called {tag!r} that is no release of {name}")
    return holder


def name_release(layout: LayoutStore, name: str, version: str, target: Descriptor) -> None:
    """Make ``target`` the release ``name``:``version`` of this layout."""
    named = {MODEL: name, VERSION: version}
    layout.tag(replace(target, annotations=named), release_tag(name, version))


def identity(
    lock: Lock,
    model: ModelVersion,
    images: Sequence[Image],
    anchor: Digest | None = None,
    whole: Layer | None = None,
) -> dict[str, object]:
    """Everything the release's bytes came from: equal records mean equal images.

    ``anchor`` is the release that a patch is made against, and ``whole`` the layer that would
    hold the model without it, which reports compare it with.
    """
    layer = images[0].layers[-1]
    return {
        "model": {"name": model.name, "version": model.version, "digest": str(model.digest)},
        "source_commit": model.source_commit,
        "base": str(lock.base.index.digest),
        "layer": {"digest": str(layer.digest), "diff_id": str(layer.diff_id)},
        "images": {str(image.platform): str(image.digest) for image in images},
        "packing": PACKING.to_json(),
        "strategy": "patch" if anchor else "layer",
        **({"anchor": str(anchor)} if anchor else {}),
        **({"whole": _named(whole), "rebuilt": sum(f.size for f in model.files)} if whole else {}),
        "mlpack": __version__,
    }


def _named(layer: Layer) -> dict[str, object]:
    return {**layer.descriptor.to_json(), "diff_id": str(layer.diff_id)}


def release_tag(name: str, version: str) -> str:
    """The layout's name of a release."""
    return f"{name}-{version}"


def releases(layout: LayoutStore, name: str) -> Mapping[str, Descriptor]:
    """The releases of model ``name`` by version, oldest first where versions are numbers.

    Found by the entries' annotations: ``fan-failure-1`` alone could be read two ways.
    """
    found = {
        target.annotations[VERSION]: target
        for target in layout.tags().values()
        if target.annotations.get(MODEL) == name and VERSION in target.annotations
    }
    return {version: found[version] for version in sorted(found, key=version_order)}
