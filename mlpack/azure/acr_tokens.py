"""Logins for devices: a token of Azure Container Registry that may pull one repository only.

A device's registry login is in its twin in clear (edgeAgent reads it from nowhere else), so it
gets one that can only pull what it runs: a scope map with ``content/read`` on one repository, a
token of that scope map per device group, and a password that expires.

A token has two passwords. Each call replaces the older one, so that devices can use the newer one
until the manifest with the new password has reached them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from mlpack.azure.management import Account, AzureFailed, signed_in
from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Digest, Reference

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.mgmt.containerregistry import ContainerRegistryManagementClient
    from azure.mgmt.containerregistry.models import ScopeMap, Token

T = TypeVar("T")

PASSWORDS = ("password1", "password2")
"""ACR's names of the two passwords of a token."""

_MAX_NAME, _SHORT = 50, 8
_POLL_SECONDS = 1
_ROLE = (
    "ask for the role Container Registry Contributor and Data Access Configuration "
    "Administrator on the registry, or Contributor"
)
_WRONG = "check --registry SUBSCRIPTION/GROUP/NAME"


class OtherRegistry(MlpackError):
    """A registry in Azure other than the one devices pull from."""


@dataclass(frozen=True, kw_only=True)
class RegistryToken:
    """A login that can pull one repository."""

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
    """Whether the token existed before."""

    restored: bool = False
    """Whether the scope map, the token's scope or its status had to be corrected."""


def issue(account: Account, repository: Reference, group: str, expires: datetime) -> RegistryToken:
    """Create or reuse the token of device group ``group``, and replace one of its passwords.

    Raises :class:`OtherRegistry`, :class:`~mlpack.azure.management.AzureFailed` or
    :class:`~mlpack.azure.management.NoAzure`.
    """
    with signed_in("Azure", role=_ROLE, wrong=_WRONG) as credential:
        return _Registry(account, repository, credential).issue(group, expires)


def scope_map_name(repository: str) -> str:
    """Return the name of a repository's scope map; ACR takes 5 to 50 letters, digits and dashes.

    >>> scope_map_name("edge/fan")
    'mlpack-edge-fan-c0571130'
    """
    return _name(repository, repository)


def token_name(group: str, repository: str) -> str:
    """Return the name of a device group's token for a repository: the devices' user name."""
    return _name(group, f"{group} {repository}")


def _name(text: str, whole: str) -> str:
    short = Digest.of(whole.encode()).hex[:_SHORT]
    room = _MAX_NAME - len("mlpack--") - _SHORT
    return f"mlpack-{re.sub('[^a-z0-9]+', '-', text)[:room].strip('-')}-{short}"


@dataclass
class _Registry:
    account: Account
    repository: Reference
    credential: TokenCredential
    restored: bool = False

    @property
    def _where(self) -> tuple[str, str]:
        return self.account.resource_group, self.account.name

    def issue(self, group: str, expires: datetime) -> RegistryToken:
        from azure.mgmt.containerregistry import ContainerRegistryManagementClient
        from azure.mgmt.containerregistry.models import GenerateCredentialsParameters

        with ContainerRegistryManagementClient(
            self.credential,
            self.account.subscription,
            base_url=self.account.endpoint,
            credential_scopes=[self.account.scope],
            # Without a hint from Azure the client polls every 30 seconds.
            polling_interval=_POLL_SECONDS,
        ) as client:
            self._check_host(client)
            scope_map = self._scope_map(client)
            name = token_name(group, self.repository.repository)
            held = _held(client.tokens.get, *self._where, name)
            token = self._token(client, name, scope_map, held)
            slot = _older(held)
            asked = GenerateCredentialsParameters(token_id=token.id, name=slot, expiry=expires)
            made = client.registries.begin_generate_credentials(*self._where, asked).result()
        found = [each.value for each in made.passwords or () if each.name == slot and each.value]
        if len(found) != 1 or made.username != name:
            raise AzureFailed(f"the registry returned no password for {name}", hint=_WRONG)
        return RegistryToken(
            username=name,
            password=str(found[0]),
            expires=expires,
            address=self.repository.registry,
            repository=self.repository.repository,
            scope_map=scope_map.name or "",
            slot=slot,
            reused=held is not None,
            restored=self.restored,
        )

    def _check_host(self, client: ContainerRegistryManagementClient) -> None:
        """Refuse another registry than the devices pull from."""
        found = client.registries.get(*self._where)
        host = (found.properties.login_server if found.properties else "") or ""
        if host.lower() != self.repository.registry:
            raise OtherRegistry(
                f"the address of {self.account} is {host or 'unknown'}, but the devices pull from "
                f"{self.repository.registry}",
                hint="name the registry of [image] repository: --registry SUBSCRIPTION/GROUP/NAME",
            )

    def _scope_map(self, client: ContainerRegistryManagementClient) -> ScopeMap:
        from azure.mgmt.containerregistry.models import ScopeMap, ScopeMapProperties

        name = scope_map_name(self.repository.repository)
        actions = [f"repositories/{self.repository.repository}/content/read"]
        held: ScopeMap | None = _held(client.scope_maps.get, *self._where, name)
        if held is not None:
            if held.properties and list(held.properties.actions) == actions:
                return held
            # Someone extended its rights, and devices have tokens of it.
            self.restored = True
        scope_map = ScopeMap(
            properties=ScopeMapProperties(
                description=f"mlpack: pull {self.repository.repository}", actions=actions
            )
        )
        return client.scope_maps.begin_create(*self._where, name, scope_map).result()

    def _token(
        self,
        client: ContainerRegistryManagementClient,
        name: str,
        scope_map: ScopeMap,
        held: Token | None,
    ) -> Token:
        from azure.mgmt.containerregistry.models import Token, TokenProperties

        if held is not None:
            found = held.properties
            own = ((found.scope_map_id if found else "") or "").lower() == str(scope_map.id).lower()
            if found and own and found.status == "enabled":
                return held
            self.restored = True
        token = Token(properties=TokenProperties(scope_map_id=scope_map.id, status="enabled"))
        return client.tokens.begin_create(*self._where, name, token).result()


def _held(get: Callable[..., T], *where: str) -> T | None:
    """Return an existing resource, or ``None``."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return get(*where)
    except ResourceNotFoundError:
        return None


def _older(held: Token | None) -> str:
    """Choose the password to replace: a missing one, or the older one."""
    said = held.properties.credentials if held and held.properties else None
    never = datetime.min.replace(tzinfo=UTC)

    def made(slot: str) -> datetime:
        there = (said.passwords if said else None) or ()
        return next((each.creation_time or never for each in there if each.name == slot), never)

    return min(PASSWORDS, key=made)
