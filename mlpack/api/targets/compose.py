"""``--target compose``: the Compose file that ``mlpack up`` would write."""

from __future__ import annotations

from collections.abc import Mapping

from mlpack.api.deployment_content import checked_manifest
from mlpack.api.render import Rendered
from mlpack.api.requests import Render
from mlpack.api.targets.iotedge import PRIVATE, head
from mlpack.iotedge.secrets import HIDDEN
from mlpack.project.directory import ProjectDirectory
from mlpack.render.compose import compose_file


def render(project: ProjectDirectory, request: Render, environment: Mapping[str, str]) -> Rendered:
    """Render what a device would run as services of Docker Compose."""
    manifest = checked_manifest(project, request, environment)
    release = manifest.release
    text, left_out = compose_file(manifest.text, release.name if release else "")
    skipped = [str(each) for each in left_out]
    private = bool(manifest.secrets)
    return Rendered(
        text=text,
        document={**head(manifest), "compose": HIDDEN if private else text, "skipped": skipped},
        summary=f"services of {release.image if release else None}{f'; {PRIVATE}' * private}",
        notes=(*(f"warning: {each}" for each in manifest.warnings), *skipped),
        private=private,
    )
