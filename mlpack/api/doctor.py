"""``mlpack doctor``: what this machine and this project have, lack, and need."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlpack.base.python import find_uv
from mlpack.errors import MlpackError
from mlpack.model.lock import Lock
from mlpack.model.recipe import Recipe
from mlpack.stores.base import NotFound
from mlpack.stores.holes import blobs, holes
from mlpack.stores.layout import validate
from mlpack.stores.machine import find_program, free_bytes, is_root
from mlpack.stores.project import NoBase, NotAProject, Project

State = Literal["ok", "missing", "broken"]
PYTHONS = ((3, 11), (3, 14))
"""The Pythons mlpack runs on, from and below."""

LITTLE_BYTES = 1_000_000_000
"""Free disk space below which building a base may fail (two platforms, and their packages)."""

_OPTIONAL = {
    "docker": "to run a release here: apt-get install docker.io",
    "podman": "to run a release here without Docker: apt-get install podman",
    "skopeo": "to copy releases to a registry: apt-get install skopeo",
    "git": "to note the commit a model was made from: apt-get install git",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``missing`` may be so, ``broken`` stops mlpack's work."""

    name: str
    state: State
    found: str
    advice: str = ""

    def to_json(self) -> Mapping[str, str]:
        """This check as ``mlpack --json doctor`` lists it."""
        value = {"name": self.name, "state": self.state, "found": self.found}
        return value | ({"advice": self.advice} if self.advice else {})


class NotHealthy(MlpackError):
    """Something mlpack needs here is broken."""

    hint = "do what stands beside it, and run: mlpack doctor"

    def __init__(self, checks: tuple[Check, ...]) -> None:
        super().__init__(f"broken: {', '.join(each.name for each in checks)}")


def doctor(directory: Path, *, deep: bool = False) -> tuple[Check, ...]:
    """Look at everything; ``deep`` reads every blob of the store."""
    return (*_machine(directory), *_project(directory, deep=deep))


def require_healthy(checks: tuple[Check, ...]) -> None:
    """Raise :class:`NotHealthy` where a check found something broken."""
    broken = tuple(each for each in checks if each.state == "broken")
    if broken:
        raise NotHealthy(broken)


def _machine(directory: Path) -> Iterator[Check]:
    yield _python(sys.version_info[:3])
    try:
        yield Check("uv", "ok", find_uv())
    except MlpackError as error:
        yield Check("uv", "broken", str(error), error.hint)
    for name, advice in _OPTIONAL.items():
        place = find_program(name)
        yield Check(name, "ok", str(place)) if place else Check(name, "missing", "", advice)
    free = free_bytes(directory)
    found = f"{free / 1e9:.1f} GB free"
    if free < LITTLE_BYTES:
        yield Check("disk", "broken", found, "free some: building a base takes about 1 GB")
    else:
        yield Check("disk", "ok", found)


def _python(version: tuple[int, ...]) -> Check:
    found = ".".join(str(part) for part in version)
    oldest, beyond = PYTHONS
    if oldest <= version[:2] < beyond:
        return Check("python", "ok", found)
    return Check("python", "broken", found, "install mlpack under Python 3.11, 3.12 or 3.13")


def _project(directory: Path, *, deep: bool) -> Iterator[Check]:
    try:
        project = Project.find(directory)
    except NotAProject as error:
        yield Check("project", "missing", str(error), error.hint)
        return
    try:
        recipe = project.recipe
    except MlpackError as error:
        yield Check("project", "broken", str(error), error.hint)
        return
    yield Check("project", "ok", f"model {recipe.model} in {project.root.resolve()}")
    yield from _files(project, recipe)
    lock = yield from _lock(project)
    if recipe.base.source.startswith("debian:"):
        yield _mmdebstrap(needed=lock is None)
    if lock is not None:
        yield _base(project, lock)
    yield _store(project, deep=deep)


def _files(project: Project, recipe: Recipe) -> Iterator[Check]:
    named = {"scoring": recipe.scoring, "requirements": recipe.base.requirements}
    for setting, name in named.items():
        if not name:
            continue
        try:
            there = project.path(name).is_file()
        except MlpackError as error:
            yield Check(setting, "broken", str(error), error.hint)
            continue
        advice = "" if there else f"write it, or correct {setting} in mlpack.toml"
        yield Check(setting, "ok" if there else "broken", name if there else f"no {name}", advice)


def _lock(project: Project) -> Generator[Check, None, Lock | None]:
    try:
        lock = project.lock()
    except NoBase as error:
        yield Check("lock", "missing", "no mlpack.lock", error.hint)
        return None
    except MlpackError as error:
        yield Check("lock", "broken", str(error), error.hint)
        return None
    yield Check("lock", "ok", f"base {lock.base.index.digest.short}, its seal fits")
    return lock


def _mmdebstrap(*, needed: bool) -> Check:
    """What the Debian part of a base is made with; it brings apt's check of signatures."""
    place = find_program("mmdebstrap")
    if place and not is_root() and find_program("newuidmap") is None:
        return Check(
            "mmdebstrap",
            "broken" if needed else "missing",
            f"{place}, but no newuidmap, which it needs where you are not root",
            "apt-get install uidmap, or build the base as root",
        )
    if place:
        return Check("mmdebstrap", "ok", str(place))
    return Check(
        "mmdebstrap",
        "broken" if needed else "missing",
        "not installed",
        "to build a base from Debian: apt-get install mmdebstrap",
    )


def _base(project: Project, lock: Lock) -> Check:
    advice = "run: mlpack base build (it gives the locked digests again)"
    try:
        lacking = [
            e for e in blobs(project.layout, lock.base.index) if not project.layout.exists(e)
        ]
    except NotFound:
        return Check("base", "missing", "the locked base is not in the store", advice)
    except MlpackError as error:
        return Check("base", "broken", str(error), advice)
    if lacking:
        return Check("base", "missing", f"{len(lacking)} blobs are not in the store", advice)
    return Check("base", "ok", ", ".join(str(each.platform) for each in lock.base.platforms))


def _store(project: Project, *, deep: bool) -> Check:
    try:
        count = len(project.layout.entries())
        problems = validate(project.layout) if deep else holes(project.layout)
    except MlpackError as error:
        return Check("store", "broken", str(error), error.hint)
    if problems:
        advice = "build or register again what is named here; a base with: mlpack base build"
        return Check("store", "broken", "; ".join(problems), advice)
    read = "every byte read" if deep else "sizes compared; --deep reads every byte"
    return Check("store", "ok", f"{count} names, {read}")
