"""Tables of the benchmark of patches, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.tensor_patch_pairs import Group
from benchmarks.tensor_patch_peers import (
    BOUND,
    BYTE_PEERS,
    FM_DELTA,
    GZIP,
    PLANES,
    XZ,
    ZIPNN,
    Sizes,
)
from mlpack.tensor_patch import Effort

TITLE = (
    "Bytes, time and memory of patches and packed models (`make bench-delta`). Bytes of FM-Delta "
    "and of the context bound are those of the float arrays alone. MB/s are megabytes of the new "
    "model per second of one processor; MB are peaks of memory, in which mapped files count."
)

DEFAULT, MAX = Effort.DEFAULT, Effort.MAX


@dataclass(frozen=True)
class Work:
    """What one process took: seconds of a processor, and bytes of memory."""

    seconds: float
    memory: int


@dataclass(frozen=True)
class Patch:
    """A patch at one effort."""

    size: int
    made: Work
    applied: Work


@dataclass(frozen=True)
class Result:
    """One case; sizes in bytes. An effort that took too long has no patch."""

    group: Group
    name: str
    old: int
    full: int
    counted: bool
    floor: int | None
    format_1: int | None
    patches: dict[Effort, Patch | None]
    peers: Sizes

    def size(self, effort: Effort = DEFAULT) -> int | None:
        """Return the bytes of the patch at an effort."""
        patch = self.patches.get(effort)
        return patch.size if patch else None

    def best(self, *names: str) -> int | None:
        """Return the bytes of the best of these peers."""
        return min((size for name in names if (size := self.peers.get(name))), default=None)

    def of_best(self, *names: str) -> float | None:
        """Return bytes per byte of the best of these peers."""
        return _ratio(self.size(), self.best(*names))

    def of_format_1(self, effort: Effort = DEFAULT) -> float | None:
        """Return bytes per byte that the former format took."""
        return _ratio(self.size(effort), self.format_1)


def lines(results: Sequence[Result]) -> list[str]:
    """Return the tables."""
    made = list[str]()
    for group in Group:
        some = [each for each in results if each.group is group]
        if some and group is not Group.TIMES:
            made += _table(group, [{**_sizes(each), **_ratios(each)} for each in some])
    times = [row for each in results if each.group is not Group.PACKED for row in _times(each)]
    return made + _table("Time and memory", times)


def _table(title: str, rows: Sequence[dict[str, object]]) -> list[str]:
    if not rows:
        return []
    head = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    body = ["| " + " | ".join(map(_cell, row.values())) + " |" for row in rows]
    return [f"## {title}", "", *head, *body, ""]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if value >= 10 else f"{value:.3f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _sizes(of: Result) -> dict[str, object]:
    sizes = {"mlpack": of.size(), "mlpack, max": of.size(MAX)}
    return {"model": of.name, "full": of.full, **of.peers, **sizes}


def _ratios(of: Result) -> dict[str, object]:
    share = {"of full": _ratio(of.size(), of.full)}
    if of.group is Group.PACKED:
        best = of.of_best(ZIPNN, XZ, PLANES)
        return {**share, "of gzip": of.of_best(GZIP), "of ZipNN, xz, planes": best}
    former = {"of format 1": of.of_format_1(), "max": of.of_format_1(MAX)}
    return {**share, "of the best": of.of_best(*BYTE_PEERS, FM_DELTA), **former}


def _times(of: Result) -> Iterator[dict[str, object]]:
    for effort, patch in of.patches.items():
        made, applied = (patch.made, patch.applied) if patch else (None, None)
        yield {
            "model": of.name,
            "effort": effort.value,
            "of full": _ratio(of.size(effort), of.full),
            "make s": made and made.seconds,
            "MB/s": made and _speed(of, made),
            "MB": made and round(made.memory / 1e6),
            "apply s": applied and applied.seconds,
            "apply MB/s": applied and _speed(of, applied),
            "apply MB": applied and round(applied.memory / 1e6),
        }


def _speed(of: Result, work: Work) -> float:
    return of.full / 1e6 / max(work.seconds, 1e-3)


def _ratio(size: int | None, other: int | None) -> float | None:
    return None if size is None or not other else size / other


def conclusions(results: Sequence[Result]) -> list[str]:
    """Return what follows from the tables, each with its target."""
    pairs, halves, packed, timed = (
        [each for each in results if each.group is group] for group in Group
    )
    found = [*_bytes(pairs, halves), *_whole(packed), *_time(pairs + halves + timed)]
    return ["## Conclusions", "", *(f"- {each}" for each in found)]


def _bytes(pairs: Sequence[Result], halves: Sequence[Result]) -> Iterator[str]:
    both = [*pairs, *halves]
    peers = (*BYTE_PEERS, FM_DELTA)
    above = [each for each in both if _above(each.size(), each.best(*peers), 1.01, 150)]
    yield f"Above the best of six peers by more than 1 % and 150 bytes: {_names(above)}."
    floats = [each for each in pairs if each.counted]
    for name, others, target in (
        ("the best peer that patches any file", BYTE_PEERS, " (≤ 0.70)"),
        ("FM-Delta", (FM_DELTA,), ""),
        ("the context bound", (BOUND,), ""),
    ):
        ratios = [each.of_best(*others) for each in floats]
        yield f"Float ONNX pairs, geometric mean of {name}: {_mean(ratios)}{target}."
    for effort, target in ((DEFAULT, "1.02"), (MAX, "1.00")):
        former = _largest((each, each.of_format_1(effort)) for each in pairs)
        yield f"Of format 1 at effort {effort.value}, at most {former} (≤ {target})."
    former = _largest((each, each.of_format_1()) for each in halves)
    yield f"16-bit fine-tunes, of format 1, at most {former} (≤ 0.90)."
    for each in both:
        if each.floor and each.size():
            yield (
                f"{each.name}: {_cell(_ratio(each.size(), each.full))} of full; its noise alone "
                f"takes {each.floor / each.full:.3f}, the limit for anything lossless."
            )


def _whole(packed: Sequence[Result]) -> Iterator[str]:
    floats = [each for each in packed if each.counted]
    mean = _mean(each.of_best(GZIP) for each in floats)
    yield f"Packed float models, geometric mean of gzip -9: {mean} (≤ 0.89)."
    for name in (ZIPNN, XZ, PLANES):
        largest = _largest((each, each.of_best(name)) for each in floats)
        yield f"Packed float models, of {name}, at most {largest} (< 1)."
    above = [each for each in packed if _above(each.size(), each.best(GZIP), 1, 200)]
    yield f"Packed models above gzip -9 by more than 200 bytes: {_names(above)}."


def _time(results: Sequence[Result]) -> Iterator[str]:
    done = [(each, patch) for each in results if (patch := each.patches.get(DEFAULT))]
    large = [(each, -_speed(each, patch.made)) for each, patch in done if each.full >= 4_000_000]
    small = [(each, patch.made.seconds) for each, patch in done if each.full < 4_000_000]
    yield f"Slowest made of 4 MB or more, MB/s: {_largest(large).replace('-', '', 1)} (≥ 20)."
    yield f"Slowest made below 4 MB, seconds: {_largest(small)} (≤ 1)."
    floats = [(each, -_speed(each, patch.applied)) for each, patch in done if _floats(each)]
    for words, some in (
        ("of 4 MB or more", [each for each in floats if each[0].full >= 4_000_000]),
        ("below 4 MB", [each for each in floats if each[0].full < 4_000_000]),
    ):
        slowest = _largest(some).replace("-", "", 1)
        yield f"Slowest applied float pair {words}, MB/s: {slowest} (≥ 300)."
    memory = _largest(
        (each, (patch.applied.memory - each.old) / each.full)
        for each, patch in done
        if each.full >= 4_000_000
    )
    yield f"Memory to apply 4 MB or more, less the old file, of the new one: {memory} (≤ 1.3)."


def _floats(of: Result) -> bool:
    return bool(of.peers.get(FM_DELTA)) or "float" in of.name or "tune" in of.name


def _above(size: int | None, best: int | None, factor: float, extra: int) -> bool:
    return size is not None and best is not None and size > factor * best + extra


def _names(results: Sequence[Result]) -> str:
    return ", ".join(each.name for each in results) or "none"


def _mean(ratios: Iterable[float | None]) -> str:
    logs = [math.log(each) for each in ratios if each]
    return f"{math.exp(sum(logs) / len(logs)):.4f} ({len(logs)})" if logs else "none"


def _largest(values: Iterable[tuple[Result, float | None]]) -> str:
    value, name = max(((value, each.name) for each, value in values if value), default=(None, ""))
    return f"{_cell(value)} ({name})"
