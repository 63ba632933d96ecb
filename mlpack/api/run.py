"""``mlpack run``: a release as a container on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.api.load import Loaded, load_into
from mlpack.api.requests import PORT, Load
from mlpack.engines.engine import ContainerRequest, NoEngine, opened
from mlpack.engines.readiness import answers, require_ready
from mlpack.errors import MlpackError
from mlpack.interruptions import held_back, undone_on_failure

if TYPE_CHECKING:
    from mlpack.api.requests import Run
    from mlpack.api.session import Session


class PortTaken(MlpackError):
    """A port at which another program answers: it would be taken for the release."""

    hint = "choose another with --port, or end what runs there"


@dataclass(frozen=True)
class Running:
    """A container that answers."""

    loaded: Loaded
    container: str
    port: int

    @property
    def url(self) -> str:
        """The URL at which it scores."""
        return f"http://127.0.0.1:{self.port}/score"

    @property
    def end(self) -> str:
        """The command that removes it."""
        return f"{self.loaded.engine} rm -f {self.container[:12]}"

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json run``."""
        return {**self.loaded.json_members(), "container": self.container, "url": self.url}


def run(session: Session, request: Run, seconds: float = 60) -> Running:
    """Load an image and start it; return when it answers.

    Raises :class:`PortTaken` before anything is loaded. A container that does not answer within
    ``seconds`` is removed, and :class:`~mlpack.engines.readiness.NotReady` has its last lines.
    """
    ready = f"http://127.0.0.1:{request.port}/"
    if answers(ready):
        raise PortTaken(f"something answers at {ready} already")
    with _served_instead(request.image), opened(request.engine) as engine:
        loaded = load_into(engine, session, Load(request.image, engine=request.engine))
        container_request = ContainerRequest(
            image=loaded.name,
            port=request.port,
            inside=PORT,
            network=request.network,
            env=request.env,
            confined=not request.unconfined,
            rebuilt=loaded.rebuilt,
        )
        with undone_on_failure() as undo:
            with held_back():
                container = engine.run(container_request)
                undo.callback(engine.remove, container)
            require_ready(engine, container, ready, seconds)
    return Running(loaded, container, request.port)


@contextmanager
def _served_instead(image: str) -> Iterator[None]:
    """Name the command that needs no engine if none is there."""
    try:
        yield
    except NoEngine as error:
        if "/" not in image:
            error.hint += f", or run the model without a container: mlpack serve {image}"
        raise


def end(running: Running) -> None:
    """Stop and remove the container."""
    with opened(running.loaded.engine) as engine:
        engine.remove(running.container)
