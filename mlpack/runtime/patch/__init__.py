"""Patches: make the new version of a model's file from the old one and the differences.

Independent of model formats; needs numpy, zstandard and the standard library.
"""

from .apply import apply_patch
from .container import BadPatch, Header, read_header

__all__ = ["BadPatch", "Header", "apply_patch", "read_header"]
