"""``mlpack render``: the IoT Edge deployment manifest of a release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlpack.errors import MlpackError
from mlpack.model.edge import ModuleRecipe
from mlpack.oci.descriptor import Platform
from mlpack.oci.reference import Reference
from mlpack.render import container
from mlpack.render.iotedge.deployment import Deployment
from mlpack.render.iotedge.deployment import render as render_deployment
from mlpack.render.iotedge.module import model_module
from mlpack.render.iotedge.routes import Route
from mlpack.stores.project import Project
from mlpack.stores.references import find_image
from mlpack.stores.templates import read_template

TEMPLATE = "iotedge/deployment.json.j2"


class NoRepository(MlpackError):
    """A release whose place in a registry is not said anywhere."""

    hint = 'add repository = "registry.example.com/team/model" under [image] in mlpack.toml, '
    hint += "or name it with --repository"


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A manifest, and the release it is for."""

    name: str
    version: str
    module: str
    image: Reference
    text: str

    def to_json(self) -> Mapping[str, object]:
        """What ``mlpack --json render`` prints."""
        return {
            "name": self.name,
            "version": self.version,
            "module": self.module,
            "image": str(self.image),
            "deployment": json.loads(self.text),
        }


def render(
    project: Project,
    release: str,
    *,
    repository: Reference | None = None,
    platform: Platform | None = None,
) -> Rendered:
    """Render the manifest of ``release``, checked.

    ``release`` is ``NAME[:VERSION]``, or what ``mlpack build`` prints: ``NAME@DIGEST``
    or ``REPOSITORY@DIGEST``. The image is the release's index, so that one deployment
    fits devices of every platform it was built for; with ``platform`` it is that
    platform's image alone, which saves each device the request for the index.
    """
    found = find_image(project, release, platform)
    name, version = found.release
    place = repository or _place(release) or project.recipe.repository
    if place is None:
        raise NoRepository(f"it is not said where devices fetch {name!r} from")
    image = place.pinned(found.image.digest if platform else found.target.digest)
    module = module_name(project.recipe.module, name)
    settings = project.recipe.module
    if not settings.gpu and container.wants_gpu(found.image):
        settings = replace(settings, gpu=container.ALL)
    deployment = _deployment(module, image, version, settings)
    text = render_deployment(deployment, read_template(TEMPLATE))
    return Rendered(name=name, version=version, module=module, image=image, text=text)


def _place(release: str) -> Reference | None:
    """The repository in what ``mlpack build`` printed, where there is one."""
    before, at, _ = release.partition("@")
    return Reference.parse(before) if at and "/" in before else None


def module_name(settings: ModuleRecipe, model: str) -> str:
    """The module's id: as set, or the model's name without the dots a module id cannot have.

    >>> module_name(ModuleRecipe(), "fan.v2")
    'fan-v2'
    """
    return settings.name or model.replace(".", "-")


def _deployment(module: str, image: Reference, version: str, settings: ModuleRecipe) -> Deployment:
    return Deployment(
        modules=(model_module(module, image, version=version, settings=settings),),
        routes={f"{module}ToIoTHub": Route(("messages", "modules", module, "outputs", "*"))},
    )
