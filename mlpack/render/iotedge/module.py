"""One module of a deployment: its image, its container, and how edgeAgent keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mlpack.errors import MlpackError
from mlpack.model.edge import Container, EdgeModule, ModuleRecipe
from mlpack.oci.reference import Reference
from mlpack.render import container
from mlpack.render.iotedge import create_options

SCORING_PORT = 5001
"""Where the runtime in a release listens, as Azure ML's inference server does."""


class UnpinnedImage(MlpackError, ValueError):
    """A release named by a tag; tags move, and edgeAgent does nothing when one does."""

    hint = "name the image by its digest: registry/repository@sha256:…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module of a deployment."""

    name: str
    image: Reference | str
    """A reference must be pinned; a text goes to edgeAgent as it is, as long as it reads it."""

    version: str = ""
    """Shown in the device's reports beside the image; changing it alone restarts the module."""

    options: Mapping[str, object] = field(default_factory=dict)
    """Container settings in the engine's words (Docker API, ``ContainerCreate``)."""

    env: Mapping[str, str] = field(default_factory=dict)
    startup_order: int = 1
    restart_policy: str = "always"
    """``always`` or ``never``: edgeAgent does not implement on-failure and on-unhealthy."""

    pull_policy: str = "on-create"
    """``on-create``, or ``never`` where the image is brought to the device by hand."""

    twin: Mapping[str, object] = field(default_factory=dict)
    """The module's own desired properties, which it reads from its twin."""

    def __post_init__(self) -> None:
        if isinstance(self.image, Reference) and self.image.digest is None:
            raise UnpinnedImage(f"{self.name}: {self.image} is not pinned to a digest")

    @property
    def image_name(self) -> str:
        """The image as edgeAgent reads it."""
        if isinstance(self.image, str):
            return self.image
        # edgeAgent refuses repository:tag@sha256:…, so a tag beside the digest is dropped.
        return str(replace(self.image, tag=""))

    @property
    def settings(self) -> dict[str, str]:
        """The module's ``settings``: its image, and its options in as many members as they need."""
        return {"image": self.image_name, **create_options.split(self.options)}

    @property
    def entry(self) -> dict[str, object]:
        """What ``$edgeAgent`` holds under the module's name."""
        return {
            "type": "docker",
            "status": "running",
            "restartPolicy": self.restart_policy,
            "imagePullPolicy": self.pull_policy,
            "startupOrder": self.startup_order,
            **({"version": self.version} if self.version else {}),
            "env": {name: {"value": value} for name, value in self.env.items()},
            "settings": self.settings,
        }


def model_module(
    name: str, image: Reference, *, version: str, settings: ModuleRecipe, rebuilt: int = 0
) -> Module:
    """The module that runs a release, reachable at the ``port`` of the device it is given.

    It may write below /tmp alone, where there is room for the ``rebuilt`` bytes of its model,
    and has no privileges. With GPUs it scores on them, as
    long as its variables name no other providers.
    """
    bindings = {f"{SCORING_PORT}/tcp": [{"HostPort": str(settings.port)}]}
    host = {"PortBindings": bindings, **container.confined(rebuilt)}
    made = _module(name, image, version, settings, {"HostConfig": host})
    if not settings.gpu:
        return made
    return replace(made, env={"MLPACK_PROVIDERS": "cuda,cpu", **settings.env})


def edge_module(name: str, settings: EdgeModule) -> Module:
    """A module beside the release's."""
    return _module(name, settings.image, settings.version, settings, {})


def _module(
    name: str,
    image: Reference | str,
    version: str,
    settings: Container,
    options: Mapping[str, object],
) -> Module:
    return Module(
        name=name,
        image=image,
        version=version,
        options=_merged(_merged(options, _options(settings)), settings.options),
        env=settings.env,
        startup_order=settings.startup_order,
        restart_policy=settings.restart,
        pull_policy=settings.pull,
        twin=settings.twin,
    )


def _options(settings: Container) -> dict[str, object]:
    """What the settings come to in the engine's words."""
    ports: dict[str, list[dict[str, str]]] = {}
    for each in settings.ports:
        inside, binding = _binding(each)
        ports.setdefault(inside, []).append(binding)
    host: dict[str, object] = {}
    if ports:
        host["PortBindings"] = ports
    if settings.mounts:
        host["Binds"] = list(settings.mounts)
    if settings.memory:
        host["Memory"] = settings.memory
    if settings.cpus:
        host["NanoCpus"] = int(settings.cpus * 10**9)
    if settings.gpu:
        host |= container.gpus(settings.gpu)
    # An engine binds only ports that are exposed, and an image need not expose these.
    exposed: dict[str, object] = {"ExposedPorts": {port: {} for port in ports}} if ports else {}
    return {**exposed, **({"HostConfig": host} if host else {})}


def _binding(text: str) -> tuple[str, dict[str, str]]:
    outside, _, inside = text.rpartition(":")
    address, _, port = outside.rpartition(":")
    port_inside, _, protocol = inside.partition("/")
    binding = {"HostPort": port}
    if address:
        binding["HostIp"] = address.strip("[]")
    return f"{port_inside}/{protocol or 'tcp'}", binding


def _merged(made: Mapping[str, object], said: Mapping[str, object]) -> dict[str, object]:
    """``made`` with everything ``said`` put over it, object by object."""
    both = dict(made)
    for key, value in said.items():
        there = both.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            value = _merged(there, value)
        both[key] = value
    return both
