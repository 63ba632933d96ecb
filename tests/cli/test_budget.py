"""``[budget]``: ``mlpack report --check`` and ``mlpack build --check`` on a project."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.support import make_project, run, tiny_onnx

TARIFFS = Path(__file__).resolve().parents[2] / "templates" / "tariffs"


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project of two releases, fan:1 and fan:2, and a version 3 that is not built."""
    made = make_project(tmp_path / "project")
    for number in (1, 2, 3):
        model = tiny_onnx(tmp_path / "model.onnx", bias=number)
        assert at(made, "register", str(model)).exit_code == 0
        if number < 3:
            assert at(made, "build", "fan").exit_code == 0
    return made


def at(project: ProjectDirectory, *args: str) -> Any:  # noqa: ANN401  # click's Result
    return run("-C", str(project.root), *args)


def budget(project: ProjectDirectory, text: str) -> None:
    path = project.root / "mlpack.toml"
    path.write_text(path.read_text().partition("\n[budget]")[0] + f"\n[budget]\n{text}\n")


def transfer(project: ProjectDirectory) -> Any:  # noqa: ANN401  # a JSON document
    return json.loads(at(project, "diff", "fan:1", "fan:2", "--json").stdout)["transfer"]


def test_an_update_within_its_budget_passes(project: ProjectDirectory) -> None:
    moved = transfer(project)
    budget(project, f'layer = "{moved["layers"]} B"\ndevice = "{moved["total"]} B"')
    done = at(project, "report", "fan:2", "--check")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "Budget: kept" in done.stdout
    found = json.loads(at(project, "report", "fan:2", "--json").stdout)["budget"]
    assert found["over"] is False
    assert [line["bound"] for line in found["lines"]] == ["layer", "device"]


def test_a_byte_too_much_is_status_3_and_one_line_with_the_numbers(
    project: ProjectDirectory,
) -> None:
    moved = transfer(project)
    budget(project, f'layer = "{moved["layers"] - 1} B"\ndevice = "1 MB"\nrollout = "1000 USD"')
    done = at(project, "report", "fan:2", "--check")
    assert done.exit_code == 3
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: fan:2 is over its budget: layers a device fetches: ")
    assert f": {moved['layers']} B, and [budget] layer allows {moved['layers'] - 1} B" in error
    assert hint.startswith("hint: ")
    assert "Budget: over in 1 of 3" in done.stdout, "the report is there all the same"


def test_without_check_the_report_says_it_and_ends_well(project: ProjectDirectory) -> None:
    budget(project, 'device = "1 B"')
    done = at(project, "report", "fan:2", "--markdown")
    assert done.exit_code == 0
    assert "### Budget: over in 1 of 1" in done.stdout
    assert json.loads(at(project, "report", "--json").stdout)["budget"]["over"] is True


@pytest.mark.parametrize(
    ("rollout", "tariff", "found"),
    [
        ("0.01 USD", "per-mb", "USD"),
        ("1000 EUR", "per-mb", "another currency"),
        ("1000 USD", "origin-bundle", ""),
    ],
)
def test_money_of_the_fleet(
    project: ProjectDirectory, rollout: str, tariff: str, found: str
) -> None:
    budget(project, f'rollout = "{rollout}"')
    done = at(project, "report", "fan:2", "--check", "--tariff", tariff, "--devices", "25000")
    assert done.exit_code == (3 if found else 0), done.output
    assert found in done.stderr
    assert "rollout to 25,000 devices" in (done.stderr or "rollout to 25,000 devices")


def test_money_that_is_not_known_is_over(project: ProjectDirectory) -> None:
    # Beyond the pool the tariff states no price: what is not known is not nothing.
    text = (TARIFFS / "origin-bundle.toml").read_text(encoding="utf-8")
    small = re.sub(r"(?m)^pool_bytes = .*$", "pool_bytes = 1000", text)
    (project.root / "small.toml").write_text(small)
    budget(project, 'rollout = "1000000 USD"')
    done = at(project, "report", "fan:2", "--check", "--tariff", "small.toml")
    assert done.exit_code == 3
    assert "a price the tariff does not state" in done.stderr


def test_a_check_without_a_budget_is_refused(project: ProjectDirectory) -> None:
    for command in (["report", "fan:2"], ["build", "fan:3"]):
        done = at(project, *command, "--check")
        assert done.exit_code == 1
        assert "mlpack.toml has no [budget]" in done.stderr


def test_build_checks_what_it_made_and_pushes_nothing_over(project: ProjectDirectory) -> None:
    budget(project, 'device = "1 B"')
    done = at(project, "build", "fan:3", "--check")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "error: fan:3 is over its budget: bytes per device" in done.stderr
    # Nothing listens there: an attempt to push would be another error, with status 1.
    done = at(project, "build", "fan:3", "--check", "--to", "localhost:1/edge/fan")
    assert done.exit_code == 3
    budget(project, 'device = "1 MB"')
    done = at(project, "build", "fan:3", "--check")
    assert done.exit_code == 0
    assert done.stdout.startswith("registry.example.com/edge/fan@sha256:")
