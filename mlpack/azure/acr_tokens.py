"""Logins for devices: a token of Azure Container Registry that may pull one repository only.

A device's registry login stands in clear in its twin (edgeAgent reads it from nowhere else), so
it gets one that can do nothing but pull what it runs: a scope map with ``content/read`` on one
repository, a token of that scope map per device group, and a password that ends.

A token has two passwords. Each call replaces the older one, so that devices go on with the
newer one until the manifest with the new password has reached them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from mlpack.azure.management import Account, AzureFailed, signed_in
from mlpack.errors import UsageError
from mlpack.oci.digest import Digest
from mlpack.oci.reference import Reference

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.mgmt.containerregistry import ContainerRegistryManagementClient
    from azure.mgmt.containerregistry.models import ScopeMap, Token

T = TypeVar("T")

PASSWORDS = ("password1", "password2")
"""What ACR calls the two passwords of a token."""

_MAX_NAME, _SHORT = 50, 8
_POLL_SECONDS = 1
_ROLE = (
    "ask for the role Container Registry Contributor and Data Access Configuration "
    "Administrator on the registry, or Contributor"
)
_WRONG = "check --registry SUBSCRIPTION/GROUP/NAME"


class OtherRegistry(UsageError):
    """A registry in Azure that is not the one devices pull from."""


@dataclass(frozen=True, kw_only=True)
class RegistryToken:
    """A login that may pull one repository."""

    username: str
    password: str = field(repr=False)
    expires: datetime
    address: str
    """Host of the registry."""

    repository: str
    scope_map: str
    slot: str
    """Which of the two passwords was replaced."""

    reused: bool
    """Whether the token was there before."""

    restored: bool = False
    """Whether the scope map, the token's scope or its status had to be put right."""


def issue(account: Account, repository: Reference, group: str, expires: datetime) -> RegistryToken:
    """Make, or use again, the token of device group ``group``, and replace a password of it.

    Raises :class:`OtherRegistry`, :class:`~mlpack.azure.management.AzureFailed` or
    :class:`~mlpack.azure.connection.NoAzure`.
    """
    with signed_in("Azure", role=_ROLE, wrong=_WRONG) as credential:
        return _Registry(account, repository, credential).issue(group, expires)


def scope_map_name(repository: str) -> str:
    """The scope map of a repository; ACR takes 5 to 50 letters, digits and dashes.

    >>> scope_map_name("edge/fan")
    'mlpack-edge-fan-c0571130'
    """
    return _name(repository, repository)


def token_name(group: str, repository: str) -> str:
    """The token of a device group for a repository: what devices log in as."""
    return _name(group, f"{group} {repository}")


def _name(text: str, whole: str) -> str:
    short = Digest.of(whole.encode()).hex[:_SHORT]
    room = _MAX_NAME - len("mlpack--") - _SHORT
    return f"mlpack-{re.sub('[^a-z0-9]+', '-', text)[:room].strip('-')}-{short}"


class _Registry:
    def __init__(
        self, account: Account, repository: Reference, credential: TokenCredential
    ) -> None:
        self._account = account
        self._repository = repository
        self._credential = credential
        self._restored = False

    @property
    def _where(self) -> tuple[str, str]:
        return self._account.resource_group, self._account.name

    def issue(self, group: str, expires: datetime) -> RegistryToken:
        from azure.mgmt.containerregistry import ContainerRegistryManagementClient
        from azure.mgmt.containerregistry.models import GenerateCredentialsParameters

        with ContainerRegistryManagementClient(
            self._credential,
            self._account.subscription,
            base_url=self._account.endpoint,
            credential_scopes=[self._account.scope],
            # Where Azure says nothing, its client waits for 30 seconds between two looks.
            polling_interval=_POLL_SECONDS,
        ) as client:
            self._check_host(client)
            scope_map = self._scope_map(client)
            name = token_name(group, self._repository.repository)
            held = _held(client.tokens.get, *self._where, name)
            token = self._token(client, name, scope_map, held)
            slot = _older(held)
            asked = GenerateCredentialsParameters(token_id=token.id, name=slot, expiry=expires)
            made = client.registries.begin_generate_credentials(*self._where, asked).result()
        found = [each.value for each in made.passwords or () if each.name == slot and each.value]
        if len(found) != 1 or made.username != name:
            raise AzureFailed(f"the registry made no password for {name}", hint=_WRONG)
        return RegistryToken(
            username=name,
            password=str(found[0]),
            expires=expires,
            address=self._repository.registry,
            repository=self._repository.repository,
            scope_map=scope_map.name or "",
            slot=slot,
            reused=held is not None,
            restored=self._restored,
        )

    def _check_host(self, client: ContainerRegistryManagementClient) -> None:
        """A token of another registry would be of no use to the devices."""
        found = client.registries.get(*self._where)
        host = (found.properties.login_server if found.properties else "") or ""
        if host.lower() != self._repository.registry:
            raise OtherRegistry(
                f"{self._account} is {host or 'a registry without a name'}, and the devices pull "
                f"from {self._repository.registry}",
                hint="name the registry of [image] repository: --registry SUBSCRIPTION/GROUP/NAME",
            )

    def _scope_map(self, client: ContainerRegistryManagementClient) -> ScopeMap:
        from azure.mgmt.containerregistry.models import ScopeMap, ScopeMapProperties

        name = scope_map_name(self._repository.repository)
        actions = [f"repositories/{self._repository.repository}/content/read"]
        held: ScopeMap | None = _held(client.scope_maps.get, *self._where, name)
        if held is not None:
            if held.properties and list(held.properties.actions) == actions:
                return held
            # Someone let it do more than pull, and devices hold tokens of it.
            self._restored = True
        wanted = ScopeMap(
            properties=ScopeMapProperties(
                description=f"mlpack: pull {self._repository.repository}", actions=actions
            )
        )
        return client.scope_maps.begin_create(*self._where, name, wanted).result()

    def _token(
        self,
        client: ContainerRegistryManagementClient,
        name: str,
        scope_map: ScopeMap,
        held: Token | None,
    ) -> Token:
        from azure.mgmt.containerregistry.models import Token, TokenProperties

        if held is not None:
            said = held.properties
            same = (
                said is not None and (said.scope_map_id or "").lower() == str(scope_map.id).lower()
            )
            if same and said is not None and said.status == "enabled":
                return held
            self._restored = True
        wanted = Token(properties=TokenProperties(scope_map_id=scope_map.id, status="enabled"))
        return client.tokens.begin_create(*self._where, name, wanted).result()


def _held(get: Callable[..., T], *where: str) -> T | None:
    """What is there, or ``None``."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return get(*where)
    except ResourceNotFoundError:
        return None


def _older(held: Token | None) -> str:
    """The password to replace: one that is not there, or the one made first."""
    said = held.properties.credentials if held and held.properties else None
    never = datetime.min.replace(tzinfo=UTC)

    def made(slot: str) -> datetime:
        there = (said.passwords if said else None) or ()
        return next((each.creation_time or never for each in there if each.name == slot), never)

    return min(PASSWORDS, key=made)
