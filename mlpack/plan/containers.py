"""The container that a module of a deployment shall be on one Docker engine, without a device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mlpack.oci.digest import Digest
from mlpack.oci.document import canonical

DEPLOYMENT = "io.mlpack.up"
"""The label that says which deployment a container is of: the path of its manifest."""

MODULE, ORDER, SPEC = (f"{DEPLOYMENT}.{each}" for each in ("module", "order", "spec"))
HOST = "host"
DEVICE_NETWORK = "azure-iot-edge"
"""The network of devices: a module that names it gets the deployment's own."""

_OWN = frozenset({"", "default", DEVICE_NETWORK})
SCORING_PORT = 5001
PORT = "MLPACK_PORT"
"""What tells a release to listen elsewhere than on :data:`SCORING_PORT`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModule:
    """A module as its manifest wants it."""

    name: str
    image: str
    """As written in the manifest."""

    options: Mapping[str, object]
    """Docker's ``ContainerCreate`` request, with the module's variables and restart policy."""

    order: int
    running: bool = True
    """Whether it is started; else it is made only (status ``stopped``)."""

    pull: bool = True
    """Whether an engine that lacks the image may pull it."""


@dataclass(frozen=True, slots=True)
class Held:
    """An image an engine has; one that it still has to get has no ``id``."""

    name: str
    id: str = ""
    release: str = ""
    """``NAME:VERSION`` where it is a release, which answers over HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The container a module shall be."""

    module: LocalModule
    image: Held
    config: Mapping[str, object]
    """The whole request."""

    spec: str
    """A digest of all the manifest says: another one needs another container."""

    host_ports: tuple[int, ...] = ()
    """Where it listens on the host's network; empty on others, where ports are published."""


def container(
    deployment: str, module: LocalModule, image: Held, network: str, modules: Collection[str]
) -> Wanted:
    """The container of ``module`` in ``network``, the deployment's own or :data:`HOST`.

    On the host's network all ``modules`` are found by their names at the loopback address,
    and a release listens where the manifest has its port published. A module whose options
    name a network of another kind stays there.
    """
    options = dict(module.options)
    if _network(options) in _OWN:
        on_host = network == HOST
        options = (
            _on_host(options, image, modules)
            if on_host
            else _in_network(options, module.name, network)
        )
    ports = _listens(options, image) if _network(options) == HOST else ()
    labels = {
        **_mapping(options, "Labels"),
        DEPLOYMENT: deployment,
        MODULE: module.name,
        ORDER: str(module.order),
    }
    said = {**options, "Image": module.image, "Labels": labels}
    spec = str(Digest.of(canonical(said)))
    config = {**said, "Image": image.name, "Labels": {**labels, SPEC: spec}}
    return Wanted(module=module, image=image, config=config, spec=spec, host_ports=ports)


def _network(options: Mapping[str, object]) -> object:
    return _mapping(options, "HostConfig").get("NetworkMode") or ""


def _in_network(options: Mapping[str, object], name: str, network: str) -> dict[str, object]:
    """In ``network``, where others find it by its ``name``."""
    networking = _mapping(options, "NetworkingConfig")
    ends = _mapping(networking, "EndpointsConfig")
    end = _mapping(ends, DEVICE_NETWORK)
    ours = {**end, "Aliases": [*_list(end, "Aliases"), name]}
    return {
        **options,
        "HostConfig": {**_mapping(options, "HostConfig"), "NetworkMode": network},
        "NetworkingConfig": {
            **networking,
            "EndpointsConfig": {**_without(ends, DEVICE_NETWORK), network: ours},
        },
    }


def _on_host(
    options: Mapping[str, object], image: Held, modules: Collection[str]
) -> dict[str, object]:
    host = _mapping(options, "HostConfig")
    hosts = [*_list(host, "ExtraHosts"), *(f"{name}:127.0.0.1" for name in modules)]
    made: dict[str, object] = {
        **_without(options, "NetworkingConfig"),
        "HostConfig": {**host, "NetworkMode": HOST, "ExtraHosts": hosts},
    }
    published = _published(host, SCORING_PORT)
    if image.release and published and PORT not in _env(options):
        made["Env"] = [*_list(options, "Env"), f"{PORT}={published}"]
    return made


def _listens(options: Mapping[str, object], image: Held) -> tuple[int, ...]:
    """The ports a container on the host's network opens, as far as is known."""
    if image.release:
        said = _env(options).get(PORT, "")
        return (int(said) if said.isdecimal() else SCORING_PORT,)
    bound = _mapping(_mapping(options, "HostConfig"), "PortBindings")
    ports = (each.partition("/") for each in (*bound, *_mapping(options, "ExposedPorts")))
    return tuple(sorted({int(port) for port, _, way in ports if port.isdecimal() and way != "udp"}))


def _published(host: Mapping[str, object], port: int) -> str:
    """The port of the host that ``port`` is published as; empty where it is not."""
    bindings = _mapping(host, "PortBindings")
    for each in (*_list(bindings, f"{port}/tcp"), *_list(bindings, str(port))):
        if isinstance(each, dict) and str(each.get("HostPort", "")).isdecimal():
            return str(each["HostPort"])
    return ""


def _env(options: Mapping[str, object]) -> dict[str, str]:
    pairs = (str(each).partition("=") for each in _list(options, "Env"))
    return {name: value for name, _, value in pairs}


def _mapping(value: Mapping[str, object], key: str) -> dict[str, object]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _list(value: Mapping[str, object], key: str) -> list[object]:
    found = value.get(key)
    return found if isinstance(found, list) else []


def _without(value: Mapping[str, object], key: str) -> dict[str, object]:
    return {name: each for name, each in value.items() if name != key}
