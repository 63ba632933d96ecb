"""What a module's container may do, and which devices it gets, in the words of Docker's API."""

from __future__ import annotations

from mlpack.oci.image import Image

TMP_BYTES = 64 * 1024 * 1024
"""How much a module may write below /tmp; it is memory."""

TMPFS = f"rw,noexec,nosuid,nodev,size={TMP_BYTES},mode=1777"
GPU = "io.mlpack.gpu"
"""The label of bases, and so of releases, whose onnxruntime uses graphics processors."""

ALL = -1


def confined() -> dict[str, object]:
    """``HostConfig`` of a module that scores: /tmp alone is writable, and no privilege is left.

    The runtime asks for no more; it is not root in the image already.
    """
    return {
        "CapDrop": ["ALL"],
        "ReadonlyRootfs": True,
        "SecurityOpt": ["no-new-privileges"],
        "Tmpfs": {"/tmp": TMPFS},  # noqa: S108  (inside the container)
    }


def confining_options() -> tuple[str, ...]:
    """The same for the command lines of Docker and podman."""
    return (
        *("--read-only", "--tmpfs", f"/tmp:{TMPFS}"),  # noqa: S108
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    )


def gpus(count: int = ALL) -> dict[str, object]:
    """``HostConfig`` of a module that gets graphics processors: ``count`` of them, or all."""
    request = {"Capabilities": [["gpu"]], "Count": count, "Driver": "nvidia"}
    return {"DeviceRequests": [request]}


def wants_gpu(image: Image) -> bool:
    """Whether the image's onnxruntime uses graphics processors."""
    return GPU in image.labels
