"""A container engine of this machine: what mlpack asks of Docker or podman.

Two classes implement :class:`Engine`: one over the ``docker`` package
(:mod:`mlpack.engines.docker`), one over a command line (:mod:`mlpack.engines.command_line`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from mlpack.errors import MlpackError, UsageError
from mlpack.humanize import nearest
from mlpack.kinds import ENGINE_ALIASES
from mlpack.oci.descriptor import Digest, Platform, Writable
from mlpack.oci.image import Image, chain_ids
from mlpack.plan.bundle import Bundle, archived, lacking
from mlpack.plan.engines import DeviceState
from mlpack.stores.bundle import write_archive
from mlpack.stores.files import temporary_folder
from mlpack.stores.records import MODEL, VERSION
from mlpack.stores.store import Readable

PROGRAMS = ("docker", "podman")
_ALIASES = {engine: name for name, engine in ENGINE_ALIASES.items()}
"""Docker is also called what its engine is called where devices are meant (``moby``)."""

_LONGEST = 300


class EngineError(MlpackError):
    """A container engine that is missing, or that refused what it was asked to do."""


class NoEngine(EngineError):
    """An engine that is not installed, or whose daemon does not answer."""


class EngineRefused(EngineError):
    """A request that the engine refused; the message ends with its own words."""

    hint = "see what the engine's log says"


class ImageStore(Enum):
    """Where an engine keeps images, which decides the archive it loads and what may be left out."""

    GRAPH_DRIVER = "moby"
    """Docker's own (overlay2): a loaded archive may leave out layers that are unpacked already."""

    CONTAINERD = "containerd"
    """Docker with the containerd image store (default since Docker 29): a whole OCI layout."""

    PODMAN = "podman"

    @property
    def archive(self) -> str:
        """The engine whose archive is loaded (:class:`~mlpack.plan.bundle.Bundle`)."""
        return self.value


@dataclass(frozen=True, slots=True)
class EngineImage:
    """An image an engine has; ``id`` is empty for one that it still has to get."""

    name: str
    id: str = ""
    release: str = ""
    """``NAME:VERSION`` of a release, which answers over HTTP; empty for any other image."""

    @classmethod
    def read(cls, name: str, inspected: Mapping[str, Any]) -> EngineImage:
        """Read what ``image inspect`` returns of ``name``."""
        labels = (inspected.get("Config") or {}).get("Labels") or {}
        release = f"{labels[MODEL]}:{labels[VERSION]}" if {MODEL, VERSION} <= set(labels) else ""
        id = inspected["Id"]
        return cls(name, id if ":" in id else f"sha256:{id}", release)

    def is_image(self, image: Image) -> bool:
        """Whether this is ``image``: engines call one by the digest of its config or manifest."""
        return self.id in (str(image.config_descriptor.digest), str(image.digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRequest:
    """A release to run in the background."""

    image: str
    port: int
    """The port of the loopback address at which it is to answer."""

    inside: int
    """The port on which it listens inside."""

    network: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    confined: bool = True
    """Whether it may write below /tmp only and has no privileges, as modules on devices."""

    rebuilt: int = 0
    """Bytes of its model that it makes below /tmp when it starts."""

    @property
    def on_host(self) -> bool:
        """Whether it shares the host's network: then it listens on ``port`` itself."""
        return self.network == "host"

    @property
    def environment(self) -> Mapping[str, str]:
        """All variables of the container."""
        return {**self.env, **({"MLPACK_PORT": str(self.port)} if self.on_host else {})}


@dataclass(frozen=True, slots=True)
class ContainerState:
    """How a container is, as the engine reports it."""

    status: str
    """``created``, ``running``, ``paused``, ``restarting``, ``exited`` or ``dead``."""

    exit_code: int = 0
    restarts: int = 0
    health: str = ""
    """``starting``, ``healthy`` or ``unhealthy`` for a container with a health check."""


class Engine(Protocol):
    """A container engine. Methods raise :class:`EngineError`."""

    @property
    def program(self) -> str:
        """The name of its command line: ``docker`` or ``podman``."""

    @property
    def store(self) -> ImageStore:
        """Where it keeps images."""

    @property
    def platform(self) -> Platform:
        """The platform of its containers."""

    def image(self, name: str) -> EngineImage | None:
        """The image called ``name``, or ``None``."""

    def layer_chains(self) -> frozenset[Digest]:
        """The chain id of every stack of layers it has."""

    def load(self, archive: Path) -> None:
        """Load an image from an archive."""

    def run(self, request: ContainerRequest) -> str:
        """Start a container in the background; return its id."""

    def state(self, container: str) -> ContainerState:
        """How a container is."""

    def logs(self, container: str) -> str:
        """The last lines of both streams of a container."""

    def remove(self, container: str) -> None:
        """Stop a container and remove it, with its anonymous volumes."""

    def close(self) -> None:
        """Close the connections to it."""


@contextmanager
def opened(program: str) -> Iterator[Engine]:
    """Open the engine called ``program`` while the block runs.

    Docker is asked through its API where the ``docker`` package is installed (``DOCKER_HOST``
    may name a podman service as well), else through its command line, and so is podman.
    Raises :class:`UsageError` for another name and :class:`NoEngine`.
    """
    name = _ALIASES.get(program, program)
    if name not in PROGRAMS:
        raise UsageError(
            f"{program!r} is not an engine of this machine{nearest(program, PROGRAMS)}",
            hint=f"one of: {', '.join(PROGRAMS)}",
        )
    engine = _open(name)
    try:
        yield engine
    finally:
        engine.close()


def _open(program: str) -> Engine:
    if program == "docker" and find_spec("docker") is not None:
        from mlpack.engines.docker import connect

        return connect()
    from mlpack.engines.command_line import CommandLineEngine

    return CommandLineEngine(program)


def load_image(
    engine: Engine,
    store: Readable,
    image: Image,
    name: str,
    progress: Callable[[int], None] = lambda _: None,
) -> Bundle:
    """Load ``image`` into the engine, called ``name``; return what was loaded.

    Docker's own image store is given only the layers it lacks, any other store all of them.
    ``progress`` is called with the numbers of bytes written.
    """
    kept = engine.store
    image = archived(kept.archive, image)
    has = engine.layer_chains() if kept is ImageStore.GRAPH_DRIVER else frozenset()
    made = Bundle(
        engine=kept.archive,
        name=name,
        image=image,
        carried=lacking(kept.archive, image, DeviceState(chain_ids=has)),
        onto=None,
    )
    with temporary_folder("mlpack-load-") as folder:
        archive = folder / "image.tar"
        with archive.open("wb") as out:
            write_archive(store, made, _Counting(out, progress))
        engine.load(archive)
    return made


@dataclass(frozen=True)
class _Counting:
    """Passes on what is written, and reports how much."""

    out: Writable
    progress: Callable[[int], None]

    def write(self, data: bytes, /) -> None:
        self.out.write(data)
        self.progress(len(data))


def chains_of(stacks: Iterable[Sequence[str] | None]) -> frozenset[Digest]:
    """Return the chain ids of stacks of diff ids."""
    listed = ([Digest.parse(each) for each in stack or ()] for stack in stacks)
    return frozenset(chain for stack in listed for chain in chain_ids(stack))


def one_line(text: object) -> str:
    """``text`` on one line of at most 300 characters."""
    return " ".join(str(text).split())[:_LONGEST]
