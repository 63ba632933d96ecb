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
from urllib.parse import urlencode

from mlpack.registry.answers import NotARegistry, web_page
from mlpack.registry.credentials import Credentials, Login
from mlpack.registry.http_types import (
    RegistryError,
    Request,
    Response,
    address,
    origin,
    shown_host,
)

Flow = Generator[Request, Response, Response]
CLIENT = "mlpack"
"""``client_id``, which token services log."""

MAX_TOKEN_BYTES = 1024 * 1024
_INSUFFICIENT = "insufficient_scope"
_LONGEST_HEADER = 4096
"""Characters of ``WWW-Authenticate`` that are read; real ones have a few hundred."""

_NO_FORMS = frozenset({400, 401, 404, 405, 415, 501})
"""Responses of token services that know no POST (containerd's list, and what it stands for)."""


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
    def parse(cls, header: str) -> tuple[Challenge, ...]:
        """Read ``WWW-Authenticate``: the challenges that can be answered, bearer first.

        >>> Challenge.parse('Bearer realm="https://a.example/token",service="reg"')
        (Challenge(scheme='bearer', realm='https://a.example/token', service='reg', error=''),)
        """
        found: list[tuple[str, dict[str, str]]] = []
        for scheme, name, quoted, single, plain in _PARTS.findall(header[:_LONGEST_HEADER]):
            if scheme:
                found.append((scheme.lower(), {}))
            elif found:
                value = re.sub(r"\\(.)", r"\1", quoted) or single or plain
                found[-1][1].setdefault(name.lower(), value)
        known = [
            cls(scheme, *(given.get(key, "") for key in ("realm", "service", "error")))
            for scheme, given in found
            if scheme in {"bearer", "basic"}
        ]
        return tuple(sorted(known, key=lambda each: each.scheme, reverse=True))


_PARTS = re.compile(
    # A parameter's value may lack its quotes, or the closing one; a scheme's name has no value.
    r"""([A-Za-z][\w-]*)(?=\s+[A-Za-z_-]+\s*=|\s+[\w.~+/-]+=*\s*(?:,|$)|\s*(?:,|$))"""
    r"""|([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)(?:"|$)|'([^']*)'|([^\s,"']+))"""
)


@dataclass
class LoginState:
    """What is known of the login at one registry while the program runs."""

    origin: str
    find: Callable[[str], Login]
    """Return the login for a repository. Called only after a challenge: a helper program may have
    to run."""

    challenge: Challenge | None = None
    """The last one whose answer the registry accepted."""

    accepted: dict[str, str] = field(default_factory=dict, repr=False)
    """``Authorization`` by scope."""

    _found: dict[str, Login] = field(default_factory=dict, repr=False)

    @property
    def host(self) -> str:
        """The registry's name, as for ``docker login``."""
        host = shown_host(self.origin)
        return "docker.io" if host == "registry-1.docker.io" else host

    def login(self, scope: str) -> Login:
        """Return the login for the repository that ``scope`` names first."""
        name = scope.split(":")[1] if ":" in scope else ""
        if name not in self._found:
            self._found[name] = self.find(name)
        return self._found[name]

    def used(self, scope: str) -> str:
        """Return where the login is that the registry accepted, or ``""`` if it required none."""
        return self.login(scope).place if self.accepted else ""

    def secrets(self) -> list[str]:
        """Return the tokens and passwords in use, which no message may repeat."""
        found = [each.partition(" ")[2] for each in self.accepted.values()]
        for each in self._found.values():
            if each.credentials is not None:
                found += [each.credentials.password, each.credentials.token]
        return [each for each in found if each]


def authorized(request: Request, scope: str, login: LoginState) -> Flow:
    """Yield ``request``; on a challenge yield what it requires, and ``request`` once more.

    ``scope`` is the least that the request needs. Secrets are sent to the registry's origin and
    to the token service that the registry names, and nowhere else. What is known of the login
    changes only if the registry accepts it, so that a request which may fail spoils no other.
    Raises :class:`Unauthorized`.
    """
    if origin(request.url) != login.origin:
        return (yield request)
    header, known = login.accepted.get(scope), login.challenge
    fresh = header is None and known is not None
    if fresh and known is not None:
        header = yield from _log_in(known, scope, login)
    response = yield _signed(request, header)
    if not _refused(response, request, login):
        if fresh and header is not None:
            login.accepted[scope] = header
        return response
    # The first 401 of a registry, or a token that expired in the middle.
    challenge = yield from _challenge(request, response, login)
    insufficient = challenge.error == _INSUFFICIENT
    if header is not None and (insufficient or challenge.scheme == "basic"):
        # The token is valid but does not include the access: another one would not either. It
        # stays, for what it includes.
        raise _unauthorized(login, scope, insufficient=insufficient)
    if fresh and known is not None and replace(challenge, error="") == replace(known, error=""):
        raise _unauthorized(login, scope)
    header = yield from _log_in(challenge, scope, login)
    response = yield _signed(request, header)
    if _refused(response, request, login):
        again = Challenge.parse(response.headers.get("www-authenticate", ""))
        response.close()
        login.accepted.pop(scope, None)
        insufficient = any(each.error == _INSUFFICIENT for each in again)
        raise _unauthorized(login, scope, insufficient=insufficient)
    login.challenge, login.accepted[scope] = challenge, header
    return response


def _refused(response: Response, request: Request, login: LoginState) -> bool:
    return response.status == 401 and origin(response.url or request.url) == login.origin


def _challenge(
    request: Request, response: Response, login: LoginState
) -> Generator[Request, Response, Challenge]:
    """Return the challenge to answer; if a 401 has none, that of the registry's root."""
    with response:
        found = Challenge.parse(response.headers.get("www-authenticate", ""))
    if not found:
        asked = Request(method="GET", url=f"{login.origin}/v2/", attempts=1)
        with (yield asked) as root:
            # Redirected elsewhere, it is another's challenge: no password is for that one.
            if _refused(root, asked, login):
                found = Challenge.parse(root.headers.get("www-authenticate", ""))
    if not found:
        raise Unauthorized(
            f"{request}: unauthorized, and the registry names no way to log in",
            hint="check the registry's name and port, or ask its operator",
        )
    usable = (each for each in found if each.scheme == "basic" or _realm(each, login))
    challenge = next(usable, None)
    if challenge is None:
        raise RegistryError(
            f"{login.host} names no usable token service",
            hint="the registry must name one with https in WWW-Authenticate: ask its operator",
        )
    return challenge


def _realm(challenge: Challenge, login: LoginState) -> str:
    """Return the token service's address; none if a registry with TLS names one without."""
    found = address(login.origin, challenge.realm) if challenge.realm else ""
    return found if found.startswith("https:") or login.origin.startswith("http:") else ""


def _log_in(
    challenge: Challenge, scope: str, login: LoginState
) -> Generator[Request, Response, str]:
    """Return the value of ``Authorization`` for ``scope``."""
    credentials = login.login(scope).credentials
    if challenge.scheme == "basic":
        if credentials is None or not credentials.username:
            raise _unauthorized(login, scope)
        return _basic(credentials)
    asked = replace(challenge, realm=_realm(challenge, login))
    response = yield _token_request(asked, scope, credentials)
    if credentials and credentials.token and credentials.password and response.status in _NO_FORMS:
        # A token service from before OAuth 2, such as Harbor's: use the password.
        response.close()
        response = yield _token_query(asked, scope, credentials)
    with response:
        if response.status in {400, 401, 403}:
            raise _unauthorized(login, scope)
        host = shown_host(response.url or asked.realm)
        if response.status >= 300:
            raise RegistryError(
                f"the token service {host} answers {response.status}", hint="try again later"
            )
        content = response.read(MAX_TOKEN_BYTES)
        if page := web_page(response.headers, content, response.url):
            raise NotARegistry(f"{page} answered instead of the token service {host}")
        return f"Bearer {_token(content, host)}"


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
        Request(
            method="GET", url=f"{challenge.realm}{mark}{urlencode(query, errors='surrogateescape')}"
        ),
        _basic(credentials) if credentials else None,
    )


def _token(body: bytes, host: str) -> str:
    try:
        document = json.loads(body)
        given = [document.get("token"), document.get("access_token")]
    except (ValueError, AttributeError, RecursionError):
        given = []
    found = next((each.strip() for each in given if isinstance(each, str) and each.strip()), "")
    # No control characters: it becomes part of a header.
    if not re.fullmatch(r"[\x21-\x7e]+", found):
        raise RegistryError(
            f"the token service {host} returned no token",
            hint="try again later; if it persists, ask the registry's operator",
        )
    return found


def _signed(request: Request, authorization: str | None) -> Request:
    if authorization is None:
        return request
    return replace(request, headers={**request.headers, "Authorization": authorization})


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode(errors="surrogateescape")
    return f"Basic {base64.b64encode(pair).decode()}"


def _unauthorized(login: LoginState, scope: str, *, insufficient: bool = False) -> Unauthorized:
    host, found = login.host, login.login(scope)
    if found.credentials is None:
        problems = f", and {'; '.join(found.problems)}" if found.problems else ""
        return Unauthorized(
            f"{host} requires a login{problems}", hint=f"log in with: docker login {host}"
        )
    if insufficient:
        return Unauthorized(
            f"{host}: the login does not include {scope} ({found.place})",
            hint=f"ask for that access, or log in as a user who has it: docker login {host}",
        )
    return Unauthorized(
        f"{host} does not accept the stored credentials ({found.place})",
        hint=f"log in again with: docker login {host}",
    )
