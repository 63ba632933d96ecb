"""``mlpack registry serve`` as a user starts it, and the uploads a client resumes."""

from __future__ import annotations

import json
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlpack.api import registry
from mlpack.api.copy import copy_image
from mlpack.api.requests import Copy, ServeRegistry
from mlpack.api.session import Progress, Session
from mlpack.errors import UsageError
from mlpack.oci.descriptor import Digest
from mlpack.oci.image import ImageConfig, build_image
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import releases
from mlpack.registry.http import Client
from mlpack.registry.repository import Registries
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_image
from tests.e2e.wire import Certificate
from tests.support import AMD64, make_project, real_layer, run, tiny_onnx


@contextmanager
def serving(*args: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """The command on a free port; yields its answer and its process."""
    command = [sys.executable, "-m", "mlpack", "--json", "registry", "serve", "--port", "0", *args]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout
            text = ""
            while not text.endswith("}\n") and (line := process.stdout.readline()):
                text += line
            assert text, process.stderr.read() if process.stderr else ""
            yield json.loads(text), process
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the release fan:1."""
    made = make_project(tmp_path / "project")
    for command in (["register", str(tiny_onnx(tmp_path / "model.onnx"))], ["build", "fan"]):
        assert run("-C", str(made.root), *command).exit_code == 0
    return made.root


def test_it_serves_the_projects_releases_until_it_is_asked_to_end(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    for ended_by in (signal.SIGINT, signal.SIGTERM):
        with serving() as (answer, process):
            assert answer["repositories"] == ["base", "fan", "model/fan", "release/fan"]
            assert (answer["writable"], answer["tls"]) == (True, False)
            with urllib.request.urlopen(f"http://{answer['address']}/v2/fan/tags/list") as found:
                assert json.load(found) == {"name": "fan", "tags": ["1"]}
            process.send_signal(ended_by)
            assert process.wait(timeout=60) == 130
            assert process.stderr
            assert process.stderr.read() == ""


def test_a_cut_upload_goes_on_where_it_broke(tmp_path: Path) -> None:
    content = b"0123456789" * 500_000
    digest = Digest.of(content)
    with serving("--store", str(tmp_path / "images")) as (answer, _):
        at = f"http://{answer['address']}"
        begin = urllib.request.Request(f"{at}/v2/fan/blobs/uploads/", method="POST")
        with urllib.request.urlopen(begin) as begun:
            place = begun.headers["location"]
        host, port = answer["address"].split(":")
        with socket.create_connection((host, int(port))) as cut:
            head = (
                f"PATCH {place} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            cut.sendall(head.encode() + content[:3_000_000])
        stands = _stands(at + place, 3_000_000)
        assert 0 < stands <= 3_000_000
        last = urllib.request.Request(
            f"{at}{place}?digest={digest}",
            data=content[stands:],
            method="PUT",
            headers={"Content-Range": f"{stands}-{len(content) - 1}"},
        )
        with urllib.request.urlopen(last) as ended:
            assert ended.status == 201
        with urllib.request.urlopen(f"{at}/v2/fan/blobs/{digest}") as got:
            assert got.read() == content


def _stands(place: str, wanted: int) -> int:
    """Where the upload stands, once the server has seen that the connection is gone."""
    deadline, stands = time.monotonic() + 60, 0
    while stands < wanted and time.monotonic() < deadline:
        with urllib.request.urlopen(place) as seen:
            stands = int(seen.headers["range"].partition("-")[2]) + 1
        time.sleep(0.02)
    return stands


def test_tls_and_a_user(tmp_path: Path) -> None:
    made = Certificate.made(tmp_path / "pki")
    (tmp_path / "password").write_text("only I know\n")
    login = ["--user", "edge", "--password-file", str(tmp_path / "password")]
    keys = ["--certificate", str(made.chain), "--key", str(made.key)]
    trusted = ssl.create_default_context(cafile=str(made.ca))
    with serving("--store", str(tmp_path / "images"), *login, *keys) as (answer, process):
        at = f"https://{answer['address']}/v2/"
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(at, context=trusted)
        refused.value.close()
        request = urllib.request.Request(
            at, headers={"Authorization": "Basic ZWRnZTpvbmx5IEkga25vdw=="}
        )
        with urllib.request.urlopen(request, context=trusted) as found:
            assert found.status == 200
        process.terminate()
        said = process.communicate(timeout=60)
    assert "only I know" not in "".join(said)


def test_beyond_this_machine_strangers_do_not_push(tmp_path: Path) -> None:
    with serving("--store", str(tmp_path), "--host", "0.0.0.0") as (answer, process):
        assert not answer["writable"]
        port = answer["address"].split(":")[1]
        push = urllib.request.Request(
            f"http://127.0.0.1:{port}/v2/fan/blobs/uploads/", method="POST"
        )
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(push)
        refused.value.close()
        process.terminate()
        assert "pushes are refused; give a --user" in process.communicate(timeout=60)[1]


@pytest.mark.parametrize(
    ("host", "user", "read_only", "writable"),
    [
        ("127.0.0.1", "", False, True),
        ("127.9.9.9", "", False, True),
        ("localhost", "", False, True),
        ("::1", "", False, True),
        ("::1", "", True, False),
        ("0.0.0.0", "", False, False),
        ("0.0.0.0", "edge", False, True),
        ("0.0.0.0", "edge", True, False),
        ("registry.example.com", "", False, False),
    ],
)
def test_who_may_push(host: str, user: str, read_only: bool, writable: bool) -> None:
    request = ServeRegistry(host, user=user, read_only=read_only)
    assert registry.writable(request) is writable


@pytest.mark.parametrize(
    "settings",
    [
        {"user": "edge"},
        {"password_file": Path("x")},
        {"user": "a:b", "password_file": Path("x")},
        {"allow_delete": True, "read_only": True},
        {"certificate": Path("x")},
        {"key": Path("x")},
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        registry.check(ServeRegistry(**settings))


def test_a_port_that_is_taken_is_one_error(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("-C", str(project), "registry", "serve", "--port", str(port))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}: ")
    assert "hint: another program may use the port" in result.stderr


def test_an_empty_password_is_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("\n")
    named = ["--user", "edge", "--password-file", str(tmp_path / "password")]
    result = run("-C", str(project), "registry", "serve", "--port", "0", *named)
    assert result.exit_code == 1
    assert "no password" in result.stderr


@pytest.mark.parametrize("option", ["--password-file", "--certificate", "--key"])
def test_its_files_are_looked_for_in_the_projects_directory(project: Path, option: str) -> None:
    files = {"--password-file": "password", "--certificate": "chain.pem", "--key": "key.pem"}
    for name in files.values():
        (project / name).write_text("no PEM\n")
    (project / files[option]).unlink()
    arguments = [part for pair in files.items() for part in pair]
    result = run("-C", str(project), "registry", "serve", "--user", "edge", *arguments)
    assert result.exit_code == 1
    assert f"{project / files[option]} does not exist" in result.stderr


def test_mlpack_pushes_to_it_and_pulls_from_it(project: Path, tmp_path: Path) -> None:
    def mlpack(root: Path, *args: str) -> dict[str, Any]:
        result = run("-C", str(root), "--json", *args)
        assert result.exit_code == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    other = make_project(tmp_path / "other", base=False)
    with serving("--store", str(tmp_path / "images")) as (answer, _):
        place = f"{answer['address']}/fan"
        pushed = mlpack(project, "push", "fan:1", "--to", place)
        assert pushed["reference"].startswith(f"{place}@sha256:")
        again = mlpack(project, "push", "fan:1", "--to", place)
        assert (again["copied"], len(again["present"])) == ([], 1)
        mlpack(other.root, "pull", f"{place}:1")
        planned = mlpack(other.root, "diff", "none", f"{place}:1", "--engine", "podman")
    assert list(releases(LayoutStore(tmp_path / "images"), "fan")) == ["1"]
    assert (
        releases(other.layout, "fan")["1"] == releases(ProjectDirectory(project).layout, "fan")["1"]
    )
    assert planned["transfer"]["layers"] > 0


def _ask(url: str, method: str = "GET", **headers: str) -> int:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_without_a_user_no_web_page_is_answered(project: Path, tmp_path: Path) -> None:
    """A browser of this machine reaches the loopback address, whatever page it is on."""
    with serving("--store", str(tmp_path / "images")) as (answer, _):
        at = f"http://{answer['address']}/v2/"
        port = answer["address"].split(":")[1]
        assert _ask(at, Host="rebound.example") == 403
        assert _ask(f"{at}fan/blobs/uploads/", "POST", Origin="http://page.example") == 403
        assert _ask(at, Host="") == 403
        for name in (f"localhost:{port}", f"[::1]:{port}", "127.0.0.1"):
            assert _ask(at, Host=name) == 200
    (tmp_path / "password").write_text("only I know\n")
    login = ["--user", "edge", "--password-file", str(tmp_path / "password")]
    with serving("--store", str(tmp_path / "images"), *login) as (answer, _):
        at = f"http://{answer['address']}/v2/"
        given = {"Authorization": "Basic ZWRnZTpvbmx5IEkga25vdw=="}
        assert _ask(at, Host="registry.example", **given) == 200, "behind a proxy of its own"


@pytest.mark.parametrize("allowed", [True, False])
def test_deleting_is_allowed_on_purpose_only(project: Path, tmp_path: Path, allowed: bool) -> None:
    more = ["--allow-delete"] if allowed else []
    store = LayoutStore(tmp_path / "images")
    with serving("--store", str(store.root), *more) as (answer, _):
        place = f"{answer['address']}/fan"
        for to in (place, f"{place}:canary"):
            assert run("-C", str(project), "push", "fan:1", "--to", to).exit_code == 0
        digest = releases(store, "fan")["1"].digest
        at = f"http://{answer['address']}/v2/fan/manifests"
        assert _ask(f"{at}/1", "DELETE") == (202 if allowed else 405)
        assert _ask(f"{at}/canary") == 200, "another tag stays"
        if not allowed:
            assert _ask(f"{at}/{digest}", "DELETE") == 405
            assert list(releases(store, "fan")) == ["1"]
            return
        assert _ask(f"{at}/1") == 404
        assert _ask(f"{at}/1", "DELETE") == 404
        assert dict(releases(store, "fan")) == {}
        assert _ask(f"{at}/{digest}", "DELETE") == 202
        assert _ask(f"{at}/canary") == 404
        assert _ask(f"{at}/{digest}") == 404
        # A deleted release can come again.
        assert run("-C", str(project), "push", "fan:1", "--to", place).exit_code == 0
        assert _ask(f"{at}/1") == 200


def test_what_a_project_stands_on_is_not_deleted(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    with serving("--allow-delete") as (answer, _):
        at = f"http://{answer['address']}/v2"
        for name in ("base/manifests/latest", "model/fan/manifests/1", "release/fan/manifests/1"):
            assert _ask(f"{at}/{name}", "DELETE") == 403
        assert _ask(f"{at}/fan/manifests/1", "DELETE") == 202
        assert sorted(ProjectDirectory(project).layout.tags()) == ["base", "model/fan/1"]


def test_an_upload_over_a_restart_is_begun_again(tmp_path: Path) -> None:
    """It is lost with the server, and the push that was sending it goes on by itself."""
    content = random.Random(9).randbytes(30_000_000)
    layout = LayoutStore(tmp_path / "here")
    made = real_layer(layout, {"model.bin": content})
    layout.tag(put_image(layout, build_image(ImageConfig(platform=AMD64), [made])), "x")
    store = ["--store", str(tmp_path / "there")]
    with ExitStack() as stack:
        answer, first = stack.enter_context(serving(*store))
        port = answer["address"].split(":")[1]
        most = 0
        # Other blobs are sent meanwhile: those wait for the server, however long its start takes.
        there_again = threading.Event()
        there_again.set()

        def restart(report: Progress) -> None:
            nonlocal most
            before, most = most, max(report.done, most)
            if before < 10_000_000 <= most:
                there_again.clear()
                first.kill()
                first.wait(timeout=60)
                stack.enter_context(serving(*store, "--port", port))
                there_again.set()

        def pause(seconds: float) -> None:
            there_again.wait(60)

        here = Session(tmp_path, restart)
        with Registries(Client(sleep=pause)) as registries:
            here.registries = registries
            place = f"{answer['address']}/big:1"
            copied = copy_image(here, Copy(f"oci:{layout.root}:x", place))
            counted = copied.traffic
        assert counted.sent > len(content) + 1_000_000, "begun again from its first byte"
        there = LayoutStore(tmp_path / "there")
        assert validate(there) == ()
        assert there.exists(made.descriptor)
        assert not list(there.root.rglob(".part-*")), "what the killed one left is removed"
