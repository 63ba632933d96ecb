"""Other tools' deployments: filling in the variables of their templates, and another image in one.

``${NAME}`` and ``$NAME`` as in the templates of VS Code and iotedgedev, ``${MODULES.fan}`` or
``${IMAGE}`` for the image of the release, and ``__NAME`` as in the templates of the older
Azure ML tutorials (Azure/ai-toolkit-iot-edge, iot-workshop-deployment-template.json:
``__MODULE_NAME``, ``__REGISTRY_IMAGE_LOCATION``, ``__REGISTRY_NAME``, ``__REGISTRY_USER_NAME``
and ``__REGISTRY_PASSWORD``).

Where only the image changes, every other byte stays as it is. A manifest read and written again
would differ in spaces, order and escapes; in ``createOptions`` such a difference alone makes
edgeAgent create the container again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from mlpack.errors import MlpackError
from mlpack.humanize import nearest
from mlpack.iotedge.deployment import InvalidTemplate
from mlpack.iotedge.manifest import AGENT, CONTENT, DESIRED, PLACES, Problem
from mlpack.iotedge.module import CREATE_OPTIONS, split_options
from mlpack.iotedge.secrets import CREDENTIALS
from mlpack.oci.descriptor import Reference

_VARIABLE = re.compile(
    r"""
      \$\{ (?P<braced> [^}]* ) \}
    | \$ (?P<bare> [A-Z][A-Z0-9_]* ) \b
    | (?<![A-Za-z0-9_]) __ (?P<tutorial> [A-Z][A-Z0-9]*(?:_[A-Z0-9]+)* ) (?:__)? (?![A-Za-z0-9_])
    """,
    re.VERBOSE,
)
USERNAME, PASSWORD = "MLPACK_REGISTRY_USERNAME", "MLPACK_REGISTRY_PASSWORD"
"""The variables of the login for the registry that releases are pulled from."""

LOGIN = "mlpack"
"""That login's name in a manifest."""

_ACR = ".azurecr.io"
_MODULES = "MODULES."


@dataclass(slots=True)
class Variables:
    """The values of variables; ``missing`` are those met that have none."""

    module: str
    image: Reference | None
    environment: Mapping[str, str] = field(default_factory=dict)
    passwords: bool = False
    """Whether the passwords of registries are filled in; else they stay variables."""

    missing: list[Problem] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """Return the value of ``name``, or ``None``."""
        if name.startswith(_MODULES):
            # ${MODULES.fan.amd64} and ${MODULES.fan.debug} name one of several images.
            ours = self.image is not None and name.split(".")[1] == self.module
            return str(self.image) if ours else None
        return self._known.get(name, self.environment.get(name))

    @property
    def _known(self) -> Mapping[str, str]:
        if self.image is None:
            return {}
        return {
            "IMAGE": str(self.image),
            "MODULE_NAME": self.module,
            "REGISTRY_IMAGE_LOCATION": str(self.image),
            "REGISTRY_NAME": re.split("[.:]", self.image.registry)[0],
        }


def fill(document: object, variables: Variables) -> object:
    """Fill in every variable of ``document``, in values and in names.

    The variables of a registry's login may stay; any other that has no value raises
    :class:`InvalidTemplate`, which names them all.
    """
    variables.missing.clear()
    filled = _fill(document, variables, "", login=False)
    if variables.missing:
        raise InvalidTemplate(
            "; ".join(str(each) for each in dict.fromkeys(variables.missing)),
            hint="set them in the environment, or write their values",
        )
    return filled


def fill_logins(document: object, variables: Variables) -> object:
    """Fill in the logins of registries in ``document`` and nothing else."""
    if isinstance(document, list):
        return [fill_logins(each, variables) for each in document]
    if not isinstance(document, dict):
        return document
    return {
        key: _fill(value, variables, "", login=True)
        if key == CREDENTIALS
        else fill_logins(value, variables)
        for key, value in document.items()
    }


def with_login(document: dict[str, Any], address: str, variables: Variables) -> dict[str, Any]:
    """Return a whole manifest with a login for the registry at ``address``, if it has none.

    Only if the environment has one: :data:`USERNAME` and :data:`PASSWORD`.
    """
    if not (variables.environment.get(USERNAME) and variables.environment.get(PASSWORD)):
        return document
    made: dict[str, Any] = deepcopy(document)
    settings = made[CONTENT][AGENT][DESIRED]["runtime"]["settings"]
    logins = settings.setdefault(CREDENTIALS, {})
    if all(each.get("address") != address for each in logins.values()):
        login = {"address": address, "username": f"${{{USERNAME}}}", "password": f"${{{PASSWORD}}}"}
        logins[LOGIN] = login
    return made


def with_texts(document: object) -> object:
    """Write ``createOptions`` that are objects as texts, which is what edgeAgent reads.

    Templates of VS Code and iotedgedev have objects, manifests have texts.
    """
    if isinstance(document, list):
        return [with_texts(each) for each in document]
    if not isinstance(document, dict):
        return document
    made: dict[str, object] = {}
    for key, value in document.items():
        if key == CREATE_OPTIONS and isinstance(value, dict):
            made |= split_options(value, sort=False)
        else:
            made[key] = with_texts(value)
    return made


def _fill(value: object, variables: Variables, where: str, *, login: bool) -> object:
    if isinstance(value, str):
        return _text(value, variables, where, login=login)
    if isinstance(value, list):
        return [
            _fill(each, variables, f"{where}[{number}]", login=login)
            for number, each in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    filled: dict[str, object] = {}
    for key, each in value.items():
        name = _text(key, variables, where, login=False)
        if name in filled:
            raise InvalidTemplate(f"{where}: {key!r} becomes {name!r}, which already exists")
        inside = f"{where}.{name}" if where else name
        filled[name] = _fill(each, variables, inside, login=login or key == CREDENTIALS)
    return filled


def _text(text: str, variables: Variables, where: str, *, login: bool) -> str:
    # The tutorials write the registry's address so; it need not be one of Azure.
    if variables.image is not None:
        text = text.replace(f"__REGISTRY_NAME{_ACR}", variables.image.registry)

    def value(found: re.Match[str]) -> str:
        name = found["braced"] or found["bare"] or found["tutorial"] or ""
        kept = login and where.endswith(".password") and not variables.passwords
        known = None if kept else variables.get(name)
        if known is not None:
            return known
        if login:
            return f"${{{name}}}"
        if not found["bare"]:  # "$NAME" may be just that: a text of a shell
            variables.missing.append(Problem(where, f"{found[0]} is not set"))
        return found[0]

    return _VARIABLE.sub(value, text)


_DECODER = json.JSONDecoder()
_ELEMENT = "[]"
_MODULES_AT = ("properties", "desired", "modules")
_IMAGE = ("settings", "image")


class NoSuchModule(MlpackError):
    """A manifest without the image to replace."""


def patch(text: str, module: str, image: Reference) -> str:
    """Return ``text`` with ``image`` as the image of ``module``.

    ``text`` is JSON that was read before, of a whole or a layered deployment. Raises
    :class:`NoSuchModule` if it has no such module.
    """
    images = dict(_images(text))
    if module not in images:
        known = ", ".join(sorted(images)) or "none"
        raise NoSuchModule(
            f"the deployment has no module {module!r}{nearest(module, images)}",
            hint=f"its modules: {known}; name the one that runs the release with --module",
        )
    start, end = images[module]
    return text[:start] + json.dumps(str(image)) + text[end:]


def _images(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield every module of the user, and the span of its image's text with its quotes."""
    for path, start, end in _texts(text):
        before, agent, inside = _around(path)
        # A layered deployment has dots in its names where a whole one has objects.
        keys = tuple(".".join(inside).split("."))
        if agent and before in PLACES and keys[:3] == _MODULES_AT and keys[4:] == _IMAGE:
            yield keys[3], (start, end)


def _around(path: tuple[str, ...]) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    at = path.index(AGENT) if AGENT in path else len(path)
    return path[:at], at < len(path), path[at + 1 :]


def _texts(text: str) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Yield every string that is a value: its path, its start and its end."""
    # Not recursive: the reader limits how deep a document may nest.
    path: list[str] = []
    at, is_key = 0, False
    while at < len(text):
        char = text[at]
        if char == '"':
            found, end = _DECODER.raw_decode(text, at)
            if is_key:
                path[-1], is_key = str(found), False
            else:
                yield tuple(path), at, end
            at = end
            continue
        if char in "{[":
            path.append(_ELEMENT if char == "[" else "")
        elif char in "}]":
            path.pop()
        if char in "{,":
            is_key = path[-1] != _ELEMENT
        elif char in "}]":
            is_key = False
        at += 1
