"""Models between a project and Azure ML, through azure-ai-ml against a double of its REST API."""

from __future__ import annotations

import json
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from mlpack.azure.workspace_file import read_workspace_file
from mlpack.json_document import document
from mlpack.project.directory import ModelStore, ProjectDirectory
from tests.doubles import aml
from tests.doubles.authority import served
from tests.e2e.wire import Certificate
from tests.registry.registry import running
from tests.support import make_project, run, tiny_onnx


@pytest.fixture
def azure(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[aml.AzureML]:
    """A workspace and a registry, and this process signed in."""
    double = aml.AzureML()
    found = socket.getaddrinfo

    def local(host: object, *args: object, **kwargs: object) -> object:
        here = isinstance(host, str) and host.endswith(".localhost")
        return found("127.0.0.1" if here else host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", local)
    with served(double.answer, certificate) as url:
        double.url = url
        for name, value in double.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.ca))
        # The SDK sets it: what is set first is put back.
        monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
        for name in (
            "AZUREML_CURRENT_CLOUD",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_TENANT_ID",
        ):
            monkeypatch.delenv(name, raising=False)
        yield double
    assert double.faults == []


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "fan")
    tiny_onnx(made.root / "fan.onnx")
    return made


def register(project: ProjectDirectory, *args: str) -> Result:
    return run("-C", str(project.root), "register", *args)


def version(project: ProjectDirectory, name: str) -> dict[str, object]:
    model, _, number = name.partition(":")
    return document(ModelStore(project.layout).get(model, number))


def kept(azure: aml.AzureML, name: str, number: str) -> tuple[dict[str, str], dict[str, str]]:
    """Tags and properties of a version in the workspace."""
    found = azure.models[name, number]
    tags, properties = found["tags"], found["properties"]
    assert isinstance(tags, dict)
    assert isinstance(properties, dict)
    return tags, properties


def test_a_model_is_registered_here_and_there(
    project: ProjectDirectory, azure: aml.AzureML
) -> None:
    args = ["fan.onnx", "--metric", "accuracy=0.98", "--tag", "stage=lab"]
    done = register(project, *args, "--workspace", azure.workspace)
    assert done.exit_code == 0, done.output
    assert done.stdout == "fan:1\n"
    tags, properties = kept(azure, "fan", "1")
    assert tags == {"stage": "lab"}
    assert properties["mlpack.metric.accuracy"] == "0.98"
    assert (
        properties["mlpack.model"]
        == json.loads(run("-C", str(project.root), "--json", "show", "fan:1").stdout)["digest"]
    )
    [content] = azure.container.blobs.values()
    assert content == (project.root / "fan.onnx").read_bytes()
    [meta] = azure.container.metadata.values()
    assert meta["upload_status"] == "completed"
    here = version(project, "fan:1")["tags"]
    uri = f"resourceGroups/{aml.GROUP}/workspaces/{aml.WORKSPACE}/models/fan/versions/1"
    assert isinstance(here, dict)
    assert here["azureml"].endswith(uri)


def test_registering_again_sends_no_file(project: ProjectDirectory, azure: aml.AzureML) -> None:
    for _ in range(2):
        azure.requests.clear()
        assert register(project, "fan.onnx", "--workspace", azure.workspace).stdout == "fan:1\n"
    assert not any(each.startswith("PUT blob") for each in azure.requests)
    assert list(azure.models) == [("fan", "1")]


def test_a_directory_and_an_estimators_onnx_go_there_and_no_pickle(
    project: ProjectDirectory, azure: aml.AzureML
) -> None:
    (project.root / "detector").mkdir()
    tiny_onnx(project.root / "detector" / "model.onnx")
    (project.root / "detector" / "labels.txt").write_text("one\ntwo\n")
    done = register(project, "detector", "--name", "detector", "--workspace", azure.workspace)
    assert done.exit_code == 0, done.output
    names = sorted(each.partition("/")[2].partition("/")[2] for each in azure.container.blobs)
    assert names == ["detector/labels.txt", "detector/model.onnx"]
    there = make_project(project.root.parent / "other", name="detector")
    done = register(there, "azureml:detector:1", "--workspace", azure.workspace)
    assert done.exit_code == 0, done.output
    assert version(there, "detector:1")["files"] == version(project, "detector:1")["files"]


def test_two_machines_and_one_workspace_agree_on_versions(
    project: ProjectDirectory, azure: aml.AzureML, tmp_path: Path
) -> None:
    register(project, "fan.onnx", "--workspace", azure.workspace)
    other = make_project(tmp_path / "other")
    tiny_onnx(other.root / "fan.onnx", bias=2)
    # 1 is taken there; the same file has its version everywhere.
    assert register(other, "fan.onnx", "--workspace", azure.workspace).stdout == "fan:2\n"
    first = str(project.root / "fan.onnx")
    assert register(other, first, "--workspace", azure.workspace).stdout == "fan:1\n"


def test_a_version_there_with_other_files_is_never_replaced(
    project: ProjectDirectory, azure: aml.AzureML, tmp_path: Path
) -> None:
    register(project, "fan.onnx", "--workspace", azure.workspace)
    before = dict(azure.models)
    other = make_project(tmp_path / "other")
    tiny_onnx(other.root / "fan.onnx", bias=2)
    register(other, "fan.onnx")
    done = register(other, "fan.onnx", "--workspace", azure.workspace)
    assert done.exit_code == 1
    assert "the workspace already has fan:1, with different files" in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert azure.models == before


def test_an_upload_that_fails_leaves_no_version_and_is_taken_up(
    project: ProjectDirectory, azure: aml.AzureML
) -> None:
    azure.container.full = True
    done = register(project, "fan.onnx", "--workspace", azure.workspace)
    assert done.exit_code == 1
    assert "AuthorizationPermissionMismatch" in done.stderr
    assert not any(each in done.output for each in azure.container.issued)
    assert azure.models == {}
    azure.container.full = False
    assert register(project, "fan.onnx", "--workspace", azure.workspace).stdout == "fan:1\n"
    assert list(azure.models) == [("fan", "1")]


def test_a_model_comes_from_the_workspace_with_all_that_is_said_of_it(
    project: ProjectDirectory, azure: aml.AzureML, tmp_path: Path
) -> None:
    args = ["--metric", "accuracy=0.98", "--tag", "stage=lab", "--source-commit", "abc"]
    register(project, "fan.onnx", *args, "--workspace", azure.workspace)
    tags, _ = kept(azure, "fan", "1")
    tags |= {"note": "x" * 300, "mlpack.release": "somewhere"}
    other = make_project(tmp_path / "other")
    done = register(other, "azureml:fan:1", "--workspace", azure.workspace)
    assert done.exit_code == 0, done.output
    assert done.stdout == "fan:1\n"
    assert "left out tags that are too long or not text: 'note'" in done.stderr
    mine, theirs = version(other, "fan:1"), version(project, "fan:1")
    for same in ("files", "metrics", "tags", "source_commit", "signature"):
        assert mine[same] == theirs[same]
    # Once more changes nothing.
    before = version(other, "fan:1")
    assert register(other, "azureml:fan:1", "--workspace", azure.workspace).exit_code == 0
    assert version(other, "fan:1") == before


def config_json(path: Path, place: str) -> None:
    names = ("subscription_id", "resource_group", "workspace_name")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(zip(names, place.split("/"), strict=True))))


def test_the_workspace_of_config_json_is_the_default(
    project: ProjectDirectory, azure: aml.AzureML, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_json(project.root / "config.json", "wrong/ml/lab")
    config_json(project.root.parent / ".azureml" / "config.json", azure.workspace)
    done = register(project, "fan.onnx", "--workspace", ".")
    assert done.exit_code == 0, done.output
    assert list(azure.models) == [("fan", "1")]
    # Without --workspace nothing is sent.
    assert register(project, "fan.onnx", "--name", "other").exit_code == 0
    assert list(azure.models) == [("fan", "1")]
    assert register(project, "azureml:fan:1").stdout == "fan:1\n"
    # Options and variables come first.
    assert register(project, "azureml:fan:1", "--workspace", "config.json").exit_code == 1
    monkeypatch.setenv("MLPACK_WORKSPACE", "wrong/ml/lab")
    assert register(project, "azureml:fan:1").exit_code == 1


def test_config_json_of_the_first_sdk_has_a_scope(project: ProjectDirectory) -> None:
    path = project.root / "config.json"
    scope = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices"
    path.write_text(json.dumps({"Id": None, "Scope": f"{scope}/workspaces/w"}))
    assert read_workspace_file(path) == "s/g/w"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"subscription_id": "s", "resource_group": "g"}', "no valid workspace_name"),
        (
            '{"subscription_id": "s/t", "resource_group": "g", "workspace_name": "w"}',
            "subscription",
        ),
        ('{"subscription_id": 1, "resource_group": "g", "workspace_name": "w"}', "subscription_id"),
    ],
)
def test_a_bad_config_json_is_one_line(project: ProjectDirectory, content: str, said: str) -> None:
    (project.root / "config.json").write_text(content)
    done = register(project, "azureml:fan:1")
    assert done.exit_code == 1
    assert said in done.stderr
    assert str(project.root / "config.json") in done.stderr.replace("\n", "")
    assert "--workspace" in done.stderr


def test_a_model_comes_from_a_registry(project: ProjectDirectory, azure: aml.AzureML) -> None:
    content = (project.root / "fan.onnx").read_bytes()
    azure.share("Fan", "7", {"model.onnx": content, "labels.txt": b"one", "notes/a.md": b"a"})
    address = f"azureml://registries/{aml.REGISTRY}/models/Fan/versions/7"
    done = register(project, address, "--name", "fan")
    assert done.exit_code == 0, done.output
    assert done.stdout == "fan:7\n"
    found = version(project, "fan:7")
    assert found["tags"] == {"azureml": address}
    assert isinstance(found["files"], list)
    paths = [each["path"] for each in found["files"]]
    assert paths == ["labels.txt", "model.onnx", "notes/a.md"]


def test_files_that_changed_in_the_storage_are_refused(
    project: ProjectDirectory, azure: aml.AzureML, tmp_path: Path
) -> None:
    register(project, "fan.onnx", "--workspace", azure.workspace)
    [blob] = azure.container.blobs
    azure.container.blobs[blob] = tiny_onnx(tmp_path / "evil.onnx", bias=9).read_bytes()
    other = make_project(tmp_path / "other")
    done = register(other, "azureml:fan:1", "--workspace", azure.workspace)
    assert done.exit_code == 1
    assert "not those that were registered" in done.stderr
    assert ModelStore(other.layout).names() == ()


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/mlpack-was-harmed"),))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["model.pkl", "model"])
def test_no_pickle_of_azure_is_loaded(
    project: ProjectDirectory, azure: aml.AzureML, name: str
) -> None:
    azure.share("fan", "1", {name: pickle.dumps(Harm())})
    address = f"azureml://registries/{aml.REGISTRY}/models/fan/versions/1"
    # A directory's files are kept as they are, with a word on those that look like one.
    assert ("pickle" in register(project, address).stderr) == name.endswith(".pkl")
    assert register(project, address, "--trust-pickle").exit_code == 2
    assert not Path("/tmp/mlpack-was-harmed").exists()


def test_refusals_are_one_line(
    project: ProjectDirectory, azure: aml.AzureML, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = register(project, "azureml:fan:9", "--workspace", azure.workspace)
    assert "Not found: fan:9" in done.stderr
    place = f"{aml.SUBSCRIPTION}/{aml.GROUP}/another"
    done = register(project, "azureml:fan:1", "--workspace", place)
    assert "The workspace was not found" in done.stderr
    azure.denied.add("/models/fan/versions")
    done = register(project, "fan.onnx", "--workspace", azure.workspace)
    assert "ask for the role" in done.stderr
    monkeypatch.setenv("IDENTITY_HEADER", "wrong-header")
    done = register(project, "fan.onnx", "--workspace", azure.workspace)
    assert done.exit_code == 1
    assert "log in with: az login" in done.stderr
    assert "wrong-header" not in done.output
    assert len(done.stderr.splitlines()) == 2


def test_a_workspace_that_gives_no_keys_is_written_to_by_role(
    project: ProjectDirectory, azure: aml.AzureML
) -> None:
    azure.denied.add("/listSecrets")
    done = register(project, "fan.onnx", "--workspace", azure.workspace)
    assert done.exit_code == 1
    assert "You don't have permission to alter this storage account" in done.stderr
    assert azure.models == {}
    azure.by_role = True
    assert register(project, "fan.onnx", "--workspace", azure.workspace).exit_code == 0
    assert azure.container.issued == []


def test_a_busy_azure_is_asked_again(project: ProjectDirectory, azure: aml.AzureML) -> None:
    azure.throttled.append(1)
    assert register(project, "fan.onnx", "--workspace", azure.workspace).exit_code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["azureml:fan"], "azureml:NAME:VERSION"),
        (["azureml:fan:1"], "--workspace"),
        (["azureml:fan:1", "--workspace", "a/b"], "SUBSCRIPTION/GROUP/WORKSPACE"),
        (["fan.onnx", "--workspace", "a"], "SUBSCRIPTION/GROUP/WORKSPACE"),
        (["azureml:../x:1", "--workspace", "a/b/c"], "azureml:NAME:VERSION"),
    ],
)
def test_wrong_usage(project: ProjectDirectory, args: list[str], said: str) -> None:
    done = register(project, *args)
    assert done.exit_code == 2
    assert said in done.stderr


def test_push_says_in_the_workspace_what_was_released(
    project: ProjectDirectory, azure: aml.AzureML, tmp_path: Path
) -> None:
    text = (project.root / "mlpack.toml").read_text()
    with running(tmp_path / "registry") as registry:
        (project.root / "mlpack.toml").write_text(
            text.replace("registry.example.com", registry.host)
        )
        at = ["-C", str(project.root)]
        register(project, "fan.onnx", "--tag", "stage=lab", "--workspace", azure.workspace)
        assert run(*at, "build", "fan").exit_code == 0
        done = run(*at, "push", "fan", "--workspace", azure.workspace)
        assert done.exit_code == 0, done.output
        tags, _ = kept(azure, "fan", "1")
        assert tags["mlpack.release"] == done.stdout.strip()
        assert tags["mlpack.base"].startswith("sha256:")
        assert int(tags["mlpack.layerBytes"]) > 0
        assert tags["stage"] == "lab"
        # Registering again keeps what was released; pushing again sends no tag.
        register(project, "fan.onnx", "--tag", "stage=field", "--workspace", azure.workspace)
        assert kept(azure, "fan", "1")[0] == {**tags, "stage": "field"}
        azure.requests.clear()
        assert run(*at, "push", "fan", "--workspace", azure.workspace).exit_code == 0
        assert not any(each.startswith("PUT") for each in azure.requests)
        _, properties = kept(azure, "fan", "1")
        properties["mlpack.files"] = "sha256:" + "0" * 64
        done = run(*at, "push", "fan", "--workspace", azure.workspace)
        assert done.exit_code == 1
        assert "is not the model that was released" in done.stderr
