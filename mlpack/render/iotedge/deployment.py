"""A whole deployment as a value, and its text: ``deployment.json`` from mlpack's template."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mlpack.model.edge import (
    KEEP_SECONDS,
    SCHEMA,
    SYSTEM_VERSION,
    EdgeRecipe,
    RegistryLogin,
)
from mlpack.render.iotedge import create_options
from mlpack.render.iotedge.module import Module
from mlpack.render.iotedge.problem import InvalidDeployment, Problem
from mlpack.render.iotedge.routes import InvalidRoute, Route, parse_route
from mlpack.render.iotedge.template import InvalidTemplate, render_jinja
from mlpack.render.iotedge.validate import require_valid

DEFAULT_TIMEOUT_SECONDS = 300
"""How long edgeAgent waits for one answer of the daemon (Azure/iotedge, edgeAgent's
ManagementApiTimeoutSecs); a pull is one such answer."""

MAX_TIMEOUT_SECONDS = 7 * 24 * 3600
_SLACK = 2
"""A link is not always as fast as it was said to be, and other traffic shares it."""

_PORTS = ("443", "5671", "8883")


def system_image(module: str, version: str = SYSTEM_VERSION) -> str:
    """Microsoft's own image of a system module.

    >>> system_image("hub", "1.6.1")
    'mcr.microsoft.com/azureiotedge-hub:1.6.1'
    """
    return f"mcr.microsoft.com/azureiotedge-{module}:{version}"


def hub_options() -> dict[str, object]:
    """443, 5671 and 8883: HTTPS, AMQP and MQTT for devices that send through this one."""
    return {
        "HostConfig": {"PortBindings": {f"{port}/tcp": [{"HostPort": port}] for port in _PORTS}}
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What the template is filled in with."""

    modules: tuple[Module, ...]
    routes: Mapping[str, Route] = field(default_factory=dict)
    registries: Mapping[str, RegistryLogin] = field(default_factory=dict)
    agent_image: str = system_image("agent")
    hub_image: str = system_image("hub")
    agent_env: Mapping[str, str] = field(default_factory=dict)
    """Set over the template's own variables of edgeAgent."""

    hub_env: Mapping[str, str] = field(default_factory=dict)
    agent_options: Mapping[str, object] = field(default_factory=dict)
    hub_options: Mapping[str, object] = field(default_factory=hub_options)
    agent_schema: str = SCHEMA
    hub_schema: str = SCHEMA
    timeout_seconds: int = 0
    """ManagementApiTimeoutSecs; 0 where edgeAgent's own will do."""

    message_seconds: int = KEEP_SECONDS
    """How long edgeHub keeps messages while there is no connection."""

    @property
    def agent_settings(self) -> dict[str, str]:
        """edgeAgent's ``settings``."""
        return _settings(self.agent_image, self.agent_options)

    @property
    def hub_settings(self) -> dict[str, str]:
        """edgeHub's ``settings``."""
        return _settings(self.hub_image, self.hub_options)

    @property
    def base(self) -> Deployment:
        """The same without modules and routes: what a layered deployment lies over."""
        return replace(self, modules=(), routes={})


def _settings(image: str, options: Mapping[str, object]) -> dict[str, str]:
    written = create_options.split(options) if options else {create_options.NAME: ""}
    return {"image": image, **written}


def deployment(
    edge: EdgeRecipe,
    modules: Iterable[Module],
    routes: Mapping[str, Route],
    *,
    timeout_seconds: int = 0,
) -> Deployment:
    """A deployment of ``modules`` with the rest as ``[edge]`` says."""
    agent, hub = edge.agent, edge.hub
    return Deployment(
        modules=tuple(modules),
        routes=routes,
        registries=edge.registries,
        agent_image=agent.image or system_image("agent", edge.version),
        hub_image=hub.image or system_image("hub", edge.version),
        agent_env=agent.env,
        hub_env=hub.env,
        agent_options=agent.options or {},
        hub_options=hub_options() if hub.options is None else hub.options,
        agent_schema=agent.schema,
        hub_schema=hub.schema,
        timeout_seconds=timeout_seconds,
        message_seconds=edge.keep_seconds,
    )


def edge_routes(edge: EdgeRecipe, module: str) -> Mapping[str, Route]:
    """The routes ``[edge]`` says; else the one that takes what ``module`` sends to IoT Hub.

    Raises :class:`InvalidDeployment` naming the route that cannot be read.
    """
    if edge.routes is None:
        return {f"{module}ToIoTHub": Route(("messages", "modules", module, "outputs", "*"))}
    found = {}
    for name, said in edge.routes.items():
        try:
            route = parse_route(said.route)
        except InvalidRoute as error:
            raise InvalidDeployment([Problem(f"edge.routes.{name}", str(error))]) from error
        found[name] = replace(route, priority=said.priority, seconds=said.keep_seconds)
    return found


def timeout_seconds(image_bytes: int, bytes_per_second: int) -> int:
    """ManagementApiTimeoutSecs for an image of ``image_bytes`` over a link; 0 for the default.

    edgeAgent gives up on a pull after 300 seconds; Docker then throws away what it has, and
    the next try begins anew, for the same money.

    >>> timeout_seconds(45_000_000, 8_000), timeout_seconds(500_000, 8_000)
    (11280, 0)
    """
    if not bytes_per_second:
        return 0
    minutes = -(-_SLACK * image_bytes // (bytes_per_second * 60))
    seconds = min(60 * minutes, MAX_TIMEOUT_SECONDS)
    return seconds if seconds > DEFAULT_TIMEOUT_SECONDS else 0


def render(deployment: Deployment, template: str) -> str:
    """Fill in mlpack's own ``template``; indented JSON that passed every check.

    Raises :class:`InvalidTemplate` where the template is at fault and
    ``InvalidDeployment`` where a device would refuse what it gives.
    """
    filled = render_jinja(template, {"deployment": deployment})
    try:
        document = json.loads(filled)
    except ValueError as error:
        raise InvalidTemplate(f"the deployment template does not give JSON: {error}") from error
    text = dump(document)
    require_valid(text.encode())
    return text


def dump(document: object) -> str:
    """A manifest's text as mlpack writes it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
