"""Credentials as Docker and podman keep them: config.json, and the helper programs it names."""

from __future__ import annotations

import base64
import binascii
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import InvalidContent, Node, parse
from mlpack.stores.files import read_file

DOCKER_HUB = "https://index.docker.io/v1/"
HELPER_SECONDS = 60
AZURE_USER = "00000000-0000-0000-0000-000000000000"
"""The user name of Azure's registries for logins by token (azure.github.io/acr/AAD-OAuth.html)."""

_NOT_FOUND = "credentials not found"
_TOKEN = "<token>"  # noqa: S105 - helpers return it in place of a user name


class BadCredentials(MlpackError):
    """A file or helper whose credentials cannot be used."""


@dataclass(frozen=True)
class Credentials:
    """A user name and a password, or an identity token; never shown."""

    username: str = field(repr=False)
    password: str = field(repr=False, default="")
    token: str = field(repr=False, default="")
    """An identity token, which is exchanged for others; preferred to a password."""

    @classmethod
    def of(cls, username: str, secret: str) -> Credentials:
        """Make credentials; with two special user names, the secret is a token."""
        if username == _TOKEN:
            return cls("", token=secret)
        if username == AZURE_USER:
            # As ``az acr login`` stores it: a refresh token of ACR, from its /oauth2/exchange.
            return cls(username, secret, token=secret)
        return cls(username, secret)


def find_credentials(configs: Sequence[Path], registry: str) -> Credentials | None:
    """Return the login for ``registry`` from the first of ``configs`` that has one, if any.

    A helper named for the registry comes before the general one, and that before the file's own
    entries, as in Docker. Raises :class:`BadCredentials`.
    """
    for path in configs:
        if path.is_file():
            found = _in_config(path, registry)
            if found is not None:
                return found
    return None


def _in_config(path: Path, registry: str) -> Credentials | None:
    try:
        config = parse(read_file(path), path.name)
        helpers, general = config.get("credHelpers"), config.get("credsStore")
        helper = (helpers.get(registry) if helpers else None) or general
        if helper is not None:
            found = _run_helper(helper.text(), _key(registry))
            if found is not None:
                return found
        return _in_auths(config, registry)
    except InvalidContent as error:
        raise BadCredentials(
            f"{path}: {error}", hint="repair the file, or log in again with: docker login"
        ) from error


def _in_auths(config: Node, registry: str) -> Credentials | None:
    listed = config.get("auths")
    if listed is None:
        return None
    for name, entry in listed.items():
        if _host(name) == _host(_key(registry)):
            found = _entry(entry)
            if found is not None:
                return found
    return None


def _entry(entry: Node) -> Credentials | None:
    token, packed = entry.get("identitytoken"), entry.get("auth")
    if token is not None and token.text():
        return Credentials("", token=token.text())
    if packed is None or not packed.text():
        return None
    try:
        pair = base64.b64decode(packed.text(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        # The cause contains the secret text, so it is not passed on.
        raise InvalidContent(packed.where, "is not base64") from None
    name, colon, password = pair.partition(":")
    if not colon:
        raise InvalidContent(packed.where, "is not a user name and a password")
    return Credentials.of(name, password.rstrip("\0"))


def _run_helper(helper: str, server: str) -> Credentials | None:
    """Run ``docker-credential-<helper> get``: the server on stdin, JSON on stdout."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", helper):
        raise BadCredentials(f"{helper!r} is not the name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BadCredentials(
            f"{program} could not be run ({type(error).__name__})", hint=f"install {program}"
        ) from None
    if done.returncode != 0:
        if _NOT_FOUND in done.stdout.lower():
            return None
        # Its output is not repeated: it may contain anything.
        raise BadCredentials(f"{program} ended with status {done.returncode}")
    return _parse_helper(program, done.stdout)


def _parse_helper(program: str, text: str) -> Credentials | None:
    try:
        answer = parse(text.encode(), program)
        name, secret = answer.need("Username").text(), answer.need("Secret").text()
    except InvalidContent:
        raise BadCredentials(f"{program} returned no user name and secret") from None
    return Credentials.of(name, secret) if secret else None


def _key(registry: str) -> str:
    return DOCKER_HUB if registry in {"docker.io", "registry-1.docker.io"} else registry


def _host(name: str) -> str:
    """Return the host of an entry: older files have whole addresses instead.

    >>> _host("https://registry.example.com/v2/")
    'registry.example.com'
    """
    return re.sub(r"^https?://", "", name).partition("/")[0]
