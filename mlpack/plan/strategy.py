"""What a release costs beside other ways of shipping the same content.

Up to four ways, all with the same engine, link and files:

- *whole*: an empty device fetches the whole image; so does every device after a
  change of its base, or when the old image was removed before the new one came;
- *usual*: the dependency layers lie above the model and are made anew with every
  build, so they have new names each time and travel with every model;
- *layer*: mlpack's release, one layer on the base;
- *patch*: mlpack's patch release, one layer on the anchor, compared with its model's
  whole layer.

The usual build is a computation, not a measurement: the layers of the release and
of the base, reordered, at their real sizes. It is favourable to that build, whose
config also carries history (5 KB with a Python image of Docker's). Its condition
is the order and the rebuilding; a Dockerfile that installs first, copies the model
last and finds its build cache every time fetches about what *layer* does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mlpack.model.lock import LockedLayer
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.document import canonical, parse
from mlpack.oci.image import Image, Layer
from mlpack.plan.engines import DeviceState, Engine
from mlpack.plan.transfer import Pull, Transfer, transfer

STABLE_ROLES = frozenset({"debian", "source"})
"""Layers of the base that the usual build starts ``FROM`` and does not make."""

WayName = Literal["whole", "usual", "layer", "patch"]


@dataclass(frozen=True, slots=True)
class Way:
    """One way of bringing a device to the release, and its transfer."""

    name: WayName
    title: str
    transfer: Transfer

    def to_json(self) -> dict[str, object]:
        """This way with its bytes."""
        return {"name": self.name, "title": self.title, "transfer": self.transfer.to_json()}


def whole_image(engine: Engine, pull: Pull) -> Way:
    """What an empty device fetches."""
    moved = transfer(engine, pull.image, pull.index, DeviceState(), pull.link)
    return Way("whole", "whole image", moved)


def one_layer(engine: Engine, pull: Pull) -> Way:
    """What the device fetches of mlpack's release."""
    moved = transfer(engine, pull.image, pull.index, pull.state, pull.link)
    return Way("layer", "mlpack layer", moved)


def one_patch(engine: Engine, pull: Pull) -> Way:
    """What the device fetches of mlpack's patch release; the anchor too, where it lacks that."""
    moved = transfer(engine, pull.image, pull.index, pull.state, pull.link)
    return Way("patch", "mlpack patch", moved)


def with_layer(image: Image, whole: Layer) -> Image:
    """The patch release ``image`` as it would be with ``whole`` on the base instead."""
    return _with_layers(image, [*image.layers[:-2], whole])


def usual_build(
    engine: Engine, pull: Pull, old: Image | None, base: Sequence[LockedLayer]
) -> Way | None:
    """What a device on the usual build of ``old`` fetches of the usual build of the release.

    ``base`` says which layers are the base's and what is in them. ``None`` where
    the release does not start with them, so that no role can be told.
    """
    layers = [locked.layer for locked in base]
    if list(pull.image.layers[: len(base)]) != layers:
        return None
    roles = {locked.layer.digest: locked.role for locked in base}
    before = DeviceState() if old is None else DeviceState.holding(usual_image(old, roles, "old"))
    new = usual_image(pull.image, roles, "new")
    moved = transfer(engine, new, pull.index, before, pull.link)
    return Way("usual", "usual build", moved)


def usual_image(image: Image, roles: Mapping[Digest, str], build: str) -> Image:
    """``image`` in the usual order: what it starts from, the model, then the rest made anew.

    Layers made anew get names of their own for each ``build``: installing again
    gives other times and compiled files, so other bytes under the same sizes.
    """
    stable = [each for each in image.layers if roles.get(each.digest) in STABLE_ROLES]
    model = [each for each in image.layers if each.digest not in roles]
    rest = [each for each in image.layers if each not in stable and each not in model]
    return _with_layers(image, [*stable, *model, *(_anew(each, build) for each in rest)])


def _anew(layer: Layer, build: str) -> Layer:
    named = Digest.of(f"{build} {layer.digest}".encode())
    content = Digest.of(f"{build} {layer.diff_id}".encode())
    return Layer(replace(layer.descriptor, digest=named), content)


def _with_layers(image: Image, layers: Sequence[Layer]) -> Image:
    """``image`` with other layers of the same sizes: manifest and config keep their sizes too."""
    config = dict(parse(image.config, "config").mapping())
    rootfs = {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]}
    made = canonical({**config, "rootfs": rootfs})
    described = Descriptor.of(made, image.config_descriptor.media_type)
    manifest = dict(parse(image.manifest, "manifest").mapping())
    manifest["config"] = described.to_json()
    manifest["layers"] = [layer.descriptor.to_json() for layer in layers]
    return Image(canonical(manifest), made)
