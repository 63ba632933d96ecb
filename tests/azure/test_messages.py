"""What the messages about Azure and rollouts say: what happened, where, and what to do next."""

from __future__ import annotations

from decimal import Decimal

import pytest

from mlpack.azure.hub_client import _unreachable
from mlpack.azure.management import registry_account, workspace_account
from mlpack.errors import UsageError
from mlpack.oci.descriptor import Reference
from mlpack.rollout.decide import Policy

HUB = "vans.azure-devices.net"


class SSLError(Exception):
    """As requests names it."""


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (SSLError(), f"the certificate of {HUB} is not trusted", "MLPACK_AZURE_CA=FILE"),
        (TimeoutError("timed out"), f"{HUB} did not respond in time", "try again"),
        (
            OSError("NameResolutionError"),
            f"the host name {HUB} is not known (DNS)",
            "check [deploy] hub in mlpack.toml",
        ),
        (OSError("refused"), f"{HUB} cannot be reached", "check the network"),
    ],
)
def test_a_hub_that_does_not_answer(error: Exception, message: str, hint: str) -> None:
    found = _unreachable(HUB, error)
    assert str(found) == message
    assert hint in found.hint


def test_the_path_of_an_azure_resource() -> None:
    with pytest.raises(UsageError, match="no Azure resource is configured"):
        workspace_account("")
    with pytest.raises(UsageError, match="'a/b' is not the path of an Azure resource"):
        workspace_account("a/b")
    with pytest.raises(UsageError, match=r"r\.example\.com is not an Azure container registry"):
        registry_account("a/b", Reference.parse_repository("r.example.com/fan"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"success": Decimal(2)}, "success is 200%; it must be from 0% to 100%"),
        ({"soak_seconds": -1}, "soak is -1 s; it must not be negative"),
    ],
)
def test_a_policy_out_of_range(changed: dict[str, object], message: str) -> None:
    valid: dict[str, object] = {
        "stages": (Decimal(1),),
        "success": Decimal(1),
        "max_failures": Decimal(0),
    }
    with pytest.raises(UsageError) as caught:
        Policy(**{**valid, **changed})  # type: ignore[arg-type]
    assert str(caught.value) == message
