"""Which of several images a device takes: the order in which engines try platforms.

containerd's matcher, which Docker uses too, and that of podman and skopeo agree on most of it: an
exact match first, then what the processor runs as well, from newer to older (``linux/arm/v7``,
then ``v6``, ``v5``). ``arm64`` is ``arm64/v8``, ``amd64`` is ``amd64/v1``, ``arm`` is ``arm/v7``;
other images without a variant are the last choice of a device that has one. None was seen to take
another architecture than the one requested. ``tests/e2e/test_platforms.py`` asks them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mlpack.oci.descriptor import Platform

_COMMON = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
"""What an image without a variant is for."""

_LAST = 1000
"""The place of an image without a variant, behind every variant."""

_VARIANT = re.compile(r"v(\d{1,2})(?:\.(\d{1,2}))?")


def best(device: Platform, offered: Sequence[Platform]) -> int | None:
    """Return the number of the image that ``device`` takes; of equal ones the first.

    >>> best(Platform("linux", "arm", "v7"), [Platform("linux", "arm", f"v{n}") for n in (5, 6, 8)])
    1
    """
    places = [_place(each, device) for each in offered]
    found = [place for place in places if place is not None]
    return places.index(min(found)) if found else None


def fits(image: Platform, device: Platform) -> bool:
    """Whether an image for the platform ``image`` runs on ``device``."""
    return _place(image, device) is not None


def compatible(one: Platform, other: Platform) -> bool:
    """Whether some device runs images of both."""
    return fits(one, other) or fits(other, one)


def _place(image: Platform, device: Platform) -> int | None:
    """Return the place of ``image`` among what ``device`` tries; ``None`` if it cannot run it."""
    wanted, found = _normal(device), _normal(image)
    if (wanted.os, wanted.architecture) != (found.os, found.architecture):
        return None
    if wanted.os == "windows" and not _same_build(wanted.os_version, found.os_version):
        return None
    if image.variant == device.variant:
        return 0
    for place, variant in enumerate(_tried(wanted), start=1):
        if variant == found.variant:
            return place
    return None if image.variant else _LAST


def _normal(platform: Platform) -> Platform:
    """``platform`` by its common names, with the variant that is meant where none is written."""
    found = platform.normal()
    return replace(found, variant=found.variant or _COMMON.get(found.architecture, ""))


def _tried(device: Platform) -> Iterator[str]:
    """Yield the variants that ``device`` runs, its own first."""
    yield device.variant
    found = _VARIANT.fullmatch(device.variant)
    if not found:
        return
    major, minor = int(found[1]), int(found[2] or 0)
    if device.architecture == "arm64":
        yield from _arm64(major, minor)
    elif device.architecture in _COMMON:
        oldest = 5 if device.architecture == "arm" else 1
        yield from (f"v{number}" for number in range(major - 1, oldest - 1, -1))


def _arm64(major: int, minor: int) -> Iterator[str]:
    """Armv9.x runs what Armv8.(x + 5) does."""
    if major == 9:
        yield from (f"v9.{number}" if number else "v9" for number in range(minor - 1, -1, -1))
        major, minor = 8, minor + 6
    if major == 8:
        yield from (f"v8.{number}" if number else "v8" for number in range(minor - 1, -1, -1))


def _same_build(one: str, other: str) -> bool:
    """Whether containers of one build of Windows start on the other (10.0.17763)."""
    return not one or not other or one.split(".")[:3] == other.split(".")[:3]
