"""Releases in the layout: writing a model's layer, keeping images, naming them, finding them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from mlpack import __version__
from mlpack.errors import MlpackError
from mlpack.model.lock import Lock
from mlpack.model.version import SCORING, ModelVersion, version_order
from mlpack.oci import descriptor as media
from mlpack.oci.compression import PACKING, OpenFile
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.document import canonical
from mlpack.oci.image import Image, Layer
from mlpack.oci.index import Index, build_index
from mlpack.oci.layer import write_layer
from mlpack.oci.tree import Entry
from mlpack.stores.base import put_bytes, put_image
from mlpack.stores.layout import LayoutStore
from mlpack.stores.models import ModelStore

APP_ROOT = "var/azureml-app"
"""Where Azure ML's inference images keep the scoring script and the models."""

MODEL, VERSION, CONTENT = "io.mlpack.model", "io.mlpack.version", "io.mlpack.digest"
RECORD = "application/vnd.mlpack.release.v1+json"


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


def model_files(layout: LayoutStore, model: ModelVersion) -> tuple[list[Entry], OpenFile]:
    """What a release adds to the image: the model's files and its scoring script."""
    models = ModelStore(layout)
    files = {f"{model_folder(model)}/{each.path}": each for each in model.files}
    if model.scoring:
        files[f"{APP_ROOT}/{SCORING}"] = model.scoring

    @contextmanager
    def open_file(path: str) -> Iterator[BinaryIO]:
        with models.open_file(files[path]) as content:
            yield content

    return [Entry(path, size=each.size) for path, each in files.items()], open_file


def write_model_layer(layout: LayoutStore, model: ModelVersion) -> Layer:
    """Write the one layer a release adds."""
    entries, open_file = model_files(layout, model)
    with layout.stage() as out:
        layer = write_layer(entries, open_file, out)
        out.commit(layer.descriptor)
    return layer


def keep_release(
    layout: LayoutStore, model: ModelVersion, images: Sequence[Image], record: Mapping[str, object]
) -> tuple[Descriptor, Index | None]:
    """Put a release into the layout and name it; the name comes last.

    Returns what it is called, and the index where there are several platforms.
    Raises :class:`TagTaken` before anything is named.
    """
    tag = release_tag(model.name, model.version)
    holder = layout.tags().get(tag)
    if holder is not None and holder.annotations.get(MODEL) != model.name:
        raise TagTaken(f"the store has an image called {tag!r} that is no release of {model.name}")
    for image in images:
        put_image(layout, image)
    index = build_index(images) if len(images) > 1 else None
    target = put_bytes(layout, index.content, media.INDEX) if index else images[0].descriptor
    _keep_record(layout, model, target, record)
    named = {MODEL: model.name, VERSION: model.version}
    layout.tag(replace(target, annotations=named), tag)
    return target, index


def identity(lock: Lock, model: ModelVersion, images: Sequence[Image]) -> dict[str, object]:
    """Everything the release's bytes came from: equal records mean equal images."""
    layer = images[0].layers[-1]
    return {
        "model": {"name": model.name, "version": model.version, "digest": str(model.digest)},
        "source_commit": model.source_commit,
        "base": str(lock.base.index.digest),
        "layer": {"digest": str(layer.digest), "diff_id": str(layer.diff_id)},
        "images": {str(image.platform): str(image.digest) for image in images},
        "packing": PACKING.to_json(),
        "strategy": "layer",
        "mlpack": __version__,
    }


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


def _keep_record(
    layout: LayoutStore, model: ModelVersion, target: Descriptor, record: Mapping[str, object]
) -> None:
    """Keep the identity record as an artifact that refers to the release; no device fetches it."""
    content = put_bytes(layout, canonical(record), RECORD)
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": RECORD,
        "config": put_bytes(layout, b"{}", media.EMPTY).to_json(),
        "layers": [content.to_json()],
        "subject": replace(target, annotations={}, platform=None).to_json(),
    }
    made = put_bytes(layout, canonical(manifest), media.MANIFEST)
    layout.tag(replace(made, artifact_type=RECORD), f"release/{model.name}/{model.version}")
