"""``mlpack render --target kubernetes``: objects by the API's schemas, given to an API server."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mlpack.project.directory import ProjectDirectory
from tests.doubles.cluster import Kubectl, install
from tests.support import make_project, run, tiny_onnx

BASE = "registry.example.com/edge/base"


def made(folder: Path, settings: str = "", name: str = "fan") -> ProjectDirectory:
    project = make_project(folder, settings=settings, name=name)
    model = tiny_onnx(folder / "m.onnx")
    assert run("-C", str(project.root), "register", str(model)).exit_code == 0
    assert run("-C", str(project.root), "build", name).exit_code == 0
    return project


def text(project: ProjectDirectory, *args: str) -> str:
    done = run("-C", str(project.root), "render", "--target", "kubernetes", *args)
    assert done.exit_code == 0, done.output
    return done.stdout


def objects(project: ProjectDirectory, *args: str) -> dict[str, Any]:
    """The objects by kind, each accepted by the API's schemas of four versions."""
    found = list(yaml.safe_load_all(text(project, *args)))
    for each in found:
        for version in ("1.31", "1.33", "1.35", "1.37"):
            kubernetes_validate.validate(each, version, strict=True)
    return {each["kind"]: each for each in found}


def pod(found: dict[str, Any]) -> Any:  # noqa: ANN401  # a JSON document
    return (found.get("Deployment") or found["DaemonSet"])["spec"]["template"]["spec"]


def error(project: ProjectDirectory, *args: str) -> str:
    done = run("-C", str(project.root), "render", *args)
    assert done.exit_code in (1, 2), done.output
    assert done.stdout == ""
    return done.stderr


def test_a_deployment_its_service_and_its_policy(
    tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    settings = """
[module]
port = 80
memory = "512 MB"
cpus = 0.5
env = { MQTT_BROKER = "10.0.0.5", PRICE = "$(PATH) 1.0" }
[kubernetes]
namespace = "edge"
replicas = 2
pull_secret = "acr"
secrets = ["mqtt"]
"""
    project = made(tmp_path / "fan", settings)
    found = objects(project, "fan")
    assert list(found) == ["NetworkPolicy", "Service", "Deployment"]
    written = re.sub("sha256:[0-9a-f]{64}", "sha256:…", text(project, "fan"))
    golden("kubernetes/deployment.yaml", written)
    assert text(project, "fan") == text(project, "fan:1")


def test_the_pod_fits_the_restricted_security_standard(tmp_path: Path) -> None:
    spec = pod(objects(made(tmp_path / "fan")))
    [only] = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert [each["name"] for each in spec["volumes"]] == ["tmp"]
    assert "@sha256:" in only["image"]
    assert "resources" not in only


def test_a_device_group_is_a_pod_on_each_of_its_nodes(tmp_path: Path) -> None:
    settings = """
[deploy.groups.vans]
target = "tags.deviceGroup = 'vans'"
[kubernetes.groups]
depot = { site = "depot-3" }
"""
    project = made(tmp_path / "fan", settings)
    found = objects(project, "fan", "--device-group", "vans")
    assert found["DaemonSet"]["metadata"]["name"] == "fan-vans"
    assert pod(found)["nodeSelector"] == {"mlpack.io/device-group": "vans"}
    assert found["Service"]["spec"]["internalTrafficPolicy"] == "Local"
    selector = found["DaemonSet"]["spec"]["selector"]["matchLabels"]
    assert selector == found["Service"]["spec"]["selector"]
    assert selector == found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert pod(objects(project, "fan", "--device-group", "depot"))["nodeSelector"] == {
        "site": "depot-3"
    }
    said = error(project, "fan", "--target", "kubernetes", "--device-group", "van")
    assert "there is no device group 'van' (did you mean 'vans'?)" in said


@pytest.mark.parametrize(
    ("env", "more", "egress"),
    [
        ({"MQTT_BROKER": "10.0.0.5:1884"}, "", {"to": "10.0.0.5/32", "port": 1884}),
        ({"MQTT_BROKER": "mqtts://[fd00::5]"}, "", {"to": "fd00::5/128", "port": 8883}),
        ({"MQTT_BROKER": "broker.iot"}, "", {"port": 1883}),
        ({"MQTT_HOST": "10.0.0.5", "MQTT_PORT": "1884"}, "", {"to": "10.0.0.5/32", "port": 1884}),
        ({"MQTT_BROKER": "broker", "MQTT_CA": "/ca"}, "", {"port": 8883}),
        (
            {"MQTT_BROKER": "mosquitto.iot"},
            '[kubernetes]\nbroker = { app = "mosquitto" }',
            {"to": {"app": "mosquitto"}, "port": 1883},
        ),
        ({"SCORING_URL": "https://10.1.2.3/score"}, "", {"to": "10.1.2.3/32", "port": 443}),
    ],
)
def test_a_module_reaches_names_and_its_broker_and_no_more(
    tmp_path: Path, env: dict[str, str], more: str, egress: dict[str, Any]
) -> None:
    said = ", ".join(f'{key} = "{value}"' for key, value in env.items())
    project = made(tmp_path / "fan", f"[module]\nenv = {{ {said} }}\n{more}\n")
    policy = objects(project)["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"protocol": "TCP", "port": 5001}]}]
    dns, other = policy["egress"]
    assert {each["port"] for each in dns["ports"]} == {53}
    assert [each["port"] for each in other["ports"]] == [egress["port"]]
    peers = other.get("to", [])
    if "to" not in egress:
        assert peers == []
    elif isinstance(egress["to"], str):
        assert peers == [{"ipBlock": {"cidr": egress["to"]}}]
    else:
        assert peers[0]["podSelector"]["matchLabels"] == egress["to"]


def test_a_platform_and_gpus(tmp_path: Path) -> None:
    project = made(tmp_path / "fan", '[module]\ngpu = 2\n[kubernetes]\nruntime_class = "nvidia"\n')
    spec = pod(objects(project, "fan", "--platform", "linux/arm64"))
    assert spec["nodeSelector"]["kubernetes.io/arch"] == "arm64"
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    assert {"name": "MLPACK_PROVIDERS", "value": "cuda,cpu"} in spec["containers"][0]["env"]
    assert "nodeSelector" not in pod(objects(project))


def test_the_release_as_an_image_volume(tmp_path: Path) -> None:
    project = made(tmp_path / "fan")
    spec = pod(objects(project, "fan", "--image-volume", BASE))
    [only] = spec["containers"]
    assert only["image"] == f"{BASE}@{project.lock().base.index.digest}"
    release = spec["volumes"][1]["image"]["reference"]
    assert release == f"registry.example.com/edge/fan@{project.layout.resolve('fan-1').digest}"
    assert only["volumeMounts"][1] == {
        "name": "release",
        "mountPath": "/mnt/release",
        "readOnly": True,
    }
    env = {each["name"]: each["value"] for each in only["env"]}
    assert env["AML_APP_ROOT"] == "/mnt/release/var/azureml-app"
    assert env["AZUREML_MODEL_DIR"] == "/mnt/release/var/azureml-app/azureml-models/fan/1"


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ('[module]\nenv = { MQTT_PASSWORD = "hunter22" }\n', (), "MQTT_PASSWORD: holds a secret"),
        ('[module]\nenv = { MLPACK_PORT = "80" }\n', (), "MLPACK_PORT moves the port"),
        ('[module]\nenv = { MQTT_BROKER = ":1883" }\n', (), "names no host"),
        ('[module]\nname = "3d"\n', (), "'3d' cannot be the name of a Service"),
        ('[kubernetes]\nnamespace = "Edge"\n', (), "kubernetes.namespace: 'Edge' is not a name"),
        ('[kubernetes]\nservice = "Ingress"\n', (), "is 'Ingress', not ClusterIP or NodePort"),
        ('[kubernetes.groups]\nx = { "a b" = "c" }\n', (), "cannot be a label"),
        ("", ("--layered",), "--layered is for IoT Edge"),
        ("", ("--device-group", "vans"), "mlpack.toml has no device group"),
    ],
)
def test_what_a_cluster_should_not_get_is_refused(
    tmp_path: Path, settings: str, arguments: tuple[str, ...], message: str
) -> None:
    project = make_project(tmp_path / "fan", settings=settings)
    model = tiny_onnx(tmp_path / "m.onnx")
    run("-C", str(project.root), "register", str(model))
    run("-C", str(project.root), "build", "fan")
    said = error(project, "fan", "--target", "kubernetes", *arguments)
    assert message in said
    assert "hunter22" not in said
    assert "Traceback" not in said


def test_what_has_no_meaning_there_is_said(tmp_path: Path) -> None:
    project = made(tmp_path / "fan", '[module]\nmounts = ["/a:/b"]\ngpu = true\n')
    done = run("-C", str(project.root), "render", "--target", "kubernetes")
    assert "warning: [module] mounts is for IoT Edge" in done.stderr
    assert "warning: [module] gpu = true asks for one GPU" in done.stderr
    assert "--apply" in error(project, "fan", "--apply")


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    found = install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{found.folder}:{os.environ['PATH']}")
    return found


def test_applying_is_asked_for_checked_and_then_kept(tmp_path: Path, kubectl: Kubectl) -> None:
    project = made(tmp_path / "fan")
    apply = ("-C", str(project.root), "render", "--target", "kubernetes", "--apply")
    assert "--yes" in run(*apply).stderr
    assert kubectl.calls == [["config", "current-context"]]
    tried = run(*apply, "--dry-run")
    assert tried.exit_code == 0, tried.output
    assert tried.stdout.splitlines()[-1] == "Deployment edge/fan created (dry run)"
    assert kubectl.objects == {}
    done = run(*apply, "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert [each["created"] for each in json.loads(done.stdout)["applied"]] == [True] * 3
    assert set(kubectl.objects) == {
        f"edge/{kind}/fan" for kind in ("NetworkPolicy", "Service", "Deployment")
    }
    spec = objects(project)["Deployment"]["spec"]
    assert kubectl.objects["edge/Deployment/fan"]["spec"] == spec
    assert run(*apply, "--yes").stdout.splitlines()[-1] == "Deployment edge/fan configured"


def test_a_cluster_that_refuses_is_one_error_and_a_hint(tmp_path: Path, kubectl: Kubectl) -> None:
    project = made(tmp_path / "fan", '[kubernetes]\nnamespace = "nowhere"\n')
    apply = ("-C", str(project.root), "render", "--target", "kubernetes", "--apply", "--yes")
    refused = run(*apply)
    assert refused.exit_code == 1
    assert 'namespaces "nowhere" not found' in refused.stderr
    assert "[kubernetes] namespace" in refused.stderr
    assert "Unauthorized" in run(*apply, "--context", "locked-out").stderr
    other = run(*apply, "--context", "other").stderr
    assert 'context "other" does not exist' in other
    assert "kubectl config get-contexts" in other
    path = project.root / "mlpack.toml"
    path.write_text(path.read_text().replace("nowhere", "edge"))
    kubectl.own("Deployment")
    conflict = run(*apply)
    assert "Apply failed with 1 conflict" in conflict.stderr
    assert "--force-conflicts" in conflict.stderr
    assert "edge/Deployment/fan" not in kubectl.objects
    kubectl.hang_up()
    away = run(*apply)
    assert away.exit_code == 1
    assert "Unable to connect to the server" in away.stderr
    assert "set KUBECONFIG" in away.stderr


def test_without_kubectl_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = made(tmp_path / "fan")
    monkeypatch.setenv("PATH", "/nowhere")
    apply = ("-C", str(project.root), "render", "--target", "kubernetes", "--apply", "--yes")
    done = run(*apply)
    assert done.exit_code == 1
    assert "error: kubectl is not installed" in done.stderr
    assert "-o FILE" in done.stderr
