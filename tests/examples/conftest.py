"""The examples' networks, made once, and their modules served on a port."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from mlpack.runtime.http.app import application
from mlpack.runtime.settings import RuntimeSettings
from tests.registry.serve.server import asking
from tests.runtime.support import start
from tests.support import SHARED, require

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ZOO = SHARED / "onnx-zoo"


def load(path: Path) -> ModuleType:
    """A file as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def served(example: str, model: Path) -> Iterator[httpx.Client]:
    """A client of the module made of an example's score.py and the model's folder."""
    settings = RuntimeSettings(
        app_root=model, model_dir=model, script=EXAMPLES / example / "score.py"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.environment.items():
            patch.setenv(name, value)
        module = start(settings)
    try:
        with asking(application(module)) as client:
            yield client
    finally:
        module.close()


@pytest.fixture(scope="session")
def resnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made ResNet50v2, 102 MB, and its labels."""
    folder = tmp_path_factory.mktemp("resnet50v2")
    content = load(EXAMPLES / "resnet50v2/make_weights.py").build().SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    shutil.copy(EXAMPLES / "resnet50v2/model/labels.txt", folder)
    return folder


@pytest.fixture(scope="session")
def ferplus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made FER+, 35 MB, and the real face detector."""
    folder = tmp_path_factory.mktemp("ferplus")
    content = load(EXAMPLES / "ferplus/make_weights.py").build().SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    shutil.copy(require(ZOO / "version-RFB-320.onnx"), folder)
    return folder


@pytest.fixture(scope="session")
def resnet(resnet_folder: Path) -> Iterator[httpx.Client]:
    """The made ResNet50v2, served."""
    with served("resnet50v2", resnet_folder) as client:
        yield client


@pytest.fixture(scope="session")
def ferplus(ferplus_folder: Path) -> Iterator[httpx.Client]:
    """The made FER+, served."""
    with served("ferplus", ferplus_folder) as client:
        yield client


@pytest.fixture(scope="session")
def shufflenet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A real network of the same contract as ResNet50v2, with its score.py."""
    folder = tmp_path_factory.mktemp("shufflenet")
    shutil.copy(require(ZOO / "shufflenet-v2-12-int8.onnx"), folder / "model.onnx")
    shutil.copy(EXAMPLES / "resnet50v2/model/labels.txt", folder)
    with served("resnet50v2", folder) as client:
        yield client


def run_script(path: Path, *args: str, folder: Path) -> tuple[int, str, str]:
    """Run a Python file of an example; its status, output and errors."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, str(path), *args],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_PROXY": "*"},
    )
    return done.returncode, done.stdout, done.stderr
