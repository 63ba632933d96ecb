"""Real engines, each with data folders of its own, on loopback, ended by process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support import unavailable

START_SECONDS = 60


class Engine(Protocol):
    """Loads images from an OCI layout and runs containers on the host's network."""

    name: str

    def load(self, source: str, name: str) -> None:
        """Bring ``oci:PATH:TAG`` into the engine, called ``name``."""
        ...

    def start(self, name: str, environment: Sequence[str]) -> str:
        """Run a container of ``name`` in the background; return its id."""
        ...

    def stop(self, container: str) -> None:
        """Send SIGTERM and wait for the end, as edgeAgent does."""
        ...

    def logs(self, container: str) -> str:
        """What the container said."""
        ...


def run(*command: str) -> str:
    """Run a program; its own words are in the message when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def needs(*programs: str) -> None:
    """Skip, or in CI fail, unless we are root and the programs are installed."""
    if os.geteuid() != 0:
        unavailable("not root")
    for program in programs:
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            unavailable(f"{program} is not installed")


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Docker:
    """A Docker daemon of our own."""

    folder: Path
    name: str = "docker"

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Docker]:
        """Start ``dockerd`` with its data in ``folder``; stop it at the end."""
        needs("dockerd", "containerd", "runc", "skopeo")
        folder.mkdir(parents=True)
        docker = cls(folder)
        command = [
            "/usr/sbin/dockerd",
            *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
            *("--pidfile", f"{folder}/pid", "-H", docker.address),
            *("--iptables=false", "--bridge=none"),
        ]
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            docker._wait(daemon)
            yield docker
        finally:
            daemon.terminate()
            daemon.wait(timeout=START_SECONDS)

    @property
    def address(self) -> str:
        """Where the daemon listens."""
        return f"unix://{self.folder}/socket"

    def command(self, *args: str) -> list[str]:
        """A command of Debian's Docker client to this daemon."""
        return ["/usr/bin/docker", "-H", self.address, *args]

    def load(self, source: str, name: str) -> None:
        """Bring an image in as a docker-archive."""
        archive = self.folder / "image.tar"
        archive.unlink(missing_ok=True)
        run("skopeo", "copy", "-q", source, f"docker-archive:{archive}:{name}")
        run(*self.command("load", "-q", "-i", str(archive)))

    def start(self, name: str, environment: Sequence[str] = ()) -> str:
        """Run a container as IoT Edge would, but read-only and with no capability."""
        env = [part for each in environment for part in ("-e", each)]
        hardened = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
        return run(*self.command("run", "-d", "--network", "host", *hardened, *env, name))

    def stop(self, container: str) -> None:
        """Stop and remove."""
        run(*self.command("stop", "-t", "10", container))
        run(*self.command("rm", container))

    def logs(self, container: str) -> str:
        """Both streams."""
        done = subprocess.run(
            self.command("logs", container), capture_output=True, text=True, check=True
        )
        return done.stdout + done.stderr

    def _wait(self, daemon: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            done = subprocess.run(self.command("version"), capture_output=True, check=False)
            if done.returncode == 0:
                return
            if daemon.poll() is not None or time.monotonic() > deadline:
                unavailable(f"dockerd did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.2)


@dataclass(frozen=True)
class Podman:
    """podman with a store of its own; it has no daemon."""

    folder: Path
    name: str = "podman"

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Podman]:
        """A store in ``folder``; its containers are removed at the end."""
        needs("podman", "runc", "skopeo")
        folder.mkdir(parents=True)
        podman = cls(folder)
        try:
            yield podman
        finally:
            run(*podman.command("rm", "-fa", "-t", "5"))

    def command(self, *args: str) -> list[str]:
        """A podman command on this store; runc, because crun wants a cgroup layout of its own."""
        return [
            "podman",
            *("--root", f"{self.folder}/data", "--runroot", f"{self.folder}/run"),
            *("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"),
            *args,
        ]

    def load(self, source: str, name: str) -> None:
        """Pull from a copy of the layout: podman 4.3 makes a name of the path, and refuses dots."""
        copied = f"oci:{self.folder}/image:latest"
        run("skopeo", "copy", "-q", source, copied)
        image = run(*self.command("pull", "-q", copied))
        run(*self.command("tag", image, name))

    def start(self, name: str, environment: Sequence[str] = ()) -> str:
        """Run a container with limits podman can set without more privileges."""
        env = [part for each in environment for part in ("-e", each)]
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        hardened = ["--read-only", "--cap-drop", "all"]
        return run(*self.command("run", "-d", "--network", "host", *limits, *hardened, *env, name))

    def stop(self, container: str) -> None:
        """Stop and remove."""
        run(*self.command("stop", "-t", "10", container))
        run(*self.command("rm", container))

    def logs(self, container: str) -> str:
        """Both streams."""
        done = subprocess.run(
            self.command("logs", container), capture_output=True, text=True, check=True
        )
        return done.stdout + done.stderr
