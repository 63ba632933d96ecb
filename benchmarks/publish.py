"""Build and push to a local registry: mlpack compared with Docker, buildah, and umoci with skopeo.

Each case makes its image again from the same base and the same file and sends it to
a real docker-registry on loopback that holds the base already. The model is
other bytes in every run, so no run finds its layer there. Whole processes,
start-up included; a shell joins the two steps of each tool.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Case, installed, interleaved, report
from tests.e2e.engines import Docker
from tests.e2e.wire import DockerRegistry
from tests.support import make_project

RUNS = 5


def main(folder: Path) -> None:
    """Both sizes, one after the other."""
    mlpack = str(installed(folder))
    with (
        DockerRegistry.started(folder / "registry") as registry,
        Docker.started(folder / "docker") as docker,
    ):
        for title, size in (("100 MB", 100_000_000), ("6 KB", 6_000)):
            place = folder / f"bytes{size}"
            place.mkdir()
            bench = _Bench(place, f"127.0.0.1:{registry.port}", size, mlpack)
            cases = [*bench.mlpack(), *bench.umoci(), *bench.buildah(), *bench.docker(docker)]
            report(f"build and push, {title} model", cases, interleaved(cases, runs=RUNS))
            again = [*bench.again()]
            report(f"a second push of the same release, {title}", again, interleaved(again, RUNS))


class _Bench:
    """One size of model, and the commands that publish it."""

    def __init__(self, folder: Path, registry: str, size: int, mlpack: str) -> None:
        self.folder = folder
        self.command = mlpack
        self.to = f"{registry}/bench{size}"
        self.project = make_project(folder / "project")
        self.model = folder / "model" / "model.bin"
        self.model.parent.mkdir()
        self.base = f"oci:{folder}/base:base"
        source = f"oci:{self.project.layout.root}:base"
        subprocess.run(["skopeo", "copy", "-q", source, self.base], check=True)
        subprocess.run(
            ["skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{self.to}:base"],
            check=True,
        )
        self.fresh = f"head -c {size} /dev/urandom > {self.model}"

    def mlpack(self) -> Iterator[Case]:
        """Registering comes before, untimed: the other tools take a bare file."""
        here = shlex.join([self.command, "-C", str(self.project.root)])
        before = f"{self.fresh}; {here} register {self.model.parent}"
        build = f"{here} build fan"
        for name, command in (
            ("mlpack build --push", f"{build} --to {self.to}"),
            ("mlpack build, mlpack push", f"{build}; {here} push fan --to {self.to}"),
        ):
            yield Case(name, ["sh", "-ec", command], before)

    def umoci(self) -> Iterator[Case]:
        """The best pair of small tools."""
        insert = f"umoci insert --image {self.folder}/base:base --tag out {self.model} /model.bin"
        push = (
            "skopeo copy -q --dest-tls-verify=false "
            f"oci:{self.folder}/base:out docker://{self.to}:umoci"
        )
        yield Case("umoci insert, skopeo copy", ["sh", "-ec", f"{insert}; {push}"], self.fresh)

    def buildah(self) -> Iterator[Case]:
        """Straight into the registry, its faster way."""
        tool = (
            f"buildah --root {self.folder}/buildah --runroot {self.folder}/buildah-run "
            "--storage-driver overlay"
        )
        steps = (
            f"c=$({tool} from {self.base})",
            f"{tool} copy -q $c {self.model} /model.bin",
            f"{tool} commit -q --tls-verify=false $c docker://{self.to}:buildah",
            f"{tool} rm $c",
        )
        yield Case("buildah from, copy, commit", ["sh", "-ec", "; ".join(steps)], self.fresh)

    def docker(self, docker: Docker) -> Iterator[Case]:
        """The classic builder, whose work is the daemon's."""
        docker.load(self.base, f"{self.to}:base")
        dockerfile = self.model.parent / "Dockerfile"
        dockerfile.write_text(f"FROM {self.to}:base\nCOPY model.bin /model.bin\n")
        name = f"{self.to}:docker"
        build = shlex.join(docker.command("build", "-q", "-t", name, str(self.model.parent)))
        push = shlex.join(docker.command("push", "-q", name))
        steps = ["sh", "-ec", f"{build}; {push}"]
        yield Case("docker build, docker push", steps, self.fresh, cpu_counts=False)

    def again(self) -> Iterator[Case]:
        """A push of a release that the registry holds."""
        here = [self.command, "-C", str(self.project.root)]
        yield Case("mlpack push", [*here, "push", "fan", "--to", self.to])
