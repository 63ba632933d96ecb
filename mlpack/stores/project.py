"""A project directory: where its settings, its lock and its store lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlpack.errors import MlpackError, UsageError
from mlpack.model.lock import InvalidLock, Lock
from mlpack.model.recipe import InvalidRecipe, Override, Recipe
from mlpack.plan.engines import engine
from mlpack.plan.wire import Link
from mlpack.stores.files import atomic, locked
from mlpack.stores.layout import LayoutStore

RECIPE, LOCK, STATE = "mlpack.toml", "mlpack.lock", ".mlpack"
MAX_TEXT_BYTES = 16 * 1024 * 1024


class NotAProject(MlpackError):
    """A directory without ``mlpack.toml``."""

    hint = "start one with: mlpack init --template fan, or go to yours with -C DIR"


class NoBase(MlpackError):
    """A project whose base was not built yet."""

    hint = "build the base once with: mlpack base build"


class OutsideProject(MlpackError):
    """A path in the settings that leaves the project directory."""

    hint = "keep the project's files inside its directory"


@dataclass(frozen=True)
class Project:
    """The one place that knows the paths of a project."""

    root: Path
    overrides: tuple[Override, ...] = ()
    """Settings that go before those of ``mlpack.toml``."""

    @classmethod
    def find(cls, directory: Path, overrides: tuple[Override, ...] = ()) -> Project:
        """The project in ``directory`` (not above it); raise :class:`NotAProject`."""
        if not (directory / RECIPE).is_file():
            raise NotAProject(f"{directory.resolve()} has no {RECIPE}")
        return cls(directory, overrides)

    @cached_property
    def recipe(self) -> Recipe:
        """The settings in ``mlpack.toml``; raise :class:`InvalidRecipe` naming the one at fault."""
        text = read_text(self.root / RECIPE, InvalidRecipe)
        found = Recipe.parse(text, self.overrides)
        try:
            engine(found.device.engine)
            Link.of(found.device)
        except UsageError as error:
            raise InvalidRecipe(f"[device]: {error}", hint=error.hint) from error
        return found

    @property
    def state(self) -> Path:
        """``.mlpack``: what mlpack keeps and git ignores."""
        return self.root / STATE

    @cached_property
    def layout(self) -> LayoutStore:
        """The store: model versions, the base, the releases."""
        return LayoutStore(self.state / "oci")

    @property
    def ledger(self) -> Path:
        """The ledger's file (:mod:`mlpack.stores.ledger`)."""
        return self.state / "ledger.db"

    @property
    def has_lock(self) -> bool:
        """Whether a base was ever locked."""
        return (self.root / LOCK).is_file()

    def lock(self) -> Lock:
        """``mlpack.lock``; raise :class:`NoBase` where there is none."""
        if not self.has_lock:
            raise NoBase(f"{self.root.resolve()} has no {LOCK}: its base was not built yet")
        return Lock.parse(read_text(self.root / LOCK, InvalidLock))

    def write_lock(self, lock: Lock) -> None:
        """Replace ``mlpack.lock``, whole or not at all."""
        with atomic(self.root / LOCK) as out:
            out.write(lock.dump().encode())

    def path(self, name: str) -> Path:
        """The file ``name`` of the project; raise :class:`OutsideProject` where it leaves it."""
        found = self.root / name
        if not found.resolve().is_relative_to(self.root.resolve()):
            raise OutsideProject(f"{name!r} is outside {self.root.resolve()}")
        return found

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let no other process change this project while the block runs; others wait."""
        with locked(self.state / "lock"):
            yield


def read_text(path: Path, error: type[MlpackError]) -> str:
    """Read a text the user wrote; raise ``error`` where it is too large, or no text."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise error(f"{path} is larger than {MAX_TEXT_BYTES // 1024 // 1024} MiB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not UTF-8") from cause
