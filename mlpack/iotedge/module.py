"""One module of a deployment: its image, its container, and how edgeAgent keeps it.

Containers are described in terms of Docker's API. ``createOptions`` are those settings as JSON
inside a string, in one member or several.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mlpack.errors import MlpackError
from mlpack.iotedge.manifest import require_readable
from mlpack.oci.descriptor import InvalidContent, Node, Reference
from mlpack.oci.image import Image
from mlpack.settings.edge import ContainerSettings, EdgeModuleSettings, ModuleSettings

_MIB = 1024 * 1024
TMP_BYTES = 64 * _MIB
"""How much a module may write below /tmp; it is memory."""

GPU = "io.mlpack.gpu"
"""The label of bases, and so of releases, whose onnxruntime uses graphics processors."""

ALL = -1


def tmp_bytes(rebuilt: int) -> int:
    """Return the size of /tmp for a release that rebuilds so many bytes there, in whole MiB."""
    return TMP_BYTES + -(-rebuilt // _MIB) * _MIB


def _tmpfs(rebuilt: int) -> str:
    return f"rw,noexec,nosuid,nodev,size={tmp_bytes(rebuilt)},mode=1777"


def confined(rebuilt: int = 0) -> dict[str, object]:
    """``HostConfig`` of a module that scores: only /tmp is writable, and no privilege is left.

    The runtime needs no more; in the image it is not root already. ``rebuilt``: bytes of the
    model that it rebuilds from a patch there.
    """
    return {
        "CapDrop": ["ALL"],
        "ReadonlyRootfs": True,
        "SecurityOpt": ["no-new-privileges"],
        "Tmpfs": {"/tmp": _tmpfs(rebuilt)},  # noqa: S108  (inside the container)
    }


def confining_options(rebuilt: int = 0) -> tuple[str, ...]:
    """Return the same for the command lines of Docker and podman."""
    return (
        *("--read-only", "--tmpfs", f"/tmp:{_tmpfs(rebuilt)}"),  # noqa: S108
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    )


def gpus(count: int = ALL) -> dict[str, object]:
    """``HostConfig`` of a module that gets graphics processors: ``count`` of them, or all."""
    request = {"Capabilities": [["gpu"]], "Count": count, "Driver": "nvidia"}
    return {"DeviceRequests": [request]}


def wants_gpu(image: Image) -> bool:
    """Whether the image's onnxruntime uses graphics processors."""
    return GPU in image.labels


CREATE_OPTIONS = "createOptions"
CHUNK = 512
"""Characters per member: what edgeAgent itself writes (Azure/iotedge, Constants.cs
TwinValueMaxSize). IoT Hub takes 4 KB a value today, older hubs took 512 bytes."""

MAX_CHUNKS = 100
"""edgeAgent reads createOptions and createOptions01 to createOptions99, and ignores more."""

_MEMBER = re.compile(r"createOptions([0-9]*)", re.IGNORECASE)
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_EVERY = ("", "0.0.0.0", "::")  # noqa: S104  (read, not bound)
MAX_PORT = 65535


def split_options(options: Mapping[str, object], *, sort: bool = True) -> dict[str, str]:
    """Write ``options`` as the members of a module's ``settings``.

    Sorted, so that the same options are the same text: edgeAgent compares texts. What a
    user wrote keeps its order (``sort=False``).

    >>> split_options({"HostConfig": {}})
    {'createOptions': '{"HostConfig":{}}'}
    """
    whole = json.dumps(options, separators=(",", ":"), sort_keys=sort)
    pieces = [whole[start : start + CHUNK] for start in range(0, len(whole), CHUNK)]
    return {
        f"{CREATE_OPTIONS}{number:02}" if number else CREATE_OPTIONS: each
        for number, each in enumerate(pieces)
    }


def join_options(settings: Node) -> Node:
    """Read the options back; raise :class:`InvalidContent` if edgeAgent could not."""
    where = f"{settings.where}.{CREATE_OPTIONS}"
    members = _members(settings)
    if len(members) > MAX_CHUNKS:
        raise InvalidContent(members[MAX_CHUNKS].where, f"edgeAgent reads {MAX_CHUNKS} of them")
    whole = "".join(_piece(each) for each in members)
    if not whole.strip() or whole.strip().lower() == "null":
        return Node({}, where)
    try:
        options = json.loads(whole)
    except (ValueError, RecursionError) as error:
        parts = f" ({len(members)} members joined)" if len(members) > 1 else ""
        raise InvalidContent(where, f"is not JSON{parts}: {error}") from error
    require_readable(options, where)
    return Node(Node(options, where).mapping(), where)


def _piece(member: Node) -> str:
    if isinstance(member.value, dict):
        raise InvalidContent(member.where, "is an object, and edgeAgent reads JSON in a text")
    return member.text()


def is_options_member(key: str) -> bool:
    """Whether ``key`` is ``createOptions`` or one of its numbered parts."""
    return _MEMBER.fullmatch(key) is not None


def _members(settings: Node) -> list[Node]:
    # edgeAgent sorts the names as text: no number, 1, 2, … (JsonEx.cs, ChunkedProperty).
    found = sorted(
        (key.lower(), each)
        for key, each in settings.items()
        if is_options_member(key) and each.value is not None
    )
    for number, (key, each) in enumerate(found):
        digits = key[len(CREATE_OPTIONS) :]
        if digits != "" if number == 0 else int(digits or 0) != number:
            due = f"{CREATE_OPTIONS}{number:02}" if number else CREATE_OPTIONS
            raise InvalidContent(each.where, f"is out of sequence: {due} is expected")
    return [each for _, each in found]


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the host that a module binds."""

    port: str
    """With its protocol: ``443/tcp``."""

    address: str
    """The one address of the host it is bound at; empty for all."""

    where: str

    def clashes(self, other: HostPort) -> bool:
        """Whether the engine cannot bind both."""
        same = self.address == other.address or not (self.address and other.address)
        return self.port == other.port and same


def host_ports(options: Node) -> Iterator[HostPort]:
    """Yield every port of the host that the options bind.

    Raises :class:`InvalidContent` for a value that is not a port.
    """
    host = options.get("HostConfig")
    bindings = host.get("PortBindings") if host else None
    for inside, listed in bindings.items() if bindings else ():
        matched = _PORT.fullmatch(inside)
        if not matched or not 1 <= int(matched[1]) <= MAX_PORT:
            raise InvalidContent(listed.where, "is not a port such as 443/tcp")
        for binding in listed.elements():
            port, address = binding.get("HostPort"), binding.get("HostIp")
            if port is not None and (number := _host_port(port)):
                at = address.text() if address else ""
                yield HostPort(
                    f"{number}/{matched[2] or 'tcp'}", "" if at in _EVERY else at, port.where
                )


def _host_port(node: Node) -> int:
    """Return the number; 0 if the engine chooses one, or resolves a range (``8000-8010``)."""
    digits = str(node.value)
    if not digits or "-" in digits:
        return 0
    if not digits.isdecimal() or int(digits) > MAX_PORT:
        raise InvalidContent(node.where, f"is {node.value!r}, which is not a port number")
    return int(digits)


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
    """A reference must be pinned; a text is passed to edgeAgent as it is."""

    version: str = ""
    """Shown in the device's reports next to the image; changing it alone restarts the module."""

    options: Mapping[str, object] = field(default_factory=dict)
    """Container settings in the engine's terms (Docker API, ``ContainerCreate``)."""

    env: Mapping[str, str] = field(default_factory=dict)
    startup_order: int = 1
    restart_policy: str = "always"
    """``always`` or ``never``: edgeAgent does not implement on-failure and on-unhealthy."""

    pull_policy: str = "on-create"
    """``on-create``, or ``never`` if the image is brought to the device by hand."""

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
        # edgeAgent refuses repository:tag@sha256:…, so a tag next to the digest is dropped.
        return str(replace(self.image, tag=""))

    @property
    def settings(self) -> dict[str, str]:
        """The module's ``settings``: its image, and its options in as many members as they need."""
        return {"image": self.image_name, **split_options(self.options)}

    @property
    def entry(self) -> dict[str, object]:
        """The module's value in ``$edgeAgent``."""
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
    name: str, image: Reference, *, version: str, settings: ModuleSettings, rebuilt: int = 0
) -> Module:
    """Return the module that runs a release, reachable at the ``port`` of its device.

    It may write below /tmp only, where there is room for the ``rebuilt`` bytes of its model,
    and has no privileges. With GPUs it scores on them, unless its variables name other
    providers.
    """
    bindings = {f"{SCORING_PORT}/tcp": [{"HostPort": str(settings.port)}]}
    host = {"PortBindings": bindings, **confined(rebuilt)}
    made = _module(name, image, version, settings, {"HostConfig": host})
    if not settings.gpu:
        return made
    return replace(made, env={"MLPACK_PROVIDERS": "cuda,cpu", **settings.env})


def edge_module(name: str, settings: EdgeModuleSettings) -> Module:
    """Return a module of ``[edge.modules]``, which runs next to the release's.

    Its secret variables are placeholders: :func:`mlpack.iotedge.secrets.with_values` fills them in.
    """
    made = _module(name, settings.image, settings.version, settings, {})
    secret = {key: each.placeholder for key, each in settings.secret_env.items()}
    return replace(made, env={**made.env, **secret})


def _module(
    name: str,
    image: Reference | str,
    version: str,
    settings: ContainerSettings,
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


def _options(settings: ContainerSettings) -> dict[str, object]:
    """Write the settings in the engine's terms."""
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
        host |= gpus(settings.gpu)
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


def _merged(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Return ``below`` with everything of ``above`` put over it, object by object."""
    both = dict(below)
    for key, value in above.items():
        there = both.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            value = _merged(there, value)
        both[key] = value
    return both
