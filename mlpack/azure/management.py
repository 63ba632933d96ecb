"""Azure's management API: where a resource is, signing in, and error messages.

Sign-in is Azure's own (``DefaultAzureCredential``: ``az login``, a managed identity, or the
``AZURE_…`` variables). No message contains a token, a key or a signed link.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError
from mlpack.installation import install_command
from mlpack.oci.descriptor import Reference

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.identity import DefaultAzureCredential

CLOUD = "https://management.azure.com"
LOG_IN = "log in with: az login"
MAX_MESSAGE = 300
_SECRET = re.compile(
    r"(sig=|SharedAccessKey=|SharedAccessSignature |Bearer )[^\s;&,'\"]+", re.IGNORECASE
)


class NoAzure(MlpackError):
    """A machine without the Azure client that is needed."""


class AzureFailed(MlpackError):
    """A failed request to Azure, with Azure's own message in one line."""


class AzureDenied(AzureFailed):
    """A missing login, or one without the required role."""


class NotInAzure(AzureFailed):
    """A resource that does not exist in Azure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The location of a registry or workspace in Azure."""

    subscription: str
    resource_group: str
    name: str
    """``contoso`` of ``contoso.azurecr.io``."""

    endpoint: str = CLOUD
    """Azure's management address; sovereign clouds have others."""

    @property
    def scope(self) -> str:
        """The scope of a token for the management API."""
        return f"{self.endpoint}/.default"

    def __str__(self) -> str:
        return f"{self.subscription}/{self.resource_group}/{self.name}"


def registry_account(place: str, repository: Reference, endpoint: str = CLOUD) -> Account:
    """Read ``SUBSCRIPTION/GROUP[/REGISTRY]``; the repository's host is the default registry.

    >>> registry_account("0001/edge", Reference.parse("contoso.azurecr.io/edge/fan")).name
    'contoso'
    """
    name, dot, _ = repository.registry.partition(".azurecr.")
    if place.count("/") == 1 and all(place.split("/")):
        if not dot:
            raise UsageError(
                f"{repository.registry} is not an Azure container registry",
                hint="add its name: SUBSCRIPTION/GROUP/REGISTRY",
            )
        place = f"{place}/{name}"
    return _account(
        place,
        endpoint,
        "SUBSCRIPTION/GROUP[/REGISTRY] with --acr (--registry of azure token), or set MLPACK_ACR",
    )


def workspace_account(place: str, endpoint: str = CLOUD) -> Account:
    """Read ``SUBSCRIPTION/GROUP/WORKSPACE``, the location of an Azure ML workspace."""
    form = (
        "SUBSCRIPTION/GROUP/WORKSPACE (or the path of its config.json) with --workspace, "
        "or set MLPACK_WORKSPACE"
    )
    return _account(place, endpoint, form)


def _account(place: str, endpoint: str, form: str) -> Account:
    if not place:
        raise UsageError("no Azure resource is configured", hint=f"give {form}")
    parts = place.split("/")
    if len(parts) != 3 or not all(parts):
        raise UsageError(
            f"{place!r} is not the path of an Azure resource", hint=f"write it as {form}"
        )
    subscription, group, name = parts
    return Account(
        subscription=subscription,
        resource_group=group,
        name=name,
        endpoint=endpoint.rstrip("/"),
    )


def login() -> DefaultAzureCredential:
    """Return Azure's own login; raise :class:`NoAzure` if it is not installed.

    Its log repeats what it raises on a dozen lines, and is turned off.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise NoAzure(
            "the Python package azure-identity is not installed",
            hint=f"install the extra azure: {install_command('azure')}",
        ) from error
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    return DefaultAzureCredential(exclude_interactive_browser_credential=True)


@contextmanager
def signed_in(what: str, *, role: str, wrong: str) -> Iterator[TokenCredential]:
    """Sign in with Azure's own login; its errors in the block become :class:`AzureFailed`.

    ``what`` begins the message, ``role`` is the hint for a login without the right, ``wrong`` the
    hint for a resource that is not found. Raises :class:`NoAzure` if an SDK is missing.
    """
    credential = login()
    from azure.core.exceptions import AzureError

    try:
        with credential:
            yield credential
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("azure"):
            raise
        raise NoAzure(
            f"the Python package {error.name} is not installed",
            hint=f"install the extra azure: {install_command('azure')}",
        ) from error
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
            said = f"{what}: this machine has no valid login"
        return AzureDenied(said, hint=LOG_IN)
    if status == 404:
        return NotInAzure(said, hint=wrong)
    if status == 429:
        return AzureFailed(said, hint="Azure throttles requests: try again in a few minutes")
    if name == "ServiceRequestError":
        return AzureFailed(
            said,
            hint="check the network; if a proxy decrypts, name its certificate authority: "
            "REQUESTS_CA_BUNDLE=FILE",
        )
    return AzureFailed(said, hint=wrong)


def plain(text: str) -> str:
    """Return one printable line without secrets."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    line = _SECRET.sub(r"\1…", line)
    return line if len(line) <= MAX_MESSAGE else f"{line[: MAX_MESSAGE - 1]}…"
