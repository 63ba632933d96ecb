"""What is in a group's deployments: a release's layered one, and the base deployment below it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from mlpack.model.recipe import BASE, Recipe
from mlpack.oci.document import Node
from mlpack.oci.image import Image
from mlpack.model.groups import DeviceGroup
from mlpack.oci.reference import Reference
from mlpack.render.container import ALL
from mlpack.render.iotedge.deployment import (
    Deployment,
    deployment,
    edge_routes,
    render,
    timeout_seconds,
)
from mlpack.render.iotedge.layered import layered
from mlpack.render.iotedge.manifest import CONTENT
from mlpack.render.iotedge.module import edge_module, model_module
from mlpack.render.iotedge.placeholders import Variables, fill_logins
from mlpack.render.iotedge.secrets import Passwords
from mlpack.render.iotedge.validate import require_valid
from mlpack.stores.base import images
from mlpack.stores.project import Project
from mlpack.stores.references import find_image
from mlpack.stores.references import NoSuchImage, find_image
from mlpack.stores.templates import read_template

TEMPLATE = "iotedge/deployment.json.j2"


def release_deployment(
    recipe: Recipe,
    module: str,
    image: Reference,
    version: str,
    *,
    gpu: bool = False,
    timeout: int = 0,
) -> Deployment:
    """All a device runs with a release on it, the release's module first.

    ``gpu``: the release scores on graphics processors, and gets them where the settings
    do not say how many. ``timeout``: what :func:`timeout_seconds` says.
    """
    settings = recipe.module
    if gpu and not settings.gpu:
        settings = replace(settings, gpu=ALL)
    beside = (edge_module(name, each) for name, each in recipe.edge.modules.items())
    return deployment(
        recipe.edge,
        (model_module(module, image, version=version, settings=settings), *beside),
        edge_routes(recipe.edge, module),
        timeout_seconds=timeout,
    )


def layered_content(whole: Deployment) -> Mapping[str, object]:
    """The ``modulesContent`` of the layered deployment with the modules and routes of a whole."""
    first, *beside = whole.modules
    return layered(first, whole.routes, beside)


def release_content(
    project: Project, module: str, image: Reference, version: str, *, gpu: bool = False
) -> Mapping[str, object]:
    """The ``modulesContent`` of a release: its module, those beside it, and their routes."""
    return layered_content(release_deployment(project.recipe, module, image, version, gpu=gpu))


def base_content(project: Project, group: DeviceGroup) -> Mapping[str, object]:
    """The ``modulesContent`` of a base deployment: IoT Edge's own modules, and no release.

    edgeAgent is told to wait as long as the group's link takes for the newest release, whole.
    """
    wait = timeout_seconds(_image_bytes(project), group.link_bytes_per_second)
    whole = deployment(project.recipe.edge, (), {}, timeout_seconds=wait).base
    return dict(json.loads(render(whole, read_template(TEMPLATE)))["modulesContent"])


def _image_bytes(project: Project) -> int:
    """The layers of the newest release; 0 before there is one."""
    try:
        found = find_image(project, project.recipe.model)
    except NoSuchImage:
        return 0
    return sum(layer.size for layer in found.image.layers)
