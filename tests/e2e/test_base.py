"""The real base: the same again from its lock, and arm64 made on another processor."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from mlpack.api import base as base_api
from mlpack.stores.base import select_image
from mlpack.stores.project import Project
from tests.support import ARM64, run, tiny_onnx, unavailable

pytestmark = pytest.mark.e2e

# onnxruntime reads what processor it is on, and qemu shows it the host's file.
CORTEX_A72 = """\
processor : 0
BogoMIPS : 50.00
Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer : 0x41
CPU architecture: 8
CPU variant : 0x0
CPU part : 0xd08
CPU revision : 3
"""

SCORE = """
import os, site, sys
site.addsitedir(sys.argv[1] + "/usr/local/lib/python3.11/dist-packages")
from mlpack_runtime.answers import to_json
from mlpack_runtime.http import app  # all that serving imports
from mlpack_runtime.opening import open_scorer
from mlpack_runtime.scorer import Payload
from mlpack_runtime.settings import Settings
settings = Settings.read({"AZUREML_MODEL_DIR": sys.argv[2], "AML_APP_ROOT": "/nowhere"})
answer = open_scorer(settings).run(Payload(content=b'{"data": [[1, 2, 3, 4]]}'))
print(os.uname().machine, to_json(answer).decode())
"""


def test_the_same_lock_gives_the_same_base_elsewhere(real_project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "another" / "place")
    other.root.mkdir(parents=True)
    for name in ("mlpack.toml", "requirements.in", "mlpack.lock"):
        shutil.copy(real_project.root / name, other.root)
    before = os.umask(0o077)
    try:
        made = base_api.build(other)
    finally:
        os.umask(before)
    assert not made.already
    assert made.base == real_project.lock().base
    assert made.missing == ()


def test_arm64_scores_though_no_arm64_made_it(real_project: Project, tmp_path: Path) -> None:
    if shutil.which("qemu-aarch64") is None:
        unavailable("qemu-aarch64 is not installed")
    root = tmp_path / "root"
    image = select_image(real_project.layout, real_project.layout.resolve("base"), ARM64)
    for layer in image.layers:
        with (
            real_project.layout.open(layer.descriptor) as content,
            tarfile.open(fileobj=content, mode="r:*") as archive,
        ):
            # Debian's 3.11.2 has no filters, and 3.12 wants one named.
            archive.extraction_filter = getattr(tarfile, "tar_filter", None)
            archive.extractall(root)
    (root / "proc" / "cpuinfo").write_text(CORTEX_A72)
    tiny_onnx(tmp_path / "model.onnx", bias=0.5)
    done = subprocess.run(
        [
            *("qemu-aarch64", "-L", str(root), f"{root}/usr/bin/python3.11", "-c", SCORE),
            *(str(root), str(tmp_path)),
        ],
        env={"PATH": os.environ["PATH"], "ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == 'aarch64 {"result":[[20.5]]}\n', done.stderr


def test_the_base_in_numbers(real_project: Project) -> None:
    shown = run("-C", str(real_project.root), "base", "show")
    assert shown.exit_code == 0
    for role in ("debian", "packages", "runtime", "entry", "whole base"):
        assert role in shown.stdout
