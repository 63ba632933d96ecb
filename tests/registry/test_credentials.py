"""Where logins are found: every form in which Docker, podman and Kubernetes keep them."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path

import pytest

from mlpack.registry import credentials
from mlpack.registry.credentials import AZURE_USER, Credentials, Logins, login_files


def packed(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


GOOD = {"auth": packed("u:p:w")}
BAD = {"auth": packed("other:x")}
LOGIN = Credentials("u", "p:w")
HOST = "r.io:5000"
PAIR = packed("a-user:and a password of some length, so that it is wrapped")
LONG = Credentials("a-user", "and a password of some length, so that it is wrapped")


def config(folder: Path, document: object, name: str = "config.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ([HOST], HOST),
        ([f"https://{HOST}"], f"https://{HOST}"),
        ([f"http://{HOST}/"], f"http://{HOST}/"),
        ([f"https://{HOST}/v1/"], f"https://{HOST}/v1/"),
        ([f"https://{HOST}/v2/"], f"https://{HOST}/v2/"),
        ([f"{HOST}/v1/"], f"{HOST}/v1/"),
        ([f"{HOST}/"], f"{HOST}/"),
        ([HOST.upper()], HOST.upper()),
        ([f"https://{HOST}/any/page"], f"https://{HOST}/any/page"),
        ([f"{HOST}/a"], f"{HOST}/a"),
        ([f"{HOST}/a/b"], f"{HOST}/a/b"),
        ([HOST, f"{HOST}/a", f"{HOST}/a/b"], f"{HOST}/a/b"),
        ([f"{HOST}/a/b", f"{HOST}/a", HOST], f"{HOST}/a/b"),
        ([HOST, f"{HOST}/a"], f"{HOST}/a"),
        ([f"{HOST}/other", f"{HOST}/a"], f"{HOST}/a"),
        ([f"{HOST}/other", HOST], HOST),
        ([f"https://{HOST}/v2/", HOST], HOST),
        ([f"https://{HOST}/other", f"https://{HOST}/v1/"], f"https://{HOST}/v1/"),
        (["*.io:5000", HOST], HOST),
        (["*.io:5000"], "*.io:5000"),
        (["*.io:5000/a", "*.io:5000"], "*.io:5000/a"),
        ([f"{HOST}/other"], None),
        ([f"{HOST}/a/b/c"], None),
        ([f"{HOST}/a/bc"], None),
        ([f"{HOST}/aa"], None),
        (["r.io"], None),
        (["https://r.io/v2/"], None),
        (["r.io:443"], None),
        (["x.r.io:5000", "io:5000", "*", "*.*.io:5000", ""], None),
    ],
)
def test_the_closest_key_wins(tmp_path: Path, keys: list[str], found: str | None) -> None:
    entries = {key: GOOD if key == found else BAD for key in keys}
    path = config(tmp_path, {"auths": entries})
    login = Logins([path]).find(HOST, "a/b")
    assert login.credentials == (LOGIN if found else None)
    assert login.place == (f"{path}, auths {found!r}" if found else "")


@pytest.mark.parametrize(
    "key",
    [
        "https://index.docker.io/v1/",
        "index.docker.io/v1/",
        "index.docker.io",
        "docker.io",
        "https://registry-1.docker.io/v2/",
        "docker.io/library",
        "docker.io/library/alpine",
    ],
)
def test_docker_hub_goes_by_its_names(tmp_path: Path, key: str) -> None:
    logins = Logins([config(tmp_path, {"auths": {key: GOOD}})])
    assert logins.find("docker.io", "library/alpine").credentials == LOGIN


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (GOOD, LOGIN),
        ({"username": "u", "password": "p:w"}, LOGIN),
        ({"username": "u", "password": "p:w", "auth": ""}, LOGIN),
        ({"username": "u", "password": "p:w", "auth": None}, LOGIN),
        ({"username": "u", "password": "p:w", "email": "u@r.io", **GOOD}, LOGIN),
        ({"username": "other", "password": "x", **GOOD}, LOGIN),
        ({"auth": PAIR + "\n"}, LONG),
        ({"auth": PAIR[:60] + "\n" + PAIR[60:]}, LONG),
        ({"auth": PAIR[:60] + "\r\n" + PAIR[60:] + " "}, LONG),
        ({"auth": PAIR.rstrip("=")}, LONG),
        ({"auth": packed("u:p") + "===="}, Credentials("u", "p")),
        ({"auth": packed("u:?>~") + "\0"[:0]}, Credentials("u", "?>~")),
        ({"auth": base64.urlsafe_b64encode(b"u:?>~?>~").decode()}, Credentials("u", "?>~?>~")),
        ({"auth": packed("u:p\0\0")}, Credentials("u", "p")),
        ({"auth": packed("u:p\u00e4ss")}, Credentials("u", "p\u00e4ss")),
        ({"auth": base64.b64encode(b"u:p\xe4ss").decode()}, Credentials("u", "p\udce4ss")),
        ({"auth": packed("<token>:idt")}, Credentials("", token="idt")),
        ({"auth": packed(f"{AZURE_USER}:t")}, Credentials(AZURE_USER, "t", "t")),
        ({"identitytoken": "idt"}, Credentials("", token="idt")),
        ({"identitytoken": "idt", **GOOD}, Credentials("u", "p:w", "idt")),
        ({"identitytoken": "", **GOOD}, LOGIN),
        (
            {"auth": packed(f"{AZURE_USER}:"), "identitytoken": "i"},
            Credentials(AZURE_USER, "", "i"),
        ),
        ({}, None),
        ({"auth": ""}, None),
        ({"auth": " "}, None),
        ({"username": "u"}, None),
        ({"password": "p"}, None),
    ],
)
def test_entries(tmp_path: Path, entry: dict[str, str], expected: Credentials | None) -> None:
    login = Logins([config(tmp_path, {"auths": {HOST: entry}})]).find(HOST, "a/b")
    assert (login.credentials, login.problems) == (expected, ())


FILE = {"auths": {HOST: GOOD}}
SECRET = {"type": "kubernetes.io/dockerconfigjson", "kind": "Secret"}


def secret(key: str, document: object) -> dict[str, object]:
    """A secret as kubectl shows it."""
    return {**SECRET, "data": {key: packed(json.dumps(document))}}


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("config.json", FILE),
        ("config.json", {**FILE, "credsStore": "", "credHelpers": None}),
        ("config.json", {**FILE, "credHelpers": {HOST: ""}, "credsStore": "not-installed"}),
        ("config.json", {**FILE, "psFormat": 7, "proxies": {}, "HttpHeaders": {"X": "y"}}),
        ("config.json", {"auths": {"x.io": "text", "y.io": {"auth": "%"}, HOST: GOOD}}),
        (".dockerconfigjson", FILE),
        (".dockercfg", FILE["auths"]),
        ("secret.json", secret(".dockerconfigjson", FILE)),
        ("secret.json", secret(".dockercfg", FILE["auths"])),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files(tmp_path: Path, name: str, document: object, encoding: str) -> None:
    (tmp_path / name).write_bytes(json.dumps(document).encode(encoding))
    assert Logins([tmp_path / name]).find(HOST).credentials == LOGIN


@pytest.mark.parametrize(
    "content",
    ["", "\n ", "{}", '{"auths":null}', '{"auths":{}}', json.dumps({**SECRET, "data": {"x": "y"}})],
)
def test_files_without_a_login_are_passed_over(tmp_path: Path, content: str) -> None:
    first = config(tmp_path, content, "first.json")
    login = Logins([tmp_path / "missing", first, config(tmp_path, FILE)]).find(HOST)
    assert (login.credentials, login.problems) == (LOGIN, ())


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        "null",
        {"auths": []},
        {"auths": {HOST: "s3cret"}},
        {"auths": {HOST: {"auth": "s3cret!"}}},
        {"auths": {HOST: {"auth": packed("s3cret")}}},
        {"auths": {HOST: {"auth": 7}}},
        {"credsStore": "../s3cret"},
        {"credsStore": ["s3cret"]},
        {"credHelpers": "s3cret"},
        {"credsStore": "is-not-installed"},
    ],
)
def test_what_is_broken_is_told_and_the_search_goes_on(tmp_path: Path, document: object) -> None:
    broken = config(tmp_path, document, "broken.json")
    login = Logins([broken]).find(HOST)
    assert login.credentials is None
    (problem,) = login.problems
    assert str(broken) in problem
    assert "s3cret" not in problem.replace("'../s3cret' is not the name", "")
    assert Logins([broken, config(tmp_path, FILE)]).find(HOST).credentials == LOGIN


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    login = Logins([tmp_path, pipe]).find(HOST)
    assert login.credentials is None
    assert [each.split(" ")[0] for each in login.problems] == [str(tmp_path), str(pipe)]


def test_the_order_of_files(tmp_path: Path) -> None:
    home = Path("/home/u")
    assert login_files({}, home, 7) == (
        Path("/run/containers/7/auth.json"),
        home / ".config/containers/auth.json",
        home / ".docker/config.json",
        home / ".dockercfg",
    )
    environment = {
        "REGISTRY_AUTH_FILE": "/given.json",
        "XDG_RUNTIME_DIR": "/run/user/7",
        "XDG_CONFIG_HOME": "/settings",
        "DOCKER_CONFIG": "/docker",
    }
    assert login_files(environment, None, 7) == (
        Path("/given.json"),
        Path("/docker/config.json"),
        Path("/docker/.dockerconfigjson"),
        Path("/run/user/7/containers/auth.json"),
        Path("/settings/containers/auth.json"),
    )
    first = config(tmp_path, {"auths": {HOST: GOOD}}, "first")
    second = config(tmp_path, {"auths": {f"{HOST}/a/b": BAD}}, "second")
    assert Logins([first, second]).find(HOST, "a/b").credentials == LOGIN, "the first file wins"
    given = json.dumps({"auths": {HOST: BAD}})
    found = Logins([first], given).find(HOST)
    assert (found.credentials, found.place) == (
        Credentials("other", "x"),
        f"DOCKER_AUTH_CONFIG, auths {HOST!r}",
    )
    assert Logins([first], "{").find(HOST).credentials == LOGIN


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "docker-credential-tests"
    program.write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


ANSWER = """echo '{"ServerURL":"x","Username":"u","Secret":"p:w"}'"""
NONE = 'echo "credentials not found in native keychain"; exit 1'


@pytest.mark.parametrize(
    ("document", "registry", "server"),
    [
        ({"credsStore": "tests"}, HOST, HOST),
        ({"credsStore": "tests", "auths": {HOST: {}}}, HOST, HOST),
        ({"credsStore": "tests", "auths": {HOST: BAD}}, HOST, HOST),
        ({"credHelpers": {HOST: "tests"}, "credsStore": "none"}, HOST, HOST),
        ({"credHelpers": {f"https://{HOST}": "tests"}}, HOST, HOST),
        ({"credHelpers": {f"{HOST}/a": "tests", HOST: "none"}}, HOST, HOST),
        ({"credsStore": "tests"}, "docker.io", "https://index.docker.io/v1/"),
        ({"credHelpers": {"docker.io": "tests"}}, "docker.io", "https://index.docker.io/v1/"),
    ],
)
def test_helpers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    document: object,
    registry: str,
    server: str,
) -> None:
    helper(tmp_path, monkeypatch, f'read server; [ "$1 $server" = "get {server}" ] && {ANSWER}')
    logins = Logins([config(tmp_path, document)])
    login = logins.find(registry, "a/b")
    assert login.credentials == LOGIN
    assert "docker-credential-tests" in login.place
    assert logins.find(registry, "a/c").credentials == LOGIN
    assert (tmp_path / "runs").read_text() == "run\n", "once for a registry"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (NONE, ""),
        ("cat > /dev/null; " + NONE, ""),
        ("echo s3cret; exit 1", "ended with status 1"),
        ("echo s3cret", "returned no user name and secret"),
        ("exit 0", "returned no user name and secret"),
        ("echo null", "returned no user name and secret"),
        ("""echo '{"Username":1,"Secret":"s3cret"}'""", "returned no user name and secret"),
        ("kill -9 $$", "ended with status -9"),
        ("sleep 60; " + ANSWER, "did not end in 1 s"),
        ("yes s3cret", "did not end in 1 s"),
    ],
)
def test_a_helper_without_an_answer_leaves_the_file_s_own_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    monkeypatch.setattr(credentials, "HELPER_SECONDS", 1.0)
    helper(tmp_path, monkeypatch, script)
    login = Logins([config(tmp_path, {"credsStore": "tests"})]).find(HOST)
    assert (login.credentials, len(login.problems)) == (None, bool(problem))
    assert problem in str(login.problems)
    assert "s3cret" not in repr(login)
    kept = Logins([config(tmp_path, {"credsStore": "tests", "auths": {HOST: GOOD}})]).find(HOST)
    assert kept.credentials == LOGIN


def test_what_a_helper_leaves_running_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, monkeypatch, f"sleep 20 & echo $! > {tmp_path}/left; {ANSWER} 2>&1")
    login = Logins([config(tmp_path, {"credsStore": "tests"})]).find(HOST)
    # It still runs, with the helper's output open; otherwise this raises.
    os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)
    assert login.credentials == LOGIN


def test_a_warning_of_a_helper_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, monkeypatch, f"echo warning >&2; {ANSWER}")
    login = Logins([config(tmp_path, {"credsStore": "tests"})]).find(HOST)
    assert login.credentials == LOGIN
