"""The rendered deployment manifest, and real manifests of other projects."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from mlpack.iotedge.checks import problems
from mlpack.iotedge.deployment import (
    Deployment,
    InvalidTemplate,
    deployment,
    dump,
    edge_routes,
    layered,
    render,
    system_image,
    timeout_seconds,
)
from mlpack.iotedge.manifest import InvalidDeployment, Route, parse_route
from mlpack.iotedge.module import Module, UnpinnedImage, edge_module, model_module
from mlpack.iotedge.patch import patch
from mlpack.iotedge.template import Variables, fill, with_texts
from mlpack.oci.descriptor import Digest, Reference
from mlpack.project.directory import read_template
from mlpack.settings.edge import (
    ALL_GPUS,
    EdgeModuleSettings,
    EdgeSettings,
    ModuleSettings,
    RegistryLogin,
    RouteSettings,
    SystemModuleSettings,
)
from tests.support import SHARED, require

TEMPLATE = read_template("iotedge/deployment.json.j2")
IMAGE = Reference.parse("registry.example.com/edge/fan").pinned(Digest("a" * 64))
UP = Route(("messages", "modules", "fan", "outputs", "*"))
FAN = model_module("fan", IMAGE, version="2", settings=ModuleSettings(env={"LOG_LEVEL": "info"}))


def rendered(told: Deployment) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(render(told, TEMPLATE))
    return value


def agent_of(document: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    return value


def test_one_module_renders_as_in_the_golden_file(golden: Callable[[str, str], None]) -> None:
    text = render(Deployment(modules=(FAN,), routes={"fanToIoTHub": UP}), TEMPLATE)
    golden("iotedge/fan.json", text)
    assert problems(text.encode()) == ()


def test_several_modules_render_as_in_the_golden_file(golden: Callable[[str, str], None]) -> None:
    sensor = Module(
        name="sensor",
        image=Reference.parse("r.io/sensor").pinned(Digest("b" * 64)),
        options={"HostConfig": {"Binds": ["/dev/bus:/dev/bus:ro"] * 30}},
        startup_order=2,
    )
    several = Deployment(
        modules=(FAN, sensor),
        routes={
            "toFan": parse_route(
                "FROM /messages/modules/sensor/outputs/readings WHERE $body.speed > 400 "
                "AND unit <> 'Hz' INTO BrokeredEndpoint(\"/modules/fan/inputs/readings\")"
            ),
            "fanToIoTHub": UP,
        },
        agent_image=system_image("agent", "1.5.21"),
        hub_image=system_image("hub", "1.5.21"),
        agent_env={"ManagementApiTimeoutSecs": "900", "ModuleUpdateMode": "NonBlocking"},
        hub_env={"OptimizeForPerformance": "false"},
        message_seconds=60,
    )
    text = render(several, TEMPLATE)
    golden("iotedge/two-modules.json", text)
    settings = agent_of(json.loads(text))["modules"]["sensor"]["settings"]
    assert list(settings) == ["image", "createOptions", "createOptions01"]


def everything() -> Deployment:
    """A deployment with every part a manifest can have."""
    edge = EdgeSettings(
        version="1.5.21",
        keep_seconds=86400,
        agent=SystemModuleSettings(env={"RuntimeLogLevel": "info"}, options={"HostConfig": {}}),
        hub=SystemModuleSettings(image=f"mirror.example.com/hub@sha256:{'0' * 64}", schema="1.2"),
        registries={
            "acr": RegistryLogin(address="r.example.com", username="u", password="${ACR_PASSWORD}")
        },
        modules={
            "sensor": EdgeModuleSettings(
                image="r.example.com/sensor:2.1.0",
                version="2.1",
                ports=("127.0.0.1:8081:81", "5353:53/udp"),
                mounts=("state:/state",),
                memory=64_000_000,
                cpus=Decimal("0.5"),
                startup_order=2,
                restart="never",
                pull="never",
                twin={"seconds": 5},
            )
        },
        routes={
            "toFan": RouteSettings(
                route="FROM /messages/modules/sensor/outputs/* WHERE speed > 400 "
                'INTO BrokeredEndpoint("/modules/fan/inputs/readings")'
            ),
            "up": RouteSettings(
                route="FROM /messages/modules/fan/outputs/* INTO $upstream",
                priority=0,
                keep_seconds=60,
            ),
        },
    )
    settings = ModuleSettings(gpu=ALL_GPUS, twin={"threshold": 0.5})
    fan = model_module("fan", IMAGE, version="2", settings=settings)
    beside = edge_module("sensor", edge.modules["sensor"])
    routes = edge_routes(edge, "fan")
    return deployment(edge, (fan, beside), routes, timeout_seconds=11_280)


def test_everything_renders_as_in_the_golden_file(golden: Callable[[str, str], None]) -> None:
    whole = everything()
    golden("iotedge/everything.json", render(whole, TEMPLATE))
    golden("iotedge/base.json", render(whole.base, TEMPLATE))
    golden("iotedge/layered.json", dump({"modulesContent": layered(whole)}))


def test_long_options_of_system_modules_are_written_in_pieces_too() -> None:
    options = {"HostConfig": {"Binds": ["/data:/data"] * 60}}
    system = agent_of(rendered(replace(everything(), agent_options=options)))["systemModules"]
    settings = system["edgeAgent"]["settings"]
    assert list(settings) == ["image", "createOptions", "createOptions01"]
    assert json.loads("".join(list(settings.values())[1:])) == options


def test_routes_are_those_said_or_the_one_to_iot_hub() -> None:
    assert edge_routes(EdgeSettings(), "fan") == {"fanToIoTHub": UP}
    assert edge_routes(EdgeSettings(routes={}), "fan") == {}
    with pytest.raises(InvalidDeployment, match=r"edge\.routes\.up: column 1: expected FROM"):
        edge_routes(EdgeSettings(routes={"up": RouteSettings(route="to the hub")}), "fan")


@pytest.mark.parametrize(
    ("image_bytes", "speed", "seconds"),
    [
        (45_000_000, 0, 0),  # no link is known
        (45_000_000, 8_000, 11_280),  # twice 5,625 s, in full minutes
        (2_000_000, 8_000, 540),
        (1_200_000, 8_000, 0),  # 300 s is what edgeAgent waits anyway
        (1_200_001, 8_000, 360),
        (10**12, 1, 604_800),
    ],
)
def test_a_pull_gets_twice_its_time(image_bytes: int, speed: int, seconds: int) -> None:
    assert timeout_seconds(image_bytes, speed) == seconds


def test_the_thin_link_defaults_hold_until_they_are_set_otherwise() -> None:
    env = agent_of(rendered(Deployment(modules=(FAN,))))["systemModules"]["edgeAgent"]["env"]
    assert env == {
        "ModuleUpdateMode": {"value": "WaitForAllPulls"},
        "SendRuntimeQualityTelemetry": {"value": "false"},
    }
    told = Deployment(modules=(FAN,), agent_env={"SendRuntimeQualityTelemetry": "true"})
    env = agent_of(rendered(told))["systemModules"]["edgeAgent"]["env"]
    assert env["SendRuntimeQualityTelemetry"] == {"value": "true"}


def test_no_module_and_no_route_still_give_a_manifest() -> None:
    document = rendered(Deployment(modules=()))
    assert agent_of(document)["modules"] == {}
    assert document["modulesContent"]["$edgeHub"]["properties.desired"]["routes"] == {}


def test_a_value_cannot_leave_its_string() -> None:
    env = {"A": '"}, "evil": {"', "B": "{{ 1 }}", "C": "é\n\\"}
    module = model_module("fan", IMAGE, version='1"', settings=ModuleSettings(env=env))
    found = agent_of(rendered(Deployment(modules=(module,))))["modules"]["fan"]
    assert {name: each["value"] for name, each in found["env"].items()} == env
    assert found["version"] == '1"'


def test_a_tag_is_no_pin_and_a_tag_beside_a_digest_is_dropped() -> None:
    with pytest.raises(UnpinnedImage, match=r"fan: r\.io/fan:2 is not pinned"):
        Module(name="fan", image=Reference.parse("r.io/fan:2"))
    both = Reference("r.io", "fan", "2", Digest("c" * 64))
    assert Module(name="fan", image=both).settings["image"] == f"r.io/fan@sha256:{'c' * 64}"


def test_the_port_of_the_device_leads_to_the_port_of_the_runtime() -> None:
    module = model_module("fan", IMAGE, version="2", settings=ModuleSettings(port=8080))
    host = module.options["HostConfig"]
    assert isinstance(host, dict)
    assert host.pop("PortBindings") == {"5001/tcp": [{"HostPort": "8080"}]}
    # Nothing of the container but /tmp can be written, and nothing gives more rights.
    assert host == {
        "CapDrop": ["ALL"],
        "ReadonlyRootfs": True,
        "SecurityOpt": ["no-new-privileges"],
        "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=67108864,mode=1777"},
    }


def test_a_module_on_graphics_processors_gets_them_and_uses_them() -> None:
    settings = ModuleSettings(env={"A": "b"}, gpu=-1)
    module = model_module("fan", IMAGE, version="2", settings=settings)
    host = module.options["HostConfig"]
    assert isinstance(host, dict)
    request = {"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}
    assert host["DeviceRequests"] == [request]
    assert host["ReadonlyRootfs"] is True
    assert module.env == {"MLPACK_PROVIDERS": "cuda,cpu", "A": "b"}
    own = {"MLPACK_PROVIDERS": "cpu"}
    module = model_module("fan", IMAGE, version="2", settings=ModuleSettings(env=own, gpu=1))
    assert module.env == own
    assert problems(render(Deployment(modules=(module,)), TEMPLATE).encode()) == ()


def test_what_a_device_would_refuse_is_not_rendered() -> None:
    lost = {"up": Route(("messages", "modules", "fam", "*"))}
    with pytest.raises(InvalidDeployment, match=r"routes\.up\.route: receives messages from 'fam'"):
        render(Deployment(modules=(FAN,), routes=lost), TEMPLATE)
    on_443 = model_module("fan", IMAGE, version="2", settings=ModuleSettings(port=443))
    with pytest.raises(InvalidDeployment, match="binds port 443/tcp of the host, which edgeHub"):
        render(Deployment(modules=(on_443,)), TEMPLATE)


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{{ deployment.modulez }}", "has no attribute 'modulez'"),
        ("{{ model }}", "'model' is undefined"),
        ("{\n{% if %}}", "(line 2)"),
        ("{ not json", "does not result in JSON"),
        ("", "does not result in JSON"),
    ],
)
def test_a_template_at_fault_is_named_as_such(template: str, what: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        render(Deployment(modules=(FAN,)), template)
    assert what in str(caught.value)


# --- real files and public schemas

IOTEDGE = SHARED / "iotedge"
AGENT, HUB = "$edgeAgent.properties.desired", "$edgeHub.properties.desired"
LOGINS = f"{AGENT}.runtime.settings.registryCredentials"

ACCEPTED = [
    "Azure_azure-iot-cli-extension__deploymentTopLayer.json",
    "Azure_azure-iot-cli-extension__test_edge_deployment_layered.json",
    "Azure_azure-iot-cli-extension__test_edge_deployment_v11.json",
    "Azure_iotedge__ExampleDeployment.json",
    "Azure_iotedgehubdev__deployment_with_create_options.json",
]
# Accepted by the tools they come from, refused by us for what a device would make of them.
REFUSED_MANIFESTS = {
    "Azure_iotedgehubdev__deployment_with_chunked_create_options.json": {
        f"moduleContent.{AGENT}.systemModules.edgeHub": "'restartPolicy' is missing",
        f"moduleContent.{AGENT}.modules.SampleModule.restartPolicy": "is 'unknown'",
    },
    "SchemaStore_schemastore__azure-iot-edge-deployment-2.0_deployment.json": {
        f"modulesContent.{HUB}.routes.csharpToIoTHub": "receives messages from 'csharp'",
        f"modulesContent.{HUB}.routes.sensorTocmodule": "sends messages to 'cmodule'",
        f"modulesContent.{LOGINS}.test.password": "is in clear",
    },
}
PLACEHOLDER = "a placeholder that was not filled in"
_RENDERED_BADLY = {
    f"modulesContent.{AGENT}.schemaVersion": PLACEHOLDER,
    f"modulesContent.{HUB}.schemaVersion": PLACEHOLDER,
    f"modulesContent.{AGENT}.systemModules.edgeAgent.settings.image": PLACEHOLDER,
    f"modulesContent.{AGENT}.systemModules.edgeHub.settings.image": PLACEHOLDER,
}
_BAD_CREDENTIALS = {
    f"modulesContent.{LOGINS}.test": "'address' is missing",
    f"modulesContent.{LOGINS}.test.username": "not a string",
    f"modulesContent.{LOGINS}.test.password": "is in clear",
}
_NO_ADDRESS = {
    f"modulesContent.{LOGINS}.test2.address": "is empty",
}
_MODULES = f"modulesContent.{AGENT}.modules"
_BAD_OPTIONS = {
    f"{_MODULES}.csharpmodule.settings.image": PLACEHOLDER,
    f"{_MODULES}.csharpmodule.settings.createOptions03": "createOptions02 is expected",
    f"{_MODULES}.csharpfunction.settings.image": PLACEHOLDER,
    f"{_MODULES}.csharpfunction.settings.createOptions": "is not an object",
    f"{_MODULES}.csharpfunction2.settings.image": PLACEHOLDER,
    f"{_MODULES}.csharpfunction2.settings.createOptions03": "createOptions02 is expected",
}
INVALID = {
    "Azure_azure-iot-cli-extension__invalid_deployment.json": {
        "deployment": "'modulesContent' is missing"
    },
    "Azure_azure-iot-cli-extension__test_edge_deployment_ea_v90_eh_v91.json": {
        f"modulesContent.{AGENT}.schemaVersion": "is '9.0'; devices support 1.0, 1.1",
        f"modulesContent.{HUB}.schemaVersion": "is '9.1'; devices support",
    },
    "Azure_azure-iot-cli-extension__test_edge_deployment_malformed.json": {
        f"content.modulesContent.{AGENT}": "'runtime' is missing",
        f"content.modulesContent.{AGENT}.systemModules.edgeAgent.settings.image": "is empty",
        f"content.modulesContent.{AGENT}.systemModules.edgeHub.settings.image": "is empty",
        f"content.modulesContent.{AGENT}.modules.mongo-server.restartPolicy": "is 'on-failured'",
        f"content.modulesContent.{HUB}.routes.route1": "column 6: expected /",
    },
    "Azure_iotedgedev__deployment.manifest_invalid.json": {
        **_RENDERED_BADLY,
        **_BAD_CREDENTIALS,
        **_NO_ADDRESS,
        **_BAD_OPTIONS,
    },
    "Azure_iotedgedev__deployment.manifest_invalid_createoptions.json": {
        **_RENDERED_BADLY,
        **_BAD_OPTIONS,
    },
    "Azure_iotedgedev__deployment.manifest_invalid_schema.json": {
        **_RENDERED_BADLY,
        **_BAD_CREDENTIALS,
        **_NO_ADDRESS,
        f"modulesContent.{HUB}.routes.sensorTocsharpmodule": "sends messages to 'csharpmodule'",
        f"modulesContent.{HUB}.routes.csharpmoduleToIoTHub": "receives messages from 'csharpmod",
        f"modulesContent.{HUB}.routes.csharpfunctionToIoTHub": "receives messages from 'csharpfun",
    },
    "Azure_iotedgedev__deployment.template_invalidresult.json": {
        **_RENDERED_BADLY,
        **_BAD_CREDENTIALS,
        f"modulesContent.{LOGINS}.test2.password": "is in clear",
        f"modulesContent.{AGENT}.systemModules.edgeHub.settings.createOptions": "is an object",
        f"{_MODULES}.tempSensor.settings.createOptions": "is an object",
        **{
            f"{_MODULES}.{name}.settings.{key}": what
            for name in ("csharpmodule", "csharpfunction", "nonexist")
            for key, what in (("image", PLACEHOLDER), ("createOptions", "is an object"))
        },
    },
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts_real_manifests(name: str) -> None:
    assert problems(require(IOTEDGE / "manifests" / name).read_bytes()) == ()


REFUSED = [("manifests", *each) for each in REFUSED_MANIFESTS.items()]
REFUSED += [("invalid", *each) for each in INVALID.items()]


@pytest.mark.parametrize(("folder", "name", "expected"), REFUSED, ids=[each[1] for each in REFUSED])
def test_refuses_with_path_and_reason(folder: str, name: str, expected: dict[str, str]) -> None:
    found = problems(require(IOTEDGE / folder / name).read_bytes())
    assert {each.path for each in found} == set(expected)
    for each in found:
        assert expected[each.path] in each.what


MODULES_OF = {
    "Azure_azure-iot-cli-extension__deploymentTopLayer.json": ("registry", "IoTEdgeAPIProxy"),
    "Azure_azure-iot-cli-extension__test_edge_deployment_layered.json": ("mymodule0",),
    "Azure_azure-iot-cli-extension__test_edge_deployment_v11.json": (
        "SimulatedTemperatureSensor",
        "filtermodule",
    ),
    "Azure_iotedge__ExampleDeployment.json": ("AzureMonitorForIotEdgeModule",),
    "Azure_iotedgehubdev__deployment_with_create_options.json": ("tempSensor",),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_real_manifests_come_back_as_they_were(name: str) -> None:
    text = require(IOTEDGE / "manifests" / name).read_bytes().decode()
    for module in MODULES_OF[name]:
        old = next(o for o in _images(json.loads(text), module))
        patched = patch(text, module, IMAGE)
        assert patched == text.replace(f'"{old}"', f'"{IMAGE}"', 1)
        assert problems(patched.encode()) == ()
        # Back again, so that no other byte was touched.
        assert patched.replace(f'"{IMAGE}"', f'"{old}"') == text
    variables = Variables(module="fan", image=IMAGE)
    assert with_texts(fill(json.loads(text), variables)) == json.loads(text)


def _images(value: object, module: str) -> list[str]:
    found: list[str] = []
    for key, each in value.items() if isinstance(value, dict) else ():
        if key.split(".")[-1] == module and "settings" in each:
            found.append(each["settings"]["image"])
        found += _images(each, module)
    return found


def test_every_file_there_is_classified() -> None:
    folder = require(IOTEDGE / "manifests")
    assert {each.name for each in folder.iterdir()} == {*ACCEPTED, *REFUSED_MANIFESTS}
    assert {each.name for each in require(IOTEDGE / "invalid").iterdir()} == set(INVALID)


def schema(name: str) -> Draft4Validator:
    path: Path = require(IOTEDGE / "schemas" / name)
    return Draft4Validator(json.loads(path.read_bytes()))


WHOLE = "SchemaStore_schemastore__azure-iot-edge-deployment-2.0.json"


@pytest.mark.parametrize(
    ("name", "section"),
    [
        (WHOLE, None),
        ("SchemaStore_schemastore__azure-iot-edgeagent-deployment-1.1.json", "$edgeAgent"),
        ("SchemaStore_schemastore__azure-iot-edgehub-deployment-1.1.json", "$edgeHub"),
        ("SchemaStore_schemastore__azure-iot-edgehub-deployment-1.2.json", "$edgeHub"),
        ("Azure_azure-iot-cli-extension__azure-iot-edgehub-deployment-1.2.json", "$edgeHub"),
        ("Azure_azure-iot-cli-extension__azure-iot-edgeagent-deployment-1.1.json", "$edgeAgent"),
        ("Azure_azure-iot-cli-extension__azure-iot-edgehub-deployment-1.1.json", "$edgeHub"),
    ],
)
def test_the_public_schemas_agree_with_what_is_rendered(name: str, section: str | None) -> None:
    newest = everything()
    for made in (Deployment(modules=(FAN,), routes={"up": UP}), newest, newest.base):
        # The whole document's schema is of 1.1; each of $edgeHub's takes one version alone.
        told = replace(made, hub_schema="1.2" if "1.2" in name else "1.1")
        document = rendered(told)
        content = document["modulesContent"]
        schema(name).validate({section: content[section]} if section else document)


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_public_schema_agrees_on_whole_manifests(name: str) -> None:
    document = json.loads(require(IOTEDGE / "manifests" / name).read_bytes())
    # The schema knows neither layered deployments nor the older key.
    agrees = schema(WHOLE).is_valid(document)
    assert agrees == ("layered" not in name and "moduleContent" not in document)


def _missed(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Manifests the public schema accepts and a device refuses."""
    made: dict[str, dict[str, Any]] = {}

    def change(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        made[name] = copy.deepcopy(document)
        hub = made[name]["modulesContent"]["$edgeHub"]["properties.desired"]
        return agent_of(made[name]), hub

    agent, _ = change("tag and digest")
    agent["modules"]["fan"]["settings"]["image"] = f"r.io/fan:2@sha256:{'a' * 64}"
    agent, _ = change("5,000 characters")
    agent["modules"]["fan"]["settings"]["createOptions"] = json.dumps({"Cmd": ["x" * 4990]})
    _, hub = change("no route")
    hub["routes"]["up"]["route"] = "anything at all"
    agent, _ = change("version 9.9")
    agent["schemaVersion"] = "9.9"
    agent, _ = change("startup order with 1.0")
    agent["schemaVersion"] = "1.0"
    agent, _ = change("restart policy")
    agent["modules"]["fan"]["restartPolicy"] = "on-unhealthy"
    return made


def test_our_checks_refuse_what_the_public_schema_misses() -> None:
    check = schema(WHOLE)
    for name, document in _missed(rendered(Deployment(modules=(FAN,), routes={"up": UP}))).items():
        check.validate(document)
        assert problems(json.dumps(document).encode()), name
