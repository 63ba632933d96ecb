"""Real engines, each with data folders of its own, on loopback, ended by process id."""

from __future__ import annotations

import os
import shutil
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

    @property
    def name(self) -> str:
        """What it is called."""
        ...

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

    def pull(self, reference: str, *, ca: Path | None = None, login: str = "") -> None:
        """Pull over plain HTTP, or over TLS where ``ca`` signed the registry's certificate."""
        ...

    def take(self, archive: Path) -> None:
        """Load a docker-archive."""
        ...

    def remove(self, reference: str) -> None:
        """Remove a pulled image and what only it needs."""
        ...


def run(*command: str, given: str = "") -> str:
    """Run a program on ``given``; its own words are in the message when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=given)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def needs(*programs: str) -> None:
    """Skip, or in CI fail, unless we are root and the programs are installed."""
    if os.geteuid() != 0:
        unavailable("not root")
    for program in programs:
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            unavailable(f"{program} is not installed")


_CHROOT = """
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
for each in sys dev tmp; do mount --rbind "/$each" "$each"; done
pivot_root . mnt
cd /
umount -l /mnt
shift
exec chroot / "$@"
"""
"""Runs a program with another root, in which it finds this machine's /tmp."""


def trixie() -> Path:
    """A folder with Debian 13's Docker and Compose; made once and kept."""
    needs("mmdebstrap", "unshare", "pivot_root")
    cache = Path(os.environ.get("MLPACK_TEST_CACHE", "/var/cache/mlpack-test"))
    root = cache / "trixie-docker"
    if not root.is_dir():
        part = cache / f"trixie-docker.{os.getpid()}"
        packages = "docker.io,docker-cli,docker-compose,containerd,runc,ca-certificates,iptables"
        plain = ("--variant=minbase", '--aptopt=APT::Install-Recommends "false"')
        run("mmdebstrap", *plain, f"--include={packages}", "trixie", str(part))
        part.rename(root)
    return root


def compose_config(folder: Path) -> Path:
    """A ``DOCKER_CONFIG`` without logins whose Docker client finds Debian 13's Compose."""
    plugin = "usr/libexec/docker/cli-plugins/docker-compose"
    plugins = folder / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(trixie() / plugin)
    return folder


@dataclass(frozen=True)
class Docker:
    """A Docker daemon of our own."""

    folder: Path
    name: str = "docker"

    @classmethod
    @contextmanager
    def started(cls, folder: Path, *settings: str, debian: Path | None = None) -> Iterator[Docker]:
        """Start ``dockerd`` with its data in ``folder``; stop it at the end.

        It is this machine's, or that of the Debian installed in ``debian``.
        """
        needs("dockerd", "containerd", "runc", "skopeo")
        folder.mkdir(parents=True)
        docker = cls(folder)
        command = [
            *(("unshare", "-m", "sh", "-ec", _CHROOT, "sh", str(debian)) if debian else ()),
            "/usr/sbin/dockerd",
            *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
            *("--pidfile", f"{folder}/pid", "-H", docker.address),
            *("--iptables=false", "--bridge=none", *settings),
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

    def command(self, *args: str, config: Path | None = None) -> list[str]:
        """A command of Debian's Docker client to this daemon; logins are kept in ``config``."""
        kept = ["--config", str(config)] if config else []
        return ["/usr/bin/docker", *kept, "-H", self.address, *args]

    def load(self, source: str, name: str) -> None:
        """Bring an image in as a docker-archive."""
        archive = self.folder / "image.tar"
        archive.unlink(missing_ok=True)
        run("skopeo", "copy", "-q", source, f"docker-archive:{archive}:{name}")
        self.take(archive)

    def pull(self, reference: str, *, ca: Path | None = None, login: str = "") -> None:
        """Pull; Docker takes any certificate, or none, from the loopback address.

        ``login`` is ``user:password``.
        """
        config = self.folder / "client"
        if login:
            user, _, password = login.partition(":")
            host = reference.partition("/")[0]
            words = ["login", "-u", user, "--password-stdin", host]
            run(*self.command(*words, config=config), given=password)
        run(*self.command("pull", "-q", reference, config=config))

    def take(self, archive: Path) -> None:
        """``docker load``."""
        run(*self.command("load", "-q", "-i", str(archive)))

    def remove(self, reference: str) -> None:
        """``docker rmi``."""
        run(*self.command("rmi", reference))

    def start(self, name: str, environment: Sequence[str] = (), options: Sequence[str] = ()) -> str:
        """Run a container as IoT Edge would, but read-only and with no capability."""
        env = [part for each in environment for part in ("-e", each)]
        hardened = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", *options]
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

    def pull(self, reference: str, *, ca: Path | None = None, login: str = "") -> None:
        """Pull; the registry's certificate is verified where ``ca`` is given."""
        trust = ["--cert-dir", str(ca.parent)] if ca else ["--tls-verify=false"]
        user = ["--creds", login] if login else []
        run(*self.command("pull", "-q", *trust, *user, reference))

    def take(self, archive: Path) -> None:
        """``podman load``."""
        run(*self.command("load", "-q", "-i", str(archive)))

    def remove(self, reference: str) -> None:
        """``podman rmi``."""
        run(*self.command("rmi", reference))

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


@dataclass(frozen=True)
class Containerd:
    """A containerd of our own, asked through ``ctr``."""

    folder: Path
    name: str = "containerd"

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Containerd]:
        """Start ``containerd`` with its data in ``folder``; stop it at the end."""
        needs("containerd", "ctr", "runc", "skopeo")
        folder.mkdir(parents=True)
        containerd = cls(folder)
        settings = folder / "config.toml"
        settings.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        places = [("root", "data"), ("state", "state"), ("address", "socket")]
        command = ["/usr/bin/containerd", "--config", str(settings)]
        command += [part for flag, at in places for part in (f"--{flag}", f"{folder}/{at}")]
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            containerd._wait(daemon)
            yield containerd
        finally:
            daemon.terminate()
            daemon.wait(timeout=START_SECONDS)

    def command(self, *args: str) -> list[str]:
        """A ``ctr`` command to this daemon."""
        return ["/usr/bin/ctr", "--address", f"{self.folder}/socket", *args]

    def load(self, source: str, name: str) -> None:
        """Import an OCI archive; the name comes from inside it."""
        archive = self.folder / "image.tar"
        archive.unlink(missing_ok=True)
        run("skopeo", "copy", "-q", source, f"oci-archive:{archive}:{name}")
        self.take(archive)

    def pull(self, reference: str, *, ca: Path | None = None, login: str = "") -> None:
        """Pull and unpack; the registry's certificate is verified where ``ca`` is given."""
        way = ["--hosts-dir", str(self._hosts(reference, ca))] if ca else ["--plain-http"]
        user = ["--user", login] if login else []
        run(*self.command("images", "pull", *way, *user, reference))

    def _hosts(self, reference: str, ca: Path) -> Path:
        """Settings for the registry of ``reference``: ctr takes plain HTTP for loopback else."""
        host = reference.partition("/")[0]
        settings = self.folder / "hosts" / host / "hosts.toml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        lines = [f'server = "https://{host}"', f'[host."https://{host}"]', f'ca = "{ca}"']
        settings.write_text("\n".join([*lines, 'capabilities = ["pull", "resolve"]', ""]))
        return settings.parents[1]

    def take(self, archive: Path) -> None:
        """``ctr images import``."""
        run(*self.command("images", "import", str(archive)))

    def remove(self, reference: str) -> None:
        """Remove it and collect what nothing needs any more."""
        run(*self.command("images", "rm", "--sync", reference))

    def start(self, name: str, environment: Sequence[str] = ()) -> str:
        """Run a container on the host's network; only /tmp can be written."""
        container = f"c{time.monotonic_ns()}"
        env = [part for each in environment for part in ("--env", each)]
        log = ["--log-uri", f"file://{self.folder}/{container}.log"]
        tmp = "type=tmpfs,src=tmpfs,dst=/tmp,options=nosuid:nodev:mode=1777"
        hardened = ["--read-only", "--mount", tmp]
        run(*self.command("run", "-d", "--net-host", *hardened, *log, *env, name, container))
        return container

    def stop(self, container: str) -> None:
        """Stop and remove; ``ctr`` does not wait by itself."""
        run(*self.command("tasks", "kill", "-s", "SIGTERM", container))
        deadline = time.monotonic() + 10
        while "RUNNING" in run(*self.command("tasks", "ls")) and time.monotonic() < deadline:
            time.sleep(0.1)
        run(*self.command("tasks", "rm", "-f", container))
        run(*self.command("containers", "rm", container))

    def logs(self, container: str) -> str:
        """Both streams."""
        return (self.folder / f"{container}.log").read_text()

    def _wait(self, daemon: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            done = subprocess.run(self.command("version"), capture_output=True, check=False)
            if done.returncode == 0:
                return
            if daemon.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log").read_text()
                unavailable(f"containerd did not start:\n{log[-2000:]}")
            time.sleep(0.2)
