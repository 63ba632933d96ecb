"""How a registry is convinced: challenges, tokens, basic credentials. No I/O.

:func:`authorized` yields the requests to send and is sent the answers, so a test writes the
conversation down as a list. (distribution's token specification; RFC 7235.)
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode, urlsplit

from mlpack.stores.credentials import Credentials
from mlpack.stores.exchange import RegistryError, Request, Response, origin

Flow = Generator[Request, Response, Response]
CLIENT = "mlpack"
"""``client_id``: what a token service notes of us."""

MAX_TOKEN_BYTES = 1024 * 1024
_SCARCE = "insufficient_scope"
_PARAMETER = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Unauthorized(RegistryError):
    """A registry that wants other credentials than we have."""


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for with a 401."""

    scheme: str
    """``bearer`` or ``basic``."""

    realm: str = ""
    service: str = ""
    error: str = ""
    """Why a token was refused, such as ``insufficient_scope`` (RFC 6750)."""

    @classmethod
    def parse(cls, header: str) -> Challenge | None:
        """Read ``WWW-Authenticate``; ``None`` where nothing in it can be answered.

        >>> Challenge.parse('Bearer realm="https://a.example/token",service="reg"')
        Challenge(scheme='bearer', realm='https://a.example/token', service='reg', error='')
        """
        for scheme in ("bearer", "basic"):
            found = re.search(rf"(?:^|,)\s*{scheme}(?:\s+|$)", header, re.IGNORECASE)
            if found is None:
                continue
            given: dict[str, str] = {}
            for name, quoted, plain in _PARAMETER.findall(header[found.end() :]):
                given.setdefault(name.lower(), quoted or plain)
            return cls(scheme, *(given.get(key, "") for key in ("realm", "service", "error")))
        return None


@dataclass
class Memory:
    """What is known of one registry while the program runs."""

    origin: str
    credentials: Callable[[], Credentials | None]
    """Asked only after the registry asked: a helper program may have to run."""

    challenge: Challenge | None = None
    held: dict[str, str] = field(default_factory=dict, repr=False)
    """``Authorization`` by scope."""

    def known(self, scope: str) -> str | None:
        """What was accepted for ``scope``; basic credentials are for all of them."""
        basic = self.challenge is not None and self.challenge.scheme == "basic"
        return self.held.get("" if basic else scope)


def authorized(request: Request, scope: str, memory: Memory) -> Flow:
    """Yield ``request``; on a challenge get what it asks for, and yield it once more.

    ``scope`` is the least that the request needs. Nothing secret goes to another
    origin than the registry's and the token service the registry itself names. Raises
    :class:`Unauthorized`.
    """
    if origin(request.url) != memory.origin:
        return (yield request)
    if memory.challenge and memory.known(scope) is None:
        yield from _answer(memory.challenge, scope, memory)
    response = yield _signed(request, memory.known(scope))
    if response.status != 401 or origin(response.url or request.url) != memory.origin:
        return response
    # The first 401 of a registry, or a token that expired in the middle.
    challenge = Challenge.parse(response.headers.get("www-authenticate", ""))
    response.close()
    if challenge is None:
        raise Unauthorized(f"{request}: refused, and how to log in is not said")
    if challenge.scheme == "basic" and memory.known(scope) is not None:
        raise _wrong(memory)
    if challenge.error == _SCARCE and memory.known(scope) is not None:
        # The token is good and gives too little: another one would not give more.
        raise _wrong(memory, challenge, scope)
    memory.challenge = challenge
    yield from _answer(challenge, scope, memory)
    response = yield _signed(request, memory.known(scope))
    if response.status == 401 and origin(response.url or request.url) == memory.origin:
        again = Challenge.parse(response.headers.get("www-authenticate", ""))
        response.close()
        memory.held.clear()
        raise _wrong(memory, again, scope)
    return response


def _answer(challenge: Challenge, scope: str, memory: Memory) -> Generator[Request, Response, None]:
    credentials = memory.credentials()
    if challenge.scheme == "basic":
        if credentials is None or not credentials.username:
            raise _wrong(memory)
        memory.held[""] = _basic(credentials)
        return
    _check_realm(challenge, memory)
    response = yield _token_request(challenge, scope, credentials)
    old = response.status in {404, 405} and credentials is not None and credentials.token
    if old and credentials is not None and credentials.password:
        # A token service of before OAuth 2, such as Harbor's: with the password, then.
        response.close()
        response = yield _token_query(challenge, scope, credentials)
    with response:
        if response.status != 200:
            if response.status in {400, 401, 403}:
                raise _wrong(memory)
            raise RegistryError(
                f"the token service {urlsplit(challenge.realm).netloc} answers {response.status}",
                hint="try again later",
            )
        memory.held[scope] = f"Bearer {_token(response.read(MAX_TOKEN_BYTES), challenge)}"


def _check_realm(challenge: Challenge, memory: Memory) -> None:
    """A registry with TLS must not make us send a password without."""
    realm = urlsplit(challenge.realm)
    safe = realm.scheme == "https" or memory.origin.startswith("http:")
    if realm.scheme not in {"http", "https"} or not realm.hostname or not safe:
        raise RegistryError(f"{memory.origin} names no usable token service")


def _token_request(challenge: Challenge, scope: str, credentials: Credentials | None) -> Request:
    """Ask for a token: with an identity token by POST, with a password or none by GET."""
    if credentials is None or not credentials.token:
        return _token_query(challenge, scope, credentials)
    # Scopes in one parameter, as engines send them; ACR, Docker Hub and Artifactory take it so.
    form = {
        "grant_type": "refresh_token",
        "service": challenge.service,
        "scope": scope,
        "client_id": CLIENT,
        "refresh_token": credentials.token,
    }
    return Request(
        method="POST",
        url=challenge.realm,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode({key: text for key, text in form.items() if text}).encode(),
    )


def _token_query(challenge: Challenge, scope: str, credentials: Credentials | None) -> Request:
    asked = [("account", credentials.username)] if credentials else []
    asked += [("service", challenge.service)] if challenge.service else []
    asked += [("scope", each) for each in scope.split()]
    mark = "&" if "?" in challenge.realm else "?"
    return _signed(
        Request(method="GET", url=f"{challenge.realm}{mark}{urlencode(asked)}"),
        _basic(credentials) if credentials else None,
    )


def _token(body: bytes, challenge: Challenge) -> str:
    try:
        document = json.loads(body)
        found = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        found = None
    # No control characters: what comes from outside goes into a header of ours.
    if not isinstance(found, str) or not re.fullmatch(r"[\x21-\x7e]+", found):
        host = urlsplit(challenge.realm).netloc
        raise RegistryError(f"the token service {host} gives no token")
    return found


def _signed(request: Request, authorization: str | None) -> Request:
    if authorization is None:
        return request
    return replace(request, headers={**request.headers, "Authorization": authorization})


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _wrong(memory: Memory, challenge: Challenge | None = None, scope: str = "") -> Unauthorized:
    host = urlsplit(memory.origin).netloc
    if memory.credentials() is None:
        return Unauthorized(f"{host} wants a login", hint=f"log in with: docker login {host}")
    if challenge is not None and challenge.error == _SCARCE:
        return Unauthorized(
            f"{host}: the login there is for it does not give {scope}",
            hint="ask for that access, or log in as somebody who has it: docker login " + host,
        )
    return Unauthorized(
        f"{host} does not accept the credentials there are for it",
        hint=f"log in again with: docker login {host}",
    )
