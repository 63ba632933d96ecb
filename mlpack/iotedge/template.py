"""Templates of deployments: filling in their variables, as the tools that have them do.

``${NAME}`` and ``$NAME`` as VS Code (vscode-azure-iot-edge, ``expandEnv``) and iotedgedev
(``os.path.expandvars``) fill them in: names of letters, digits and ``_`` in any case, once, from
the environment; ``$edgeAgent``, ``$edgeHub`` and ``$upstream`` are never variables, and neither
tool has an escape. iotedgedev also takes a variable without quotes, whose value is JSON:
``"timeToLiveSecs": ${TTL}``. ``${MODULES.pump}``, ``${MODULES.pump.amd64}``,
``${MODULES.pump.debug}`` and ``${MODULEDIR<../pump>}`` are images.

``__NAME`` as in the templates of the older Azure ML tutorials (Azure/ai-toolkit-iot-edge,
iot-workshop-deployment-template.json: ``__MODULE_NAME``, ``__REGISTRY_IMAGE_LOCATION``,
``__REGISTRY_NAME``, ``__REGISTRY_USER_NAME`` and ``__REGISTRY_PASSWORD``).

Both tools leave a variable without a value in the manifest. Here that is an error, or a warning
where the text may mean something else (``$HOME`` in a command).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from mlpack.iotedge.deployment import InvalidTemplate
from mlpack.iotedge.manifest import (
    AGENT,
    CONTENT,
    DESIRED,
    InvalidDeployment,
    Problem,
    load,
    read_manifest,
)
from mlpack.iotedge.module import CREATE_OPTIONS, is_options_member, split_options
from mlpack.iotedge.secrets import CREDENTIALS, secret_paths
from mlpack.oci.descriptor import InvalidContent, Node, Platform, Reference

_VARIABLE = re.compile(
    r"""
      \$\{ (?P<image> MODULES\.[^{}<>\0]+ | MODULEDIR<[^<>\0]+>(?:\.[^{}<>\0]+)? ) \}
    | \$\{ (?P<braced> [A-Za-z0-9_]+ ) \}
    | \$\{ (?P<other> [^{}]* ) \}
    | \$ (?P<bare> [A-Za-z_][A-Za-z0-9_]* )
    | (?<![A-Za-z0-9_]) __ (?P<tutorial> [A-Z][A-Z0-9]*(?:_[A-Z0-9]+)* ) (?:__)? (?![A-Za-z0-9_])
    """,
    re.VERBOSE,
)
_NEVER = frozenset({"edgeAgent", "edgeHub", "upstream", "schema"})
"""Names that follow a ``$`` in every manifest; ``$schema-template`` is a template's own."""

_TEMPLATE_VERSION = "$schema-template"
_SYSTEM_PROPERTY = re.compile(r"[a-z]")
"""Begins a name that edgeHub reads in a route: ``$body``, ``$connectionDeviceId``."""

_ANY_CASE = "CONTAINER_REGISTRY_"
"""Variables whose last part VS Code and iotedgedev take from a registry's name."""

_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_WITHOUT_QUOTES = "\x00"
"""Begins a text that stands for a variable without quotes."""

USERNAME, PASSWORD = "MLPACK_REGISTRY_USERNAME", "MLPACK_REGISTRY_PASSWORD"
"""The variables of the login for the registry that releases are pulled from."""

LOGIN = "mlpack"
"""That login's name in a manifest."""

_ASSUMED = "31415926"
"""A number is a text, too, and a value of JSON."""

_ACR = ".azurecr.io"
_MODULES, _FOLDER = "MODULES.", "MODULEDIR<"


@dataclass(frozen=True, slots=True)
class Unfilled:
    """A variable that has no value."""

    text: str
    """As it is written."""

    name: str
    where: str
    image: str = ""
    """The module whose image it is; empty for a variable of the environment."""


@dataclass(slots=True)
class Variables:
    """The values of variables, and what was found while filling them in."""

    module: str
    image: Reference | None
    environment: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    """Images by module: of ``[edge.modules]``, and those the user names."""

    built: Mapping[str, str] = field(default_factory=dict)
    """Images by variable, which ``module.json`` names (:func:`built_images`)."""

    passwords: bool = False
    """Whether the passwords of registries are filled in; else they stay variables."""

    kept: Collection[str] = ()
    """Paths of texts whose variables stay."""

    assumed: str = ""
    """The value of every variable that has none; empty: it is missing."""

    missing: list[Unfilled] = field(default_factory=list)
    left: list[Problem] = field(default_factory=list)
    """Texts that look like variables and stay."""

    filled: dict[str, set[str]] = field(default_factory=dict)
    """The variables of the environment that were filled in, by the path of their text."""

    passed: set[str] = field(default_factory=set)
    """Variables in passwords of registries."""

    def get(self, name: str) -> str | None:
        """Return the value of ``name``, or ``None``."""
        found = self._known.get(name, self.environment.get(name))
        if found is None and name.upper().startswith(_ANY_CASE):
            same = [each for each in self.environment if each.upper() == name.upper()]
            found = self.environment[same[0]] if len(same) == 1 else None
        return found if found is not None else self.assumed or None

    def image_of(self, variable: str) -> str | None:
        """Return the image that ``MODULES.pump.amd64`` or ``MODULEDIR<../pump>`` stands for."""
        key = image_key(variable)
        for each in _shortened(key):
            if each in self.images:
                return self.images[each]
        if self.image is not None and _module_name(key) == self.module:
            return str(self.image)
        return self.built.get(variable)

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


def image_key(variable: str) -> str:
    r"""Return the module of an image's variable, with what follows its name.

    >>> image_key("MODULES.pump.amd64"), image_key("MODULEDIR<..\\shared/pump>.debug")
    ('pump.amd64', 'pump.debug')
    """
    if variable.startswith(_MODULES):
        return variable.removeprefix(_MODULES)
    folder, _, rest = variable.removeprefix(_FOLDER).partition(">")
    return re.split(r"[\\/]+", folder.rstrip("\\/"))[-1] + rest


def module_folder(variable: str) -> tuple[str, str]:
    """Return an image's variable without platform, and the folder of its ``module.json``.

    >>> module_folder("MODULES.pump.amd64"), module_folder("MODULEDIR<../pump>")
    (('MODULES.pump', 'modules/pump'), ('MODULEDIR<../pump>', '../pump'))
    """
    if variable.startswith(_MODULES):
        name = _module_name(image_key(variable))
        return _MODULES + name, f"modules/{name}"
    folder = variable.removeprefix(_FOLDER).partition(">")[0]
    return f"{_FOLDER}{folder}>", folder.replace("\\", "/")


def _shortened(key: str) -> Iterator[str]:
    """Yield ``pump.amd64.debug``, ``pump.amd64``, ``pump``."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def _module_name(key: str) -> str:
    return key.partition(".")[0]


_PLATFORMS = {"linux/amd64": "amd64", "linux/arm64": "arm64v8", "linux/arm/v7": "arm32v7"}
"""What VS Code and iotedgedev call the platforms of images."""


def built_images(prefix: str, document: object, platform: Platform | None) -> Mapping[str, str]:
    """Return the images of a ``module.json`` by variable, as the tool that builds them names them.

    ``prefix`` is ``MODULES.pump`` or ``MODULEDIR<../pump>``. A variable without a platform stands
    for the image of ``platform``, or of the only one. Raises :class:`InvalidContent`.
    """
    node = Node(document, "module.json").need("image")
    repository, tag = node.need("repository").text(), node.need("tag")
    version = tag.need("version").text()
    names = [name for name, _ in tag.need("platforms").items()]
    plain = [each for each in names if not each.endswith(".debug")]
    default = _PLATFORMS.get(str(platform), "") if platform else ""
    if not default and len(plain) == 1:
        default = plain[0]
    found = {}
    for each in names:
        found[f"{prefix}.{each}"] = f"{repository}:{version}-{each}"
        if default and each in (default, f"{default}.debug"):
            found[prefix + each.removeprefix(default)] = found[f"{prefix}.{each}"]
    return found


def image_variables(document: object) -> tuple[str, ...]:
    """Return the variables of a document that stand for images, each once."""
    found: dict[str, None] = {}
    for text in _texts(document):
        found |= {each["image"]: None for each in _VARIABLE.finditer(text) if each["image"]}
    return tuple(found)


def _texts(document: object) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, list):
        for each in document:
            yield from _texts(each)
    elif isinstance(document, dict):
        for key, each in document.items():
            yield key
            yield from _texts(each)


def read(text: str) -> object:
    """Read a template's JSON, in which variables may stand without quotes.

    Raises :class:`InvalidContent`.
    """
    document = load(_quoted(text.removeprefix("\ufeff")).encode())
    if isinstance(document, dict):
        document.pop(_TEMPLATE_VERSION, None)
    return document


def _quoted(text: str) -> str:
    """Return ``text`` with each variable outside of JSON's strings as a marked string."""
    made, at = [], 0

    def marked(found: re.Match[str]) -> str:
        # "$edgeHub" is a variable where no text can be.
        text = f"${{{found['bare']}}}" if found["bare"] else found[0]
        return json.dumps(_WITHOUT_QUOTES + text)

    def quoted(part: str) -> str:
        return _VARIABLE.sub(marked, part)

    for string in _JSON_STRING.finditer(text):
        made += [quoted(text[at : string.start()]), string[0]]
        at = string.end()
    return "".join((*made, quoted(text[at:])))


def fill(document: object, variables: Variables) -> object:
    """Fill in every variable of ``document``, in values and in names.

    The variables of a registry's login may stay; any other that has no value raises
    :class:`InvalidTemplate`, which names them all.
    """
    variables.missing.clear()
    variables.left.clear()
    variables.filled.clear()
    variables.passed.clear()
    filled = _fill(document, variables, "", login=False)
    if variables.missing:
        raise _unfilled(variables.missing)
    return filled


def secret_places(document: object, variables: Variables) -> frozenset[str]:
    """Return the paths of texts whose variables are secrets, judging by names and values.

    A variable that is a secret at one place, by itself, is one wherever it is.
    """
    trial = replace(variables, assumed=_ASSUMED, missing=[], left=[], filled={}, passed=set())
    try:
        filled = with_texts(_fill(document, trial, "", login=False))
        found = secret_paths(read_manifest(json.dumps(filled).encode()))
    except (InvalidDeployment, InvalidTemplate):
        return frozenset()  # filling it in, or the checks, tell what is wrong
    places = {each for each in trial.filled if covers(each, found)}
    # Of several in one text it is not known which is the secret: "https://${USER}:${KEY}@host".
    alone = [trial.filled[each] for each in places if len(trial.filled[each]) == 1]
    secrets = trial.passed.union(*alone)
    return frozenset(places | {each for each, names in trial.filled.items() if names & secrets})


def covers(place: str, paths: Iterable[str]) -> bool:
    """Whether one of ``paths`` is ``place``, or lies in it."""
    return any(each == place or each.startswith((f"{place}.", f"{place}[")) for each in paths)


def _unfilled(missing: Iterable[Unfilled]) -> InvalidTemplate:
    first: dict[str, Unfilled] = {}
    for each in missing:
        first.setdefault(each.text, each)
    modules = dict.fromkeys(each.image for each in first.values() if each.image)
    names = dict.fromkeys(each.name for each in first.values() if not each.image)
    hints = []
    if names:
        hints.append(f"set {', '.join(names)} in the environment")
    if modules:
        options = " ".join(f"--module {each}=IMAGE" for each in modules)
        hints.append(
            f"name images under [edge.modules], or with {options} (--module NAME for the one that "
            "runs the release)"
        )
    return InvalidTemplate(
        "; ".join(f"{each.where}: {each.text} is not set" for each in first.values()),
        hint="; ".join(hints),
    )


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


def _with_objects(settings: dict[str, object]) -> dict[str, object]:
    """Return ``settings`` with ``createOptions`` as an object if they are texts with variables.

    So a value is written as JSON has it, and one text with a secret does not hide the others.
    """
    texts = {key.lower(): each for key, each in settings.items() if is_options_member(key)}
    whole = "".join(each for _, each in sorted(texts.items()) if isinstance(each, str))
    readable = whole.lstrip().startswith("{") and _VARIABLE.search(whole)
    if not readable or not all(isinstance(each, str) for each in texts.values()):
        return settings  # "${OPTIONS}" is a text, whatever it holds
    try:
        options = load(_quoted(whole).encode())
    except InvalidContent:
        return settings  # the check of the manifest tells what is wrong with them
    made: dict[str, object] = {}
    for key, each in settings.items():
        if not is_options_member(key):
            made[key] = each
        elif CREATE_OPTIONS not in made:
            made[CREATE_OPTIONS] = options
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
    for key, each in _with_objects(value).items():
        # A place of its own: the value may be a secret, the name is not.
        place = f"{where} (a name)".lstrip()
        name = _text(key.removeprefix(_WITHOUT_QUOTES), variables, place, login=False)
        if name in filled:
            raise InvalidTemplate(f"{where}: {key!r} becomes {name!r}, which already exists")
        inside = f"{where}.{name}" if where else name
        filled[name] = _fill(each, variables, inside, login=login or key == CREDENTIALS)
    return filled


def _text(text: str, variables: Variables, where: str, *, login: bool) -> Any:  # noqa: ANN401
    """Fill in a text; one that stands for a variable without quotes becomes any value of JSON."""
    bare = text.startswith(_WITHOUT_QUOTES)
    text = text.removeprefix(_WITHOUT_QUOTES)
    # The tutorials write the registry's address so; it need not be one of Azure.
    if variables.image is not None:
        text = text.replace(f"__REGISTRY_NAME{_ACR}", variables.image.registry)

    def value(found: re.Match[str]) -> str:
        known = _value(found, variables, where, login=login)
        return found[0] if known is None else known

    filled = _VARIABLE.sub(value, text)
    if not bare:
        return filled
    if filled == text:
        variables.missing.append(Unfilled(text, text.strip("${}"), where))
        return text
    try:
        return load(filled.encode())
    except InvalidContent as error:
        # The value is not repeated: it may be a secret.
        raise InvalidTemplate(
            f"{where}: the value of {text} is not a number, an object or another value of JSON",
            hint=f'write "{text}", in quotes, if it is a text',
        ) from error


def _value(found: re.Match[str], variables: Variables, where: str, *, login: bool) -> str | None:
    """Return what a variable becomes; ``None`` if the text stays as it is."""
    if found["image"]:
        return _image(found, variables, where)
    name = found["braced"] or found["bare"] or found["tutorial"] or ""
    if found["bare"] and _is_no_variable(name, where):
        return None
    password = login and where.endswith(".password")
    if password:
        variables.passed.add(_plain(name))
    if where in variables.kept or (password and not variables.passwords):
        return f"${{{name}}}"
    known = variables.get(name) if name else None
    if known is not None:
        variables.filled.setdefault(where, set()).add(_plain(name))
        return known
    if login:
        return f"${{{name}}}" if name else None
    if found["other"] is None and (not found["bare"] or where.endswith(".image")):
        variables.missing.append(Unfilled(found[0], name, where))
    else:  # "$NAME" and "${NAME:-1}" may be just that: a text of a shell
        variables.left.append(Problem(where, f"{found[0]} is not set, and stays as it is"))
    return None


def _plain(name: str) -> str:
    """Return a variable's name as all its spellings have it."""
    return name.upper() if name.upper().startswith(_ANY_CASE) else name


def _is_no_variable(name: str, where: str) -> bool:
    return name in _NEVER or (".routes." in where and bool(_SYSTEM_PROPERTY.match(name)))


def _image(found: re.Match[str], variables: Variables, where: str) -> str | None:
    known = variables.image_of(found["image"])
    if known is None:
        module = _module_name(image_key(found["image"]))
        variables.missing.append(Unfilled(found[0], found["image"], where, module))
        return None
    if known != variables.built.get(found["image"]):
        return known

    # What module.json has may have variables: "${CONTAINER_REGISTRY_SERVER}/pump".
    def value(inner: re.Match[str]) -> str:
        name = inner["braced"] or inner["bare"]
        filled = variables.get(name) if name else None
        if filled is None:
            variables.missing.append(Unfilled(inner[0], name or inner[0], where))
        return inner[0] if filled is None else filled

    repository, _, tag = _VARIABLE.sub(value, known).rpartition(":")
    return f"{repository.lower()}:{tag}"
