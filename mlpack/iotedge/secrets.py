"""Secrets in a deployment manifest: found without repeating any, and hidden where it is shown.

Whoever may read a device's twin reads all of it, and manifests are kept in git. So a manifest
may hold no secret but the passwords of registries (edgeAgent reads them from nowhere else),
and those only on request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mlpack.errors import UsageError
from mlpack.iotedge.manifest import AGENT, HUB, Manifest, Problem, members, read_manifest
from mlpack.iotedge.module import CREATE_OPTIONS, is_options_member, join_options
from mlpack.oci.descriptor import InvalidContent, Node
from mlpack.settings.edge import SecretSource

CREDENTIALS = "registryCredentials"


class Passwords(Enum):
    """What the password of a registry may be."""

    PLACEHOLDER = "placeholder"
    """A variable to fill in later: the manifest can be shown to anyone."""

    EITHER = "either"
    CLEAR = "clear"
    """The password itself: the manifest can be sent."""

    HERE = "here"
    """Either, and so may any other secret: the manifest runs on this machine and goes nowhere."""


_PLACEHOLDER = re.compile(
    r"""(?x) \s* (?:
        (?: \$ \{ [^}]* \} )+ | \$ \{\{ [^}]* \}\} | \$ \( [^)]* \) | \{\{ [^}]* \}\}
      | [#] \{ [^}]* \} [#]
      | < [^>]* > | __ [A-Z0-9_]+ | % [A-Z] [A-Z0-9_]* %
      | \$ [A-Z] [A-Z0-9]* (?: _ [A-Za-z0-9_]* )? | \$ (?i: container_registry_ ) \w+
    ) \s*"""
)
"""Variables as tools write them; a bare one in small letters may well be the password."""

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
_ADVICE = (
    "keep it out of the manifest: a file on the device that the module mounts, a key vault, or "
    "[edge.modules.NAME] secret_env"
)
_FLAG = re.compile(r"--?[A-Za-z][\w.:-]*")
_WORD = re.compile(r"\s*-{0,2}[A-Za-z_][\w.:-]*\s*")
HIDDEN = "***"


def secret_problems(module: str, desired: Node, passwords: Passwords) -> Iterator[Problem]:
    """Find secrets in the desired properties of ``module``, without repeating any."""
    if passwords is not Passwords.HERE:
        yield from clear_secrets(module, desired)
    if module == AGENT:
        yield from _credentials(desired, passwords)


def clear_secrets(module: str, desired: Node) -> Iterator[Problem]:
    """Find secrets in clear, except passwords of registries."""
    # A route may well name $body.password.
    left_out = {AGENT: f"runtime.settings.{CREDENTIALS}", HUB: "routes"}
    yield from _Walk(desired, left_out.get(module, "")).problems()


def is_placeholder(text: str) -> bool:
    """Whether a text only names what belongs there.

    >>> [is_placeholder(each) for each in ("${ACR_PASSWORD}", "${{keyvault:…}}", "hunter2")]
    [True, True, False]
    """
    return _PLACEHOLDER.fullmatch(text) is not None


def redacted(document: object, paths: Collection[str] = ()) -> object:
    """Return a copy of a manifest that can be shown: passwords of registries are hidden.

    So are the secrets at ``paths``. All of ``createOptions`` are hidden if they have one.
    """
    return _redacted(document, paths, "")


def _redacted(document: object, paths: Collection[str], where: str) -> object:
    if isinstance(document, list):
        return [_redacted(each, paths, f"{where}[{n}]") for n, each in enumerate(document)]
    if not isinstance(document, Mapping):
        return HIDDEN if where in paths else document
    options = f"{where}.{CREATE_OPTIONS}"
    shown: dict[str, object] = {}
    for key, value in document.items():
        inside = f"{where}.{key}" if where else key
        if key == CREDENTIALS:
            shown[key] = _hidden(value)
        elif is_options_member(key) and any(each.startswith(options) for each in paths):
            shown[key] = HIDDEN
        else:
            shown[key] = _redacted(value, paths, inside)
    return shown


@dataclass(frozen=True, slots=True)
class SecretVariable:
    """A variable of a module, and where its value comes from."""

    module: str
    name: str
    source: SecretSource


def secret_variables(
    document: object, sources: Mapping[str, Mapping[str, SecretSource]]
) -> Mapping[str, SecretVariable]:
    """Return by path the variables of a manifest that hold placeholders of ``sources``.

    Those are by module and variable.
    """
    found = {}
    for module, node in (read_manifest(json.dumps(document).encode()).modules or {}).items():
        for name, source in sources.get(module, {}).items():
            value = dict(members(node, "env", name)).get("value")
            if value is not None and value.value == source.placeholder:
                found[value.where] = SecretVariable(module, name, source)
    return found


def with_values(document: object, values: Mapping[str, str]) -> object:
    """Return a manifest with other texts at the paths of ``values``."""
    made = deepcopy(document)
    for where, value in values.items():
        _at(made, where)["value"] = value
    return made


def _at(document: Any, where: str) -> dict[str, Any]:  # noqa: ANN401  (a walk through JSON)
    """Return the object whose member is at the path ``where``."""
    while isinstance(document, dict):
        key = next(each for each in document if f"{where}.".startswith(f"{each}."))
        if key == where:
            return document
        document, where = document[key], where.removeprefix(f"{key}.")
    raise KeyError(where)


def secret_paths(manifest: Manifest) -> frozenset[str]:
    """Return where a manifest has secrets in clear, except passwords of registries."""
    sections = manifest.sections.items()
    return frozenset(
        each.path for name, section in sections for each in clear_secrets(name, section.desired)
    )


def accepted_paths(patterns: Iterable[str], found: Collection[str]) -> frozenset[str]:
    """Return those of the paths ``found`` that ``patterns`` name.

    A pattern is a path as messages show it; ``*`` is one part of it, and ``$.`` and ``['part']``
    are read as in JSONPath. Raises :class:`NoSuchSecret` for one that names nothing.
    """
    accepted: set[str] = set()
    for each in patterns:
        same = {path for path in found if _pattern(each).fullmatch(path)}
        if not same:
            listed = ", ".join(sorted(found))
            raise NoSuchSecret(
                f"--allow-secret {each} names no secret of the manifest",
                hint=f"it has: {listed}" if listed else "it has none: leave the option out",
            )
        accepted |= same
    return frozenset(accepted)


class NoSuchSecret(UsageError):
    """A path at which a manifest has no secret."""


def _pattern(text: str) -> re.Pattern[str]:
    text = re.sub(r"""\[(['"])(.*?)\1\]""", r".\2", text.strip()).removeprefix("$.").lstrip(".")
    parts = (re.escape(each) for each in re.split(r"\*", text))
    return re.compile(r"[^.\[\]]+".join(parts))


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
    logins = members(desired, "runtime", "settings", CREDENTIALS)
    for key, node in (pair for _, login in logins for pair in members(login)):
        if not isinstance(node.value, str) or not node.value.strip():
            continue
        filled = not is_placeholder(node.value)
        if filled and key == "password" and passwords is Passwords.PLACEHOLDER:
            advice = "write a variable such as ${ACR_PASSWORD}, or use --with-secrets"
            yield Problem(node.where, f"is in clear text: {advice}")
        if not filled and passwords is Passwords.CLEAR:
            yield Problem(node.where, "is a variable that is not set in the environment")


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
            elif key.lower() in ("cmd", "entrypoint") and isinstance(each.value, list):
                yield from self._words(each)
            else:
                yield from self._walk(each, key)

    def _words(self, node: Node) -> Iterator[Problem]:
        """Look at the words of a command: ``ApiKey=…``, ``--api-key=…``, ``--api-key …``."""
        flag = ""
        for each in node.elements():
            if not isinstance(each.value, str):
                continue
            name, equals, value = each.value.partition("=")
            named = _secret(name.strip(), value) if equals and _WORD.fullmatch(name) else ""
            if what := named or _secret(flag, each.value):
                yield Problem(each.where, f"holds {what}: {_ADVICE}")
            flag = each.value if _FLAG.fullmatch(each.value) else ""


def _secret(name: str, value: str) -> str:
    """Return what ``value`` seems to be; an empty text if it need not be kept secret."""
    if is_placeholder(value) or value.strip().lower() in _HARMLESS:
        return ""
    for what, pattern in _VALUES.items():
        if re.search(pattern, value):
            return what
    return "a secret, judging by its name" if _NAME.search(name) else ""
