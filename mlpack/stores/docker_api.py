"""A Docker daemon through its Python package: connecting, what it says no to, its images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError
from mlpack.oci.digest import Digest, Writable
from mlpack.oci.image import Image, chain_ids
from mlpack.plan.bundle import Bundle, lacking
from mlpack.plan.containers import Held
from mlpack.plan.engines import DeviceState
from mlpack.stores.base import Readable
from mlpack.stores.bundle import write_archive
from mlpack.stores.releases import MODEL, VERSION

if TYPE_CHECKING:
    from docker import DockerClient

_LONGEST = 300
_SECONDS = 600
"""How long an answer may take: ending a container, or unpacking layers, takes its time."""


class NoDocker(MlpackError):
    """A Docker daemon, or its Python package, that is not there."""


class DockerRefused(MlpackError):
    """What a Docker daemon answered instead of doing it."""

    hint = "see what the daemon's log says"


@contextmanager
def connected(*, otherwise: str = "") -> Iterator[DockerClient]:
    """The daemon that Docker's own settings name (``DOCKER_HOST``).

    Raises :class:`NoDocker` where there is none, and :class:`DockerRefused` where it says no
    inside the block. ``otherwise`` ends the hint: what does without a daemon.
    """
    after = f", or {otherwise}" if otherwise else ""
    try:
        import docker
    except ModuleNotFoundError as error:
        raise NoDocker(
            "the Python package docker is not installed",
            hint=f"pip install 'mlpack-edge[docker]'{after}",
        ) from error
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    where = docker.utils.kwargs_from_env().get("base_url") or docker.constants.DEFAULT_UNIX_SOCKET
    start = f"start Docker{after}"
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        raise NoDocker(
            f"no Docker daemon answers at {where} ({reason(error)})", hint=start
        ) from error
    client.api.timeout = _SECONDS
    try:
        yield client
    except docker.errors.DockerException as error:
        raise DockerRefused(f"docker: {_said(error)}") from error
    except (RequestException, HTTPError) as error:
        raise NoDocker(
            f"the Docker daemon at {where} went away ({reason(error)})", hint=start
        ) from error
    finally:
        client.close()


@contextmanager
def refusals(what: str, hint: str = "") -> Iterator[None]:
    """Say ``what`` before the daemon's own words, where it says no inside the block."""
    from docker.errors import DockerException

    try:
        yield
    except DockerException as error:
        raise DockerRefused(f"{what}: {_said(error)}", hint=hint) from error


def _said(error: Exception) -> str:
    return one_line(getattr(error, "explanation", None) or error)


def reason(error: BaseException) -> str:
    """What the system said, out of the layers of libraries that passed it on."""
    seen: list[BaseException] = [error]
    for each in seen:
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
        inner = (each.__cause__, each.__context__, *each.args, getattr(each, "reason", None))
        seen += [one for one in inner if isinstance(one, BaseException) and one not in seen]
    return one_line(seen[-1]).rpartition("version: ")[2]


def one_line(text: object) -> str:
    """``text`` on one line, and not a page of it."""
    return " ".join(str(text).split())[:_LONGEST]


def give(
    client: DockerClient,
    store: Readable,
    image: Image,
    name: str,
    moved: Callable[[int], None] = lambda _: None,
) -> int:
    """Bring ``image`` into the daemon, called ``name``; return how many layers it lacked.

    ``moved`` is called with the bytes of these as they are unpacked.
    """
    carried = lacking("moby", image, DeviceState(chain_ids=_chains(client)))
    made = Bundle(engine="moby", name=name, image=image, carried=carried, onto=None)
    with tempfile.TemporaryFile() as archive:
        write_archive(store, made, _Told(archive, moved))
        archive.seek(0)
        client.images.load(archive)
    return len(carried)


@dataclass(frozen=True)
class _Told:
    """A file that says how much is written to it."""

    file: Writable
    moved: Callable[[int], None]

    def write(self, data: bytes, /) -> None:
        self.file.write(data)
        self.moved(len(data))


def held(client: DockerClient, name: str) -> Held | None:
    """The image ``name`` as the daemon has it."""
    from docker.errors import NotFound

    try:
        found = client.api.inspect_image(name)
    except NotFound:
        return None
    labels = (found.get("Config") or {}).get("Labels") or {}
    release = f"{labels[MODEL]}:{labels[VERSION]}" if {MODEL, VERSION} <= set(labels) else ""
    return Held(name, found["Id"], release)


def pull(
    client: DockerClient,
    name: str,
    login: tuple[str, str] | None,
    moved: Callable[[int], None],
    *,
    hint: str,
) -> None:
    """Have the daemon pull ``name``, with ``login`` or with what this machine is logged in with.

    ``moved`` is called with bytes as they come. Raises :class:`DockerRefused`.
    """
    auth = {"username": login[0], "password": login[1]} if login else None
    came: dict[str, int] = {}
    refused = ""
    with refusals(f"{name} cannot be pulled", hint):
        for line in client.api.pull(name, stream=True, decode=True, auth_config=auth):
            refused = line.get("error", refused)
            if line.get("status") == "Downloading":
                now = (line.get("progressDetail") or {}).get("current", 0)
                moved(max(now - came.get(line["id"], 0), 0))
                came[line["id"]] = max(now, came.get(line["id"], 0))
    if refused:
        raise DockerRefused(f"{name} cannot be pulled: {one_line(refused)}", hint=hint)


def _chains(client: DockerClient) -> frozenset[Digest]:
    """Every stack of layers the daemon has unpacked, by its chain id."""
    stacks = [(image.attrs["RootFS"].get("Layers") or []) for image in client.images.list()]
    return frozenset(
        chain for stack in stacks for chain in chain_ids(Digest.parse(each) for each in stack)
    )
