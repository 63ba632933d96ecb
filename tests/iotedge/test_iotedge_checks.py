"""Each check of a deployment manifest: one change to a good one, one problem, its path."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.iotedge import checks
from mlpack.iotedge.checks import problems, require_valid
from mlpack.iotedge.manifest import InvalidDeployment, Problem, read_manifest
from mlpack.iotedge.module import CHUNK, join_options, split_options
from mlpack.iotedge.shapes import image_problem
from mlpack.oci.descriptor import InvalidContent, Node

DIGEST = "sha256:" + "0" * 64
FAN = {
    "type": "docker",
    "status": "running",
    "restartPolicy": "always",
    "imagePullPolicy": "on-create",
    "startupOrder": 1,
    "version": "2",
    "env": {"LIMIT": {"value": 70}, "UNIT": {"value": "rpm"}, "ON": {"value": True}},
    "settings": {"image": f"r.io/fan@{DIGEST}", "createOptions": "{}"},
}
GOOD: dict[str, Any] = {
    "modulesContent": {
        "$edgeAgent": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "runtime": {
                    "type": "docker",
                    "settings": {
                        "minDockerVersion": "v1.25",
                        "loggingOptions": "",
                        "registryCredentials": {
                            "acr": {"address": "r.io", "username": "u", "password": "${P}"}
                        },
                    },
                },
                "systemModules": {
                    "edgeAgent": {"type": "docker", "settings": {"image": "m.io/agent:1.6.1"}},
                    "edgeHub": {
                        "type": "docker",
                        "status": "running",
                        "restartPolicy": "always",
                        "settings": {
                            "image": "m.io/hub:1.6.1",
                            "createOptions": json.dumps(
                                {"HostConfig": {"PortBindings": {"443/tcp": [{"HostPort": "443"}]}}}
                            ),
                        },
                    },
                },
                "modules": {"fan": FAN},
            }
        },
        "$edgeHub": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "routes": {
                    "up": "FROM /messages/modules/fan/outputs/* INTO $upstream",
                    "in": {
                        "route": 'FROM /* INTO BrokeredEndpoint("/modules/fan/inputs/x")',
                        "priority": 9,
                        "timeToLiveSecs": 0,
                    },
                },
                "storeAndForwardConfiguration": {"timeToLiveSecs": -1},
            }
        },
        "fan": {"properties.desired": {"limits": [1, 2.5, {"deep": None}]}},
    }
}
AGENT = "modulesContent.$edgeAgent.properties.desired"
HUB = "modulesContent.$edgeHub.properties.desired"
FAN_AT = f"{AGENT}.modules.fan"

Tree = dict[str, Any]
Change = Callable[[Tree, Tree, Tree], object]
"""Gets the agent's desired properties, the hub's, and the fan module; changes one of them."""


def put(target: Tree, key: str, value: object) -> None:
    target[key] = value


def ports(inside: str, binding: object) -> str:
    return json.dumps({"HostConfig": {"PortBindings": {inside: [binding]}}})


def changed(change: Change) -> bytes:
    document = copy.deepcopy(GOOD)
    content = document["modulesContent"]
    agent = content["$edgeAgent"]["properties.desired"]
    hub = content["$edgeHub"]["properties.desired"]
    change(agent, hub, agent["modules"]["fan"])
    return json.dumps(document).encode()


def test_the_good_manifest_has_no_problem() -> None:
    assert problems(json.dumps(GOOD).encode()) == ()
    assert list(require_valid(json.dumps(GOOD).encode()).modules or ()) == ["fan"]


BAD: dict[str, tuple[Change, str, str]] = {
    # --- $edgeAgent
    "agent version": (
        lambda a, h, m: put(a, "schemaVersion", "1.2"),
        f"{AGENT}.schemaVersion",
        "is '1.2'; devices support 1.0, 1.1",
    ),
    "version is a number": (
        lambda a, h, m: put(a, "schemaVersion", 1.1),
        f"{AGENT}.schemaVersion",
        "is not a string",
    ),
    "no modules": (lambda a, h, m: a.pop("modules"), AGENT, "'modules' is missing"),
    "modules are a list": (
        lambda a, h, m: put(a, "modules", []),
        f"{AGENT}.modules",
        "is not an object",
    ),
    "unknown member": (
        lambda a, h, m: put(a, "module", {}),
        f"{AGENT}.module",
        "is not a known member (did you mean 'modules'?)",
    ),
    "kubernetes": (
        lambda a, h, m: put(a["runtime"], "type", "kubernetes"),
        f"{AGENT}.runtime.type",
        "is 'kubernetes', not docker",
    ),
    "credential without password": (
        lambda a, h, m: a["runtime"]["settings"]["registryCredentials"]["acr"].pop("password"),
        f"{AGENT}.runtime.settings.registryCredentials.acr",
        "'password' is missing",
    ),
    "credential without address": (
        lambda a, h, m: put(a["runtime"]["settings"]["registryCredentials"]["acr"], "address", " "),
        f"{AGENT}.runtime.settings.registryCredentials.acr.address",
        "is empty",
    ),
    "credential with a #": (
        lambda a, h, m: put(
            a["runtime"]["settings"]["registryCredentials"],
            "r#io",
            {"address": "r.io", "username": "u", "password": "${P}"},
        ),
        f"{AGENT}.runtime.settings.registryCredentials.r#io",
        "'r#io' is not a name",
    ),
    "no hub": (
        lambda a, h, m: a["systemModules"].pop("edgeHub"),
        f"{AGENT}.systemModules",
        "'edgeHub' is missing",
    ),
    "agent with a status": (
        lambda a, h, m: put(a["systemModules"]["edgeAgent"], "status", "running"),
        f"{AGENT}.systemModules.edgeAgent.status",
        "is not a known member",
    ),
    "agent with a startup order": (
        lambda a, h, m: put(a["systemModules"]["edgeAgent"], "startupOrder", 0),
        f"{AGENT}.systemModules.edgeAgent.startupOrder",
        "is not a known member",
    ),
    "hub without restart policy": (
        lambda a, h, m: a["systemModules"]["edgeHub"].pop("restartPolicy"),
        f"{AGENT}.systemModules.edgeHub",
        "'restartPolicy' is missing",
    ),
    "51 modules": (
        lambda a, h, m: a["modules"].update(
            {f"m{n}": {**m, "settings": {"image": "m:1"}} for n in range(50)}
        ),
        f"{AGENT}.modules",
        "has 51 modules; a deployment may have 50",
    ),
    "startup order with 1.0": (
        lambda a, h, m: put(a, "schemaVersion", "1.0"),
        f"{FAN_AT}.startupOrder",
        "needs schemaVersion 1.1",
    ),
    # --- a module
    "dot in a module id": (
        lambda a, h, m: put(a["modules"], "fan.v2", m),
        f"{AGENT}.modules.fan.v2",
        "'fan.v2' is not a module id",
    ),
    "no settings": (lambda a, h, m: m.pop("settings"), FAN_AT, "'settings' is missing"),
    "no image": (
        lambda a, h, m: m["settings"].pop("image"),
        f"{FAN_AT}.settings",
        "'image' is missing",
    ),
    "tag and digest": (
        lambda a, h, m: put(m["settings"], "image", f"r.io/fan:2@{DIGEST}"),
        f"{FAN_AT}.settings.image",
        "has a tag and a digest, which edgeAgent refuses",
    ),
    "unknown setting": (
        lambda a, h, m: put(m["settings"], "createOption", "{}"),
        f"{FAN_AT}.settings.createOption",
        "is not a known member",
    ),
    "on-failure": (
        lambda a, h, m: put(m, "restartPolicy", "on-failure"),
        f"{FAN_AT}.restartPolicy",
        "which edgeAgent does not implement",
    ),
    "paused": (
        lambda a, h, m: put(m, "status", "paused"),
        f"{FAN_AT}.status",
        "is 'paused', not running or stopped",
    ),
    "pull policy": (
        lambda a, h, m: put(m, "imagePullPolicy", "always"),
        f"{FAN_AT}.imagePullPolicy",
        "is 'always', not on-create or never",
    ),
    "startup order too small": (
        lambda a, h, m: put(m, "startupOrder", -1),
        f"{FAN_AT}.startupOrder",
        "is -1, less than 0",
    ),
    "startup order too large": (
        lambda a, h, m: put(m, "startupOrder", 2**32),
        f"{FAN_AT}.startupOrder",
        "is 4294967296, more than 4294967295",
    ),
    "version is a number ": (
        lambda a, h, m: put(m, "version", 2),
        f"{FAN_AT}.version",
        "is not a string",
    ),
    "mistyped member": (
        lambda a, h, m: put(m, "restartpolicy", "always"),
        f"{FAN_AT}.restartpolicy",
        "did you mean 'restartPolicy'?",
    ),
    "env name": (
        lambda a, h, m: put(m["env"], "A+B", {"value": "1"}),
        f"{FAN_AT}.env.A+B",
        "'A+B' is not a variable name",
    ),
    "env without value": (
        lambda a, h, m: put(m["env"], "A", {}),
        f"{FAN_AT}.env.A",
        "'value' is missing",
    ),
    "env is a text": (
        lambda a, h, m: put(m["env"], "A", "1"),
        f"{FAN_AT}.env.A",
        "is not an object",
    ),
    "env value is a list": (
        lambda a, h, m: put(m["env"], "A", {"value": []}),
        f"{FAN_AT}.env.A.value",
        "is not a text, a number or a boolean",
    ),
    # --- createOptions
    "options are no JSON": (
        lambda a, h, m: put(m["settings"], "createOptions", "{"),
        f"{FAN_AT}.settings.createOptions",
        "is not JSON",
    ),
    "options are a list": (
        lambda a, h, m: put(m["settings"], "createOptions", "[1]"),
        f"{FAN_AT}.settings.createOptions",
        "is not an object",
    ),
    "options are not text": (
        lambda a, h, m: put(m["settings"], "createOptions", {}),
        f"{FAN_AT}.settings.createOptions",
        "is an object, and edgeAgent reads JSON in a text",
    ),
    "a part is missing": (
        lambda a, h, m: put(m["settings"], "createOptions02", ""),
        f"{FAN_AT}.settings.createOptions02",
        "is out of sequence: createOptions01 is expected",
    ),
    "parts that join to no JSON": (
        lambda a, h, m: put(m["settings"], "createOptions01", "}"),
        f"{FAN_AT}.settings.createOptions",
        "is not JSON (2 members joined)",
    ),
    "the first part is missing": (
        lambda a, h, m: put(m, "settings", {"image": "m:1", "createOptions01": "{}"}),
        f"{FAN_AT}.settings.createOptions01",
        "is out of sequence: createOptions is expected",
    ),
    "a value of 5,000 bytes": (
        lambda a, h, m: put(m["settings"], "createOptions", json.dumps({"Cmd": ["x" * 4990]})),
        f"{FAN_AT}.settings.createOptions",
        "a value may have 4096",
    ),
    "a port inside that is none": (
        lambda a, h, m: put(m["settings"], "createOptions", ports("http", {"HostPort": "80"})),
        f"{FAN_AT}.settings.createOptions.HostConfig.PortBindings.http",
        "is not a port such as 443/tcp",
    ),
    "a port of the host that is none": (
        lambda a, h, m: put(m["settings"], "createOptions", ports("80/tcp", {"HostPort": "70000"})),
        f"{FAN_AT}.settings.createOptions.HostConfig.PortBindings.80/tcp[0].HostPort",
        "is '70000', which is not a port number",
    ),
    "a port the hub binds": (
        lambda a, h, m: put(m["settings"], "createOptions", ports("80/tcp", {"HostPort": "443"})),
        f"{FAN_AT}.settings.createOptions.HostConfig.PortBindings.80/tcp[0].HostPort",
        "binds port 443/tcp of the host, which edgeHub already binds",
    ),
    # --- $edgeHub
    "hub version": (
        lambda a, h, m: put(h, "schemaVersion", "1.4"),
        f"{HUB}.schemaVersion",
        "is '1.4'; devices support 1.0, 1.1, 1.2, 1.3",
    ),
    "hub version not filled in": (
        lambda a, h, m: put(h, "schemaVersion", "${VERSION}"),
        f"{HUB}.schemaVersion",
        "holds ${VERSION}, a placeholder",
    ),
    "object route with 1.0": (
        lambda a, h, m: put(h, "schemaVersion", "1.0"),
        f"{HUB}.routes.in",
        "needs schemaVersion 1.1",
    ),
    "garbage route": (
        lambda a, h, m: put(h["routes"], "up", "to the hub please"),
        f"{HUB}.routes.up",
        "column 1: expected FROM",
    ),
    "garbage in an object route": (
        lambda a, h, m: put(h["routes"]["in"], "route", "x"),
        f"{HUB}.routes.in.route",
        "expected FROM",
    ),
    "route is a number": (
        lambda a, h, m: put(h["routes"], "up", 5),
        f"{HUB}.routes.up",
        "is not a string",
    ),
    "route name": (
        lambda a, h, m: put(h["routes"], "a#b", "FROM /* INTO $upstream"),
        f"{HUB}.routes.a#b",
        "'a#b' is not a route name",
    ),
    "priority": (
        lambda a, h, m: put(h["routes"]["in"], "priority", 10),
        f"{HUB}.routes.in.priority",
        "is 10, more than 9",
    ),
    "time to live of a route": (
        lambda a, h, m: put(h["routes"]["in"], "timeToLiveSecs", -1),
        f"{HUB}.routes.in.timeToLiveSecs",
        "is -1, less than 0",
    ),
    "route from nowhere": (
        lambda a, h, m: put(h["routes"], "up", "FROM /messages/modules/fam/* INTO $upstream"),
        f"{HUB}.routes.up",
        "receives messages from 'fam', which is not a module of this deployment "
        "(did you mean 'fan'?)",
    ),
    "route to another spelling": (
        lambda a, h, m: put(
            h["routes"], "up", 'FROM /* INTO BrokeredEndpoint("/modules/FAN/inputs/x")'
        ),
        f"{HUB}.routes.up",
        "sends messages to 'FAN', which is not a module",
    ),
    "time to live": (
        lambda a, h, m: put(h["storeAndForwardConfiguration"], "timeToLiveSecs", "7200"),
        f"{HUB}.storeAndForwardConfiguration.timeToLiveSecs",
        "is not a whole number",
    ),
}


@pytest.mark.parametrize(("change", "path", "what"), BAD.values(), ids=BAD.keys())
def test_one_change_gives_one_problem_at_its_path(change: Change, path: str, what: str) -> None:
    found = problems(changed(change))
    assert [each.path for each in found] == [path], [str(each) for each in found]
    assert what in found[0].what


def test_every_problem_is_named_at_once() -> None:
    def spoil(a: Tree, h: Tree, m: Tree) -> None:
        m["status"] = "paused"
        m["env"]["A B"] = {"value": "1"}
        h["routes"]["up"] = "?"

    content = changed(spoil)
    with pytest.raises(InvalidDeployment) as caught:
        require_valid(content)
    assert [each.path for each in caught.value.problems] == [
        f"{FAN_AT}.status",
        f"{FAN_AT}.env.A B",
        f"{HUB}.routes.up",
    ]
    assert all(str(each) in str(caught.value) for each in caught.value.problems)


def test_a_source_may_be_spelled_in_other_case_as_edgehub_compares_it() -> None:
    route = "FROM /messages/modules/FAN/* INTO $upstream"
    assert problems(changed(lambda a, h, m: put(h["routes"], "up", route))) == ()


def test_two_addresses_of_the_host_may_have_one_port() -> None:
    def both(address: str, other: str) -> tuple[Problem, ...]:
        def change(agent: Tree, hub: Tree, fan: Tree) -> None:
            settings = agent["systemModules"]["edgeHub"]["settings"]
            settings["createOptions"] = ports("443/tcp", {"HostPort": "443", "HostIp": other})
            option = ports("80/tcp", {"HostPort": "443", "HostIp": address})
            fan["settings"]["createOptions"] = option

        return problems(changed(change))

    assert both("10.0.0.1", "10.0.0.2") == ()
    for clash in (("10.0.0.1", ""), ("0.0.0.0", "10.0.0.1"), ("::", ""), ("::1", "::1")):
        (found,) = both(*clash)
        assert "binds port 443/tcp of the host, which edgeHub already binds" in found.what


def test_a_module_may_not_bind_a_port_twice() -> None:
    bindings = {"80/tcp": [{"HostPort": "81"}], "90/tcp": [{"HostPort": 81}]}
    option = json.dumps({"HostConfig": {"PortBindings": bindings}})
    (found,) = problems(changed(lambda a, h, m: put(m["settings"], "createOptions", option)))
    assert found.what == "binds port 81/tcp of the host, which it already binds"


# --- reading


@pytest.mark.parametrize("depth", [60, 900, 5000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_what_nests_deep_is_one_problem(depth: int, start: str, end: str) -> None:
    deep = start * depth + "1" + end * depth
    text = json.dumps(GOOD).replace('"limits": [1, 2.5, {"deep": null}]', f'"limits": {deep}')
    assert len(problems(text.encode())) <= 1
    assert depth == 60 or problems(text.encode())
    pieces = [deep[i : i + 400] for i in range(0, len(deep), 400)][:100]
    names = [f"createOptions{i:02}" if i else "createOptions" for i in range(len(pieces))]

    def change(agent: Tree, hub: Tree, fan: Tree) -> None:
        fan["settings"] = {"image": "r.io/x:1.0.0", **dict(zip(names, pieces, strict=True))}

    assert all(each.path.startswith(FAN_AT) for each in problems(changed(change)))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("NaN", "is not JSON (NaN is not a number)"),
        ("-Infinity", "is not JSON (-Infinity is not a number)"),
        ('"\\ud800x"', r"has an unpaired surrogate, which is not a character: '\ud800x'"),
        ('{"\\udfff": 1}', r"has an unpaired surrogate, which is not a character: '\udfff'"),
    ],
)
def test_what_python_reads_and_json_has_not_is_one_problem(value: str, what: str) -> None:
    text = json.dumps(GOOD).replace('"limits": [1, 2.5, {"deep": null}]', f'"limits": {value}')
    (found,) = problems(text.encode())
    assert (found.path, found.what) == ("deployment", what)
    whole = json.dumps(GOOD).replace('{"deep": null}', '"\\ud83d\\ude00"')
    assert problems(whole.encode()) == ()


def test_what_is_not_json_is_one_problem() -> None:
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        (found,) = problems(content)
        assert (found.path, found.what[:12]) == ("deployment", "is not JSON ")


def test_a_name_given_twice_is_refused() -> None:
    (found,) = problems(b'{"modulesContent": {"fan": {}, "fan": {}}}')
    assert found == Problem("deployment", "has 'fan' twice in one object")


@pytest.mark.parametrize("content", [b"[]", b"3", b'{"content": 5}', b'{"modulesContent": 5}'])
def test_another_document_is_refused(content: bytes) -> None:
    (found,) = problems(content)
    assert "is not an object" in found.what


def test_a_deployment_without_its_system_sections_is_refused() -> None:
    found = problems(b'{"modulesContent": {"fan": {"properties.desired": {}}}}')
    assert [str(each) for each in found] == [
        "modulesContent: '$edgeAgent' is missing",
        "modulesContent: '$edgeHub' is missing",
    ]


def test_the_content_of_a_configuration_is_found() -> None:
    configuration = {"id": "x", "content": GOOD, "priority": 10}
    assert problems(json.dumps(configuration).encode()) == ()
    configuration["content"] = {"modulesContent": {}}
    assert problems(json.dumps(configuration).encode())[0].path == "content.modulesContent"


# --- layered deployments


def layered(agent: object = None, hub: object = None, **modules: object) -> bytes:
    content = {"$edgeAgent": agent, "$edgeHub": hub, **modules}
    return json.dumps(
        {"modulesContent": {key: value for key, value in content.items() if value is not None}}
    ).encode()


MODULE_PATH = "properties.desired.modules.fan"
ROUTE_PATH = "properties.desired.routes.up"


def test_a_layered_deployment_is_read_into_the_same_tree() -> None:
    content = layered(
        {MODULE_PATH: FAN},
        # Its modules may come from the base deployment, so their names are not compared.
        {ROUTE_PATH: "FROM /messages/modules/other/* INTO $upstream"},
        fan={"properties.desired.limits": {"speed": 700}},
    )
    manifest = read_manifest(content)
    assert manifest.layered
    assert manifest.modules is not None
    assert manifest.modules["fan"].where == FAN_AT
    assert manifest.sections["fan"].desired.value == {"limits": {"speed": 700}}
    assert problems(content) == ()


def test_a_layer_may_change_one_part_of_a_module_of_the_base() -> None:
    assert problems(layered({f"{MODULE_PATH}.env.LIMIT": {"value": "80"}})) == ()
    (found,) = problems(layered({f"{MODULE_PATH}.env.LIMIT": {"values": "80"}}))[:1]
    assert found.path == f"{FAN_AT}.env.LIMIT"


LAYERED_BAD = {
    "system modules": (
        layered({"properties.desired.systemModules.edgeHub": {}}),
        f"{AGENT}.systemModules",
        "belongs in the base deployment",
    ),
    "half a module": (
        layered({MODULE_PATH: {"settings": {"image": "r.io/fan:2"}}}),
        FAN_AT,
        "'type' is missing",
    ),
    "a bad image": (
        layered({MODULE_PATH: {**FAN, "settings": {"image": "r.io/Fan:2"}}}),
        f"{FAN_AT}.settings.image",
        "is not an image name",
    ),
    "a bad route": (
        layered(None, {ROUTE_PATH: "FROM here INTO there"}),
        f"{HUB}.routes.up",
        "expected /",
    ),
    "a hub version": (
        layered(None, {"properties.desired.schemaVersion": "1.1"}),
        f"{HUB}.schemaVersion",
        "belongs in the base deployment",
    ),
    "edgeAgent whole": (
        layered({"properties.desired": {"modules": {}}}, {ROUTE_PATH: "FROM /* INTO $upstream"}),
        AGENT,
        "replaces all in a layered deployment",
    ),
    "edgeHub whole, and half of it": (
        layered({MODULE_PATH: FAN}, {"properties.desired": {"routes": {}}}),
        HUB,
        "'schemaVersion' is missing",
    ),
    "how long messages are kept": (
        layered(None, {"properties.desired.storeAndForwardConfiguration.timeToLiveSecs": -2}),
        f"{HUB}.storeAndForwardConfiguration.timeToLiveSecs",
        "is -2, less than -1",
    ),
    "a module that is taken away": (
        layered({MODULE_PATH: None}),
        FAN_AT,
        "is not an object",
    ),
    "both forms in one section": (
        layered({MODULE_PATH: FAN, "properties.desired": {}}),
        f"{AGENT}",
        "is set together with paths below properties.desired",
    ),
    "a key of another kind": (
        layered({"properties.reported.x": 1}),
        "modulesContent.$edgeAgent.properties.reported.x",
        "is not properties.desired or a path below it",
    ),
    "an empty part": (
        layered({"properties.desired.modules..x": 1}),
        "modulesContent.$edgeAgent.properties.desired.modules..x",
        "has an empty part in its path",
    ),
    "one path above another": (
        layered({f"{MODULE_PATH}.env": {}, MODULE_PATH: FAN}),
        f"modulesContent.$edgeAgent.{MODULE_PATH}",
        "set together with a path below it",
    ),
    "one path below a text": (
        layered(None, {ROUTE_PATH: "FROM /* INTO $upstream", f"{ROUTE_PATH}.route": "x"}),
        f"modulesContent.$edgeHub.{ROUTE_PATH}.route",
        "set together with a path above it",
    ),
}


@pytest.mark.parametrize(("content", "path", "what"), LAYERED_BAD.values(), ids=LAYERED_BAD.keys())
def test_a_layered_deployment_is_refused_for(content: bytes, path: str, what: str) -> None:
    found = problems(content)
    assert (path, True) in [(each.path, what in each.what) for each in found]


# --- image names

ACCEPTED_IMAGES = [
    "registry:latest",
    "mcr.microsoft.com/azureiotedge-hub:1.6.1",
    "localhost:5000/edge/fan:0.0.1-amd64",
    f"registry.example.com/edge/fan@{DIGEST}",
    "$upstream:443/edge/fan:3",
    f"$upstream:8000/edge/fan@{DIGEST}",
    "  r.io/fan:2  ",
]
REFUSED_IMAGES = [
    "",
    "  ",
    f"r.io/fan:2@{DIGEST}",
    "r.io/fan@sha256:0000",
    "r.io/Fan:2",
    "r.io/fan:",
    "r.io/fan:a:b",
    "r.io//fan:2",
    "r.io/fan :2",
    "<image>",
    "https://r.io/fan",
    "$upstream/edge/fan:3",
    "$upstream:/edge/fan:3",
    "$parent:443/edge/fan",
    "${MODULES.fan.amd64}",
    "r.io/fan:${TAG}",
]


@pytest.mark.parametrize("name", ACCEPTED_IMAGES)
def test_accepts_the_image_names_a_device_accepts(name: str) -> None:
    assert image_problem(name) == ""


@pytest.mark.parametrize("name", REFUSED_IMAGES)
def test_refuses_other_image_names(name: str) -> None:
    assert image_problem(name)


# --- createOptions in parts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(st.dictionaries(st.text(), JSON), st.integers(0, 3000))
def test_options_split_into_parts_join_to_themselves(
    options: dict[str, object], padding: int
) -> None:
    options = {**options, "Cmd": ["x" * padding]}
    parts = split_options(options)
    assert all(len(part) <= CHUNK for part in parts.values())
    assert join_options(Node(dict(reversed(parts.items())), "settings")).value == options


def test_twelve_parts_keep_their_order_in_any_case_of_letters() -> None:
    parts = split_options({"Cmd": ["x" * 6000]})
    assert list(parts)[::11] == ["createOptions", "createOptions11"]
    shouted = {key.upper() if "1" in key else key: value for key, value in parts.items()}
    assert join_options(Node(shouted, "settings")).value == {"Cmd": ["x" * 6000]}


def test_parts_numbered_without_a_zero_are_refused_from_the_tenth() -> None:
    # edgeAgent sorts the names as text: createOptions10 comes before createOptions2.
    parts: dict[str, object] = {f"createOptions{n or ''}": "" for n in range(11)}
    with pytest.raises(
        InvalidContent, match=r"createOptions10: is out of sequence: createOptions02 is expected"
    ):
        join_options(Node(parts, "settings"))


@pytest.mark.parametrize("text", ["", " ", "null", "NULL"])
def test_no_options_are_empty_options(text: str) -> None:
    assert join_options(Node({"createOptions": text}, "settings")).value == {}


def test_more_parts_than_edgeagent_reads_are_refused() -> None:
    parts: dict[str, object] = {
        f"createOptions{n:03}" if n else "createOptions": "" for n in range(101)
    }
    with pytest.raises(InvalidContent, match=r"createOptions100: edgeAgent reads 100"):
        join_options(Node(parts, "settings"))


# --- twins


def desired(value: object) -> bytes:
    document = copy.deepcopy(GOOD)
    document["modulesContent"]["fan"]["properties.desired"] = value
    return json.dumps(document).encode()


def nested(levels: int) -> dict[str, object]:
    inner: dict[str, object] = {}
    for _ in range(levels):
        inner = {"a": inner}
    return inner


TWIN = "modulesContent.fan.properties.desired"


def test_a_twin_of_exactly_its_limits_is_accepted() -> None:
    # Eight keys of 2 bytes with 4,094: 32,768.
    assert (
        checks.twin_bytes(full := {f"k{n}": "x" * 4094 for n in range(8)}) == checks.MAX_TWIN_BYTES
    )
    assert problems(desired(full)) == ()
    assert problems(desired(nested(10))) == ()
    assert problems(desired({"k" * 1024: "é" * 2048})) == ()


@pytest.mark.parametrize(
    ("value", "path", "what"),
    [
        (
            {f"k{n}": "x" * 4094 for n in range(8)} | {"y": False},
            TWIN,
            "has 32773 bytes; a twin may have 32768",
        ),
        (nested(11), TWIN + ".a" * 11, "is nested deeper than the 10 levels"),
        ({"a": [nested(10)]}, f"{TWIN}.a[0]" + ".a" * 10, "is nested deeper"),
        ({"k": "é" * 2049}, f"{TWIN}.k", "has 4098 bytes; a value may have 4096"),
        ({"k" * 1025: 1}, f"{TWIN}.{'k' * 1025}", "its name has 1025 bytes; a twin's may have"),
        ({"a.b": 1}, f"{TWIN}.a.b", "is not a name in a twin"),
        ({"$a": 1}, f"{TWIN}.$a", "is not a name in a twin"),
        ({"a b": 1}, f"{TWIN}.a b", "is not a name in a twin"),
        ({"a\tb": 1}, f"{TWIN}.a\tb", "is not a name in a twin"),
        ({"": 1}, f"{TWIN}.", "is not a name in a twin"),
    ],
)
def test_one_more_than_a_twin_takes_is_refused(value: object, path: str, what: str) -> None:
    (found,) = problems(desired(value))
    assert found.path == path
    assert what in found.what


@given(JSON)
def test_any_desired_properties_are_judged(value: object) -> None:
    for each in problems(desired(value)):
        assert each.path.startswith("modulesContent.fan")
