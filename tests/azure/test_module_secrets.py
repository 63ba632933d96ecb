"""Secrets of modules beside a release: what the hub gets, and that nothing else keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.fleet_project import VANS
from tests.azure.rollouts import GO, GROUP, Operator, operator

SETTINGS = f"""{VANS}
[edge.modules.sentiment]
image = "mcr.microsoft.com/azure-cognitive-services/textanalytics/sentiment:3.0.1-en"
secret_env = {{ ApiKey = "env:TEST_SENTIMENT_KEY", Billing = "file:billing" }}
"""
FIRST, SECOND, BILLING = "hunter2-first", "hunter2-second", "https://hunter2.example.com"
STEP = (*GROUP, "--yes")


@pytest.fixture
def vans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    """A few vans with their base deployment."""
    monkeypatch.setenv("TEST_SENTIMENT_KEY", FIRST)
    with operator(tmp_path, 20, settings=SETTINGS) as made:
        (made.project.root / "billing").write_text(f"{BILLING}\n")
        made.done("deploy", *GROUP, "--base", "--yes")
        yield made


def sent(made: Operator, release: str) -> str:
    """The content of a release's deployment, as the hub has it."""
    (found,) = (
        json.dumps(each.document["content"])
        for id, each in made.hub.configurations.items()
        if id.startswith(f"mlpack-vans-fan-{release}-")
    )
    return found


def kept(made: Operator) -> list[Path]:
    """The files of the project that hold a secret, besides the one that it comes from."""
    files = (each for each in made.project.root.rglob("*") if each.is_file())
    return [each for each in files if b"hunter2" in each.read_bytes() and each.name != "billing"]


def test_deploy_sends_them_and_keeps_none(vans: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    said = vans.done("deploy", "fan:1", *STEP, "--stages", "50%,100%", "--dry-run")
    said += vans.done("deploy", "fan:1", *STEP, "--stages", "50%,100%")
    assert FIRST in sent(vans, "1")
    assert BILLING in sent(vans, "1")
    # To continue needs no secret: the deployment is on the hub.
    monkeypatch.delenv("TEST_SENTIMENT_KEY")
    (vans.project.root / "billing").unlink()
    said += vans.done("deploy", "fan:1", *STEP, "--wait")
    assert vans.holding(1) == 20
    for more in (("status",), ("status", "--json"), ("devices", *GROUP), ("groups",)):
        said += vans.done(*more)
    assert "hunter2" not in said
    assert kept(vans) == []


def test_a_secret_that_is_missing_is_told_before_anything_is_sent(
    vans: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_SENTIMENT_KEY")
    (vans.project.root / "billing").unlink()
    before = dict(vans.hub.configurations)
    for more in ((), ("--dry-run",)):
        refused = vans("deploy", "fan:1", *GO, *more)
        assert refused.exit_code == 1
        said = refused.stderr.replace("\n", " ")
        assert "ApiKey of module sentiment: TEST_SENTIMENT_KEY is not set" in said
        assert "Billing of module sentiment:" in said
    assert vans.hub.configurations == before


def test_a_rollback_returns_to_the_secrets_of_its_time(
    vans: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vans.done("deploy", "fan:1", *GO, "--stages", "100%")
    monkeypatch.setenv("TEST_SENTIMENT_KEY", SECOND)
    vans.done("deploy", "fan:2", *GO, "--stages", "100%")
    assert SECOND in sent(vans, "2")
    assert FIRST in sent(vans, "1")
    monkeypatch.delenv("TEST_SENTIMENT_KEY")
    said = vans.done("rollback", *GROUP, "--yes")
    assert not any(id.startswith("mlpack-vans-fan-2-") for id in vans.hub.configurations)
    assert FIRST in sent(vans, "1")
    assert "hunter2" not in said
    assert kept(vans) == []
