"""``mlpack serve``: a model version on this machine without a container, by the same runtime."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util

from packaging.requirements import Requirement

from mlpack.api.run import INSIDE, PortTaken
from mlpack.errors import MlpackError
from mlpack.model.requirements import InvalidRequirements, parse_requirements
from mlpack.model.version import ModelVersion
from mlpack.stores.daemon import answers
from mlpack.stores.models import ModelStore
from mlpack.stores.project import Project, read_text
from mlpack.stores.runtime import Ended, Runtime, runtime

_IMPORTED = ("onnxruntime", "orjson", "prometheus_client", "starlette", "uvicorn")
"""What the runtime imports; the extra ``serve`` brings it."""


class NotInstalled(MlpackError):
    """Packages of the runtime that this Python lacks."""

    hint = "pip install 'mlpack-edge[serve]'"


@dataclass(frozen=True)
class Served:
    """A model version that answers."""

    version: ModelVersion
    runtime: Runtime

    @property
    def url(self) -> str:
        """Where it scores."""
        return f"{self.runtime.address}/score"

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json serve``."""
        return {
            "name": self.version.name,
            "version": self.version.version,
            "digest": str(self.version.digest),
            "url": self.url,
        }

    def wait(self) -> None:
        """Wait for its end; raise :class:`~mlpack.stores.runtime.Ended` where it ends by itself."""
        raise Ended(f"the runtime ended with status {self.runtime.wait()}")


@contextmanager
def serve(
    project: Project,
    name: str,
    version: str = "",
    *,
    port: int = INSIDE,
    environment: Mapping[str, str],
    seconds: float = 60,
) -> Iterator[Served]:
    """Serve ``name`` (its latest version where none is given) while the block runs.

    ``environment`` is the process's. Raises :class:`NotInstalled` and
    :class:`~mlpack.api.run.PortTaken` before anything is started, and
    :class:`~mlpack.stores.runtime.Ended` where it does not answer within ``seconds``.
    """
    lacking = [each for each in _IMPORTED if util.find_spec(each) is None]
    if lacking:
        raise NotInstalled(f"the runtime needs {', '.join(lacking)}, not installed here")
    model = ModelStore(project.layout).get(name, version)
    address = f"http://127.0.0.1:{port}/"
    if answers(address):
        raise PortTaken(f"something answers at {address} already")
    started = runtime(project.layout, model, port=port, environment=environment, seconds=seconds)
    try:
        with started as found:
            yield Served(model, found)
    except Ended as error:
        missing = lacking_requirements(project)
        if missing:
            error.hint = f"{error.hint}; perhaps it lacks {', '.join(missing)}: {mend(project)}"
        raise


def lacking_requirements(project: Project) -> tuple[str, ...]:
    """The project's requirements, as written, that this Python does not fulfil."""
    name = project.recipe.base.requirements
    file = project.path(name)
    if not file.is_file():
        return ()
    wanted = parse_requirements(read_text(file, InvalidRequirements), name)
    return tuple(str(each) for each in wanted if not _fulfilled(each))


def mend(project: Project) -> str:
    """The command that installs the project's requirements into this Python."""
    file = project.path(project.recipe.base.requirements)
    return shlex.join([sys.executable, "-m", "pip", "install", "-r", str(file)])


def _fulfilled(wanted: Requirement) -> bool:
    if wanted.marker and not wanted.marker.evaluate():
        return True
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False
