"""A proxy before a real registry that does to requests and answers what networks do.

It speaks HTTP on both sides and passes everything through; a :class:`Fault` changes the
requests it matches, as often as it says. What it was asked is kept in ``seen``.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit

PIECE = 64 * 1024
_ERRORS = b'{"errors":[{"code":"UNKNOWN","message":"no"}]}'


@dataclass
class Fault:
    """What goes wrong with the requests whose ``METHOD path`` matches, ``times`` times."""

    match: str
    kind: str
    """``status``, ``cut-request``, ``cut-answer``, ``truncate``, ``garble``, ``drip``,
    ``redirect``, ``huge``, ``lie``, ``headers`` (an empty one is left out)."""

    at: float = 0.0
    """Where a cut falls, as a share of the body."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    place: str = ""
    times: int = 1
    body: bytes = _ERRORS

    def hits(self, request: str) -> bool:
        if self.times <= 0 or not re.search(self.match, request):
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: int

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Faulty(ThreadingHTTPServer):
    """The proxy; ``tokens`` makes it want bearer tokens, each good for so many requests."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.token_uses: int | None = None
        self.valid: dict[str, int] = {}
        self.scopes: list[list[str]] = []
        self.lock = threading.Lock()
        self.ignore_range = False
        self.page_size = 0
        self.gather: threading.Barrier | None = None
        """Where uploads of a layer wait for each other."""

        self.moved = 0
        """Bytes in both directions, headers and all, as they pass between client and proxy."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def count(self, match: str) -> int:
        return sum(1 for each in self.seen if re.search(match, str(each)))

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the play."""


class _Counting(io.RawIOBase):
    """A stream that counts what passes."""

    def __init__(self, stream: BinaryIO, server: Faulty) -> None:
        self._stream = stream
        self._server = server

    def _add(self, count: int) -> None:
        with self._server.lock:
            self._server.moved += count

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._add(len(data))
        return data

    def readline(self, size: int | None = -1) -> bytes:
        data = self._stream.readline(-1 if size is None else size)
        self._add(len(data))
        return data

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._add(len(data))
        return self._stream.write(data)

    def flush(self) -> None:
        if not self._stream.closed:
            self._stream.flush()

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Faulty

    def setup(self) -> None:
        super().setup()
        self.rfile = _Counting(self.rfile, self.server)  # type: ignore[assignment, arg-type]
        self.wfile = _Counting(self.wfile, self.server)  # type: ignore[assignment, arg-type]

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        headers = dict(self.headers.items())
        if "Transfer-Encoding" in self.headers:
            self._join_chunks()
        size = int(self.headers.get("Content-Length") or 0)
        named = f"{self.command} {self.path}"
        seen = Seen(self.command, self.path, headers, size)
        with self.server.lock:
            self.server.seen.append(seen)
            fault = next((each for each in self.server.faults if each.hits(named)), None)
        if urlsplit(self.path).path == "/token" and fault:
            self._say(fault.status, fault.body, fault.headers)
        elif urlsplit(self.path).path == "/token":
            self._give_token(size)
        elif self._authorized(size):
            self._serve(fault, size)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _join_chunks(self) -> None:
        """Take a body of unknown length, and go on as if its length had been said."""
        body = bytearray()
        while size := int(self.rfile.readline() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        del self.headers["Transfer-Encoding"]
        self.headers["Content-Length"] = str(len(body))
        self.body = io.BytesIO(body)

    body: io.BytesIO | None = None

    def _take(self, size: int) -> bytes:
        if self.body is None:
            return self.rfile.read(size)
        taken, self.body = self.body.read(size), None
        return taken

    def _give_token(self, size: int) -> None:
        self._take(size)
        with self.server.lock:
            self.server.scopes.append(parse_qs(urlsplit(self.path).query).get("scope", []))
            token = f"token-{len(self.server.scopes)}"
            self.server.valid[token] = self.server.token_uses or 0
        self._say(200, b'{"token": "%s"}' % token.encode())

    def _authorized(self, size: int) -> bool:
        if self.server.token_uses is None:
            return True
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.server.lock:
            left = self.server.valid.get(token, 0)
            self.server.valid[token] = left - 1
        if left > 0:
            return True
        self._take(size)
        realm = f'Bearer realm="http://{self.server.host}/token",service="tests"'
        self._say(401, b"{}", {"WWW-Authenticate": realm})
        return False

    def _serve(self, fault: Fault | None, size: int) -> None:
        if self.server.gather and self.command == "PUT" and size == 1000:
            self.server.gather.wait()
        kind = fault.kind if fault else ""
        if fault and kind == "status":
            self._take(size)
            self._say(fault.status, fault.body, fault.headers)
        elif fault and kind == "redirect":
            self._take(size)
            self._say(307, b"", {"Location": fault.place + self.path})
        elif fault and kind == "huge":
            self._huge()
        elif fault and kind == "cut-request":
            self._forward(self._take(int(size * fault.at)), size)
            self._hang_up()
        else:
            self._answer(fault, self._forward(self._take(size), size))

    def _forward(self, body: bytes, size: int) -> http.client.HTTPResponse | None:
        """Pass a request on; one with less body than it declares is cut off there."""
        host, port = self.server.upstream.split(":")
        # Closed whatever happens: a socket left to the garbage collector fails some later test.
        # The answer keeps the socket until it is read; the connection is not used again.
        with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as upstream:
            self._send_on(upstream)
            if body:
                upstream.send(body)
            if len(body) == size:
                return upstream.getresponse()
            if upstream.sock:
                with suppress(OSError):  # it may have hung up by itself
                    upstream.sock.shutdown(socket.SHUT_WR)
                    upstream.sock.recv(PIECE)  # whatever it says: it has seen the end
            return None

    def _send_on(self, upstream: http.client.HTTPConnection) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, text in self.headers.items():
            guarded = self.server.token_uses is not None and name.lower() == "authorization"
            ignored = self.server.ignore_range and name.lower() == "range"
            if not guarded and not ignored and name.lower() not in {"host", "connection"}:
                upstream.putheader(name, text)
        # The registry writes this into the addresses it gives, so they lead here again.
        upstream.putheader("Host", self.server.host)
        upstream.putheader("Connection", "close")
        upstream.endheaders()

    def _answer(self, fault: Fault | None, answer: http.client.HTTPResponse | None) -> None:
        assert answer is not None
        with answer:
            body = answer.read()
        kind = fault.kind if fault else ""
        headers = dict(answer.getheaders())
        if self.server.page_size and "/tags/list" in self.path:
            body, headers["Link"] = self._page(body)
        if kind == "garble" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if kind == "truncate":
            body = body[: len(body) // 2]
        if kind == "lie":
            headers["Docker-Content-Digest"] = "sha256:" + "0" * 64
        headers |= fault.headers if fault and kind == "headers" else {}
        if self.command != "HEAD" and answer.status != 204:
            headers["Content-Length"] = str(len(body))
        self._head(answer.status, headers)
        cut = int(len(body) * fault.at) if fault and kind == "cut-answer" else len(body)
        if kind == "drip":
            self._drip(body)
            return
        self.wfile.write(body[:cut])
        if cut < len(body) or kind == "cut-answer":
            self._hang_up()

    def _page(self, body: bytes) -> tuple[bytes, str]:
        """Docker's registry 2 lists all tags at once; others give so many, and a link."""
        listed = json.loads(body)
        query = parse_qs(urlsplit(self.path).query)
        rest = [each for each in sorted(listed["tags"]) if each > query.get("last", [""])[0]]
        page = rest[: self.server.page_size]
        more = len(rest) > len(page)
        link = f'<{urlsplit(self.path).path}?last={page[-1]}>; rel="next"' if more else ""
        return json.dumps({**listed, "tags": page}).encode(), link

    def _drip(self, body: bytes) -> None:
        for position in range(len(body)):
            self.wfile.write(body[position : position + 1])
            self.wfile.flush()
            time.sleep(0.02)

    def _huge(self) -> None:
        self._head(200, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
        piece = b" " * PIECE
        for _ in range(100 * 1024 * 1024 // PIECE):
            self.wfile.write(piece)
        self._hang_up()

    def _say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, text in headers.items():
            if text:
                self.send_header(name, text)
        self.end_headers()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty(upstream: str) -> Iterator[Faulty]:
    """A proxy to ``upstream`` while the block runs."""
    server = Faulty(upstream)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
