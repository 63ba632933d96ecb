"""PendingMessages between the broker's message and its acknowledgement."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from ..scorer import Payload

_MOST_BYTES = 64 * 1024 * 1024
_OVERHEAD_BYTES = 1024


class PendingMessage:
    """One message, until the broker has its prediction."""

    __slots__ = (
        "connection",
        "found",
        "packet",
        "payload",
        "prediction",
        "settled",
    )

    def __init__(self, payload: Payload, packet: int, connection: int) -> None:
        self.payload = payload
        self.packet = packet
        """The broker's packet id; 0 if it expects no acknowledgement."""
        self.connection = connection
        """The number of the connection it last came over; packet ids are valid only there."""
        self.found: Future[bytes | None] = Future()
        self.prediction: int | None = None
        """The packet id of the prediction."""
        self.settled = False
        """Whether it is finished without a prediction."""

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return len(self.payload.content) + _OVERHEAD_BYTES


class PendingMessages:
    """Messages in order of arrival, in which MQTT 5, 4.6 requires them acknowledged."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._held: deque[PendingMessage] = deque()
        self._bytes = 0
        self._confirmed: set[int] = set()
        self._connection = 0
        self._connected = False
        self.backlog = 0
        """The number of messages not scored yet."""
        self.overflowed = False
        """Whether messages were dropped: the broker sends them again on the next connection.

        Mosquitto 2.0.11 exceeds the receive maximum that it was given.
        """

    def connected(self) -> None:
        """Note the start of a connection."""
        with self._lock:
            self._connection += 1
            self._connected = True
            self.overflowed = False

    def disconnected(self) -> None:
        """Note the end of the connection."""
        # Without the lock, which this thread may hold while it acknowledges.
        self._connected = False

    def take(self, payload: Payload, packet: int, *, again: bool) -> PendingMessage | None:
        """Return a message to score; ``None`` if it is in work already or memory is full."""
        with self._lock:
            if again and self._adopt(packet, payload.content):
                return None
            self.overflowed |= self._bytes >= self._most
            if self.overflowed:
                return None
            message = PendingMessage(payload, packet, self._connection)
            self._held.append(message)
            self._bytes += message.size
            self.backlog += 1
            return message

    def _adopt(self, packet: int, content: bytes) -> bool:
        """Return whether the message is in work since before a reconnect."""
        for each in self._held:
            if each.packet == packet and each.payload.content == content:
                each.connection = self._connection
                return True
        return False

    def scored(self) -> None:
        """Note that one more message is scored."""
        with self._lock:
            self.backlog -= 1

    def confirm(self, packet: int) -> None:
        """Note that the broker has the prediction ``packet``."""
        self._confirmed.add(packet)

    def forget(self, message: PendingMessage) -> None:
        """Drop a message without acknowledgement; the broker sends it again."""
        with self._lock:
            self._held.remove(message)
            self._bytes -= message.size
            self._changed.notify_all()

    def carried(self, packet: int) -> PendingMessage | None:
        """Return the message whose prediction is ``packet``."""
        with self._lock:
            return next((each for each in self._held if each.prediction == packet), None)

    def settle(self, acknowledge: Callable[[int], object]) -> bool:
        """Acknowledge finished messages; return whether dropped ones must be sent again."""
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
        """Wait until no message is left that can be acknowledged on this connection."""
        with self._lock:
            self._changed.wait_for(lambda: not any(map(self._is_current, self._held)), seconds)

    def notify(self) -> None:
        """Wake the callers of :meth:`wait`."""
        with self._lock:
            self._changed.notify_all()

    def _is_current(self, message: PendingMessage) -> bool:
        return self._connected and message.connection == self._connection
