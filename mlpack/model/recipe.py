"""``mlpack.toml``: the user's settings for one project, checked."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field

from mlpack.errors import MlpackError, UsageError
from mlpack.model.budget import BudgetRecipe, read_budget
from mlpack.model.edge import EdgeRecipe, ModuleRecipe, read_edge, read_module
from mlpack.model.groups import DeployRecipe, read_deploy
from mlpack.model.kubernetes import AciRecipe, KubernetesRecipe, read_aci, read_kubernetes
from mlpack.model.table import filled, flag, integer, known, parsed, table, text
from mlpack.oci.descriptor import Platform
from mlpack.oci.document import InvalidContent, Node
from mlpack.oci.reference import Reference

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
MAX_NAME = 63
MAX_DEVICES = 1_000_000_000

BASE, NONE = "base", "none"
"""Where an image is asked for: the project's base, and an empty device."""

_TABLES = (
    "model", "image", "registry", "base", "device", "module",
    "edge", "fleet", "deploy", "budget", "kubernetes", "aci",
)  # fmt: skip
_BASE_KEYS = ("from", "platforms", "requirements", "packages", "mirror", "gpu")
_NUMBERS = frozenset({"devices", "token_bytes"})

RESERVED = frozenset({BASE, NONE, "oci", "docker-archive"})
"""What no model can be called, since an image reference means something else by it."""


class InvalidRecipe(MlpackError):
    """An ``mlpack.toml`` that cannot be followed; the message names the setting."""

    hint = "docs/settings.md has every setting; mlpack init DIR writes a file of them"


class InvalidName(UsageError):
    """A model name or version that could not be a directory and a tag."""

    hint = "use lower-case letters, digits and single . _ - between them, at most 63 characters"


def check_name(text: str) -> str:
    """Return ``text`` if it can be a model's name; else raise :class:`InvalidName`.

    >>> check_name("fan-failure.v2")
    'fan-failure.v2'
    """
    if text in RESERVED:
        raise InvalidName(
            f"{text!r} cannot be a model name: it stands for something else in an image reference",
            hint="choose another name",
        )
    return check_word(text, "model name")


def check_word(text: str, what: str) -> str:
    """Return ``text`` if it can safely be a directory, a tag and a label; else raise."""
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        raise InvalidName(f"{text!r} is not a {what}")
    return text


@dataclass(frozen=True, slots=True)
class Override:
    """A setting said elsewhere than in ``mlpack.toml``, which it goes before."""

    source: str
    """Where it was said, for messages: ``MLPACK_ENGINE``."""

    table: str
    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecipe:
    """``[base]``: what the stable image is made from."""

    source: str = "debian:bookworm"
    platforms: tuple[Platform, ...] = (Platform("linux", "amd64"), Platform("linux", "arm64"))
    requirements: str = "requirements.in"
    """File of Python requirements, relative to the project."""

    packages: tuple[str, ...] = ()
    """Debian packages beyond the minimum."""

    mirror: str = ""
    """Debian mirror; empty means deb.debian.org."""

    gpu: bool = False
    """Whether models run on NVIDIA's graphics processors, by onnxruntime-gpu."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecipe:
    """``[device]``: how a device pulls, which decides what an update costs."""

    engine: str = "moby"
    tls: str = "ec-chain"
    """The registry's certificate: none, ec, ec-chain or rsa-chain."""

    token_bytes: int = 0
    """Length of the registry's bearer token; 0 where pulls are anonymous."""

    certificate_bytes: int = 0
    """DER bytes of the certificates the registry sends; those usual for ``tls`` where 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRecipe:
    """``[fleet]``: how many devices, and what a byte costs them."""

    devices: int = 1000
    tariff: str = "per-mb"
    """A tariff mlpack ships, or a path to a tariff file, relative to the project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryRecipe:
    """``[registry]``: how registries are reached."""

    ca: str = ""
    """File of certificates trusted beside the system's, relative to the project."""

    insecure: tuple[str, ...] = ()
    """Hosts, with their port, that may be talked to without TLS; this machine always may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole ``mlpack.toml``."""

    model: str
    scoring: str = ""
    """Scoring script shipped with every version, relative to the project; empty for none."""

    repository: Reference | None = None
    """Where releases are pushed; its tag and digest are empty."""

    registry: RegistryRecipe = field(default_factory=RegistryRecipe)
    base: BaseRecipe = field(default_factory=BaseRecipe)
    device: DeviceRecipe = field(default_factory=DeviceRecipe)
    module: ModuleRecipe = field(default_factory=ModuleRecipe)
    edge: EdgeRecipe = field(default_factory=EdgeRecipe)
    fleet: FleetRecipe = field(default_factory=FleetRecipe)
    deploy: DeployRecipe = field(default_factory=DeployRecipe)
    budget: BudgetRecipe = field(default_factory=BudgetRecipe)
    kubernetes: KubernetesRecipe = field(default_factory=KubernetesRecipe)
    aci: AciRecipe = field(default_factory=AciRecipe)

    @classmethod
    def parse(cls, text: str, overrides: Iterable[Override] = ()) -> Recipe:
        """Read an ``mlpack.toml``; raise :class:`InvalidRecipe` naming the setting at fault."""
        try:
            document = tomllib.loads(text)
            found = _recipe(Node(document, "mlpack.toml"))
        except tomllib.TOMLDecodeError as error:
            raise InvalidRecipe(f"mlpack.toml is not TOML: {error}") from error
        except InvalidContent as error:
            raise InvalidRecipe(str(error), hint=error.hint) from error
        for each in overrides:
            found = _overridden(document, each)
        return found


def _recipe(root: Node) -> Recipe:
    known(root, *_TABLES)
    model = root.need("model")
    known(model, "name", "scoring")
    image = table(root, "image", "repository")
    repository = image.get("repository")
    return Recipe(
        model=parsed(model.need("name"), check_name),
        scoring=text(model, "scoring", ""),
        repository=parsed(repository, Reference.parse_repository) if repository else None,
        registry=_registry(table(root, "registry", "ca", "insecure")),
        base=_base(table(root, "base", *_BASE_KEYS)),
        device=_device(table(root, "device", "engine", "tls", "token_bytes", "certificate_bytes")),
        module=read_module(root),
        edge=read_edge(root),
        fleet=_fleet(table(root, "fleet", "devices", "tariff")),
        deploy=read_deploy(root),
        budget=read_budget(root),
        kubernetes=read_kubernetes(root),
        aci=read_aci(root),
    )


def _registry(node: Node) -> RegistryRecipe:
    insecure = node.get("insecure")
    return RegistryRecipe(ca=text(node, "ca", ""), insecure=insecure.texts() if insecure else ())


def _overridden(document: dict[str, dict[str, object]], over: Override) -> Recipe:
    """What ``document`` says with ``over`` written into it."""
    number = over.key in _NUMBERS and over.value.isdecimal()
    document.setdefault(over.table, {})[over.key] = int(over.value) if number else over.value
    try:
        return _recipe(Node(document, "mlpack.toml"))
    except InvalidContent as error:
        raise InvalidRecipe(f"{over.source}: {error.problem}", hint=error.hint) from error


def _base(node: Node) -> BaseRecipe:
    default = BaseRecipe()
    platforms, packages = node.get("platforms"), node.get("packages")
    named = [parsed(e, Platform.parse) for e in platforms.elements()] if platforms else []
    wanted = [parsed(e, _debian_name) for e in packages.elements()] if packages else []
    return BaseRecipe(
        source=filled(node, "from", default.source),
        platforms=tuple(sorted(set(named))) or default.platforms,
        requirements=filled(node, "requirements", default.requirements),
        packages=tuple(sorted(set(wanted))),
        mirror=text(node, "mirror", ""),
        gpu=flag(node, "gpu", default.gpu),
    )


def _device(node: Node) -> DeviceRecipe:
    default = DeviceRecipe()
    return DeviceRecipe(
        engine=text(node, "engine", default.engine),
        tls=text(node, "tls", default.tls),
        token_bytes=integer(node, "token_bytes", default.token_bytes),
        certificate_bytes=integer(node, "certificate_bytes", default.certificate_bytes),
    )


def _fleet(node: Node) -> FleetRecipe:
    default = FleetRecipe()
    return FleetRecipe(
        devices=integer(node, "devices", default.devices, minimum=1, maximum=MAX_DEVICES),
        tariff=filled(node, "tariff", default.tariff),
    )


def _debian_name(text: str) -> str:
    # apt-get would take "--option" as one, and "a b" as two.
    if not _DEBIAN_NAME.fullmatch(text):
        raise UsageError(f"{text!r} is not the name of a Debian package")
    return text
