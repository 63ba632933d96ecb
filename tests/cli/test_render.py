"""``mlpack render``: which image, where it goes, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlpack.api.deploy import BaseDeployment
from mlpack.api.deployment_content import base_content, module_name, release_content
from mlpack.iotedge.checks import problems
from mlpack.iotedge.manifest import InvalidDeployment
from mlpack.iotedge.secrets import Passwords
from mlpack.json_document import document
from mlpack.oci.descriptor import Reference
from mlpack.project.directory import ProjectDirectory, read_template
from mlpack.project.references import find_image
from mlpack.settings.edge import ModuleSettings
from mlpack.stores.store import images, read_index
from tests.support import ARM64, make_project, run, tiny_onnx


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "fan")
    release(made)
    return made


def release(project: ProjectDirectory, *, bias: float = 0.5) -> str:
    """Register and build one more version; return what build prints."""
    tiny_onnx(project.root / "m.onnx", bias=bias)
    assert run("-C", str(project.root), "register", str(project.root / "m.onnx")).exit_code == 0
    built = run("-C", str(project.root), "build", project.settings.model)
    assert built.exit_code == 0, built.stderr
    return built.stdout.strip()


def module(text: str, name: str = "fan") -> dict[str, object]:
    content = json.loads(text)["modulesContent"]["$edgeAgent"]["properties.desired"]
    found: dict[str, object] = content["modules"][name]
    return found


def image(text: str, name: str = "fan") -> str:
    settings = module(text, name)["settings"]
    assert isinstance(settings, dict)
    return str(settings["image"])


def test_prints_the_manifest_of_the_newest_release_pinned_by_its_index(
    project: ProjectDirectory,
) -> None:
    second = release(project, bias=0.7)
    done = run("-C", str(project.root), "render", "fan")
    assert done.exit_code == 0
    assert problems(done.stdout.encode()) == ()
    assert image(done.stdout) == second
    assert image(done.stdout) == f"registry.example.com/edge/fan@{digest(project, '2')}"
    assert module(done.stdout)["version"] == "2"


def digest(project: ProjectDirectory, version: str) -> str:
    return str(project.layout.resolve(f"fan-{version}").digest)


def test_names_a_version_when_asked(project: ProjectDirectory) -> None:
    release(project, bias=0.7)
    done = run("-C", str(project.root), "render", "fan:1")
    assert image(done.stdout).endswith(digest(project, "1"))
    assert module(done.stdout)["version"] == "1"


def test_takes_what_build_prints(project: ProjectDirectory) -> None:
    printed = release(project, bias=0.7)
    release(project, bias=0.9)
    done = run("-C", str(project.root), "render", printed)
    assert image(done.stdout) == printed
    assert module(done.stdout)["version"] == "2"


def test_the_repository_may_be_in_what_build_prints_alone(tmp_path: Path) -> None:
    made = make_project(tmp_path / "fan")
    release(made)
    (made.root / "mlpack.toml").write_text('[model]\nname = "fan"\n')
    other = f"other.example.com/x/fan@{digest(made, '1')}"
    assert image(run("-C", str(made.root), "render", other).stdout) == other
    refused = run("-C", str(made.root), "render", "fan")
    assert refused.exit_code == 1
    assert "'fan'" in refused.stderr
    assert "[image]" in refused.stderr
    named = run("-C", str(made.root), "render", "fan", "--repository", "r.io/edge/fan")
    assert image(named.stdout) == f"r.io/edge/fan@{digest(made, '1')}"


def test_a_platform_pins_its_image_instead_of_the_index(project: ProjectDirectory) -> None:
    index = read_index(project.layout, project.layout.resolve("fan-1"))
    done = run("-C", str(project.root), "render", "fan", "--platform", "linux/arm64")
    assert image(done.stdout).endswith(str(index.select(ARM64).digest))
    refused = run("-C", str(project.root), "render", "fan", "--platform", "linux/s390x")
    assert refused.exit_code == 1
    assert "there is no image for linux/s390x" in refused.stderr


def test_writes_a_file_and_says_so_on_stderr(project: ProjectDirectory) -> None:
    done = run("-C", str(project.root), "render", "fan", "-o", "out/deployment.json")
    assert done.stdout == ""
    *unseen, last = done.stderr.splitlines()
    assert last.startswith("out/deployment.json: module fan runs registry.example.com/")
    assert all("never started" in each for each in unseen)
    written = project.root / "out" / "deployment.json"
    assert written.read_text() == run("-C", str(project.root), "render", "fan").stdout
    assert [each.name for each in written.parent.iterdir()] == ["deployment.json"]


def test_json_holds_the_manifest_and_what_it_was_made_of(project: ProjectDirectory) -> None:
    done = run("-C", str(project.root), "--json", "render", "fan")
    document = json.loads(done.stdout)
    assert document["deployment"] == json.loads(
        run("-C", str(project.root), "render", "fan").stdout
    )
    assert (document["name"], document["version"], document["module"]) == ("fan", "1", "fan")
    assert document["image"] == f"registry.example.com/edge/fan@{digest(project, '1')}"
    written = run("-C", str(project.root), "render", "fan", "-o", "d.json", "--json")
    assert json.loads(written.stdout)["path"] == "d.json"


def test_the_module_is_as_mlpack_toml_says(tmp_path: Path) -> None:
    settings = '[module]\nname = "fan_scorer"\nport = 8080\nenv = { LOG_LEVEL = "debug" }\n'
    made = make_project(tmp_path / "fan", settings=settings)
    release(made)
    text = run("-C", str(made.root), "render", "fan").stdout
    found = module(text, "fan_scorer")
    assert found["env"] == {"LOG_LEVEL": {"value": "debug"}}
    assert '"5001/tcp\\":[{\\"HostPort\\":\\"8080\\"}]' in text
    assert "FROM /messages/modules/fan_scorer/outputs/*" in text


def test_a_model_with_a_dot_gets_a_module_id_without(tmp_path: Path) -> None:
    made = make_project(tmp_path / "fan", name="fan.v2")
    release(made)
    assert image(run("-C", str(made.root), "render", "fan.v2").stdout, "fan-v2")
    assert module_name(ModuleSettings(name="x"), "fan.v2") == "x"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ('[module]\nname = "fan.v2"\n', "modules.fan.v2: 'fan.v2' is not a module id"),
        ('[module]\nenv = { "A.B" = "1" }\n', "env.A.B: 'A.B' is not a variable name"),
        ("[module]\nport = 443\n", "binds port 443/tcp of the host, which edgeHub already binds"),
    ],
)
def test_settings_a_device_would_refuse_leave_no_file(
    tmp_path: Path, settings: str, reason: str
) -> None:
    made = make_project(tmp_path / "fan", settings=settings)
    release(made)
    done = run("-C", str(made.root), "render", "fan", "-o", "deployment.json")
    assert done.exit_code == 1
    assert reason in done.stderr
    assert not (made.root / "deployment.json").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("pump",), 1, "'pump'"),
        (("fan:9",), 1, "fan:9 has no release"),
        (("base",), 2, "'base' is not a release of a model"),
        (("fan@sha256:" + "0" * 64,), 1, "this project holds no image fan@sha256:000"),
        (("fan@sha256:0",), 2, "'sha256:0' is not a digest"),
        (("r.example.com/fan:1",), 2, "is in a registry"),
        (("none",), 2, "none means an empty device"),
        (("fan", "--platform", "arm64"), 2, "'arm64' is not a platform"),
        (("fan", "--repository", "fan"), 2, "'fan' names no registry"),
        (("fan", "--repository", "r.example.com/fan:1"), 2, "has a tag or digest"),
        (("fan", "-o", ".mlpack"), 1, ".mlpack is a directory"),
        (("fan", "--layered", "--base"), 2, "--layered and --base exclude each other"),
        (("fan", "--base"), 2, "--base is for every release, and not for 'fan'"),
        (("fan", "--template", "requirements.in", "-o", "requirements.in"), 2, "is an input"),
        (("fan", "-o", "mlpack.toml"), 2, "mlpack.toml is an input"),
        (("fan", "--with-secrets"), 2, "--with-secrets prints nothing"),
        (("fan", "--device-group", "vans"), 1, "no device group"),
        (("fan", "--template", "nowhere.json"), 1, "nowhere.json is not a file"),
        (("fan", "--patch", "nowhere.json"), 1, "nowhere.json is not a file"),
        (("fan", "--patch", ".mlpack"), 1, ".mlpack is not a file"),
        (("fan", "-o", "mlpack.toml/x.json"), 1, "mlpack.toml: is not a directory"),
    ],
)
def test_what_cannot_be_rendered_is_one_error_line(
    project: ProjectDirectory, arguments: tuple[str, ...], status: int, reason: str
) -> None:
    done = run("-C", str(project.root), "render", *arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert reason in error
    assert hint.startswith("hint: ")


# --- the rest of a deployment

EDGE = """
[module]
memory = "256 MB"
ports = ["8081:9000"]
twin = { threshold = 0.5 }

[edge]
version = "1.5.21"
keep = "1d"

[edge.agent]
image = "mirror.example.com/agent@sha256:%s"
env = { ModuleUpdateMode = "NonBlocking" }

[edge.hub.env]
OptimizeForPerformance = "false"

[edge.modules.sensor]
image = "registry.example.com/edge/sensor:2.1.0"
version = "2.1"
env = { BUS = "1" }
mounts = ["/dev/i2c-1:/dev/i2c-1", "state:/state"]
gpu = 2
startup_order = 2
restart = "never"
pull = "never"
twin = { seconds = 5 }
options = { Hostname = "sensor", HostConfig = { Memory = 1, Devices = [] } }

[edge.routes]
toFan = 'FROM /messages/modules/sensor/outputs/* INTO BrokeredEndpoint("/modules/fan/inputs/in")'
up = { route = "FROM /messages/modules/fan/outputs/* INTO $upstream", priority = 0, keep = "1h" }

[edge.registries.acr]
address = "registry.example.com"
username = "vans-pull"
password = "${TEST_ACR_PASSWORD}"
""" % ("0" * 64)
GROUPS = """
[deploy.groups.vans]
target = "tags.deviceGroup = 'vans'"
link = "8 bit/s"

[deploy.groups.depots]
target = "tags.deviceGroup = 'depots'"
link = "100 Mbit/s"
"""
PASSWORD = 'hunter2 "and more"'


@pytest.fixture
def edge(tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "edge", settings=EDGE + GROUPS)
    release(made)
    return made


def agent_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)["modulesContent"]["$edgeAgent"]["properties.desired"]
    return found


def rendered(project: ProjectDirectory, *args: str) -> str:
    done = run("-C", str(project.root), "render", *args)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_everything_in_mlpack_toml_is_in_the_manifest(edge: ProjectDirectory) -> None:
    text = rendered(edge)
    agent = agent_of(text)
    content = json.loads(text)["modulesContent"]
    system = agent["systemModules"]
    assert system["edgeAgent"]["settings"] == {
        "image": f"mirror.example.com/agent@sha256:{'0' * 64}",
        "createOptions": "",
    }
    assert system["edgeAgent"]["env"]["ModuleUpdateMode"] == {"value": "NonBlocking"}
    assert system["edgeHub"]["settings"]["image"] == "mcr.microsoft.com/azureiotedge-hub:1.5.21"
    assert system["edgeHub"]["env"] == {"OptimizeForPerformance": {"value": "false"}}
    assert agent["runtime"]["settings"]["registryCredentials"] == {
        "acr": {
            "address": "registry.example.com",
            "username": "vans-pull",
            "password": "${TEST_ACR_PASSWORD}",
        }
    }
    sensor = agent["modules"]["sensor"]
    options = json.loads(sensor["settings"].pop("createOptions"))
    assert sensor == {
        "type": "docker",
        "status": "running",
        "restartPolicy": "never",
        "imagePullPolicy": "never",
        "startupOrder": 2,
        "version": "2.1",
        "env": {"BUS": {"value": "1"}},
        "settings": {"image": "registry.example.com/edge/sensor:2.1.0"},
    }
    assert options == {
        "Hostname": "sensor",
        "HostConfig": {
            "Binds": ["/dev/i2c-1:/dev/i2c-1", "state:/state"],
            "DeviceRequests": [{"Capabilities": [["gpu"]], "Count": 2, "Driver": "nvidia"}],
            "Memory": 1,
            "Devices": [],
        },
    }
    fan = "".join(
        str(value)
        for key, value in agent["modules"]["fan"]["settings"].items()
        if key.startswith("createOptions")
    )
    host = json.loads(fan)["HostConfig"]
    assert (host["Memory"], host["ReadonlyRootfs"]) == (256_000_000, True)
    assert host["PortBindings"] == {
        "5001/tcp": [{"HostPort": "5001"}],
        "9000/tcp": [{"HostPort": "8081"}],
    }
    assert json.loads(fan)["ExposedPorts"] == {"9000/tcp": {}}
    hub = content["$edgeHub"]["properties.desired"]
    assert hub["storeAndForwardConfiguration"] == {"timeToLiveSecs": 86400}
    assert list(hub["routes"]) == ["toFan", "up"]
    assert hub["routes"]["up"] == {
        "route": "FROM /messages/modules/fan/outputs/* INTO $upstream",
        "priority": 0,
        "timeToLiveSecs": 3600,
    }
    assert content["fan"] == {"properties.desired": {"threshold": 0.5}}
    assert content["sensor"] == {"properties.desired": {"seconds": 5}}


def test_base_and_layered_together_are_the_whole(edge: ProjectDirectory) -> None:
    whole = json.loads(rendered(edge))["modulesContent"]
    base = json.loads(rendered(edge, "--base"))["modulesContent"]
    layered = json.loads(rendered(edge, "fan", "--layered"))["modulesContent"]
    assert agent_of(rendered(edge, "--base"))["modules"] == {}
    assert {key.split(".")[-1] for key in layered["$edgeAgent"]} == {"fan", "sensor"}
    # Putting the layered deployment's paths over the base one's gives the whole deployment.
    for name, section in layered.items():
        for path, value in section.items():
            target = base.setdefault(name, {})
            keys = path.removeprefix("properties.desired").strip(".").split(".")
            *above, last = ["properties.desired", *(key for key in keys if key)]
            for key in above:
                target = target[key]
            target[last] = value
    # A base deployment is the same for every release: its time for pulls is of the base image.
    for each in (whole, base):
        each["$edgeAgent"]["properties.desired"]["systemModules"]["edgeAgent"]["env"].pop(
            "ManagementApiTimeoutSecs"
        )
    assert base == whole


def timeout(project: ProjectDirectory, *args: str) -> str | None:
    env = agent_of(rendered(project, *args))["systemModules"]["edgeAgent"]["env"]
    found = env.get("ManagementApiTimeoutSecs")
    return found["value"] if found else None


def test_pulls_get_the_time_the_link_of_a_group_takes(
    edge: ProjectDirectory, project: ProjectDirectory
) -> None:
    found = images(edge.layout, edge.layout.resolve("fan-1"))
    largest = max(sum(layer.size for layer in each.layers) for each in found)
    seconds = 60 * -(-2 * largest // 60)  # twice the bytes at one byte a second, in full minutes
    assert seconds > 300
    assert timeout(edge, "fan", "--device-group", "vans") == str(seconds)
    assert timeout(edge, "fan") == str(seconds), "without a group, the slowest link counts"
    assert timeout(edge, "fan", "--device-group", "depots") is None
    assert timeout(edge, "--base", "--device-group", "vans") is not None
    assert timeout(project, "fan") is None


def test_passwords_are_filled_in_for_their_owner_alone(
    edge: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(edge.root)
    refused = run("-C", root, "render", "fan", "--with-secrets", "-o", "d.json")
    assert refused.exit_code == 1
    assert "acr.password: is a variable that is not set in the environment" in refused.stderr
    assert not (edge.root / "d.json").exists()
    monkeypatch.setenv("TEST_ACR_PASSWORD", PASSWORD)
    assert "hunter2" not in rendered(edge), "filled in though no one asked"
    subprocess.run(["git", "init", "-q", root], check=True)
    kept = run("-C", root, "render", "fan", "--with-secrets", "-o", "d.json")
    assert kept.exit_code == 1
    assert "d.json to .gitignore" in kept.stderr
    assert not (edge.root / "d.json").exists()
    (edge.root / ".gitignore").write_text("d.json")
    for form in ((), ("--base",)):
        done = run("-C", root, "--json", "render", *form, "--with-secrets", "-o", "d.json")
        assert done.exit_code == 0, done.stderr
        assert "hunter2" not in done.output
        assert '"password": "***"' in done.stdout
        written = edge.root / "d.json"
        assert written.stat().st_mode & 0o777 == 0o600
        login = agent_of(written.read_text())["runtime"]["settings"]["registryCredentials"]["acr"]
        assert login["password"] == PASSWORD
    # A file without a password is everyone's again.
    assert run("-C", root, "render", "fan", "-o", "d.json").exit_code == 0
    assert (edge.root / "d.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ('[edge.routes]\nup = "FROM x"\n', "edge.routes.up: column 6: expected /"),
        (
            '[edge.routes]\nup = "FROM /messages/modules/fam/* INTO $upstream"\n',
            "routes.up.route: receives messages from 'fam', which is not a module",
        ),
        ('[edge.modules.x]\nimage = "X Y"\n', "x.settings.image: 'X Y' is not an image name"),
        ('[edge.modules.fan]\nimage = "x:1"\n', "[edge.modules.fan] is the module of the release"),
        (
            '[module]\nenv = { MQTT_PASSWORD = "x" }\n',
            "MQTT_PASSWORD.value: holds a secret, judging by its name",
        ),
        ('[edge.hub]\nschema = "2.0"\n', "schemaVersion: is '2.0'; devices support 1.0, 1.1"),
        ('[module]\nports = ["8883:1"]\n', "binds port 8883/tcp of the host, which edgeHub"),
    ],
)
def test_settings_a_device_would_refuse_are_named(
    tmp_path: Path, settings: str, reason: str
) -> None:
    made = make_project(tmp_path / "fan", settings=settings)
    release(made)
    for form in ((), ("--layered",)):
        done = run("-C", str(made.root), "render", "fan", *form)
        if done.exit_code == 0:
            # Ports and schema versions of the base deployment are not in a layered one.
            assert form, settings
            assert "edgeHub" in reason or "schema" in reason or "fam" in reason
            continue
        assert reason in done.stderr


def test_a_tag_that_moves_is_warned_of(tmp_path: Path) -> None:
    made = make_project(tmp_path / "fan", settings='[edge.modules.x]\nimage = "r.io/x:latest"\n')
    release(made)
    done = run("-C", str(made.root), "--json", "render", "fan")
    assert done.stderr.startswith("warning: modulesContent.$edgeAgent.properties.desired.modules.x")
    (said,) = json.loads(done.stdout)["warnings"]
    assert "r.io/x:latest is a tag that moves" in said


# --- a template, and a manifest that is there

TUTORIAL = """{
  "modulesContent": {
    "$edgeAgent": {"properties.desired": {
      "schemaVersion": "1.0",
      "runtime": {"type": "docker", "settings": {
        "minDockerVersion": "v1.25", "loggingOptions": "",
        "registryCredentials": {"__REGISTRY_NAME": {
          "username": "__REGISTRY_USER_NAME", "password": "__REGISTRY_PASSWORD",
          "address": "__REGISTRY_NAME.azurecr.io"}}}},
      "systemModules": {
        "edgeAgent": {"type": "docker", "settings": {
          "image": "mcr.microsoft.com/azureiotedge-agent:${TEST_VERSION}", "createOptions": "{}",
          "env": {"UpstreamProtocol": {"value": "MQTT"}}}},
        "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always",
          "settings": {"image": "mcr.microsoft.com/azureiotedge-hub:${TEST_VERSION}",
            "createOptions": {"HostConfig": {"PortBindings": {"443/tcp": [{"HostPort": "443"}]}}}
          }}},
      "modules": {"__MODULE_NAME": {"version": "1.0", "type": "docker", "status": "running",
        "restartPolicy": "always", "settings": {"image": "__REGISTRY_IMAGE_LOCATION",
          "createOptions": "{\\"WorkingDir\\":\\"/var/azureml-app\\"}"}}}}},
    "$edgeHub": {"properties.desired": {"schemaVersion": "1.0",
      "routes": {"up": "FROM /messages/modules/__MODULE_NAME/outputs/amlOutput INTO $upstream"},
      "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}},
    "__MODULE_NAME": {"properties.desired": {}}
  }
}
"""


def test_a_template_of_the_tutorials_is_filled_in(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "t.json").write_text(TUTORIAL)
    for name in ("TEST_VERSION", "REGISTRY_USER_NAME", "REGISTRY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    refused = run("-C", str(project.root), "render", "fan", "--template", "t.json")
    assert refused.exit_code == 1
    assert "systemModules.edgeAgent.settings.image: ${TEST_VERSION} is not set" in refused.stderr
    monkeypatch.setenv("TEST_VERSION", "1.6.1")
    monkeypatch.setenv("REGISTRY_USER_NAME", "puller")
    done = run("-C", str(project.root), "render", "fan", "--template", "t.json")
    assert done.exit_code == 0, done.stderr
    assert "edgeAgent.settings.env: has no effect" in done.stderr
    assert image(done.stdout) == f"registry.example.com/edge/fan@{digest(project, '1')}"
    agent = agent_of(done.stdout)
    assert agent["runtime"]["settings"]["registryCredentials"] == {
        "registry": {
            "username": "puller",
            "password": "${REGISTRY_PASSWORD}",
            "address": "registry.example.com",
        }
    }
    options = agent["systemModules"]["edgeHub"]["settings"]["createOptions"]
    assert options == '{"HostConfig":{"PortBindings":{"443/tcp":[{"HostPort":"443"}]}}}'
    assert problems(done.stdout.encode()) == ()
    monkeypatch.setenv("REGISTRY_PASSWORD", PASSWORD)
    run(
        "-C",
        str(project.root),
        "render",
        "fan",
        "--template",
        "t.json",
        "--with-secrets",
        "-o",
        "d",
    )
    login = agent_of((project.root / "d").read_text())["runtime"]["settings"]["registryCredentials"]
    assert login["registry"]["password"] == PASSWORD


def test_mlpacks_own_template_can_be_the_users(project: ProjectDirectory) -> None:
    (project.root / "own.json.j2").write_text(read_template("iotedge/deployment.json.j2"))
    assert rendered(project, "fan", "--template", "own.json.j2") == rendered(project, "fan")
    (project.root / "own.json.j2").write_text("{{ image }} {{ nobody }}")
    done = run("-C", str(project.root), "render", "fan", "--template", "own.json.j2")
    assert done.exit_code == 1
    assert "'nobody' is undefined" in done.stderr


def test_a_template_without_a_place_for_the_image_is_refused(project: ProjectDirectory) -> None:
    text = TUTORIAL.replace("__REGISTRY_IMAGE_LOCATION", "r.io/x:1.0.0").replace(
        "${TEST_VERSION}", "1.6.1"
    )
    (project.root / "t.json").write_text(text)
    done = run("-C", str(project.root), "render", "fan", "--template", "t.json")
    assert done.exit_code == 1
    assert "has no placeholder for the release's image" in done.stderr


def test_a_manifest_that_is_there_gets_the_image_and_keeps_every_other_byte(
    project: ProjectDirectory,
) -> None:
    before = rendered(project, "fan").replace("\n", "\r\n").rstrip() + "  "
    path = project.root / "d.json"
    path.write_bytes(before.encode())
    release(project, bias=0.7)
    old, new = digest(project, "1"), digest(project, "2")
    done = run("-C", str(project.root), "render", "fan", "--patch", "d.json", "-o", "d.json")
    assert done.exit_code == 0, done.stderr
    assert path.read_bytes() == before.replace(old, new).encode()
    printed = run("-C", str(project.root), "render", "fan", "--patch", "d.json")
    assert printed.stdout_bytes == before.replace(old, new).encode()
    named = run("-C", str(project.root), "render", "fan", "--patch", "d.json", "--module", "x")
    assert named.exit_code == 1
    assert "the deployment has no module 'x'" in named.stderr
    assert "its modules: fan; " in named.stderr


def test_a_manifest_with_a_password_is_patched_where_that_is_asked_for(
    project: ProjectDirectory,
) -> None:
    text = rendered(project, "fan").replace(
        '"registryCredentials": {}',
        '"registryCredentials": {"a": {"address": "r.io", "username": "u", "password": "hunter2"}}',
    )
    path = project.root / "d.json"
    path.write_text(text)
    patch = (
        "-C",
        str(project.root),
        "--json",
        "render",
        "fan",
        "--patch",
        "d.json",
        "-o",
        "d.json",
    )
    refused = run(*patch)
    assert refused.exit_code == 1
    assert "a.password: is in clear" in refused.stderr
    done = run(*patch, "--with-secrets")
    assert done.exit_code == 0, done.stderr
    assert "hunter2" not in done.output + refused.output
    assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8"),
        (b"[]", "is not an object"),
        (b"[" * 5000 + b"]" * 5000, "is not JSON"),
        (b'{"modulesContent": {"$edgeAgent": {}}}', "has no module 'fan'"),
    ],
)
def test_what_is_no_manifest_is_one_error(
    project: ProjectDirectory, content: bytes, reason: str
) -> None:
    (project.root / "d.json").write_bytes(content)
    done = run("-C", str(project.root), "render", "fan", "--patch", "d.json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert reason in done.stderr


# --- what is sent, not written


def test_a_base_deployment_is_sent_with_its_passwords_and_shown_without(
    edge: ProjectDirectory,
) -> None:
    with pytest.raises(InvalidDeployment, match="password: is a variable that is not set"):
        base_content(edge)
    content = base_content(edge, 1, {"TEST_ACR_PASSWORD": PASSWORD, "IMAGE": "not asked for"})
    assert PASSWORD in str(content)
    text = json.dumps({"modulesContent": content})
    assert problems(text.encode(), Passwords.CLEAR) == ()
    agent = agent_of(text)["systemModules"]["edgeAgent"]
    assert int(agent["env"]["ManagementApiTimeoutSecs"]["value"]) > 300
    found = BaseDeployment(
        group="vans", id="x", condition="", priority=1, content=content, exists=False
    )
    assert "hunter2" not in json.dumps(document(found))
    # From release to release it is the same: what is on a hub cannot be changed.
    release(edge, bias=0.9)
    assert base_content(edge, 1, {"TEST_ACR_PASSWORD": PASSWORD}) == content


def test_what_deploy_sends_is_what_render_writes(edge: ProjectDirectory) -> None:
    written = json.loads(rendered(edge, "fan", "--layered"))["modulesContent"]
    pinned = Reference.parse(f"registry.example.com/edge/fan@{digest(edge, '1')}")
    assert release_content(edge, "fan", pinned, find_image(edge, "fan:1")) == written
