"""Patches of model files: made here, on a workstation; applied by ``mlpack.runtime.patch``."""

from mlpack.delta.patch import make_patch

__all__ = ["make_patch"]
