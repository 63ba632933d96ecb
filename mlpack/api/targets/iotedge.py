"""``--target iotedge``: a deployment manifest of IoT Edge."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlpack.api.deployment_content import CheckedManifest, checked_manifest
from mlpack.api.render import Rendered
from mlpack.api.requests import Render
from mlpack.iotedge.secrets import holds_password, redacted
from mlpack.project.directory import ProjectDirectory

PRIVATE = "it holds a secret, and is for you alone to read"


def render(project: ProjectDirectory, request: Render, environment: Mapping[str, str]) -> Rendered:
    """Render the manifest, whole or layered, or as a template or another manifest has it."""
    manifest = checked_manifest(project, request, environment)
    document = json.loads(manifest.text.removeprefix("\ufeff"))
    private = bool(manifest.secrets) or holds_password(document)
    return Rendered(
        text=manifest.text,
        document={**head(manifest), "deployment": redacted(document, manifest.secrets)},
        summary=f"{_summary(request, manifest)}{'; ' + PRIVATE if private else ''}",
        notes=tuple(f"warning: {each}" for each in manifest.warnings),
        private=private,
    )


def head(manifest: CheckedManifest) -> dict[str, object]:
    """Return the members of the document that are about the release."""
    release = manifest.release
    members: dict[str, object] = {}
    if release is not None:
        members = {
            "name": release.name,
            "version": release.version,
            "module": release.module,
            "image": str(release.image),
        }
    return {**members, "warnings": [str(each) for each in manifest.warnings]}


def _summary(request: Render, manifest: CheckedManifest) -> str:
    if manifest.release is None:
        return "IoT Edge's own modules"
    over = ", over a base deployment" if request.layered else ""
    return f"module {manifest.release.module} runs {manifest.release.image}{over}"
