"""Docker and podman on this machine, through their own command lines.

The two take the same commands here. Which daemon or store they use is for their own
settings to say (``DOCKER_HOST``, ``containers.conf``), as when the user calls them.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpack.errors import MlpackError, UsageError
from mlpack.oci.descriptor import Platform
from mlpack.oci.digest import Digest
from mlpack.oci.image import chain_ids
from mlpack.render.container import confining_options

FORMS = {"docker": "moby", "podman": "podman"}
"""The engines this machine may run, and the archive each loads."""

_VERSION = {
    "docker": ("version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"),
    "podman": ("version", "--format", "{{.OsArch}}"),
}
_PAUSE = 0.1
# A proxy of the environment does not lead to this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DaemonFailed(MlpackError):
    """What Docker or podman said when it would not."""


class NotReady(MlpackError):
    """A container that ended, or never answered."""

    hint = "its last words are above; try the scoring script with the model it was built with"


@dataclass(frozen=True)
class Daemon:
    """One of the engines of this machine."""

    program: str

    @classmethod
    def named(cls, name: str) -> Daemon:
        """The engine called ``name``; raise :class:`UsageError` for another word."""
        if name not in FORMS:
            raise UsageError(f"{name!r} does not run here", hint=f"one of: {', '.join(FORMS)}")
        return cls(name)

    @property
    def form(self) -> str:
        """The engine whose archive it loads."""
        return FORMS[self.program]

    def platform(self) -> Platform:
        """What its containers run on."""
        return Platform.parse(self._ask(*_VERSION[self.program]))

    def chain_ids(self) -> frozenset[Digest]:
        """Every stack of layers it has unpacked, by its chain id."""
        images = sorted(set(self._ask("images", "-q", "--no-trunc").split()))
        if not images:
            return frozenset()
        shown = self._ask("image", "inspect", "--format", "{{json .RootFS.Layers}}", *images)
        stacks = [json.loads(line) or [] for line in shown.splitlines() if line]
        return frozenset(
            chain for stack in stacks for chain in chain_ids(Digest.parse(each) for each in stack)
        )

    def load(self, archive: Path) -> None:
        """Take in what ``docker load`` or ``podman load`` reads."""
        self._ask("load", "-q", "-i", str(archive))

    def start(
        self,
        image: str,
        *,
        port: int,
        inside: int,
        network: str,
        env: Mapping[str, str],
        confined: bool = True,
        rebuilt: int = 0,
    ) -> str:
        """Run ``image`` in the background and return the container's id.

        It is ``confined`` as modules on devices are, with room for the ``rebuilt`` bytes of
        its model below /tmp. Its port ``inside`` is published as
        ``port`` of the loopback address; on the host's network it is told to listen on
        ``port`` itself.
        """
        told = dict(env)
        way: Sequence[str] = ("-p", f"127.0.0.1:{port}:{inside}")
        if network == "host":
            way, told["MLPACK_PORT"] = (), str(port)
        if network:
            way = ("--network", network, *way)
        settings = [part for key, value in told.items() for part in ("-e", f"{key}={value}")]
        limits = confining_options(rebuilt) if confined else ()
        return self._ask("run", "-d", *limits, *way, *settings, image).splitlines()[-1]

    def wait(self, container: str, url: str, *, seconds: float) -> None:
        """Wait until ``url`` answers; raise :class:`NotReady` with the container's last words."""
        deadline = time.monotonic() + seconds
        while not answers(url):
            running = self._ask("inspect", "--format", "{{.State.Running}}", container) == "true"
            if not running or time.monotonic() > deadline:
                said = self.logs(container)[-2000:].strip()
                what = "does not answer" if running else "ended"
                raise NotReady(f"{said}\ncontainer {container[:12]} {what}")
            time.sleep(_PAUSE)

    def logs(self, container: str) -> str:
        """Both streams of a container."""
        done = self._run("logs", container)
        return done.stdout + done.stderr

    def remove(self, container: str) -> None:
        """Stop a container and remove it."""
        self._ask("rm", "-f", container)

    def _ask(self, *args: str) -> str:
        done = self._run(*args)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise DaemonFailed(f"{self.program} {args[0]}: {''.join(said) or 'failed'}")
        return done.stdout.strip()

    def _run(self, *args: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self.program, *args], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise DaemonFailed(
                f"{self.program} is not installed",
                hint="install it, or name the other engine with --engine",
            ) from None


def answers(url: str) -> bool:
    """Whether something at ``url`` says 200."""
    try:
        with _DIRECT.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
