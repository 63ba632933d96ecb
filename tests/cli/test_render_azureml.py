"""``mlpack render --target azureml``: held to azure-ai-ml's own entities, which ``az ml`` loads."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlpack.project.directory import ProjectDirectory
from tests.support import make_project, run, tiny_onnx

with warnings.catch_warnings():  # of its own dependencies, as it is imported
    warnings.simplefilter("ignore")
    from azure.ai.ml import load_online_deployment, load_online_endpoint
    from azure.ai.ml.entities import (
        KubernetesOnlineDeployment,
        KubernetesOnlineEndpoint,
        ManagedOnlineDeployment,
        ManagedOnlineEndpoint,
    )

# Of azure-ai-ml's own use of marshmallow.
pytestmark = pytest.mark.filterwarnings(
    "ignore::marshmallow.warnings.ChangedInMarshmallow4Warning",
    "ignore::marshmallow.warnings.RemovedInMarshmallow4Warning",
)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "azureml-endpoint.md"
ON_A_CLUSTER = '[azureml]\ncompute = "edge-aks"\n'
TYPES = """
[azureml.instance_types.cpu]
cpus = 2
memory = "4 GiB"
nodes = { agentpool = "cpu" }
[azureml.instance_types.gpu]
cpus = 4
memory = "16 GiB"
gpus = 1
nodes = { agentpool = "gpu" }
"""


def made(folder: Path, settings: str = "", version: str = "") -> ProjectDirectory:
    project = make_project(folder, settings=settings)
    model = tiny_onnx(folder / "m.onnx")
    named = ("--version", version) if version else ()
    assert run("-C", str(project.root), "register", str(model), *named).exit_code == 0
    assert run("-C", str(project.root), "build", "fan").exit_code == 0
    return project


def rendered(project: ProjectDirectory, *args: str) -> dict[str, Any]:
    """The documents by the names of their files, as ``az ml`` and ``kubectl`` read them."""
    done = run("-C", str(project.root), "render", "fan", "--target", "azureml", "-o", "aml", *args)
    assert done.exit_code == 0, done.output
    found = {
        path.name: list(yaml.safe_load_all(path.read_text()))
        for path in (project.root / "aml").iterdir()
    }
    printed = run("-C", str(project.root), "render", "fan", "--target", "azureml", *args)
    every = ("endpoint.yaml", "deployment.yaml", "instance-types.yaml")
    files = [each for name in every for each in found.get(name, [])]
    assert list(yaml.safe_load_all(printed.stdout)) == files, "printed as it is written"
    return {
        name: each if name == "instance-types.yaml" else each[0] for name, each in found.items()
    }


def lost(written: Any, kept: Any, at: str = "") -> list[str]:  # noqa: ANN401  # YAML documents
    """What azure-ai-ml read and did not keep."""
    if not isinstance(written, dict):
        return [] if written == kept else [f"{at}: {written!r} became {kept!r}"]
    below = kept if isinstance(kept, dict) else {}
    return [
        each
        for key, value in written.items()
        for each in lost(value, below.get(key), f"{at}.{key}")
    ]


def through_azure(project: ProjectDirectory) -> tuple[Any, Any]:
    """The entities that ``az ml`` makes of the files; each member is kept, and sent."""
    folder = project.root / "aml"
    endpoint: Any = load_online_endpoint(folder / "endpoint.yaml")
    deployment: Any = load_online_deployment(folder / "deployment.yaml")
    for entity, name in ((endpoint, "endpoint.yaml"), (deployment, "deployment.yaml")):
        written = yaml.safe_load((folder / name).read_text())
        del written["$schema"]
        if "resources" in written:  # the schema's other name of it
            limits = written["resources"]["limits"]
            limits |= {"gpu": gpus} if (gpus := limits.pop("nvidia.com/gpu", None)) else {}
        assert lost(written, json.loads(json.dumps(entity._to_dict()))) == []
    # What is sent; both check the names as they make it.
    endpoint._to_rest_online_endpoint("westeurope")
    environment, deployment.environment = deployment.environment, "azureml:fan:1"
    deployment._to_rest_object("westeurope")
    deployment.environment = environment
    return endpoint, deployment


def test_a_cluster_gets_an_endpoint_a_deployment_and_instance_types(
    tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    settings = f"""
[module]
memory = "2 GiB"
cpus = 1.5
env = {{ MLPACK_LOG = "debug", MLPACK_TIMEOUT = "120" }}
{ON_A_CLUSTER}
instance_type = "cpu"
instances = 3
{TYPES}
"""
    project = made(tmp_path / "fan", settings)
    documents = rendered(project)
    assert set(documents) == {"endpoint.yaml", "deployment.yaml", "instance-types.yaml"}
    endpoint, deployment = through_azure(project)
    assert isinstance(endpoint, KubernetesOnlineEndpoint)
    assert endpoint.compute == "edge-aks"
    assert isinstance(deployment, KubernetesOnlineDeployment)
    requests: Any = deployment.request_settings
    environment: Any = deployment.environment
    assert requests.request_timeout_ms == 121_000
    routes = environment.inference_config
    assert (routes.scoring_route.port, routes.scoring_route.path) == (5001, "/score")
    digest = project.layout.resolve("fan-1").digest
    assert environment.image == f"registry.example.com/edge/fan@{digest}"
    text = run("-C", str(project.root), "render", "fan", "--target", "azureml").stdout
    golden("azureml/cluster.yaml", re.sub("sha256:[0-9a-f]{64}", "sha256:…", text))


def test_a_release_for_gpus_runs_on_instances_that_have_some(tmp_path: Path) -> None:
    settings = f"""
[module]
gpu = true
memory = "8 GiB"
cpus = 2
{ON_A_CLUSTER}
instance_type = "gpu"
{TYPES}
"""
    project = made(tmp_path / "fan", settings)
    documents = rendered(project)
    _, deployment = through_azure(project)
    assert deployment.resources.limits.gpu == "1"
    assert deployment.resources.requests.gpu is None
    assert deployment.environment_variables == {"MLPACK_PROVIDERS": "cuda,cpu"}
    cpu, gpu = documents["instance-types.yaml"]
    assert "nvidia.com/gpu" not in cpu["spec"]["resources"]["limits"]
    assert gpu == {
        "apiVersion": "amlarc.azureml.com/v1alpha1",
        "kind": "InstanceType",
        "metadata": {"name": "gpu"},
        "spec": {
            "nodeSelector": {"agentpool": "gpu"},
            "resources": {
                "limits": {"cpu": "4000m", "memory": "16384Mi", "nvidia.com/gpu": 1},
                "requests": {"cpu": "4000m", "memory": "16384Mi"},
            },
        },
    }


def test_a_managed_endpoint_has_no_compute(tmp_path: Path) -> None:
    settings = '[module]\ncpus = 1\n[azureml]\ninstance_type = "Standard_DS3_v2"\n'
    project = made(tmp_path / "fan", settings, version="1.2.0")
    documents = rendered(project)
    endpoint, deployment = through_azure(project)
    assert isinstance(endpoint, ManagedOnlineEndpoint)
    assert isinstance(deployment, ManagedOnlineDeployment)
    assert (deployment.name, deployment.endpoint_name) == ("release-1-2-0", "fan")
    assert "resources" not in documents["deployment.yaml"]
    assert set(documents) == {"endpoint.yaml", "deployment.yaml"}
    done = run("-C", str(project.root), "render", "fan", "--target", "azureml")
    assert "warning: [module] memory and cpus mean nothing" in done.stderr


def test_the_instance_type_decides_what_nothing_is_said_of(tmp_path: Path) -> None:
    project = made(tmp_path / "fan", ON_A_CLUSTER)
    document = rendered(project)["deployment.yaml"]
    through_azure(project)
    assert not {"resources", "instance_type", "environment_variables"} & set(document)
    assert document["scale_settings"] == {"type": "default"}, "else the count counts for nothing"
    assert document["request_settings"] == {"request_timeout_ms": 61_000}


def test_a_directory_keeps_its_other_files_and_may_not_be_a_file(tmp_path: Path) -> None:
    project = made(tmp_path / "fan", ON_A_CLUSTER)
    folder = project.root / "aml"
    folder.mkdir()
    (folder / "README").write_text("mine")
    rendered_once = ("-C", str(project.root), "render", "fan", "--target", "azureml")
    done = run(*rendered_once, "-o", "aml", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["path"], document["files"]) == ("aml", ["endpoint.yaml", "deployment.yaml"])
    assert [each["name"] for each in document["manifests"]] == ["fan", "release-1"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "README",
        "deployment.yaml",
        "endpoint.yaml",
    ]
    before = (project.root / "mlpack.toml").read_text()
    for taken in ("mlpack.toml", "aml/README"):
        refused = run(*rendered_once, "-o", taken)
        assert refused.exit_code != 0
        assert "is not a directory" in refused.stderr
    assert (project.root / "mlpack.toml").read_text() == before
    (folder / "deployment.yaml").unlink()
    (folder / "deployment.yaml").mkdir()
    (folder / "endpoint.yaml").write_text("as it was")
    assert "deployment.yaml is a directory" in run(*rendered_once, "-o", "aml").stderr
    assert (folder / "endpoint.yaml").read_text() == "as it was", "all of it or nothing"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "names neither compute nor instance_type"),
        ("[azureml]\ncompute = 'a b'\n", "azureml.compute: 'a b' is not the name of a compute"),
        (f"{ON_A_CLUSTER}endpoint = 'ab'\n", "azureml.endpoint: 'ab' is not a name of Azure ML"),
        (f"{ON_A_CLUSTER}endpoint = '1fan'\n", "'1fan' is not a name of Azure ML"),
        (f"{ON_A_CLUSTER}endpoint = 'fan--x'\n", "'fan--x' is not a name of Azure ML"),
        (f"{ON_A_CLUSTER}endpoint = 'fan-'\n", "'fan-' is not a name of Azure ML"),
        (f"{ON_A_CLUSTER}deployment = '{'a' * 33}'\n", "is not a name of Azure ML"),
        (f"{ON_A_CLUSTER}deployment = 'blue_1'\n", "'blue_1' is not a name of Azure ML"),
        (f"[module]\nname = 'f'\n{ON_A_CLUSTER}", "'f' cannot be the name of Azure ML's endpoint"),
        (
            f"{ON_A_CLUSTER}endpoint = '{'a' * 32}'\ndeployment = '{'b' * 31}'\n",
            "have 63 characters, and a cluster takes 62",
        ),
        (f"{ON_A_CLUSTER}instances = 0\n", "azureml.instances: is 0"),
        (f"{ON_A_CLUSTER}instance_type = 'Standard_DS3_v2'\n", "is not one of a cluster"),
        (f"{ON_A_CLUSTER}instance_typ = 'cpu'\n", "did you mean 'instance_type'"),
        (f"[azureml]\ninstance_type = 'x'\n{TYPES}", "are for a cluster"),
        ("[azureml.instance_types.GPU]\ncpus = 1\nmemory = '1 GB'\n", "'GPU' is not a name"),
        ("[azureml.instance_types.gpu]\ncpus = 1\n", "instance_types.gpu: 'memory' is missing"),
        ("[azureml.instance_types.gpu]\ncpus = 0\nmemory = '1 GB'\n", "gpu.cpus: is 0"),
        (f"[module]\nmemory = '1 GB'\n{ON_A_CLUSTER}", "has memory and no cpus"),
        (f"[module]\ncpus = 1\n{ON_A_CLUSTER}", "has cpus and no memory"),
        (f"[module]\ngpu = 1\n{ON_A_CLUSTER}", "default instance type has none"),
        (
            f"[module]\ngpu = 1\n{ON_A_CLUSTER}instance_type = 'cpu'\n{TYPES}",
            "asks for more gpus (1) than [azureml.instance_types.cpu] gives (0)",
        ),
        (
            f"[module]\ncpus = 3\nmemory = '1 GB'\n{ON_A_CLUSTER}instance_type = 'cpu'\n{TYPES}",
            "asks for more cpus (3)",
        ),
        (
            f"[module]\nenv = {{ MLPACK_PORT = '80' }}\n{ON_A_CLUSTER}",
            "MLPACK_PORT moves the port",
        ),
        (
            f"[module]\nenv = {{ MLPACK_TIMEOUT = '301' }}\n{ON_A_CLUSTER}",
            "'301' is not 0 to 300 seconds",
        ),
        (
            "[module]\nenv = { MLPACK_TIMEOUT = '181' }\n[azureml]\ninstance_type = 'x'\n",
            "'181' is not 0 to 180 seconds",
        ),
        (
            f"[module]\nenv = {{ MLPACK_TIMEOUT = 'nan' }}\n{ON_A_CLUSTER}",
            "'nan' is not 0 to 300 seconds",
        ),
        (
            f"[module]\nenv = {{ API_KEY = 'abcdefgh12345' }}\n{ON_A_CLUSTER}",
            "API_KEY: holds a secret",
        ),
    ],
)
def test_what_the_service_would_refuse_is_refused(
    tmp_path: Path, settings: str, message: str
) -> None:
    project = make_project(tmp_path / "fan")
    run("-C", str(project.root), "register", str(tiny_onnx(tmp_path / "m.onnx")))
    run("-C", str(project.root), "build", "fan")
    path = project.root / "mlpack.toml"
    path.write_text(f"{path.read_text()}\n{settings}")
    done = run("-C", str(project.root), "render", "fan", "--target", "azureml", "-o", "aml")
    assert done.exit_code == 1
    assert message in done.stderr
    assert "hint: " in done.stderr
    assert "abcdefgh" not in done.stderr
    assert not (project.root / "aml").exists()


def test_what_is_for_others_is_refused(tmp_path: Path) -> None:
    project = made(tmp_path / "fan", '[azureml]\ninstance_type = "Standard_DS3_v2"\n')
    asked = ("-C", str(project.root), "render", "fan", "--target", "azureml")
    for option, message in (
        ("--device-group=vans", "an endpoint has no devices"),
        ("--platform=linux/arm64", "is not built for linux/amd64"),
        ("--repository=edge/fan", "names no registry"),
        ("--layered", "--layered is for IoT Edge"),
        ("--apply", "is for --target kubernetes"),
    ):
        done = run(*asked, option)
        assert done.exit_code in (1, 2)
        assert done.stdout == ""
        assert message in done.stderr, option


def test_a_secret_stays_in_its_key_vault(tmp_path: Path) -> None:
    vault = "${{keyvault:https://edge.vault.azure.net/secrets/key}}"
    settings = f"[module]\nport = 80\nenv = {{ API_KEY = '{vault}' }}\n{ON_A_CLUSTER}"
    project = made(tmp_path / "fan", settings)
    assert rendered(project)["deployment.yaml"]["environment_variables"] == {"API_KEY": vault}
    through_azure(project)
    done = run("-C", str(project.root), "render", "fan", "--target", "azureml")
    assert "warning: [module] port is for devices" in done.stderr


def test_the_page_shows_what_works(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    [settings] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    project = made(tmp_path / "fan", settings)
    documents = rendered(project)
    _, deployment = through_azure(project)
    named = set(re.findall(r"-f azureml/([\w.-]+)", text))
    assert named == set(documents), "the page's commands name the files that are written"
    assert f"{deployment.name}=100" in text
    [shown] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    written = dict(documents["deployment.yaml"])
    digest = project.layout.resolve("fan-1").digest
    shown = shown.replace("sha256:…", str(digest))
    assert lost(yaml.safe_load(shown), written) == [], "the page's deployment is the one written"


def test_only_one_document_is_in_each_file_of_az(tmp_path: Path) -> None:
    project = made(tmp_path / "fan", ON_A_CLUSTER)
    rendered(project)
    both = run("-C", str(project.root), "render", "fan", "--target", "azureml").stdout
    with pytest.raises(Exception, match="expected a single document"):
        load_online_endpoint(io.StringIO(both))
