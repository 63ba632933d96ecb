"""The Dockerfile of a release: as written down, and quoted so that nothing else is read into it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlpack.builders.context import DockerRelease, InvalidDockerfile, render
from mlpack.project.directory import read_template

BASE = "registry.example.com/edge/fan@sha256:" + "0" * 64


def release(**changes: object) -> DockerRelease:
    values: dict[str, object] = {
        "name": "fan:1",
        "old": BASE,
        "folder": "var/azureml-app",
        "env": {"AZUREML_MODEL_DIR": "/var/azureml-app/azureml-models/fan/1"},
        "labels": {"io.mlpack.model": "fan", "io.mlpack.version": "1"},
    }
    return DockerRelease(**{**values, **changes})  # type: ignore[arg-type]


def test_it_is_as_written_down(golden: Callable[[str, str], None]) -> None:
    golden("Dockerfile", render(release(), read_template("dockerfile/release.j2")))


def test_files_may_come_from_another_image() -> None:
    text = render(release(new="built:by-others"), read_template("dockerfile/release.j2"))
    assert "FROM built:by-others AS model" in text
    assert text.count("COPY") == 1 + 1  # the instruction, and the comment above it


def test_values_are_quoted() -> None:
    env = {"A": 'say "$HOME"\nRUN rm -rf /'}
    text = render(release(env=env), read_template("dockerfile/release.j2"))
    assert r'ENV A="say \"\$HOME\"\nRUN rm -rf /"' in text
    assert "\nRUN" not in text


def test_a_template_at_fault_is_said() -> None:
    with pytest.raises(InvalidDockerfile, match="has no attribute 'missing'"):
        render(release(), "FROM {{ release.missing }}")
