"""``--target azureml``: an online endpoint of Azure ML and its deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlpack.api.deployment_content import pinned_release
from mlpack.api.render import Rendered, rendered_objects
from mlpack.api.requests import Render
from mlpack.errors import MlpackError, UsageError
from mlpack.iotedge.module import ALL, wants_gpu
from mlpack.project.directory import ProjectDirectory
from mlpack.render import azureml
from mlpack.render.kubernetes import require_open
from mlpack.render.yaml_text import dump
from mlpack.stores.store import images

ENDPOINT, DEPLOYMENT = "endpoint.yaml", "deployment.yaml"
INSTANCE_TYPES = "instance-types.yaml"
FILES = (ENDPOINT, DEPLOYMENT, INSTANCE_TYPES)
"""What ``-o DIR`` writes: ``az ml`` takes one object from a file."""


def render(project: ProjectDirectory, request: Render, environment: Mapping[str, str]) -> Rendered:
    """Return the endpoint, the deployment that runs a release, and the instance types, checked."""
    recipe = project.settings
    if request.device_group:
        raise UsageError(
            "--device-group is not for --target azureml: an endpoint has no devices",
            hint="leave it out; [azureml] instance_type says which nodes run the release",
        )
    release = pinned_release(project, request)
    found, settings = release.found, recipe.module
    require_open(
        settings,
        'keep it in a key vault: "${{keyvault:https://VAULT.vault.azure.net/secrets/NAME}}"',
    )
    built = [found.image] if request.platform else images(found.store, found.target)
    if not recipe.azureml.compute and not any(
        each.platform.architecture == "amd64" for each in built
    ):
        raise MlpackError(
            f"{release.name}:{release.version} is not built for linux/amd64, which Azure ML's "
            "managed endpoints run",
            hint="add it to [base] platforms",
        )
    if wants_gpu(found.image) and not settings.gpu:
        settings = replace(settings, gpu=ALL)
    online = azureml.OnlineRelease(
        module=release.module,
        image=release.image,
        model=release.name,
        version=release.version,
        settings=settings,
        place=recipe.azureml,
    )
    files: dict[str, tuple[Mapping[str, object], ...]] = {
        ENDPOINT: (azureml.endpoint(online),),
        DEPLOYMENT: (azureml.deployment(online),),
    }
    if types := tuple(map(azureml.instance_type, recipe.azureml.instance_types.values())):
        files[INSTANCE_TYPES] = types
    made = rendered_objects(
        request,
        release,
        tuple(each for documents in files.values() for each in documents),
        warnings=tuple(azureml.warnings(online)),
    )
    return replace(made, files={name: dump(documents) for name, documents in files.items()})
