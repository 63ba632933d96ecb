"""The values that a shell completes: models, versions, device groups, engines, platforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from mlpack.errors import MlpackError

if TYPE_CHECKING:
    from mlpack.project.directory import ProjectDirectory

_PLATFORMS = ("linux/amd64", "linux/arm64")


def _releases(project: ProjectDirectory) -> Iterable[str]:
    from mlpack.project.directory import ModelStore, read_versions

    for name in ModelStore(project.layout).names():
        yield name
        yield from map(str, read_versions(project.layout, name).readable)


def _groups(project: ProjectDirectory) -> Iterable[str]:
    return project.settings.deploy.groups


def _platforms(project: ProjectDirectory) -> Iterable[str]:
    return map(str, project.settings.base.platforms)


def _engines() -> Iterable[str]:
    from mlpack.kinds import ENGINE_ALIASES, ENGINES

    return (*ENGINES, *ENGINE_ALIASES)


def _tariffs() -> Iterable[str]:
    from mlpack.project.directory import shipped_tariffs

    return shipped_tariffs()


_OF_PROJECT: dict[str, Callable[[ProjectDirectory], Iterable[str]]] = {
    **dict.fromkeys(("model", "release", "image", "new", "old", "onto", "drop"), _releases),
    **dict.fromkeys(("device_group", "group"), _groups),
    **dict.fromkeys(("platform", "platforms"), _platforms),
}
"""What is listed for a parameter, by its name, in a project."""

_ANYWHERE: dict[str, Callable[[], Iterable[str]]] = {
    "engine": _engines,
    "tariff": _tariffs,
    "platform": lambda: _PLATFORMS,
    "platforms": lambda: _PLATFORMS,
}
"""What is listed outside of a project, too."""


class Completed(click.ParamType):  # type: ignore[type-arg]  # generic in the stubs only
    """Another type, whose values a shell completes."""

    def __init__(self, type: click.ParamType, key: str) -> None:  # type: ignore[type-arg]
        self.name = type.name
        self._type = type
        self._key = key

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """The inner type's."""
        return self._type.get_metavar(param, ctx)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Read a value as the inner type does."""
        return self._type.convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The values that begin with what was typed, and files where those may be named."""
        found = [each for each in values(self._key, _directory(ctx)) if each.startswith(incomplete)]
        inner = self._type.shell_complete(ctx, param, incomplete)
        return [*map(CompletionItem, found), *inner]


def complete(param: click.Parameter) -> None:
    """Let a shell complete the values of ``param``, if its name is that of something listed."""
    name = param.name or ""
    listed = name in _OF_PROJECT or name in _ANYWHERE
    if listed and not isinstance(param.type, click.Path):  # a shell knows files itself
        param.type = Completed(param.type, name)


def values(name: str, directory: Path) -> tuple[str, ...]:
    """Return what the parameter ``name`` can be in a project; nothing if that cannot be read."""
    from mlpack.project.directory import ProjectDirectory

    found: list[str] = []
    try:
        if name in _OF_PROJECT:
            found += _OF_PROJECT[name](ProjectDirectory.find(directory))
    except (MlpackError, OSError):
        pass  # a shell has no place for an error
    if not found and name in _ANYWHERE:
        found += _ANYWHERE[name]()
    return tuple(dict.fromkeys(found))


def _directory(ctx: click.Context) -> Path:
    found = ctx.find_root().params.get("directory")
    return found if isinstance(found, Path) else Path()
