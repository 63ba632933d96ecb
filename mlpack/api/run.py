"""``mlpack run``: a release as a container on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlpack.api.load import Loaded, load
from mlpack.errors import MlpackError
from mlpack.stores.daemon import NotReady, answers
from mlpack.stores.project import Project
from mlpack.stores.registries import Registries

INSIDE = 5001
"""The port a release listens on."""


class PortTaken(MlpackError):
    """A port where something answers already: it would be taken for the release."""

    hint = "choose another with --port, or end what runs there"


@dataclass(frozen=True)
class Running:
    """A container that answers."""

    loaded: Loaded
    container: str
    port: int

    @property
    def url(self) -> str:
        """Where it scores."""
        return f"http://127.0.0.1:{self.port}/score"

    @property
    def end(self) -> str:
        """What ends it."""
        return f"{self.loaded.daemon.program} rm -f {self.container[:12]}"

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json run``."""
        return {**self.loaded.to_json(), "container": self.container, "url": self.url}


def run(
    project: Project | None,
    text: str,
    *,
    engine: str = "docker",
    port: int = INSIDE,
    network: str = "",
    env: Mapping[str, str] | None = None,
    confined: bool = True,
    registries: Registries | None = None,
    seconds: float = 60,
) -> Running:
    """Load ``text`` and start it, its port published on the loopback address.

    ``confined``, it may write below /tmp alone, and has no privileges.

    Returns when it answers. Raises :class:`PortTaken` before anything is loaded; a
    container that does not answer within ``seconds`` is removed, and
    :class:`~mlpack.stores.daemon.NotReady` has its last words.
    """
    ready = f"http://127.0.0.1:{port}/"
    if answers(ready):
        raise PortTaken(f"something answers at {ready} already")
    loaded = load(project, text, engine=engine, registries=registries)
    daemon = loaded.daemon
    container = daemon.start(
        loaded.name,
        port=port,
        inside=INSIDE,
        network=network,
        env=env or {},
        confined=confined,
        rebuilt=loaded.rebuilt,
    )
    try:
        daemon.wait(container, ready, seconds=seconds)
    except (NotReady, KeyboardInterrupt):
        daemon.remove(container)
        raise
    return Running(loaded, container, port)
