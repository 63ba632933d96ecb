"""Models between this project and Azure ML, and what each side says of the other.

A version in the workspace carries the digest of its files and what it was trained to be as
properties, which never change, and, once it is released, the release as tags. A version here
carries the address in Azure ML as its tag ``azureml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mlpack.api.register import Elsewhere, Registered, register
from mlpack.azure.aml import Address, AmlModel, opened
from mlpack.azure.management import Account
from mlpack.errors import MlpackError, UsageError
from mlpack.model.registration import MAX_TEXT, About
from mlpack.model.version import ModelVersion, content_digest
from mlpack.oci.digest import Digest
from mlpack.oci.reference import Reference
from mlpack.stores.exported import exported, temporary
from mlpack.stores.ledger import Ledger
from mlpack.stores.models import ModelStore
from mlpack.stores.project import Project

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


@dataclass(frozen=True, kw_only=True)
class InWorkspace:
    """A version of a workspace."""

    registered: Registered
    uri: str

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json register --workspace``."""
        return {**self.registered.to_json(), "azureml": self.uri}


def register_there(
    project: Project,
    path: Path,
    about: About,
    workspace: Account,
    *,
    scoring: Path | None = None,
    trust_pickle: bool = False,
    features: int | None = None,
    now: datetime,
) -> InWorkspace:
    """Register the model at ``path`` here and in ``workspace``, under one version.

    What was registered here stays where the workspace then says no: the same call goes on.
    """
    name = about.name or project.recipe.model
    with opened(workspace) as models:
        held = {each.version: each.properties.get(FILES, "") for each in models.versions(name)}
        done = register(
            project,
            path,
            about,
            elsewhere=Elsewhere(versions=held),
            scoring=scoring,
            trust_pickle=trust_pickle,
            features=features,
            now=now,
        )
        version = done.version
        before = models.get(name, version.version) if version.version in held else None
        wanted = _described(version, before)
        store = ModelStore(project.layout)
        with exported(store, version) as files:
            models.create(wanted, files)
    uri = Address(name=name, version=version.version).uri(workspace)
    return InWorkspace(registered=replace(done, version=_named(project, version, uri)), uri=uri)


def register_from(
    project: Project,
    address: Address,
    about: About,
    workspace: Account | None,
    *,
    endpoint: str,
    scoring: Path | None = None,
    now: datetime,
) -> InWorkspace:
    """Fetch a model of Azure ML, and keep it as a version here; no pickle is loaded.

    ``workspace`` is none for a registry's. The files must be what was registered, where the
    workspace says their digest. Tags and metrics come along.
    """
    if not address.registry and workspace is None:
        raise UsageError(
            f"it is not said which workspace azureml:{address.name} is in",
            hint="name it with --workspace SUBSCRIPTION/GROUP/WORKSPACE, or MLPACK_WORKSPACE",
        )
    place = None if address.registry else workspace
    uri = address.uri(place)
    with (
        opened(place, registry=address.registry, endpoint=endpoint) as models,
        temporary() as folder,
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
        digest = model.properties.get(FILES, "")
        done = register(
            project,
            path,
            about,
            elsewhere=Elsewhere(version=model.version, files=digest),
            scoring=scoring,
            now=now,
        )
    notes = [f"left out tags that are too long or not text: {', '.join(left)}"] if left else []
    return InWorkspace(registered=replace(done, notes=(*done.notes, *notes)), uri=uri)


def tag_release(project: Project, workspace: Account, reference: Reference) -> str:
    """Say in ``workspace``, at the model of the release ``reference``, what was released and where.

    Returns the model's address. Raises :class:`NotInWorkspace` where there is none such.
    """
    found = Ledger(project.ledger).release(reference.digest) if reference.digest else None
    if found is None:
        raise NotInWorkspace(
            f"{reference} is no release that was built here, and what it came from is not known",
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
        # What a version says of itself never changes.
        properties={**properties, **(before.properties if before else {})},
    )


def _named(project: Project, version: ModelVersion, uri: str) -> ModelVersion:
    """Say at the version here where it is in Azure ML."""
    if version.tags.get(AZUREML) == uri:
        return version
    named = replace(version, tags={**version.tags, AZUREML: uri})
    with project.exclusive():
        ModelStore(project.layout).describe(named)
    return named


def _taken(tags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The tags a version here may have, and the names of the others."""
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
