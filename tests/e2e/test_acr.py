"""Building through ACR Tasks: the real SDKs against a double that checks them and really builds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpack.azure.management import registry_account
from mlpack.builders.acr import AcrBuilder
from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.registry.repository import Registries
from mlpack.stores.store import read_image
from tests.azure import acr
from tests.e2e.engines import Docker, run
from tests.e2e.test_builders import SCRIPT, build, built, sizes
from tests.e2e.wire import DockerRegistry
from tests.support import AMD64, ARM64, make_project, tiny_onnx
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    with DockerRegistry.started(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, registry: DockerRegistry) -> ProjectDirectory:
    """A project whose repository is in a registry of our own, which has the base."""
    made = make_project(tmp_path / "fan")
    text = (made.root / "mlpack.toml").read_text()
    here = f"127.0.0.1:{registry.port}"
    (made.root / "mlpack.toml").write_text(text.replace("registry.example.com", here))
    model, script = tiny_onnx(tmp_path / "model.onnx"), tmp_path / "score.py"
    script.write_text(SCRIPT)
    args = ["register", str(model), "--name", "fan", "--scoring", str(script)]
    assert mlpack("-C", str(made.root), *args).exit_code == 0
    source, target = f"oci:{made.layout.root}:base", f"docker://{here}/edge/fan:base"
    run("skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", source, target)
    return ProjectDirectory(made.root)


@pytest.fixture
def azure(
    tmp_path: Path, registry: DockerRegistry, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[acr.Double]:
    """Azure as this process sees it."""
    double = acr.Double(f"127.0.0.1:{registry.port}", docker.address)
    with acr.started(double, tmp_path / "tls") as certificate:
        monkeypatch.setenv("MLPACK_AZURE_ENDPOINT", double.url)
        monkeypatch.setenv("MLPACK_ACR", double.registry)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.ca))
        # How a process on App Service gets its token, which azure.identity looks for.
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{double.url}/identity")
        monkeypatch.setenv("IDENTITY_HEADER", double.tokens.header)
        for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"):
            monkeypatch.delenv(name, raising=False)
        yield double


def test_acr_gives_the_file_system_that_mlpack_appends(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    build(project, "oci")
    appended = {platform: built(project, platform) for platform in (AMD64, ARM64)}
    done = mlpack("-C", str(project.root), "build", "fan", "--builder", "acr")
    assert done.exit_code == 0, (done.output, azure.faults)
    assert azure.faults == []
    assert "COPY --from=model" in done.stderr  # the run's log
    for platform, (ours, our_tree) in appended.items():
        theirs, their_tree = built(project, platform)
        assert dict(their_tree) == dict(our_tree)
        below = [each.digest for each in ours.image.layers[:-1]]
        assert [each.digest for each in theirs.image.layers[:-1]] == below
        assert (theirs.image.env, theirs.image.labels) == (ours.image.env, ours.image.labels)
        print(sizes("oci", ours), sizes("acr", theirs), sep="\n")  # noqa: T201
    assert [each["platform"] for each in azure.runs] == [
        {"os": "Linux", "architecture": architecture} for architecture in ("amd64", "arm64")
    ]
    assert [each["imageNames"] for each in azure.runs] == [
        ["edge/fan:fan-1-amd64"],
        ["edge/fan:fan-1-arm64"],
    ]
    assert azure.tokens.issued
    for secret in (acr.SECRET, azure.tokens.header, *azure.tokens.issued):
        assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize("builder", ["docker", "acr"])
def test_a_base_that_is_only_in_the_registry_is_built_upon(
    project: ProjectDirectory,
    azure: acr.Double,
    docker: Docker,
    monkeypatch: pytest.MonkeyPatch,
    builder: str,
) -> None:
    """The project's own repository lacks the base; only its documents come here."""
    build(project, "oci")
    _, appended = built(project, ARM64)
    base = project.layout.resolve("base")
    text = (project.root / "mlpack.toml").read_text()
    (project.root / "mlpack.toml").write_text(text.replace("edge/fan", "edge/other"))
    monkeypatch.setenv("DOCKER_HOST", docker.address)
    place = f"{azure.host}/edge/fan@{base.digest}"
    build(project, builder, "--base", place, "--platform", "linux/arm64")
    assert azure.faults == []
    assert dict(built(project, ARM64)[1]) == dict(appended)


def test_layers_that_a_run_packed_anew_are_refused(
    project: ProjectDirectory, azure: acr.Double, docker: Docker
) -> None:
    """An agent that got the base from elsewhere pushes it under digests of its own."""
    azure.used_agent = True
    run(*docker.command("image", "prune", "-af"))
    docker.load(f"oci:{project.layout.root}:base", "localhost/elsewhere:1")
    text = (project.root / "mlpack.toml").read_text()
    (project.root / "mlpack.toml").write_text(text.replace("edge/fan", "edge/other"))
    place = f"{azure.host}/edge/fan@{project.layout.resolve('base').digest}"
    only = ["--builder", "acr", "--platform", "linux/amd64", "--base", place]
    done = mlpack("-C", str(project.root), "build", "fan", *only)
    assert done.exit_code == 1
    assert "the base's layers again" in done.stderr
    assert "fan-1" not in project.layout.tags()


def test_a_run_that_fails_is_said_in_its_own_words(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    azure.fail_with = "failed to pull the base"
    done = mlpack("-C", str(project.root), "build", "fan", "--builder", "acr")
    assert done.exit_code == 1
    assert "ACR run ca1 ended as Failed: failed to pull the base" in done.stderr
    assert "fan-1" not in project.layout.tags()


def test_an_interrupted_build_ends_the_run(project: ProjectDirectory, azure: acr.Double) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    repository = project.settings.repository
    assert repository is not None
    [base, *_] = project.lock().base.platforms
    with Registries() as registries:
        where = registry_account(azure.registry, repository, azure.url)
        builder = AcrBuilder(where, repository, registries.store, interrupt, pause=0.05)
        model = ModelStore(project.layout).get("fan", "1")
        with pytest.raises(KeyboardInterrupt):
            builder.build(project.layout, model, [read_image(project.layout, base.manifest)])
    assert azure.cancelled
    assert azure.faults == []


def test_azure_saying_no_is_passed_on_without_secrets(
    project: ProjectDirectory, azure: acr.Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPACK_ACR", f"{acr.SUBSCRIPTION}/other/contoso")
    done = mlpack("-C", str(project.root), "build", "fan", "--builder", "acr")
    assert done.exit_code == 1
    assert "error: Azure: (ResourceNotFound)" in done.stderr
    monkeypatch.setenv("IDENTITY_HEADER", "another-secret-header")
    done = mlpack("-C", str(project.root), "build", "fan", "--builder", "acr")
    assert done.exit_code == 1
    assert "az login" in done.stderr
    assert "another-secret-header" not in done.output


def test_a_registry_without_the_base_builds_nothing(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    text = (project.root / "mlpack.toml").read_text()
    (project.root / "mlpack.toml").write_text(text.replace("edge/fan", "edge/other"))
    done = mlpack("-C", str(project.root), "build", "fan", "--builder", "acr")
    assert done.exit_code == 1
    assert "mlpack push base" in done.stderr
    assert azure.requests == []


def test_a_place_that_is_none_is_wrong_usage(project: ProjectDirectory) -> None:
    for place, said in (("a", "SUBSCRIPTION/GROUP"), ("a/b", "not an Azure container registry")):
        done = mlpack("-C", str(project.root), "build", "fan", "--builder", "acr", "--acr", place)
        assert done.exit_code == 2
        assert said in done.stderr
