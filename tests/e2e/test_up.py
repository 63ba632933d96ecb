"""``mlpack up`` and ``down`` on Debian 13's Docker and Compose: a fan and a broker."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.cli.test_registry import serving
from tests.command_schemas import validator
from tests.e2e.conftest import scratch
from tests.e2e.engines import Docker, compose_config, needs, run, trixie
from tests.examples.fan import EXAMPLE, trained
from tests.support import free_port, tiny_onnx
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

REPOSITORY = "registry.example.com/edge/vanfan"
BROKER = "localhost/broker:1"
LISTEN = "/usr/sbin/mosquitto -c /etc/mosquitto.conf"
SLOW = {"Cmd": ["/usr/bin/sleep", "99"], "StopTimeout": 2}
"""As the first process of a container it takes no SIGTERM, so that ending it takes its time."""

FAULTY = {"params": [450, 52, 240, 58]}


def program(name: str) -> list[Path]:
    """A program of this machine and what it is linked to."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/bin")
    assert found
    linked = run("ldd", found).split()
    return [Path(found), *(Path(each) for each in linked if each.startswith("/"))]


def broker_image(docker: Docker, folder: Path) -> None:
    """An image of this machine's Mosquitto, and of little else."""
    files = {"etc/passwd": "nobody:x:65534:65534::/:\n"}
    files["etc/mosquitto.conf"] = "listener 1883 0.0.0.0\nallow_anonymous true\n"
    archive = folder / "broker.tar"
    with tarfile.open(archive, "w", dereference=True) as tar:
        for path in {*program("mosquitto"), *program("cat"), *program("sleep")}:
            tar.add(path, str(path).lstrip("/"))
        for name, text in files.items():
            (folder / "file").write_text(text)
            tar.add(folder / "file", name)
    run(*docker.command("import", str(archive), BROKER))


@dataclass
class Here:
    """A project with a release, a daemon, and the manifest that runs the one on the other."""

    docker: Docker
    project: ProjectDirectory
    path: Path
    port: int
    broker_port: int

    def write(self, **change: Callable[[dict[str, Any]], object]) -> None:
        """Render the manifest again, with the broker in it, and each module changed as asked."""
        args = ["render", "vanfan", "--repository", REPOSITORY, "-o", str(self.path)]
        assert mlpack("-C", str(self.project.root), *args).exit_code == 0
        deployment = json.loads(self.path.read_text())
        agent = deployment["modulesContent"]["$edgeAgent"]["properties.desired"]
        modules = agent["modules"]
        options = json.loads(modules["vanfan"]["settings"]["createOptions"])
        options["HostConfig"]["PortBindings"] = {
            "5001/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(self.port)}]
        }
        modules["vanfan"]["settings"]["createOptions"] = json.dumps(options)
        modules["broker"] = self._broker()
        for name, how in change.items():
            how(modules if name == "all" else modules[name])
        self.path.write_text(json.dumps(deployment))

    def _broker(self) -> dict[str, Any]:
        bound = [{"HostIp": "127.0.0.1", "HostPort": str(self.broker_port)}]
        options = {
            "Cmd": LISTEN.split(),
            "ExposedPorts": {"1883/tcp": {}},
            "HostConfig": {"PortBindings": {"1883/tcp": bound}, "Memory": 64 * 1024 * 1024},
        }
        return {
            "type": "docker",
            "status": "running",
            "restartPolicy": "never",
            "imagePullPolicy": "never",
            "startupOrder": 0,
            "settings": {"image": BROKER, "createOptions": json.dumps(options)},
        }

    def call(self, *args: str) -> dict[str, Any]:
        """A command that does it, and its document."""
        done = mlpack("-C", str(self.project.root), "--json", *args, str(self.path))
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        validator(args[0]).validate(found)
        return found

    def up(self, *args: str) -> dict[str, Any]:
        """The modules by name."""
        return {each["name"]: each for each in self.call("up", *args)["modules"]}

    def refused(self, *args: str) -> str:
        """What is said where it does not."""
        done = mlpack("-C", str(self.project.root), "up", *args, str(self.path))
        assert done.exit_code == 1, done.output
        assert "Traceback" not in done.stderr
        return done.stderr

    def containers(self) -> dict[str, tuple[str, str]]:
        """Id and state of every container of the daemon, by its name."""
        way = ["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}} {{.State}}"]
        lines = (line.split() for line in run(*self.docker.command(*way)).splitlines())
        return {name: (id, state) for name, id, state in lines}

    def networks(self) -> set[str]:
        """The networks that are not Docker's own."""
        found = run(*self.docker.command("network", "ls", "--format", "{{.Name}}")).split()
        return set(found) - {"bridge", "host", "none"}

    def inspect(self, name: str) -> dict[str, Any]:
        """All Docker says of a container."""
        [found] = json.loads(run(*self.docker.command("inspect", name)))
        assert isinstance(found, dict)
        return found

    def reach(self, module: str, port: int) -> None:
        """Connect from the fan's container to another module, by its name."""
        code = f"import socket; socket.create_connection(({module!r}, {port}), 5).close()"
        run(*self.docker.command("exec", "vanfan", "/usr/bin/python3", "-c", code))

    def score(self, address: str) -> object:
        """What the fan says of a failing one."""
        asked = urllib.request.Request(f"{address}score", json.dumps(FAULTY).encode())
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read())["fault"]


@pytest.fixture(scope="module")
def releases(
    real_project: ProjectDirectory, tmp_path_factory: pytest.TempPathFactory
) -> ProjectDirectory:
    """The fan, released."""
    model = tmp_path_factory.mktemp("fan") / "fan.onnx"
    model.write_bytes(trained())
    script = str(EXAMPLE / "score.py")
    for command in (
        ["register", str(model), "--name", "vanfan", "--scoring", script],
        ["build", "vanfan"],
    ):
        done = mlpack("-C", str(real_project.root), *command)
        assert done.exit_code == 0, done.output
    return real_project


@pytest.fixture(scope="module")
def docker(request: pytest.FixtureRequest) -> Iterator[Docker]:
    """Debian 13's daemon with its own image store, or as parametrized with containerd's."""
    with scratch() as folder:
        settings = folder / "daemon.json"
        containerd = getattr(request, "param", "overlay2") == "containerd"
        settings.write_text(json.dumps({"features": {"containerd-snapshotter": containerd}}))
        configured = ("--config-file", str(settings))
        with Docker.started(folder / "docker", *configured, debian=trixie()) as started:
            yield started


@pytest.fixture
def here(
    docker: Docker, releases: ProjectDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Here]:
    needs("mosquitto")
    monkeypatch.setenv("DOCKER_HOST", docker.address)
    monkeypatch.setenv("DOCKER_CONFIG", str(compose_config(tmp_path / "docker-config")))
    broker_image(docker, tmp_path)
    found = Here(docker, releases, tmp_path / "deployment.json", free_port(), free_port())
    found.write()
    yield found
    mlpack("down", str(found.path))
    assert found.containers() == {}
    assert found.networks() == set()


def connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("docker", ["overlay2", "containerd"], indirect=True)
def test_it_runs_scores_changes_what_changed_and_leaves_nothing(here: Here) -> None:
    planned = here.up("--dry-run")
    assert {name: each["action"] for name, each in planned.items()} == {
        "broker": "create",
        "vanfan": "create",
    }
    assert here.containers() == {}

    first = here.up()
    assert list(first) == ["broker", "vanfan"]  # as they start
    assert [each["state"] for each in first.values()] == ["running", "ready"]
    assert first["broker"]["addresses"] == [f"127.0.0.1:{here.broker_port}"]
    assert first["vanfan"]["release"] == "vanfan:1"
    [address] = first["vanfan"]["addresses"]
    assert here.score(address) == "1"
    assert connect(here.broker_port)
    assert_as_the_manifest_says(here)
    here.reach("broker", 1883)

    before = here.containers()
    again = here.up()
    assert {each["action"] for each in again.values()} == {"keep"}
    assert here.containers() == before

    here.write(vanfan=lambda module: module["env"].update({"FAN_NOTE": {"value": "new"}}))
    changed = here.up()
    assert (changed["broker"]["action"], changed["vanfan"]["action"]) == ("keep", "replace")
    after = here.containers()
    assert after["broker"] == before["broker"]
    assert after["vanfan"][0] != before["vanfan"][0]
    assert set(after) == {"broker", "vanfan"}
    assert "FAN_NOTE=new" in here.inspect("vanfan")["Config"]["Env"]

    here.write(all=lambda modules: modules.pop("broker"))
    assert here.call("up")["removed"] == ["broker"]
    assert set(here.containers()) == {"vanfan"}

    gone = here.call("down")
    assert gone["removed"] == ["vanfan"]
    assert here.containers() == {}
    assert here.networks() == set()
    assert here.call("down") == {**gone, "removed": [], "network": None}


def assert_as_the_manifest_says(here: Here) -> None:
    fan, broker = here.inspect("vanfan"), here.inspect("broker")
    assert fan["HostConfig"]["ReadonlyRootfs"] is True
    assert fan["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert broker["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert broker["HostConfig"]["Memory"] == 64 * 1024 * 1024
    assert broker["Config"]["Cmd"] == LISTEN.split()
    assert broker["State"]["StartedAt"] < fan["State"]["StartedAt"]


def test_on_the_hosts_network_modules_find_each_other_too(here: Here) -> None:
    broker_port = free_port()
    conf = here.path.parent / "mosquitto.conf"
    conf.write_text(f"listener {broker_port} 127.0.0.1\nallow_anonymous true\n")
    conf.chmod(0o644)
    options = {
        "Cmd": LISTEN.split(),
        "ExposedPorts": {f"{broker_port}/tcp": {}},
        "HostConfig": {"Binds": [f"{conf}:/etc/mosquitto.conf:ro"]},
    }
    here.write(
        broker=lambda module: module["settings"].update({"createOptions": json.dumps(options)})
    )
    found = here.up("--network", "host")
    assert found["vanfan"]["addresses"] == [f"http://127.0.0.1:{here.port}/"]
    assert found["broker"]["addresses"] == [f"127.0.0.1:{broker_port}"]
    assert here.score(found["vanfan"]["addresses"][0]) == "1"
    here.reach("broker", broker_port)
    assert here.networks() == set()


@pytest.mark.parametrize("network", ["own", "host"])
def test_a_port_that_is_in_use_is_named(here: Here, network: str) -> None:
    with socket.create_server(("127.0.0.1", here.port)):
        said = here.refused("--network", network)
    assert f"port {here.port} of this machine is in use" in said
    assert here.up()["vanfan"]["state"] == "ready"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/no", "Target": "/x"}]}},
            "bind source path does not exist",
        ),
        ({"Cmd": ["/no/such/program"]}, "no such file or directory"),
    ],
)
def test_a_change_that_docker_refuses_can_be_taken_back(
    here: Here, options: Mapping[str, object], reason: str
) -> None:
    here.up()
    here.write(
        broker=lambda module: module["settings"].update({"createOptions": json.dumps(options)})
    )
    assert reason in here.refused()
    here.write()
    assert [each["state"] for each in here.up().values()] == ["running", "ready"]
    assert set(here.containers()) == {"broker", "vanfan"}
    assert connect(here.broker_port)


def test_the_last_lines_of_a_module_that_ends_are_shown(here: Here) -> None:
    broken = json.dumps({"Cmd": ["/usr/bin/cat", "/no/such/file"]})
    here.write(broker=lambda module: module["settings"].update({"createOptions": broken}))
    said = here.refused()
    assert "the last lines of broker:" in said
    assert "/no/such/file: No such file or directory" in said
    assert "error: module broker: ended with status 1" in said
    # It and the others stay to be looked at.
    assert here.containers()["vanfan"][1] == "running"
    here.write(
        broker=lambda module: module.update(
            {"restartPolicy": "always", "settings": {"image": BROKER, "createOptions": broken}}
        )
    )
    assert "error: module broker: ended and was restarted" in here.refused()


def test_layers_over_a_base_run_as_iot_hub_merges_them(here: Here) -> None:
    here.write()
    whole = json.loads(here.path.read_text())
    modules = whole["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    broker = {"properties.desired.modules.broker": modules.pop("broker")}
    note = {"properties.desired.modules.vanfan.env.FAN_NOTE": {"value": "layered"}}
    layers = []
    for name, agent in (("broker", broker), ("note", note)):
        layers += ["--layer", str(here.path.with_name(f"{name}.json"))]
        content = {"$edgeAgent": agent, "broker": {}}
        here.path.with_name(f"{name}.json").write_text(json.dumps({"modulesContent": content}))
    here.path.write_text(json.dumps(whole))

    assert {each["state"] for each in here.up(*layers).values()} == {"running", "ready"}
    assert "FAN_NOTE=layered" in here.inspect("vanfan")["Config"]["Env"]
    assert {each["action"] for each in here.up(*layers).values()} == {"keep"}
    assert here.call("up")["removed"] == ["broker"]
    assert here.call("down")["removed"] == ["vanfan"]


def test_a_module_may_end_by_itself_with_status_0(here: Here) -> None:
    short = json.dumps({"Cmd": ["/usr/bin/cat", "/etc/passwd"]})
    here.write(broker=lambda module: module["settings"].update({"createOptions": short}))
    assert here.up()["broker"]["state"] == "ended with status 0"


def test_health_checks_and_modules_that_are_to_be_stopped(here: Here) -> None:
    def check(path: str) -> dict[str, str]:
        test = {"Test": ["CMD", "/usr/bin/cat", path], "Interval": 10**8, "Retries": 1}
        return {"createOptions": json.dumps({**SLOW, "Healthcheck": test})}

    here.write(broker=lambda module: module["settings"].update(check("/etc/passwd")))
    assert here.up()["broker"]["state"] == "ready"
    here.write(broker=lambda module: module["settings"].update(check("/no/such/file")))
    assert "error: module broker: still unhealthy" in here.refused("--timeout", "3")
    here.write(broker=lambda module: module.update({"status": "stopped"}))
    done = here.call("up")
    assert [each["name"] for each in done["modules"]] == ["vanfan"]
    assert done["removed"] == ["broker"]
    assert "module broker is not started: its status is stopped" in done["skipped"]
    here.write()
    assert here.up("--no-wait")["broker"]["action"] == "create"


def test_a_name_that_is_taken_is_refused_and_left_alone(here: Here) -> None:
    way = ["run", "-d", "--name", "broker", BROKER, "/usr/bin/sleep", "99"]
    foreign = run(*here.docker.command(*way))
    try:
        assert "module broker: another container of that name exists" in here.refused()
        assert set(here.containers()) == {"broker"}
    finally:
        run(*here.docker.command("rm", "-f", foreign))
    here.up()
    other = here.path.with_name("other.json")
    shutil.copy(here.path, other)
    done = mlpack("-C", str(here.project.root), "up", str(other))
    assert f"container of that name belongs to {here.path}" in done.stderr
    done = mlpack("down", str(other))
    assert done.exit_code == 0
    assert f"{here.path} is running" in done.stdout


def test_images_are_pulled_with_the_manifests_login_which_nobody_sees(
    here: Here, releases: ProjectDirectory, tmp_path: Path
) -> None:
    secret = "open sesame, please"
    (tmp_path / "password").write_text(secret)
    (tmp_path / "elsewhere").mkdir()
    model = tiny_onnx(tmp_path / "model.onnx")
    root = str(releases.root)
    for command in (["register", str(model), "--name", "pulled"], ["build", "pulled"]):
        assert mlpack("-C", root, *command).exit_code == 0
    login = ["--user", "edge", "--password-file", str(tmp_path / "password")]
    with serving("--store", str(releases.layout.root), *login) as (said, _):
        registry = said["address"].rpartition("/")[2]
        fan = f"{registry}/pulled:1"

        def wanted(password: str, image: str = fan) -> None:
            here.write(
                vanfan=lambda module: module["settings"].update({"image": image}),
                all=lambda modules: modules.pop("broker"),
            )
            deployment = json.loads(here.path.read_text())
            agent = deployment["modulesContent"]["$edgeAgent"]["properties.desired"]
            agent["runtime"]["settings"]["registryCredentials"] = {
                "ours": {"address": registry, "username": "edge", "password": password}
            }
            here.path.write_text(json.dumps(deployment))

        def up() -> tuple[int, str]:
            done = mlpack("-C", str(tmp_path / "elsewhere"), "up", str(here.path))
            return done.exit_code, done.output

        wanted("${ACR_PASSWORD}")
        status, text = up()
        assert status == 1
        assert f"error: {fan} cannot be pulled" in text
        assert "its login is a variable" in text
        wanted("a wrong one, sorry")
        status, text = up()
        assert status == 1
        assert "wrong one" not in text
        assert "check the name, and the login" in text
        wanted(secret)
        status, text = up()
        assert status == 0, text
        assert f"pulled {fan}" in text
        assert secret not in text
        assert secret not in json.dumps(here.inspect("vanfan"))
        wanted(secret, f"{registry}/nowhere:1")
        status, text = up()
        assert status == 1
        assert secret not in text
        assert here.containers()["vanfan"][1] == "running"
    run(*here.docker.command("rmi", "-f", fan))


def test_an_interrupted_run_is_finished_by_the_next(here: Here) -> None:
    slow = json.dumps(SLOW)
    here.write(broker=lambda module: module["settings"].update({"createOptions": slow}))
    here.up()
    here.write()
    command = [sys.executable, "-m", "mlpack", "-C", str(here.project.root), "up", str(here.path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        # Compose makes the new container first, under another name.
        while len(here.containers()) < 3:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: interrupted" in said
    assert {each["state"] for each in here.up().values()} == {"running", "ready"}
    assert set(here.containers()) == {"broker", "vanfan"}
    assert connect(here.broker_port)


def test_without_compose_nothing_is_done_and_the_packages_are_named(
    here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    said = here.refused()
    assert "docker compose version 2 is not installed" in said
    assert "apt-get install docker-compose (Debian 13)" in said
    assert here.containers() == {}
