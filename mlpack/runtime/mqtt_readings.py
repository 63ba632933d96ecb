"""Readings between the broker's message and its acknowledgement."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

_MOST_BYTES = 64 * 1024 * 1024
_OVERHEAD_BYTES = 1024


class Reading:
    """One message of the broker's, until its prediction is safe."""

    __slots__ = (
        "connection",
        "content",
        "content_type",
        "found",
        "packet",
        "prediction",
        "settled",
    )

    def __init__(self, content: bytes, content_type: str, packet: int, connection: int) -> None:
        self.content = content
        self.content_type = content_type
        self.packet = packet
        """What the broker calls it; 0 where it wants no acknowledgement."""
        self.connection = connection
        """Which one it came over last: a packet's name means nothing on another."""
        self.found: Future[bytes | None] = Future()
        self.prediction: int | None = None
        """The packet that carries the prediction."""
        self.settled = False
        """Whether it is done with and has no prediction."""

    @property
    def size(self) -> int:
        """Bytes that it keeps here."""
        return len(self.content) + _OVERHEAD_BYTES


class Readings:
    """All that is in work, in the order in which it came: MQTT 5, 4.6 wants it acknowledged so."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._held: deque[Reading] = deque()
        self._bytes = 0
        self._confirmed: set[int] = set()
        self._connection = 0
        self._connected = False
        self.backlog = 0
        """How many are not scored yet."""
        self.overflowed = False
        """Whether readings were let go: the broker sends them again on the next connection.

        A broker may be told how many to send ahead, but Mosquitto 2.0.11 does not keep to it.
        """

    def connected(self) -> None:
        """A connection begins."""
        with self._lock:
            self._connection += 1
            self._connected = True
            self.overflowed = False

    def disconnected(self) -> None:
        """The connection ended."""
        # Without the lock: it may be this thread that holds it, in an acknowledgement.
        self._connected = False

    def take(
        self, content: bytes, content_type: str, packet: int, *, again: bool
    ) -> Reading | None:
        """What has to be scored; ``None`` for what is in work already, or too much."""
        with self._lock:
            if again and self._adopt(packet, content):
                return None
            self.overflowed |= self._bytes >= self._most
            if self.overflowed:
                return None
            reading = Reading(content, content_type, packet, self._connection)
            self._held.append(reading)
            self._bytes += reading.size
            self.backlog += 1
            return reading

    def _adopt(self, packet: int, content: bytes) -> bool:
        """Whether this is in work since before the connection was lost."""
        for each in self._held:
            if each.packet == packet and each.content == content:
                each.connection = self._connection
                return True
        return False

    def scored(self) -> None:
        """One more has its prediction, or will get none."""
        with self._lock:
            self.backlog -= 1

    def confirm(self, packet: int) -> None:
        """The broker has the prediction that ``packet`` carries."""
        self._confirmed.add(packet)

    def forget(self, reading: Reading) -> None:
        """Never acknowledge it: the broker still has it, and sends it again."""
        with self._lock:
            self._held.remove(reading)
            self._bytes -= reading.size
            self._changed.notify_all()

    def carried(self, packet: int) -> Reading | None:
        """The reading whose prediction ``packet`` carries."""
        with self._lock:
            return next((each for each in self._held if each.prediction == packet), None)

    def settle(self, acknowledge: Callable[[int], object]) -> bool:
        """Acknowledge what is done; whether the broker must be asked for more again."""
        with self._lock:
            while self._held:
                first = self._held[0]
                if first.prediction in self._confirmed:
                    self._confirmed.discard(first.prediction or 0)
                elif not first.settled:
                    break
                self._held.popleft()
                self._bytes -= first.size
                if first.packet and self._is_current(first):
                    acknowledge(first.packet)
            self._changed.notify_all()
            return self.overflowed and not self._held

    def wait(self, seconds: float) -> None:
        """Until nothing is in work that could be acknowledged on this connection."""
        with self._lock:
            self._changed.wait_for(lambda: not any(map(self._is_current, self._held)), seconds)

    def stir(self) -> None:
        """Let those that :meth:`wait` look again."""
        with self._lock:
            self._changed.notify_all()

    def _is_current(self, reading: Reading) -> bool:
        return self._connected and reading.connection == self._connection
