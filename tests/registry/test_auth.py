"""Logging in, as conversations written down; and where credentials are found."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mlpack.registry.auth import Challenge, LoginState, Unauthorized, authorized
from mlpack.registry.credentials import BadCredentials, Credentials, find_credentials
from mlpack.registry.http_types import RegistryError, Request, Response, redirected

SCOPE = "repository:edge/fan:pull"
ASK = Request(method="GET", url="https://r.example.com/v2/edge/fan/manifests/1")
BEARER = 'Bearer realm="https://auth.example.com/token",service="r.example.com",scope="too much"'


def memory(credentials: Credentials | None = None) -> LoginState:
    return LoginState("https://r.example.com:443", lambda: credentials)


def talk(known: LoginState, answers: Sequence[Response]) -> list[Request]:
    """Drive one flow with ``answers``; return what was asked."""
    flow = authorized(ASK, SCOPE, known)
    asked = [next(flow)]
    for answer in answers:
        try:
            asked.append(flow.send(answer))
        except StopIteration as done:
            assert done.value is answer
            return asked
    raise AssertionError("it wants more answers")


def refused(challenge: str) -> Response:
    return Response.of(401, {"www-authenticate": challenge})


def token(text: str = "abc") -> Response:
    return Response.of(200, {}, json.dumps({"token": text}).encode())


OK = Response.of(200, {})


def test_nothing_is_said_to_a_registry_that_asks_for_nothing() -> None:
    (asked,) = talk(memory(Credentials("u", "p")), [OK])
    assert asked.headers == {}


def test_an_anonymous_token_for_just_what_is_needed() -> None:
    first, second, third = talk(memory(), [refused(BEARER), token(), OK])
    assert first.headers == {}
    query = parse_qs(urlsplit(second.url).query)
    assert query == {"service": ["r.example.com"], "scope": [SCOPE]}, "no account"
    assert "Authorization" not in second.headers
    assert third.headers["Authorization"] == "Bearer abc"


def test_a_token_is_used_again_and_renewed_when_it_expired() -> None:
    known = memory()
    talk(known, [refused(BEARER), token("one"), OK])
    (asked,) = talk(known, [OK])
    assert asked.headers["Authorization"] == "Bearer one"
    old, _, new = talk(known, [refused(BEARER), token("two"), OK])
    assert (old.headers["Authorization"], new.headers["Authorization"]) == (
        "Bearer one",
        "Bearer two",
    )


def test_the_password_goes_to_the_token_service_only() -> None:
    first, second, third = talk(memory(Credentials("u", "p")), [refused(BEARER), token(), OK])
    assert second.headers["Authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
    assert "Basic" not in str([first.headers, third.headers])


def test_an_identity_token_is_exchanged() -> None:
    _, second, _ = talk(memory(Credentials("", token="idt")), [refused(BEARER), token(), OK])
    assert isinstance(second.body, bytes)
    form = parse_qs(second.body.decode())
    assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["idt"])
    assert second.method == "POST"
    assert "idt" not in second.url


def test_the_account_is_named() -> None:
    _, second, _ = talk(memory(Credentials("u", "p")), [refused(BEARER), token(), OK])
    assert parse_qs(urlsplit(second.url).query)["account"] == ["u"]


def test_several_scopes() -> None:
    """Engines join them in a form, and repeat the parameter in a query."""
    both = f"{SCOPE} repository:edge/base:pull"
    for credentials, wanted in (
        (Credentials("u", "p"), both.split()),
        (Credentials("", token="idt"), [both]),
    ):
        flow = authorized(ASK, both, memory(credentials))
        next(flow)
        asked = flow.send(refused(BEARER))
        text = asked.body.decode() if isinstance(asked.body, bytes) and asked.body else ""
        assert parse_qs(text or urlsplit(asked.url).query)["scope"] == wanted


AZURE = Credentials.of("00000000-0000-0000-0000-000000000000", "t0ken")


def test_azure_s_user_is_a_token() -> None:
    _, second, _ = talk(memory(AZURE), [refused(BEARER), token(), OK])
    assert isinstance(second.body, bytes)
    assert parse_qs(second.body.decode()) == {
        "grant_type": ["refresh_token"],
        "service": ["r.example.com"],
        "scope": [SCOPE],
        "client_id": ["mlpack"],
        "refresh_token": ["t0ken"],
    }
    assert "Authorization" not in second.headers


def test_a_token_service_that_knows_no_forms_gets_the_password() -> None:
    answers = [refused(BEARER), Response.of(405, {}), token(), OK]
    _, form, query, last = talk(memory(AZURE), answers)
    assert (form.method, query.method) == ("POST", "GET")
    assert query.headers["Authorization"].startswith("Basic ")
    assert last.headers["Authorization"] == "Bearer abc"


def test_rights_that_are_missing_are_named() -> None:
    scarce = refused(f'{BEARER},error="insufficient_scope"')
    with pytest.raises(Unauthorized, match="include repository:edge/fan:pull"):
        talk(memory(Credentials("u", "p")), [refused(BEARER), token(), scarce])


def test_basic() -> None:
    known = memory(Credentials("u", "p"))
    _, second = talk(known, [refused('Basic realm="r"'), OK])
    assert second.headers["Authorization"].startswith("Basic ")
    (asked,) = talk(known, [OK])
    assert asked.headers["Authorization"].startswith("Basic "), "from then on without being asked"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([refused(BEARER), Response.of(401, {})], "requires a login"),
        ([refused(BEARER), token(), refused(BEARER)], "requires a login"),
        ([refused('Basic realm="r"')], "requires a login"),
        ([refused("Negotiate")], "names no way to log in"),
        ([refused(BEARER), Response.of(503, {})], "answers 503"),
        ([refused(BEARER), Response.of(200, {}, b"[]")], "no token"),
        ([refused(BEARER), token("a\r\nX: y")], "no token"),
        ([refused('Bearer realm="http://auth.example.com/"')], "no usable token service"),
        ([refused('Bearer realm="file:///etc/passwd"')], "no usable token service"),
    ],
)
def test_what_cannot_be_answered(answers: list[Response], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        talk(memory(), answers)


def test_refused_credentials_are_not_shown() -> None:
    known = memory(Credentials("us3r", "passw0rd"))
    with pytest.raises(Unauthorized, match="not accept") as caught:
        talk(known, [refused(BEARER), token("t0ken"), refused(BEARER)])
    shown = f"{caught.value} {caught.value.hint} {known!r} {Credentials('us3r', 'passw0rd')!r}"
    assert not {word for word in ("us3r", "passw0rd", "t0ken") if word in shown}


def test_another_host_gets_no_credentials() -> None:
    known = memory(Credentials("u", "p"))
    talk(known, [refused(BEARER), token(), OK])
    other = Request(method="GET", url="https://cdn.example.com/blob")
    flow = authorized(other, SCOPE, known)
    assert next(flow).headers == {}
    moved = redirected(
        Request(method="GET", url=ASK.url, headers={"Authorization": "x", "Range": "bytes=1-"}),
        307,
        "https://cdn.example.com/blob?signature=1",
    )
    assert moved.headers == {"Range": "bytes=1-"}
    assert "signature" not in str(moved)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', Challenge("basic", "x")),
        (
            'Basic realm="x", Bearer realm="https://a/",service="s"',
            Challenge("bearer", "https://a/", "s"),
        ),
        ("bearer realm=https://a/t", Challenge("bearer", "https://a/t")),
        ("", None),
        ("Digest realm=x", None),
    ],
)
def test_challenges(header: str, expected: Challenge | None) -> None:
    assert Challenge.parse(header) == expected


def config(folder: Path, document: object) -> tuple[Path]:
    path = folder / "config.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return (path,)


PAIR = base64.b64encode(b"u:p:w").decode()


@pytest.mark.parametrize("name", ["r.example.com", "https://r.example.com/v2/"])
def test_credentials_in_the_file(tmp_path: Path, name: str) -> None:
    configs = config(tmp_path, {"auths": {name: {"auth": PAIR}}})
    assert find_credentials(configs, "r.example.com") == Credentials("u", "p:w")
    assert find_credentials(configs, "r.example.com:5000") is None


def test_docker_hub_goes_by_its_old_name(tmp_path: Path) -> None:
    configs = config(tmp_path, {"auths": {"https://index.docker.io/v1/": {"auth": PAIR}}})
    assert find_credentials(configs, "docker.io") == Credentials("u", "p:w")


def test_an_identity_token_in_the_file(tmp_path: Path) -> None:
    configs = config(tmp_path, {"auths": {"r.io": {"auth": PAIR, "identitytoken": "idt"}}})
    assert find_credentials(configs, "r.io") == Credentials("", token="idt")


def test_no_file_and_no_entry(tmp_path: Path) -> None:
    assert find_credentials((tmp_path / "none.json",), "r.io") is None
    assert find_credentials(config(tmp_path, {"auths": {"r.io": {}}}), "r.io") is None


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "docker-credential-tests"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_credential_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(
        tmp_path,
        monkeypatch,
        'read server; [ "$1 $server" = "get r.io" ] || '
        '{ echo "credentials not found in native keychain"; exit 1; }; '
        """echo '{"ServerURL":"r.io","Username":"u","Secret":"s"}'""",
    )
    for document in ({"credsStore": "tests"}, {"credHelpers": {"r.io": "tests"}}):
        assert find_credentials(config(tmp_path, document), "r.io") == Credentials("u", "s")
    assert find_credentials(config(tmp_path, {"credsStore": "tests"}), "other.io") is None


@pytest.mark.parametrize(
    "script", ["echo s3cret; exit 1", "echo s3cret", 'echo \'{"Username":1,"Secret":"s3cret"}\'']
)
def test_a_broken_helper_shows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    helper(tmp_path, monkeypatch, script)
    with pytest.raises(BadCredentials, match="docker-credential-tests") as caught:
        find_credentials(config(tmp_path, {"credsStore": "tests"}), "r.io")
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    "document",
    [
        "{",
        {"auths": {"r.io": {"auth": "s3cret!"}}},
        {"auths": {"r.io": {"auth": base64.b64encode(b"s3cret").decode()}}},
        {"auths": []},
        {"credsStore": "../s"},
    ],
)
def test_a_broken_file_is_named_and_not_shown(tmp_path: Path, document: object) -> None:
    with pytest.raises(BadCredentials) as caught:
        find_credentials(config(tmp_path, document), "r.io")
    assert "s3cret" not in f"{caught.value!r}"
