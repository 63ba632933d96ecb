"""What commands share: settings, the project, the way a command is declared."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlpack.stores.project import Project
    from mlpack.stores.registries import Registries


@dataclass(slots=True)
class Settings:
    """What the options before the command say; ``json`` may also be set by the command's own."""

    directory: Path
    json: bool = False


def setting(name: str) -> str:
    """The environment's ``MLPACK_<NAME>``, or an empty text."""
    return os.environ.get(f"MLPACK_{name.upper()}", "")


def settings() -> Settings:
    """The settings of the running command."""
    found = click.get_current_context().find_object(Settings)
    return found if found is not None else Settings(Path.cwd())


def project() -> Project:
    """The project in the directory of ``-C``; raises when there is none."""
    from mlpack.stores.project import Project

    return Project.find(settings().directory)


def project_if_any() -> Project | None:
    """The project here, or ``None``: some commands work on images outside of one."""
    from mlpack.stores.project import NotAProject

    try:
        return project()
    except NotAProject:
        return None


def registries() -> Registries:
    """Registries as mlpack.toml, the environment and the machine's logins say.

    Their connections close when the command ends.
    """
    from mlpack.model.recipe import RegistryRecipe
    from mlpack.stores.http import Client, Limits
    from mlpack.stores.registries import Registries

    here = project_if_any()
    said = here.recipe.registry if here else RegistryRecipe()
    ca = Path(setting("registry_ca")) if setting("registry_ca") else None
    if ca is None and said.ca and here is not None:
        ca = here.root / said.ca
    named = [each.strip() for each in setting("registry_insecure").split(",")]
    insecure = frozenset({*said.insecure, *named} - {""})
    client = Client(Limits(ca=ca, insecure=insecure))
    return click.get_current_context().with_resource(Registries(client, _logins()))


def _logins() -> tuple[Path, ...]:
    """Where podman and Docker keep logins, in the order they are asked."""
    places = (
        os.environ.get("REGISTRY_AUTH_FILE", ""),
        f"{os.environ.get('DOCKER_CONFIG') or Path.home() / '.docker'}/config.json",
        f"{os.environ.get('XDG_RUNTIME_DIR', '/nowhere')}/containers/auth.json",
    )
    return tuple(Path(place) for place in places if place)


def now() -> datetime:
    """The clock, read in this one place; UTC to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def command(name: str, *, examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """Declare a command: its docstring is the help, ``examples`` stands below it, ``--json`` works.

    >>> @command("hello", examples="mlpack hello")
    ... def hello() -> None:
    ...     '''Say hello.'''
    >>> hello.name
    'hello'
    """
    lines = "\n".join(
        f"  {line.strip()}" if line.strip() else "" for line in examples.strip().splitlines()
    )
    epilog = f"\b\nExamples:\n{lines}"

    def declare(function: Callable[..., None]) -> click.Command:
        made = click.command(name, epilog=epilog)(function)
        made.params.append(
            click.Option(
                ["--json"],
                is_flag=True,
                expose_value=False,
                callback=_json,
                help="Print one JSON document on stdout.",
            )
        )
        return made

    return declare


def _json(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    found = ctx.find_object(Settings)
    if wanted and found is not None:
        found.json = True
