"""Registries behind a proxy: whom it is asked for, what it is told, what is never shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from mlpack.errors import UsageError
from mlpack.project.directory import ProjectDirectory
from mlpack.registry.http_types import Proxies
from tests.registry.forwarding import forwarding
from tests.registry.registry import Registry, running
from tests.support import make_project, run, tiny_onnx

LOGIN = "edge%20team:p%40ss-word"
"""``edge team`` and ``p@ss-word``, as a URL has them."""


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("url", "without", "proxied"),
    [
        ("https://r.example.com/v2/", "", True),
        ("https://r.example.com/v2/", "example.com", False),
        ("https://example.com/v2/", "example.com", False),
        ("https://notexample.com/v2/", "example.com", True),
        ("https://example.com/v2/", ".example.com", True),
        ("https://r.example.com/v2/", ".example.com, other", False),
        ("https://r.example.com/v2/", "*.example.com", False),
        ("https://R.Example.com/v2/", "EXAMPLE.COM", False),
        ("https://r.example.com:8443/v2/", "example.com:8443", False),
        ("https://r.example.com/v2/", "example.com:8443", True),
        ("https://r.example.com/v2/", "example.com:443", False),
        ("https://r.example.com/v2/", "*", False),
        ("https://10.1.2.3:5000/v2/", "10.0.0.0/8", False),
        ("https://11.1.2.3:5000/v2/", "10.0.0.0/8", True),
        ("https://10.1.2.3/v2/", "10.1.2.3", False),
        ("https://[fd00::1]:5000/v2/", "fd00::/8", False),
        ("https://localhost:5000/v2/", "", False),
        ("https://127.0.0.1:5000/v2/", "", False),
        ("http://r.example.com/v2/", "", False),
    ],
)
def test_who_is_asked_for_through_the_proxy(url: str, without: str, proxied: bool) -> None:
    proxies = Proxies.read({"HTTPS_PROXY": "proxy.example:3128", "no_proxy": without})
    assert (proxies.of(url) is not None) is proxied


def test_how_a_proxy_is_written() -> None:
    read = Proxies.read({"https_proxy": f"http://{LOGIN}@proxy.example", "HTTP_PROXY": " "})
    assert read.secure is not None
    assert (read.secure.address, str(read.secure)) == (
        "http://proxy.example:80",
        "proxy.example:80",
    )
    assert read.secure.login == (b"edge team", b"p@ss-word")
    assert read.plain is None
    assert "ss-word" not in repr(read)
    assert Proxies.read({"HTTPS_PROXY": "https://p.example"}).secure is not None
    both = Proxies.read({"HTTPS_PROXY": "a:1", "https_proxy": "b:2"})
    assert str(both.secure) == "a:1", "the upper-case one goes first"


@pytest.mark.parametrize("text", ["socks5://u:secret@p:1080", "http://", "http://u:secret@p:x"])
def test_a_variable_that_names_no_proxy_is_named_without_its_password(text: str) -> None:
    with pytest.raises(UsageError, match="HTTPS_PROXY") as raised:
        Proxies.read({"HTTPS_PROXY": text})
    assert "secret" not in f"{raised.value} {raised.value.hint} {raised.value.__cause__!r}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("registry") / "secure", tls=True) as started:
        yield started


@pytest.fixture
def project(tmp_path: Path, secure: Registry) -> ProjectDirectory:
    """A project with a release, whose registry only the proxy can find."""
    made = make_project(tmp_path / "fan", settings='\n[registry]\nca = "ca.pem"\n')
    assert secure.ca is not None
    (made.root / "ca.pem").write_bytes(secure.ca.read_bytes())
    model = tiny_onnx(tmp_path / "1.onnx")
    for command in (("register", str(model), "--name", "fan"), ("build", "fan")):
        assert run("-C", str(made.root), *command).exit_code == 0
    return made


def port(registry: Registry) -> int:
    return int(registry.host.rpartition(":")[2])


def push(project: ProjectDirectory, to: str) -> Result:
    return run("-C", str(project.root), "--json", "push", "fan", "--to", to)


def test_a_registry_behind_a_proxy(
    project: ProjectDirectory, secure: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"registry.test:{port(secure)}"
    with forwarding({name: port(secure)}, "edge team:p@ss-word") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{LOGIN}@127.0.0.1:{proxy.port}")
        done = push(project, f"{name}/edge/fan")
        assert done.exit_code == 0, done.stderr
        asked = [each for each in proxy.asked if name in each]
        assert set(asked) == {f"CONNECT {name} HTTP/1.1"}
        wire = json.loads(done.stdout)["wire"]
        # What is counted is without TLS, which the tunnel carries too, and with CONNECT.
        counted = wire["sent_bytes"] + wire["received_bytes"]
        tls = proxy.moved - counted
        assert 0 < tls < 4_000 * len(asked) + proxy.moved * 0.2
        pulled = run("-C", str(project.root), "pull", f"{name}/edge/fan:1", "--as", "again")
        assert pulled.exit_code == 0, pulled.stderr
    said = done.stdout + done.stderr + pulled.stderr
    assert "ss-word" not in said


def test_a_proxy_that_wants_another_login(
    project: ProjectDirectory, secure: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"registry.test:{port(secure)}"
    with forwarding({name: port(secure)}, "edge:right") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://edge:wr0ng@127.0.0.1:{proxy.port}")
        done = push(project, f"{name}/edge/fan")
        assert done.exit_code == 1
        assert f"the proxy 127.0.0.1:{proxy.port} answers 407" in done.stderr
        assert "check HTTPS_PROXY" in done.stderr
        assert "wr0ng" not in done.stderr
        asked = [each for each in proxy.asked if name in each]
        assert len(asked) == 1, "asking again would not help"


def test_a_host_without_the_proxy(
    project: ProjectDirectory, secure: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forwarding({}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        done = push(project, f"{secure.host}/edge/direct")
        assert done.exit_code == 0, done.stderr
        monkeypatch.setenv("NO_PROXY", ".test")
        done = push(project, f"registry.test:{port(secure)}/edge/fan")
        assert done.exit_code == 1, "nobody but the proxy knows that name"
        # Other libraries of this process may ask for hosts of their own.
        assert not [each for each in proxy.asked if "registry.test" in each]


def test_plain_http_is_forwarded(
    project: ProjectDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path / "plain") as plain:
        name = f"registry.test:{port(plain)}"
        with forwarding({name: port(plain)}) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
            monkeypatch.setenv("MLPACK_REGISTRY_INSECURE", name)
            done = run("-C", str(project.root), "diff", "none", f"{name}/edge/none:1")
            assert "has no tag '1'" in done.stderr
            assert any(each.startswith(f"GET http://{name}/v2/") for each in proxy.asked)


def test_a_proxy_that_is_not_there(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://edge:s3cret@127.0.0.1:1")
    done = push(project, "registry.test/edge/fan")
    assert done.exit_code == 1
    assert "through the proxy 127.0.0.1:1" in done.stderr
    assert "s3cret" not in done.stderr
