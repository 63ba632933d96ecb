"""``--target aci``: a container group of Azure Container Instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlpack.api.deployment_content import pinned_release
from mlpack.api.render import Rendered, rendered_objects
from mlpack.api.requests import Render
from mlpack.errors import MlpackError, UsageError
from mlpack.iotedge.module import ALL, wants_gpu
from mlpack.oci.reference import registry_of
from mlpack.project.directory import ProjectDirectory
from mlpack.render import aci
from mlpack.render.kubernetes import left_out, require_open
from mlpack.settings.edge import RegistryLogin
from mlpack.stores.store import images


def render(project: ProjectDirectory, request: Render, environment: Mapping[str, str]) -> Rendered:
    """Return the container group that runs a release in Azure, checked."""
    recipe = project.settings
    release = pinned_release(project, request)
    found, image = release.found, release.image
    require_open(recipe.module)
    built = [found.image] if request.platform else images(found.store, found.target)
    if not any(each.platform.architecture == "amd64" for each in built):
        raise MlpackError(
            f"{release.name}:{release.version} is not built for linux/amd64, which Azure "
            "Container Instances runs",
            hint="add it to [base] platforms",
        )
    settings = recipe.module
    if wants_gpu(found.image):
        settings = replace(settings, gpu=ALL)
    logins = recipe.edge.registries.values()
    login = next((each for each in logins if registry_of(each.address) == image.registry), None)
    if login and request.secret:
        login = _filled(login, environment)
    group = aci.ContainerGroup(
        module=release.module,
        image=image,
        model=release.name,
        version=release.version,
        settings=settings,
        place=recipe.aci,
        login=login,
    )
    warnings = [each for each in left_out(settings) if "gpu" not in each]
    if not recipe.aci.subnet:
        warnings.append("anyone can reach it: set [aci] subnet for a private address")
    return rendered_objects(
        request,
        release,
        (aci.group(group),),
        warnings=tuple(warnings),
        private=bool(login and request.secret and not recipe.aci.identity),
    )


def _filled(login: RegistryLogin, environment: Mapping[str, str]) -> RegistryLogin:
    name = login.password.removeprefix("${").removesuffix("}")
    if not environment.get(name):
        raise UsageError(
            f"{name} is not set in the environment", hint="set it, or leave --with-secrets out"
        )
    return replace(login, password=environment[name])
