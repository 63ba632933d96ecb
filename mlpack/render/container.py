"""What a module's container may do, and which devices it gets, in the words of Docker's API."""

from __future__ import annotations

from mlpack.oci.image import Image

_MIB = 1024 * 1024
TMP_BYTES = 64 * _MIB
"""How much a module may write below /tmp; it is memory."""

GPU = "io.mlpack.gpu"
"""The label of bases, and so of releases, whose onnxruntime uses graphics processors."""

ALL = -1


def tmp_bytes(rebuilt: int) -> int:
    """How large /tmp is for a release that rebuilds so many bytes there, in whole MiB."""
    return TMP_BYTES + -(-rebuilt // _MIB) * _MIB


def _tmpfs(rebuilt: int) -> str:
    return f"rw,noexec,nosuid,nodev,size={tmp_bytes(rebuilt)},mode=1777"


def confined(rebuilt: int = 0) -> dict[str, object]:
    """``HostConfig`` of a module that scores: /tmp alone is writable, and no privilege is left.

    The runtime asks for no more; it is not root in the image already. ``rebuilt`` are bytes
    of the model that it makes of a patch there.
    """
    return {
        "CapDrop": ["ALL"],
        "ReadonlyRootfs": True,
        "SecurityOpt": ["no-new-privileges"],
        "Tmpfs": {"/tmp": _tmpfs(rebuilt)},  # noqa: S108  (inside the container)
    }


def confining_options(rebuilt: int = 0) -> tuple[str, ...]:
    """The same for the command lines of Docker and podman."""
    return (
        *("--read-only", "--tmpfs", f"/tmp:{_tmpfs(rebuilt)}"),  # noqa: S108
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    )


def gpus(count: int = ALL) -> dict[str, object]:
    """``HostConfig`` of a module that gets graphics processors: ``count`` of them, or all."""
    request = {"Capabilities": [["gpu"]], "Count": count, "Driver": "nvidia"}
    return {"DeviceRequests": [request]}


def wants_gpu(image: Image) -> bool:
    """Whether the image's onnxruntime uses graphics processors."""
    return GPU in image.labels
