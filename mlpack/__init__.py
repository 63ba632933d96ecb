"""Ship machine-learning models to edge fleets as one small layer on the image the devices hold."""

from mlpack._version import __version__

__all__ = ["__version__"]
