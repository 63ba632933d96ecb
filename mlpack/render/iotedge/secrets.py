"""Secrets that stand in clear in a deployment manifest.

Whoever may read a device's twin reads all of it, and manifests are kept in git. So no
secret may be in one, but for the passwords registries need (edgeAgent reads them from
nowhere else), and those only where that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

from mlpack.oci.document import InvalidContent, Node
from mlpack.render.iotedge import create_options
from mlpack.render.iotedge.manifest import AGENT, HUB
from mlpack.render.iotedge.problem import Problem

CREDENTIALS = "registryCredentials"
HIDDEN = "***"


class Passwords(Enum):
    """What may stand where a registry's password belongs."""

    PLACEHOLDER = "placeholder"
    """A variable to fill in later: the manifest can be shown to anyone."""

    EITHER = "either"
    CLEAR = "clear"
    """The password itself: the manifest can be sent."""


_PLACEHOLDER = re.compile(r"\s*(?:\$\{[^}]*\}|\$[A-Z][A-Z0-9_]*|<[^>]*>|__[A-Z0-9_]+)\s*")
_HARMLESS = frozenset({"", "true", "false", "yes", "no", "on", "off", "none", "null", "0", "1"})

_NAME = re.compile(
    r"""(?ix) (?: password | passwd | pwd | passphrase | secret
      | connection[_-]?string
      | (?: api | access | account | shared | private | secret | storage ) [_-]? key
      | (?: auth | access | bearer | sas | api | refresh ) [_-]? token | (?:^|[_-]) token ) $"""
)
_VALUES = (
    (
        re.compile(r"(?i)\b(?:SharedAccessKey|AccountKey)\s*=\s*(?![$<{])[^;\s]{8}"),
        "a connection string",
    ),
    (re.compile(r"(?i)\bSharedAccessSignature\s+s[rie]"), "a SAS token"),
    (re.compile(r"(?i)[?&;]?\bsig=(?![$<{])[A-Za-z0-9%+/]{16}"), "a SAS token"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "a private key"),
    (re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"), "a bearer token"),
    (re.compile(r"\w://[^/\s:@]+:(?![$<{])[^/\s:@]+@"), "an address with a password"),
    (re.compile(r"(?i)\b(?:password|pwd)\s*=\s*(?![$<{])[^;\s]"), "a password"),
    (
        re.compile(r"(?<![\w+/=-])(?:[A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=)(?![\w+/=])"),
        "an Azure key",
    ),
)
_ADVICE = "keep it out of the manifest: a file on the device that the module mounts, or a key vault"


def check(module: str, desired: Node, passwords: Passwords) -> Iterator[Problem]:
    """Find secrets in the desired properties of ``module``, without repeating any."""
    if module == AGENT:
        yield from _Walk(desired, f"runtime.settings.{CREDENTIALS}").problems()
        yield from _credentials(desired, passwords)
    elif module == HUB:
        # A route may well speak of $body.password.
        yield from _Walk(desired, "routes").problems()
    else:
        yield from _Walk(desired).problems()


def is_placeholder(text: str) -> bool:
    """Whether a text only says what belongs there.

    >>> [is_placeholder(each) for each in ("${ACR_PASSWORD}", "<password>", "hunter2")]
    [True, True, False]
    """
    return _PLACEHOLDER.fullmatch(text) is not None


def redacted(document: object) -> object:
    """A copy of a manifest that can be shown: passwords of registries are hidden."""
    if isinstance(document, dict):
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
            key: HIDDEN
            if key.lower() == "password" and isinstance(value, str) and not is_placeholder(value)
            else value
            for key, value in login.items()
        }
        if isinstance(login, dict)
        else login
        for name, login in credentials.items()
    }


def _credentials(desired: Node, passwords: Passwords) -> Iterator[Problem]:
    found: Node | None = desired
    for key in ("runtime", "settings", CREDENTIALS):
        found = found.get(key) if found and isinstance(found.value, dict) else None
    for _, login in found.items() if found and isinstance(found.value, dict) else ():
        password = login.get("password") if isinstance(login.value, dict) else None
        if password is None or not isinstance(password.value, str) or not password.value.strip():
            continue
        filled = not is_placeholder(password.value)
        if filled and passwords is Passwords.PLACEHOLDER:
            yield Problem(
                password.where,
                "stands in clear: write a variable such as ${ACR_PASSWORD}, or ask for it with "
                "--with-secrets",
            )
        if not filled and passwords is Passwords.CLEAR:
            yield Problem(password.where, "is a variable, and not set in the environment")


class _Walk:
    """Looks at every text of one module's desired properties, but for one part of them."""

    def __init__(self, desired: Node, left_out: str = "") -> None:
        self._desired = desired
        self._left_out = f"{desired.where}.{left_out}"
        # Only edgeAgent reads container settings, as JSON in texts.
        self._options = left_out.endswith(CREDENTIALS)

    def problems(self) -> Iterator[Problem]:
        return self._walk(self._desired, "")

    def _walk(self, node: Node, name: str) -> Iterator[Problem]:
        """``name``: what the value is called, where that may tell a secret."""
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
            if self._options and create_options.is_member(key) and isinstance(each.value, str):
                options = True
                continue
            # A variable of a module is an object: {"NAME": {"value": …}}.
            yield from self._walk(
                each, name if key == "value" and len(node.mapping()) == 1 else key
            )
        if options:
            yield from self._container(node)

    def _container(self, settings: Node) -> Iterator[Problem]:
        try:
            options = create_options.join(settings)
        except InvalidContent:
            return  # said by the check of the options
        for key, each in options.items():
            if key.lower() == "env" and isinstance(each.value, list):
                yield from self._variables(each)
            else:
                yield from self._walk(each, key)

    def _variables(self, env: Node) -> Iterator[Problem]:
        for each in env.elements():
            if isinstance(each.value, str):
                name, _, value = each.value.partition("=")
                yield from self._walk(Node(value, each.where), name)


def _secret(name: str, value: str) -> str:
    """What ``value`` seems to be; empty for nothing that must be kept."""
    if is_placeholder(value) or value.strip().lower() in _HARMLESS:
        return ""
    for pattern, what in _VALUES:
        if pattern.search(value):
            return what
    return "what its name says is secret" if _NAME.search(name) else ""
