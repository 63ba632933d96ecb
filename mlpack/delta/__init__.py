"""Patches of model files: made here, on a workstation; applied by ``mlpack.runtime.patch``."""
