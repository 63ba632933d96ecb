"""Logging in, as conversations written down; and where credentials are found."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import pytest

from mlpack.registry.auth import Challenge, LoginState, Unauthorized, authorized
from mlpack.registry.credentials import Credentials, Login
from mlpack.registry.http_types import RegistryError, Request, Response, redirected

SCOPE = "repository:edge/fan:pull"
ASK = Request(method="GET", url="https://r.example.com/v2/edge/fan/manifests/1")
BEARER = 'Bearer realm="https://auth.example.com/token",service="r.example.com",scope="too much"'


def memory(credentials: Credentials | None = None) -> LoginState:
    login = Login(credentials, "/home/u/.docker/config.json, auths 'r.example.com'")
    return LoginState("https://r.example.com:443", lambda _: login)


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


def test_a_token_that_is_good_for_less_is_kept() -> None:
    known = memory(Credentials("u", "p"))
    talk(known, [refused(BEARER), token("one"), OK])
    with pytest.raises(Unauthorized, match="include"):
        talk(known, [refused(f'{BEARER},error="insufficient_scope"')])
    (asked,) = talk(known, [OK])
    assert asked.headers["Authorization"] == "Bearer one", "no other is asked for"


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
        ([refused("Negotiate"), OK], "names no way to log in"),
        ([refused(""), refused("")], "names no way to log in"),
        ([refused(BEARER), Response.of(503, {})], "answers 503"),
        ([refused(BEARER), Response.of(200, {}, b"[]")], "no token"),
        ([refused(BEARER), token("a\r\nX: y")], "no token"),
        ([refused('Bearer realm="http://auth.example.com/"')], "no usable token service"),
        ([refused('Bearer realm="file:///etc/passwd"')], "no usable token service"),
        ([refused('Bearer realm="https://[::1"')], "no usable token service"),
        ([refused('Bearer realm="https://a.example.com:99999/"')], "no usable token service"),
        ([refused("Bearer")], "no usable token service"),
        ([refused(BEARER), Response.of(200, {}, b"null")], "no token"),
        ([refused(BEARER), Response.of(200, {}, b'{"token":null,"access_token":7}')], "no token"),
        (
            [refused(BEARER), Response.of(200, {}, b"<html><h1>Sign in</h1>")],
            "a login page answered instead of the token service auth.example.com",
        ),
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


TOKENS = Challenge("bearer", "https://a/t", "s")
BASIC = Challenge("basic", "x")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [BASIC]),
        ("Basic", [Challenge("basic")]),
        ("Basic realm=/", [Challenge("basic", "/")]),
        ('Basic realm="x", Bearer realm="https://a/t",service="s"', [TOKENS, BASIC]),
        ('Bearer realm="https://a/t",service="s", Basic realm="x"', [TOKENS, BASIC]),
        ('Negotiate, NTLM, Bearer realm="https://a/t",service="s"', [TOKENS]),
        ('Negotiate YIIBc==, Bearer realm="https://a/t",service="s"', [TOKENS]),
        ("bearer realm=https://a/t,service=s", [TOKENS]),
        ('BEARER REALM="https://a/t", SERVICE="s"', [TOKENS]),
        ('Bearer realm = "https://a/t" , service = "s"', [TOKENS]),
        ('Bearer realm="https://a/t" service="s"', [TOKENS]),
        ("Bearer realm='https://a/t',service='s'", [TOKENS]),
        ('Bearer service="s",realm="https://a/t', [TOKENS]),
        ('Bearer service="s",realm="https://a/t",service="other"', [TOKENS]),
        ('Bearer realm="/t?x=1,2",service="s"', [Challenge("bearer", "/t?x=1,2", "s")]),
        (r'Basic realm="\"x\", Bearer realm=y"', [Challenge("basic", '"x", Bearer realm=y')]),
        ('Bearer service="s", Basic realm="x"', [Challenge("bearer", "", "s"), BASIC]),
        ('Bearer realm="r",error="e"', [Challenge("bearer", "r", "", "e")]),
        ("", []),
        ("Digest realm=x", []),
        ("<html>", []),
        ("=,=,==\x00", []),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert list(Challenge.parse(header)) == expected


@pytest.mark.parametrize(
    ("realm", "asked"),
    [
        ("https://auth.example.com/t?a=b", "https://auth.example.com/t?a=b&"),
        ("/token", "https://r.example.com:443/token?"),
        ("//auth.example.com/token", "https://auth.example.com/token?"),
    ],
)
def test_realms(realm: str, asked: str) -> None:
    _, second, _ = talk(memory(), [refused(f'Bearer realm="{realm}"'), token(), OK])
    assert second.url.startswith(asked)


@pytest.mark.parametrize(
    "answer",
    [
        {"token": "abc"},
        {"access_token": "abc"},
        {"token": "", "access_token": "abc", "expires_in": "300"},
        {"token": None, "access_token": "abc", "expires_in": None, "issued_at": "never"},
        {"token": "abc\n"},
    ],
)
def test_tokens(answer: dict[str, str]) -> None:
    given = Response.of(200, {}, json.dumps(answer).encode())
    _, _, third = talk(memory(), [refused(BEARER), given, OK])
    assert third.headers["Authorization"] == "Bearer abc"


def test_basic_beside_an_unusable_token_service() -> None:
    both = refused('Bearer realm="http://auth.example.com/", Basic realm="r"')
    _, second = talk(memory(Credentials("u", "p")), [both, OK])
    assert second.headers["Authorization"].startswith("Basic ")


def test_a_refusal_without_a_challenge_is_asked_for_at_the_root() -> None:
    _, root, _, last = talk(memory(), [refused(""), refused(BEARER), token(), OK])
    assert root.url == "https://r.example.com:443/v2/"
    assert last.headers["Authorization"] == "Bearer abc"


def test_a_challenge_of_another_host_is_not_answered() -> None:
    """The registry's root may be redirected, and credentials are for the registry only."""
    headers = {"www-authenticate": 'Basic realm="r"'}
    elsewhere = Response(401, headers, iter([]), url="https://other.example.com/v2/")
    with pytest.raises(Unauthorized, match="names no way to log in"):
        talk(memory(Credentials("u", "p")), [refused(""), elsewhere])


@pytest.mark.parametrize("again", [BEARER + ',error="insufficient_scope"', 'Basic realm="h"', ""])
def test_a_token_that_is_refused_for_one_scope_changes_nothing_for_others(again: str) -> None:
    known = memory(Credentials("u", "p"))
    talk(known, [refused(BEARER), token("one"), OK])
    flow = authorized(ASK, f"{SCOPE} repository:edge/base:pull", known)
    next(flow)
    flow.send(token("two"))
    with pytest.raises(Unauthorized):
        flow.send(refused(again))
        flow.send(refused(""))
    (asked,) = talk(known, [OK])
    assert asked.headers["Authorization"] == "Bearer one"


def test_a_login_belongs_to_the_repository_of_the_scope() -> None:
    def find(repository: str) -> Login:
        return Login(Credentials(repository, "p"))

    known = LoginState("https://r.example.com:443", find)
    for name in ("a/b", "c"):
        flow = authorized(ASK, f"repository:{name}:pull", known)
        asked = next(flow)
        if name == "a/b":
            asked = flow.send(refused('Basic realm="r"'))
        pair = base64.b64encode(f"{name}:p".encode()).decode()
        assert asked.headers["Authorization"] == f"Basic {pair}"
        with pytest.raises(StopIteration):
            flow.send(OK)


def test_a_refusal_names_where_the_login_is_and_what_could_not_be_used() -> None:
    with pytest.raises(Unauthorized, match=r"config\.json, auths 'r\.example\.com'") as caught:
        talk(memory(Credentials("u", "p")), [refused(BEARER), Response.of(401, {})])
    assert caught.value.hint == "log in again with: docker login r.example.com"
    known = LoginState("https://r.example.com:443", lambda _: Login(problems=("x is broken",)))
    with pytest.raises(Unauthorized, match="requires a login, and x is broken"):
        talk(known, [refused('Basic realm="r"')])
