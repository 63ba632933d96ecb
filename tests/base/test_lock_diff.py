"""Two bases side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlpack.base.lock_diff import NotReproduced, changes, check_same
from mlpack.model.lock import DebianPackage, LockedBase, LockedLayer, LockedPackage, LockedPlatform
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.layer import PACKING
from tests.support import AMD64, ARM64, layer


def descriptor(name: str) -> Descriptor:
    return Descriptor.of(name.encode(), media.MANIFEST)


PLATFORM = LockedPlatform(
    platform=AMD64,
    manifest=descriptor("manifest"),
    layers=(LockedLayer("debian", layer("d")), LockedLayer("runtime", layer("r"))),
    python=(LockedPackage("numpy", "1.0"),),
    debian=(DebianPackage("libc6", "2.36-9", "amd64", "0" * 64),),
)
BASE = LockedBase(
    source="debian:bookworm",
    recipe=Digest.of(b"recipe"),
    index=descriptor("index"),
    packing=PACKING,
    platforms=(PLATFORM,),
)


def with_platform(**changed: object) -> LockedBase:
    return replace(BASE, platforms=(replace(PLATFORM, **changed),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("new", "lines"),
    [
        pytest.param(BASE, (), id="nothing"),
        pytest.param(
            replace(BASE, source="oci:x"), ("from: debian:bookworm -> oci:x",), id="source"
        ),
        pytest.param(
            replace(BASE, packing=replace(PACKING, revision=9)),
            (f"layers: {PACKING} -> layer format 9, {PACKING.compressor}",),
            id="packing",
        ),
        pytest.param(
            replace(BASE, platforms=(PLATFORM, replace(PLATFORM, platform=ARM64))),
            ("platform linux/arm64 is new",),
            id="platform added",
        ),
        pytest.param(replace(BASE, platforms=()), ("platform linux/amd64 is gone",), id="removed"),
        pytest.param(
            with_platform(python=(LockedPackage("numpy", "2.0"), LockedPackage("pandas", "3"))),
            ("linux/amd64: numpy: 1.0 -> 2.0", "linux/amd64: pandas: not there -> 3"),
            id="python packages",
        ),
        pytest.param(
            with_platform(debian=()),
            ("linux/amd64: libc6 (Debian): 2.36-9 -> not there",),
            id="debian packages",
        ),
        pytest.param(
            with_platform(layers=(PLATFORM.layers[0], LockedLayer("runtime", layer("other")))),
            ("linux/amd64: the runtime layer",),
            id="runtime",
        ),
    ],
)
def test_what_changed_is_said(new: LockedBase, lines: tuple[str, ...]) -> None:
    assert changes(BASE, new) == lines


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (with_platform(layers=PLATFORM.layers[:1]), "the lock has 2 layers, 1 were made"),
        (replace(BASE, platforms=()), "the lock has 2 layers, 0 were made"),
        (
            with_platform(layers=(PLATFORM.layers[0], LockedLayer("runtime", layer("x")))),
            "layer 'runtime' came out as",
        ),
        (replace(BASE, index=descriptor("other")), "the base came out as"),
    ],
)
def test_a_base_made_again_must_be_the_same(new: LockedBase, message: str) -> None:
    with pytest.raises(NotReproduced, match=message):
        check_same(BASE, new)


def test_the_same_base_is_the_same() -> None:
    check_same(BASE, BASE)
