"""The requests: one frozen value per verb, its fields named after the command's flags.

Each has the verb's subject first, which may be passed without its name (``Build("fan:2")``).
Paths are relative to the directory of the project. Images are written as on the command line:
``NAME[:VERSION]``, ``NAME@ALIAS``, ``base``, ``oci:PATH[:TAG]``, ``docker-archive:PATH[:NAME]``,
``oci-archive:PATH[:NAME]`` or a reference to a registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlpack.errors import UsageError
from mlpack.humanize import nearest
from mlpack.kinds import DEFAULT_TARGET, EFFORTS, REFUSALS, STRATEGIES, TARGETS

if TYPE_CHECKING:
    from mlpack.oci.descriptor import Platform, Reference

PORT = 5001
"""The port that a release listens on."""

DEPLOYMENT = "deployment.json"
"""The manifest that ``up`` and ``down`` take by default."""

Text = Mapping[str, str]


@dataclass(frozen=True)
class Init:
    """Start a project in ``directory``."""

    directory: Path | str = "."
    _: KW_ONLY
    template: str = "minimal"
    name: str = ""
    """The model's name; empty takes the template's or the directory's."""

    ci: str = ""
    """``github`` or ``azure``: add the steps that publish a model after training."""


@dataclass(frozen=True)
class TagVersion:
    """Give the version ``model`` the alias ``alias``; without one, list the model's aliases."""

    model: str
    """``NAME[:VERSION]``, or ``NAME@ALIAS`` for the version that another alias names."""

    alias: str = ""
    _: KW_ONLY
    delete: bool = False
    """Delete the alias, which may also be written as ``NAME@ALIAS`` in ``model``."""


@dataclass(frozen=True)
class Round:
    """Make a version of ``exact`` whose patch on ``onto`` is small, within bounds."""

    exact: str
    _: KW_ONLY
    onto: str
    check: Path | str
    """Rows to compare on: .npz."""

    max_error: float | None = None
    min_agreement: Decimal | float | None = None
    """A share: 0.999."""

    min_accuracy: Decimal | float | None = None
    """A share, too; the labels say what is right."""

    keep_bits: float | None = None
    """The size of the patch, in bits for each number that changed."""

    version: str = ""
    dry_run: bool = False


@dataclass(frozen=True)
class BuildBase:
    """Make the base image that mlpack.toml describes."""

    upgrade: bool = False


@dataclass(frozen=True)
class Build:
    """Make a release of ``model``; with ``push`` or ``to`` also push it."""

    model: str = ""
    _: KW_ONLY
    platforms: tuple[Platform, ...] = ()
    strategy: Literal["auto", "layer", "packed", "patch"] = "auto"
    effort: Literal["fast", "default", "max"] = "default"
    """How long a patch or packed model may take to make."""

    device_group: str = ""
    fleet: Path | str | None = None
    builder: Literal["oci", "docker", "acr"] = "oci"
    acr: str = ""
    base: str = ""
    """A base in a registry, whose layers stay there."""

    no_start: bool = False
    """Do not start the release once before it is named."""

    allow: tuple[str, ...] = ()
    """Refusals to override: :data:`~mlpack.kinds.REFUSALS`."""

    check: bool = False
    """Hold the release against [budget] before it is pushed."""

    push: bool = False
    to: str = ""

    def __post_init__(self) -> None:
        _check("strategy", self.strategy, STRATEGIES)
        _check("effort", self.effort, EFFORTS)
        for each in self.allow:
            _check("refusal", each, REFUSALS)


def _check(what: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is not a known one."""
    if value not in known:
        raise UsageError(
            f"{value!r} is not a known {what}{nearest(value, known)}",
            hint=f"one of: {', '.join(known)}",
        )


@dataclass(frozen=True)
class Push:
    """Send ``release`` to its registry."""

    release: str = ""
    _: KW_ONLY
    to: str = ""
    workspace: str = ""


@dataclass(frozen=True)
class Pull:
    """Bring the image ``reference`` from a registry into the project's store."""

    reference: str
    _: KW_ONLY
    name: str = ""
    """What the store calls it: ``--as``."""


@dataclass(frozen=True)
class Copy:
    """Copy an image between registries, layouts and archives."""

    source: str
    target: str


@dataclass(frozen=True)
class Diff:
    """Plan what a device on ``old`` fetches to reach ``new``."""

    old: str
    new: str
    _: KW_ONLY
    engine: str = ""
    platform: Platform | None = None
    loaded: bool = False
    """Whether ``old`` came from a file, not by a pull."""


@dataclass(frozen=True)
class Graft:
    """Turn ``new``, built by any tool, into one layer on ``old``, and write it to ``out``."""

    old: str
    new: str
    out: str
    _: KW_ONLY
    engine: str = ""
    platform: Platform | None = None


@dataclass(frozen=True)
class MakePatch:
    """Write the patch that turns the file ``old`` into ``new`` to ``out``."""

    old: Path | str
    new: Path | str
    out: Path | str
    _: KW_ONLY
    effort: Literal["fast", "default", "max"] = "default"

    def __post_init__(self) -> None:
        _check("effort", self.effort, EFFORTS)


@dataclass(frozen=True)
class ApplyPatch:
    """Write what the patch ``file`` turns ``old`` into to ``out``."""

    old: Path | str
    file: Path | str
    out: Path | str


@dataclass(frozen=True)
class MakeBundle:
    """Write the file that brings a device on ``onto`` to ``new`` without a network."""

    new: str
    _: KW_ONLY
    onto: str
    out: Path | str
    engine: str = ""
    name: str = ""
    platform: Platform | None = None


@dataclass(frozen=True)
class Load:
    """Bring ``image`` into a container engine on this machine."""

    image: str
    _: KW_ONLY
    engine: str = "docker"
    name: str = ""


@dataclass(frozen=True)
class Run:
    """Start ``image`` as a container on this machine, and wait until it answers."""

    image: str
    _: KW_ONLY
    engine: str = "docker"
    port: int = PORT
    network: str = ""
    env: Text = field(default_factory=dict)
    unconfined: bool = False


@dataclass(frozen=True)
class Up:
    """Run the modules of the manifest ``deployment`` on this machine's Docker.

    ``layers``: manifests that are merged with it as IoT Hub does.
    """

    deployment: Path | str = DEPLOYMENT
    _: KW_ONLY
    layers: tuple[Path | str, ...] = ()
    network: Literal["own", "host"] = "own"
    wait: bool = True
    timeout: float = 60.0
    dry_run: bool = False


@dataclass(frozen=True)
class Down:
    """Stop and remove what ``Up`` started of ``deployment``."""

    deployment: Path | str = DEPLOYMENT
    _: KW_ONLY
    dry_run: bool = False


@dataclass(frozen=True)
class Score:
    """Send ``inputs`` to ``module``: an address, or an image that is started for it.

    An input is values with commas between them, a path, or ``-`` for standard input.
    """

    module: str
    inputs: tuple[str, ...]
    _: KW_ONLY
    repeat: int = 1
    concurrency: int = 1
    timeout: float = 60.0
    engine: str = "docker"
    network: str = ""
    env: Text = field(default_factory=dict)


@dataclass(frozen=True)
class Serve:
    """Serve a model version on this machine without a container."""

    model: str
    _: KW_ONLY
    port: int = PORT
    env: Text = field(default_factory=dict)


@dataclass(frozen=True)
class ServeRegistry:
    """Serve the project's releases, or the layout ``store``, as a registry."""

    host: str = "127.0.0.1"
    _: KW_ONLY
    port: int = PORT
    store: Path | str | None = None
    user: str = ""
    password_file: Path | str | None = None
    read_only: bool = False
    allow_delete: bool = False
    certificate: Path | str | None = None
    key: Path | str | None = None


COMPOSE, KUBERNETES = "compose", "kubernetes"


@dataclass(frozen=True)
class Report:
    """Work out what ``release`` costs a fleet, in bytes and money."""

    release: str = ""
    _: KW_ONLY
    old: str = ""
    """What the devices hold: ``--from``."""

    engine: str = ""
    devices: int = 0
    tariff: str = ""
    platform: Platform | None = None
    check: bool = False
    """Require that it is within [budget]."""


@dataclass(frozen=True)
class Render:
    """A request for a manifest; the default is a whole IoT Edge deployment."""

    release: str = ""
    """``NAME[:VERSION]``, or what ``mlpack build`` prints (``NAME@DIGEST``,
    ``REPOSITORY@DIGEST``); empty: the newest of the project's model."""

    _: KW_ONLY
    target: str = DEFAULT_TARGET
    """What runs it, one of :data:`~mlpack.kinds.TARGETS`."""

    layered: bool = False
    """The release and the modules with it, over a base deployment."""

    base: bool = False
    """IoT Edge's own modules without a release: the base of layered deployments."""

    template: Path | None = None
    """A template to fill in; it and all files are relative to the project."""

    patch: Path | None = None
    """An existing manifest, in which only the image changes."""

    output: Path | None = None
    """The file to write, for ``azureml`` a directory; the manifest is only returned if it is
    ``None``."""

    repository: Reference | None = None
    """Instead of the one in ``mlpack.toml``."""

    platform: Platform | None = None
    """The platform whose image is named instead of the index, which saves each device the
    request for the index."""

    module: str = ""
    """Id of the release's module, instead of the one in ``mlpack.toml``."""

    images: Mapping[str, str] = field(default_factory=dict)
    """Images of other modules of ``template``, by their names: ``${MODULES.NAME}``."""

    allow_secrets: tuple[str, ...] = ()
    """Paths of secrets in clear that ``patch`` may have; ``*`` is one part of a path."""

    device_group: str = ""
    """The group whose link and nodes count; empty: the slowest link of all groups."""

    with_secrets: bool = False
    """Whether passwords of registries and secrets of modules are filled in."""

    token: Path | None = None
    """What ``mlpack azure token`` wrote: the login of the repository, filled in."""

    image_volume: Reference | None = None
    """Kubernetes: repository of the base, into which the release is mounted."""

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The values of a template's variables, and of registries' logins."""

    def __post_init__(self) -> None:
        forms = [name for name in ("layered", "base", "template", "patch") if getattr(self, name)]
        if len(forms) > 1:
            names = " and ".join(f"--{name}" for name in forms)
            raise UsageError(f"{names} exclude each other", hint="run the command once for each")
        if self.base and self.release:
            hint = "with a release, leave --base out; it has one deployment for all of them"
            raise UsageError(
                f"--base is for every release, and not for {self.release!r}", hint=hint
            )
        if self.target not in TARGETS:
            hint = f"one of: {', '.join(TARGETS)}"
            raise UsageError(
                f"{self.target!r} is not a target{nearest(self.target, TARGETS)}", hint=hint
            )
        if forms and self.target not in (DEFAULT_TARGET, COMPOSE):
            raise UsageError(f"--{forms[0]} is for IoT Edge, not for --target {self.target}")
        if self.image_volume and self.target != KUBERNETES:
            raise UsageError("--image-volume is for --target kubernetes")
        self._require_uses()

    def _require_uses(self) -> None:
        """Refuse options that another one is missing for."""
        if self.images and not self.template:
            raise UsageError("--module NAME=IMAGE is for --template")
        if self.allow_secrets and not self.patch:
            raise UsageError(
                "--allow-secret is for --patch",
                hint="a new manifest takes secrets from [edge.modules.NAME] secret_env",
            )
        if (self.secret or self.allow_secrets) and self.output is None:
            option = "--with-secrets" if self.secret else "--allow-secret"
            raise UsageError(f"{option} prints nothing", hint="name a file with -o FILE")

    @property
    def secret(self) -> bool:
        """Whether passwords are filled in."""
        return self.with_secrets or self.token is not None


@dataclass(frozen=True)
class Devices:
    """List the devices of a group, and what each runs."""

    device_group: str
    _: KW_ONLY
    fleet: Path | str | None = None
    holds: str = ""


@dataclass(frozen=True)
class Plan:
    """Work out what ``release`` takes on a device group; nothing is sent."""

    release: str = ""
    _: KW_ONLY
    device_group: str
    fleet: Path | str | None = None
    stages: tuple[Decimal, ...] = ()


@dataclass(frozen=True)
class Deploy:
    """Roll ``release`` out to a device group; ``None`` takes the group's own settings."""

    release: str = ""
    _: KW_ONLY
    device_group: str
    stages: tuple[Decimal, ...] | None = None
    success: Decimal | None = None
    max_failures: Decimal | None = None
    soak: int | None = None
    """Seconds that a stage lasts at least."""

    wait: bool = False
    poll: int = 30
    timeout: int | None = None
    again: bool = False


@dataclass(frozen=True)
class Rollback:
    """Return a device group to an earlier release."""

    device_group: str
    _: KW_ONLY
    to: str = ""
    """``NAME:VERSION`` or ``none``; empty takes the release before."""


@dataclass(frozen=True)
class IssueToken:
    """Make the registry login of a device group."""

    group: str
    _: KW_ONLY
    registry: str = ""
    days: int = 90
    output: Path | str | None = None
