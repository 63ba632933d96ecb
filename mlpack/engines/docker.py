"""Docker through the ``docker`` package; podman's service speaks the same API (``DOCKER_HOST``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from mlpack.engines.command_line import CONTAINERD_DRIVER, LAST_LINES
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
from mlpack.installation import install_command
from mlpack.interruptions import held_back, undone_on_failure
from mlpack.iotedge.module import confined
from mlpack.oci.descriptor import Digest, Platform, Writable

if TYPE_CHECKING:
    from docker import DockerClient

LOOPBACK = "127.0.0.1"
_BUILD_LINES = 5
_SECONDS = 600
"""How long one response may take: stopping a container or unpacking layers takes a while."""


def connect(*, otherwise: str = "") -> DockerEngine:
    """Connect to the daemon that ``DOCKER_HOST`` or Docker's current context names.

    ``otherwise`` ends the hint: what works without a daemon. Raises :class:`NoEngine`.
    """
    after = f", or {otherwise}" if otherwise else ""
    try:
        import docker
    except ModuleNotFoundError as error:
        raise NoEngine(
            "the Python package docker is not installed",
            hint=f"install the extra docker: {install_command('docker')}{after}",
        ) from error
    found = docker.utils.kwargs_from_env()
    if "base_url" not in found:
        context = docker.context.ContextAPI.get_context()
        host = context.Host if context else None
        tls = context.TLSConfig if context else None
        found |= {"base_url": host, **({"tls": tls} if tls else {})}
    where = found["base_url"] or docker.constants.DEFAULT_UNIX_SOCKET
    hint = f"start Docker{after}"
    try:
        client = docker.DockerClient(**found, version="auto", timeout=_SECONDS)
    except docker.errors.DockerException as error:
        raise NoEngine(
            f"no Docker daemon answers at {where} ({_reason(error)})", hint=hint
        ) from error
    return DockerEngine(client, where, hint)


@dataclass(frozen=True)
class DockerEngine:
    """A Docker daemon."""

    client: DockerClient
    where: str
    """Its address."""

    hint: str
    """What to do if it stops answering."""

    program = "docker"

    @cached_property
    def store(self) -> ImageStore:
        """Where it keeps images."""
        with self.asking("docker info"):
            info = self.client.api.info()
            version = self.client.api.version()
        if any(each.get("Name") == "Podman Engine" for each in version.get("Components") or ()):
            return ImageStore.PODMAN
        containerd = any(CONTAINERD_DRIVER in each for each in info.get("DriverStatus") or ())
        return ImageStore.CONTAINERD if containerd else ImageStore.GRAPH_DRIVER

    @cached_property
    def platform(self) -> Platform:
        """The platform of its containers."""
        with self.asking("docker version"):
            found = self.client.api.version()
        return Platform.parse(f"{found['Os']}/{found['Arch']}")

    @property
    def host(self) -> str:
        """The host at which the daemon's published ports are reached."""
        found = urlsplit(self.client.api.base_url)
        # For a Unix socket the package's URL is http+docker://localhost.
        return found.hostname or LOOPBACK if found.scheme in ("http", "https") else LOOPBACK

    def image(self, name: str) -> EngineImage | None:
        """The image called ``name``, or ``None``."""
        from docker.errors import NotFound

        with self.asking("docker image inspect"):
            try:
                return EngineImage.read(name, self.client.api.inspect_image(name))
            except NotFound:
                return None

    def layer_chains(self) -> frozenset[Digest]:
        """The chain id of every stack of layers it has."""
        with self.asking("docker image inspect"):
            images = self.client.images.list()
        return chains_of(each.attrs["RootFS"].get("Layers") for each in images)

    def load(self, archive: Path) -> None:
        """Load an image from an archive."""
        with self.asking("docker load"), archive.open("rb") as content:
            self.client.images.load(content)

    def pull(
        self,
        name: str,
        login: tuple[str, str] | None,
        progress: Callable[[int], None],
    ) -> None:
        """Pull ``name`` with a user name and password, or with the logins of this machine.

        ``progress`` is called with the numbers of bytes received.
        """
        auth = {"username": login[0], "password": login[1]} if login else None
        received: dict[str, int] = {}
        refused = ""
        with self.asking(f"{name} cannot be pulled"):
            for line in self.client.api.pull(name, stream=True, decode=True, auth_config=auth):
                refused = line.get("error", refused)
                if line.get("status") == "Downloading":
                    now = (line.get("progressDetail") or {}).get("current", 0)
                    progress(max(now - received.get(line["id"], 0), 0))
                    received[line["id"]] = max(now, received.get(line["id"], 0))
        if refused:
            raise EngineRefused(f"{name} cannot be pulled: {one_line(refused)}")

    def build(self, context: BinaryIO, tag: str, out: Writable) -> None:
        """Build the image ``tag`` from the tar of a context; write its archive to ``out``."""
        from docker.errors import BuildError

        # No platform is requested: the base determines it, and 20.10 takes the cached model
        # stage of another platform and then refuses it.
        with self.asking("docker build"):
            try:
                image, _ = self.client.images.build(
                    fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True
                )
            except BuildError as error:
                log = (str(line.get("stream", "")) for line in error.build_log)
                last = "; ".join([one_line(text) for text in log if text.strip()][-_BUILD_LINES:])
                after = f" (after: {last})" if last else ""
                raise EngineRefused(f"docker build: {one_line(error.msg)}{after}") from error
            for piece in image.save():
                out.write(piece)

    def run(self, request: ContainerRequest) -> str:
        """Start a container in the background; return its id."""
        host = confined(request.rebuilt) if request.confined else {}
        port = f"{request.inside}/tcp"
        if not request.on_host:
            binding = {"HostIp": LOOPBACK, "HostPort": str(request.port)}
            host = {**host, "PortBindings": {port: [binding]}}
        if request.network:
            host = {**host, "NetworkMode": request.network}
        config = {
            "Image": request.image,
            "Env": [f"{name}={value}" for name, value in request.environment.items()],
            "ExposedPorts": {port: {}},
            "HostConfig": host,
        }
        with self.asking("docker run"), undone_on_failure() as undo:
            with held_back():
                container = str(self.client.api.create_container_from_config(config)["Id"])
                undo.callback(self.client.api.remove_container, container, v=True, force=True)
            self.client.api.start(container)
        return container

    def state(self, container: str) -> ContainerState:
        """How a container is."""
        found = self.inspect(container)
        state = found["State"]
        health = (state.get("Health") or {}).get("Status", "").replace("none", "")
        return ContainerState(state["Status"], state["ExitCode"], found["RestartCount"], health)

    def inspect(self, container: str) -> Mapping[str, Any]:
        """All the daemon reports of a container."""
        with self.asking("docker inspect"):
            found: Mapping[str, Any] = self.client.api.inspect_container(container)
        return found

    def logs(self, container: str) -> str:
        """The last lines of both streams of a container."""
        with self.asking("docker logs"):
            said = self.client.api.logs(container, tail=LAST_LINES)
        return str(said.decode(errors="replace")).strip()

    def remove(self, container: str) -> None:
        """Stop a container and remove it, with its anonymous volumes."""
        with self.asking("docker rm"):
            self.client.api.remove_container(container, v=True, force=True)

    def close(self) -> None:
        """Close the connections to it."""
        self.client.close()

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Raise what the package raises inside the block as an :class:`EngineError`.

        A refusal's message is ``what`` and the daemon's own words.
        """
        from docker.errors import DockerException
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except DockerException as error:
            raise EngineRefused(f"{what}: {_said(error)}") from error
        except (RequestException, HTTPError) as error:
            raise NoEngine(
                f"the Docker daemon at {self.where} went away ({_reason(error)})", hint=self.hint
            ) from error


def _said(error: Exception) -> str:
    return one_line(getattr(error, "explanation", None) or error)


def _reason(error: BaseException) -> str:
    """The system's own words, out of the layers of libraries that passed them on."""
    seen: list[BaseException] = [error]
    for each in seen:
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
        inner = (each.__cause__, each.__context__, *each.args, getattr(each, "reason", None))
        seen += [one for one in inner if isinstance(one, BaseException) and one not in seen]
    return one_line(seen[-1]).rpartition("version: ")[2]
