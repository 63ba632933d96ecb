"""Models in this project and in Azure ML, and how each side refers to the other.

A version in the workspace carries the digest of its files and what it was trained to be as
properties, which never change, and, once it is released, the release as tags. A version here
carries the address in Azure ML as its tag ``azureml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mlpack.api.register import KnownVersions, Registered, register_file
from mlpack.azure.aml import Address, AmlModel, opened
from mlpack.azure.management import Account
from mlpack.errors import MlpackError, UsageError
from mlpack.model.registration import MAX_TEXT, About
from mlpack.model.version import ModelVersion, content_digest
from mlpack.oci.descriptor import Digest, Reference
from mlpack.project.directory import ModelStore, ProjectDirectory, exported
from mlpack.project.ledger import Ledger
from mlpack.stores.files import temporary_folder

if TYPE_CHECKING:
    from mlpack.api.register_request import Register
    from mlpack.api.session import Session

AZUREML = "azureml"
"""Tag of a version here: its address in Azure ML."""

FILES, MODEL, FRAMEWORK, COMMIT = (
    "mlpack.files",
    "mlpack.model",
    "mlpack.framework",
    "mlpack.commit",
)
METRIC = "mlpack.metric."
RELEASE, BASE, BYTES = "mlpack.release", "mlpack.base", "mlpack.layerBytes"


class NotInWorkspace(MlpackError):
    """A version the workspace does not have as it is here."""


def register_there(session: Session, request: Register, about: About) -> Registered:
    """Register the model here and in ``request.workspace``, under one version.

    What was registered here stays if the workspace refuses then; the same call continues.
    """
    project, workspace = session.project, session.workspace(request.workspace)
    name = about.name or project.settings.model
    with opened(workspace) as models:
        held = {each.version: each.properties.get(FILES, "") for each in models.versions(name)}
        done = register_file(session, request, about, KnownVersions(versions=held))
        version = done.version
        before = models.get(name, version.version) if version.version in held else None
        described = _described(version, before)
        with exported(ModelStore(project.layout), version) as files:
            models.create(described, files)
    uri = Address(name=name, version=version.version).uri(workspace)
    return replace(done, version=_named(project, version, uri), uri=uri)


def register_from(session: Session, request: Register, about: About) -> Registered:
    """Fetch a model of Azure ML, and keep it as a version here; no pickle is loaded.

    The files must be those that were registered, if the workspace has their digest. Tags and
    metrics come along.
    """
    address = Address.parse(str(request.path))
    place = None if address.registry else _workspace(session, request, address)
    uri = address.uri(place)
    with (
        opened(place, registry=address.registry, endpoint=session.azure_endpoint) as models,
        temporary_folder("mlpack-") as folder,
    ):
        model = models.get(address.name, address.version)
        tags, left = _taken(model.tags)
        about = replace(
            about,
            name=about.name or model.name,
            source_commit=about.source_commit or model.properties.get(COMMIT, ""),
            tags={**tags, AZUREML: uri, **about.tags},
            metrics={**_metrics(model), **about.metrics},
        )
        path = models.download(model.name, model.version, folder)
        known = KnownVersions(version=model.version, files=model.properties.get(FILES, ""))
        done = register_file(session, replace(request, path=path.resolve()), about, known)
    notes = [f"left out tags that are too long or not text: {', '.join(left)}"] if left else []
    return replace(done, notes=(*done.notes, *notes), uri=uri)


def _workspace(session: Session, request: Register, address: Address) -> Account:
    place = request.workspace or session.setting("workspace") or session.configured_workspace
    if not place:
        raise UsageError(
            f"no workspace is configured for azureml:{address.name}",
            hint="pass --workspace SUBSCRIPTION/GROUP/WORKSPACE, set MLPACK_WORKSPACE, or put the "
            "workspace's config.json into the project",
        )
    return session.workspace(place)


def tag_release(project: ProjectDirectory, workspace: Account, reference: Reference) -> str:
    """Tag the model of the release ``reference`` in ``workspace`` with what was released.

    Returns the model's address. Raises :class:`NotInWorkspace` if it does not have that model.
    """
    found = Ledger(project.ledger).release(reference.digest) if reference.digest else None
    if found is None:
        raise NotInWorkspace(
            f"{reference} was not built here, so its model is not known",
            hint="push it with --workspace where it was built",
        )
    version = ModelStore(project.layout).get(found.name, found.version)
    tags = {
        RELEASE: str(reference),
        BASE: str(found.base_digest),
        BYTES: str(found.layer_bytes),
    }
    with opened(workspace) as models:
        held = models.get(version.name, version.version)
        if held.properties.get(FILES) != str(_files(version)):
            raise NotInWorkspace(
                f"the workspace's {version} is not the model that was released",
                hint="register it there first: mlpack register PATH --workspace …",
            )
        models.tag(version.name, version.version, tags)
    return Address(name=version.name, version=version.version).uri(workspace)


def _files(version: ModelVersion) -> Digest:
    """Digest of the model's files alone: the scoring script stays here."""
    return content_digest(version.files, None)


def _described(version: ModelVersion, before: AmlModel | None) -> AmlModel:
    properties = {
        FILES: str(_files(version)),
        MODEL: str(version.digest),
        FRAMEWORK: version.framework,
        **({COMMIT: version.source_commit} if version.source_commit else {}),
        **{f"{METRIC}{name}": value for name, value in version.metrics.items()},
    }
    tags = {name: value for name, value in version.tags.items() if name != AZUREML}
    return AmlModel(
        name=version.name,
        version=version.version,
        # A change replaces the tags, and the release's are among them.
        tags={**(before.tags if before else {}), **tags},
        # Properties never change.
        properties={**properties, **(before.properties if before else {})},
    )


def _named(project: ProjectDirectory, version: ModelVersion, uri: str) -> ModelVersion:
    """Tag the version here with its address in Azure ML."""
    if version.tags.get(AZUREML) == uri:
        return version
    named = replace(version, tags={**version.tags, AZUREML: uri})
    with project.exclusive():
        ModelStore(project.layout).describe(named)
    return named


def _taken(tags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the tags that a version here may have, and the names of the others."""
    own = {name: text for name, text in tags.items() if not name.startswith("mlpack.")}
    fit = {
        name: text
        for name, text in own.items()
        if name and max(len(name), len(text)) <= MAX_TEXT and f"{name}{text}".isprintable()
    }
    return fit, sorted(repr(name)[:40] for name in own.keys() - fit.keys())


def _metrics(model: AmlModel) -> dict[str, str]:
    return {
        name.removeprefix(METRIC): value
        for name, value in model.properties.items()
        if name.startswith(METRIC)
    }
