"""``mlpack.toml``: the user's settings for one project, checked."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Platform
from mlpack.oci.document import InvalidContent, Node
from mlpack.oci.reference import Reference

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
MAX_NAME = 63


class InvalidRecipe(MlpackError):
    """An ``mlpack.toml`` that cannot be followed; the message names the setting."""

    hint = "see docs/reference.md for every setting, or start from: mlpack init"


class InvalidName(MlpackError, ValueError):
    """A model name or version that could not be a directory and a tag."""

    exit_status = 2
    hint = "use lower-case letters, digits and single . _ - between them, at most 63 characters"


def check_name(text: str, what: str = "model name") -> str:
    """Return ``text`` if it can safely be a directory, a tag and a label; else raise.

    >>> check_name("fan-failure.v2")
    'fan-failure.v2'
    """
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        raise InvalidName(f"{text!r} is not a {what}")
    return text


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
    """Debian mirror; empty means the one mmdebstrap takes by itself."""


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
class ModuleRecipe:
    """``[module]``: the IoT Edge module that runs the release."""

    name: str = ""
    port: int = 5001
    env: Mapping[str, str] = field(default_factory=dict)


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
    fleet: FleetRecipe = field(default_factory=FleetRecipe)

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read an ``mlpack.toml``; raise :class:`InvalidRecipe` naming the setting at fault."""
        try:
            return _recipe(Node(tomllib.loads(text), "mlpack.toml"))
        except tomllib.TOMLDecodeError as error:
            raise InvalidRecipe(f"mlpack.toml is not TOML: {error}") from error
        except InvalidContent as error:
            raise InvalidRecipe(str(error)) from error


def _recipe(root: Node) -> Recipe:
    _known(root, "model", "image", "registry", "base", "device", "module", "fleet")
    model = root.need("model")
    _known(model, "name", "scoring")
    image = _table(root, "image", "repository")
    repository = image.get("repository")
    return Recipe(
        model=check_name(model.need("name").text()),
        scoring=_text(model, "scoring", ""),
        repository=Reference.parse(repository.text()) if repository else None,
        registry=_registry(_table(root, "registry", "ca", "insecure")),
        base=_base(_table(root, "base", "from", "platforms", "requirements", "packages", "mirror")),
        device=_device(_table(root, "device", "engine", "tls", "token_bytes", "certificate_bytes")),
        module=_module(_table(root, "module", "name", "port", "env")),
        fleet=_fleet(_table(root, "fleet", "devices", "tariff")),
    )


def _registry(node: Node) -> RegistryRecipe:
    insecure = node.get("insecure")
    return RegistryRecipe(ca=_text(node, "ca", ""), insecure=insecure.texts() if insecure else ())


def _base(node: Node) -> BaseRecipe:
    default = BaseRecipe()
    platforms, packages = node.get("platforms"), node.get("packages")
    named = [Platform.parse(text) for text in platforms.texts()] if platforms else []
    return BaseRecipe(
        source=_text(node, "from", default.source),
        platforms=tuple(sorted(set(named))) or default.platforms,
        requirements=_text(node, "requirements", default.requirements),
        packages=tuple(sorted(set(packages.texts()))) if packages else (),
        mirror=_text(node, "mirror", ""),
    )


def _device(node: Node) -> DeviceRecipe:
    default = DeviceRecipe()
    return DeviceRecipe(
        engine=_text(node, "engine", default.engine),
        tls=_text(node, "tls", default.tls),
        token_bytes=_integer(node, "token_bytes", default.token_bytes),
        certificate_bytes=_integer(node, "certificate_bytes", default.certificate_bytes),
    )


def _module(node: Node) -> ModuleRecipe:
    env = node.get("env")
    port = _integer(node, "port", 5001, minimum=1)
    if port > 65535:
        raise InvalidContent(f"{node.where}.port", f"{port} is not a port (1 to 65535)")
    return ModuleRecipe(name=_text(node, "name", ""), port=port, env=env.text_map() if env else {})


def _fleet(node: Node) -> FleetRecipe:
    default = FleetRecipe()
    return FleetRecipe(
        devices=_integer(node, "devices", default.devices, minimum=1),
        tariff=_text(node, "tariff", default.tariff),
    )


def _table(root: Node, name: str, *keys: str) -> Node:
    table = root.get(name) or Node({}, f"{root.where}.{name}")
    _known(table, *keys)
    return table


def _known(node: Node, *keys: str) -> None:
    for key in node.mapping():
        if key not in keys:
            raise InvalidContent(f"{node.where}.{key}", f"is not a setting{_nearest(key, keys)}")


def _nearest(key: str, keys: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(keys), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _text(node: Node, key: str, default: str) -> str:
    found = node.get(key)
    return found.text() if found else default


def _integer(node: Node, key: str, default: int, *, minimum: int = 0) -> int:
    found = node.get(key)
    return found.integer(minimum=minimum) if found else default
