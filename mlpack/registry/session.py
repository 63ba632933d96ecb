"""Sessions with registries: one client, and what is known of each registry's login."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.registry.answers import beginning, web_page
from mlpack.registry.auth import LoginState, authorized
from mlpack.registry.http import Client
from mlpack.registry.http_types import Request, Response, StatusError, origin
from mlpack.stores.store import DOCUMENTS

ACCEPT = ", ".join((media.INDEX, media.MANIFEST, media.DOCKER_INDEX, media.DOCKER_MANIFEST))

_HINTS = {
    401: "log in with: docker login",
    403: "ask for access to the repository, or log in with: docker login",
    404: "check the repository and tag",
    405: "the registry may be read-only, such as a mirror: name one that takes pushes",
    413: "the registry accepts no content this large: ask its operator",
    429: "the registry has had too many requests: try again later",
    511: "log in to this network with a browser first",
}
_NO_HEAD = frozenset({400, 403, 405, 406, 501})
"""Responses to HEAD of servers that answer GET, such as storage with signed addresses for GET."""


@dataclass
class RegistrySession:
    """One registry: sends requests to it, and logs in when the registry requires it."""

    client: Client
    login: LoginState
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _used: set[str] = field(default_factory=set)
    """Scopes that a request was sent with."""

    @property
    def root(self) -> str:
        """The address of the registry's API."""
        return f"{self.login.origin}/v2/"

    def send(self, request: Request, scope: str) -> Response:
        """Send, logging in if required; the response may be unsuccessful. Close it."""
        if scope in self._used:
            return self._drive(request, scope)
        # One thread finds out whether and how to log in; then the others know.
        with self._lock:
            response = self._drive(request, scope)
            self._used.add(scope)
        return response

    def failure(self, request: Request, response: Response) -> StatusError:
        """Return the error for an unsuccessful response, with the registry's words, no secrets."""
        elsewhere = bool(response.url) and origin(response.url) != self.login.origin
        where = f" {urlsplit(response.url).netloc}" if elsewhere else ""
        hint = _HINTS.get(response.status, "try again; if it persists, ask the registry's operator")
        message = f"{request}:{where} answers {response.status}{self._details(response)}"
        return StatusError(message, response.status, hint=hint)

    def _drive(self, request: Request, scope: str) -> Response:
        flow = authorized(request, scope, self.login)
        following = next(flow)
        while True:
            response = self.client.send(following)
            try:
                following = flow.send(response)
            except StopIteration as done:
                answer: Response = done.value
                return answer
            except BaseException:
                response.close()
                raise
            response.close()

    def _details(self, response: Response) -> str:
        """The registry's error codes and messages: bounded, printable, without our secrets."""
        content = beginning(response)
        try:
            errors = json.loads(content)["errors"]
            texts = [f"{each['code']}: {each.get('message', '')}" for each in errors[:3]]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            page = web_page(response.headers, content, response.url)
            return f" ({page})" if page else ""
        text = "; ".join(texts)
        for secret in self.login.secrets():
            text = text.replace(secret, "***")
        return f" ({re.sub(r'[^ -~]', '?', text)[:300]})" if text else ""


@dataclass(frozen=True)
class RepositorySession:
    """One repository of a registry: sends requests with the access rights (scope) it needs."""

    session: RegistrySession
    name: str
    scope: str

    @property
    def root(self) -> str:
        """The address of the repository's API."""
        return f"{self.session.root}{self.name}/"

    @property
    def uploads(self) -> str:
        """The address where uploads begin."""
        return f"{self.root}blobs/uploads/"

    def url(self, target: Descriptor) -> str:
        """Return the address of a manifest or blob."""
        kind = "manifests" if target.media_type in DOCUMENTS else "blobs"
        return f"{self.root}{kind}/{target.digest}"

    def send(self, request: Request, *, also: str = "") -> Response:
        """Send with the repository's scope, and another one if ``also`` names it."""
        return self.session.send(request, f"{self.scope} {also}" if also else self.scope)

    def failure(self, request: Request, response: Response) -> StatusError:
        """Return the error for an unsuccessful response."""
        return self.session.failure(request, response)

    def pause(self, failures: int, response: Response | None = None) -> None:
        """Wait before another attempt."""
        self.session.client.pause(failures, response)

    def exists(self, target: Descriptor) -> bool:
        """Whether the repository holds ``target``; one request, or two if it answers no HEAD."""
        request = Request(method="HEAD", url=self.url(target), headers=accept(target))
        with self.send(request) as response:
            if response.status not in _NO_HEAD:
                return self._holds(target, request, response)
        # Its body is not read: a blob's connection is closed instead.
        request = Request(method="GET", url=self.url(target), headers=accept(target))
        with self.send(request) as response:
            return self._holds(target, request, response)

    def _holds(self, target: Descriptor, request: Request, response: Response) -> bool:
        if response.status == 404:
            return False
        if response.status != 200:
            raise self.failure(request, response)
        # None of these headers is certain to be there. If one is another's, as a web page's is,
        # the content is sent.
        size = response.headers.get("content-length", "")
        if size.isdecimal() and int(size) != target.size:
            return False
        return not web_page(response.headers) and digest_of(response) in {"", str(target.digest)}


def digest_of(response: Response) -> str:
    """Return the sha256 that a response names for its content, or ``""``."""
    named = response.headers.get("docker-content-digest", "").strip(' "').lower()
    return named if re.fullmatch("sha256:[0-9a-f]{64}", named) else ""


def accept(target: Descriptor) -> dict[str, str]:
    """Return the ``Accept`` header for a manifest; blobs need none."""
    return {"Accept": target.media_type} if target.media_type in DOCUMENTS else {}
