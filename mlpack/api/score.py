"""``mlpack score``: pictures, readings and tensors to a module, its answers back."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlpack.api.run import run
from mlpack.errors import MlpackError, UsageError
from mlpack.model.sample import STDIN, Sample, numbers, recognise
from mlpack.plan.latency import Summary, summarize
from mlpack.stores.project import Project
from mlpack.stores.registries import Registries
from mlpack.stores.scoring import Scored, ScoringClient

_SCHEMES = ("http://", "https://")


class NotScored(MlpackError):
    """Samples that got no result."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that came back."""

    url: str
    scored: Sequence[Scored]
    """The first result of each sample, in their order."""

    summary: Summary

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json score``."""
        return {
            "url": self.url,
            "answers": [_describe(each) for each in self.scored],
            "summary": self.summary.to_json(),
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


def read_samples(texts: Sequence[str], stdin: Callable[[], bytes]) -> tuple[Sample, ...]:
    """What the user named: numbers, ``-``, or files; raise ``NotAnInput``."""
    return tuple(
        recognise("standard input", stdin())
        if each == STDIN
        else numbers(each) or recognise(each, Path(each).read_bytes())
        for each in texts
    )


def score(
    url: str,
    samples: Sequence[Sample],
    *,
    repeat: int = 1,
    concurrency: int = 1,
    seconds: float = 60,
    advance: Callable[[int], None] = lambda _: None,
) -> Results:
    """Score all samples ``repeat`` times, ``concurrency`` at once, each within ``seconds``."""
    at_once = min(concurrency, repeat * len(samples))
    with closing(ScoringClient(url, seconds=seconds, connections=at_once)) as client:
        scored, outcomes, took = client.score_all(samples, repeat=repeat, advance=advance)
    return Results(url=url, scored=scored, summary=summarize(outcomes, took))


@contextmanager
def module(
    project: Project | None,
    text: str,
    *,
    engine: str,
    network: str = "",
    env: Mapping[str, str] | None = None,
    registries: Registries | None = None,
) -> Iterator[str]:
    """Where ``text`` scores: the address it is, or that of a container while the block runs."""
    if text.startswith(_SCHEMES):
        yield address(text)
        return
    started = run(
        project,
        text,
        engine=engine,
        port=_free_port(),
        network=network,
        env=env or {},
        registries=registries,
    )
    try:
        yield started.url
    finally:
        started.loaded.daemon.remove(started.container)


def address(text: str) -> str:
    """The address that scores; ``/score`` where ``text`` names a host alone.

    >>> address("http://10.0.0.7:5001/"), address("http://10.0.0.7:5001/v1/score")
    ('http://10.0.0.7:5001/score', 'http://10.0.0.7:5001/v1/score')
    """
    try:
        parts = urlsplit(text)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"{text!r} is no address", hint="write it as http://host:5001")
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
