"""The containers of one deployment on a Docker daemon, and the network they share."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Platform
from mlpack.oci.digest import Digest
from mlpack.plan.containers import DEPLOYMENT, MODULE, ORDER, SPEC, Wanted
from mlpack.plan.up import Found, Look
from mlpack.stores.docker_api import DockerRefused, refusals

if TYPE_CHECKING:
    from docker import DockerClient

LAST_LINES = 15
_PORT = re.compile(r"(?:Bind for |listen \w+ |host port (?:for )?)\S*?:(\d+)")
_TAKEN = ("already allocated", "already in use")
_LOCAL = "127.0.0.1"


class PortInUse(MlpackError):
    """A port of this machine that a module binds, and somebody else has."""

    hint = "end what listens there (docker ps shows containers), or bind another in the manifest"


@dataclass(frozen=True)
class Containers:
    """What a daemon has of the deployment that is called ``deployment``."""

    client: DockerClient
    deployment: str

    @property
    def network(self) -> str:
        """What its network is called."""
        return f"mlpack-{Digest.of(self.deployment.encode()).short}"

    @property
    def host(self) -> str:
        """Where the daemon's published ports are reached."""
        found = urlsplit(self.client.api.base_url)
        # Through a Unix socket the package writes http+docker://localhost.
        return found.hostname or _LOCAL if found.scheme in ("http", "https") else _LOCAL

    def platform(self) -> Platform:
        """What the daemon's containers run on."""
        said = self.client.version()
        return Platform.parse(f"{said['Os']}/{said['Arch']}")

    def find(self) -> tuple[Found, ...]:
        """Every container of the daemon, those of others too."""
        return tuple(_found(each) for each in self.client.api.containers(all=True))

    def has_network(self) -> bool:
        """Whether its network is there."""
        return bool(self.client.api.networks(filters={"label": f"{DEPLOYMENT}={self.deployment}"}))

    def make_network(self) -> None:
        """Make its network; raise :class:`DockerRefused` where the daemon makes none."""
        with refusals(f"network {self.network}"):
            self.client.api.create_network(
                self.network, driver="bridge", labels={DEPLOYMENT: self.deployment}
            )

    def remove_network(self) -> None:
        """Remove its network."""
        with refusals(f"network {self.network}"):
            self.client.api.remove_network(self.network)

    def create(self, wanted: Wanted, name: str) -> str:
        """Make a container called ``name`` without starting it; return its id."""
        with refusals(f"module {wanted.module.name}", "see createOptions in the manifest"):
            made = self.client.api.create_container_from_config(dict(wanted.config), name)
        return str(made["Id"])

    def start(self, id: str, module: str) -> None:
        """Start a container; raise :class:`PortInUse` where a port of it is taken."""
        try:
            with refusals(f"module {module}", "see createOptions in the manifest"):
                self.client.api.start(id)
        except DockerRefused as error:
            if any(word in str(error) for word in _TAKEN):
                port = _PORT.search(str(error))
                which = f"port {port[1]}" if port else "a port it binds"
                raise PortInUse(f"module {module}: {which} of this machine is taken") from error
            raise

    def require_free(self, wanted: Wanted) -> None:
        """Raise :class:`PortInUse` where somebody listens where this one will.

        On the host's network no engine says so: who listens already would be taken for it.
        """
        for port in wanted.host_ports:
            if _listens(self.host, port):
                raise PortInUse(
                    f"module {wanted.module.name}: port {port} of this machine is taken"
                )

    def stop(self, id: str) -> None:
        """Ask a container to end, and wait until it has."""
        with refusals(f"container {id[:12]}"):
            self.client.api.stop(id)

    def rename(self, id: str, name: str) -> None:
        """Call a container ``name``."""
        with refusals(f"container {name}"):
            self.client.api.rename(id, name)

    def remove(self, id: str) -> None:
        """Remove a container, and volumes that have no name; it is ended where it runs."""
        with refusals(f"container {id[:12]}"):
            self.client.api.remove_container(id, v=True, force=True)

    def look(self, id: str) -> tuple[Look, tuple[str, ...]]:
        """How a container does, and the addresses its ports are published at."""
        found = self.client.api.inspect_container(id)
        state = found["State"]
        look = Look(
            state=state["Status"],
            status=state["ExitCode"],
            restarts=found["RestartCount"],
            health=(state.get("Health") or {}).get("Status", "").replace("none", ""),
        )
        return look, self._published(found["NetworkSettings"].get("Ports") or {})

    def _published(self, ports: Mapping[str, Any]) -> tuple[str, ...]:
        found = [
            (int(each["HostPort"]), each.get("HostIp") or "")
            for bindings in ports.values()
            for each in bindings or ()
        ]
        return tuple(
            dict.fromkeys(f"{self._at(address)}:{port}" for port, address in sorted(found))
        )

    def _at(self, address: str) -> str:
        if address in ("", "0.0.0.0", "::"):  # noqa: S104  (read, not bound)
            return self.host
        return f"[{address}]" if ":" in address else address

    def logs(self, id: str) -> str:
        """The last lines of both streams of a container."""
        return str(self.client.api.logs(id, tail=LAST_LINES).decode(errors="replace")).strip()


def _found(said: Mapping[str, Any]) -> Found:
    labels = said.get("Labels") or {}
    # Links give a container more names, below those of others.
    names = [each[1:] for each in said.get("Names") or () if each.count("/") == 1]
    order = labels.get(ORDER, "")
    return Found(
        id=said["Id"],
        name=names[0] if names else "",
        state=said["State"],
        image=said["ImageID"],
        deployment=labels.get(DEPLOYMENT, ""),
        module=labels.get(MODULE, ""),
        order=int(order) if order.isdecimal() else 0,
        spec=labels.get(SPEC, ""),
    )


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
