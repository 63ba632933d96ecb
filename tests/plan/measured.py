"""The pulls that were measured, as data: which image a device held, which it pulled, what it cost.

Layer sizes are those of the measured images: b1 to b5 a Debian base, A and B two
6,000-byte models, P a 600-byte patch. The sizes of b1 to b4 and of b3's variants
were solved from one engine's row each; every other row is then a prediction.
Config and manifest sizes are checked against the measured ones in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import Image, ImageConfig, Layer, build_image
from mlpack.plan.engines import DeviceState, Link
from tests.support import AMD64

SIZES = {
    "b1": 30_944_320,
    "b2": 25_333_431,
    "b3": 7_939_191,
    "b4": 9_242_892,
    "b5": 245,
    "A": 6_193,
    "B": 6_188,
    "P": 795,
    "tiny": 137,
    "b3recomp": 9_010_831,
}


def measured_layer(name: str) -> Layer:
    """The layer ``name``; b3recomp is b3's content in another blob."""
    content = "b3" if name == "b3recomp" else name
    blob = Descriptor(media.LAYER_GZIP, Digest.of(f"blob {name}".encode()), SIZES[name])
    return Layer(blob, Digest.of(f"diff {content}".encode()))


def measured_image(layers: str, *, config: int = 1077, variant: str = "") -> Image:
    """An image of ``layers`` (names, bottom first) with a config of exactly ``config`` bytes."""
    named = [measured_layer(name) for name in layers.split()]
    empty = build_image(ImageConfig(platform=AMD64, labels={"v": variant, "p": ""}), named)
    fill = config - len(empty.config)
    return build_image(ImageConfig(platform=AMD64, labels={"v": variant, "p": "." * fill}), named)


BASE = "b1 b2 b3 b4 b5"
V1 = f"{BASE} A"
STACKED_CONFIG = 1203
"""Config of the images of 7 layers; solved from containerd's row v2s."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table: tag, layers pulled, and bytes, requests and layers by engine."""

    tag: str
    pulled: str
    holds: str = V1
    config: int = 1077
    removed: str = ""
    moby: tuple[int, int, str]
    containerd: tuple[int, int, str]
    podman: tuple[int, int, str]
    present: bool = False
    """Whether the image pulled is the one held."""

    by_digest: bool = False

    @property
    def target(self) -> Image:
        """The image pulled."""
        variant = "" if self.present else "new"
        return measured_image(self.pulled, config=self.config, variant=variant)

    @property
    def link(self) -> Link:
        """Plain HTTP, by the row's tag or by digest."""
        return Link(tls="none", by_digest=self.by_digest, tag_bytes=len(self.tag))

    @property
    def state(self) -> DeviceState:
        """The device before."""
        held = [measured_image(self.holds)] if self.holds else []
        removed = [measured_image(self.removed)] if self.removed else []
        return DeviceState.holding(*held, removed=removed)


ROWS = {
    "fresh": Row(
        tag="v1",
        pulled=V1,
        holds="",
        moby=(73_476_548, 11, V1),
        containerd=(73_474_305, 9, V1),
        podman=(73_475_067, 10, V1),
    ),
    "v2 replace": Row(
        tag="v2",
        pulled=f"{BASE} B",
        moby=(12_706, 6, "B"),
        containerd=(11_008, 4, "B"),
        podman=(11_505, 5, "B"),
    ),
    "v2 by digest": Row(
        tag="v2",
        by_digest=True,
        pulled=f"{BASE} B",
        moby=(11_758, 5, "B"),
        containerd=(11_077, 4, "B"),
        podman=(11_574, 5, "B"),
    ),
    "v1 again": Row(
        tag="v1",
        pulled=V1,
        present=True,
        moby=(1_713, 3, ""),
        containerd=(669, 1, ""),
        podman=(4_624, 4, ""),
    ),
    "present, by digest": Row(
        tag="v1",
        by_digest=True,
        pulled=V1,
        present=True,
        moby=(765, 2, ""),
        containerd=(738, 1, ""),
        podman=(4_693, 4, ""),
    ),
    "alias tag": Row(
        tag="v2alias",
        pulled=V1,
        present=True,
        moby=(1_718, 3, ""),
        containerd=(674, 1, ""),
        podman=(4_629, 4, ""),
    ),
    "v2s: B stacked on A": Row(
        tag="v2s",
        pulled=f"{V1} B",
        config=STACKED_CONFIG,
        moby=(12_988, 6, "B"),
        containerd=(11_290, 4, "B"),
        podman=(11_787, 5, "B"),
    ),
    "v2p: a patch on A": Row(
        tag="v2p",
        pulled=f"{V1} P",
        config=STACKED_CONFIG,
        moby=(7_593, 6, "P"),
        containerd=(5_895, 4, "P"),
        podman=(6_392, 5, "P"),
    ),
    "v3swap": Row(
        tag="v3swap",
        pulled="b1 b2 b3 b5 b4 A",
        moby=(9_257_352, 8, "b5 b4 A"),
        containerd=(4_184, 3, ""),
        podman=(4_628, 4, ""),
    ),
    "v4mid": Row(
        tag="v4mid",
        pulled="b1 b2 tiny b4 b5 A",
        moby=(9_258_232, 9, "tiny b4 b5 A"),
        containerd=(4_955, 4, "tiny"),
        podman=(5_452, 5, "tiny"),
    ),
    "v7first": Row(
        tag="v7first",
        pulled=f"A {BASE}",
        moby=(73_476_553, 11, f"A {BASE}"),
        containerd=(4_185, 3, ""),
        podman=(4_629, 4, ""),
    ),
    "v8insert": Row(
        tag="v8insert",
        pulled="b1 A b2 b3 b4 b5",
        moby=(42_531_481, 10, "A b2 b3 b4 b5"),
        containerd=(4_186, 3, ""),
        podman=(4_630, 4, ""),
    ),
    "v1cfg: another config": Row(
        tag="v1cfg",
        pulled=V1,
        config=1015,
        moby=(5_710, 5, ""),
        containerd=(4_121, 3, ""),
        podman=(4_565, 4, ""),
    ),
    "model below the app": Row(
        tag="v5below2",
        holds="b1 b2 b3 b4 A b5",
        pulled="b1 b2 b3 b4 B b5",
        moby=(13_705, 7, "B b5"),
        containerd=(11_014, 4, "B"),
        podman=(11_511, 5, "B"),
    ),
    "v1 removed": Row(
        tag="v2",
        holds="",
        removed=V1,
        pulled=f"{BASE} B",
        moby=(73_476_543, 11, f"{BASE} B"),
        containerd=(73_474_300, 9, f"{BASE} B"),
        podman=(73_475_062, 10, f"{BASE} B"),
    ),
    "b3 recompressed": Row(
        tag="w2recomp",
        pulled="b1 b2 b3recomp b4 b5 B",
        moby=(18_268_932, 9, "b3recomp b4 b5 B"),
        containerd=(9_022_488, 5, "b3recomp B"),
        podman=(9_023_038, 6, "b3recomp B"),
    ),
    "v1 after its removal, beside a recompressed one": Row(
        tag="v1",
        holds="b1 b2 b3recomp b4 b5 B",
        removed=V1,
        pulled=V1,
        moby=(12_711, 6, "A"),
        containerd=(7_950_847, 5, "b3 A"),
        podman=(11_510, 5, "A"),
    ),
}
"""Plain HTTP, OCI manifests."""

TLS: dict[tuple[str, str, bool], tuple[int, int]] = {
    # engine, certificates, by digest: bytes with TLS, bytes on plain HTTP of the same update
    ("moby", "ec", False): (18_021, 12_077),
    ("moby", "ec", True): (15_846, 11_141),
    ("moby", "ec-chain", False): (25_645, 12_077),
    ("moby", "ec-chain", True): (21_950, 11_141),
    ("moby", "rsa-chain", False): (31_819, 12_077),
    ("moby", "rsa-chain", True): (26_863, 11_141),
    ("containerd", "ec", False): (12_991, 10_379),
    ("containerd", "ec", True): (13_064, 10_456),
    ("containerd", "ec-chain", False): (16_019, 10_379),
    ("containerd", "rsa-chain", True): (18_586, 10_456),
    ("podman", "ec", False): (15_596, 10_880),
    ("podman", "ec", True): (15_676, 10_957),
    ("podman", "ec-chain", False): (21_702, 10_880),
    ("podman", "ec-chain", True): (21_781, 10_957),
    ("podman", "rsa-chain", False): (26_638, 10_880),
    ("podman", "rsa-chain", True): (26_715, 10_957),
}
"""The smallest update over TLS; containerd's runs that opened 2 connections."""

TLS_LARGER_CONFIG: dict[tuple[str, str, bool], tuple[int, int]] = {
    ("moby", "ec", False): (24_010, 18_002),
    ("moby", "ec", True): (21_825, 17_055),
    ("moby", "ec-chain", False): (31_615, 18_002),
    ("moby", "ec-chain", True): (27_930, 17_055),
    ("moby", "rsa-chain", False): (37_810, 18_002),
    ("moby", "rsa-chain", True): (32_867, 17_055),
    ("containerd", "ec", False): (18_960, 16_326),
    ("containerd", "ec", True): (19_035, 16_402),
    ("containerd", "ec-chain", False): (22_011, 16_326),
    ("containerd", "ec-chain", True): (22_087, 16_402),
    ("containerd", "rsa-chain", False): (24_478, 16_326),
    ("podman", "ec", False): (21_579, 16_795),
    ("podman", "ec", True): (21_658, 16_871),
    ("podman", "ec-chain", False): (27_685, 16_795),
    ("podman", "ec-chain", True): (27_758, 16_871),
    ("podman", "rsa-chain", False): (32_619, 16_795),
    ("podman", "rsa-chain", True): (32_695, 16_871),
}
"""The same with a config of 5,979 bytes, which the registry sent in several TLS records."""

TLS_THREE_CONNECTIONS: dict[tuple[str, bool], int] = {
    ("ec-chain", True): 18_829,
    ("rsa-chain", False): 22_453,
}
"""The runs in which containerd opened a third."""

TOKENS: dict[tuple[str, int], tuple[int, int]] = {
    # engine, token length: HTTP bytes, requests; anonymous, by tag, plain HTTP
    ("moby", 1000): (18_859, 7),
    ("moby", 2700): (29_059, 7),
    ("containerd", 1000): (20_447, 8),
    ("containerd", 2700): (34_047, 8),
    ("podman", 1000): (16_535, 6),
    ("podman", 2700): (25_035, 6),
}

MINIMAL_PLAIN = {"moby": 12_077, "containerd": 10_379, "podman": 10_880}
"""The same smallest update by tag on plain HTTP, without token."""

MINIMAL = (1190, 521, 6131)
"""Manifest, config and layer bytes of that update. Its repository name was 4 letters shorter
than that of :data:`ROWS`, its tag 4 letters long; by digest its layer was 10 bytes larger."""
