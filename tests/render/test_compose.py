"""Compose files of deployment manifests: every setting is carried over or refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml

from mlpack.iotedge.local import LocalModule
from mlpack.iotedge.manifest import CONFIG, HOST_CONFIG, InvalidDeployment
from mlpack.render.compose import ComposeProject, compose_document, compose_text, host_ports

PUBLISHED = {"PortBindings": {"5001/tcp": [{"HostPort": "8080"}]}}


def module(
    options: Mapping[str, object] | None = None,
    *,
    name: str = "fan",
    order: int = 1,
    env: Mapping[str, str] | None = None,
) -> LocalModule:
    where = f"{name}.createOptions"
    return LocalModule(
        name=name, image="x:1", options=options or {}, where=where, env=env or {}, order=order
    )


def service(each: LocalModule, project: ComposeProject | None = None) -> dict[str, object]:
    services = compose_document([each], project or ComposeProject(name="p"))["services"]
    assert isinstance(services, dict)
    found: dict[str, object] = services[each.name]
    return found


def members(options: Mapping[str, object]) -> dict[str, object]:
    """What a service has besides name, image and policies."""
    own = {"container_name", "image", "pull_policy", "restart"}
    return {key: value for key, value in service(module(options)).items() if key not in own}


def host(options: Mapping[str, object]) -> dict[str, object]:
    return members({"HostConfig": options})


def test_a_module_is_a_service_of_its_name() -> None:
    assert service(module(env={"A": "1"})) == {
        "container_name": "fan",
        "image": "x:1",
        "pull_policy": "missing",
        "restart": "always",
        "environment": {"A": "1"},
    }


def test_the_same_modules_give_the_same_text_whatever_their_order() -> None:
    project = ComposeProject(name="p", labels={"io.mlpack.up": "/a"})
    modules = [module(), module(name="broker", order=0)]
    text = compose_text(modules, project)
    assert text == compose_text(list(reversed(modules)), project)
    document = yaml.safe_load(text)
    assert list(document["services"]) == ["broker", "fan"]
    assert document["networks"] == {"default": {"name": "p"}}


def test_modules_start_in_the_order_of_the_manifest() -> None:
    modules = [module(name=name, order=order) for name, order in (("c", 2), ("a", 0), ("b", 0))]
    found = compose_document(modules, ComposeProject(name="p"))["services"]
    assert isinstance(found, dict)
    assert [each.get("depends_on") for each in found.values()] == [
        None,
        None,
        {"a": {"condition": "service_started"}, "b": {"condition": "service_started"}},
    ]


def test_compose_replaces_no_variable() -> None:
    text = compose_text([module({"Cmd": ["$HOME"]}, env={"A": "${B}$"})], ComposeProject(name="p"))
    found = yaml.safe_load(text)["services"]["fan"]
    assert (found["command"], found["environment"]) == (["$$HOME"], {"A": "$${B}$$"})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"Cmd": "x", "Entrypoint": ["y"]}, {"command": ["x"], "entrypoint": ["y"]}),
        ({"ExposedPorts": {"1883/tcp": {}}}, {"expose": ["1883/tcp"]}),
        ({"StopTimeout": 0}, {"stop_grace_period": "0s"}),
        ({"Volumes": {"/data": {}}}, {"volumes": [{"type": "volume", "target": "/data"}]}),
        (
            {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 10**8, "Timeout": 0, "Retries": 2}},
            {"healthcheck": {"test": ["CMD", "x"], "interval": "100000000ns", "retries": 2}},
        ),
        # Docker's defaults, as docker inspect prints them, are no settings.
        ({"Tty": False, "Cmd": None, "User": "", "Labels": {}, "HostConfig": {"Memory": 0}}, {}),
        # Docker ignores them too.
        ({"Memry": 1, "AttachStdout": True}, {}),
    ],
)
def test_options_of_a_container(
    options: Mapping[str, object], expected: Mapping[str, object]
) -> None:
    assert members(options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"Memory": 1024, "NanoCpus": 5 * 10**8}, {"mem_limit": 1024, "cpus": 0.5}),
        (
            {"CapDrop": ["ALL"], "Privileged": True, "ReadonlyRootfs": True},
            {"cap_drop": ["ALL"], "privileged": True, "read_only": True},
        ),
        ({"Tmpfs": {"/tmp": "rw,noexec", "/x": ""}}, {"tmpfs": ["/tmp:rw,noexec", "/x"]}),
        (
            {"PortBindings": {"5001/tcp": [{"HostIp": "127.0.0.1", "HostPort": 80}], "9": []}},
            {
                "ports": [
                    {"target": 5001, "protocol": "tcp", "published": "80", "host_ip": "127.0.0.1"}
                ]
            },
        ),
        (
            {
                "Binds": ["/a:/b:ro,z", "data:/d:nocopy"],
                "Mounts": [{"Type": "tmpfs", "Target": "/t"}],
            },
            {
                "volumes": [
                    "/a:/b:ro,z",
                    "data:/d:nocopy",
                    {"type": "tmpfs", "target": "/t"},
                ]
            },
        ),
        (
            {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}]},
            {
                "volumes": [
                    {
                        "type": "bind",
                        "source": "/a",
                        "target": "/b",
                        "read_only": True,
                        "bind": {"create_host_path": False},
                    }
                ]
            },
        ),
        (
            {"Devices": [{"PathOnHost": "/dev/a"}], "GroupAdd": ["20"]},
            {"devices": ["/dev/a:/dev/a:rwm"], "group_add": ["20"]},
        ),
        (
            {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}], "MemoryReservation": 9},
            {
                "mem_reservation": 9,
                "deploy": {
                    "resources": {
                        "reservations": {
                            "devices": [{"count": "all", "capabilities": ["gpu"]}],
                            "memory": "9",
                        }
                    }
                },
            },
        ),
        (
            {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}]},
            {"ulimits": {"nofile": {"soft": 1, "hard": 2}}},
        ),
        (
            {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}},
            {"logging": {"driver": "json-file", "options": {"max-size": "1m"}}},
        ),
        ({"NetworkMode": "host"}, {"network_mode": "host"}),
        ({"NetworkMode": "container:x"}, {"network_mode": "container:x"}),
        ({"NetworkMode": "mine"}, {"networks": {"mine": None}}),
        ({"NetworkMode": "azure-iot-edge"}, {}),
    ],
)
def test_options_of_the_host(options: Mapping[str, object], expected: Mapping[str, object]) -> None:
    assert host(options) == expected


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"HostConfig": {"Links": ["a:b"]}}, r"HostConfig\.Links: has no equivalent"),
        ({"HostConfig": {"PublishAllPorts": True}}, "PublishAllPorts: has no equivalent"),
        ({"HostConfig": {"MemorySwappiness": 0}}, "MemorySwappiness: has no equivalent"),
        ({"HostConfig": {"Binds": ["./a:/b"]}}, "not an absolute path or a volume's name"),
        ({"NetworkDisabled": True}, "NetworkDisabled: has no equivalent"),
        ({"Cmd": [1]}, r"Cmd\[0\]: is not a string"),
    ],
)
def test_what_compose_cannot_express_is_named(options: Mapping[str, object], problem: str) -> None:
    with pytest.raises(InvalidDeployment, match=problem):
        members(options)


def test_every_problem_of_every_module_is_named() -> None:
    options = {"HostConfig": {"Links": ["a:b"]}}
    with pytest.raises(InvalidDeployment) as refused:
        compose_text([module(options), module(options, name="broker")], ComposeProject(name="p"))
    assert [each.path for each in refused.value.problems] == [
        "fan.createOptions.HostConfig.Links",
        "broker.createOptions.HostConfig.Links",
    ]


@pytest.mark.parametrize("key", sorted(HOST_CONFIG | CONFIG))
def test_no_member_docker_knows_is_lost(key: str) -> None:
    """A member with a value is in the service, read elsewhere, or refused with its name."""
    read = {"HostConfig", "NetworkingConfig", "NetworkMode", "RestartPolicy", "Image", "Env"}
    idle = {"AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce", "ConsoleSize"}
    if key in read | idle:
        return
    options = {key: "1"} if key in CONFIG else {"HostConfig": {key: "1"}}
    try:
        found = members(options)
    except InvalidDeployment as error:
        assert key in str(error)
    else:
        assert found


def test_volumes_and_networks_with_names_are_declared() -> None:
    options = {
        "HostConfig": {"Binds": ["data:/d"], "NetworkMode": "mine"},
        "NetworkingConfig": {"EndpointsConfig": {"azure-iot-edge": {"Aliases": ["old"]}}},
    }
    found = compose_document([module(options)], ComposeProject(name="p"))
    assert found["volumes"] == {"data": {"name": "data"}}
    assert found["networks"] == {"default": {"name": "p"}, "mine": {"external": True}}
    services = found["services"]
    assert isinstance(services, dict)
    assert services["fan"]["networks"] == {"default": {"aliases": ["old"]}, "mine": None}


def test_on_the_host_all_modules_are_at_the_loopback_address() -> None:
    project = ComposeProject(name="p", on_host=True)
    options = {"ExposedPorts": {"1/tcp": {}}, "HostConfig": {"ExtraHosts": ["db:10.0.0.1"]}}
    found = service(module(options), project)
    assert found["network_mode"] == "host"
    assert found["extra_hosts"] == ["db:10.0.0.1", "fan:127.0.0.1"]
    assert "expose" not in found


@pytest.mark.parametrize("mode", ["none", "container:other", "mine"])
def test_another_network_of_its_own_stays(mode: str) -> None:
    options = {"HostConfig": {"NetworkMode": mode}}
    project = ComposeProject(name="p", on_host=True)
    assert service(module(options), project) == service(module(options))
    assert host_ports(module(options), project) == ()


@pytest.mark.parametrize(
    ("options", "release", "env", "listens", "ports"),
    [
        ({"HostConfig": PUBLISHED}, True, {}, "8080", (8080,)),
        # A port in the manifest's variables has precedence.
        ({"HostConfig": PUBLISHED}, True, {"MLPACK_PORT": "7000"}, "7000", (7000,)),
        ({}, True, {}, None, (5001,)),
        ({"HostConfig": PUBLISHED}, False, {}, None, (5001,)),
        (
            {
                "HostConfig": {"PortBindings": {"1883/tcp": [{"HostPort": "1"}]}},
                "ExposedPorts": {"9001": {}, "53/udp": {}},
            },
            False,
            {},
            None,
            (1883, 9001),
        ),
    ],
)
def test_on_the_host_a_release_listens_where_it_is_published(
    options: Mapping[str, object],
    release: bool,
    env: Mapping[str, str],
    listens: str | None,
    ports: tuple[int, ...],
) -> None:
    each = module(options, env=env)
    releases = frozenset({"fan"} if release else ())
    project = ComposeProject(name="p", releases=releases, on_host=True)
    variables = service(each, project).get("environment", {})
    assert isinstance(variables, dict)
    assert variables.get("MLPACK_PORT") == listens
    assert host_ports(each, project) == ports
    assert host_ports(each, ComposeProject(name="p", releases=releases)) == ()


def test_a_module_that_asks_for_the_hosts_network_itself_gets_it_as_it_is() -> None:
    each = module({"HostConfig": {"NetworkMode": "host", **PUBLISHED}})
    project = ComposeProject(name="p", releases=frozenset({"fan"}))
    assert "environment" not in service(each, project)
    assert host_ports(each, project) == (5001,)
