"""What is in a group's deployments: a release's layered one, and the base deployment below it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlpack.api.render import TEMPLATE
from mlpack.oci.reference import Reference
from mlpack.render.iotedge.deployment import deployment, edge_routes, render
from mlpack.render.iotedge.layered import layered
from mlpack.render.iotedge.module import model_module
from mlpack.stores.project import Project
from mlpack.stores.templates import read_template


def release_content(
    project: Project, module: str, image: Reference, version: str
) -> Mapping[str, object]:
    """The ``modulesContent`` of a release: its module, and the way of its messages to the hub."""
    recipe = project.recipe
    made = model_module(module, image, version=version, settings=recipe.module)
    return layered(made, edge_routes(recipe.edge, module))


def base_content(project: Project) -> Mapping[str, object]:
    """The ``modulesContent`` of a base deployment: IoT Edge's own modules, and no release."""
    whole = deployment(project.recipe.edge, (), {}).base
    return dict(json.loads(render(whole, read_template(TEMPLATE)))["modulesContent"])
