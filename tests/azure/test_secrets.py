"""A whole run with secrets in every place they may come from: none is in anything it wrote."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.azure import acr
from tests.doubles import aml
from tests.doubles.authority import Answer, Request, served
from tests.doubles.iothub import IotHub
from tests.e2e.wire import Certificate
from tests.registry.registry import PASSWORD, USER, running
from tests.support import make_project, tiny_onnx

SETTINGS = """
[edge.registries.other]
address = "other.example.com"
username = "edge"
password = "${OTHER_PASSWORD}"

[deploy.groups.vans]
target = "tags.deviceGroup = 'vans'"
"""
OTHER, UNUSED, PROXY = "other-p4ssword", "client-s3cret-of-azure", "proxy-p4ssword"
WRONG = {"IDENTITY_HEADER": "wrong-header"}
RESOLVE = """
import socket
_found = socket.getaddrinfo
def _local(host, *args, **kwargs):
    here = isinstance(host, str) and host.endswith(".localhost")
    return _found("127.0.0.1" if here else host, *args, **kwargs)
socket.getaddrinfo = _local
"""


@dataclass
class World:
    """Azure, a registry, a hub, and a machine that knows their secrets."""

    root: Path
    workspace: aml.AzureML
    registry: acr.Double
    hub: IotHub
    environment: dict[str, str]
    said: list[str] = field(default_factory=list)

    @property
    def project(self) -> Path:
        return self.root / "home" / "fan"

    def run(self, *args: str, status: int = 0, more: Mapping[str, str] | None = None) -> str:
        """Run the command as a process of its own; keep all it says."""
        done = subprocess.run(
            [sys.executable, "-m", "mlpack", *args],
            env={**self.environment, **(more or {})},
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
        )
        self.said += [done.stdout, done.stderr]
        assert done.returncode == status, (args, done.stdout, done.stderr)
        return done.stdout

    def secrets(self) -> Mapping[str, str]:
        """Each secret there is, by what it is."""
        found = {
            "registry's password": PASSWORD,
            "registry's login": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
            "other registry's password": OTHER,
            "client secret": UNUSED,
            "proxy's password": PROXY,
        }
        several = {
            "key or token of the hub": self.hub.access.secrets(),
            "token of Azure": (*self.workspace.tokens.issued, self.workspace.tokens.header),
            "signature of the storage": self.workspace.container.issued,
            "password for devices": self.registry.logins.made,
        }
        for what, values in several.items():
            found |= {f"{what} {number}": value for number, value in enumerate(values)}
        return found


def leaks(secrets: Mapping[str, str], content: bytes) -> set[str]:
    """What ``content`` holds: as it is, in an address, in base64, or packed."""
    shown = [content]
    if content.startswith(b"\x1f\x8b"):
        shown.append(gzip.decompress(content))
    forms = {
        what: {value, quote(value, safe=""), base64.b64encode(value.encode()).decode()}
        for what, value in secrets.items()
    }
    return {
        what
        for what, values in forms.items()
        for value in values
        if any(value.encode() in each for each in shown)
    }


@pytest.fixture
def world(tmp_path: Path, certificate: Certificate) -> Iterator[World]:
    workspace = aml.AzureML()
    with ExitStack() as stack:
        images = stack.enter_context(running(tmp_path / "registry", login=True))
        registry = acr.Double(images.host, "", tokens=workspace.tokens)
        hub = stack.enter_context(IotHub().started(certificate))
        hub.add_devices(20, lambda number: {"deviceGroup": "vans"})

        def azure(asked: Request) -> Answer:
            ours = "/providers/Microsoft.ContainerRegistry/" in asked.path
            return (registry if ours else workspace).answer(asked)

        workspace.url = registry.url = stack.enter_context(served(azure, certificate))
        made = World(tmp_path, workspace, registry, hub, {})
        made.environment = _environment(made, certificate)
        make_project(made.project, settings=SETTINGS)
        settings = made.project / "mlpack.toml"
        text = settings.read_text().replace("registry.example.com", images.host)
        settings.write_text(text)
        (made.project / ".gitignore").write_text("*.env\nbase.json\ndeployment.json\n.mlpack/\n")
        subprocess.run(["git", "init", "-q", str(made.project)], check=True)
        tiny_onnx(made.project / "fan.onnx")
        yield made
        assert workspace.faults == registry.faults == []


def _environment(world: World, certificate: Certificate) -> dict[str, str]:
    """A machine with logins in all the places that are looked at."""
    home, code = world.root / "home", world.root / "code"
    (home / ".docker").mkdir(parents=True)
    code.mkdir()
    (code / "sitecustomize.py").write_text(RESOLVE)
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    auths = {"auths": {world.registry.host: {"auth": login}}}
    (code / "auth.json").write_text(json.dumps(auths))
    (home / "tmp").mkdir()
    checkout = Path(__file__).resolve().parents[2]
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{code}{os.pathsep}{checkout}",
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "REGISTRY_AUTH_FILE": str(code / "auth.json"),
        "REQUESTS_CA_BUNDLE": str(certificate.ca),
        "MLPACK_AZURE_CA": str(certificate.ca),
        "MLPACK_IOTHUB_CONNECTION_STRING": world.hub.access.connection_string(),
        "MLPACK_ACR": world.registry.registry,
        "MLPACK_WORKSPACE": world.workspace.workspace,
        "OTHER_PASSWORD": OTHER,
        "AZURE_CLIENT_SECRET": UNUSED,
        "HTTPS_PROXY": f"http://edge:{PROXY}@127.0.0.1:9",
        "NO_PROXY": "localhost,127.0.0.1,.localhost",
        **world.workspace.environment,
    }


@pytest.mark.slow
def test_no_secret_is_in_anything_a_whole_run_wrote(world: World) -> None:
    at = world.workspace.workspace
    world.run("register", "fan.onnx", "--workspace", at)
    world.run("register", "azureml:fan:1")
    world.run("build", "fan")
    world.run("push", "fan", "--workspace", at)
    world.run("azure", "token", "--group", "vans", "-o", "vans.env", "--json")
    world.run("azure", "token", "--group", "vans", "-o", "vans.env")
    world.run("render", "--base", "--token", "vans.env", "-o", "base.json", "--json")
    world.run("render", "fan", "--token", "vans.env", "-o", "deployment.json")
    world.run("render", "fan", "--layered", "-o", "fan-1.json", "--json")
    login = dict(
        line.split("=", 1) for line in (world.project / "vans.env").read_text().splitlines()
    )
    world.run("deploy", "--device-group", "vans", "--base", "--dry-run", "--json", more=login)
    world.run("deploy", "--device-group", "vans", "--base", "--yes", "--json", more=login)
    world.run("deploy", "--device-group", "vans", "--dry-run", "--json")
    world.run("deploy", "--device-group", "vans", "--yes", "--json")
    world.run("status", "--json")
    world.run("doctor", "--json")
    # And what is said where each of them is wrong.
    wrong = base64.b64encode(b"another key of the hub").decode()
    world.run(
        "status",
        status=1,
        more={
            "MLPACK_IOTHUB_CONNECTION_STRING": world.hub.access.connection_string(key=wrong),
        },
    )
    world.run("azure", "token", "--group", "vans", status=1, more=WRONG)
    assert len(world.said[-1].splitlines()) == 2  # an error and a hint, and no log of Azure's
    world.run("register", "azureml:fan:9", status=1)
    world.workspace.container.full = True
    tiny_onnx(world.project / "fan.onnx", bias=3)
    world.run("register", "fan.onnx", "--workspace", at, status=1)
    world.workspace.denied.add("/listSecrets")
    world.run("register", "fan.onnx", "--workspace", at, status=1)

    secrets = {**world.secrets(), "wrong key": wrong, "wrong header": "wrong-header"}
    assert len(secrets) > 15
    assert leaks(secrets, "\n".join(world.said).encode()) == set()

    home = world.root / "home"  # the cache of started bases is in it
    files = [each for each in home.rglob("*") if each.is_file() and not each.is_symlink()]
    assert any(each.name == "ledger.db" for each in files)
    found = {each.relative_to(home).as_posix(): leaks(secrets, each.read_bytes()) for each in files}
    last = f"password for devices {len(world.registry.logins.made) - 1}"
    assert {path: what for path, what in found.items() if what} == {
        "fan/vans.env": {last},
        "fan/base.json": {last, "other registry's password"},
        "fan/deployment.json": {last, "other registry's password"},
    }
    for name in ("vans.env", "base.json", "deployment.json"):
        assert (world.project / name).stat().st_mode & 0o777 == 0o600
    subprocess.run(["git", "-C", str(world.project), "add", "-A"], check=True)
    kept = subprocess.run(
        ["git", "-C", str(world.project), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "fan-1.json" in kept
    assert not {"vans.env", "base.json", "deployment.json"} & set(kept)


def test_the_search_finds_what_is_there() -> None:
    secrets = {"one": "a+secret/word"}
    for content in (b"xa+secret/word", b"?sig=a%2Bsecret%2Fword", b"YStzZWNyZXQvd29yZA=="):
        assert leaks(secrets, content) == {"one"}
        assert leaks(secrets, gzip.compress(content)) == {"one"}
    assert leaks(secrets, b"another word") == set()
