"""A small real proxy: CONNECT tunnels and forwarded requests, with a login where wanted."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

PIECE = 64 * 1024


class ForwardProxy:
    """Knows where names lead (``names``: ``host:port`` → a port of this machine), and counts."""

    def __init__(self, names: Mapping[str, int], login: str = "") -> None:
        self.asked: list[str] = []
        """The first line of each connection."""

        self.moved = 0
        """Bytes that passed in the tunnels, in both directions."""

        self._names = names
        self._login = login
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def accept(self) -> None:
        """Serve until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        """End."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(PIECE)
                if not piece:
                    return
                head += piece
            first, _, rest = head.partition(b"\r\n")
            line = first.decode()
            with self._lock:
                self.asked.append(line)
            if not self._allowed(rest):
                client.sendall(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
                return
            method, target, _ = line.split(" ")
            name = target.removeprefix("http://").partition("/")[0]
            if name not in self._names:
                client.sendall(b"HTTP/1.1 502 No way there\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self._names[name])) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
                else:
                    # One request for each connection: enough for these tests.
                    server.sendall(head.replace(f"http://{name}".encode(), b"", 1))
                self._relay(client, server)

    def _allowed(self, headers: bytes) -> bool:
        if not self._login:
            return True
        wanted = base64.b64encode(self._login.encode())
        return b"proxy-authorization: basic " + wanted.lower() in headers.lower()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        up = threading.Thread(target=self._pump, args=(client, server), daemon=True)
        up.start()
        self._pump(server, client)
        up.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE):
                with self._lock:
                    self.moved += len(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def forwarding(names: Mapping[str, int], login: str = "") -> Iterator[ForwardProxy]:
    """A proxy while the block runs."""
    proxy = ForwardProxy(names, login)
    thread = threading.Thread(target=proxy.accept, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
