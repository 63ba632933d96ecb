"""A deployment manifest as a Compose file: its modules as services of one machine's Docker.

Services keep the modules' names, start in the manifest's order, and share one network in which
they find each other by name. Members of Docker's ``ContainerCreate`` request are renamed, and
those without an equivalent refused, so that no setting is lost silently. Compose itself checks the
types of values. Members Docker does not know have no effect on devices either, and are left out.

Sources: Docker Engine API 1.41 to 1.51, the Compose Specification (``05-services.md``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from mlpack.iotedge.checks import require_valid
from mlpack.iotedge.local import LocalModule, Skipped, read_local
from mlpack.iotedge.manifest import CONFIG, HOST_CONFIG, InvalidDeployment, Problem
from mlpack.iotedge.secrets import Passwords
from mlpack.oci.descriptor import InvalidContent, Node
from mlpack.render.yaml_text import dump

_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_READ_ELSEWHERE = {"Image", "HostConfig", "NetworkingConfig", "NetworkMode", "Env", "RestartPolicy"}
_NO_EFFECT = {"AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce", "ConsoleSize"}
"""Members without effect on a container that runs in the background."""

_RENAMED = dict(
    pair.split("=")
    for pair in """
    Annotations=annotations CapAdd=cap_add CapDrop=cap_drop CgroupParent=cgroup_parent
    CgroupnsMode=cgroup CpuPeriod=cpu_period CpuQuota=cpu_quota CpuShares=cpu_shares
    CpusetCpus=cpuset DeviceCgroupRules=device_cgroup_rules Dns=dns DnsOptions=dns_opt
    DnsSearch=dns_search Domainname=domainname ExtraHosts=extra_hosts GroupAdd=group_add
    Hostname=hostname Init=init IpcMode=ipc MacAddress=mac_address
    Memory=mem_limit MemoryReservation=mem_reservation MemorySwap=memswap_limit
    OomKillDisable=oom_kill_disable OomScoreAdj=oom_score_adj OpenStdin=stdin_open PidMode=pid
    PidsLimit=pids_limit Privileged=privileged ReadonlyRootfs=read_only Runtime=runtime
    SecurityOpt=security_opt ShmSize=shm_size StopSignal=stop_signal StorageOpt=storage_opt
    Sysctls=sysctls Tty=tty UTSMode=uts User=user UsernsMode=userns_mode WorkingDir=working_dir
    """.split()  # noqa: SIM905  (a list of one a line is 50 lines)
)
_INNER = {
    **{"BindOptions": "bind", "VolumeOptions": "volume", "TmpfsOptions": "tmpfs"},
    **{"NoCopy": "nocopy", "SizeBytes": "size", "CreateMountpoint": "create_host_path"},
    **{"DeviceIDs": "device_ids"},
}
"""Names inside mounts and device requests whose words Compose does not join by underscores."""


def service_members(options: Node) -> dict[str, object]:
    """Return the members of a service that express ``options``."""
    found: dict[str, object] = {}
    host = options.get("HostConfig")
    for node, known in ((options, CONFIG), (host, HOST_CONFIG)):
        for key, value in node.items() if node else ():
            if key not in known - _READ_ELSEWHERE - _NO_EFFECT or _is_default(key, value.value):
                continue
            if key in _RENAMED:
                found[_RENAMED[key]] = value.value
            elif key in _CONVERTED:
                name, convert = _CONVERTED[key]
                before, now = found.get(name, []), convert(value)
                found[name] = [*before, *now] if name == "volumes" else now  # type: ignore[misc]
            else:
                raise InvalidContent(value.where, "has no equivalent in Docker Compose")
    devices = found.pop("deploy", None)
    if devices:  # Compose refuses two different values of the reserved memory
        memory = found.get("mem_reservation")
        reserved = {"devices": devices, **({"memory": str(memory)} if memory else {})}
        found["deploy"] = {"resources": {"reservations": reserved}}
    return found


def _is_default(key: str, value: object) -> bool:
    counts = key in ("StopTimeout", "MemorySwappiness")  # where 0 is a setting
    return value is None or value in ("", [], {}) or (value in (0, False) and not counts)


def named_volumes(service: Mapping[str, object]) -> list[str]:
    """Return the volumes with names that a service mounts."""
    listed = service.get("volumes")
    sources = [
        each.partition(":")[0] if isinstance(each, str) else each.get("source", "/")
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, str) or each.get("type") == "volume"
    ]
    return [each for each in sources if not each.startswith("/")]


def _ports(node: Node) -> list[dict[str, object]]:
    return [
        {"target": int(port), **({"protocol": protocol} if protocol else {}), **_binding(each)}
        for inside, listed in node.items()
        for port, _, protocol in (inside.partition("/"),)
        for each in listed.elements()
    ]


def _binding(node: Node) -> dict[str, object]:
    port, address = node.mapping().get("HostPort"), node.mapping().get("HostIp")
    published = {} if port in (None, "", "0", 0) else {"published": str(port)}
    return {**published, **({"host_ip": address} if address else {})}


def _binds(node: Node) -> list[object]:
    """Return ``SOURCE:TARGET[:OPTIONS]`` as it is; raise for a relative path, as Docker does."""
    for each in node.elements():
        source = each.text().partition(":")[0]
        if not source.startswith("/") and not _VOLUME.fullmatch(source):
            raise InvalidContent(
                each.where, f"{source!r} is not an absolute path or a volume's name"
            )
    return list(node.texts())


def _mounts(node: Node) -> list[object]:
    found: list[object] = []
    for each in node.elements():
        mount = mapping(_snake(each.mapping()))
        if mount.get("type") == "bind":
            # Docker refuses a source that does not exist; Compose would create it.
            mount = {**mount, "bind": {"create_host_path": False, **mapping(mount.get("bind"))}}
        found.append(mount)
    return found


def _devices(node: Node) -> list[str]:
    found = []
    for each in node.elements():
        host = each.need("PathOnHost").text()
        given = each.mapping()
        parts = (
            host,
            given.get("PathInContainer") or host,
            given.get("CgroupPermissions") or "rwm",
        )
        found.append(":".join(str(part) for part in parts))
    return found


def _device_requests(node: Node) -> list[dict[str, object]]:
    found = []
    for each in node.elements():
        request = {**mapping(_snake(each.mapping()))}
        request |= {"count": "all"} if request.get("count") == -1 else {}
        choices = request.get("capabilities")
        if isinstance(choices, list) and len(choices) == 1:
            request["capabilities"] = choices[0]  # a list of alternatives, of which there is one
        found.append(request)
    return found


def _healthcheck(node: Node) -> dict[str, object]:
    return {
        name: f"{value}ns" if isinstance(value, int) and name != "retries" else value
        for name, value in mapping(_snake(node.mapping())).items()
    }


def _ulimits(node: Node) -> dict[str, object]:
    return {
        each.need("Name").text(): {"soft": each.need("Soft").value, "hard": each.need("Hard").value}
        for each in node.elements()
    }


def _words(node: Node) -> list[str]:
    """A command: Docker takes one text for a list of one, Compose for words to split."""
    return [node.value] if isinstance(node.value, str) else list(node.texts())


def _tmpfs(node: Node) -> list[str]:
    return [f"{path}:{options}" if options else path for path, options in node.text_map().items()]


def _logging(node: Node) -> dict[str, object]:
    return {"driver": node.need("Type").text(), "options": node.mapping().get("Config") or {}}


def _cpus(node: Node) -> float:
    return node.integer() / 10**9


_CONVERTED: Mapping[str, tuple[str, Callable[[Node], object]]] = {
    "Binds": ("volumes", _binds),
    "Cmd": ("command", _words),
    "DeviceRequests": ("deploy", _device_requests),
    "Devices": ("devices", _devices),
    "Entrypoint": ("entrypoint", _words),
    "ExposedPorts": ("expose", lambda node: list(node.mapping())),
    "Healthcheck": ("healthcheck", _healthcheck),
    "Labels": ("labels", Node.text_map),
    "LogConfig": ("logging", _logging),
    "Mounts": ("volumes", _mounts),
    "NanoCPUs": ("cpus", _cpus),
    "NanoCpus": ("cpus", _cpus),
    "PortBindings": ("ports", _ports),
    "StopTimeout": ("stop_grace_period", lambda node: f"{node.integer()}s"),
    "Tmpfs": ("tmpfs", _tmpfs),
    "Ulimits": ("ulimits", _ulimits),
    "Volumes": (
        "volumes",
        lambda node: [{"type": "volume", "target": path} for path in node.mapping()],
    ),
}


def _snake(value: object) -> object:
    """Write the names of members as Compose does, leaving out those with default values."""
    if not isinstance(value, dict):
        return value
    return {
        _INNER.get(key) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower(): _snake(each)
        for key, each in value.items()
        if not _is_default(key, each)
    }


def mapping(value: object) -> Mapping[str, object]:
    """Return ``value`` if it is a mapping, or an empty one."""
    return value if isinstance(value, dict) else {}


HOST = "host"
DEPLOYMENT = "io.mlpack.up"
"""The label with the path of the manifest a container was made from."""

SCORING_PORT = 5001
PORT = "MLPACK_PORT"
"""The variable that has a release listen on another port than :data:`SCORING_PORT`."""

_DEFAULT = "default"
_OWN = ("", _DEFAULT, "azure-iot-edge")
"""Networks that stand for the project's own; the last is the one of devices."""

_MODES = ("none", "bridge", "container:", HOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeProject:
    """All that a Compose file says besides the modules."""

    name: str
    images: Mapping[str, str] = field(default_factory=dict)
    """The daemon's names of images, by module; others have the image of their manifest."""

    releases: frozenset[str] = frozenset()
    """The modules that are releases of mlpack, which answer over HTTP."""

    labels: Mapping[str, str] = field(default_factory=dict)
    on_host: bool = False
    """Whether modules share the host's network instead of one of their own."""


def compose_file(manifest: str, name: str) -> tuple[str, tuple[Skipped, ...]]:
    """Return the Compose file of a manifest, and the parts of the manifest that are left out.

    Raises ``InvalidDeployment``, also for settings that Compose cannot express, or
    ``NothingToRun``.
    """
    local = read_local(require_valid(manifest.encode(), Passwords.HERE))
    return compose_text(local.modules, ComposeProject(name=name)), local.skipped


def compose_text(modules: Sequence[LocalModule], project: ComposeProject) -> str:
    """Return the Compose file as YAML; the same modules give the same bytes.

    Raises ``InvalidDeployment`` naming every setting that Compose cannot express.
    """
    document = compose_document(modules, project)
    return dump([{key: _escape(value) for key, value in document.items()}])


def compose_document(modules: Sequence[LocalModule], project: ComposeProject) -> dict[str, object]:
    """Return the Compose file as a document, its ``$`` not yet escaped."""
    services: dict[str, dict[str, object]] = {}
    problems = []
    earlier: Sequence[str] = ()
    ordered = sorted(modules, key=lambda each: each.order)
    for _, level in groupby(ordered, key=lambda each: each.order):
        started = {name: {"condition": "service_started"} for name in earlier}
        earlier = []
        for each in level:
            earlier = [*earlier, each.name]
            try:
                made = _service(each, project, [module.name for module in modules])
                services[each.name] = {**made, **({"depends_on": started} if started else {})}
            except InvalidContent as error:
                problems.append(Problem(error.where, error.problem))
    if problems:
        raise InvalidDeployment(problems)
    networks = {
        name: {"name": project.name} if name == _DEFAULT else {"external": True}
        for each in services.values()
        if "network_mode" not in each
        for name in mapping(each.get("networks", {_DEFAULT: None}))
    }
    volumes = {name: {"name": name} for each in services.values() for name in named_volumes(each)}
    shared = {"networks": networks, "volumes": volumes}
    return {"name": project.name, "services": services, **{k: v for k, v in shared.items() if v}}


def host_ports(module: LocalModule, project: ComposeProject) -> tuple[int, ...]:
    """Return the TCP ports a module listens on in the host's network; none in any other network.

    A release listens where the manifest publishes its port, others on the ports inside.
    """
    options = Node(module.options, module.where)
    host, mode = options.get("HostConfig"), _network_mode(options)
    if not (mode == HOST or (project.on_host and mode in _OWN)):
        return ()
    bound = host.get("PortBindings") if host else None
    if module.name in project.releases:
        port = module.env.get(PORT) or (_published(bound) if mode != HOST else "")
        return (int(port) if port.isdecimal() else SCORING_PORT,)
    exposed = options.get("ExposedPorts")
    named = (*(bound.mapping() if bound else ()), *(exposed.mapping() if exposed else ()))
    ports = (each.partition("/") for each in named)
    return tuple(sorted({int(port) for port, _, protocol in ports if protocol != "udp"}))


def _service(
    module: LocalModule, project: ComposeProject, names: Sequence[str]
) -> dict[str, object]:
    options = Node(module.options, module.where)
    members = service_members(options)
    found: dict[str, object] = {
        "container_name": module.name,
        "image": project.images.get(module.name, module.image),
        "pull_policy": "missing" if module.pull else "never",
        "restart": module.restart,
        "environment": dict(module.env),
        **members,
        "labels": {**mapping(members.get("labels")), **project.labels},
    }
    mode = _network_mode(options)
    if project.on_host and mode in _OWN:
        # No port is published there, and modules find each other at the loopback address.
        published = found.pop("ports", None)
        found.pop("expose", None)
        known = members.get("extra_hosts")
        hosts = [*(known if isinstance(known, list) else ()), *(f"{n}:127.0.0.1" for n in names)]
        found |= {"network_mode": HOST, "extra_hosts": hosts}
        if module.name in project.releases and published:
            found["environment"] = {PORT: str(host_ports(module, project)[0]), **module.env}
    elif mode.startswith(_MODES):
        found["network_mode"] = mode
    elif (networks := _networks(options, mode)) != {_DEFAULT: None}:
        found["networks"] = networks
    return {name: value for name, value in found.items() if value != {}}


def _network_mode(options: Node) -> str:
    host = options.get("HostConfig")
    mode = host.get("NetworkMode") if host else None
    return mode.text() if mode else ""


def _networks(options: Node, mode: str) -> dict[str, object]:
    networking = options.get("NetworkingConfig")
    ends = networking.get("EndpointsConfig") if networking else None
    found: dict[str, object] = {}
    for name, end in ends.items() if ends else ():
        aliases = end.get("Aliases") if end.value else None
        found[_DEFAULT if name in _OWN else name] = (
            {"aliases": list(aliases.texts())} if aliases else None
        )
    found.setdefault(_DEFAULT if mode in _OWN else mode, None)
    return found


def _published(bindings: Node | None) -> str:
    """Return the port of the host at which a release's port is published; empty if at none."""
    for key in (f"{SCORING_PORT}/tcp", str(SCORING_PORT)):
        listed = bindings.get(key) if bindings else None
        for each in listed.elements() if listed else ():
            port = str(each.mapping().get("HostPort", ""))
            if port.isdecimal():
                return port
    return ""


def _escape(value: object) -> object:
    """Write ``$`` twice in every text, which Compose would replace by a variable."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escape(each) for key, each in value.items()}
    return [_escape(each) for each in value] if isinstance(value, list) else value
