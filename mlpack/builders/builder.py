"""What a builder does, and the one that needs nothing but this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mlpack.errors import MlpackError
from mlpack.model.version import ModelVersion
from mlpack.oci.digest import Writable
from mlpack.oci.image import Image, append, require_prefix
from mlpack.stores.layout import LayoutStore
from mlpack.stores.releases import model_env, model_labels, write_model_layer


class BuildFailed(MlpackError):
    """What a builder said when it would not."""


class NotOneLayer(MlpackError):
    """An image that is not its base and one layer."""

    hint = "the Dockerfile may hold one COPY after its last FROM, and no RUN or ADD"


class Builder(Protocol):
    """Puts a model version on bases."""

    def build(
        self, layout: LayoutStore, model: ModelVersion, bases: Sequence[Image]
    ) -> tuple[Image, ...]:
        """One image per base, each the base and one layer, which is in ``layout`` then."""
        ...


@dataclass(frozen=True)
class OciBuilder:
    """Appends the layer itself: no daemon, and the same bytes on every machine."""

    copy: Writable | None = None
    """What else takes the layer's bytes while they are written."""

    def build(
        self, layout: LayoutStore, model: ModelVersion, bases: Sequence[Image]
    ) -> tuple[Image, ...]:
        """Write the layer once and put it on every base."""
        layer = write_model_layer(layout, model, self.copy)
        env, labels = model_env(model), model_labels(model)
        return tuple(append(base, layer, env=env, labels=labels) for base in bases)


def require_one_layer(image: Image, base: Image) -> None:
    """Raise unless ``image`` is ``base`` and exactly one layer above it."""
    require_prefix(image, base)
    if len(image.layers) != len(base.layers) + 1:
        raise NotOneLayer(
            f"image {image.digest.short} has {len(image.layers) - len(base.layers)} layers "
            f"above base {base.digest.short}, not one"
        )
