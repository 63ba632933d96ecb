"""A deployment as a value, and its text: ``deployment.json`` from a Jinja template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mlpack.errors import MlpackError
from mlpack.oci.reference import Reference
from mlpack.render import container
from mlpack.render.iotedge import create_options
from mlpack.render.iotedge.routes import Route
from mlpack.render.iotedge.validate import require_valid

SYSTEM_VERSION = "1.6.1"
"""IoT Edge 1.6 is the long-term release (serviced to 2028-11-14; Azure/iotedge CHANGELOG,
2026-08-21). A full version, because a rolling tag fetched again costs bytes."""


SCORING_PORT = 5001
"""Where the runtime in a release listens, as Azure ML's inference server does."""


class UnpinnedImage(MlpackError, ValueError):
    """A module names a tag; tags move, and edgeAgent does nothing when one does."""

    hint = "name the image by its digest: registry/repository@sha256:…"


class InvalidTemplate(MlpackError):
    """A template that cannot be filled in, or does not give JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module of a deployment."""

    name: str
    image: Reference
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
        if self.image.digest is None:
            raise UnpinnedImage(f"{self.name}: {self.image} is not pinned to a digest")

    @property
    def settings(self) -> dict[str, str]:
        """The module's ``settings``: its image, and its options in as many members as they need."""
        # edgeAgent refuses repository:tag@sha256:…, so a tag beside the digest is dropped.
        return {"image": str(replace(self.image, tag="")), **create_options.split(self.options)}

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What the template is filled in with."""

    modules: tuple[Module, ...]
    routes: Mapping[str, Route] = field(default_factory=dict)
    system_version: str = SYSTEM_VERSION
    agent_env: Mapping[str, str] = field(default_factory=dict)
    """Set over the template's own variables of edgeAgent."""

    hub_env: Mapping[str, str] = field(default_factory=dict)
    message_seconds: int = 7200
    """How long edgeHub keeps messages while there is no connection."""


def model_module(
    name: str,
    image: Reference,
    *,
    version: str,
    port: int,
    env: Mapping[str, str],
    gpus: int = 0,
) -> Module:
    """The module that runs a release, reachable at ``port`` of the device.

    It may write below /tmp alone, and has no privileges. With ``gpus`` (all of the
    device's where that is -1) it scores on them, as long as ``env`` names no other providers.
    """
    bindings = {f"{SCORING_PORT}/tcp": [{"HostPort": str(port)}]}
    host = {"PortBindings": bindings, **container.confined()}
    if gpus:
        host |= container.gpus(gpus)
        env = {"MLPACK_PROVIDERS": "cuda,cpu", **env}
    return Module(
        name=name,
        image=image,
        version=version,
        options={"HostConfig": host},
        env=env,
    )


def render(deployment: Deployment, template: str) -> str:
    """Fill in ``template``; the result is indented JSON that passed every check.

    Raises :class:`InvalidTemplate` where the template is at fault and
    ``InvalidDeployment`` where a device would refuse what it gives.
    """
    filled = _fill(template, deployment)
    try:
        document = json.loads(filled)
    except ValueError as error:
        raise InvalidTemplate(f"the deployment template does not give JSON: {error}") from error
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    require_valid(text.encode())
    return text


def _fill(template: str, deployment: Deployment) -> str:
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - the text is JSON; tojson quotes every value
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Jinja's own tojson writes <, > and ' as \\u003c for HTML, which hides routes from a reader.
    environment.filters["tojson"] = lambda value: json.dumps(
        value, ensure_ascii=False, separators=(",", ":")
    )
    environment.filters["environment"] = lambda env: {
        name: {"value": value} for name, value in env.items()
    }
    try:
        return environment.from_string(template).render(deployment=deployment)
    except jinja2.TemplateError as error:
        line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise InvalidTemplate(f"the deployment template cannot be filled in: {error}{line}") from (
            error
        )
