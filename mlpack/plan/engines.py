"""How a device decides what to fetch: one rule per engine, as measured.

Measured on Docker 20.10.24 (overlay2), containerd 1.6.20 (``ctr``, overlayfs) and
podman 4.3.1 (overlay), each from Debian 12, against docker-registry 2.8.2, with a
proxy that counted every request. Other releases differ: containerd 2 skips layers
whose unpacked chain is there, and Docker with the containerd store follows
containerd. A rule here is a fact about the version in :attr:`Engine.measured`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mlpack.errors import UsageError
from mlpack.oci.digest import Digest
from mlpack.oci.image import Image, Layer
from mlpack.oci.index import Index

Action = Literal["reuse", "fetch"]


class UnknownEngine(UsageError):
    """A name that is none of the engines mlpack has measured."""


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """What an engine already has on a device; an empty one is a new device."""

    manifests: frozenset[Digest] = frozenset()
    """Manifests and indexes kept as pulled."""

    configs: frozenset[Digest] = frozenset()
    digests: frozenset[Digest] = frozenset()
    """Layer blobs held, by the name they were fetched under."""

    diff_ids: frozenset[Digest] = frozenset()
    chain_ids: frozenset[Digest] = frozenset()
    seen: frozenset[Digest] = frozenset()
    """Layer blobs ever pulled, held or not: moby and podman remember each one's diff id."""

    @classmethod
    def holding(
        cls,
        *images: Image,
        indexes: Iterable[Index] = (),
        removed: Iterable[Image] = (),
    ) -> DeviceState:
        """A device on which ``images`` lie, pulled and unpacked.

        ``indexes`` are the names of several platforms they were pulled by,
        ``removed`` images that were pulled earlier and deleted since.
        """
        layers = [layer for image in images for layer in image.layers]
        gone = [layer for image in removed for layer in image.layers]
        return cls(
            manifests=frozenset(
                [image.digest for image in images] + [index.digest for index in indexes]
            ),
            configs=frozenset(image.config_descriptor.digest for image in images),
            digests=frozenset(layer.digest for layer in layers),
            diff_ids=frozenset(layer.diff_id for layer in layers),
            chain_ids=frozenset(chain for image in images for chain in image.chain_ids),
            seen=frozenset(layer.digest for layer in [*layers, *gone]),
        )

    @classmethod
    def loaded(cls, *images: Image) -> DeviceState:
        """A device that got ``images`` from a ``docker save`` file.

        It has their content, unpacked, and no registry's name for any of it: the next
        pull fetches every layer. Measured on all three engines.
        """
        return cls(
            configs=frozenset(image.config_descriptor.digest for image in images),
            diff_ids=frozenset(layer.diff_id for image in images for layer in image.layers),
            chain_ids=frozenset(chain for image in images for chain in image.chain_ids),
        )


@dataclass(frozen=True, slots=True)
class LayerStep:
    """What becomes of one layer in a pull, and why."""

    layer: Layer
    action: Action
    why: str

    @property
    def bytes(self) -> int:
        """What crosses the network for it."""
        return self.layer.size if self.action == "fetch" else 0

    def to_json(self) -> dict[str, object]:
        """One element of a diff's ``layers``; ``bytes`` is the blob's size, fetched or not."""
        return {
            "digest": str(self.layer.digest),
            "bytes": self.layer.size,
            "action": self.action,
            "why": self.why,
        }


Rule = Callable[[Image, DeviceState], tuple[LayerStep, ...]]


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine: its rule, and the version whose rule it is."""

    name: str
    measured: str
    rule: Rule

    def steps(self, image: Image, state: DeviceState) -> tuple[LayerStep, ...]:
        """One step per layer of ``image``, bottom first, for a device in ``state``."""
        return self.rule(image, state)


def moby(image: Image, state: DeviceState) -> tuple[LayerStep, ...]:
    """Keep the longest chain from the bottom that is known; fetch everything above it.

    A layer counts as known when its blob was once pulled under this digest and
    its chain id is unpacked. The first that is not takes all layers above it
    along, even blobs the device holds (``distribution/xfer/download.go`` in
    moby 20.10; each row of the measured table).
    """
    if image.config_descriptor.digest in state.configs:
        return tuple(LayerStep(each, "reuse", "the device has this image") for each in image.layers)
    steps: list[LayerStep] = []
    fetching = False
    for layer, chain_id in zip(image.layers, image.chain_ids, strict=True):
        if not fetching and layer.digest in state.seen and chain_id in state.chain_ids:
            steps.append(LayerStep(layer, "reuse", "held, and all below it is unchanged"))
            continue
        steps.append(LayerStep(layer, "fetch", _moby_why(layer, state, fetching)))
        fetching = True
    return _once(steps)


def _moby_why(layer: Layer, state: DeviceState, fetching: bool) -> str:
    if layer.digest in state.digests:
        return "held, but a layer below it is fetched" if fetching else "held, but on other layers"
    return _new_content(layer, state)


def containerd(image: Image, state: DeviceState) -> tuple[LayerStep, ...]:
    """Fetch each blob that is not in the content store, wherever it stands in the image."""
    return _once(
        [
            LayerStep(layer, "reuse", "this blob is held")
            if layer.digest in state.digests
            else LayerStep(layer, "fetch", _new_content(layer, state))
            for layer in image.layers
        ]
    )


def podman(image: Image, state: DeviceState) -> tuple[LayerStep, ...]:
    """Fetch each blob that is not held; one pulled before under this digest is recognised.

    The blob-info cache remembers which diff id a digest had, so a recompressed
    layer that was pulled once is not pulled again while its content is held. Layers are
    fetched side by side, and one that is listed twice is fetched twice.
    """
    return tuple(_podman_step(layer, state) for layer in image.layers)


def _podman_step(layer: Layer, state: DeviceState) -> LayerStep:
    if layer.digest in state.digests:
        return LayerStep(layer, "reuse", "this blob is held")
    if layer.digest in state.seen and layer.diff_id in state.diff_ids:
        return LayerStep(layer, "reuse", "its content is held, and its digest was seen before")
    return LayerStep(layer, "fetch", _new_content(layer, state))


def _new_content(layer: Layer, state: DeviceState) -> str:
    if layer.diff_id in state.diff_ids:
        return (
            "its content is held, but under another digest"
            if state.seen
            else "its content is held, but was loaded and not pulled: its digest is not known"
        )
    return "not on the device"


def _once(steps: Iterable[LayerStep]) -> tuple[LayerStep, ...]:
    """A blob listed twice is sent once: moby and containerd key downloads by digest."""
    fetched: set[Digest] = set()
    result = []
    for step in steps:
        if step.action == "fetch" and step.layer.digest in fetched:
            step = LayerStep(step.layer, "reuse", "the same blob as a layer below")
        elif step.action == "fetch":
            fetched.add(step.layer.digest)
        result.append(step)
    return tuple(result)


ENGINES: Mapping[str, Engine] = {
    "moby": Engine("moby", "Docker 20.10.24", moby),
    "containerd": Engine("containerd", "containerd 1.6.20", containerd),
    "podman": Engine("podman", "podman 4.3.1", podman),
}
"""Every engine by name."""


def engine(name: str) -> Engine:
    """The engine called ``name``; raise :class:`UnknownEngine`.

    >>> engine("moby").measured
    'Docker 20.10.24'
    """
    if name not in ENGINES:
        raise UnknownEngine(f"{name!r} is not an engine", hint=f"one of: {', '.join(ENGINES)}")
    return ENGINES[name]
