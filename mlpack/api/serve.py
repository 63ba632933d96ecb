"""``mlpack serve``: run a model version on this machine, without a container."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from mlpack.api.run import PortTaken
from mlpack.base.requirements import InvalidRequirements, parse_requirements
from mlpack.engines.local_runtime import Ended, Runtime, runtime
from mlpack.engines.readiness import answers
from mlpack.errors import MlpackError
from mlpack.installation import install_command
from mlpack.model.version import ModelVersion, parse_name
from mlpack.project.directory import ModelStore, ProjectDirectory, read_text

if TYPE_CHECKING:
    from mlpack.api.requests import Serve
    from mlpack.api.session import Session

_IMPORTED = ("onnxruntime", "orjson", "prometheus_client", "starlette", "uvicorn")
"""What the runtime imports; the extra ``serve`` brings it."""

_OTHERS = ("AZUREML_ENTRY_SCRIPT", "MLPACK_HOST")
"""Variables that a shell may have set for another module; ``--env`` sets them for this one."""


class NotInstalled(MlpackError):
    """Packages of the runtime that this Python lacks."""


@dataclass(frozen=True)
class Served:
    """A model version that answers."""

    version: ModelVersion
    runtime: Runtime

    @property
    def url(self) -> str:
        """Where it scores."""
        return f"{self.runtime.address}/score"

    @property
    def page(self) -> str:
        """The page on which a browser tries the model."""
        return f"{self.runtime.address}/"

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json serve``."""
        return {
            "name": self.version.name,
            "version": self.version.version,
            "digest": self.version.digest,
            "url": self.url,
            "page": self.page,
        }

    def wait(self) -> None:
        """Wait for its end; raise :class:`~mlpack.engines.local_runtime.Ended` if it ends."""
        raise Ended(f"the runtime ended with status {self.runtime.wait()}")


@contextmanager
def serve(session: Session, request: Serve, seconds: float = 60) -> Iterator[Served]:
    """Serve a model version while the block runs.

    Raises :class:`NotInstalled` and :class:`~mlpack.api.run.PortTaken` before anything is
    started, and :class:`~mlpack.engines.local_runtime.Ended` if it does not answer within
    ``seconds``.
    """
    absent = [each for each in _IMPORTED if util.find_spec(each) is None]
    if absent:
        raise NotInstalled(
            f"the runtime needs {', '.join(absent)}, not installed here",
            hint=f"install the extra serve: {install_command('serve')}",
        )
    project, port = session.project, request.port
    model = ModelStore(project.layout).get(*parse_name(request.model))
    address = f"http://127.0.0.1:{port}/"
    if answers(address):
        raise PortTaken(f"something answers at {address} already")
    lacking = lacking_requirements(project)
    if lacking:
        session.say(f"not installed here: {', '.join(lacking)}; install it: {mend(project)}")
    inherited = {key: text for key, text in session.environment.items() if key not in _OTHERS}
    started = runtime(
        project.layout, model, port=port, environment={**inherited, **request.env}, seconds=seconds
    )
    try:
        with started as found:
            yield Served(model, found)
    except Ended as error:
        if lacking:
            error.hint = f"{error.hint}; perhaps it lacks {', '.join(lacking)}: {mend(project)}"
        raise


def lacking_requirements(project: ProjectDirectory) -> tuple[str, ...]:
    """The project's requirements, as written, that this Python does not meet."""
    name = project.settings.base.requirements
    file = project.path(name)
    if not file.is_file():
        return ()
    wanted = parse_requirements(read_text(file, InvalidRequirements), name)
    return tuple(str(each) for each in wanted if not _fulfilled(each))


def mend(project: ProjectDirectory) -> str:
    """The command that installs the project's requirements into this Python."""
    file = project.path(project.settings.base.requirements)
    return shlex.join([sys.executable, "-m", "pip", "install", "-r", str(file)])


def _fulfilled(wanted: Requirement) -> bool:
    if wanted.marker and not wanted.marker.evaluate():
        return True
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False
