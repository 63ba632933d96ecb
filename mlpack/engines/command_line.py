"""An engine through its command line: podman, and Docker without the ``docker`` package.

The two take the same commands here. Their own settings choose the daemon or the store
(``DOCKER_HOST``, contexts, ``containers.conf``), as they do when a user calls them.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlpack.engines.engine import (
    ContainerRequest,
    ContainerState,
    EngineImage,
    EngineRefused,
    ImageStore,
    NoEngine,
    chains_of,
    one_line,
)
from mlpack.iotedge.module import confining_options
from mlpack.oci.descriptor import Digest, Platform

LAST_LINES = 50
CONTAINERD_DRIVER = "io.containerd.snapshotter.v1"

_PLATFORM = {
    "docker": ("version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"),
    "podman": ("version", "--format", "{{.OsArch}}"),
}
_UNREACHABLE = (
    # Docker since 28.
    "failed to connect to the docker API",
    "Cannot connect to the Docker daemon",
    "error during connect",
    "Cannot connect to Podman",
)


@dataclass(frozen=True)
class CommandLineEngine:
    """An engine whose ``program`` is called for each request."""

    program: str

    @cached_property
    def store(self) -> ImageStore:
        """Where it keeps images."""
        if self.program == "podman":
            return ImageStore.PODMAN
        drivers = self._ask("info", "--format", "{{json .DriverStatus}}")
        return ImageStore.CONTAINERD if CONTAINERD_DRIVER in drivers else ImageStore.GRAPH_DRIVER

    @cached_property
    def platform(self) -> Platform:
        """The platform of its containers."""
        return Platform.parse(self._ask(*_PLATFORM[self.program]))

    def image(self, name: str) -> EngineImage | None:
        """The image called ``name``, or ``None``."""
        done = self._run("image", "inspect", name)
        if done.returncode:
            return None
        [found] = json.loads(done.stdout)
        return EngineImage.read(name, found)

    def layer_chains(self) -> frozenset[Digest]:
        """The chain id of every stack of layers it has."""
        images = sorted(set(self._ask("images", "-q", "--no-trunc").split()))
        if not images:
            return frozenset()
        shown = self._ask("image", "inspect", "--format", "{{json .RootFS.Layers}}", *images)
        return chains_of(json.loads(line) for line in shown.splitlines() if line)

    def load(self, archive: Path) -> None:
        """Load an image from an archive."""
        self._ask("load", "-q", "-i", str(archive))

    def run(self, request: ContainerRequest) -> str:
        """Start a container in the background; return its id."""
        published = f"127.0.0.1:{request.port}:{request.inside}"
        variables = (f"{name}={value}" for name, value in request.environment.items())
        options = (
            *(confining_options(request.rebuilt) if request.confined else ()),
            *(("--network", request.network) if request.network else ()),
            *(() if request.on_host else ("-p", published)),
            *(part for each in variables for part in ("-e", each)),
        )
        return self._ask("run", "-d", *options, request.image).splitlines()[-1]

    def state(self, container: str) -> ContainerState:
        """How a container is."""
        [found] = json.loads(self._ask("inspect", container))
        state = found["State"]
        return ContainerState(state["Status"], state["ExitCode"], found.get("RestartCount", 0))

    def logs(self, container: str) -> str:
        """The last lines of both streams of a container."""
        done = self._run("logs", "--tail", str(LAST_LINES), container)
        return (done.stdout + done.stderr).strip()

    def remove(self, container: str) -> None:
        """Stop a container and remove it, with its anonymous volumes."""
        self._ask("rm", "-f", "-v", container)

    def close(self) -> None:
        """Close nothing: each call is a process of its own."""

    def _ask(self, *args: str) -> str:
        done = self._run(*args)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            if any(each in said for each in _UNREACHABLE):
                raise NoEngine(
                    f"{self.program}: {one_line(said)}",
                    hint=f"start {self.program}, or name the other engine with --engine",
                )
            last = "".join(said.splitlines()[-1:])
            raise EngineRefused(f"{self.program} {args[0]}: {last or 'failed'}")
        return done.stdout.strip()

    def _run(self, *args: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self.program, *args], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise NoEngine(
                f"{self.program} is not installed",
                hint="install it, or name the other engine with --engine",
            ) from None
