"""Which version a model becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlpack.errors import UsageError
from mlpack.model.registration import About, VersionTaken, added, settle
from mlpack.model.version import ModelFile, ModelVersion
from mlpack.oci.descriptor import Digest


def version(content: str, number: str = "0", path: str = "m.onnx") -> ModelVersion:
    file = ModelFile(path, len(content), Digest.of(content.encode()))
    return ModelVersion(name="fan", version=number, framework="onnx", files=(file,))


KNOWN = (version("one", "1"), version("seven", "7"), version("beta", "beta"))


@pytest.mark.parametrize(
    ("candidate", "asked", "becomes", "before"),
    [
        (version("new"), "", "8", None),
        (version("new"), "3", "3", None),
        (version("new"), "1.0.0", "1.0.0", None),
        (version("seven"), "", "7", "7"),
        (version("seven"), "7", "7", "7"),
        (version("beta"), "", "beta", "beta"),
        (version("seven", path="renamed.onnx"), "", "7", "7"),
        (version("seven", path="renamed.onnx"), "8", "8", None),
    ],
)
def test_content_decides(
    candidate: ModelVersion, asked: str, becomes: str, before: str | None
) -> None:
    made, same = settle(KNOWN, candidate, asked)
    assert made.version == becomes
    assert (same.version if same else None) == before


def test_the_first_version_is_1() -> None:
    assert settle((), version("new"), "")[0].version == "1"


@pytest.mark.parametrize(
    ("candidate", "asked", "said"),
    [
        (version("new"), "7", "fan:7 holds other content"),
        (version("seven"), "1", "fan:7 already, it cannot be fan:1"),
        (version("seven"), "9", "fan:7 already, it cannot be fan:9"),
    ],
)
def test_what_is_refused(candidate: ModelVersion, asked: str, said: str) -> None:
    with pytest.raises(VersionTaken, match=said) as caught:
        settle(KNOWN, candidate, asked)
    assert caught.value.hint


def test_new_content_is_newer_than_all_before_it_whatever_the_clock_shows() -> None:
    now = "2026-11-20T12:00:00+00:00"
    known = [replace(KNOWN[0], created="2026-11-20T13:00:00+00:00"), KNOWN[1]]
    first, _ = settle(known, replace(version("a"), created=now), "b")
    second, _ = settle([*known, first], replace(version("b"), created=now), "a")
    assert (first.created, second.created) == (
        "2026-11-20T13:00:00.000001+00:00",
        "2026-11-20T13:00:00.000002+00:00",
    )
    assert settle(KNOWN, replace(version("a"), created=now), "")[0].created == now


def test_what_is_said_of_the_same_content_adds_up() -> None:
    before = replace(KNOWN[0], tags={"a": "1"}, metrics={"f1": "0.5"}, created="then")
    again = replace(
        version("one"), tags={"b": "2"}, metrics={"f1": "0.6"}, created="now", source_commit="abc"
    )
    made, _ = settle((before,), again, "")
    assert made.tags == {"a": "1", "b": "2"}
    assert made.metrics == {"f1": "0.6"}
    assert (made.created, made.source_commit) == ("then", "abc")
    assert list(added(before, made)) == ["b=2", "f1=0.6", "commit abc"]
    assert settle((made,), replace(again, source_commit="def"), "")[0].source_commit == "abc"


@pytest.mark.parametrize(
    "wrong",
    [
        {"metrics": {"accuracy": "good"}},
        {"metrics": {"accuracy": "nan"}},
        {"metrics": {"accuracy": "Infinity"}},
        {"metrics": {"": "1"}},
        {"tags": {"a\nb": "c"}},
        {"tags": {"a": "b" * 257}},
        {"version": "latest"},
        {"version": "../1"},
        {"source_commit": "a\x1b[31m"},
    ],
)
def test_what_a_user_may_not_say(wrong: dict[str, object]) -> None:
    with pytest.raises((UsageError, ValueError)):
        About(**wrong)  # type: ignore[arg-type]


def test_a_metric_is_any_finite_number() -> None:
    assert About(metrics={"loss": "1e-5", "accuracy": "0.98", "bytes": "10045"})
