"""What a cluster would take, and should not be given; and what it gets nothing of."""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.model.edge import ALL_GPUS, ModuleRecipe
from mlpack.oci.document import Node
from mlpack.render.iotedge.secrets import Passwords, check
from mlpack.render.kubernetes.workload import InvalidManifest


def require_open(settings: ModuleRecipe) -> None:
    """Raise :class:`InvalidManifest` where a variable of the module holds a secret in clear.

    The message does not repeat it.
    """
    found = tuple(
        check("module", Node({"env": dict(settings.env)}, "module"), Passwords.PLACEHOLDER)
    )
    if found:
        where = ", ".join(each.path for each in found)
        raise InvalidManifest(
            f"{where}: holds a secret, which everyone who may see the manifest could read",
            hint="keep it in a Secret of the cluster and name that in [kubernetes] secrets",
        )


def left_out(settings: ModuleRecipe) -> Iterator[str]:
    """Settings of ``[module]`` that mean something to container engines only."""
    said = {
        "options": settings.options,
        "ports": settings.ports,
        "mounts": settings.mounts,
        "twin": settings.twin,
    }
    for key, value in said.items():
        if value:
            yield f"[module] {key} is for IoT Edge: nothing of it is in these manifests"
    if settings.gpu == ALL_GPUS:
        yield "[module] gpu = true asks for one GPU: a pod cannot ask for all of a node's"
