"""``mlpack azure token``: a login that lets a device group pull one repository, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from mlpack.api.groups import find_group
from mlpack.azure.acr_tokens import RegistryToken, issue
from mlpack.azure.management import Account
from mlpack.errors import UsageError
from mlpack.oci.reference import Reference
from mlpack.render.iotedge.placeholders import PASSWORD, USERNAME
from mlpack.stores.files import PRIVATE, atomic
from mlpack.stores.ignored import require_untracked
from mlpack.stores.project import Project


class NoRepository(UsageError):
    """A project that does not say what its devices pull."""

    hint = 'add under [image]: repository = "contoso.azurecr.io/edge/model"'


class NoTokenFile(UsageError):
    """A file that is not what ``mlpack azure token -o FILE`` writes."""

    hint = "make one with: mlpack azure token --group GROUP -o FILE"


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A token, and where its password went."""

    token: RegistryToken
    group: str
    path: Path | None
    note: str = ""

    @property
    def text(self) -> str:
        """The login as shells and ``env`` files read it; it holds the password."""
        return f"{USERNAME}={self.token.username}\n{PASSWORD}={self.token.password}\n"

    def to_json(self) -> dict[str, object]:
        """What ``--json`` prints: the password only where no file took it."""
        token = self.token
        return {
            "group": self.group,
            "username": token.username,
            **({"path": str(self.path)} if self.path else {"password": token.password}),
            "expires": token.expires.isoformat(),
            "registry": token.address,
            "repository": token.repository,
            "scope_map": token.scope_map,
            "slot": token.slot,
            "reused": token.reused,
        }


def repository_of(project: Project) -> Reference:
    """What devices pull; raise :class:`NoRepository`."""
    if project.recipe.repository is None:
        raise NoRepository("mlpack.toml names no repository that devices could pull from")
    return project.recipe.repository


def issue_token(
    project: Project,
    account: Account,
    group: str,
    *,
    days: int,
    now: datetime,
    path: Path | None = None,
) -> Issued:
    """Make or renew the login of device group ``group``, ending after ``days``.

    It is written to ``path``, mode 0600, where one is named. That git would not keep it is
    made sure of first: no password is made that cannot be handed over.
    """
    find_group(project, group)
    repository = repository_of(project)
    note = require_untracked(path) if path else ""
    token = issue(account, repository, group, now + timedelta(days=days))
    made = Issued(token=token, group=group, path=path, note=note)
    if path:
        with atomic(path, mode=PRIVATE) as out:
            out.write(made.text.encode())
    return made


def read_token(path: Path) -> Mapping[str, str]:
    """The two variables of a file that ``-o FILE`` wrote; raise :class:`NoTokenFile`."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NoTokenFile(f"{path} cannot be read as a login") from error
    found = {name: value for name, equals, value in (line.partition("=") for line in lines)}
    if not (found.get(USERNAME) and found.get(PASSWORD)):
        # What it holds instead is not repeated: it may be a password.
        raise NoTokenFile(f"{path} does not set {USERNAME} and {PASSWORD}")
    return {name: found[name] for name in (USERNAME, PASSWORD)}
