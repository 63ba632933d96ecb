"""The layer of a 100 MB incompressible model: mlpack compared with its bound and three peers.

The bound is one process that reads the file once, hashes it, deflates it at
level 1 with the library mlpack uses, hashes that, and writes it once. Peers put
the same file on the same base into the same form, an OCI layout on disk; Docker
builds into its own store, as it cannot otherwise. Whole processes, start-up
included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Case, interleaved, report
from tests.e2e.engines import Docker
from tests.support import make_project

SIZE = 100_000_000

BOUND = """
import hashlib, os, sys
import deflate
plain, packed = hashlib.sha256(), hashlib.sha256()
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as out:
    while chunk := source.read(8 * 1024 * 1024):
        plain.update(chunk)
        member = deflate.gzip_compress(chunk, 1)
        packed.update(member)
        out.write(member)
    os.fsync(out.fileno())
"""

LAYER = """
import sys
from pathlib import Path
from mlpack.oci.layer import write_layer
from mlpack.oci.layer import Entry
from mlpack.stores.layout import LayoutStore
model = Path(sys.argv[1])
with LayoutStore(Path(sys.argv[2])).stage() as out:
    entry = Entry("var/azureml-app/azureml-models/big/1/model.bin", size=model.stat().st_size)
    layer = write_layer([entry], lambda path: model.open("rb"), out)
    out.commit(layer.descriptor)
"""


def main(folder: Path) -> None:
    """Prepare all builders once, then time them in turn."""
    model = folder / "model" / "model.bin"
    model.parent.mkdir()
    model.write_bytes(os.urandom(SIZE))
    project = make_project(folder / "project")
    here = [sys.executable, "-m", "mlpack", "-C", str(project.root)]
    subprocess.run([*here, "register", str(model.parent)], check=True, capture_output=True)
    # buildah makes a name of the path it reads from, and refuses one with a dot in front.
    base = f"oci:{folder}/base:base"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{project.layout.root}:base", base], check=True)
    bound, layout = folder / "out.gz", folder / "layout"
    cases = [
        Case(
            "read + sha256 + gzip-1 + write (bound)", _python(BOUND, model, bound), f"rm -f {bound}"
        ),
        Case("mlpack, the layer", _python(LAYER, model, layout), f"rm -rf {layout}"),
        Case("mlpack build, whole command", [*here, "build", "fan"]),
        *_umoci(folder, model),
        *_buildah(folder, base, model),
    ]
    with Docker.started(folder / "docker") as docker:
        cases += _docker(docker, folder, base, model)
        found = interleaved(cases, runs=5)
    report("the layer of a 100 MB incompressible model", cases, found)


def _python(script: str, *args: Path) -> list[str]:
    return [sys.executable, "-c", script, *(str(each) for each in args)]


def _umoci(folder: Path, model: Path) -> Iterator[Case]:
    if shutil.which("umoci"):
        insert = ["umoci", "insert", "--image", f"{folder}/base:base", "--tag", "out"]
        yield Case("umoci insert", [*insert, str(model), "/model.bin"])


def _buildah(folder: Path, base: str, model: Path) -> Iterator[Case]:
    if shutil.which("buildah"):
        out = folder / "buildah-out"
        tool = (
            f"buildah --root {folder}/buildah --runroot {folder}/buildah-run "
            "--storage-driver overlay"
        )
        steps = (
            f"c=$({tool} from {base})",
            f"{tool} copy -q $c {model} /model.bin",
            f"{tool} commit -q $c oci:{out}:out",
            f"{tool} rm $c",
        )
        yield Case("buildah from, copy, commit", ["sh", "-ec", "; ".join(steps)], f"rm -rf {out}")


def _docker(docker: Docker, folder: Path, base: str, model: Path) -> Iterator[Case]:
    docker.load(base, "base:1")
    (model.parent / "Dockerfile").write_text("FROM base:1\nCOPY model.bin /model.bin\n")
    build = docker.command("build", "-q", "--no-cache", "-t", "out:1", str(model.parent))
    yield Case("docker build", build, cpu_counts=False)
