"""What mlpack writes is read back by the tools that are to read it: each writer by each reader.

Images come with Docker's and with OCI's media types, for one platform and for two, with layers of
gzip, plain tar and zstd. What a reader cannot take from anybody is in :data:`UNREADABLE`.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, Platform, Reference
from mlpack.oci.image import Image, ImageConfig, Layer, build_image, build_index
from mlpack.project.directory import ProjectDirectory
from mlpack.registry.repository import Registries, RegistryStore
from mlpack.registry.serve.app import create_app
from mlpack.stores.layout import REF_NAME, LayoutStore
from mlpack.stores.records import MODEL, VERSION
from mlpack.stores.store import manifests, put_bytes, put_image
from tests.cli.test_base_from_registry import PYTHON
from tests.docker_images import as_docker, families
from tests.e2e.conftest import scratch
from tests.e2e.engines import Containerd, Docker, Podman, needs
from tests.e2e.wire import DockerRegistry
from tests.registry.serve.server import listening
from tests.stores.test_trees import tar
from tests.support import AMD64, ARM64, tiny_onnx
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

log = logging.getLogger(__name__)
"""The rows of the table: pytest --log-cli-level=INFO shows them."""

PACK: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": (media.LAYER_GZIP, lambda content: gzip.compress(content, mtime=0)),
    "tar": (media.LAYER_TAR, bytes),
    "zstd": (media.LAYER_ZSTD, zstandard.compress),
}
UNREADABLE = {
    ("umoci", "zstd"),
    ("docker", "zstd"),
    ("skopeo", "docker zstd"),
    ("podman", "docker zstd"),
}
"""umoci 0.4 and Docker 20.10 know no zstd, and only containerd Docker's media type for it. umoci
reads no registry."""

SECONDS = 120


@dataclass(frozen=True)
class Input:
    """One kind of image."""

    family: str
    many: bool
    layers: str

    def __str__(self) -> str:
        return f"{self.family}-{'list' if self.many else 'single'}-{self.layers}"

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """What it is for."""
        return (AMD64, ARM64) if self.many else (AMD64,)


ALL = [
    Input(family, many, layers)
    for family in ("docker", "oci")
    for many in (False, True)
    for layers in PACK
]


@dataclass(frozen=True)
class Written:
    """Where a writer put an image: ``oci:PATH:TAG``, or a name in a registry."""

    place: str
    kept: str = "oci"
    """Whose media types it has: a registry keeps Docker's."""

    @property
    def in_layout(self) -> bool:
        """Whether it is in a layout."""
        return self.place.startswith("oci:")

    def readable(self, reader: str, layers: str) -> bool:
        """Whether ``reader`` takes such images from anybody."""
        if reader == "umoci" and not self.in_layout:
            return False
        return not {(reader, layers), (reader, f"{self.kept} {layers}")} & UNREADABLE

    @property
    def skopeo(self) -> str:
        """What skopeo calls it."""
        return self.place if self.in_layout else f"docker://{self.place}"


@dataclass(frozen=True)
class Shop:
    """A registry with the inputs in it, engines, and a folder."""

    folder: Path
    host: str
    docker: Docker
    podman: Podman
    containerd: Containerd

    def run(self, *args: str | Path) -> dict[str, Any]:
        """Run mlpack, which must work."""
        done = mlpack("--json", *map(str, args))
        assert done.exit_code == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def named(self, given: Input, version: str) -> str:
        """The name of an input in the registry."""
        return f"{self.host}/in/{given}:{version}"

    def new(self, name: str) -> Path:
        """A folder that nobody has used."""
        made = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        made.mkdir()
        return made

    def project(self) -> ProjectDirectory:
        """An empty project whose repository is in the registry."""
        root = self.new("fan")
        (root / "mlpack.toml").write_text('[model]\nname = "fan"\n')
        (root / "requirements.in").write_text("")
        return ProjectDirectory(root)


def image(store: RegistryStore, given: Input, version: str, platform: Platform) -> Image:
    """A shell that is none, and a version in a layer above it."""
    size = random.Random(f"{platform}").randbytes(60_000)
    labels = {MODEL: "fan", VERSION: version, "io.mlpack.digest": f"sha256:{'0' * 64}"}
    kind, pack = PACK[given.layers]
    layers = []
    for files in ({"app": version.encode()}, {**PYTHON, "big": size}):
        # Built again, with other times, as usual builds are: NEW shares no layer with OLD.
        fields = {"mode": 0o755, "mtime": int(version)}
        content = tar(*((name, fields, held) for name, held in files.items()))
        packed = pack(content)
        target = Descriptor.of(packed, kind)
        store.put(target, io.BytesIO(packed))
        layers.append(Layer(target, Digest.of(content)))
    config = ImageConfig(
        platform=platform, cmd=("/none",), labels=labels, env=("PATH=/usr/local/bin",)
    )
    made = build_image(config, layers)
    put_image(store, made)
    return made


def fill(host: str, given: Input) -> None:
    """Put both versions of an input into the registry."""
    with Registries() as registries:
        store = registries.store(Reference.parse(f"{host}/in/{given}"), push=True)
        for version in ("1", "2"):
            made = [image(store, given, version, each) for each in given.platforms]
            index = build_index(made)
            target = (
                put_bytes(store, index.content, media.INDEX) if given.many else made[0].descriptor
            )
            target = as_docker(store, target) if given.family == "docker" else target
            store.tag(target, version)
            assert families(store, target) == {given.family}


@pytest.fixture(scope="module")
def shop(
    docker: Docker,
    podman: Podman,
    containerd: Containerd,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    """All inputs in one registry."""
    needs("skopeo", "umoci")
    with (
        DockerRegistry.started(tmp_path_factory.mktemp("registry")) as registry,
        scratch() as folder,
    ):
        host = f"127.0.0.1:{registry.port}"
        for each in ALL:
            fill(host, each)
        yield Shop(folder, host, docker, podman, containerd)


def to_layout(shop: Shop, given: Input) -> Iterator[Written]:
    """``mlpack copy`` to a layout, twice."""
    place = f"oci:{shop.new('copy') / 'oci'}:img"
    for _ in range(2):
        shop.run("copy", shop.named(given, "2"), place)
    yield Written(place)


def to_registry(shop: Shop, given: Input) -> Iterator[Written]:
    """``mlpack copy`` between repositories, and by way of a layout."""
    said = shop.run("copy", shop.named(given, "2"), f"{shop.host}/copy/{given}:2")
    assert said["mounted"]
    yield Written(said["reference"], given.family)
    aside = f"oci:{shop.new('relay') / 'oci'}:img"
    shop.run("copy", shop.named(given, "2"), aside)
    relayed = shop.run("copy", aside, f"{shop.host}/relay/{given}:2")
    assert relayed["digest"] == said["digest"]
    yield Written(relayed["reference"], given.family)


def pull(shop: Shop, given: Input) -> Iterator[Written]:
    """``mlpack pull`` into a project's store."""
    project = shop.project()
    shop.run("-C", project.root, "pull", shop.named(given, "2"))
    yield Written(f"oci:{project.layout.root}:fan-2")


def push(shop: Shop, given: Input) -> Iterator[Written]:
    """``mlpack push`` of a release that was pulled."""
    project = shop.project()
    shop.run("-C", project.root, "pull", shop.named(given, "2"))
    said = shop.run("-C", project.root, "push", "fan:2", "--to", f"{shop.host}/push/{given}")
    yield Written(said["reference"], given.family)


def graft(shop: Shop, given: Input) -> Iterator[Written]:
    """``mlpack graft`` to a layout, a registry and a release."""
    project = shop.project()
    pair = [shop.named(given, each) for each in ("1", "2")]
    place = f"oci:{shop.new('graft') / 'oci'}:img"
    engine = ("--engine", "containerd")
    said = shop.run("graft", *pair, "-o", place, *engine)
    assert {each["strategy"] for each in said["platforms"].values()} == {"graft"}
    yield Written(place)
    said = shop.run("graft", *pair, "-o", f"{shop.host}/graft/{given}:2", *engine)
    yield Written(said["reference"])
    shop.run("-C", project.root, "graft", *pair, "-o", "fan:2", *engine)
    yield Written(f"oci:{project.layout.root}:fan-2")


def serve(shop: Shop, given: Input) -> Iterator[Written]:
    """``mlpack registry serve``, pushed to by skopeo: as a registry, and its layout."""
    if not Written(shop.named(given, "2"), given.family).readable("skopeo", given.layers):
        return  # no tool pushes it
    layout = LayoutStore(shop.new("served") / "oci")
    with listening(create_app(layout)) as port:
        place = f"127.0.0.1:{port}/served/{given}:2"
        plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
        source = f"docker://{shop.named(given, '2')}"
        call("skopeo", "copy", "-q", "--all", *plain, source, f"docker://{place}")
        yield Written(place, given.family)
        yield Written(f"oci:{layout.root}:served/{given}/2")


def base_build(shop: Shop, given: Input) -> Iterator[Written]:
    """``mlpack base build`` from an image, and a release on that base."""
    if given.layers == "zstd":
        return  # refused: Docker 20.10 unpacks no such base
    project = shop.project()
    platforms = json.dumps([str(each) for each in given.platforms])
    settings = f'[base]\nfrom = "{shop.named(given, "1")}"\nplatforms = {platforms}\n'
    (project.root / "mlpack.toml").write_text(f'[model]\nname = "fan"\n{settings}')
    shop.run("-C", project.root, "base", "build")
    yield Written(f"oci:{project.layout.root}:base")


def build(shop: Shop, given: Input) -> Iterator[Written]:
    """``mlpack build`` on a base in a registry that another tool made."""
    project = shop.project()
    model = tiny_onnx(project.root / "model.onnx")
    shop.run("-C", project.root, "register", model, "--name", "fan")
    to = f"{shop.host}/build/{given}"
    command = ("build", "fan", "--base", shop.named(given, "1"), "--to", to, "--no-start")
    yield Written(shop.run("-C", project.root, *command)["pushed"]["reference"])


WRITERS = {
    each.__name__: each
    for each in (to_layout, to_registry, pull, push, graft, serve, base_build, build)
}


def call(*command: str) -> str:
    """Run a program; raise :class:`Refused` with its words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        raise Refused(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


class Refused(Exception):
    """A reader that did not read."""


def skopeo(shop: Shop, written: Written) -> None:
    """Read every blob of every platform."""
    out = shop.new("skopeo")
    command = ("skopeo", "copy", "-q", "--all", "--src-tls-verify=false")
    call(*command, written.skopeo, f"dir:{out}/image")
    config = json.loads(call("skopeo", "inspect", "--config", "--tls-verify=false", written.skopeo))
    assert config["architecture"] == "amd64"


def umoci(shop: Shop, written: Written) -> None:
    """Unpack the image, or each of the list, from its layout; umoci takes no list by itself."""
    root, _, tag = written.place.removeprefix("oci:").rpartition(":")
    named = [each for each in LayoutStore(Path(root)).listed() if each.annotations[REF_NAME] == tag]
    unpacked(shop, Path(root), named[0])


def unpacked(shop: Shop, root: Path, entry: Descriptor) -> None:
    """Have umoci unpack ``entry`` of the layout at ``root``, under names that it knows."""
    aside, layout = shop.new("umoci"), LayoutStore(root)
    entries = [replace(each, annotations={}) for each in manifests(layout, entry)]
    shutil.copy(root / "oci-layout", aside)
    (aside / "blobs").symlink_to(root / "blobs")
    for number, each in enumerate(entries):
        listed = [{**each.to_json(), "annotations": {REF_NAME: "img"}}]
        (aside / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
        call("umoci", "unpack", "--image", f"{aside}:img", str(aside / str(number)))


def podman(shop: Shop, written: Written) -> None:
    """Pull it."""
    if written.in_layout:
        root, _, tag = written.place.removeprefix("oci:").rpartition(":")
        link = shop.new("podman") / "oci"
        link.symlink_to(root)
        place = f"oci:{link}:{tag}"
    else:
        place = written.place
    call(*shop.podman.command("pull", "-q", "--tls-verify=false", place))


def ctr(shop: Shop, written: Written) -> None:
    """Pull and unpack it; a layout is imported as a tar of its own."""
    if not written.in_layout:
        call(*shop.containerd.command("images", "pull", "--plain-http", written.place))
        return
    root = written.place.removeprefix("oci:").rpartition(":")[0]
    archive = shop.new("ctr") / "layout.tar"
    names = ("oci-layout", "index.json", "blobs")
    call("tar", "-cf", str(archive), "-C", root, *names)
    call(*shop.containerd.command("images", "import", "--base-name", "read", str(archive)))


def docker(shop: Shop, written: Written) -> None:
    """Pull it; an image of a layout is loaded by way of skopeo, since Docker reads no layout."""
    if not written.in_layout:
        call(*shop.docker.command("pull", "-q", written.place))
        return
    archive = shop.new("docker") / "image.tar"
    call("skopeo", "copy", "-q", written.place, f"docker-archive:{archive}:read:img")
    call(*shop.docker.command("load", "-q", "-i", str(archive)))


def read_by_all(shop: Shop, what: str, given: Input, written: Written) -> list[str]:
    """Have every reader read it; return what those said that could not."""
    wrong, row = [], {}
    for name, reader in READERS.items():
        if not written.readable(name, given.layers):
            row[name] = "-"
            continue
        try:
            reader(shop, written)
            row[name] = "read"
        except (Refused, AssertionError, subprocess.TimeoutExpired) as error:
            row[name] = "NOT"
            wrong.append(f"{name} does not read {written.place}: {error}")
    log.info("%s %s %s %s", what, given, "layout" if written.in_layout else "registry", row)
    return wrong


READERS = {each.__name__: each for each in (skopeo, umoci, podman, ctr, docker)}


@pytest.mark.parametrize("given", ALL, ids=str)
@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_written_is_read(writer: str, given: Input, shop: Shop) -> None:
    for written in WRITERS[writer](shop, given):
        wrong = read_by_all(shop, writer, given, written)
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("given", ALL, ids=str)
@pytest.mark.parametrize("engine", ["containerd", "podman", "moby"])
def test_a_bundle_is_read(engine: str, given: Input, shop: Shop) -> None:
    """By its engine, and by whoever reads such a file (podman's is compressed)."""
    out = shop.new("bundle") / "bundle.tar"
    command = ("bundle", "make", shop.named(given, "2"), "--onto", "none", "--name", "read.io/b:1")
    done = mlpack(*command, "--platform", "linux/amd64", "--engine", engine, "-o", str(out))
    assert done.exit_code == 0, done.stderr
    if engine == "moby":
        call(*shop.docker.command("load", "-q", "-i", str(out)))
        # skopeo 1.9 reads no compressed docker-archive, whoever compressed it.
        plain = out.with_name("plain.tar")
        plain.write_bytes(gzip.decompress(out.read_bytes()))
        call("skopeo", "copy", "-q", f"docker-archive:{plain}", f"dir:{shop.new('skopeo')}/image")
        return
    if engine == "podman":
        call(*shop.podman.command("load", "-q", "-i", str(out)))
    else:
        call(*shop.containerd.command("images", "import", str(out)))
    call("skopeo", "copy", "-q", f"oci-archive:{out}", f"dir:{shop.new('skopeo')}/image")
    if ("umoci", given.layers) not in UNREADABLE:
        root = shop.new("bundle")
        call("tar", "-xf", str(out), "-C", str(root))
        unpacked(shop, root, LayoutStore(root).listed()[0])


def test_a_base_of_packages_is_read(real_project: ProjectDirectory, shop: Shop) -> None:
    """``mlpack base build`` from Debian's packages."""
    # The project's layout has releases of other tests, some with an image left out.
    root = shop.new("base")
    copied = mlpack("-C", str(real_project.root), "copy", "base", f"oci:{root}/oci:base")
    assert copied.exit_code == 0, copied.output
    written = Written(f"oci:{root}/oci:base")
    wrong = read_by_all(shop, "base_build", Input("oci", True, "gzip"), written)
    assert not wrong, "\n".join(wrong)
