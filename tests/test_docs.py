"""What is written about mlpack is true: every command has help, is listed, is in the reference."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mlpack.cli.main import COMMANDS, cli
from mlpack.settings.project_settings import variables

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


def script(name: str) -> Any:  # noqa: ANN401  # a module
    """Import ``scripts/<name>.py``."""
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_commands_say() -> None:
    written = (CHECKOUT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert written == script("reference").reference(), "run: make docs"


@pytest.mark.parametrize("name", ALL)
def test_the_readme_names_every_command(name: str) -> None:
    assert f"`mlpack {name}" in (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_settings_are_those_that_are_read() -> None:
    page = (CHECKOUT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert page == script("settings").page(page), "run: make docs"
    for name in script("settings").ALL:
        assert re.search(rf"<!-- settings [^>]*(?<= ){re.escape(name)}[ >]", page), name
    named = [row.partition(" | ")[0] for row in page.splitlines() if row.startswith("| `[")]
    assert len(named) == len(set(named))


def test_the_page_of_settings_names_every_variable_that_is_read() -> None:
    page = (CHECKOUT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    read = {name.removeprefix("MLPACK_") for name in variables()}
    for path in (CHECKOUT / "mlpack" / "api").glob("*.py"):
        read |= {name.upper() for name in re.findall(r'setting\("(\w+)"\)', path.read_text())}
    for path in (CHECKOUT / "mlpack" / "cli").glob("*.py"):
        read |= set(re.findall(r'environ\.get\("MLPACK_([A-Z_]+)"', path.read_text()))
    assert set(re.findall(r"`MLPACK_([A-Z_]+)", page)) == read


def pages() -> list[Path]:
    return [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def shown(page: Path) -> Iterator[list[str]]:
    """The words of every ``mlpack`` command in a page's blocks of shell."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"^ *```(?:console|sh)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            for part in re.split(r"&&|[|]|;", line.strip().removeprefix("$ ")):
                if part.strip().startswith("mlpack "):
                    yield shlex.split(part, comments=True)[1:]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_options_in_examples_exist(page: Path) -> None:
    for words in shown(page):
        found: click.Command = cli
        known = {option for each in cli.params for option in each.opts}
        for word in words:
            if isinstance(found, click.Group) and not word.startswith("-"):
                inner = found.get_command(click.Context(found), word)
                found = inner or ALL["bundle make"]  # the one group with a command of its own
                known |= {option for each in found.params for option in each.opts}
        used = {word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-zA-Z]", word)}
        assert used <= known | {"--help", "-h"}, f"{page.name}: mlpack {' '.join(words)}"


def test_pages_that_hints_name_exist() -> None:
    """Each is shown by ``mlpack docs``, also where only the wheel is."""
    named: set[str] = set()
    for path in [*(CHECKOUT / "mlpack").rglob("*.py"), *(CHECKOUT / "templates").rglob("*")]:
        if path.is_file() and path.suffix != ".pyc":
            text = path.read_text(encoding="utf-8")
            named |= set(re.findall(r"\bpage\([\"']([\w/-]+)[\"']\)", text))
            named |= set(re.findall(r"mlpack docs ([a-z]+/[\w-]+)", text))
    assert named
    missing = {name for name in named if not (CHECKOUT / "docs" / f"{name}.md").is_file()}
    assert not missing


def test_pictures_are_what_their_texts_say() -> None:
    drawn = list(script("pictures").pictures())
    assert len(drawn) >= 8
    for path, svg in drawn:
        assert path.read_text(encoding="utf-8") == svg, "run: make docs"


def test_the_recording_is_what_its_transcript_says() -> None:
    recording = script("recording")
    transcript = recording.TRANSCRIPT.read_text(encoding="utf-8")
    svg = recording.TRANSCRIPT.with_suffix(".svg").read_text(encoding="utf-8")
    assert svg == recording.draw(transcript), "run: make docs"
    assert len(svg) < 60_000
    assert "<script" not in svg
    assert "prefers-reduced-motion" in svg
    assert recording.moments(recording.read(transcript))[-1] == pytest.approx(26 / 30)


def test_the_recording_runs_commands_of_the_readmes_tour() -> None:
    recording = script("recording")
    typed = re.findall(r"\t[$] (.*)", recording.TRANSCRIPT.read_text(encoding="utf-8"))
    assert tuple(typed) == recording.COMMANDS
    tour = (CHECKOUT / "README.md").read_text(encoding="utf-8").partition("<!-- tour -->")[2]
    for command in typed:
        assert f"$ {command.partition(' | ')[0]}" in tour


def test_no_page_installs_mlpack_from_an_index_that_lacks_it() -> None:
    places = ("docs", "examples", "templates", "notebooks")
    files = [each for place in places for each in (CHECKOUT / place).rglob("*") if each.is_file()]
    for path in [*files, CHECKOUT / "README.md"]:
        if path.suffix in (".md", ".py", ".ipynb", ".yml"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"install '?mlpack-edge(?!(\[[\w,]+\])? @)", text), path


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": ([\w/-]+\.md)$", (CHECKOUT / "mkdocs.yml").read_text(), re.MULTILINE)
    docs = CHECKOUT / "docs"
    assert sorted(listed) == sorted(str(each.relative_to(docs)) for each in docs.rglob("*.md"))


def test_the_page_of_errors_is_what_the_code_raises() -> None:
    written = (CHECKOUT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert written == script("errors").page(), "run: make docs"
