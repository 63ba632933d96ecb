"""What is in a group's deployments: a release's layered one, and the base deployment below it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from mlpack.model.recipe import BASE, InvalidRecipe, Recipe
from mlpack.oci.document import Node
from mlpack.oci.image import Image
from mlpack.oci.reference import Reference
from mlpack.render.container import ALL, wants_gpu
from mlpack.render.iotedge.deployment import (
    Deployment,
    deployment,
    dump,
    edge_routes,
    render,
    timeout_seconds,
)
from mlpack.render.iotedge.layered import layered
from mlpack.render.iotedge.manifest import CONTENT
from mlpack.render.iotedge.module import edge_module, model_module
from mlpack.render.iotedge.placeholders import Variables, fill_logins, with_login
from mlpack.render.iotedge.secrets import Passwords
from mlpack.render.iotedge.validate import require_valid
from mlpack.stores.base import images
from mlpack.stores.project import Project
from mlpack.stores.references import Found, find_image, rebuilt_bytes
from mlpack.stores.templates import read_template

TEMPLATE = "iotedge/deployment.json.j2"


def release_deployment(
    recipe: Recipe,
    module: str,
    image: Reference,
    version: str,
    *,
    gpu: bool = False,
    rebuilt: int = 0,
    timeout: int = 0,
) -> Deployment:
    """All a device runs with a release on it, the release's module first.

    ``gpu``: the release scores on graphics processors, and gets them where the settings
    do not say how many. ``rebuilt``: bytes it rebuilds below /tmp. ``timeout``: what
    :func:`timeout_seconds` says.
    """
    if module in recipe.edge.modules:
        raise InvalidRecipe(
            f"[edge.modules.{module}] is the module of the release",
            hint="what it is told stands under [module]; its image is the release's",
        )
    settings = recipe.module
    if gpu and not settings.gpu:
        settings = replace(settings, gpu=ALL)
    beside = (edge_module(name, each) for name, each in recipe.edge.modules.items())
    return deployment(
        recipe.edge,
        (model_module(module, image, version=version, settings=settings, rebuilt=rebuilt), *beside),
        edge_routes(recipe.edge, module),
        timeout_seconds=timeout,
    )


def layered_content(whole: Deployment) -> Mapping[str, object]:
    """The ``modulesContent`` of the layered deployment with the modules and routes of a whole."""
    first, *beside = whole.modules
    return layered(first, whole.routes, beside)


def release_content(
    project: Project, module: str, image: Reference, release: Found
) -> Mapping[str, object]:
    """The ``modulesContent`` of a release: its module, those beside it, and their routes."""
    return layered_content(
        release_deployment(
            project.recipe,
            module,
            image,
            release.release[1],
            gpu=wants_gpu(release.image),
            rebuilt=rebuilt_bytes(release),
        )
    )


def base_content(
    project: Project, bytes_per_second: int = 0, environment: Mapping[str, str] | None = None
) -> Mapping[str, object]:
    """The ``modulesContent`` of a base deployment to send: IoT Edge's own modules, no release.

    ``bytes_per_second`` is the devices' link, 0 where it is not known: edgeAgent is told to
    wait for a pull of the base image. A release's bytes are left out, because a deployment's
    content cannot change, and this one stays from release to release; twice the base's time
    has room for a model's layer. Passwords of registries are taken from ``environment``; one
    that is not there is refused.
    """
    filled = with_passwords(project, base_text(project, bytes_per_second), environment or {})
    require_valid(filled.encode(), Passwords.CLEAR)
    return Node(json.loads(filled), "deployment").need(CONTENT).mapping()


def base_text(project: Project, bytes_per_second: int = 0) -> str:
    """The manifest of :func:`base_content`, its passwords still variables."""
    timeout = 0
    if bytes_per_second and project.has_lock:
        base = find_image(project, BASE)
        timeout = pull_timeout(images(base.store, base.target), bytes_per_second)
    whole = deployment(project.recipe.edge, (), {}, timeout_seconds=timeout)
    return render(whole, read_template(TEMPLATE))


def with_passwords(project: Project, text: str, environment: Mapping[str, str]) -> str:
    """A whole manifest with what its registries ask for, as ``environment`` says; it is private.

    The registry of ``[image] repository`` gets its login from ``MLPACK_REGISTRY_USERNAME`` and
    ``MLPACK_REGISTRY_PASSWORD`` where ``[edge.registries]`` names none.
    """
    variables = Variables(module="", image=None, environment=environment, passwords=True)
    document = json.loads(text)
    if project.recipe.repository is not None:
        document = with_login(document, project.recipe.repository.registry, variables)
    return dump(fill_logins(document, variables))


def pull_timeout(platforms: Iterable[Image], bytes_per_second: int) -> int:
    """The time edgeAgent has to give a pull of the largest of an image's platforms."""
    largest = max((sum(layer.size for layer in each.layers) for each in platforms), default=0)
    return timeout_seconds(largest, bytes_per_second)
