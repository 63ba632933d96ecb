"""What is written about mlpack is true: every command has help, is listed, is in the reference."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlpack.cli.main import COMMANDS, cli
from mlpack.cli.options import ENVIRONMENT
from mlpack.model.edge import EDGE_KEYS, MODULE_KEYS, REGISTRY_KEYS, ROUTE_KEYS, SYSTEM_KEYS
from mlpack.model.groups import GROUP_KEYS
from mlpack.model.recipe import Recipe

CHECKOUT = Path(__file__).resolve().parents[1]


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli, info_name="mlpack")
    for name in cli.list_commands(context):
        found = cli.get_command(context, name)
        assert found is not None
        yield name, found
        if isinstance(found, click.Group):
            for child in found.list_commands(context):
                inner = found.get_command(context, child)
                assert inner is not None
                yield f"{name} {child}", inner


ALL = dict(commands())


@pytest.mark.parametrize("name", [name for name in ALL if not isinstance(ALL[name], click.Group)])
def test_every_command_has_help_and_a_worked_example(name: str) -> None:
    text = ALL[name].get_help(click.Context(ALL[name], info_name=name))
    assert ALL[name].help
    assert f"mlpack {name}" in text.partition("Examples:")[2], "no worked example"
    assert "--json" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    assert (ALL[name].help or "").splitlines()[0] == COMMANDS[name]


def test_the_reference_is_what_the_commands_say() -> None:
    path = CHECKOUT / "scripts" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (CHECKOUT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == module.reference(), "run: make docs"


@pytest.mark.parametrize("name", ALL)
def test_the_readme_names_every_command(name: str) -> None:
    assert f"`mlpack {name}" in (CHECKOUT / "README.md").read_text(encoding="utf-8")


TABLES = ("registry", "base", "device", "module", "fleet", "deploy", "budget", "kubernetes", "aci")


def test_the_settings_are_those_of_the_recipe() -> None:
    page = (CHECKOUT / "docs" / "settings.md").read_text(encoding="utf-8")
    recipe = Recipe(model="fan")
    tables = {name: getattr(recipe, name) for name in TABLES}
    called = {"source": "from"}
    for table, values in tables.items():
        for field in dataclasses.fields(values):
            assert f"`[{table}] {called.get(field.name, field.name)}`" in page
    for key in EDGE_KEYS:
        assert f"`[edge] {key}`" in page
    for key in {*MODULE_KEYS, *ROUTE_KEYS, *SYSTEM_KEYS, *REGISTRY_KEYS}:
        assert f"`{key}`" in page.partition("## The rest of a deployment")[2]
    groups = page.partition("## Device groups")[2]
    for key in GROUP_KEYS:
        assert f"| `{key}` |" in groups
    for name, (table, key) in ENVIRONMENT.items():
        line = next(line for line in page.splitlines() if f"`[{table}] {key}`" in line)
        assert f"`MLPACK_{name.upper()}`" in line
    read = {name.upper() for name in ENVIRONMENT}
    for path in (CHECKOUT / "mlpack" / "cli").glob("*.py"):
        read |= {name.upper() for name in re.findall(r'setting\("(\w+)"\)', path.read_text())}
    assert set(re.findall(r"`MLPACK_([A-Z_]+)", page)) == read


def pages() -> list[Path]:
    return [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
