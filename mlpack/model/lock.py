"""``mlpack.lock``: which base every release of a project is built on.

The user commits this file; only mlpack writes it. Its first line is a sha256
over the rest, so an edit by hand is noticed instead of built upon.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

import tomli_w

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, InvalidContent, Node, Platform, canonical
from mlpack.oci.image import Layer, Packing
from mlpack.oci.platforms import best

VERSION = 1

PATCH_FORMATS = (1, 2)
"""Formats of patches that bases made now apply; the last is made (docs/reference/patch-format.md).

Bases that apply format 2 also unpack packed models.
"""


class InvalidLock(MlpackError):
    """A lock that cannot be trusted: edited, truncated, or from another version."""

    hint = (
        "restore mlpack.lock from version control (git checkout mlpack.lock), "
        "or make a new base with: mlpack base build --upgrade"
    )


@dataclass(frozen=True, slots=True)
class LockedLayer:
    """One layer of the base; ``role`` is debian or source, packages, runtime or entry."""

    role: str
    layer: Layer


@dataclass(frozen=True, slots=True, order=True)
class LockedPackage:
    """A Python package of the base; ``hashes`` are the wheels that were allowed."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class DebianPackage:
    """A Debian package of the base, and the sha256 of its .deb."""

    name: str
    version: str
    architecture: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPlatform:
    """The base for one platform."""

    platform: Platform
    manifest: Descriptor
    layers: tuple[LockedLayer, ...]
    python: tuple[LockedPackage, ...] = ()
    debian: tuple[DebianPackage, ...] = ()
    patch_formats: tuple[int, ...] = (1,)
    """The formats of patches that its runtime applies (docs/reference/patch-format.md)."""

    @property
    def gpu(self) -> bool:
        """Whether its onnxruntime runs models on graphics processors."""
        return bool(self.version_of("onnxruntime-gpu"))

    @property
    def onnxruntime(self) -> str:
        """The version of onnxruntime, of either build; empty if the base has none."""
        return self.version_of("onnxruntime-gpu") or self.version_of("onnxruntime")

    def version_of(self, package: str) -> str:
        """Return the locked version of a Python package, or an empty text."""
        return next((each.version for each in self.python if each.name == package), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedBase:
    """The base of a project on all its platforms."""

    source: str
    """``[base] from`` as it was when the base was made."""

    recipe: Digest
    """Digest of everything the base was made from; another recipe needs another base."""

    index: Descriptor
    """The base as one name for all platforms."""

    packing: Packing
    platforms: tuple[LockedPlatform, ...]
    pinned: str = ""
    """``source`` by digest, if it is an image in a registry."""

    def on(self, platform: Platform) -> LockedPlatform | None:
        """Return the base for ``platform``, if any; for linux/arm64/v8 that of linux/arm64."""
        number = best(platform, [each.platform for each in self.platforms])
        return None if number is None else self.platforms[number]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The whole lock: the base, and the anchor release patches of each model are made against."""

    base: LockedBase
    anchors: Mapping[str, Digest] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Lock:
        """Read a lock; raise :class:`InvalidLock` unless it is exactly what mlpack wrote."""
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidLock(f"mlpack.lock is not TOML ({error})") from error
        seal = document.pop("seal", None)
        version = document.get("version")
        if version is None:
            raise InvalidLock("mlpack.lock is not what mlpack wrote (it says no version)")
        if version != VERSION:
            raise InvalidLock(
                f"mlpack.lock has version {version!r}, this mlpack reads {VERSION}",
                hint="use the mlpack that wrote it, or run: mlpack base build --upgrade",
            )
        if seal != str(Digest.of(canonical(document))):
            raise InvalidLock("mlpack.lock was changed by hand (its seal does not fit its content)")
        try:
            node = Node(document, "mlpack.lock")
            anchors = node.get("anchors")
            return cls(
                base=_base_from(node.need("base")),
                anchors={name: Digest.from_json(value) for name, value in anchors.items()}
                if anchors
                else {},
            )
        except InvalidContent as error:
            raise InvalidLock(str(error)) from error

    def dump(self) -> str:
        """Write the lock as text; the same lock is always the same text."""
        document: dict[str, object] = {"version": VERSION, "base": _base_to(self.base)}
        if self.anchors:
            document["anchors"] = {name: str(self.anchors[name]) for name in sorted(self.anchors)}
        sealed = {"seal": str(Digest.of(canonical(document))), **document}
        return (
            "# Written by mlpack. Commit it, do not edit it; to change it: mlpack base build\n"
            + tomli_w.dumps(sealed)
        )


def _base_to(base: LockedBase) -> dict[str, object]:
    return {
        "from": base.source,
        **({"pinned": base.pinned} if base.pinned else {}),
        "recipe": str(base.recipe),
        "index": base.index.to_json(),
        "packing": base.packing.to_json(),
        "platform": [_platform_to(each) for each in base.platforms],
    }


def _base_from(node: Node) -> LockedBase:
    pinned = node.get("pinned")
    return LockedBase(
        pinned=pinned.text() if pinned else "",
        source=node.need("from").text(),
        recipe=Digest.from_json(node.need("recipe")),
        index=Descriptor.from_json(node.need("index")),
        packing=Packing.from_json(node.need("packing")),
        platforms=tuple(_platform_from(each) for each in node.need("platform").elements()),
    )


def _platform_to(locked: LockedPlatform) -> dict[str, object]:
    return {
        "name": str(locked.platform),
        "manifest": {"digest": str(locked.manifest.digest), "size": locked.manifest.size},
        "patch-formats": list(locked.patch_formats),
        "layer": [
            {
                "role": each.role,
                **each.layer.descriptor.to_json(),
                "diff_id": str(each.layer.diff_id),
            }
            for each in locked.layers
        ],
        "python": [
            {"name": each.name, "version": each.version, "hashes": list(each.hashes)}
            for each in sorted(locked.python)
        ],
        "debian": [
            {
                "name": each.name,
                "version": each.version,
                "architecture": each.architecture,
                "sha256": each.sha256,
            }
            for each in sorted(locked.debian)
        ],
    }


def _platform_from(node: Node) -> LockedPlatform:
    manifest, formats = node.need("manifest"), node.get("patch-formats")
    return LockedPlatform(
        platform=Platform.parse(node.need("name").text()),
        # Bases of before the entry.
        patch_formats=tuple(each.integer() for each in formats.elements()) if formats else (1,),
        manifest=Descriptor(
            media.MANIFEST,
            Digest.from_json(manifest.need("digest")),
            manifest.need("size").integer(),
        ),
        layers=tuple(
            LockedLayer(
                each.need("role").text(),
                Layer(Descriptor.from_json(each), Digest.from_json(each.need("diff_id"))),
            )
            for each in node.need("layer").elements()
        ),
        python=tuple(
            LockedPackage(
                each.need("name").text(), each.need("version").text(), each.need("hashes").texts()
            )
            for each in node.need("python").elements()
        ),
        debian=tuple(
            DebianPackage(
                each.need("name").text(),
                each.need("version").text(),
                each.need("architecture").text(),
                each.need("sha256").text(),
            )
            for each in node.need("debian").elements()
        ),
    )
