"""Which models an onnxruntime release can load, decided without loading one.

The table was measured by loading models of one operator into each release from
the package index (the last patch release of each minor one, CPU build, linux
x86-64) with ever higher numbers, and agrees with the project's own table where
that goes (https://onnxruntime.ai/docs/reference/compatibility.html, *ONNX opset
support*). What it cannot tell: whether a kernel exists for every operator and
element type within a supported opset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlpack.model.version import ModelVersion

ONNX, ML = "ai.onnx", "ai.onnx.ml"

OLDEST_OPSET = 7
"""Below this nothing is promised (the same page); what loads, loads by luck."""

_OWN = {
    "ai.onnx.preview.training": 1,
    "ai.onnx.training": 1,
    "com.microsoft": 1,
    "com.microsoft.experimental": 1,
    "com.microsoft.nchwc": 1,
    "org.pytorch.aten": 1,
}
"""Domains all measured releases know, and the highest opset they take of each."""


class Support:
    """What one onnxruntime release takes: per domain the highest opset, and the file format."""

    def __init__(self, *, onnx: int, ml: int, ir: int, preview: bool = False) -> None:
        self.ir = ir
        domains = {ONNX: onnx, ML: ml, "com.ms.internal.nhwc": onnx, **_OWN}
        self.opsets: Mapping[str, int] = domains | ({"ai.onnx.preview": 1} if preview else {})


_OPSET_26 = Support(onnx=26, ml=5, ir=13)
_WITH_PREVIEW = Support(onnx=26, ml=5, ir=13, preview=True)
SUPPORT: Mapping[tuple[int, int], Support] = {
    (1, 16): Support(onnx=19, ml=3, ir=9),
    (1, 17): Support(onnx=20, ml=4, ir=9),
    (1, 18): Support(onnx=21, ml=5, ir=10),
    (1, 19): Support(onnx=21, ml=5, ir=10),
    (1, 20): Support(onnx=21, ml=5, ir=10),
    (1, 21): Support(onnx=22, ml=5, ir=10),
    (1, 22): Support(onnx=22, ml=5, ir=10),
    (1, 23): Support(onnx=23, ml=5, ir=11),
    (1, 24): Support(onnx=25, ml=5, ir=13),
    (1, 25): _OPSET_26,
    (1, 26): _OPSET_26,
    (1, 27): _OPSET_26,
    (1, 28): _WITH_PREVIEW,
    (1, 29): _WITH_PREVIEW,
    (1, 30): _WITH_PREVIEW,
    (1, 31): _WITH_PREVIEW,
    (1, 32): Support(onnx=28, ml=5, ir=14, preview=True),
}
NEWEST = max(SUPPORT)


def unsupported(version: ModelVersion, onnxruntime: str) -> str | None:
    """Why onnxruntime ``onnxruntime`` cannot load the model, or ``None``.

    Says ``None`` as well where it does not know (:func:`uncertain` tells then).
    Opsets below 7 and domains no release has are refused whatever the release.
    """
    release = _release(onnxruntime)
    support = SUPPORT.get(release) if release else None
    beyond = _beyond(version, support, f"onnxruntime {onnxruntime}") if support else ()
    return "; ".join([*_always(version), *beyond]) or None


def uncertain(version: ModelVersion, onnxruntime: str) -> str | None:
    """Why nothing is known about this model on this onnxruntime, or ``None``.

    A release newer than the table runs all that the newest measured one runs,
    as onnxruntime promises; only what goes beyond that is uncertain.
    """
    release = _release(onnxruntime)
    if not version.opsets or release in SUPPORT:
        return None
    if release is not None and release > NEWEST and not [*_beyond(version, SUPPORT[NEWEST], "")]:
        return None
    oldest, newest = (".".join(map(str, each)) for each in (min(SUPPORT), NEWEST))
    return (
        f"whether onnxruntime {onnxruntime or 'of unknown version'} loads {version} is not known "
        f"(measured: {oldest} to {newest})"
    )


def _always(version: ModelVersion) -> Iterator[str]:
    declared = version.opsets.get(ONNX)
    if declared is not None and declared < OLDEST_OPSET:
        yield f"its opset {declared} is older than {OLDEST_OPSET}, the oldest onnxruntime supports"
    known = SUPPORT[NEWEST].opsets
    for domain in version.domains:
        if domain not in known:
            yield f"it uses custom operators of the domain {domain}, which onnxruntime lacks"


def _beyond(version: ModelVersion, support: Support, release: str) -> Iterator[str]:
    # A declared opset counts even where no operator of it is used: onnxruntime checks
    # the declarations of every domain it knows, and ignores those it does not know.
    for domain, opset in sorted(version.opsets.items()):
        most = support.opsets.get(domain, opset)
        if opset > most:
            yield f"its opset {opset} of {domain} is beyond {most}, the newest of {release}"
    for domain in version.domains:
        if domain not in support.opsets and domain in SUPPORT[NEWEST].opsets:
            yield f"it uses operators of the domain {domain}, which {release} lacks"
    if version.ir_version > support.ir:
        yield (
            f"its ONNX file format (IR) {version.ir_version} is beyond {support.ir}, "
            f"the newest of {release}"
        )


def _release(onnxruntime: str) -> tuple[int, int] | None:
    major, _, rest = onnxruntime.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None
