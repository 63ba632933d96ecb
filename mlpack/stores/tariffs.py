"""Finding a tariff: one that mlpack ships, or the user's file."""

from __future__ import annotations

from pathlib import Path

from mlpack.errors import UsageError
from mlpack.model.recipe import InvalidRecipe
from mlpack.plan.tariff import InvalidTariff, Tariff
from mlpack.stores.project import Project, read_text
from mlpack.stores.templates import read_template, template_tree

FOLDER, SUFFIX = "tariffs", ".toml"


class NoSuchTariff(UsageError):
    """A tariff that is neither shipped nor a file."""


def read_tariff(text: str, directory: Path) -> Tariff:
    """The tariff ``text``: a shipped one's name, or a file's path relative to ``directory``."""
    if "/" not in text and not text.endswith(SUFFIX):
        return _shipped(text)
    path = directory / text
    if not path.is_file():
        raise NoSuchTariff(f"there is no tariff file {path}", hint=_shipped_hint())
    return Tariff.parse(read_text(path, InvalidTariff), text)


def project_tariff(project: Project, named: str, where: str) -> Tariff:
    """The tariff a setting names (``where``); a file of the project must lie inside it."""
    if "/" in named or named.endswith(SUFFIX):
        project.path(named)
    try:
        return read_tariff(named, project.root)
    except NoSuchTariff as error:
        raise InvalidRecipe(f"{where} tariff: {error}", hint=error.hint) from error


def shipped_tariffs() -> tuple[str, ...]:
    """The names of the tariffs mlpack ships."""
    return tuple(name.removesuffix(SUFFIX) for name in template_tree(FOLDER))


def _shipped(name: str) -> Tariff:
    if name not in shipped_tariffs():
        raise NoSuchTariff(f"mlpack ships no tariff {name!r}", hint=_shipped_hint())
    return Tariff.parse(read_template(f"{FOLDER}/{name}{SUFFIX}"), name)


def _shipped_hint() -> str:
    return f"name a file (tariff.toml), or one of: {', '.join(shipped_tariffs())}"
