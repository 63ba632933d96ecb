"""``mlpack render --target compose``: a release's manifest as a Compose file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mlpack.project.directory import ProjectDirectory
from tests.cli.test_render import release
from tests.support import make_project, run


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "fan")
    release(made)
    return made


def test_it_is_the_manifest_as_services(project: ProjectDirectory) -> None:
    render = ("-C", str(project.root), "render", "fan")
    manifest = json.loads(run(*render).stdout)
    agent = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]
    done = run(*render, "--target", "compose")
    assert done.exit_code == 0, done.output
    found = yaml.safe_load(done.stdout)
    assert list(found["services"]) == ["fan"]
    fan = found["services"]["fan"]
    assert fan["image"] == agent["modules"]["fan"]["settings"]["image"]
    assert fan["read_only"] is True
    assert fan["cap_drop"] == ["ALL"]
    assert "edgeHub is not started" in done.stderr
    assert run(*render, "--target", "compose").stdout == done.stdout

    written = run(*render, "--target", "compose", "-o", "compose.yaml", "--json")
    assert (project.root / "compose.yaml").read_text() == done.stdout
    document = json.loads(written.stdout)
    assert document["compose"] == done.stdout
    assert "edgeAgent is not started: it needs an IoT Edge device" in document["skipped"]


def test_any_form_of_manifest_is_taken(project: ProjectDirectory) -> None:
    render = ("-C", str(project.root), "render", "fan")
    assert run(*render, "-o", "deployment.json").exit_code == 0
    whole = run(*render, "--target", "compose").stdout
    assert run(*render, "--patch", "deployment.json", "--target", "compose").stdout == whole
    assert run(*render, "--layered", "--target", "compose").stdout == whole


def test_a_base_deployment_has_no_services(project: ProjectDirectory) -> None:
    done = run("-C", str(project.root), "render", "--base", "--target", "compose")
    assert done.exit_code == 1
    assert "the deployment has no modules except IoT Edge's own" in done.stderr
