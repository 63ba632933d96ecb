"""A process that serves: HTTP on one thread, scoring on the main one, and its end on SIGTERM.

While runs are short both are done on the main thread (``helm.py``).

After SIGTERM the module is not ready any more but still answers for a while,
each time closing the connection: whoever sent a request gets its answer, and
balancers have time to look elsewhere. Then no connection is taken any more, and
what is in work is finished.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import cast

import uvicorn

from . import logs
from .fronts import Front, open_fronts
from .http.app import application
from .module import Module
from .settings import NotServable, ScriptFailed, Settings

_STOP = (signal.SIGTERM, signal.SIGINT)
_KEEP_ALIVE_SECONDS = 65
_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER, which the socket module does not name."""
_HANDSHAKE_SECONDS = 0.1
"""For connections that are about to be established when no more are taken."""
_FIRST_BYTES_SECONDS = 0.2
"""For the request on a connection that was taken last."""
_SWITCH_SECONDS = 0.0005
"""Between scoring and HTTP where each has a thread: with Python's 5 ms, 16 clients of the fan got
a sixth fewer answers (3,800 requests a second, and 4,500 with this)."""
_END_SECONDS = 2.0
"""For a script that does not end, until the process ends without it."""

_log = logging.getLogger("mlpack_runtime")


def serve(settings: Settings, environment: Mapping[str, str] = os.environ) -> int:
    """Load the model and answer until SIGTERM or SIGINT; return the exit status."""
    logs.configure(settings.level)
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        listener = _bind(settings)
        module = Module.open(settings)
        server = _Server(module, listener)
        fronts = open_fronts(module, environment)
    except NotServable as error:
        cause = error.__cause__ if isinstance(error, ScriptFailed) else None
        _log.error("%s", error, exc_info=cause)
        return 1
    model = f"{module.identity.name} {module.identity.version}"
    _log.info("ready on port %d, model %s, in %.2f s", settings.port, model, module.load_seconds)
    with _signals() as woken:
        thread = threading.Thread(target=server.run, args=(woken, fronts), name="http")
        thread.start()
        module.work()
    server.finished.set()
    thread.join()
    return server.status


class _Server:
    """uvicorn on a thread of its own; signals arrive as bytes on a socket."""

    def __init__(self, module: Module, listener: socket.socket) -> None:
        settings = module.settings
        self._module = module
        self._listener = listener
        self._signals = 0
        self._draining: asyncio.Task[None] | None = None
        self.finished = threading.Event()
        """Set when nothing is scored any more."""
        self.status = 0
        self._http = uvicorn.Server(
            uvicorn.Config(
                application(module),
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

    def run(self, woken: socket.socket, fronts: list[Front]) -> None:
        """Answer until a signal; then see that the process ends."""
        try:
            with asyncio.Runner() as runner:
                self._module.helm.run(runner.get_loop(), self._answer(woken, fronts))
        except BaseException as error:
            self.status = 1
            _log.critical("the server failed", exc_info=error)
        finally:
            self._module.close()
        if not self.finished.wait(_END_SECONDS):
            _log.error("scoring does not end: the process ends without it")
            os._exit(1)

    async def _answer(self, woken: socket.socket, fronts: list[Front]) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(woken, self._signalled, woken, fronts)
        # A copy: its end is uvicorn's, and connections are still taken here after it.
        await self._http.serve([self._listener.dup()])
        loop.remove_reader(woken)

    def _signalled(self, woken: socket.socket, fronts: list[Front]) -> None:
        self._signals += sum(number in _STOP for number in woken.recv(64))
        if self._signals and self._draining is None:
            self._module.helm.keep()
            self._draining = asyncio.ensure_future(self._drain(fronts))
        elif self._signals > 1:
            self._http.should_exit = self._http.force_exit = True

    async def _drain(self, fronts: list[Front]) -> None:
        settings = self._module.settings
        until = time.monotonic() + settings.drain + settings.grace
        _log.info("stopping: requests are still answered for %g s", settings.drain)
        self._module.draining = True
        closing = (asyncio.to_thread(front.close) for front in fronts)
        await asyncio.gather(asyncio.sleep(settings.drain), *closing)
        _refuse_connections(self._listener)
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        for server in self._http.servers:
            server.close()
        late = [self._connect(each) for each in _last_connections(self._listener)]
        await asyncio.gather(*late, return_exceptions=True)
        await asyncio.sleep(_FIRST_BYTES_SECONDS)
        left = until - time.monotonic()
        self._http.config.timeout_graceful_shutdown = max(1, round(left))
        self._http.should_exit = True

    async def _connect(self, connection: socket.socket) -> None:
        """Answer on a connection that uvicorn did not take itself."""
        made = cast(Callable[..., asyncio.Protocol], self._http.config.http_protocol_class)
        protocol = partial(
            made,
            config=self._http.config,
            server_state=self._http.server_state,
            app_state={},
        )
        await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)


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


def _bind(settings: Settings) -> socket.socket:
    """Take the port; nobody can connect yet. Raises :class:`NotServable`."""
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
    """Drop attempts to connect, where the kernel lets; who is connected can still be taken.

    A filter on the socket (Linux, socket(7), ``SO_ATTACH_FILTER``) that drops packets with SYN
    and without ACK. Some kernels let root alone set one; then a moment stays in which somebody
    may connect who is not taken any more.
    """
    program = (
        (0x30, 0, 0, 13),  # load the byte of the TCP header that holds the flags
        (0x54, 0, 0, 0x12),  # of these, SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # then take nothing of the packet
        (0x06, 0, 0, 0xFFFFFFFF),
    )
    code = array.array("B", b"".join(struct.pack("HBBI", *each) for each in program))
    option = struct.pack("HP", len(program), code.buffer_info()[0])
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, option)


def _last_connections(listener: socket.socket) -> list[socket.socket]:
    """Take all who are connected, and close the listener at once.

    A listening socket that is closed resets the connections in its queue, whose
    requests may have been sent already.
    """
    listener.setblocking(False)
    taken = []
    # The thread that scores must not run for 5 ms between the last look and the end.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with listener, suppress(OSError):  # there is no more, or no room for it
        while True:
            taken.append(listener.accept()[0])
    sys.setswitchinterval(interval)
    return taken
