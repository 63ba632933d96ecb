"""Parts of a pod's container (Kubernetes API, ``Container``)."""

from __future__ import annotations


def resources(*, gpus: int = 0) -> dict[str, object]:
    """``resources`` of a container that gets whole graphics processors; empty where none.

    NVIDIA's device plugin counts them; they can be limited only, and a request, where one
    is made, must be the same (Kubernetes, *Schedule GPUs*).

    >>> resources(gpus=1)
    {'limits': {'nvidia.com/gpu': 1}}
    """
    return {"limits": {"nvidia.com/gpu": gpus}} if gpus else {}
