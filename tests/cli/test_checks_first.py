"""What is wrong with a request is found before anything is built, read or asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import releases
from tests.support import make_project, run, tiny_onnx

NOWHERE = "127.0.0.1:9/edge/fan"
"""A registry that nobody answers for: a request to it would be the error instead."""

GROUP = """
[deploy]
hub = "nobody.invalid"

[deploy.groups.vans]
target = "tags.deviceGroup = 'vans'"
"""


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with a model, and no release."""
    made = make_project(tmp_path / "fan", settings=GROUP)
    done = run("-C", str(made.root), "register", str(tiny_onnx(tmp_path / "fan.onnx")))
    assert done.exit_code == 0, done.stderr
    return made


def refused(project: ProjectDirectory, *args: str, said: str, status: int = 2) -> None:
    """Run a command that must be refused, and leave the store, the lock and the ledger alone."""
    before = state(project)
    done = run("-C", str(project.root), *args)
    assert (done.exit_code, said in done.stderr) == (status, True), done.stderr
    assert "hint: " in done.stderr
    assert state(project) == before
    assert releases(project.layout, "fan") == {}


def state(project: ProjectDirectory) -> dict[str, bytes]:
    files = (each for each in project.root.rglob("*") if each.is_file())
    return {str(each.relative_to(project.root)): each.read_bytes() for each in files}


@pytest.mark.parametrize(
    ("args", "said", "status"),
    [
        (["--check"], "no [budget]", 1),
        (["--check", "--push"], "no [budget]", 1),
        (["--device-group", "trucks"], "trucks", 1),
        (["--fleet", "fleet.json"], "--fleet needs a group", 2),
        (["--to", "Not A Place"], "Not A Place", 2),
        (["--push", "--builder", "acr"], "ACR pushes", 2),
        (["--strategy", "patch", "--builder", "docker"], "--builder oci", 2),
        (["--base", "no such base"], "no such base", 2),
        (["--base", f"{NOWHERE}:1", "--device-group", "trucks"], "trucks", 1),
        (["--base", f"{NOWHERE}:1", "--check"], "no [budget]", 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_build_is_checked_before_it_begins(
    project: ProjectDirectory, args: list[str], said: str, status: int
) -> None:
    refused(project, "build", "fan", *args, said=said, status=status)


def test_a_push_needs_a_repository_before_it_builds(project: ProjectDirectory) -> None:
    recipe = project.root / "mlpack.toml"
    text = recipe.read_text()
    recipe.write_text(text[: text.index("[image]")] + text[text.index("[deploy]") :])
    refused(project, "build", "fan", "--push", said="no repository is configured", status=1)
    refused(
        project, "build", "fan", "--push", "--check", said="no repository is configured", status=1
    )
    refused(project, "push", "fan", said="no repository is configured", status=1)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["report", "--engine", "dokcer"], "dokcer"),
        (["report", "--tariff", "nothing"], "nothing"),
        (["diff", "none", "fan:1", "--engine", "dokcer"], "dokcer"),
        (["graft", f"{NOWHERE}:1", f"{NOWHERE}:2", "-o", "fan"], "VERSION"),
        (["graft", f"{NOWHERE}:1", f"{NOWHERE}:2", "-o", "fan:2", "--engine", "x"], "'x'"),
        (["graft", "none", f"{NOWHERE}:2", "-o", "fan:2"], "none"),
        (["bundle", f"{NOWHERE}:2", "--onto", "none", "-o", "b", "--engine", "x"], "'x'"),
        (["copy", f"{NOWHERE}:1", "fan:2"], "cannot copy to"),
        (["copy", f"{NOWHERE}:1", "docker-archive:x.tar"], "cannot copy to"),
        (["pull", f"{NOWHERE}:1", "--as", "Not A Name"], "Not A Name"),
        (["round", "fan:1", "--onto", "fan:9", "--check", "none.npz"], "--max-error"),
        (["azure", "token", "--group", "vans", "--registry", "nowhere"], "SUBSCRIPTION"),
        (["render", "fan", "--with-secrets"], "-o FILE"),
        (["registry", "serve", "--user", "edge"], "--password-file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_found_before_anything_is_asked(
    project: ProjectDirectory, args: list[str], said: str
) -> None:
    refused(project, *args, said=said)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["round", "fan:1", "--onto", "fan:9", "--check", "no.npz", "--dry-run"], "no.npz"),
        (["register", "absent.onnx"], "absent.onnx"),
        (["devices", "--device-group", "vans", "--fleet", "no.json"], "no.json"),
        (["patch", "inspect", "no.mlpd"], "no.mlpd"),
        (["bundle", "verify", "no.tar"], "no.tar"),
        (["score", "http://127.0.0.1:9", "no.jpg"], "no.jpg"),
        (["plan", "--device-group", "trucks"], "trucks"),
        (["devices", "--device-group", "trucks"], "trucks"),
        (["deploy", "--device-group", "trucks"], "trucks"),
        (["rollback", "--device-group", "trucks"], "trucks"),
        (["azure", "token", "--group", "trucks", "--registry", "0/edge/contoso"], "trucks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_missing_is_found_before_anything_is_asked(
    project: ProjectDirectory, args: list[str], said: str
) -> None:
    refused(project, *args, said=said, status=1)


def test_the_patch_of_a_bundle_is_not_written_without_its_engine(
    project: ProjectDirectory,
) -> None:
    refused(
        project,
        *("bundle", "fan:1", "--onto", "none", "-o", str(project.root / "b"), "--engine", "dokcer"),
        said="dokcer",
    )
    assert not (project.root / "b").exists()
