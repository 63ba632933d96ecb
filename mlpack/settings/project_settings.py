"""``mlpack.toml``: the settings of one project, checked as a whole.

The tables that most commands use are here; those of what runs releases, which are larger, in
:mod:`mlpack.settings.edge`, :mod:`mlpack.settings.targets` and :mod:`mlpack.settings.azureml`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field
from decimal import Decimal
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from mlpack.errors import MlpackError
from mlpack.humanize import nearest
from mlpack.kinds import DEFAULT_ENGINE, ENGINE_ALIASES, ENGINE_CHOICE, ENGINES
from mlpack.model.version import check_name
from mlpack.oci.descriptor import InvalidContent, Node, Platform, Reference
from mlpack.settings.reader import (
    FILE,
    choice,
    filled,
    flag,
    integer,
    listed,
    located,
    matching,
    parse_size,
    parsed,
    read_table,
    require_known,
    setting,
    settings_of,
    settings_table,
    text,
)

if TYPE_CHECKING:
    from mlpack.settings.azureml import AzureMLSettings
    from mlpack.settings.edge import EdgeSettings, ModuleSettings
    from mlpack.settings.targets import AciSettings, DeploySettings, KubernetesSettings

MAX_DEVICES = 1_000_000_000
TLS = ("none", "ec", "ec-chain", "rsa-chain")
"""The registry's certificates that mlpack has measured (:mod:`mlpack.plan.engines`)."""

_MONEY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,2})?)\s+([A-Z]{3})")


def engine(node: Node) -> str:
    """Read the name of an engine."""
    found = ENGINE_ALIASES.get(node.text(), node.text())
    if found not in ENGINES:
        close = nearest(found, (*ENGINES, *ENGINE_ALIASES))
        hint = f"one of: {', '.join(ENGINES)}"
        raise InvalidContent(node.where, f"{found!r} is not an engine{close}", hint=hint)
    return found


def _platforms(node: Node) -> tuple[Platform, ...]:
    found = listed(parsed(Platform.parse))(node)
    return tuple(sorted(set(found))) or BaseSettings().platforms


def _packages(node: Node) -> tuple[str, ...]:
    # apt-get would take "--option" as one, and "a b" as two.
    name = matching(r"[a-z0-9][a-z0-9+.-]+", "the name of a Debian package", "as in: libgomp1")
    return tuple(sorted(set(listed(name)(node))))


def _money(node: Node) -> Money:
    found = _MONEY.fullmatch(node.text().strip())
    if found is None:
        raise InvalidContent(
            node.where,
            f"{node.value!r} is not an amount of money",
            hint='write it as "50 USD" or "0.50 EUR", in the currency of the tariff',
        )
    return Money(Decimal(found[1]), found[2])


def _texts(node: Node) -> tuple[str, ...]:
    return node.texts()


@settings_table
class ModelSettings:
    """``[model]``: the model of the project."""

    name: str = setting(
        parsed(check_name),
        "the model's name: lower-case letters, digits and single `.` `_` `-`, at most 63 "
        "characters; not `base`, `none`, or the prefix of an image's name, such as `oci`",
    )
    scoring: str = setting(
        text,
        "scoring script that `mlpack register` keeps with every version",
        default="",
        shown="none",
    )
    code: str = setting(
        text,
        "source directory that is shipped with a scoring script in it; without one, the modules "
        "next to the script that it imports",
        default="",
        shown="none",
    )


@settings_table
class ImageSettings:
    """``[image]``: where releases are pushed."""

    repository: Reference | None = setting(
        parsed(Reference.parse_repository),
        "where devices fetch releases (`registry.example.com/edge/fan`), without tag or digest",
        default=None,
        shown="none",
        variable="REPOSITORY",
    )


@settings_table
class RegistrySettings:
    """``[registry]``: how registries are reached."""

    ca: str = setting(
        text,
        "file of certificates to trust with the system's, relative to the project; "
        "overridden by `MLPACK_REGISTRY_CA`",
        default="",
        shown="the system's alone",
    )
    insecure: tuple[str, ...] = setting(
        _texts,
        "hosts, with their port, to talk to without TLS; this machine needs no entry; "
        "`MLPACK_REGISTRY_INSECURE` adds more, with commas",
        default=(),
    )


@settings_table
class BaseSettings:
    """``[base]``: what the stable image is made from."""

    source: str = setting(
        filled,
        "the image the base is made from: that, `oci:PATH[:TAG]`, `oci-archive:PATH`, "
        "`docker-archive:PATH` or an image in a registry, pinned in the lock",
        default="debian:bookworm",
        key="from",
    )
    platforms: tuple[Platform, ...] = setting(
        _platforms,
        "the platforms of base and releases",
        default=(Platform("linux", "amd64"), Platform("linux", "arm64")),
        shown='`["linux/amd64", "linux/arm64"]`',
    )
    requirements: str = setting(
        filled, "file of Python requirements, one a line", default="requirements.in"
    )
    packages: tuple[str, ...] = setting(_packages, "Debian packages beyond the minimum", default=())
    mirror: str = setting(
        text,
        "where Debian packages are fetched",
        default="",
        shown="Debian's own",
        variable="MIRROR",
    )
    gpu: bool = setting(
        flag,
        "models run on NVIDIA's graphics processors: onnxruntime-gpu takes onnxruntime's place",
        default=False,
    )


@settings_table
class DeviceSettings:
    """``[device]``: how a device pulls, which decides what an update costs."""

    engine: str = setting(
        engine,
        f"how devices decide what to fetch: {ENGINE_CHOICE}; `docker` is read as moby",
        default=DEFAULT_ENGINE,
        variable="ENGINE",
    )
    tls: str = setting(
        choice(*TLS),
        "the registry's certificate: `none` (plain HTTP), `ec` (alone), `ec-chain` or "
        "`rsa-chain` (with its intermediate)",
        default="ec-chain",
        variable="TLS",
    )
    token_bytes: int = setting(
        integer(),
        "length of the registry's bearer token; 0 if pulls need none",
        default=0,
        variable="TOKEN_BYTES",
    )
    certificate_bytes: int = setting(
        integer(),
        "DER bytes of the certificates the registry sends",
        default=0,
        shown="`0`: those usual for `tls`",
    )


@settings_table
class FleetSettings:
    """``[fleet]``: how many devices, and what a byte costs them."""

    devices: int = setting(
        integer(1, MAX_DEVICES),
        "devices of the fleet, at most 1,000,000,000",
        default=1000,
        variable="DEVICES",
    )
    tariff: str = setting(
        filled,
        "a tariff mlpack ships, or a file of the project",
        default="per-mb",
        variable="TARIFF",
    )


@dataclass(frozen=True, slots=True)
class Money:
    """An amount and its currency."""

    amount: Decimal
    currency: str


@settings_table
class BudgetSettings:
    """``[budget]``: bounds of one update; beyond one, mlpack ends with status 3."""

    layer: int | None = setting(
        parsed(parse_size),
        'most bytes of the layers a device may fetch for an update: `"1 MB"`',
        default=None,
        shown="none",
    )
    device: int | None = setting(
        parsed(parse_size),
        'most bytes over the wire per device, with requests, headers and handshakes: `"200 kB"`',
        default=None,
        shown="none",
    )
    rollout: Money | None = setting(
        _money,
        'most money the bytes may cost the fleet, once: `"50 USD"`, in the tariff\'s currency; '
        "an unknown price is too much",
        default=None,
        shown="none",
    )

    @property
    def empty(self) -> bool:
        """Whether nothing is bounded."""
        return self == BudgetSettings()


T = TypeVar("T")

TABLES: Mapping[str, type] = {
    "model": ModelSettings,
    "image": ImageSettings,
    "registry": RegistrySettings,
    "base": BaseSettings,
    "device": DeviceSettings,
    "fleet": FleetSettings,
    "budget": BudgetSettings,
}
"""Tables of ``mlpack.toml`` that most commands use; the fields of their types are the settings."""

LARGER_TABLES: Mapping[str, tuple[str, str]] = {
    "module": ("edge", "ModuleSettings"),
    "edge": ("edge", "EdgeSettings"),
    "kubernetes": ("targets", "KubernetesSettings"),
    "aci": ("targets", "AciSettings"),
    "azureml": ("azureml", "AzureMLSettings"),
    "deploy": ("targets", "DeploySettings"),
}
"""Tables of what runs releases, each with the module and the name of its type.

They are imported for a file that has the table, or a command that uses it: defining all these
settings takes 40 ms. No variable of the environment overrides one of them.
"""

PREFIX = "MLPACK_"
_MAX_DIGITS = 18


class InvalidSettings(MlpackError):
    """An ``mlpack.toml`` that cannot be followed; the message has the setting and its line."""

    hint = "docs/reference/settings.md has every setting; mlpack init DIR writes a file of them"


@dataclass(frozen=True, slots=True)
class Override:
    """A setting from elsewhere, which overrides that of ``mlpack.toml``."""

    source: str
    """The place that sets it, for messages: ``MLPACK_ENGINE``."""

    table: str
    key: str
    value: str


def table_type(name: str) -> type:
    """Return the type of the table ``name``."""
    if name in TABLES:
        return TABLES[name]
    module, kind = LARGER_TABLES[name]
    found: type = getattr(import_module(f"mlpack.settings.{module}"), kind)
    return found


@dataclass(frozen=True, kw_only=True)
class ProjectSettings:
    """A whole ``mlpack.toml``."""

    model: str
    scoring: str = ""
    """Scoring script shipped with every version, relative to the project; empty for none."""

    code: str = ""
    """Source directory shipped with the script, relative to the project; empty for none."""

    repository: Reference | None = None
    """Where releases are pushed; its tag and digest are empty."""

    registry: RegistrySettings = field(default_factory=RegistrySettings)
    base: BaseSettings = field(default_factory=BaseSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)
    engine_named: bool = False
    """Whether ``[device] engine`` is set, and not the default."""

    fleet: FleetSettings = field(default_factory=FleetSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    larger: Mapping[str, object] = field(default_factory=dict)
    """Those of :data:`LARGER_TABLES` that the file has and that are not all defaults."""

    @cached_property
    def module(self) -> ModuleSettings:
        """``[module]``."""
        from mlpack.settings.edge import ModuleSettings

        return self._larger("module", ModuleSettings)

    @cached_property
    def edge(self) -> EdgeSettings:
        """``[edge]``."""
        from mlpack.settings.edge import EdgeSettings

        return self._larger("edge", EdgeSettings)

    @cached_property
    def deploy(self) -> DeploySettings:
        """``[deploy]``."""
        from mlpack.settings.targets import DeploySettings

        return self._larger("deploy", DeploySettings)

    @cached_property
    def kubernetes(self) -> KubernetesSettings:
        """``[kubernetes]``."""
        from mlpack.settings.targets import KubernetesSettings

        return self._larger("kubernetes", KubernetesSettings)

    @cached_property
    def aci(self) -> AciSettings:
        """``[aci]``."""
        from mlpack.settings.targets import AciSettings

        return self._larger("aci", AciSettings)

    @cached_property
    def azureml(self) -> AzureMLSettings:
        """``[azureml]``."""
        from mlpack.settings.azureml import AzureMLSettings

        return self._larger("azureml", AzureMLSettings)

    def _larger(self, name: str, kind: type[T]) -> T:
        found = self.larger.get(name)
        return found if isinstance(found, kind) else kind()

    @classmethod
    def parse(
        cls,
        text: str,
        overrides: Iterable[Override] = (),
        require_tariff: Callable[[str], object] = lambda _: None,
    ) -> ProjectSettings:
        """Read an ``mlpack.toml``; raise :class:`InvalidSettings` naming setting and line.

        ``require_tariff`` raises ``UsageError`` for an unknown tariff, which may be a file.
        """
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # of integers and nesting beyond Python's
            raise InvalidSettings(f"{FILE} is not TOML: {error}") from error
        try:
            found = _read(document, require_tariff)
        except InvalidContent as error:
            raise InvalidSettings(located(error, text), hint=error.hint) from error
        for each in overrides:
            _write(document, each)
            try:
                found = _read(document, require_tariff)
            except InvalidContent as error:
                raise InvalidSettings(f"{each.source}: {error.problem}", hint=error.hint) from error
        return found


def _read(document: Mapping[str, Any], require_tariff: Callable[[str], object]) -> ProjectSettings:
    root = Node(document, FILE)
    require_known(root, {**TABLES, **LARGER_TABLES})
    root.need("model")
    read: dict[str, Any] = {
        name: read_table(root.get(name) or Node({}, f"{FILE}.{name}"), kind)
        for name, kind in TABLES.items()
    }
    given = {name: node for name in LARGER_TABLES if (node := root.get(name))}
    larger: dict[str, object] = {
        name: read_table(node, table_type(name)) for name, node in given.items()
    }
    larger = {name: found for name, found in larger.items() if found != table_type(name)()}
    model, image = read.pop("model"), read.pop("image")
    device = root.get("device")
    found = ProjectSettings(
        model=model.name,
        scoring=model.scoring,
        code=model.code,
        repository=image.repository,
        larger=larger,
        engine_named=device is not None and device.get("engine") is not None,
        **read,
    )
    for tariff in _tariffs(found):
        parsed(require_tariff)(tariff)
    return found


def _tariffs(found: ProjectSettings) -> Iterator[Node]:
    if found.fleet.tariff != FleetSettings().tariff:
        yield Node(found.fleet.tariff, f"{FILE}.fleet.tariff")
    groups = found.deploy.groups if "deploy" in found.larger else {}
    for name, group in groups.items():
        if group.tariff:
            yield Node(group.tariff, f"{FILE}.deploy.groups.{name}.tariff")


def environment_overrides(environment: Mapping[str, str]) -> tuple[Override, ...]:
    """Return the settings that ``environment`` overrides: ``MLPACK_ENGINE`` and so on."""
    return tuple(
        Override(source, table, key, environment[source])
        for source, (table, key) in variables().items()
        if environment.get(source)
    )


def variables() -> Mapping[str, tuple[str, str]]:
    """Return the environment's variables, each with the table and key it overrides."""
    return {
        f"{PREFIX}{found.variable}": (table, key)
        for table, kind in TABLES.items()
        for key, _, found in settings_of(kind)
        if found.variable
    }


def _write(document: dict[str, Any], over: Override) -> None:
    declared: dict[str, Field[Any]] = {
        key: each for key, each, _ in settings_of(TABLES[over.table])
    }
    digits = over.value.isdecimal() and len(over.value) <= _MAX_DIGITS
    number = isinstance(declared[over.key].default, int) and digits
    document.setdefault(over.table, {})[over.key] = int(over.value) if number else over.value
