"""What mlpack has one file each of, by file name; none is imported before it is used.

CONTRIBUTING.md has an example of each kind. Tariffs are listed by :mod:`mlpack.project.directory`,
formats of tensors, which are told apart by content, by :mod:`mlpack.tensor_patch.spans`, and
scorers by the runtime.
"""

from __future__ import annotations

from enum import StrEnum
from operator import attrgetter, methodcaller
from pkgutil import iter_modules

import mlpack

_HERE = mlpack.__path__[0]
_NAME = attrgetter("name")
_PREFIX = methodcaller("replace", "_", "-")

DEFAULT_ENGINE = "moby"
_ENGINES = {*map(_NAME, iter_modules([f"{_HERE}/plan/engines"]))}
ENGINES: tuple[str, ...] = (DEFAULT_ENGINE, *sorted(_ENGINES - {DEFAULT_ENGINE}))
"""Container engines (:mod:`mlpack.plan.engines`), the default first."""

ENGINE_ALIASES = {"docker": "moby"}
"""What an engine is also called."""

ENGINE_CHOICE = f"{', '.join(ENGINES[:-1])} or {ENGINES[-1]}"

PLACES = tuple(map(_PREFIX, map(_NAME, iter_modules([f"{_HERE}/stores/places"]))))
"""Prefixes of images on disk, such as ``oci`` (:mod:`mlpack.stores.places`)."""

DEFAULT_TARGET = "iotedge"
_TARGETS = {*map(_NAME, iter_modules([f"{_HERE}/api/targets"]))}
TARGETS: tuple[str, ...] = (DEFAULT_TARGET, *sorted(_TARGETS - {DEFAULT_TARGET}))
"""What runs a release (:mod:`mlpack.api.targets`), the default first."""

STRATEGIES = ("auto", "layer", "packed", "patch")
"""How a release carries its model (:mod:`mlpack.plan.release_strategy`), the default first."""

ALLOW_START, ALLOW_ONNXRUNTIME = "start", "onnxruntime"
REFUSALS = (ALLOW_START, ALLOW_ONNXRUNTIME)
"""Refusals of ``mlpack build`` that ``--allow`` overrides: a release that did not start, and one
that could not be tried and would not load by what is known of the base's onnxruntime."""


class Effort(StrEnum):
    """Time the encoder of patches may take, and with it how many ways it tries."""

    FAST = "fast"
    """One way for each array and the rest of a file, without a search."""

    DEFAULT = "default"
    """Ways that samples say may be the smallest; about 0.05 s for each MB, and 0.5 s."""

    MAX = "max"
    """Every way, at the slowest level."""


EFFORTS = tuple(each.value for each in Effort)
