"""The fan's release for arm64, made on another processor: its server runs under qemu and scores."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlpack.oci.image import Image
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import find_image
from tests.examples.fan import EXAMPLE, expected, real_readings, trained
from tests.support import ARM64, free_port, run, unavailable

pytestmark = pytest.mark.e2e

QEMU = "qemu-aarch64"
AARCH64 = 183
"""``e_machine`` (System V ABI, *ELF Header*)."""

SECONDS = 240
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
# Python does not look in the image's folders where the image is not its root.
START = """
import runpy, site, sys
site.addsitedir(sys.argv.pop(1))
runpy.run_module("mlpack_runtime", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def root(real_project: ProjectDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file system of the release."""
    if shutil.which(QEMU) is None:
        unavailable(f"{QEMU} is not installed")
    folder = tmp_path_factory.mktemp("arm64")
    (folder / "fan.onnx").write_bytes(trained())
    script = str(EXAMPLE / "score.py")
    for command in (
        ["register", str(folder / "fan.onnx"), "--name", "fan-arm64", "--scoring", script],
        ["build", "fan-arm64", "--platform", "linux/arm64"],
    ):
        done = run("-C", str(real_project.root), *command)
        assert done.exit_code == 0, done.output
    found = find_image(real_project, "fan-arm64:1", ARM64)
    unpack(real_project, found.image, folder / "root")
    (folder / "root" / "proc" / "cpuinfo").write_text(CORTEX_A72)
    return folder / "root"


def unpack(project: ProjectDirectory, image: Image, root: Path) -> None:
    for layer in image.layers:
        with (
            project.layout.open(layer.descriptor) as content,
            tarfile.open(fileobj=content, mode="r:*") as archive,
        ):
            # Debian's 3.11.2 has no filters, and 3.12 wants one named.
            archive.extraction_filter = getattr(tarfile, "tar_filter", None)
            archive.extractall(root)


@contextmanager
def serving(root: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The server of the release, emulated, and where it scores."""
    port = free_port()
    packages = f"{root}/usr/local/lib/python3.11/dist-packages"
    environment = {
        "AML_APP_ROOT": f"{root}/var/azureml-app",
        "MLPACK_DRAIN": "0",
        "MLPACK_HOST": "127.0.0.1",
        "MLPACK_PORT": str(port),
        "PATH": os.environ["PATH"],
    }
    command = [QEMU, "-L", str(root), f"{root}/usr/bin/python3.11", "-c", START, packages]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        yield process, f"http://127.0.0.1:{port}/score"
    finally:
        process.kill()
        process.wait()


def ask(url: str, body: bytes) -> dict[str, object]:
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        found: dict[str, object] = json.loads(answer.read())
    return found


def test_the_server_scores_on_arm64(root: Path, tmp_path: Path) -> None:
    readings = real_readings(20)
    log = tmp_path / "log"
    with serving(root, log) as (process, url):
        deadline = time.monotonic() + SECONDS
        while "ready on port" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        # It says so just before it listens.
        answers = []
        for reading in readings.tolist():
            body = json.dumps({"params": reading}).encode()
            answers.append(_patiently(url, body, deadline))
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0, log.read_text()
    assert [each["fault"] for each in answers] == expected(readings)


def _patiently(url: str, body: bytes, deadline: float) -> dict[str, object]:
    while True:
        try:
            return ask(url, body)
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_every_program_and_library_is_for_arm64(root: Path) -> None:
    machines: dict[str, int] = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as content:
                head = content.read(20)
            if head.startswith(b"\x7fELF"):
                [machines[str(path.relative_to(root))]] = struct.unpack_from("<H", head, 18)
    assert len(machines) > 50
    assert {path for path, machine in machines.items() if machine != AARCH64} == set()
