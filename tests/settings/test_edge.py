"""``[module]`` and ``[edge]`` of ``mlpack.toml``."""

from __future__ import annotations

from decimal import Decimal

import pytest

from mlpack.settings.edge import (
    ALL_GPUS,
    ContainerSettings,
    EdgeModuleSettings,
    EdgeSettings,
    ModuleSettings,
    RegistryLogin,
    RouteSettings,
    SystemModuleSettings,
)
from mlpack.settings.project_settings import InvalidSettings, ProjectSettings
from mlpack.settings.reader import settings_of

HEAD = '[model]\nname = "fan"\n'


def recipe(text: str) -> ProjectSettings:
    return ProjectSettings.parse(HEAD + text)


def test_without_a_word_there_are_defaults_that_cost_no_bytes() -> None:
    found = recipe("")
    assert found.module == ModuleSettings()
    assert found.edge == EdgeSettings()
    assert (found.edge.version, found.edge.keep_seconds) == ("1.6.1", 7200)
    assert found.edge.routes is None


def test_every_setting_of_a_module_is_one_of_both_tables() -> None:
    said = """
        env = { A = "1" }
        options = { HostConfig = { Privileged = true, CpuQuota = 50000 } }
        ports = ["8080:80", "127.0.0.1:8081:81/udp", "[::1]:1:2"]
        mounts = ["/data:/data:ro", "state:/state"]
        memory = "512 MiB"
        cpus = 0.5
        gpu = true
        startup_order = 4294967295
        restart = "never"
        pull = "never"
        twin = { limits = [1, 2.5], deep = { on = false } }
    """
    common = {
        "env": {"A": "1"},
        "options": {"HostConfig": {"Privileged": True, "CpuQuota": 50000}},
        "ports": ("8080:80", "127.0.0.1:8081:81/udp", "[::1]:1:2"),
        "mounts": ("/data:/data:ro", "state:/state"),
        "memory": 512 * 1024 * 1024,
        "cpus": Decimal("0.5"),
        "gpu": ALL_GPUS,
        "startup_order": 4294967295,
        "restart": "never",
        "pull": "never",
        "twin": {"limits": [1, 2.5], "deep": {"on": False}},
    }
    assert set(common) == {key for key, _, _ in settings_of(ContainerSettings)}
    found = recipe(f'[module]\nname = "m"\nport = 9\n{said}\n[edge.modules.x]\nimage="x:1"\n{said}')
    assert found.module == ModuleSettings(name="m", port=9, **common)  # type: ignore[arg-type]
    assert found.edge.modules == {"x": EdgeModuleSettings(image="x:1", **common)}  # type: ignore[arg-type]


def test_reads_the_rest_of_a_deployment() -> None:
    found = recipe("""
        [edge]
        version = "1.5.21"
        keep = "1d"
        [edge.agent]
        image = "mirror.example.com/agent@sha256:00"
        env = { RuntimeLogLevel = "info" }
        [edge.hub]
        schema = "1.3"
        options = { HostConfig = {} }
        [edge.registries.acr]
        address = "r.io"
        username = "u"
        password = "${ACR_PASSWORD}"
        [edge.routes]
        a = "FROM /* INTO $upstream"
        b = { route = "FROM /messages/* INTO $upstream", priority = 0, keep = "1h" }
    """).edge
    assert (found.version, found.keep_seconds) == ("1.5.21", 86400)
    image = "mirror.example.com/agent@sha256:00"
    assert found.agent == SystemModuleSettings(image=image, env={"RuntimeLogLevel": "info"})
    assert found.hub == SystemModuleSettings(schema="1.3", options={"HostConfig": {}})
    login = RegistryLogin(address="r.io", username="u", password="${ACR_PASSWORD}")
    assert found.registries == {"acr": login}
    assert found.routes == {
        "a": RouteSettings(route="FROM /* INTO $upstream"),
        "b": RouteSettings(route="FROM /messages/* INTO $upstream", priority=0, keep_seconds=3600),
    }


def test_an_empty_table_of_routes_is_no_route() -> None:
    assert recipe("[edge.routes]").edge.routes == {}


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("[edge]\nversoin = 1", "edge.versoin: is not a setting (did you mean 'version'?)"),
        ('[edge]\nversion = "1.6"', "edge.version: '1.6' is not a full version"),
        ('[edge]\nkeep = "soon"', "edge.keep: 'soon' is not a time"),
        ('[edge]\nkeep = "99999d"', "edge.keep: is more than 4294967295 seconds"),
        ("[edge.agent]\nnotes = 1", "edge.agent.notes: is not a setting"),
        ("[edge.modules.x]", "edge.modules.x: 'image' is missing"),
        ('[edge.modules.x]\nimage = "x"\nport = 1', "edge.modules.x.port: is not a setting"),
        ('[module]\nrestart = "on-failure"', "module.restart: is 'on-failure', not always or"),
        ('[module]\npull = "always"', "module.pull: is 'always', not on-create or never"),
        ('[module]\nports = ["80"]', "module.ports[0]: '80' is not HOST:CONTAINER"),
        ('[module]\nports = ["0:80"]', "module.ports[0]: '0:80' is not HOST:CONTAINER"),
        ('[module]\nports = ["80:65536"]', "is not HOST:CONTAINER"),
        ('[module]\nmounts = ["data"]', "module.mounts[0]: 'data' is not a mount"),
        ('[module]\nmounts = ["../x:/x"]', "module.mounts[0]: '../x:/x' is not a mount"),
        ('[module]\nmemory = "1 MB"', "module.memory: is 1000000 bytes, and engines give"),
        ('[module]\nmemory = "much"', "module.memory: 'much' is not a size"),
        ("[module]\ncpus = 0.001", "module.cpus: is 0.001, and not 0.01 to 1024"),
        ("[module]\ncpus = 0.1234", "module.cpus: is 0.1234"),
        ("[module]\ncpus = true", "module.cpus: is True"),
        ("[module]\ncpus = inf", "module.cpus: is inf"),
        ("[module]\ngpu = -1", "module.gpu: is -1, less than 0"),
        ("[module]\nstartup_order = 4294967296", "module.startup_order: is 4294967296, more"),
        ("[module]\ntwin = { at = 2026-01-01 }", "module.twin.at: cannot be written as JSON"),
        ("[module]\ntwin = { x = [nan] }", "module.twin.x[0]: cannot be written as JSON"),
        ("[edge.routes]\na = { priority = 1 }", "edge.routes.a: 'route' is missing"),
        ('[edge.routes]\na = { route = "x", priority = 10 }', "a.priority: is 10, more than 9"),
        ('[edge.registries.a]\naddress = "r.io"', "edge.registries.a: 'username' is missing"),
    ],
)
def test_refuses_with_the_setting_at_fault(said: str, what: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        recipe(said)
    assert what in str(caught.value)


def test_a_password_in_the_file_is_refused_and_not_repeated() -> None:
    said = '[edge.registries.a]\naddress = "r.io"\nusername = "u"\npassword = "hunter2"'
    with pytest.raises(InvalidSettings) as caught:
        recipe(said)
    assert "edge.registries.a.password: is not a variable of the environment" in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
