"""A whole deployment as a value, and its text: ``deployment.json`` from mlpack's template.

A layered deployment is the modules and routes of a whole one, over a device's base deployment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError
from mlpack.iotedge.checks import require_valid
from mlpack.iotedge.manifest import (
    AGENT,
    CONTENT,
    DESIRED,
    HUB,
    InvalidDeployment,
    InvalidRoute,
    Problem,
    Route,
    parse_route,
)
from mlpack.iotedge.module import CREATE_OPTIONS, Module, split_options
from mlpack.settings.edge import KEEP_SECONDS, SCHEMA, SYSTEM_VERSION, EdgeSettings, RegistryLogin

if TYPE_CHECKING:
    from jinja2 import Environment

_FAULTS = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
"""What an expression of a template may raise: ``{{ 1 / 0 }}``."""

DEFAULT_TIMEOUT_SECONDS = 300
"""How long edgeAgent waits for one answer of the daemon (Azure/iotedge, edgeAgent's
ManagementApiTimeoutSecs); a pull is one such answer."""

MAX_TIMEOUT_SECONDS = 7 * 24 * 3600
_SLACK = 2
"""A link is not always as fast as configured, and other traffic shares it."""

_PORTS = ("443", "5671", "8883")


class InvalidTemplate(MlpackError):
    """A template that cannot be filled in, or does not result in JSON."""


def system_image(module: str, version: str = SYSTEM_VERSION) -> str:
    """Return Microsoft's own image of a system module.

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
    """The values that the template is filled in with."""

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
    """ManagementApiTimeoutSecs; 0 for edgeAgent's own."""

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
        """The same without modules and routes: the base of layered deployments."""
        return replace(self, modules=(), routes={})


def _settings(image: str, options: Mapping[str, object]) -> dict[str, str]:
    written = split_options(options) if options else {CREATE_OPTIONS: ""}
    return {"image": image, **written}


def deployment(
    edge: EdgeSettings,
    modules: Iterable[Module],
    routes: Mapping[str, Route],
    *,
    timeout_seconds: int = 0,
) -> Deployment:
    """Return a deployment of ``modules`` with the rest from ``[edge]``."""
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


def edge_routes(edge: EdgeSettings, module: str) -> Mapping[str, Route]:
    """Return the routes of ``[edge]``; by default one from ``module`` to IoT Hub.

    Raises :class:`InvalidDeployment` naming the route that cannot be read.
    """
    if edge.routes is None:
        return {f"{module}ToIoTHub": Route(("messages", "modules", module, "outputs", "*"))}
    found = {}
    for name, each in edge.routes.items():
        try:
            route = parse_route(each.route)
        except InvalidRoute as error:
            raise InvalidDeployment([Problem(f"edge.routes.{name}", str(error))]) from error
        found[name] = replace(route, priority=each.priority, seconds=each.keep_seconds)
    return found


def timeout_seconds(image_bytes: int, bytes_per_second: int) -> int:
    """ManagementApiTimeoutSecs for an image of ``image_bytes`` over a link; 0 for the default.

    edgeAgent gives up on a pull after 300 seconds; Docker then discards what it has, and the
    next try starts from the beginning, for the same money.

    >>> timeout_seconds(45_000_000, 8_000), timeout_seconds(500_000, 8_000)
    (11280, 0)
    """
    if not bytes_per_second:
        return 0
    minutes = -(-_SLACK * image_bytes // (bytes_per_second * 60))
    seconds = min(60 * minutes, MAX_TIMEOUT_SECONDS)
    return seconds if seconds > DEFAULT_TIMEOUT_SECONDS else 0


def layered(whole: Deployment) -> dict[str, dict[str, object]]:
    """Return the ``modulesContent`` that adds the modules of ``whole`` to what a device runs.

    It holds paths below one name each of ``$edgeAgent`` and ``$edgeHub``, so that the base
    deployment, which has a lower priority, keeps all others. Raises ``InvalidDeployment`` if
    a device would refuse it.
    """
    modules, routes = whole.modules, whole.routes
    content: dict[str, dict[str, object]] = {
        AGENT: {f"{DESIRED}.modules.{each.name}": each.entry for each in modules}
    }
    if routes:
        content[HUB] = {f"{DESIRED}.routes.{name}": each.entry for name, each in routes.items()}
    content |= {each.name: {DESIRED: dict(each.twin)} for each in modules if each.twin}
    require_valid(json.dumps({CONTENT: content}).encode())
    return content


def render_jinja(template: str, values: Mapping[str, object]) -> str:
    """Fill in a Jinja template; raise :class:`InvalidTemplate`, with the line if it is known.

    A template comes from a file, so it gets Jinja's sandbox: values, and no Python.
    """
    import jinja2

    try:
        return _environment().from_string(template).render(values)
    except (jinja2.TemplateError, *_FAULTS) as error:
        line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise InvalidTemplate(f"the deployment template cannot be filled in: {error}{line}") from (
            error
        )


def _environment() -> Environment:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.DictLoader({}),  # nothing to include
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Jinja's own tojson writes <, > and ' as \\u003c for HTML, which hides routes from a reader.
    environment.filters["tojson"] = lambda value: json.dumps(
        value, ensure_ascii=False, separators=(",", ":")
    )
    environment.filters["environment"] = lambda env: {
        name: {"value": value} for name, value in env.items()
    }
    return environment


def render(deployment: Deployment, template: str) -> str:
    """Fill in mlpack's own ``template``; return indented JSON that passed every check.

    Raises :class:`InvalidTemplate` if the template is at fault and ``InvalidDeployment`` if a
    device would refuse the result.
    """
    filled = render_jinja(template, {"deployment": deployment})
    try:
        document = json.loads(filled)
    except ValueError as error:
        raise InvalidTemplate(f"the deployment template does not result in JSON: {error}") from (
            error
        )
    text = dump(document)
    require_valid(text.encode())
    return text


def dump(document: object) -> str:
    """Return a manifest's text as mlpack writes it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
