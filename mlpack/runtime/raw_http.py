"""Azure ML's request and response classes, on Werkzeug's as Flask's are.

Behaviour: azureml-inference-server-http 1.5.1 (``api/aml_request.py``, ``api/aml_response.py``,
``server/routes.py``), Flask 3.1 (``wrappers.py``) and gunicorn 27 (``http/wsgi.py``), compared by
tests/runtime/test_azureml_server.py. Imported only if a script uses it: Werkzeug takes a tenth
of a second to import.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from werkzeug import wrappers
from werkzeug.exceptions import BadRequestKeyError, HTTPException
from werkzeug.routing import Map, Rule

from .codec import to_json
from .http_errors import ScoringFailed
from .scorer import Payload, Reply

FAILED = "x-ms-run-function-failed"

_ENDPOINT = "main.handle_score"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOP_BY_HOP = {
    "connection", "date", "keep-alive", "proxy-authenticate", "proxy-authorization", "server",
    "te", "trailers", "transfer-encoding", "upgrade",
}  # fmt: skip
"""Headers that the server sets itself; gunicorn drops them, too."""


class AMLRequest(wrappers.Request):
    """A request as scripts read it: Werkzeug's, with the members that Flask adds."""

    json_module = json
    view_args: Mapping[str, object] = {}
    routing_exception = None

    @property
    def url_rule(self) -> Rule:
        """The rule that the path matches."""
        return _rule()

    @property
    def endpoint(self) -> str:
        """The name of the rule's function in Azure ML's server."""
        return _ENDPOINT

    @property
    def blueprint(self) -> str:
        """The name of the blueprint in Azure ML's server."""
        return _ENDPOINT.partition(".")[0]

    @property
    def blueprints(self) -> list[str]:
        """The blueprint and its parents."""
        return [self.blueprint]


class AMLResponse(wrappers.Response):
    """A script's response with its own status and headers; Werkzeug's as Flask configures it."""

    default_mimetype = "text/html"
    json_module = json
    autocorrect_location_header = False

    def __init__(
        self,
        message: Any,  # noqa: ANN401
        status_code: int | str,
        response_headers: Mapping[str, str] | None = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        given = response_headers or {}
        if message is None or json_str:
            body = json.dumps({} if message is None else message)
            super().__init__(body, status_code, mimetype="application/json")
        else:
            super().__init__(message, status_code)
            if any(name.lower() == "content-type" for name in given):
                self.headers.remove("Content-Type")
        self.headers[FAILED] = str(run_function_failed)
        for name, values in given.items():
            for value in values.split(","):
                self.headers.add_header(name, value.strip())


def request(payload: Payload) -> AMLRequest:
    """Return ``payload`` as a script reads it."""
    return AMLRequest(_environ(payload))


def reply(response: wrappers.Response, payload: Payload) -> Reply:
    """Return a script's response as a :class:`~.scorer.Reply`.

    One whose body is a generator has ``chunks`` if ``payload`` came over HTTP; elsewhere its body
    is read here. Raises :class:`ScoringFailed` if HTTP cannot express it.
    """
    if response.status_code >= 500:
        response.headers[FAILED] = "True"
    # The body is an empty tuple if the status allows none.
    body, _, pairs = response.get_wsgi_response(_environ(payload))
    if not 200 <= response.status_code <= 599:
        raise ScoringFailed(f"run() returned the status {response.status!r}")
    headers, repeated = _headers(pairs)
    content, chunks = b"", None
    if response.is_streamed and payload.scope and body:
        chunks = iter(body)
    else:
        content = _joined(body)
        headers.pop("content-length", None)
    return Reply(
        status=response.status_code,
        content=content,
        content_type=headers.pop("content-type", ""),
        headers=headers,
        repeated=repeated,
        chunks=chunks,
    )


def aborted(error: HTTPException, payload: Payload) -> Reply:
    """Return the reply to a request that a script, or the reading of a form, refused."""
    if isinstance(error.response, wrappers.Response):
        return reply(error.response, payload)
    status, message = error.code or 500, error.description or error.name
    if isinstance(error, BadRequestKeyError):
        message = f"the request has no {error.args[0]!r}"
    return Reply(
        status=status,
        content=to_json({"message": message}),
        headers={FAILED: str(status >= 500)},
    )


def _environ(payload: Payload) -> dict[str, Any]:
    """Return WSGI's view of the request (PEP 3333), as gunicorn makes it."""
    scope = payload.scope
    address, port = scope.get("client") or ("", 0)
    server = scope.get("server") or ("localhost", 0)
    query = f"?{payload.query}" if payload.query else ""
    found: dict[str, Any] = {
        "REQUEST_METHOD": payload.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": payload.path.encode().decode("latin-1"),
        "QUERY_STRING": payload.query,
        "RAW_URI": f"{payload.path}{query}",
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": address,
        "REMOTE_PORT": str(port),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(payload.content),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if not scope:  # MQTT and IoT Edge
        found |= {"CONTENT_TYPE": payload.content_type, "CONTENT_LENGTH": str(len(payload.content))}
    for name, value in payload.headers.items():
        # X_A would be taken for X-A; gunicorn drops it, too.
        if "_" not in name:
            key = name.upper().replace("-", "_")
            found[key if name in ("content-type", "content-length") else f"HTTP_{key}"] = value
    return found


def _headers(
    pairs: Iterable[tuple[str, str]],
) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """Return each header's first value by its name in lower case, and the other pairs."""
    first: dict[str, str] = {}
    repeated: list[tuple[str, str]] = []
    for written, value in pairs:
        name = written.lower()
        if not _TOKEN.fullmatch(name):
            raise ScoringFailed(f"run() returned the header {written!r}, which is not valid")
        if name in _HOP_BY_HOP:
            continue
        if name in first:
            repeated.append((name, value))
        else:
            first[name] = value
    return first, tuple(repeated)


def _joined(body: Iterable[bytes]) -> bytes:
    try:
        return b"".join(body)
    finally:
        close_chunks(iter(body))


def close_chunks(chunks: Iterator[bytes]) -> None:
    """End a generator, so that its ``finally`` blocks run."""
    close = getattr(chunks, "close", None)
    if close is not None:
        close()


@cache
def _rule() -> Rule:
    rule = Rule("/score", endpoint=_ENDPOINT, methods=["GET", "POST", "OPTIONS"])
    Map([rule])
    return rule
