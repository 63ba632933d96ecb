"""The variables in a user's own deployment template, and what stands for them.

``${NAME}`` and ``$NAME`` as VS Code's and iotedgedev's templates have them,
``${MODULES.fan}`` or ``${IMAGE}`` for the image of the release, and ``__NAME`` as in the
templates of the older Azure ML tutorials (Azure/ai-toolkit-iot-edge,
iot-workshop-deployment-template.json: ``__MODULE_NAME``, ``__REGISTRY_IMAGE_LOCATION``,
``__REGISTRY_NAME``, ``__REGISTRY_USER_NAME`` and ``__REGISTRY_PASSWORD``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from mlpack.oci.reference import Reference
from mlpack.render.iotedge import create_options
from mlpack.render.iotedge.problem import Problem
from mlpack.render.iotedge.secrets import CREDENTIALS
from mlpack.render.iotedge.template import InvalidTemplate

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
"""What that login is called in a manifest."""

_ACR = ".azurecr.io"
_MODULES = "MODULES."


@dataclass(slots=True)
class Variables:
    """What variables stand for; ``missing`` are those met that stand for nothing."""

    module: str
    image: Reference | None
    environment: Mapping[str, str] = field(default_factory=dict)
    passwords: bool = False
    """Whether the passwords of registries are filled in; else they stay variables."""

    missing: list[Problem] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """What ``name`` stands for; ``None`` for nothing."""
        if name.startswith(_MODULES):
            # ${MODULES.fan.amd64} and ${MODULES.fan.debug} say which of several images.
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
    """``document`` with every variable filled in, in values and in names.

    What belongs to a registry's login may stay a variable; any other that stands for
    nothing raises :class:`InvalidTemplate`, which names them all.
    """
    variables.missing.clear()
    filled = _fill(document, variables, "", login=False)
    if variables.missing:
        raise InvalidTemplate(
            "; ".join(str(each) for each in dict.fromkeys(variables.missing)),
            hint="set them in the environment, or write what belongs there",
        )
    return filled


def fill_logins(document: object, variables: Variables) -> object:
    """``document`` with the logins of registries alone filled in; all else stays."""
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
    """A whole manifest with a login for the registry at ``address``, where it names none.

    Only where the environment has one: :data:`USERNAME` and :data:`PASSWORD`.
    """
    if not (variables.environment.get(USERNAME) and variables.environment.get(PASSWORD)):
        return document
    made: dict[str, Any] = deepcopy(document)
    agent = made["modulesContent"]["$edgeAgent"]["properties.desired"]
    logins = agent["runtime"]["settings"].setdefault(CREDENTIALS, {})
    if all(each.get("address") != address for each in logins.values()):
        login = {"address": address, "username": f"${{{USERNAME}}}", "password": f"${{{PASSWORD}}}"}
        logins[LOGIN] = login
    return made


def with_texts(document: object) -> object:
    """``document`` with ``createOptions`` that are objects written as edgeAgent reads them.

    Templates of VS Code and iotedgedev have them as objects, manifests as texts.
    """
    if isinstance(document, list):
        return [with_texts(each) for each in document]
    if not isinstance(document, dict):
        return document
    made: dict[str, object] = {}
    for key, value in document.items():
        if key == create_options.NAME and isinstance(value, dict):
            made |= create_options.split(value, sort=False)
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
            raise InvalidTemplate(f"{where}: {key!r} becomes {name!r}, which is there already")
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
