"""Docker Compose on this machine: the containers of one project, brought up and down."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpack.engines.docker import DockerEngine
from mlpack.engines.engine import EngineImage, EngineRefused, NoEngine, one_line
from mlpack.errors import MlpackError
from mlpack.iotedge.local import LocalModule
from mlpack.stores.files import temporary_folder

COMPOSE_FILE = "compose.yaml"
_LABEL = "com.docker.compose"
_PORT = re.compile(r"(?:Bind for |listen \w+ |host port (?:for )?)\S*?:(\d+)")
_TAKEN = ("already allocated", "already in use")
_INSTALL = (
    "install Docker Compose version 2: apt-get install docker-compose (Debian 13), "
    "docker-compose-v2 (Ubuntu) or docker-compose-plugin (Docker's own packages)"
)


class PortInUse(MlpackError):
    """A port of this machine that a module binds and another program uses."""

    hint = "stop what listens there (docker ps lists containers), or bind another in the manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeContainer:
    """A container of the daemon; of no project if ``project`` is empty."""

    id: str
    name: str
    state: str
    image: str
    """The id of its image."""

    project: str
    service: str
    config_hash: str
    """Compose's digest of the service it was made from."""

    labels: Mapping[str, str]

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or will by itself."""
        return self.state in ("running", "restarting", "paused")

    def is_of(self, project: str) -> bool:
        """Whether it is a service's container in ``project``, with the service's name."""
        return self.project == project and self.name == self.service


def require_compose() -> None:
    """Raise :class:`NoEngine` unless ``docker compose`` of version 2 or later is installed."""
    try:
        done = _compose(["version", "--short"])
    except FileNotFoundError:
        raise NoEngine("docker is not installed", hint=_INSTALL) from None
    version = done.stdout.strip().removeprefix("v")
    major = version.partition(".")[0]
    if done.returncode or not major.isdecimal() or int(major) < 2:
        found = f" (found: {version})" if version and not done.returncode else ""
        raise NoEngine(f"docker compose version 2 is not installed{found}", hint=_INSTALL)


def all_containers(engine: DockerEngine) -> tuple[ComposeContainer, ...]:
    """Every container of the daemon, newest first."""
    with engine.asking("docker ps"):
        found = engine.client.api.containers(all=True)
    return tuple(_container(each) for each in found)


def has_network(engine: DockerEngine, name: str) -> bool:
    """Whether the daemon has a network called ``name``."""
    with engine.asking("docker network ls"):
        return any(each["Name"] == name for each in engine.client.api.networks(names=[name]))


def config_hashes(text: str) -> Mapping[str, str]:
    """Compose's digest of each service in a Compose file."""
    with temporary_folder("mlpack-compose-") as folder:
        file = folder / COMPOSE_FILE
        file.write_text(text)
        done = _compose(["-f", str(file), "config", "--hash", "*"])
    if done.returncode:
        raise _refused(done.stderr)
    pairs = (line.split() for line in done.stdout.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


@dataclass(frozen=True)
class Goal:
    """What the containers of all modules are to be made of."""

    images: Mapping[str, EngineImage]
    hashes: Mapping[str, str]

    def step(self, there: ComposeContainer | None, module: LocalModule) -> tuple[str, str]:
        """What Compose does with a module's container, and why."""
        if there is None:
            return "create", ""
        if there.image != self.images[module.name].id:
            return "replace", "its image changed"
        if there.config_hash != self.hashes.get(module.name):
            return "replace", "the manifest changed"
        return ("keep", "") if there.is_alive else ("start", f"it was {there.state}")

    def is_reached(self, there: ComposeContainer | None, module: LocalModule) -> bool:
        """Whether a module's container is as it is to be, and was started."""
        made = self.step(there, module)[0] in ("keep", "start")
        return made and there is not None and there.state != "created"


def up(file: Path, seconds: float) -> EngineRefused | PortInUse | None:
    """Bring the project in ``file`` up; return what Compose refused, or ``None``.

    With ``seconds`` Compose waits as long until services run and are healthy. It then fails
    for a service that ended with status 0, too: callers look at the containers themselves.
    """
    wait = ("--wait", "--wait-timeout", str(max(1, round(seconds)))) if seconds else ("--detach",)
    done = _compose(["-f", str(file), "up", *wait, "--remove-orphans"])
    return _refused(done.stderr) if done.returncode else None


def remove_leftovers(engine: DockerEngine, project: str) -> None:
    """Remove what an interrupted Compose left: containers that were to replace others.

    Compose makes them under names of its own, and fails the next time if one exists.
    """
    for each in all_containers(engine):
        if each.project == project and not each.is_of(project):
            engine.remove(each.id)


def down(project: str) -> None:
    """Stop and remove the containers and the network of ``project``."""
    done = _compose(["-p", project, "down", "--remove-orphans"])
    if done.returncode:
        raise _refused(done.stderr)


def published(engine: DockerEngine, container: str) -> tuple[str, ...]:
    """The addresses (``HOST:PORT``) of this machine at which a container's ports are published."""
    ports = engine.inspect(container)["NetworkSettings"].get("Ports") or {}
    bound = [
        (int(each["HostPort"]), each.get("HostIp") or "")
        for bindings in ports.values()
        for each in bindings or ()
    ]
    places = (f"{_address(engine, address)}:{port}" for port, address in sorted(bound))
    return tuple(dict.fromkeys(places))


def _address(engine: DockerEngine, address: str) -> str:
    if address in ("", "0.0.0.0", "::"):  # noqa: S104  (read, not bound)
        return engine.host
    return f"[{address}]" if ":" in address else address


def _container(found: Mapping[str, Any]) -> ComposeContainer:
    labels = found.get("Labels") or {}
    # Links give a container more names, below those of others.
    names = [each[1:] for each in found.get("Names") or () if each.count("/") == 1]
    return ComposeContainer(
        id=found["Id"],
        name=names[0] if names else "",
        state=found["State"],
        image=found["ImageID"],
        project=labels.get(f"{_LABEL}.project", ""),
        service=labels.get(f"{_LABEL}.service", ""),
        config_hash=labels.get(f"{_LABEL}.config-hash", ""),
        labels=labels,
    )


def _refused(said: str) -> EngineRefused | PortInUse:
    last = one_line("".join(said.strip().splitlines()[-1:]))
    if any(word in last for word in _TAKEN):
        port = _PORT.search(last)
        if port:
            return PortInUse(f"port {port[1]} of this machine is in use ({last})")
    return EngineRefused(f"docker compose: {last or 'failed'}")


def _compose(args: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run Compose. An interruption is passed on to it, and raised when it has ended."""
    command = ["docker", "compose", *args]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # a terminal interrupts every process of a group
    ) as process:
        try:
            out, said = process.communicate()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, said)
