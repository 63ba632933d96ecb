"""Azure's management API: where a resource is, who signs in, and what its refusals say.

Sign-in is Azure's own (``DefaultAzureCredential``: ``az login``, a managed identity, or the
``AZURE_…`` variables). No token, key or link with a signature leaves through a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.azure.answers import plain
from mlpack.azure.connection import NoAzure, login
from mlpack.errors import MlpackError, UsageError
from mlpack.oci.reference import Reference

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

CLOUD = "https://management.azure.com"
EXTRA = "pip install 'mlpack-edge[azure]'"
LOG_IN = "log in with: az login"


class AzureFailed(MlpackError):
    """What Azure did not do, in its own words and one line."""


class AzureDenied(AzureFailed):
    """A login that is missing, or one without the right."""


class NotInAzure(AzureFailed):
    """A resource that Azure does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where in Azure a registry or a workspace is."""

    subscription: str
    resource_group: str
    name: str
    """Its own: ``contoso`` of ``contoso.azurecr.io``."""

    endpoint: str = CLOUD
    """Azure's management address; sovereign clouds have others."""

    @property
    def scope(self) -> str:
        """What a token for the management API is asked for."""
        return f"{self.endpoint}/.default"

    def __str__(self) -> str:
        return f"{self.subscription}/{self.resource_group}/{self.name}"


def registry_account(place: str, repository: Reference, endpoint: str = CLOUD) -> Account:
    """Read ``SUBSCRIPTION/GROUP[/REGISTRY]``; the repository's host names the registry else.

    >>> registry_account("0001/edge", Reference.parse("contoso.azurecr.io/edge/fan")).name
    'contoso'
    """
    parts = place.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(
            f"{place!r} does not say where in Azure the registry is",
            hint="name it as SUBSCRIPTION/GROUP[/REGISTRY] with --acr (--registry of azure token), "
            "or set MLPACK_ACR",
        )
    host, dot, _ = repository.registry.partition(".azurecr.")
    if len(parts) == 2 and not dot:
        raise UsageError(
            f"{repository.registry} is no registry of Azure",
            hint="name it as well: SUBSCRIPTION/GROUP/REGISTRY",
        )
    name = parts[2] if len(parts) == 3 else host
    return Account(
        subscription=parts[0],
        resource_group=parts[1],
        name=name,
        endpoint=endpoint.rstrip("/"),
    )


def workspace_account(place: str, endpoint: str = CLOUD) -> Account:
    """Read ``SUBSCRIPTION/GROUP/WORKSPACE``, where an Azure ML workspace is."""
    parts = place.split("/")
    if len(parts) != 3 or not all(parts):
        raise UsageError(
            f"{place!r} does not say where in Azure the workspace is",
            hint="name it as SUBSCRIPTION/GROUP/WORKSPACE with --workspace, or set "
            "MLPACK_WORKSPACE",
        )
    return Account(
        subscription=parts[0],
        resource_group=parts[1],
        name=parts[2],
        endpoint=endpoint.rstrip("/"),
    )


@contextmanager
def signed_in(what: str, *, role: str, wrong: str) -> Iterator[TokenCredential]:
    """Azure's own login while the block runs, whose refusals become :class:`AzureFailed`.

    ``what`` begins the message, ``role`` is what a login needs that is refused, ``wrong`` what to
    look at where a resource is not found. Raises :class:`NoAzure` where an SDK is missing.
    """
    credential = login()  # says so where nothing of Azure's is installed
    from azure.core.exceptions import AzureError

    try:
        with credential:
            yield credential
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("azure"):
            raise
        raise NoAzure(f"the Python package {error.name} is not installed", hint=EXTRA) from error
    except AzureError as error:
        raise _failed(what, error, role, wrong) from None


def _failed(what: str, error: Exception, role: str, wrong: str) -> AzureFailed:
    lines = str(getattr(error, "message", "") or error).strip().splitlines()
    said = f"{what}: {plain(lines[0] if lines else type(error).__name__)}"
    status = getattr(error, "status_code", None)
    name = type(error).__name__
    if status == 403:
        return AzureDenied(said, hint=role)
    if name in ("CredentialUnavailableError", "ClientAuthenticationError"):
        if status is None:
            said = f"{what}: this machine has no login that Azure takes"
        return AzureDenied(said, hint=LOG_IN)
    if status == 404:
        return NotInAzure(said, hint=wrong)
    if status == 429:
        return AzureFailed(said, hint="Azure has too many requests: try again in some minutes")
    if name == "ServiceRequestError":
        return AzureFailed(
            said,
            hint="look at the network; for a certificate of your own "
            "authority: REQUESTS_CA_BUNDLE=FILE",
        )
    return AzureFailed(said, hint=wrong)
