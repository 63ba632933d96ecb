"""The server process: scoring on the main thread, HTTP on another, and the end on SIGTERM.

After SIGTERM the module is not ready any more but still answers for a while and closes each
connection with the response, so clients get their results and balancers have time to look
elsewhere. Then new connections are refused, and what is in work is finished.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Protocol

import uvicorn

from . import telemetry
from .http.app import application
from .scoring_service import ScoringService
from .settings import NotServable, RuntimeSettings, ScriptFailed

_STOP = (signal.SIGTERM, signal.SIGINT)
_ON_IOT_EDGE = ("EdgeHubConnectionString", "IOTEDGE_MODULEID")
_KEEP_ALIVE_SECONDS = 65
_BIND_TO_IFINDEX = 62
"""SO_BINDTOIFINDEX (Linux, asm-generic/socket.h), which the socket module does not have."""
_NO_INTERFACE = 2**31 - 1
_LAST_REQUESTS_SECONDS = 0.3
"""For handshakes under way when connections are refused, and the first request on each."""
_SWITCH_SECONDS = 0.0005
"""How long a thread keeps the interpreter's lock while the other wants it. With Python's 5 ms, 16
clients of the fan got a sixth fewer answers (3,800 a second, and 4,500 with this)."""
_END_SECONDS = 2.0
"""How long a script may take to end before the process ends without it."""

_log = logging.getLogger("mlpack_runtime")


class Transport(Protocol):
    """A way to reach the service other than HTTP, on threads of its own."""

    def close(self) -> None:
        """Accept no more requests, answer the accepted ones, and return."""
        ...


def open_transports(service: ScoringService, environment: Mapping[str, str]) -> list[Transport]:
    """Start the transports that the environment configures.

    Raises :class:`~.settings.NotServable`.
    """
    found: list[Transport] = []
    if environment.get("MQTT_BROKER") or environment.get("MQTT_HOST"):
        from .mqtt.client import MqttTransport

        found.append(MqttTransport.open(service, environment))
    if any(environment.get(name) for name in _ON_IOT_EDGE):
        from .iotedge import IotEdgeTransport

        transport = IotEdgeTransport.open(service)
        found += [transport] if transport is not None else []
    return found


def serve(settings: RuntimeSettings, environment: Mapping[str, str] = os.environ) -> int:
    """Load the model and answer until SIGTERM or SIGINT; return the exit status."""
    telemetry.configure(settings.level)
    sys.setswitchinterval(_SWITCH_SECONDS)
    if settings.without_effect:
        named = ", ".join(settings.without_effect)
        _log.warning("these variables of Azure ML's server have no effect here: %s", named)
    try:
        listener = _bind(settings)
        service = ScoringService.open(settings)
        server = _Server(service, listener)
        transports = open_transports(service, environment)
    except NotServable as error:
        cause = error.__cause__ if isinstance(error, ScriptFailed) else None
        _log.error("%s", error, exc_info=cause)
        return 1
    model = f"{service.identity.name} {service.identity.version}"
    _log.info("ready on port %d, model %s, in %.2f s", settings.port, model, service.load_seconds)
    with _signals() as woken:
        thread = threading.Thread(target=server.run, args=(woken, transports), name="http")
        thread.start()
        service.work()
    server.finished.set()
    thread.join()
    return server.status


class _Server:
    """uvicorn on a thread of its own; signals arrive as bytes on a socket."""

    def __init__(self, service: ScoringService, listener: socket.socket) -> None:
        settings = service.settings
        self._service = service
        self._listener = listener
        self._signals = 0
        self._draining: asyncio.Task[None] | None = None
        self.finished = threading.Event()
        """Set when the worker has ended."""
        self.status = 0
        self._http = uvicorn.Server(
            uvicorn.Config(
                application(service),
                http="httptools" if find_spec("httptools") else "h11",
                loop="asyncio",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level=max(settings.level, logging.WARNING),
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            )
        )

    def run(self, woken: socket.socket, transports: list[Transport]) -> None:
        """Answer until a signal; then make sure that the process ends."""
        try:
            asyncio.run(self._answer(woken, transports))
        except BaseException as error:
            self.status = 1
            _log.critical("the server failed", exc_info=error)
        finally:
            self._service.close()
        if not self.finished.wait(_END_SECONDS):
            _log.error("scoring does not end: the process ends without it")
            os._exit(1)

    async def _answer(self, woken: socket.socket, transports: list[Transport]) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(woken, self._signalled, woken, transports)
        await self._http.serve([self._listener])
        loop.remove_reader(woken)

    def _signalled(self, woken: socket.socket, transports: list[Transport]) -> None:
        self._signals += sum(number in _STOP for number in woken.recv(64))
        if self._signals and self._draining is None:
            self._draining = asyncio.ensure_future(self._drain(transports))
        elif self._signals > 1:
            self._http.should_exit = self._http.force_exit = True

    async def _drain(self, transports: list[Transport]) -> None:
        settings = self._service.settings
        until = time.monotonic() + settings.drain + settings.grace
        _log.info("stopping: requests are still answered for %g s", settings.drain)
        self._service.draining = True
        closing = (asyncio.to_thread(transport.close) for transport in transports)
        await asyncio.gather(asyncio.sleep(settings.drain), *closing)
        _refuse_connections(self._listener)
        await asyncio.sleep(_LAST_REQUESTS_SECONDS)
        left = until - time.monotonic()
        self._http.config.timeout_graceful_shutdown = max(1, round(left))
        self._http.should_exit = True


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that gets a byte for each signal, even while the main thread is in C code."""
    woken, wake = socket.socketpair()
    for each in (woken, wake):
        each.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in _STOP}
    descriptor = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    try:
        yield woken
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        wake.close()


def _bind(settings: RuntimeSettings) -> socket.socket:
    """Bind the port without listening yet; raise :class:`NotServable`."""
    where = f"{settings.host} port {settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise NotServable(f"cannot listen on {where}: {error.strerror}") from error
    return listener


def _refuse_connections(listener: socket.socket) -> None:
    """Have the kernel refuse new connections; those being established are still accepted.

    Closing a listener resets the connections in its queue, whose requests may have been sent.
    Bound to a network interface that does not exist, it matches no new handshake and keeps its
    queue. Without CAP_NET_RAW this needs Linux 5.7; elsewhere a connection that arrives in the
    moment of closing is reset.
    """
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _BIND_TO_IFINDEX, _NO_INTERFACE)
