"""Patches of model files: made here, on a workstation; applied by ``mlpack.runtime.patch``.

:func:`make_patch` and :func:`apply_patch` are opposites, over bytes of whole files;
:func:`describe` says what a patch is made of. :mod:`mlpack.api.patch` does the same for files.
"""

from mlpack.delta.describe import Description, InvalidPatch, describe
from mlpack.delta.patch import make_patch
from mlpack.runtime.patch import BadPatch, apply_patch

__all__ = [
    "BadPatch",
    "Description",
    "InvalidPatch",
    "apply_patch",
    "describe",
    "make_patch",
]
