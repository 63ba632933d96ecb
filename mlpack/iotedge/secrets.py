"""Secrets in a deployment manifest: found without repeating any, and hidden where it is shown.

Whoever may read a device's twin reads all of it, and manifests are kept in git. So a manifest
may hold no secret but the passwords of registries (edgeAgent reads them from nowhere else),
and those only on request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum

from mlpack.iotedge.manifest import AGENT, HUB, Problem, members
from mlpack.iotedge.module import is_options_member, join_options
from mlpack.oci.descriptor import InvalidContent, Node

CREDENTIALS = "registryCredentials"


class Passwords(Enum):
    """What the password of a registry may be."""

    PLACEHOLDER = "placeholder"
    """A variable to fill in later: the manifest can be shown to anyone."""

    EITHER = "either"
    CLEAR = "clear"
    """The password itself: the manifest can be sent."""


_PLACEHOLDER = re.compile(
    r"\s*(?:\$\{[^}]*\}|\$\{\{[^}]*\}\}|\$[A-Z][A-Z0-9_]*|<[^>]*>|__[A-Z0-9_]+)\s*"
)
_HARMLESS = frozenset({"", "true", "false", "yes", "no", "on", "off", "none", "null", "0", "1"})

_NAME = re.compile(
    r"""(?ix) (?: password | passwd | pwd | passphrase | secret
      | connection[_-]?string
      | (?: api | access | account | shared | private | secret | storage ) [_-]? key
      | (?: auth | access | bearer | sas | api | refresh ) [_-]? token | (?:^|[_-]) token ) $"""
)
_VALUES = {
    "a connection string": r"(?i)\b(?:SharedAccessKey|AccountKey)\s*=\s*(?![$<{])[^;\s]{8}",
    "a SAS token": r"(?i)\bSharedAccessSignature\s+s[rie]|[?&;]?\bsig=(?![$<{])[A-Za-z0-9%+/]{16}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a bearer token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}",
    "an address with a password": r"\w://[^/\s:@]+:(?![$<{])[^/\s:@]+@",
    "a password": r"(?i)\b(?:password|pwd)\s*=\s*(?![$<{])[^;\s]",
    "an Azure key": r"(?<![\w+/=-])(?:[A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=)(?![\w+/=])",
}
_ADVICE = "keep it out of the manifest: a file on the device that the module mounts, or a key vault"


def secret_problems(module: str, desired: Node, passwords: Passwords) -> Iterator[Problem]:
    """Find secrets in the desired properties of ``module``, without repeating any."""
    if module == AGENT:
        yield from _Walk(desired, f"runtime.settings.{CREDENTIALS}").problems()
        yield from _credentials(desired, passwords)
    elif module == HUB:
        # A route may well name $body.password.
        yield from _Walk(desired, "routes").problems()
    else:
        yield from _Walk(desired).problems()


def is_placeholder(text: str) -> bool:
    """Whether a text only names what belongs there.

    >>> [is_placeholder(each) for each in ("${ACR_PASSWORD}", "${{keyvault:…}}", "hunter2")]
    [True, True, False]
    """
    return _PLACEHOLDER.fullmatch(text) is not None


def redacted(document: object) -> object:
    """Return a copy of a manifest that can be shown: passwords of registries are hidden."""
    if isinstance(document, Mapping):
        return {
            key: _hidden(value) if key == CREDENTIALS else redacted(value)
            for key, value in document.items()
        }
    return [redacted(each) for each in document] if isinstance(document, list) else document


def holds_password(document: object) -> bool:
    """Whether a manifest has a registry's password in clear."""
    return redacted(document) != document


def _hidden(credentials: object) -> object:
    if not isinstance(credentials, dict):
        return credentials
    return {
        name: {
            key: "***"
            if key.lower() == "password" and isinstance(value, str) and not is_placeholder(value)
            else value
            for key, value in login.items()
        }
        if isinstance(login, dict)
        else login
        for name, login in credentials.items()
    }


def _credentials(desired: Node, passwords: Passwords) -> Iterator[Problem]:
    logins = members(desired, "runtime", "settings", CREDENTIALS)
    for key, password in (pair for _, login in logins for pair in members(login)):
        if key != "password" or not isinstance(password.value, str) or not password.value.strip():
            continue
        filled = not is_placeholder(password.value)
        if filled and passwords is Passwords.PLACEHOLDER:
            advice = "write a variable such as ${ACR_PASSWORD}, or use --with-secrets"
            yield Problem(password.where, f"is in clear text: {advice}")
        if not filled and passwords is Passwords.CLEAR:
            yield Problem(password.where, "is a variable that is not set in the environment")


class _Walk:
    """Looks at every text of one module's desired properties, except in one part of them."""

    def __init__(self, desired: Node, left_out: str = "") -> None:
        self._desired = desired
        self._left_out = f"{desired.where}.{left_out}"
        # Only edgeAgent reads container settings, as JSON in texts.
        self._options = left_out.endswith(CREDENTIALS)

    def problems(self) -> Iterator[Problem]:
        return self._walk(self._desired, "")

    def _walk(self, node: Node, name: str) -> Iterator[Problem]:
        """``name``: the value's name, which may tell a secret."""
        if node.where == self._left_out:
            return
        if isinstance(node.value, str):
            if what := _secret(name, node.value):
                yield Problem(node.where, f"holds {what}: {_ADVICE}")
        elif isinstance(node.value, list):
            for each in node.elements():
                yield from self._walk(each, name)
        elif isinstance(node.value, dict):
            yield from self._members(node, name)

    def _members(self, node: Node, name: str) -> Iterator[Problem]:
        options = False
        for key, each in node.items():
            if self._options and is_options_member(key) and isinstance(each.value, str):
                options = True
                continue
            # A variable of a module is an object: {"NAME": {"value": …}}.
            only_value = key == "value" and len(node.mapping()) == 1
            yield from self._walk(each, name if only_value else key)
        if options:
            yield from self._container(node)

    def _container(self, settings: Node) -> Iterator[Problem]:
        try:
            options = join_options(settings)
        except InvalidContent:
            return  # the check of the options has it already
        for key, each in options.items():
            if key.lower() == "env" and isinstance(each.value, list):
                for variable in each.elements():
                    if isinstance(variable.value, str):
                        name, _, value = variable.value.partition("=")
                        yield from self._walk(Node(value, variable.where), name)
            else:
                yield from self._walk(each, key)


def _secret(name: str, value: str) -> str:
    """Return what ``value`` seems to be; an empty text if it need not be kept secret."""
    if is_placeholder(value) or value.strip().lower() in _HARMLESS:
        return ""
    for what, pattern in _VALUES.items():
        if re.search(pattern, value):
            return what
    return "a secret, judging by its name" if _NAME.search(name) else ""
