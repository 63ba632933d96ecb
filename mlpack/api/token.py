"""``mlpack azure token``: a login that lets a device group pull one repository only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.deployment_content import image_repository
from mlpack.azure.acr_tokens import RegistryToken, issue
from mlpack.azure.management import registry_account
from mlpack.errors import MlpackError
from mlpack.iotedge.template import PASSWORD, USERNAME
from mlpack.project.device_groups import find_group
from mlpack.project.secret_file import require_untracked, write_secret
from mlpack.stores.files import NotAFile, read_file

if TYPE_CHECKING:
    from mlpack.api.requests import IssueToken
    from mlpack.api.session import Session


class NoTokenFile(MlpackError):
    """A file that is not what ``mlpack azure token -o FILE`` writes."""

    hint = "make one with: mlpack azure token --group GROUP -o FILE"


@dataclass(frozen=True, kw_only=True)
class IssuedToken:
    """A token, and where its password went."""

    token: RegistryToken
    group: str
    path: Path | None
    note: str = ""

    @property
    def text(self) -> str:
        """The login as shells and ``env`` files read it; it holds the password."""
        return f"{USERNAME}={self.token.username}\n{PASSWORD}={self.token.password}\n"

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json azure token``; a password only if no file has it."""
        token = self.token
        return {
            "group": self.group,
            "username": token.username,
            **({"path": self.path} if self.path else {"password": token.password}),
            "expires": token.expires,
            "registry": token.address,
            "repository": token.repository,
            "scope_map": token.scope_map,
            "slot": token.slot,
            "reused": token.reused,
        }


def issue_token(session: Session, request: IssueToken) -> IssuedToken:
    """Make or renew the registry login of a device group.

    It is written to ``output``, mode 0600, if that is named. Whether git would keep that file
    is checked first, so that every password that is made can be handed over.
    """
    project = session.project
    with session.output(request.output) if request.output else nullcontext() as path:
        repository = image_repository(project, project.settings.model)
        place = request.registry or session.setting("acr")
        account = registry_account(place, repository, session.azure_endpoint)
        find_group(project, request.group)
        note = require_untracked(path) if path else ""
        ends = session.clock.now() + timedelta(days=request.days)
        token = issue(account, repository, request.group, ends)
        made = IssuedToken(token=token, group=request.group, path=path, note=note)
        if path:
            write_secret(path, made.text.encode())
    return made


def read_token(path: Path) -> Mapping[str, str]:
    """The two variables of a file that ``-o FILE`` wrote; raise :class:`NoTokenFile`."""
    try:
        lines = read_file(path).decode().splitlines()
    except (OSError, NotAFile, UnicodeDecodeError) as error:
        raise NoTokenFile(f"{path} cannot be read as a login") from error
    found = {name: value for name, equals, value in (line.partition("=") for line in lines)}
    if not (found.get(USERNAME) and found.get(PASSWORD)):
        # What it holds instead is not repeated: it may be a password.
        raise NoTokenFile(f"{path} does not set {USERNAME} and {PASSWORD}")
    return {name: found[name] for name in (USERNAME, PASSWORD)}
