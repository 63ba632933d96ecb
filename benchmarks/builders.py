"""The three ways to put a 6 KB model on the base: what a device fetches of each, side by side.

Built on the base a user gets. ACR Tasks is left out here because it needs Azure; its image
is one Docker built and pushed, so its bytes are those of the second row plus what
``docker push`` adds to the manifest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.conftest import scratch
from tests.e2e.engines import Docker

SIZE = 6_000
BUNDLES = ("moby", "podman", "containerd")


def main(folder: Path) -> None:
    """Make one project with a real base, and build in it with each builder."""
    root = folder / "fan"
    root.mkdir()
    (root / "mlpack.toml").write_text('[model]\nname = "fan"\n')
    (root / "requirements.in").write_text("")
    _mlpack(root, "base", "build")
    for version in (1, 2):
        model = folder / f"model{version}" / "model.bin"
        model.parent.mkdir()
        model.write_bytes(os.urandom(SIZE))
        _mlpack(root, "register", str(model.parent), "--name", "fan")
        _mlpack(root, "build", f"fan:{version}")
    _bundles(root, folder)
    with scratch() as place, Docker.started(place / "docker") as docker:
        os.environ["DOCKER_HOST"] = docker.address
        _builders(root)


def _builders(root: Path) -> None:
    print(f"\n{'builder':10}{'manifest':>10}{'config':>8}{'layer':>8}{'sum':>8}{'seconds':>9}")
    for builder in ("oci", "docker", "docker"):
        start = time.perf_counter()
        built = _mlpack(root, "build", "fan:2", "--builder", builder, "--platform", "linux/amd64")
        seconds = time.perf_counter() - start
        cost = built["transfer"]
        parts = [cost["manifest"], cost["config"], cost["layers"]]
        shown = "".join(f"{part:>{width}}" for part, width in zip(parts, (10, 8, 8), strict=True))
        print(f"{builder:10}{shown}{sum(parts):>8}{seconds:>9.2f}")
    print("(bytes a device on the base fetches; the first docker build gives the daemon the base)")


def _bundles(root: Path, folder: Path) -> None:
    print(f"\n{'bundle for':12}{'bytes':>8}")
    for engine in BUNDLES:
        out = folder / f"{engine}.bundle"
        args = ["fan:2", "--onto", "fan:1", "--engine", engine, "-o", str(out)]
        print(f"{engine:12}{_mlpack(root, 'bundle', *args)['bytes']:>8}")


def _mlpack(root: Path, *args: str) -> dict[str, dict[str, int]]:
    command = [sys.executable, "-m", "mlpack", "-C", str(root), "--json", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    answer: dict[str, dict[str, int]] = json.loads(done.stdout)
    return answer
