"""The registries a command talks to: one client, and one memory of logins, for all of them."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from mlpack.oci.reference import Reference
from mlpack.stores.auth import Memory, authorized
from mlpack.stores.base import Corrupt
from mlpack.stores.credentials import find_credentials
from mlpack.stores.exchange import (
    Refused,
    Request,
    Response,
    Unreachable,
    origin,
)
from mlpack.stores.http import Client
from mlpack.stores.registry import RegistryStore
from mlpack.stores.wire import Counted

_HUB = {"docker.io": "registry-1.docker.io"}
"""Where Docker Hub's registry is, which nobody writes in a reference."""


@dataclass
class Session:
    """One registry: sends requests to it, logged in as far as it asks."""

    client: Client
    memory: Memory
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _settled: set[str] = field(default_factory=set)
    """Scopes that something was sent with."""

    @property
    def root(self) -> str:
        """The address of its API."""
        return f"{self.memory.origin}/v2/"

    def send(self, request: Request, scope: str) -> Response:
        """Send and log in where asked to; the answer may say no. Close it."""
        if scope in self._settled:
            return self._drive(request, scope)
        # One thread finds out whether and how to log in; the others then know.
        with self._lock:
            response = self._drive(request, scope)
            self._settled.add(scope)
        return response

    def pause(self, failures: int, response: Response | None = None) -> None:
        """Wait before another attempt."""
        self.client.pause(failures, response)

    def failure(self, request: Request, response: Response) -> Refused:
        """The error for an answer that says no, in the registry's own words but for secrets."""
        said = _said(response, self.memory)
        where = f" {urlsplit(response.url).netloc}" if self._elsewhere(response) else ""
        hint = {
            401: "log in with: docker login",
            403: "ask for access to the repository, or log in with: docker login",
            404: "check the repository and tag",
            413: "the registry takes no content this large: ask whoever runs it",
            429: "the registry has had too many requests: try again later",
        }.get(response.status, "try again; where it stays, ask whoever runs the registry")
        message = f"{request}:{where} answers {response.status}{said}"
        return Refused(message, response.status, hint=hint)

    def _elsewhere(self, response: Response) -> bool:
        return bool(response.url) and origin(response.url) != self.memory.origin

    def _drive(self, request: Request, scope: str) -> Response:
        flow = authorized(request, scope, self.memory)
        asked = next(flow)
        while True:
            response = self.client.send(asked)
            try:
                asked = flow.send(response)
            except StopIteration as done:
                answer: Response = done.value
                return answer
            except BaseException:
                response.close()
                raise
            response.close()


class Registries:
    """Opens repositories; closes every connection at the end."""

    def __init__(self, client: Client | None = None, configs: tuple[Path, ...] = ()) -> None:
        self._client = client or Client()
        self._configs = configs
        self._sessions: dict[str, Session] = {}

    def __enter__(self) -> Registries:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def counted(self) -> Counted:
        """All that went to and came from registries."""
        return self._client.counted

    def store(self, place: Reference, *, push: bool = False) -> RegistryStore:
        """The repository of ``place``; only with ``push`` is the right to write asked for."""
        return RegistryStore(self.session(place.registry), place, push=push)

    def session(self, registry: str) -> Session:
        """The one session for ``registry``."""
        if registry not in self._sessions:
            self._sessions[registry] = self._open(registry)
        return self._sessions[registry]

    def _open(self, registry: str) -> Session:
        host = _HUB.get(registry, registry)
        credentials = cache(partial(find_credentials, self._configs, registry))
        scheme = "https"
        if self._client.may_be_plain(urlsplit(f"//{host}").hostname or "", host):
            scheme = _scheme(self._client, host)
        return Session(self._client, Memory(origin(f"{scheme}://{host}"), credentials))


def _scheme(client: Client, host: str) -> str:
    """Whether a registry that may do without TLS does; nothing secret is in the question."""
    try:
        with client.send(Request(method="GET", url=f"http://{host}/v2/", again=False)) as response:
            # A TLS server written in Go answers 400 to plain HTTP; others hang up.
            return "https" if response.status == 400 else "http"
    except Unreachable as plain:
        try:
            client.send(Request(method="GET", url=f"https://{host}/v2/", again=False)).close()
        except Unreachable:
            raise plain from None
        return "https"


def _said(response: Response, memory: Memory) -> str:
    """The registry's error codes and messages: bounded, printable, without our secrets."""
    try:
        errors = json.loads(response.read(64 * 1024))["errors"]
        texts = [f"{each['code']}: {each.get('message', '')}" for each in errors[:3]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, Corrupt, Unreachable):
        return ""
    said = "; ".join(texts)
    for secret in _secrets(memory):
        said = said.replace(secret, "***")
    return f" ({re.sub(r'[^ -~]', '?', said)[:300]})" if said else ""


def _secrets(memory: Memory) -> list[str]:
    held = [each.partition(" ")[2] for each in memory.held.values()]
    credentials = memory.credentials() if memory.held else None
    if credentials is not None:
        held += [credentials.password, credentials.token]
    return [each for each in held if each]
