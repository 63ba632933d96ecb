"""A module's container: in a network of the deployment's own, and on the host's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from mlpack.plan.containers import HOST, Held, LocalModule, Wanted, container

DEPLOYMENT = "/vans/deployment.json"
NETWORK = "mlpack-0123"
RELEASE = Held("registry.example.com/edge/fan:1", f"sha256:{'1' * 64}", "fan:1")
OTHER = Held("broker:2", f"sha256:{'2' * 64}")
PUBLISHED = {"PortBindings": {"5001/tcp": [{"HostPort": "8080"}]}}


def module(
    options: Mapping[str, object] | None = None, *, image: str = "x:1", order: int = 1
) -> LocalModule:
    return LocalModule(name="fan", image=image, order=order, options=options or {})


def wanted(
    options: Mapping[str, object] | None = None, network: str = NETWORK, image: Held = OTHER
) -> Wanted:
    return container(DEPLOYMENT, module(options), image, network, ["fan", "broker"])


def test_labels_say_whose_it_is_and_the_image_is_the_engines() -> None:
    found = wanted({"Labels": {"mine": "1"}})
    assert found.config["Image"] == "broker:2"
    assert found.config["Labels"] == {
        "mine": "1",
        "io.mlpack.up": DEPLOYMENT,
        "io.mlpack.up.module": "fan",
        "io.mlpack.up.order": "1",
        "io.mlpack.up.spec": found.spec,
    }


@pytest.mark.parametrize("mode", ["", None, "default", "azure-iot-edge"])
def test_it_is_found_by_its_name_in_the_deployments_network(mode: str | None) -> None:
    device = {"EndpointsConfig": {"azure-iot-edge": {"Aliases": ["old"]}}}
    found = wanted({"HostConfig": {"NetworkMode": mode, **PUBLISHED}, "NetworkingConfig": device})
    assert found.config["HostConfig"] == {"NetworkMode": NETWORK, **PUBLISHED}
    assert found.config["NetworkingConfig"] == {
        "EndpointsConfig": {NETWORK: {"Aliases": ["old", "fan"]}}
    }
    assert found.host_ports == ()


@pytest.mark.parametrize("network", [NETWORK, HOST])
@pytest.mark.parametrize("mode", ["none", "container:other", "mine"])
def test_another_network_of_its_own_stays(network: str, mode: str) -> None:
    found = wanted({"HostConfig": {"NetworkMode": mode}}, network)
    assert found.config["HostConfig"] == {"NetworkMode": mode}
    assert "NetworkingConfig" not in found.config
    assert found.host_ports == ()


def test_on_the_host_all_modules_are_at_the_loopback_address() -> None:
    found = wanted({"HostConfig": {"ExtraHosts": ["db:10.0.0.1"]}, "NetworkingConfig": {}}, HOST)
    assert found.config["HostConfig"] == {
        "NetworkMode": "host",
        "ExtraHosts": ["db:10.0.0.1", "fan:127.0.0.1", "broker:127.0.0.1"],
    }
    assert "NetworkingConfig" not in found.config


@pytest.mark.parametrize(
    ("options", "image", "env", "ports"),
    [
        ({"HostConfig": PUBLISHED}, RELEASE, ["MLPACK_PORT=8080"], (8080,)),
        ({"HostConfig": PUBLISHED, "Env": ["A=1"]}, RELEASE, ["A=1", "MLPACK_PORT=8080"], (8080,)),
        # What the manifest says of the port itself goes before.
        (
            {"HostConfig": PUBLISHED, "Env": ["MLPACK_PORT=7000"]},
            RELEASE,
            ["MLPACK_PORT=7000"],
            (7000,),
        ),
        ({}, RELEASE, None, (5001,)),
        # Who is no release listens where it wants to, whatever it is published as.
        ({"HostConfig": PUBLISHED}, OTHER, None, (5001,)),
        (
            {
                "HostConfig": {"PortBindings": {"1883/tcp": [{"HostPort": "1"}]}},
                "ExposedPorts": {"9001": {}, "53/udp": {}},
            },
            OTHER,
            None,
            (1883, 9001),
        ),
    ],
)
def test_on_the_host_a_release_listens_where_it_is_published(
    options: Mapping[str, object], image: Held, env: list[str] | None, ports: tuple[int, ...]
) -> None:
    found = wanted(options, HOST, image)
    assert found.config.get("Env") == env
    assert found.host_ports == ports


def test_a_module_that_asks_for_the_hosts_network_itself_gets_it_as_it_is() -> None:
    found = wanted({"HostConfig": {"NetworkMode": "host", **PUBLISHED}}, NETWORK, RELEASE)
    assert found.config["HostConfig"] == {"NetworkMode": "host", **PUBLISHED}
    assert found.host_ports == (5001,)


def test_the_spec_changes_with_all_the_manifest_says_and_nothing_else() -> None:
    asked = module({"Env": ["A=1"]})
    others = (
        module({"Env": ["A=2"]}),
        module({"Env": ["A=1"]}, image="x:2"),
        module({"Env": ["A=1"]}, order=2),
    )

    def spec(each: LocalModule, network: str = NETWORK, image: Held = OTHER) -> str:
        return container(DEPLOYMENT, each, image, network, ["fan"]).spec

    for same in (asked, replace(asked, running=False), replace(asked, pull=False)):
        assert spec(same) == spec(asked, image=RELEASE) == spec(asked)
    assert len({spec(asked), spec(asked, HOST), *map(spec, others)}) == 5
