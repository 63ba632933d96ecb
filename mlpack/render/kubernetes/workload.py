"""What is asked of a cluster: one release, how much of it, and where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlpack.errors import MlpackError
from mlpack.model.edge import ModuleRecipe
from mlpack.model.kubernetes import KubernetesRecipe
from mlpack.oci.descriptor import Platform
from mlpack.oci.reference import Reference

PORT = 5001
"""Where the runtime in a release listens."""

PORT_NAME = "score"
_SERVICE_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


class InvalidManifest(MlpackError, ValueError):
    """Something a cluster would refuse, or run wrongly."""

    hint = "correct what is named above; docs/kubernetes.md says what becomes of each setting"


def object_name(module: str) -> str:
    """The name of a module as Kubernetes has names.

    >>> object_name("Fan_scorer.v2")
    'fan-scorer-v2'
    """
    return re.sub(r"[^a-z0-9]+", "-", module.lower()).strip("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVolume:
    """The base as the container, and the release mounted into it."""

    base: Reference
    env: Mapping[str, str]
    """What the release's config says and the base's does not, for where it is mounted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One release on a cluster."""

    module: str
    image: Reference
    model: str
    version: str
    settings: ModuleRecipe = field(default_factory=ModuleRecipe)
    cluster: KubernetesRecipe = field(default_factory=KubernetesRecipe)
    group: str = ""
    """Device group: a pod on each of its nodes; empty for ``replicas`` pods anywhere."""

    nodes: Mapping[str, str] = field(default_factory=dict)
    """Labels of those nodes."""

    platform: Platform | None = None
    """Where the image is one platform's alone."""

    volume: ImageVolume | None = None
    rebuilt: int = 0
    """Bytes of its model that it makes below /tmp when it starts."""

    def __post_init__(self) -> None:
        for each in (self.image, *((self.volume.base,) if self.volume else ())):
            if each.digest is None:
                raise InvalidManifest(
                    f"{each} is not pinned to a digest", hint="tags move; name it by its digest"
                )
        if not _SERVICE_NAME.fullmatch(self.name):
            raise InvalidManifest(
                f"{self.name!r} cannot be the name of a Service",
                hint="at most 63 letters, digits and -, a letter first: set [module] name",
            )
        if "MLPACK_PORT" in self.settings.env:
            raise InvalidManifest(
                "[module] env MLPACK_PORT moves the port from where probes and Service look",
                hint="set the Service's port with [module] port",
            )

    @property
    def name(self) -> str:
        """Of every object; groups have their own, so that each can be on another release."""
        return object_name(f"{self.module}-{self.group}" if self.group else self.module)

    @property
    def selector(self) -> dict[str, str]:
        """The labels that never change: a Deployment's selector cannot."""
        return {
            "app.kubernetes.io/name": object_name(self.module),
            "app.kubernetes.io/instance": self.name,
        }

    @property
    def metadata(self) -> dict[str, object]:
        """Of every object."""
        labels = {
            **self.selector,
            "app.kubernetes.io/version": self.version,
            "app.kubernetes.io/component": "scoring",
            "app.kubernetes.io/managed-by": "mlpack",
            "mlpack.io/model": self.model,
        }
        if self.group:
            labels["mlpack.io/device-group"] = self.group
        place = {"namespace": self.cluster.namespace} if self.cluster.namespace else {}
        return {
            "name": self.name,
            **place,
            "labels": labels,
            "annotations": self.annotations,
        }

    @property
    def annotations(self) -> dict[str, str]:
        """The release, in full."""
        return {
            "mlpack.io/release": f"{self.model}:{self.version}",
            "mlpack.io/digest": str(self.image.digest),
        }
