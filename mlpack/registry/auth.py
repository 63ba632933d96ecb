"""Registry authentication: challenges, tokens, basic credentials. No I/O.

:func:`authorized` yields the requests to send and receives the responses, so a test writes the
conversation as a list. (distribution's token specification; RFC 7235.)
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode, urlsplit

from mlpack.registry.credentials import Credentials
from mlpack.registry.http_types import RegistryError, Request, Response, origin

Flow = Generator[Request, Response, Response]
CLIENT = "mlpack"
"""``client_id``, which token services log."""

MAX_TOKEN_BYTES = 1024 * 1024
_INSUFFICIENT = "insufficient_scope"
_PARAMETER = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Unauthorized(RegistryError):
    """A registry that requires other credentials than there are."""


@dataclass(frozen=True)
class Challenge:
    """The authentication that a registry requires with a 401."""

    scheme: str
    """``bearer`` or ``basic``."""

    realm: str = ""
    service: str = ""
    error: str = ""
    """Why a token was refused, such as ``insufficient_scope`` (RFC 6750)."""

    @classmethod
    def parse(cls, header: str) -> Challenge | None:
        """Read ``WWW-Authenticate``; ``None`` if no scheme in it is supported.

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
class LoginState:
    """What is known of the login at one registry while the program runs."""

    origin: str
    credentials: Callable[[], Credentials | None]
    """Called only after a challenge: a helper program may have to run."""

    challenge: Challenge | None = None
    accepted: dict[str, str] = field(default_factory=dict, repr=False)
    """``Authorization`` by scope."""

    def header(self, scope: str) -> str | None:
        """Return the header for ``scope``, if known; basic credentials are for all scopes."""
        basic = self.challenge is not None and self.challenge.scheme == "basic"
        return self.accepted.get("" if basic else scope)

    def secrets(self) -> list[str]:
        """Return the tokens and passwords in use, which no message may repeat."""
        found = [each.partition(" ")[2] for each in self.accepted.values()]
        credentials = self.credentials() if self.accepted else None
        if credentials is not None:
            found += [credentials.password, credentials.token]
        return [each for each in found if each]


def authorized(request: Request, scope: str, login: LoginState) -> Flow:
    """Yield ``request``; on a challenge yield what it requires, and ``request`` once more.

    ``scope`` is the least that the request needs. Secrets are sent to the registry's origin and
    to the token service that the registry names, and nowhere else. Raises
    :class:`Unauthorized`.
    """
    if origin(request.url) != login.origin:
        return (yield request)
    if login.challenge and login.header(scope) is None:
        yield from _log_in(login.challenge, scope, login)
    response = yield _signed(request, login.header(scope))
    if response.status != 401 or origin(response.url or request.url) != login.origin:
        return response
    # The first 401 of a registry, or a token that expired in the middle.
    challenge = Challenge.parse(response.headers.get("www-authenticate", ""))
    response.close()
    if challenge is None:
        raise Unauthorized(f"{request}: unauthorized, and the registry names no way to log in")
    if challenge.scheme == "basic" and login.header(scope) is not None:
        raise _unauthorized(login)
    if challenge.error == _INSUFFICIENT and login.header(scope) is not None:
        # The token is valid but does not include the access: another one would not either.
        raise _unauthorized(login, challenge, scope)
    login.challenge = challenge
    yield from _log_in(challenge, scope, login)
    response = yield _signed(request, login.header(scope))
    if response.status == 401 and origin(response.url or request.url) == login.origin:
        again = Challenge.parse(response.headers.get("www-authenticate", ""))
        response.close()
        login.accepted.clear()
        raise _unauthorized(login, again, scope)
    return response


def _log_in(
    challenge: Challenge, scope: str, login: LoginState
) -> Generator[Request, Response, None]:
    credentials = login.credentials()
    if challenge.scheme == "basic":
        if credentials is None or not credentials.username:
            raise _unauthorized(login)
        login.accepted[""] = _basic(credentials)
        return
    _check_realm(challenge, login)
    response = yield _token_request(challenge, scope, credentials)
    old = response.status in {404, 405} and credentials is not None and credentials.token
    if old and credentials is not None and credentials.password:
        # A token service from before OAuth 2, such as Harbor's: use the password.
        response.close()
        response = yield _token_query(challenge, scope, credentials)
    with response:
        if response.status != 200:
            if response.status in {400, 401, 403}:
                raise _unauthorized(login)
            raise RegistryError(
                f"the token service {urlsplit(challenge.realm).netloc} answers {response.status}",
                hint="try again later",
            )
        login.accepted[scope] = f"Bearer {_token(response.read(MAX_TOKEN_BYTES), challenge)}"


def _check_realm(challenge: Challenge, login: LoginState) -> None:
    """Raise if a registry with TLS would make us send a password without."""
    realm = urlsplit(challenge.realm)
    safe = realm.scheme == "https" or login.origin.startswith("http:")
    if realm.scheme not in {"http", "https"} or not realm.hostname or not safe:
        raise RegistryError(f"{login.origin} names no usable token service")


def _token_request(challenge: Challenge, scope: str, credentials: Credentials | None) -> Request:
    """Return the request for a token: POST with an identity token, otherwise GET."""
    if credentials is None or not credentials.token:
        return _token_query(challenge, scope, credentials)
    # Scopes in one parameter, as engines send them; ACR, Docker Hub and Artifactory accept that.
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
    query = [("account", credentials.username)] if credentials else []
    query += [("service", challenge.service)] if challenge.service else []
    query += [("scope", each) for each in scope.split()]
    mark = "&" if "?" in challenge.realm else "?"
    return _signed(
        Request(method="GET", url=f"{challenge.realm}{mark}{urlencode(query)}"),
        _basic(credentials) if credentials else None,
    )


def _token(body: bytes, challenge: Challenge) -> str:
    try:
        document = json.loads(body)
        found = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        found = None
    # No control characters: it becomes part of a header.
    if not isinstance(found, str) or not re.fullmatch(r"[\x21-\x7e]+", found):
        host = urlsplit(challenge.realm).netloc
        raise RegistryError(f"the token service {host} returned no token")
    return found


def _signed(request: Request, authorization: str | None) -> Request:
    if authorization is None:
        return request
    return replace(request, headers={**request.headers, "Authorization": authorization})


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _unauthorized(
    login: LoginState, challenge: Challenge | None = None, scope: str = ""
) -> Unauthorized:
    host = urlsplit(login.origin).netloc
    if login.credentials() is None:
        return Unauthorized(f"{host} requires a login", hint=f"log in with: docker login {host}")
    if challenge is not None and challenge.error == _INSUFFICIENT:
        return Unauthorized(
            f"{host}: the login does not include {scope}",
            hint=f"ask for that access, or log in as a user who has it: docker login {host}",
        )
    return Unauthorized(
        f"{host} does not accept the stored credentials",
        hint=f"log in again with: docker login {host}",
    )
