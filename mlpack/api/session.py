"""What every verb needs besides its request: the project, registries, the hub, clock, progress.

Only this module and ``cli/`` read the environment and the clock. A session opens a connection
when the first verb needs it, and closes them all at its end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from mlpack.errors import MissingFile, MlpackError, UsageError
from mlpack.humanize import nearest
from mlpack.project.directory import NotAProject, ProjectDirectory
from mlpack.settings.project_settings import environment_overrides
from mlpack.stores.files import output, require_file
from mlpack.stores.store_use import writing

if TYPE_CHECKING:
    from mlpack.azure.management import Account
    from mlpack.oci.descriptor import Platform
    from mlpack.project.references import FoundImage
    from mlpack.registry.credentials import Logins
    from mlpack.registry.repository import Registries
    from mlpack.rollout.hub import IotHub


class NoHub(MlpackError):
    """A command that needs an IoT hub, and no hub is configured."""

    hint = 'set [deploy] hub = "NAME.azure-devices.net" and log in to Azure, or '
    hint += "MLPACK_IOTHUB_CONNECTION_STRING"


@dataclass(frozen=True, slots=True)
class Progress:
    """One report of a running step: how much of it is done, or a message."""

    step: str
    """What runs: ``pushing``, ``reading twins``."""

    done: int = 0
    total: int | None = None
    """``None`` if it is not known yet, or never."""

    unit: str = "bytes"
    finished: bool = False
    detail: str = ""
    """What the step does now: ``linux/arm64: fetching packages``."""

    message: str = ""
    """A line for the user instead of a number."""


class Step:
    """A running step; called with the number of bytes or items done since the last call."""

    def __init__(self, report: Callable[[Progress], None], start: Progress) -> None:
        self._report = report
        self._lock = Lock()  # copies run on several threads
        self._last = start

    def __call__(self, count: int) -> None:
        """Report that ``count`` more are done."""
        self._change(count, self._last.total)

    def expect(self, total: int) -> None:
        """Report how many there are in all, as soon as that is known."""
        self._change(0, total)

    def _change(self, count: int, total: int | None) -> None:
        with self._lock:
            last = self._last
            self._last = replace(last, done=last.done + count, total=total)
            self._report(self._last)

    def begin(self, detail: str) -> None:
        """Report what the step does now."""
        with self._lock:
            self._last = replace(self._last, detail=detail)
            self._report(self._last)

    def finish(self) -> None:
        """Report that the step has ended."""
        self._report(replace(self._last, finished=True, detail=""))


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, and waiting; tests pass one of their own."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0)
    """UTC to the second."""

    sleep: Callable[[float], None] = time.sleep


@dataclass
class Session:
    """A directory with or without a project, and what is open for it."""

    directory: Path = field(default_factory=Path)
    """Where the project is, and what relative paths in requests are relative to."""

    progress: Callable[[Progress], None] = lambda _: None
    clock: Clock = field(default_factory=Clock)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _open: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Close every connection; the next verb opens new ones."""
        self._open.close()
        for name in ("registries", "hub"):
            self.__dict__.pop(name, None)

    def setting(self, name: str) -> str:
        """The environment's ``MLPACK_<NAME>``, or an empty text."""
        return self.environment.get(f"MLPACK_{name.upper()}", "")

    @property
    def cache(self) -> Path:
        """Where to keep what can be made again: ``MLPACK_CACHE``, or below the user's cache.

        Source: XDG Base Directory Specification.
        """
        if self.setting("cache"):
            return self.path(self.setting("cache"))
        named = Path(self.environment.get("XDG_CACHE_HOME", ""))
        if named.is_absolute():
            return named / "mlpack"
        try:
            return Path.home() / ".cache" / "mlpack"
        except RuntimeError:  # a container's user may have no home
            return self.project.ledger.parent / "cache"

    def path(self, given: Path | str) -> Path:
        """``given``, relative to the session's directory."""
        return self.directory / given

    def existing(self, given: Path | str) -> Path:
        """``given``, relative to the session's directory; raise ``MissingFile`` otherwise."""
        found = self.path(given)
        if not found.exists():
            close = nearest(found.name, _names(found.parent), alike=0.8)
            raise MissingFile(f"{found} does not exist{close}")
        return found

    def file(self, given: Path | str) -> Path:
        """:meth:`existing`, which must be a regular file."""
        found = self.existing(given)
        require_file(found)
        return found

    def model_file(self, given: Path | str) -> Path:
        """Return the file of a model: a path, or the one file of a version of this project.

        A version is written as ``NAME:VERSION``, or ``NAME`` for the newest; a path that exists
        comes first. Raises ``MissingFile``, and what
        :func:`~mlpack.project.references.single_file` raises.
        """
        project = self.project_if_any
        if self.path(given).exists() or project is None:
            return self.file(given)
        from mlpack.project.references import is_named, single_file

        if not is_named(project.layout, str(given)):
            return self.existing(given)
        return single_file(project.layout, str(given))

    @contextmanager
    def output(self, given: Path | str, *inputs: Path) -> Iterator[Path]:
        """Return the path of a file that a verb writes, relative to the session's directory.

        Checked as in :func:`mlpack.stores.files.output`; the project's own files are inputs.
        """
        project = self.project_if_any
        own = project.own_files if project else ()
        with output(self.path(given), *inputs, *own) as path:
            yield path

    @cached_property
    def project(self) -> ProjectDirectory:
        """The project; raise :class:`~mlpack.project.directory.NotAProject` if there is none."""
        return ProjectDirectory.find(self.directory, environment_overrides(self.environment))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep garbage collection off the project's store while a verb writes what it will name.

        Of a store without names nothing is collected, and so a new one is not made for this.
        """
        project = self.project_if_any
        kept = project is not None and project.layout.has_names
        with writing(project.layout.root) if project and kept else nullcontext():
            yield

    @property
    def project_if_any(self) -> ProjectDirectory | None:
        """The project, or ``None``: some verbs work on images outside of one."""
        try:
            return self.project
        except NotAProject:
            return None

    @cached_property
    def registries(self) -> Registries:
        """Registries, configured by mlpack.toml, the environment and the machine's logins."""
        return self._open.enter_context(self.open_registries())

    def open_registries(self, patience: float = 0) -> Registries:
        """Return registries that the caller closes; ``patience`` seconds for each step if set."""
        # The HTTP client takes 0.1 s to import, and most verbs need no registry.
        from mlpack.registry.http import Client, ClientSettings
        from mlpack.registry.http_types import Proxies
        from mlpack.registry.repository import Registries
        from mlpack.settings.project_settings import RegistrySettings

        here = self.project_if_any
        settings = here.settings.registry if here else RegistrySettings()
        ca = Path(self.setting("registry_ca")) if self.setting("registry_ca") else None
        if ca is None and settings.ca and here is not None:
            ca = here.root / settings.ca
        named = [each.strip() for each in self.setting("registry_insecure").split(",")]
        insecure = frozenset({*settings.insecure, *named} - {""})
        asked = ClientSettings(ca=ca, insecure=insecure, proxies=Proxies.read(self.environment))
        if patience:
            asked = replace(asked, connect=patience, read=patience, patience=patience)
        return Registries(Client(asked), self.logins())

    def logins(self) -> Logins:
        """Return the logins that Docker and podman keep on this machine."""
        from mlpack.registry.credentials import Logins, login_files

        try:
            home: Path | None = Path.home()
        except RuntimeError:
            home = None
        files = login_files(self.environment, home, os.getuid())
        return Logins(files, self.environment.get("DOCKER_AUTH_CONFIG", ""))

    def find(self, image: str, platform: Platform | None = None) -> FoundImage:
        """Find ``image`` on disk, in the project, or in a registry if it is written so."""
        from mlpack.project.references import find_image, in_registry

        registries = self.registries if in_registry(image) else None
        return find_image(
            self.project_if_any,
            image,
            platform,
            directory=self.directory,
            registries=registries,
        )

    @cached_property
    def hub(self) -> IotHub:
        """The IoT hub of mlpack.toml or the environment; raise :class:`NoHub` without either."""
        from mlpack.azure.hub_client import Connection
        from mlpack.rollout.hub import IotHub

        string, host = self.setting("iothub_connection_string"), self.project.settings.deploy.hub
        if not string and not host:
            raise NoHub("no IoT hub is configured")
        ca = self.setting("azure_ca")
        if ca and not Path(ca).is_dir():
            require_file(Path(ca))
        connection = Connection.of(string, host=host, ca=ca)
        return self._open.enter_context(IotHub(connection, sleep=self.clock.sleep))

    @property
    def azure_endpoint(self) -> str:
        """Azure's management address."""
        from mlpack.azure.management import CLOUD

        return self.setting("azure_endpoint") or CLOUD

    def workspace(self, place: str) -> Account:
        """The Azure ML workspace at ``SUBSCRIPTION/GROUP/WORKSPACE``.

        ``place`` may also be the path of a ``config.json`` of Azure ML, or ``.``: the one that
        its SDKs find from here. Raises ``UsageError``.
        """
        from mlpack.azure.management import workspace_account
        from mlpack.azure.workspace_file import read_workspace_file

        if place == ".":
            place = self.configured_workspace
            if not place:
                raise UsageError(
                    f"no config.json of Azure ML in {self.directory.resolve()} or above it",
                    hint="write --workspace SUBSCRIPTION/GROUP/WORKSPACE",
                )
        elif place.endswith(".json"):
            place = read_workspace_file(self.file(place))
        return workspace_account(place, self.azure_endpoint)

    @property
    def configured_workspace(self) -> str:
        """The workspace in the ``config.json`` that Azure ML's SDKs find from here, or ``""``.

        Raises :class:`~mlpack.azure.workspace_file.BadWorkspaceFile`.
        """
        from mlpack.azure.workspace_file import find_workspace_file, read_workspace_file

        found = find_workspace_file(self.directory)
        return read_workspace_file(found) if found else ""

    @contextmanager
    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> Iterator[Step]:
        """Report the progress of the step ``name`` while the block runs."""
        step = Step(self.progress, Progress(name, 0, total, unit))
        step(0)
        try:
            yield step
        finally:
            step.finish()

    def say(self, message: str) -> None:
        """Pass a line to the user while a verb runs."""
        self.progress(Progress("", message=message))


def _names(folder: Path) -> tuple[str, ...]:
    """Return the names in ``folder``; none if it cannot be listed."""
    try:
        return tuple(each.name for each in folder.iterdir())
    except OSError:
        return ()
