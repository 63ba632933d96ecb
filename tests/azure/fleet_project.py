"""A project whose base has real sizes, and releases that are the same on every machine."""

from __future__ import annotations

import functools
import hashlib
import shutil
from pathlib import Path

from mlpack.model.lock import Lock, LockedBase, LockedLayer, LockedPackage, LockedPlatform
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Digest, Platform
from mlpack.oci.image import Image, ImageConfig, build_image, build_index
from mlpack.oci.layer import PACKING
from mlpack.project.directory import ProjectDirectory
from mlpack.stores.store import put_bytes, put_image
from tests.support import AMD64, ARM64, lasting_folder, layer, make_project, run

SIZES = {"debian": 17_400_000, "packages": 34_100_000, "runtime": 111_000, "entry": 190}
"""Bytes of a base's layers, about those of the fan example; the layers are named, not there."""

MODEL_BYTES = 6_131
VANS = """
[deploy]
retain = 2

[deploy.groups.vans]
target = "tags.deviceGroup = 'vans'"
stages = "1%,10%,50%,100%"
link = "64 kbit/s"
tariff = "per-mb"
"""


def fleet_project(root: Path, *, releases: int = 2, settings: str = VANS) -> ProjectDirectory:
    """A project with releases fan:1, fan:2, … of models that are 6 KB of noise each."""
    shutil.copytree(_made(releases, settings), root / "project")
    return ProjectDirectory(root / "project")


@functools.cache
def _made(releases: int, settings: str) -> Path:
    root = lasting_folder()
    project = make_project(root / "project", settings=settings, base=False)
    _base(project)
    for number in range(1, releases + 1):
        folder = root / f"model-{number}"
        folder.mkdir()
        (folder / "weights.bin").write_bytes(_noise(number))
        for args in (("register", str(folder), "--name", "fan"), ("build", "fan")):
            result = run("-C", str(project.root), *args)
            assert result.exit_code == 0, result.output
    return project.root


def _noise(number: int) -> bytes:
    blocks = (hashlib.sha256(f"{number} {n}".encode()).digest() for n in range(200))
    return b"".join(blocks)[:MODEL_BYTES]


def _base(project: ProjectDirectory) -> None:
    locked = [_platform(project, platform) for platform in (AMD64, ARM64)]
    index = build_index([image for image, _ in locked])
    target = put_bytes(project.layout, index.content, media.INDEX)
    project.layout.tag(target, "base")
    base = LockedBase(
        source="debian:bookworm",
        recipe=Digest.of(b"recipe"),
        index=target,
        packing=PACKING,
        platforms=tuple(platform for _, platform in locked),
    )
    project.write_lock(Lock(base=base))


def _platform(project: ProjectDirectory, platform: Platform) -> tuple[Image, LockedPlatform]:
    layers = tuple(
        LockedLayer(role, layer(f"{role} {platform}", size)) for role, size in SIZES.items()
    )
    config = ImageConfig(
        platform=platform,
        env=("PATH=/usr/bin", "AML_APP_ROOT=/var/azureml-app"),
        entrypoint=("/usr/bin/python3", "-m", "mlpack_runtime"),
    )
    image = build_image(config, [each.layer for each in layers])
    put_image(project.layout, image)
    packages = tuple(
        LockedPackage(name, "1.0", ("sha256:" + "0" * 64,)) for name in ("numpy", "onnxruntime")
    )
    return image, LockedPlatform(
        platform=platform, manifest=image.descriptor, layers=layers, python=packages
    )
