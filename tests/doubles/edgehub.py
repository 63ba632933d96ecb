"""edgeHub as Microsoft's client sees it: MQTT 3.1.1 over TLS on port 8883, with a device twin.

Topics: Azure/iot-hub "communicate with IoT Hub using MQTT"; edgeHub adds
``devices/{d}/modules/{m}/inputs/…`` and ``$.on`` for outputs. A session keeps
subscriptions and messages that were not acknowledged, and survives
:meth:`EdgeHub.restart` unless it is told to forget.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

PORT = 8883
"""Not to be chosen: the client knows only this one."""

T = TypeVar("T")


@dataclass
class Session:
    """What is kept of a client while it is away."""

    subscriptions: set[str] = field(default_factory=set)
    unacknowledged: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    writer: asyncio.StreamWriter | None = None


class EdgeHub:
    """One device's hub; the module under test connects as ``device/module``."""

    def __init__(self, host: str, certificate: Path, key: Path) -> None:
        self.host = host
        self.sessions: dict[str, Session] = {}
        self.connects: list[tuple[str, str]] = []
        """Client id and user name of each connection."""
        self.outputs: list[tuple[dict[str, str], bytes]] = []
        """Properties (``$.on`` is the output) and content of what modules sent."""
        self.desired: dict[str, Any] = {"$version": 1}
        self.reported: dict[str, Any] = {}
        self._packet = 0
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None

    @classmethod
    @contextmanager
    def started(cls, host: str, certificate: Path, key: Path) -> Iterator[EdgeHub]:
        """A hub on a thread of its own: the client blocks its own loop while it subscribes."""
        hub = cls(host, certificate, key)
        thread = threading.Thread(target=hub._loop.run_forever, daemon=True)
        thread.start()
        hub._do(hub._listen())
        try:
            yield hub
        finally:
            hub._do(hub._end())
            hub._loop.call_soon_threadsafe(hub._loop.stop)
            thread.join()
            hub._loop.close()

    def restart(self, *, forget: bool, away: Callable[[], object] = lambda: None) -> None:
        """Break all connections, call ``away`` while nobody listens, and come back."""
        self._do(self._end())
        away()
        if forget:
            self.sessions.clear()
        self._do(self._listen())

    def deliver(self, client: str, name: str, content: bytes, **properties: str) -> None:
        """Send to input ``name`` of module ``client`` (``device/module``), at QoS 1."""
        device, _, module = client.partition("/")
        text = urlencode(properties, quote_via=quote)
        topic = f"devices/{device}/modules/{module}/inputs/{name}/{text}"
        self._call(lambda: self._send(client, topic, content))

    def desire(self, client: str, **patch: object) -> None:
        """Change desired properties, as an operator does."""
        version = self.desired["$version"] + 1
        self.desired = {**self.desired, **patch, "$version": version}
        content = json.dumps({**patch, "$version": version}).encode()
        topic = f"$iothub/twin/PATCH/properties/desired/?$version={version}"
        self._call(lambda: self._send(client, topic, content))

    def unacknowledged(self, client: str) -> int:
        """How many messages the client has not acknowledged."""
        return len(self.sessions[client].unacknowledged)

    # On the loop's thread.

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, PORT, ssl=self._tls)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for session in self.sessions.values():
            if session.writer is not None:
                session.writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = ""
        try:
            while True:
                kind, flags, body = await _packet(reader)
                if kind == 1:
                    name = self._connect(body, writer)
                elif kind == 14:
                    break
                else:
                    self._answer(name, kind, flags, body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            if name in self.sessions and self.sessions[name].writer is writer:
                self.sessions[name].writer = None
            writer.transport.abort()

    def _connect(self, body: bytes, writer: asyncio.StreamWriter) -> str:
        fields = list(_texts(body[10:]))
        self.connects.append((fields[0], fields[1]))
        present = fields[0] in self.sessions
        session = self.sessions.setdefault(fields[0], Session())
        session.writer = writer
        writer.write(_packed(0x20, bytes([present, 0])))
        for packet, (topic, content) in session.unacknowledged.items():
            writer.write(_publish(topic, content, packet, again=True))
        return fields[0]

    def _answer(self, name: str, kind: int, flags: int, body: bytes) -> None:
        session = self.sessions[name]
        write = session.writer.write if session.writer is not None else bytes
        if kind == 3:
            topic = next(_texts(body))
            rest = body[2 + len(topic.encode()) :]
            if flags & 6:
                write(_packed(0x40, rest[:2]))
                rest = rest[2:]
            self._published(session, topic, rest)
        elif kind == 4:
            session.unacknowledged.pop(int.from_bytes(body[:2], "big"), None)
        elif kind == 8:
            topics = list(_texts(body[2:], after=1))
            session.subscriptions |= set(topics)
            write(_packed(0x90, body[:2] + b"\1" * len(topics)))
        elif kind == 10:
            session.subscriptions -= set(_texts(body[2:]))
            write(_packed(0xB0, body[:2]))
        elif kind == 12:
            write(_packed(0xD0, b""))

    def _published(self, session: Session, topic: str, content: bytes) -> None:
        write = session.writer.write if session.writer is not None else bytes
        asked = topic.partition("?")[2]
        if topic.startswith("$iothub/twin/GET/"):
            twin = json.dumps({"desired": self.desired, "reported": self.reported}).encode()
            write(_publish(f"$iothub/twin/res/200/?{asked}", twin))
        elif topic.startswith("$iothub/twin/PATCH/properties/reported/"):
            self.reported |= json.loads(content)
            write(_publish(f"$iothub/twin/res/204/?{asked}&$version=2", b""))
        elif "/messages/events/" in topic:
            self.outputs.append((dict(parse_qsl(topic.rpartition("/")[2])), content))

    def _send(self, client: str, topic: str, content: bytes) -> None:
        session = self.sessions[client]
        if not any(topic.startswith(each.removesuffix("#")) for each in session.subscriptions):
            return
        self._packet = self._packet % 65535 + 1
        session.unacknowledged[self._packet] = (topic, content)
        if session.writer is not None:
            session.writer.write(_publish(topic, content, self._packet))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, work: Callable[[], None]) -> None:
        async def done() -> None:
            work()

        self._do(done())


async def _packet(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """Type, flags and body of the next packet (MQTT 3.1.1, 2.2)."""
    first = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return first >> 4, first & 15, await reader.readexactly(length)


def _texts(body: bytes, after: int = 0) -> Iterator[str]:
    """Texts with their lengths before them, and ``after`` bytes behind each."""
    place = 0
    while place + 2 <= len(body):
        end = place + 2 + int.from_bytes(body[place : place + 2], "big")
        yield body[place + 2 : end].decode("utf-8", "replace")
        place = end + after


def _publish(topic: str, content: bytes, packet: int = 0, *, again: bool = False) -> bytes:
    name = topic.encode()
    head = len(name).to_bytes(2, "big") + name
    if not packet:
        return _packed(0x30, head + content)
    return _packed(0x32 | (8 if again else 0), head + packet.to_bytes(2, "big") + content)


def _packed(first: int, body: bytes) -> bytes:
    length, found = len(body), bytearray([first])
    while True:
        length, byte = divmod(length, 128)
        found.append(byte | (128 if length else 0))
        if not length:
            return bytes(found) + body
