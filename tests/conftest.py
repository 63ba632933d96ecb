"""Fixtures every test may use."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.e2e.wire import Certificate, local_certificate
from tests.registry.registry import Registry, running
from tests.support import PROFILE, SHARED, lasting_folder, own_environment

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # In the background of a script; what tests start and interrupt must not inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Bases that tests unpack do not belong in the user's cache.
os.environ.setdefault("MLPACK_CACHE", str(lasting_folder()))

# No deadline: a time is no fact of the code while other tests run on the same cores.
hypothesis.settings.register_profile("default", max_examples=30, deadline=None)
hypothesis.settings.register_profile("full", max_examples=150, deadline=None)
hypothesis.settings.load_profile(PROFILE)

GOLDEN = Path(__file__).parent / "golden"
E2E = Path(__file__).parent / "e2e"
ON_ONE_WORKER = {"test_azure_token", "test_oip", "test_round", "test_schemathesis"}
"""Files whose tests share a model, a group or a server that takes seconds to make."""

WITHOUT_ENGINES = {"test_fan_mqtt", "test_fan_scenario", "test_iotedge", "test_page", "test_readme"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark end-to-end tests."""
    for item in items:
        if item.path.is_relative_to(E2E):
            item.add_marker("e2e")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep tests that share a base and engines, or something slow to make, on one worker.

    pytest-xdist's own groups (3.8) do not work with pytest 9.2: all tests run alone.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = Path(nodeid.partition("::")[0])
            if path.parts[:2] != ("tests", "e2e"):
                return path.stem if path.stem in ON_ONE_WORKER else nodeid
            return path.stem if path.stem in WITHOUT_ENGINES else "engines"

    return Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List why tests were skipped; those that need the shared data are one line."""
    reasons = Counter(_reason(each) for each in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped {count}: {reason}")


def _reason(report: pytest.TestReport) -> str:
    found = report.longrepr
    text = found[2].removeprefix("Skipped: ") if isinstance(found, tuple) else str(found)
    return f"{SHARED} is missing or incomplete" if str(SHARED) in text else text


@pytest.fixture(scope="session")
def certificate() -> Certificate:
    """For doubles on localhost, and blob storage on ``*.blob.localhost``."""
    return local_certificate()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A plain registry on loopback; each test takes a repository of its own."""
    with running(tmp_path_factory.mktemp("registry") / "plain") as started:
        yield started


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Undo what a module opened in this process exports for its script."""
    with own_environment():
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with ``tests/golden/<name>``; ``--update-golden`` writes it instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: run pytest --update-golden and look at it"
        assert text == path.read_text(encoding="utf-8")

    return compare
