"""The client of a module: one request at a time, or many at once, each timed.

Unlike registries, a module is asked once: a second attempt would hide what is measured.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpcore

from mlpack.errors import MlpackError
from mlpack.model.sample import Sample
from mlpack.plan.latency import Outcome

MAX_ANSWER = 256 * 1024 * 1024
_MESSAGE = 300


class NoAnswer(MlpackError):
    """A module that could not be asked, or did not answer."""


class Refusal(MlpackError):
    """An answer that says no; the message is the module's own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A module's answer, and the seconds from the request to its last byte."""

    status: int
    content_type: str
    content: bytes
    seconds: float

    @property
    def document(self) -> object:
        """The JSON in it; ``None`` where it is none."""
        if "json" not in self.content_type:
            return None
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True)
class Scored:
    """What became of one sample."""

    sample: Sample
    outcome: Outcome
    answer: Answer | None = None
    error: MlpackError | None = None


class ScoringClient:
    """Asks the module at ``url``, from as many threads as there are connections."""

    def __init__(self, url: str, *, seconds: float, connections: int = 1) -> None:
        self.url = url
        self._seconds = seconds
        self._connections = connections
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context() if url.startswith("https") else None,
            max_connections=connections,
            keepalive_expiry=5,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def ask(self, sample: Sample) -> Answer:
        """Score one sample; raise :class:`NoAnswer` or :class:`Refusal`."""
        begun = time.perf_counter()
        try:
            with self._pool.stream(
                "POST",
                self.url,
                headers={"Content-Type": sample.content_type, "Accept": "application/json"},
                content=sample.content,
                extensions={"timeout": dict.fromkeys(_WAITS, self._seconds)},
            ) as response:
                content = _read(response.iter_stream())
        except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError) as error:
            raise NoAnswer(f"{self.url} cannot be asked: {error}") from None
        except _TROUBLE as error:
            raise _trouble(self.url, self._seconds, error) from None
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
        kind = headers.get("content-type", "")
        answer = Answer(response.status, kind, content, time.perf_counter() - begun)
        if not 200 <= answer.status < 300:
            raise _refusal(answer, headers)
        return answer

    def score(self, sample: Sample) -> Scored:
        """As :meth:`ask`, with what went wrong as a value."""
        begun = time.perf_counter()
        try:
            answer = self.ask(sample)
        except (NoAnswer, Refusal) as error:
            return Scored(sample, Outcome(time.perf_counter() - begun, str(error)), error=error)
        return Scored(sample, Outcome(answer.seconds), answer)

    def score_all(
        self, samples: Sequence[Sample], *, repeat: int, advance: Callable[[int], None]
    ) -> tuple[list[Scored], list[Outcome], float]:
        """Score all samples ``repeat`` times, as many at once as there are connections.

        Returns each sample's first result, all outcomes, and the seconds it took.
        """
        work = iter([each for _ in range(repeat) for each in enumerate(samples)])
        first: dict[int, Scored] = {}
        outcomes: list[Outcome] = []
        lock, stop = threading.Lock(), threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                with lock:
                    taken = next(work, None)
                if taken is None:
                    return
                number, sample = taken
                found = self.score(sample)
                with lock:
                    first.setdefault(number, found)
                    outcomes.append(found.outcome)
                    advance(1)

        begun = time.perf_counter()
        with ThreadPoolExecutor(self._connections, thread_name_prefix="score") as pool:
            running = [pool.submit(go_on) for _ in range(self._connections)]
            try:
                for each in running:
                    each.result()
            except BaseException:
                stop.set()
                raise
        return [first[n] for n in sorted(first)], outcomes, time.perf_counter() - begun


_WAITS = ("connect", "read", "write", "pool")
_TROUBLE = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError)


def _read(chunks: Iterator[bytes]) -> bytes:
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_ANSWER:
            raise NoAnswer(f"an answer of more than {MAX_ANSWER} bytes is not read")
    return bytes(content)


def _trouble(url: str, seconds: float, error: Exception) -> NoAnswer:
    if isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout):
        if "CERTIFICATE" in str(error):
            return NoAnswer(
                f"{url}: its certificate is not trusted", hint="SSL_CERT_FILE names one"
            )
        return NoAnswer(
            f"nothing answers at {url} ({error or 'no connection in time'})",
            hint="start a module with: mlpack serve NAME, or mlpack run NAME",
        )
    if isinstance(error, httpcore.TimeoutException):
        return NoAnswer(
            f"no answer from {url} within {seconds:g} s", hint="allow more with --timeout SECONDS"
        )
    return NoAnswer(
        f"{url}: the connection broke off ({error or type(error).__name__})",
        hint="the module's log may say why",
    )


def _refusal(answer: Answer, headers: dict[str, str]) -> Refusal:
    document = answer.document
    said, field = "", ""
    if isinstance(document, dict):
        said = str(document.get("message") or document.get("error") or "")
        field = str(document.get("field") or "")
    said = said or answer.content.decode("utf-8", "replace").strip().partition("\n")[0]
    about = f" (about {field})" if field and field not in said else ""
    message = f"the module answers {answer.status}: {said[:_MESSAGE] or 'nothing more'}{about}"
    return Refusal(message, hint=_hint(answer.status, headers))


def _hint(status: int, headers: dict[str, str]) -> str:
    if status in (301, 302, 303, 307, 308):
        return f"it is at {headers.get('location', 'another address')}"
    if status == 503:
        return f"it is busy; try again in {headers.get('retry-after', '1')} s, or ask less at once"
    if status in (404, 405):
        return "give the address that scores, as http://host:5001/score"
    return "its log says more" if status >= 500 else ""
