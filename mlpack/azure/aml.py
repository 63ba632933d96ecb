"""Models in Azure ML: a workspace's and, to read, a registry's, through azure-ai-ml.

That SDK takes more than a second to import, so it is imported only to connect. It prints to stderr
and warns; none of that is for the user, so all of it is dropped.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.azure.management import Account, signed_in
from mlpack.errors import MlpackError, UsageError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Model

_CLOUDS = {
    "https://management.azure.com": "AzureCloud",
    "https://management.usgovcloudapi.net": "AzureUSGovernment",
    "https://management.chinacloudapi.cn": "AzureChinaCloud",
}
"""The SDK's names of the clouds; it finds others by ``ARM_CLOUD_METADATA_URL``."""

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HERE = re.compile(rf"azureml:({_PART}):({_PART})")
_REGISTRY = re.compile(rf"azureml://registries/({_PART})/models/({_PART})/versions/({_PART})")
_CHANGED = "Asset paths cannot be updated"
_ROLE = "ask for the role AzureML Data Scientist on the workspace (AzureML Registry User there)"
_WRONG = "check subscription, resource group and workspace, and the model's name and version"


class OtherContent(MlpackError):
    """A version that Azure ML has with other files; the files of a version never change."""


class NoFiles(MlpackError):
    """A model of Azure ML without files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """``azureml:NAME:VERSION`` of a workspace, or an address in a registry."""

    name: str
    version: str
    registry: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address; raise :class:`~mlpack.errors.UsageError`.

        >>> Address.parse("azureml:fan:3").version
        '3'
        >>> Address.parse("azureml://registries/edge/models/fan/versions/3").registry
        'edge'
        """
        if found := _HERE.fullmatch(text):
            return cls(name=found[1], version=found[2])
        if found := _REGISTRY.fullmatch(text):
            return cls(registry=found[1], name=found[2], version=found[3])
        raise UsageError(
            f"{text!r} is not the address of an Azure ML model",
            hint="write azureml:NAME:VERSION, or azureml://registries/NAME/models/NAME/versions/V",
        )

    def uri(self, workspace: Account | None) -> str:
        """Return its absolute URI, which is kept as the origin of a model."""
        if workspace is None:
            place = f"registries/{self.registry}"
        else:
            place = (
                f"subscriptions/{workspace.subscription}/resourceGroups/"
                f"{workspace.resource_group}/workspaces/{workspace.name}"
            )
        return f"azureml://{place}/models/{self.name}/versions/{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AmlModel:
    """A model version in Azure ML."""

    name: str
    version: str
    tags: Mapping[str, str]
    """They can be changed later."""

    properties: Mapping[str, str]
    """They never change."""


@dataclass(frozen=True, slots=True)
class Models:
    """The models of one workspace or registry."""

    _client: MLClient

    def versions(self, name: str) -> tuple[AmlModel, ...]:
        """Return every version of a model; none if the model does not exist."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            with _quiet():
                return tuple(_known(each) for each in self._client.models.list(name=name))
        except ResourceNotFoundError:
            return ()

    def get(self, name: str, version: str) -> AmlModel:
        """Return one version."""
        with _quiet():
            return _known(self._client.models.get(name=name, version=version))

    def create(self, model: AmlModel, path: Path) -> AmlModel:
        """Upload ``path``, a file or a directory, as ``model``; raise :class:`OtherContent`.

        A version that exists with the same content is not sent again.
        """
        from azure.ai.ml.entities import Model
        from azure.core.exceptions import AzureError

        created = Model(
            path=path,
            name=model.name,
            version=model.version,
            type="custom_model",
            tags=dict(model.tags),
            properties=dict(model.properties),
        )
        try:
            with _quiet():
                return _known(self._client.models.create_or_update(created))
        except AzureError as error:
            # 1.35.2 tries to raise AssetPathException here, but compares with a text that
            # azure-core no longer returns.
            if _CHANGED not in str(error) and type(error).__name__ != "AssetPathException":
                raise
            raise OtherContent(
                f"the workspace already has {model.name}:{model.version}, with different files",
                hint=f"use another version: mlpack models --drop {model.name}:"
                f"{model.version}, then register it again",
            ) from None

    def tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Add ``tags`` to a version; tags that it has already change nothing."""
        with _quiet():
            held = self._client.models.get(name=name, version=version)
            if {**held.tags, **tags} == held.tags:
                return
            held.tags = {**held.tags, **tags}
            self._client.models.create_or_update(held)

    def download(self, name: str, version: str, folder: Path) -> Path:
        """Fetch a version's files into ``folder``; return the file, or their directory."""
        with _quiet():
            self._client.models.download(name=name, version=version, download_path=str(folder))
        found = sorted((folder / name).iterdir()) if (folder / name).is_dir() else []
        if not found:
            raise NoFiles(f"{name}:{version} has no files in Azure ML")
        return found[0] if len(found) == 1 else folder / name


@contextmanager
def opened(account: Account | None, *, registry: str = "", endpoint: str = "") -> Iterator[Models]:
    """Open the models of a workspace, or of the registry called ``registry``.

    Raises :class:`~mlpack.azure.management.AzureFailed` or
    :class:`~mlpack.azure.management.NoAzure`, in the block, too.
    """
    with signed_in("Azure ML", role=_ROLE, wrong=_WRONG) as credential:
        with _quiet():
            from azure.ai.ml import MLClient

            cloud = _CLOUDS.get(account.endpoint if account else endpoint)
            settings: dict[str, Any] = {"show_progress": False, "enable_telemetry": False}
            if cloud:
                settings["cloud"] = cloud
            if registry:
                settings["registry_name"] = registry
            elif account:
                settings["subscription_id"] = account.subscription
                settings["resource_group_name"] = account.resource_group
                settings["workspace_name"] = account.name
            client = MLClient(credential, **settings)
        yield Models(client)


def _known(model: Model) -> AmlModel:
    return AmlModel(
        name=str(model.name),
        version=str(model.version),
        tags=dict(model.tags or {}),
        properties=dict(model.properties or {}),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what the SDK prints, logs and warns; its exceptions have what matters."""
    logger = logging.getLogger("azure.ai.ml")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            redirect_stderr(io.StringIO()),
            redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
