"""One real base for all end-to-end tests, and engines that run it."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.e2e.engines import Containerd, Docker, Podman, needs
from tests.support import build_base


@pytest.fixture(scope="session")
def real_project(tmp_path_factory: pytest.TempPathFactory) -> ProjectDirectory:
    """A project with a real base for both platforms, as a user gets it."""
    root = tmp_path_factory.mktemp("real") / "fan"
    root.mkdir()
    (root / "mlpack.toml").write_text('[model]\nname = "fan"\n')
    # One base for every module: of all examples only the fan does without Pillow.
    (root / "requirements.in").write_text("pillow\n")
    project = ProjectDirectory(root)
    needs("mmdebstrap")
    build_base(project)
    return project


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A Docker daemon for the whole session."""
    with scratch() as folder, Docker.started(folder / "docker") as started:
        yield started


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """podman with a store for the whole session."""
    with scratch() as folder, Podman.started(folder / "podman") as started:
        yield started


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    """A containerd for the whole session."""
    with scratch() as folder, Containerd.started(folder / "containerd") as started:
        yield started


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for an engine; what the engine leaves mounted in it is unmounted at the end."""
    # podman makes an image's name of the path, and mkdtemp's may end in "_", which none may.
    folder = Path(tempfile.gettempdir()) / f"mlpack-engine-{secrets.token_hex(6)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed([each for each in mounts if each.startswith(f"{folder}/")]):
            subprocess.run(["umount", place], check=False)
        shutil.rmtree(folder)
