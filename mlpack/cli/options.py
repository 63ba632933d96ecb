"""What commands share: settings, the project, the way a command is declared."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlpack.azure.iothub import Hub
    from mlpack.oci.descriptor import Platform
    from mlpack.oci.reference import Reference
    from mlpack.stores.project import Project
    from mlpack.stores.registries import Registries


ENVIRONMENT = {
    "engine": ("device", "engine"),
    "tls": ("device", "tls"),
    "token_bytes": ("device", "token_bytes"),
    "devices": ("fleet", "devices"),
    "tariff": ("fleet", "tariff"),
    "repository": ("image", "repository"),
    "mirror": ("base", "mirror"),
}
"""``MLPACK_<NAME>`` → table and key of ``mlpack.toml``: all that is not part of a base's digest."""


@dataclass(slots=True)
class Settings:
    """What the options before the command say; ``json`` may also be set by the command's own."""

    directory: Path
    json: bool = False


def setting(name: str) -> str:
    """The environment's ``MLPACK_<NAME>``, or an empty text."""
    return os.environ.get(f"MLPACK_{name.upper()}", "")


class Parsed(click.ParamType):  # type: ignore[type-arg]  # generic in the stubs only
    """An argument that ``read`` turns into a value; what it raises says what is wrong."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: object, param: object, ctx: object) -> object:
        """Read a text; a value that was read already stays."""
        return self._read(value) if isinstance(value, str) else value


def _platform(text: str) -> Platform:
    from mlpack.oci.descriptor import Platform

    return Platform.parse(text)


def _repository(text: str) -> Reference:
    from mlpack.oci.reference import Reference

    return Reference.parse_repository(text)


def _pair(text: str) -> tuple[str, str]:
    from mlpack.errors import UsageError

    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"--env {text!r} sets nothing", hint="write it as --env KEY=VALUE")
    return key, value


PAIR = Parsed("KEY=VALUE", _pair)


def _stages(text: str) -> object:
    from mlpack.model.amounts import parse_stages

    return parse_stages(text)


def _share(text: str) -> object:
    from mlpack.model.amounts import parse_share

    return parse_share(text)


def _time(text: str) -> object:
    from mlpack.model.amounts import parse_time

    return parse_time(text)


PLATFORM = Parsed("OS/ARCH", _platform)
STAGES = Parsed("SHARES", _stages)
SHARE = Parsed("SHARE", _share)
TIME = Parsed("TIME", _time)
REPOSITORY = Parsed("REPOSITORY", _repository)


def env(meaning: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--env KEY=VALUE``, as often as wanted: the function gets pairs."""
    return click.option("--env", "env", multiple=True, type=PAIR, help=meaning)


device_group = click.option(
    "--device-group", "name", required=True, metavar="GROUP", help="One of mlpack groups."
)
optional_group = click.option(
    "--device-group", "name", default="", metavar="GROUP", help="Only this group."
)
fleet = click.option(
    "--fleet",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=lambda _, __, path: settings().directory / path if path else None,
    help="Read the devices from FILE, not from the IoT hub.",
)


DEPLOYMENT = "deployment.json"
deployment = click.argument(
    "deployment", type=click.Path(path_type=Path), metavar="[FILE]", default=DEPLOYMENT
)


class Count(click.IntRange):
    """A whole number of things."""

    name = "whole number"


def settings() -> Settings:
    """The settings of the running command."""
    found = click.get_current_context().find_object(Settings)
    return found if found is not None else Settings(Path.cwd())


def project() -> Project:
    """The project in the directory of ``-C``; raises when there is none."""
    from mlpack.model.recipe import Override
    from mlpack.stores.project import Project

    said = {name: setting(name) for name in ENVIRONMENT}
    overrides = (
        Override(f"MLPACK_{name.upper()}", *ENVIRONMENT[name], value)
        for name, value in said.items()
        if value
    )
    return Project.find(settings().directory, tuple(overrides))


def hub(project: Project) -> Hub:
    """The IoT hub, as mlpack.toml and the environment say; raise ``NoHub`` where neither does.

    Its connections close when the command ends.
    """
    from mlpack.api.devices import NoHub
    from mlpack.azure.connection import Connection

    string, host = setting("iothub_connection_string"), project.recipe.deploy.hub
    if not string and not host:
        raise NoHub("it is not said which IoT hub the devices are on")
    from mlpack.azure.iothub import Hub

    connection = Connection.of(string, host=host, ca=setting("azure_ca"))
    return click.get_current_context().with_resource(Hub(connection, sleep=sleep))


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
    from mlpack.stores.proxies import Proxies
    from mlpack.stores.registries import Registries

    here = project_if_any()
    said = here.recipe.registry if here else RegistryRecipe()
    ca = Path(setting("registry_ca")) if setting("registry_ca") else None
    if ca is None and said.ca and here is not None:
        ca = here.root / said.ca
    named = [each.strip() for each in setting("registry_insecure").split(",")]
    insecure = frozenset({*said.insecure, *named} - {""})
    client = Client(Limits(ca=ca, insecure=insecure, proxies=Proxies.read(os.environ)))
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


def sleep(seconds: float) -> None:
    """Wait; the clock's other half, in this one place."""
    time.sleep(seconds)


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
