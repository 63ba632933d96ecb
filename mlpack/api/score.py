"""``mlpack score``: send values, rows of CSV files, pictures and tensors to a module."""

from __future__ import annotations

import math
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlpack.api.requests import Run
from mlpack.api.run import end, run
from mlpack.engines.engine import NoEngine
from mlpack.errors import MlpackError, UsageError
from mlpack.json_document import named, rounded
from mlpack.model.interface import ModuleInterface, from_reading, from_table, ignored
from mlpack.model.predictions import Cells, predictions
from mlpack.model.reading import Reading, Table, is_number, read_table, read_values
from mlpack.model.sample import STDIN, NotAnInput, Sample, recognise
from mlpack.project.scoring_client import RequestTiming, Scored, ScoringClient
from mlpack.stores.files import read_file

if TYPE_CHECKING:
    from mlpack.api.requests import Score
    from mlpack.api.session import Session

_SCHEMES = ("http://", "https://")
_HOST = r"localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\]|(?:[\w-]+\.)+[A-Za-z]+"
_ADDRESS = re.compile(rf"(?:{_HOST}):\d{{2,5}}(?:/|/score)?|localhost", re.ASCII)
"""An address without its scheme. ``fan:2`` is a version, ``localhost:5000/fan`` an image."""

_TABLES = (".csv", ".tsv")
_AT_ADDRESS = "mlpack score localhost:5001 INPUT..."


class NotScored(MlpackError):
    """Samples that got no result."""


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Times of answered requests, in seconds; 0 if none was answered."""

    requests: int
    answered: int
    seconds: float = field(metadata=rounded(6))
    """From the first request to the last response."""

    rate: float = field(metadata={**named("requests_per_second"), **rounded(3)})
    """Answered requests per second."""

    p50: float = field(metadata=rounded(6))
    p90: float = field(metadata=rounded(6))
    p99: float = field(metadata=rounded(6))
    longest: float = field(metadata=rounded(6))
    problems: Mapping[str, int]
    """The number of requests by problem, the most frequent first."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of all samples."""

    url: str
    scored: Sequence[Scored]
    """The first result of each sample, in their order."""

    summary: LatencySummary
    tables: Sequence[Table] = ()
    """The CSV files whose rows were scored."""

    @property
    def predictions(self) -> Sequence[Cells]:
        """The predictions for all rows of CSV files, in their order; none where it failed."""
        found: list[Cells] = []
        for each in self.scored:
            document = each.answer.document if each.answer else {}
            found += predictions(document, each.sample.rows) if each.sample.rows else ()
        return found

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json score``."""
        return {
            "url": self.url,
            "answers": [_describe(each) for each in self.scored],
            **({"predictions": self.predictions} if self.tables else {}),
            "summary": self.summary,
        }

    def require_all(self) -> None:
        """Raise :class:`NotScored` where a request failed."""
        failed = self.summary.requests - self.summary.answered
        if not failed:
            return
        error = next((each.error for each in self.scored if each.error), None)
        why = str(error or next(iter(self.summary.problems)))
        if self.summary.requests > 1:
            why = f"{failed} of {self.summary.requests} requests failed; {why}"
        raise NotScored(why, hint=error.hint if error else "")


Given = Sample | Reading | Table


def read_inputs(
    session: Session, texts: Sequence[str], stdin: Callable[[], bytes]
) -> tuple[Given, ...]:
    """Read what the user named: values, ``-``, or files; raise ``UsageError``."""
    return tuple(_read_input(session, each, stdin) for each in texts)


def _read_input(session: Session, text: str, stdin: Callable[[], bytes]) -> Given:
    if text == STDIN:
        content = stdin()
        try:
            return recognise("standard input", content)
        except NotAnInput:
            if b"\n" not in content:
                raise
            return read_table("standard input", content)
    if all(map(is_number, text.split(","))):
        return read_values(text)
    if _is_file(session.path(text)):
        content = read_file(session.existing(text))
        return (read_table if text.lower().endswith(_TABLES) else recognise)(text, content)
    if text.lstrip().startswith(("{", "[")):
        return recognise(text, text.encode())
    if any(each in text for each in ",= "):
        return read_values(text)
    return recognise(text, read_file(session.existing(text)))


def _is_file(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # longer than any name
        return False


def make_samples(
    given: Sequence[Given], describe: Callable[[], ModuleInterface], say: Callable[[str], None]
) -> tuple[Sample, ...]:
    """Return the requests for what the user gave; ``describe`` is called if they depend on it."""
    found: list[Sample] = []
    interface = None
    for each in given:
        if isinstance(each, Sample):
            found.append(each)
            continue
        interface = interface or describe()
        if isinstance(each, Reading):
            found.append(from_reading(each, interface))
            continue
        found += from_table(each, interface)
        extra = ignored(each, interface)
        if extra:
            say(f"{each.source}: the module takes no {', '.join(extra)}; ignored")
    return tuple(found)


def score(session: Session, request: Score) -> Results:
    """Score all inputs ``repeat`` times, ``concurrency`` at once, each within ``timeout``.

    An image is started as a container for it, and removed again.
    """
    given = read_inputs(session, request.inputs, sys.stdin.buffer.read)
    with _module(session, request) as url:
        client = ScoringClient(url, seconds=request.timeout, connections=request.concurrency)
        with closing(client):
            samples = make_samples(given, client.describe, session.say)
            total = request.repeat * len(samples)
            with session.step("scoring", total, "requests") as step:
                scored, outcomes, took = client.score_all(
                    samples, repeat=request.repeat, advance=step
                )
    tables = tuple(each for each in given if isinstance(each, Table))
    return Results(url=url, scored=scored, summary=summarize(outcomes, took), tables=tables)


@contextmanager
def _module(session: Session, request: Score) -> Iterator[str]:
    """The address that scores: the one named, or that of a container while the block runs."""
    if is_address(request.module):
        yield address(request.module)
        return
    wanted = Run(
        request.module,
        engine=request.engine,
        port=_free_port(),
        network=request.network,
        env=request.env,
    )
    try:
        started = run(session, wanted)
    except NoEngine as error:
        hint = f"{error.hint}; a module that runs is scored at its address: {_AT_ADDRESS}"
        raise NoEngine(
            f"{request.module} is scored in a container, but {error}", hint=hint
        ) from error
    try:
        yield started.url
    finally:
        end(started)


def is_address(text: str) -> bool:
    """Whether ``text`` is a module's address, not the name of an image.

    >>> is_address("http://edge"), is_address("localhost:5001"), is_address("10.0.0.7:5001/score")
    (True, True, True)
    >>> is_address("fan"), is_address("fan:2"), is_address("localhost:5000/fan")
    (False, False, False)
    """
    return text.startswith(_SCHEMES) or _ADDRESS.fullmatch(text) is not None


def address(text: str) -> str:
    """The address that scores; ``/score`` where ``text`` names a host alone.

    >>> address("http://10.0.0.7:5001/"), address("localhost:5001")
    ('http://10.0.0.7:5001/score', 'http://localhost:5001/score')
    """
    if not text.startswith(_SCHEMES):
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"{text!r} is not an address", hint="write it as http://host:5001")
    return text if parts.path not in ("", "/") else parts._replace(path="/score").geturl()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _describe(scored: Scored) -> dict[str, object]:
    found: dict[str, object] = {"input": scored.sample.name}
    if scored.answer is None:
        return {**found, "problem": str(scored.error)}
    answer = scored.answer
    return {
        **found,
        "status": answer.status,
        "seconds": round(answer.seconds, 6),
        "content_type": answer.content_type,
        "answer": answer.document,
    }


def summarize(outcomes: Sequence[RequestTiming], seconds: float) -> LatencySummary:
    """Summarize requests that took ``seconds`` together."""
    times = sorted(each.seconds for each in outcomes if not each.problem)
    problems = Counter(each.problem for each in outcomes if each.problem)
    return LatencySummary(
        requests=len(outcomes),
        answered=len(times),
        seconds=seconds,
        rate=len(times) / seconds if seconds > 0 else 0.0,
        p50=percentile(times, 50),
        p90=percentile(times, 90),
        p99=percentile(times, 99),
        longest=times[-1] if times else 0.0,
        problems=dict(problems.most_common()),
    )


def percentile(ordered: Sequence[float], share: int) -> float:
    """Return the least value that ``share`` per cent do not exceed (nearest rank); 0 for none.

    >>> percentile([1, 2, 3, 4], 50), percentile([1, 2, 3, 4], 99), percentile([], 50)
    (2, 4, 0.0)
    """
    if not ordered:
        return 0.0
    return ordered[max(1, math.ceil(len(ordered) * share / 100)) - 1]
