"""``mlpack render --target aci``: held to the models of the service's own SDK."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.mgmt.containerinstance.models import ContainerGroup

from mlpack.project.directory import ProjectDirectory
from tests.support import make_project, run, tiny_onnx

IDENTITY = (
    "/subscriptions/0/resourceGroups/edge/providers/Microsoft.ManagedIdentity"
    "/userAssignedIdentities/pull"
)
LOGIN = """
[edge.registries.acr]
address = "registry.example.com"
username = "vans-pull"
password = "${ACR_PASSWORD}"
"""


def made(folder: Path, settings: str = "") -> ProjectDirectory:
    project = make_project(folder, settings=settings)
    model = tiny_onnx(folder / "m.onnx")
    assert run("-C", str(project.root), "register", str(model)).exit_code == 0
    assert run("-C", str(project.root), "build", "fan").exit_code == 0
    return project


def rendered(project: ProjectDirectory, *args: str) -> Any:  # noqa: ANN401  # a YAML document
    done = run("-C", str(project.root), "render", "fan", "--target", "aci", *args)
    assert done.exit_code == 0, done.output
    return yaml.safe_load(done.stdout)


def test_the_service_knows_every_member(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    settings = f"""
[module]
memory = "2 GB"
cpus = 2
env = {{ MLPACK_LOG = "debug" }}
[aci]
location = "westeurope"
dns_label = "ferplus-test"
identity = "{IDENTITY}"
"""
    project = made(tmp_path / "fan", settings)
    document = rendered(project)
    written = yaml.safe_dump(document, sort_keys=False)
    golden("aci/group.yaml", re.sub("sha256:[0-9a-f]{64}", "sha256:…", written))
    # The command line hands on these two and reads the rest as the SDK does.
    assert document.pop("apiVersion") == "2023-05-01"
    known = ContainerGroup.deserialize(document).serialize(keep_readonly=True)
    assert without_nothing(known) == without_nothing(document), "nothing is lost on the way"


def without_nothing(value: Any) -> Any:  # noqa: ANN401
    """What the SDK adds for members that only the service writes is no content."""
    if isinstance(value, dict):
        return {key: without_nothing(each) for key, each in value.items() if each is not None}
    return [without_nothing(each) for each in value] if isinstance(value, list) else value


def test_a_group_is_small_public_and_pinned_where_nothing_is_said(tmp_path: Path) -> None:
    project = made(tmp_path / "fan")
    done = run("-C", str(project.root), "render", "fan", "--target", "aci")
    assert "warning: anyone can reach it" in done.stderr
    properties = yaml.safe_load(done.stdout)["properties"]
    [only] = properties["containers"]
    assert only["properties"]["resources"]["requests"] == {"cpu": 1.0, "memoryInGB": 1.5}
    digest = project.layout.resolve("fan-1").digest
    assert only["properties"]["image"] == f"registry.example.com/edge/fan@{digest}"
    assert properties["ipAddress"]["type"] == "Public"
    assert "imageRegistryCredentials" not in properties


def test_a_subnet_makes_it_private(tmp_path: Path) -> None:
    project = made(tmp_path / "fan", '[aci]\nsubnet = "/subscriptions/0/x/subnets/y"\n')
    properties = rendered(project)["properties"]
    assert properties["subnetIds"] == [{"id": "/subscriptions/0/x/subnets/y"}]
    assert properties["ipAddress"]["type"] == "Private"


def test_a_password_is_a_variable_until_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = made(tmp_path / "fan", LOGIN)
    [login] = rendered(project)["properties"]["imageRegistryCredentials"]
    assert login == {
        "server": "registry.example.com",
        "username": "vans-pull",
        "password": "${ACR_PASSWORD}",
    }
    asked = ("-C", str(project.root), "render", "fan", "--target", "aci", "--with-secrets")
    monkeypatch.delenv("ACR_PASSWORD", raising=False)
    assert "ACR_PASSWORD is not set" in run(*asked, "-o", "aci.yaml").stderr
    monkeypatch.setenv("ACR_PASSWORD", "hunter22")
    assert "prints nothing" in run(*asked).stderr
    done = run(*asked, "-o", "aci.yaml", "--json")
    assert done.exit_code == 0, done.output
    assert "hunter22" not in done.output
    path = project.root / "aci.yaml"
    assert "password: hunter22" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[module]\ngpu = 1\n", "has no GPUs"),
        ("[module]\nport = 80\n", "maps no ports"),
        ('[module]\nenv = { API_KEY = "abcdefgh12345" }\n', "API_KEY: holds a secret"),
        ('[aci]\nidentity = "pull"\n', "aci.identity: is not the resource id"),
        ('[aci]\nsubnet = "/s"\ndns_label = "x"\n', "a subnet has none"),
    ],
)
def test_what_the_service_would_refuse_is_refused(
    tmp_path: Path, settings: str, message: str
) -> None:
    project = make_project(tmp_path / "fan", settings=settings)
    run("-C", str(project.root), "register", str(tiny_onnx(tmp_path / "m.onnx")))
    run("-C", str(project.root), "build", "fan")
    done = run("-C", str(project.root), "render", "fan", "--target", "aci")
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stdout == ""


def test_a_release_for_other_machines_is_refused(tmp_path: Path) -> None:
    project = made(tmp_path / "fan")
    done = run(
        "-C", str(project.root), "render", "fan", "--target", "aci", "--platform", "linux/arm64"
    )
    assert done.exit_code == 1
    assert "is not built for linux/amd64" in done.stderr
    for option in ("--apply", "--image-volume=registry.example.com/edge/base"):
        done = run("-C", str(project.root), "render", "fan", "--target", "aci", option)
        assert "is for --target kubernetes" in done.stderr
