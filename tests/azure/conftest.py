"""What the tests of Azure's services share."""

from __future__ import annotations

import pytest

from tests.e2e.wire import Certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For doubles on localhost, and blob storage on ``*.blob.localhost``."""
    return Certificate.made(tmp_path_factory.mktemp("authority") / "pki", "*.blob.localhost")
