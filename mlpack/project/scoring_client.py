"""A client of scoring modules: one request at a time, or many at once, each timed.

Unlike registries, a module is asked once: a second attempt would hide what is measured.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import httpcore

from mlpack.errors import MlpackError
from mlpack.interruptions import call_in_threads
from mlpack.model.interface import ModuleInterface, module_name, read_interface
from mlpack.model.sample import Sample

Headers = Mapping[bytes | str, bytes | str]

MAX_ANSWER = 256 * 1024 * 1024
_MESSAGE = 300


class NoAnswer(MlpackError):
    """A module that could not be reached, or did not answer."""


class Refusal(MlpackError):
    """An unsuccessful response; the message is the module's own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A module's response, and the seconds from the request to its last byte."""

    status: int
    content_type: str
    content: bytes
    seconds: float

    @property
    def document(self) -> object:
        """Its content as JSON; ``None`` if it is not JSON."""
        if "json" not in self.content_type:
            return None
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class RequestTiming:
    """One request: seconds until its response was complete, and its problem, if any."""

    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class Scored:
    """The result of one sample."""

    sample: Sample
    outcome: RequestTiming
    answer: Answer | None = None
    error: MlpackError | None = None


class ScoringClient:
    """Sends samples to the module at ``url``, from as many threads as there are connections."""

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

    def describe(self) -> ModuleInterface:
        """Return what the module takes, as far as it describes itself; raise :class:`NoAnswer`."""
        base = self.url.removesuffix("/score")
        swagger = self._document(f"{base}/swagger.json")
        name = module_name(swagger)
        metadata = self._document(f"{base}/v2/models/{quote(name, safe='')}") if name else None
        return read_interface(swagger, metadata)

    def _document(self, url: str) -> object:
        answer, _ = self._request("GET", url, {"Accept": "application/json"}, b"")
        return answer.document if answer.status == 200 else None

    def ask(self, sample: Sample) -> Answer:
        """Score one sample; raise :class:`NoAnswer` or :class:`Refusal`."""
        kinds: Headers = {"Content-Type": sample.content_type, "Accept": "application/json"}
        answer, headers = self._request("POST", self.url, kinds, sample.content)
        if not 200 <= answer.status < 300:
            raise _refusal(answer, headers)
        return answer

    def _request(
        self, method: str, url: str, headers: Headers, content: bytes
    ) -> tuple[Answer, dict[str, str]]:
        """Return an answer and its headers; raise :class:`NoAnswer`."""
        begun = time.perf_counter()
        try:
            with self._pool.stream(
                method,
                url,
                headers=headers,
                content=content,
                extensions={"timeout": dict.fromkeys(_WAITS, self._seconds)},
            ) as response:
                received = _read(response.iter_stream())
        except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError) as error:
            raise NoAnswer(f"{self.url} is not a usable URL: {error}") from None
        except _TROUBLE as error:
            raise _trouble(self.url, self._seconds, error) from None
        found = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
        kind = found.get("content-type", "")
        return Answer(response.status, kind, received, time.perf_counter() - begun), found

    def score(self, sample: Sample) -> Scored:
        """As :meth:`ask`, with an error as a value."""
        begun = time.perf_counter()
        try:
            answer = self.ask(sample)
        except (NoAnswer, Refusal) as error:
            return Scored(
                sample, RequestTiming(time.perf_counter() - begun, str(error)), error=error
            )
        return Scored(sample, RequestTiming(answer.seconds), answer)

    def score_all(
        self, samples: Sequence[Sample], *, repeat: int, advance: Callable[[int], None]
    ) -> tuple[list[Scored], list[RequestTiming], float]:
        """Score all samples ``repeat`` times, on all connections at once.

        Returns each sample's first result, the timing of every request, and the seconds in all.
        """
        work = iter([each for _ in range(repeat) for each in enumerate(samples)])
        first: dict[int, Scored] = {}
        outcomes: list[RequestTiming] = []
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
        call_in_threads([go_on] * self._connections, self._connections, stop.set)
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
    hint = next((each for part, each in _HINTS.items() if part in said), "")
    return Refusal(message, hint=hint or _hint(answer.status, headers))


_NAN = "MLPACK_ALLOW_NAN=1"
_HINTS = {
    _NAN: (
        f"on this machine: mlpack serve NAME --env {_NAN}; on devices: "
        'env = {MLPACK_ALLOW_NAN = "1"} under [module] in mlpack.toml'
    ),
    ", not image/": (
        "a model without a script takes tensors: its page scales pictures, or write a score.py "
        "with run_image()"
    ),
}
"""What to do, by a part of the module's message."""


def _hint(status: int, headers: dict[str, str]) -> str:
    if status in (301, 302, 303, 307, 308):
        return f"it is at {headers.get('location', 'another address')}"
    if status == 503:
        after = headers.get("retry-after", "1")
        return f"it is busy; try again in {after} s, or send fewer requests at once"
    if status in (404, 405):
        return "give the address that scores, as http://host:5001/score"
    return (
        "its log has the traceback: mlpack serve prints it, docker logs shows a container's"
        if status >= 500
        else ""
    )
