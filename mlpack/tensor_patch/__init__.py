"""Patches of model files: made here, on a workstation; applied by ``mlpack.runtime.patch``.

:func:`make_patch` and :func:`apply_patch` work on the bytes of whole files, and :func:`describe`
returns what a patch consists of. :mod:`mlpack.api.patch` does the same for files on disk.
"""

from mlpack.kinds import Effort
from mlpack.runtime.patch import BadPatch, apply_patch
from mlpack.tensor_patch.describe import Description, InvalidPatch, describe
from mlpack.tensor_patch.estimate import Estimate, estimate
from mlpack.tensor_patch.patch import Arrays, make_patch

__all__ = [
    "Arrays",
    "BadPatch",
    "Description",
    "Effort",
    "Estimate",
    "InvalidPatch",
    "apply_patch",
    "describe",
    "estimate",
    "make_patch",
]
