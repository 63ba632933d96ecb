"""One registry for all tests of this folder; each test takes a repository of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stores.registry import Registry, running


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A plain registry on loopback."""
    with running(tmp_path_factory.mktemp("registry") / "plain") as started:
        yield started
