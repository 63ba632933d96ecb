"""Images that some engine may not take, put into a registry as they are."""

from __future__ import annotations

import bz2
import gzip
import http.client
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import zstandard

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import Image, Index
from tests.stores.test_trees import tar

Member = tuple[str, Mapping[str, object], bytes]
Members = Sequence[Member]
Json = dict[str, object]
FOLDER, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
UNSHARED = "application/vnd.oci.image.layer.nondistributable.v1.tar"
TIMEOUT = 60


def file(name: str, content: str = "x", **fields: object) -> Member:
    """A file, or a whiteout by its name."""
    return name, fields, content.encode()


def folder(name: str, **fields: object) -> Member:
    """A directory."""
    return name, {"type": FOLDER, "mode": 0o755, **fields}, b""


def link(name: str, target: str, **fields: object) -> Member:
    """A symlink."""
    return name, {"type": LINK, "linkname": target, "mode": 0o777, **fields}, b""


def hard(name: str, target: str, **fields: object) -> Member:
    """A hardlink."""
    return name, {"type": HARD, "linkname": target, **fields}, b""


def attribute(name: str, value: str) -> dict[str, Any]:
    """The field of a member with an extended attribute."""
    return {"pax_headers": {f"SCHILY.xattr.{name}": value}}


BASE: Members = (
    folder("d"),
    file("d/a", "a"),
    file("d/b", "b"),
    folder("kept", mode=0o700, uid=33, gid=34),
    file("kept/in"),
    link("lnk", "d"),
    link("abs", "/d"),
    link("far", "lnk"),
    link("dangling", "made/later"),
    file("h1", "hard"),
    hard("h2", "h1"),
)
zipped = partial(gzip.compress, compresslevel=6, mtime=0)


def skippable(content: bytes) -> bytes:
    """zstd whose first frame is for other readers."""
    return b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"head" + zstandard.compress(content)


@dataclass
class Case:
    """An image, what it is pulled by, and the blobs of both."""

    name: str
    documents: dict[Digest, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    image: Image | None = None
    index: Index | None = None

    @property
    def whole(self) -> Image:
        """The image."""
        assert self.image is not None
        return self.image

    @contextmanager
    def open(self, target: Descriptor) -> Iterator[BinaryIO]:
        """Open a blob, as a store does."""
        yield io.BytesIO(self.blobs[target.digest])

    def exists(self, target: Descriptor) -> bool:
        """Whether there is such a blob."""
        return target.digest in self.blobs

    def resolve(self, name: str) -> Descriptor:
        """A case has no names."""
        raise KeyError(name)

    def blob(self, content: bytes, kind: str) -> Json:
        """Keep a blob."""
        made = Descriptor.of(content, kind)
        self.blobs[made.digest] = content
        return made.to_json()

    def document(self, value: Json, kind: str) -> Json:
        """Keep a manifest or an index."""
        content = json.dumps({"schemaVersion": 2, "mediaType": kind, **value}).encode()
        made = Descriptor.of(content, kind)
        self.documents[made.digest] = (kind, content)
        return made.to_json()

    def put(self, port: int) -> str:
        """Upload everything to a repository of its own; return the reference."""
        repository = "case/" + Digest.of(self.name.encode()).short
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)) as to:
            for digest, content in self.blobs.items():
                place = self._send(
                    to, "POST", f"/v2/{repository}/blobs/uploads/", b"", "text/plain"
                )
                place = place.partition(f":{port}")[2]
                place += f"{'&' if '?' in place else '?'}digest={digest}"
                self._send(to, "PUT", place, content, "application/octet-stream")
            for digest, (kind, content) in self.documents.items():
                self._send(to, "PUT", f"/v2/{repository}/manifests/{digest}", content, kind)
        return f"127.0.0.1:{port}/{repository}@{list(self.documents)[-1]}"

    def _send(
        self, to: http.client.HTTPConnection, method: str, path: str, body: bytes, kind: str
    ) -> str:
        to.request(method, path, body, {"Content-Type": kind})
        answer = to.getresponse()
        said = answer.read().decode()
        assert answer.status in (201, 202), f"{self.name}: {said}"
        return answer.headers.get("Location", "")


@dataclass(frozen=True, kw_only=True)
class Types:
    """The media types of an image, and how its top layer is packed."""

    manifest: str = media.MANIFEST
    config: str = media.CONFIG
    layer: str = media.LAYER_GZIP
    pack: Callable[[bytes], bytes] = zipped
    urls: bool = False


DOCKER = Types(
    manifest=media.DOCKER_MANIFEST, config=media.DOCKER_CONFIG, layer=media.DOCKER_LAYER_GZIP
)
PLATFORMS = {name: {"os": "linux", "architecture": name} for name in ("amd64", "arm64")}


def add_image(
    case: Case, *layers: Members | bytes, types: Types, architecture: str = "amd64"
) -> Json:
    """An image of ``layers``; what is unique keeps engines from reusing another case's."""
    unique = file("case", f"{case.name} {architecture}")
    tars = [each if isinstance(each, bytes) else tar(*each) for each in layers]
    if not isinstance(layers[-1], bytes):
        tars[-1] = tar(*layers[-1], unique)
    docker = types.layer.startswith("application/vnd.docker")
    below = media.DOCKER_LAYER_GZIP if docker else media.LAYER_GZIP
    listed = [case.blob(zipped(each), below) for each in tars[:-1]]
    more: Json = {"urls": ["https://example.invalid/layer"]} if types.urls else {}
    listed.append({**case.blob(types.pack(tars[-1]), types.layer), **more})
    diffs = [str(Digest.of(each)) for each in tars]
    config = {
        **PLATFORMS[architecture],
        "config": {"Cmd": ["/none"], "Labels": {"case": case.name}},
        "rootfs": {"type": "layers", "diff_ids": diffs},
    }
    content = json.dumps(config).encode()
    described = case.blob(content, types.config)
    made = case.document({"config": described, "layers": listed}, types.manifest)
    if architecture == "amd64":
        _, manifest = list(case.documents.values())[-1]
        case.image = Image(manifest, content)
    return made


def one(name: str, *layers: Members | bytes, types: Types | None = None) -> Case:
    """A case of a single image."""
    case = Case(name)
    add_image(case, *layers, types=types or Types())
    return case


APP: Members = (file("app", "1"),)
OCI_TAR, DOCKER_TAR = media.LAYER_TAR, "application/vnd.docker.image.rootfs.diff.tar"
OCI_IN_DOCKER = Types(manifest=media.DOCKER_MANIFEST, config=media.DOCKER_CONFIG)
TYPES: Mapping[str, Types] = {
    "OCI": Types(),
    "Docker": DOCKER,
    "plain": Types(layer=OCI_TAR, pack=bytes),
    "zstd": Types(layer=media.LAYER_ZSTD, pack=zstandard.compress),
    "zstd, a frame to skip first": Types(layer=media.LAYER_ZSTD, pack=skippable),
    "zstd called gzip": Types(pack=zstandard.compress),
    "zstd called tar": Types(layer=OCI_TAR, pack=zstandard.compress),
    "Docker's zstd": Types(
        manifest=media.DOCKER_MANIFEST,
        config=media.DOCKER_CONFIG,
        layer=f"{DOCKER_TAR}.zstd",
        pack=zstandard.compress,
    ),
    "gzip called tar": Types(layer=OCI_TAR),
    "gzip called zstd": Types(layer=media.LAYER_ZSTD),
    "tar called gzip": Types(pack=bytes),
    "xz called tar": Types(layer=OCI_TAR, pack=lzma.compress),
    "xz called gzip": Types(pack=lzma.compress),
    "bzip2 called tar": Types(layer=OCI_TAR, pack=bz2.compress),
    "bzip2 called gzip": Types(pack=bz2.compress),
    "not to be shared": Types(layer=f"{UNSHARED}+gzip"),
    "not to be shared, zstd": Types(layer=f"{UNSHARED}+zstd", pack=zstandard.compress),
    "with urls": Types(layer=f"{UNSHARED}+gzip", urls=True),
    "foreign with urls": Types(
        manifest=media.DOCKER_MANIFEST, config=media.DOCKER_CONFIG, layer=FOREIGN, urls=True
    ),
    "unknown layer": Types(layer="application/vnd.example.layer"),
    "octets": Types(layer="application/octet-stream"),
    "OCI layers in Docker's manifest": OCI_IN_DOCKER,
    "OCI config in Docker's manifest": Types(
        manifest=media.DOCKER_MANIFEST, layer=media.DOCKER_LAYER_GZIP
    ),
    "Docker's layers in OCI's manifest": Types(layer=media.DOCKER_LAYER_GZIP),
    "Docker's config in OCI's manifest": Types(config=media.DOCKER_CONFIG),
    "unknown config": Types(config="application/vnd.example.config+json"),
    "octets as config": Types(config="application/octet-stream"),
}
LAYERS: Mapping[str, Sequence[Members | bytes]] = {
    "a file through a symlink": [[file("lnk/new")]],
    "a file through an absolute symlink": [[file("abs/new")]],
    "a file through two symlinks": [[file("far/new")]],
    "a file through a dangling symlink": [[file("dangling/new")]],
    "a file changed through a symlink": [[file("lnk/a", "changed")]],
    "a directory through a symlink": [[folder("lnk/sub"), file("lnk/sub/x")]],
    "a directory in a symlink's place": [[folder("lnk"), file("lnk/new")]],
    "a whiteout through a symlink": [[file("lnk/.wh.a", "")]],
    "an opaque mark through a symlink": [[file("lnk/.wh..wh..opq", ""), file("d/new")]],
    "a hardlink through a symlink": [[file("d/new"), hard("lnk/other", "d/new")]],
    "a hardlink to a path through a symlink": [[file("lnk/new"), hard("other", "lnk/new")]],
    "a symlink and a file through it": [[folder("e"), link("le", "e"), file("le/new")]],
    "a symlink down and a file through it": [[link("le", "d"), file("le/new")]],
    "a symlink, then a layer through it": [[folder("e"), link("le", "e")], [file("le/new")]],
    "an opaque root": [[file(".wh..wh..opq", ""), file("only")]],
    "an opaque root, last": [[file("only"), file(".wh..wh..opq", "")]],
    "an opaque directory": [[folder("d"), file("d/.wh..wh..opq", ""), file("d/new")]],
    "an opaque directory not listed": [[file("d/.wh..wh..opq", ""), file("d/new")]],
    "a whiteout of one hardlink": [[file(".wh.h2", "")]],
    "a whiteout of the first hardlink": [[file(".wh.h1", "")]],
    "one hardlink changed": [[file("h1", "other")]],
    "a hardlink into a layer below": [[hard("h3", "h1")]],
    "a hardlink to a symlink": [[link("s1", "d/a"), hard("s2", "s1")]],
    "a whiteout of nothing": [[file(".wh.nothing", ""), file("d/.wh.nope", "")]],
    "a whiteout and the file": [[file("d/.wh.a", ""), file("d/a", "again")]],
    "the file and a whiteout": [[file("d/a", "again"), file("d/.wh.a", "")]],
    "a directory removed and made": [[file(".wh.d", ""), folder("d"), file("d/q")]],
    "parents not listed": [[file("x/y/z")]],
    "a parent of another not listed": [[file("kept/new")]],
    "a whiteout below such a parent": [[file("kept/.wh.in", "")]],
    "a file twice": [[file("n", "1"), file("n", "2")]],
    "a directory twice": [[folder("n"), folder("./n", mode=0o700)]],
    "a directory, then a file": [[folder("q"), file("q/a"), file("q", "now")]],
    "a directory becomes a file": [[file("d", "now")]],
    "a file becomes a directory": [[folder("h1"), file("h1/in")]],
    "absolute names": [[file("/d/a", "changed")]],
    "large owners": [[file("big", uid=2**31 - 1, gid=2**32 - 2)]],
    "an attribute": [[file("n", **attribute("user.said", "hello"))]],
    "an attribute of a symlink": [[link("n", "d", **attribute("user.said", "hello"))]],
    "overlayfs's attribute": [[folder("d", **attribute("trusted.overlay.opaque", "y"))]],
    "setuid": [[file("su", mode=0o4755), folder("srv", mode=0o2775, gid=50)]],
    "no byte": [b""],
}


def cases() -> Iterator[Case]:
    """Every case but those of many layers."""
    for name, types in TYPES.items():
        yield one(name, BASE, APP, types=types)
    for name, layers in LAYERS.items():
        yield one(name, BASE, *layers)
    for kind, types in ((media.INDEX, Types()), (media.DOCKER_INDEX, DOCKER)):
        for told in (True, False):
            for order in (("amd64", "arm64"), ("arm64", "amd64"), ("amd64",)):
                yield _indexed(kind, types, told, order)
        for told in (True, False):
            yield _nested(kind, types, told)


def _indexed(kind: str, types: Types, told: bool, order: Sequence[str]) -> Case:
    case = Case(f"{kind} {'with' if told else 'without'} platforms of {' '.join(order)}")
    listed = []
    for each in order:
        made = add_image(case, BASE, APP, types=types, architecture=each)
        listed.append({**made, **({"platform": PLATFORMS[each]} if told else {})})
    case.document({"manifests": listed}, kind)
    case.index = Index(list(case.documents.values())[-1][1])
    return case


def _nested(kind: str, types: Types, told: bool) -> Case:
    case = Case(f"{kind} nested, {'with' if told else 'without'} platform")
    made = add_image(case, BASE, APP, types=types)
    inner = case.document({"manifests": [{**made, "platform": PLATFORMS["amd64"]}]}, kind)
    more = {"platform": PLATFORMS["amd64"]} if told else {}
    case.document({"manifests": [{**inner, **more}]}, kind)
    case.index = Index(list(case.documents.values())[-1][1])
    return case


def deep(count: int) -> Case:
    """An image of ``count`` layers; those below the top are in every deeper one."""
    return one(f"{count} layers", *[[file(f"f{number}")] for number in range(count)])
