"""The origin story, on real Docker: a 6 KB model below 60 MB of packages that are made anew."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import random
import shutil
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.image import ImageConfig, Layer, build_image
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_image
from tests.e2e.conftest import scratch
from tests.e2e.engines import Containerd, Docker, needs, run
from tests.e2e.wire import CountingProxy, DockerRegistry
from tests.stores.test_trees import on_disk, tar
from tests.support import AMD64, real_layer
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

log = logging.getLogger(__name__)
"""The measured figures: pytest --log-cli-level=INFO shows them."""

PACKAGES = ["numpy==2.2.6", "onnxruntime==1.22.1"]
DOCKERFILE = """
FROM scratch
COPY etc /etc
COPY model.onnx /var/azureml-app/model.onnx
COPY packages /usr/lib/python3/dist-packages
ENTRYPOINT ["/usr/bin/python3", "-m", "score"]
"""


def install(folder: Path) -> None:
    """Packages as each run of the usual build installs them: with times of their own."""
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", sys.executable]
    how = ["--link-mode", "copy", "--compile-bytecode", "--only-binary", ":all:"]
    run(*uv, *how, "--target", str(folder), *PACKAGES)


@dataclass(frozen=True)
class Story:
    """A registry with the usual builds in it, and a device that counts."""

    folder: Path
    registry: DockerRegistry
    proxy: CountingProxy
    device: Docker

    def layout(self, name: str) -> str:
        """The image as a reference of mlpack."""
        return f"oci:{self.folder}/oci:{name}"

    def graft(self, old: str, new: str, out: str) -> dict[str, dict[str, int]]:
        """Graft, publish as ``out``, and return what was said."""
        target = f"oci:{self.folder}/grafts:{out}"
        done = mlpack("--json", "graft", self.layout(old), self.layout(new), "-o", target)
        assert done.exit_code == 0, done.stderr
        to = f"docker://127.0.0.1:{self.registry.port}/fan:{out}"
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", target, to)
        found: dict[str, dict[str, int]] = json.loads(done.stdout)["platforms"]["linux/amd64"]
        return found

    def pull(self, tag: str) -> tuple[int, int]:
        """All bytes on the wire, and those of bodies, of one pull by the device."""
        self.proxy.take()
        self.registry.bodies()
        self.device.pull(f"127.0.0.1:{self.proxy.port}/fan:{tag}")
        return self.proxy.take().total, self.registry.bodies()

    def files(self, tag: str) -> Mapping[str, tuple[object, ...]]:
        """What a container of the image sees, in Docker's own words, but for times."""
        name = f"127.0.0.1:{self.proxy.port}/fan:{tag}"
        container = run(*self.device.command("create", name, "/none"))
        archive = self.folder / "export.tar"
        run(*self.device.command("export", "-o", str(archive), container))
        run(*self.device.command("rm", container))
        return dict(exported(archive))


def exported(path: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The members of ``docker export``; what was compiled is looked at without its time."""
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            held = content.read() if content else b""
            if member.name.endswith(".pyc"):
                held = held[:8] + held[12:]
            digest = hashlib.sha256(held).hexdigest()
            owner = (member.uid, member.gid, member.mode)
            yield member.name, (member.type, *owner, member.linkname, digest)


@pytest.fixture(scope="module")
def story(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Three usual builds: version 1, the same made anew, and version 2."""
    needs("docker-registry", "skopeo")
    folder = tmp_path_factory.mktemp("story")
    context = folder / "context"
    (context / "etc").mkdir(parents=True)
    (context / "etc" / "os-release").write_text("NAME=edge\n")
    (context / "Dockerfile").write_text(DOCKERFILE)
    with (
        DockerRegistry.started(folder / "registry") as registry,
        CountingProxy.started(registry.port) as proxy,
        scratch() as place,
        Docker.started(place / "device") as device,
    ):
        for tag, seed in (("1", 1), ("1b", 1), ("2", 2)):
            (context / "model.onnx").write_bytes(random.Random(seed).randbytes(6000))
            shutil.rmtree(context / "packages", ignore_errors=True)
            install(context / "packages")
            name = f"127.0.0.1:{registry.port}/fan:{tag}"
            run(*docker.command("build", "-q", "--no-cache", "-t", name, str(context)))
            run(*docker.command("push", "-q", name))
            to = f"oci:{folder}/oci:{tag}"
            run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", to)
        story = Story(folder, registry, proxy, device)
        story.pull("1")
        yield story


def test_a_new_model_costs_its_own_size(story: Story) -> None:
    said = story.graft("1", "2", "2-graft")
    after, bodies = story.pull("2-graft")
    before, whole = story.pull("2")
    log.info("%s bytes before, %s after graft, %s", before, after, said["layer"])
    assert whole > 50_000_000
    assert said["layer"]["bytes"] < 7_000
    assert after < 20_000
    predicted = said["transfer_graft"]
    assert bodies == pytest.approx(
        predicted["manifest"] + predicted["config"] + predicted["layers"], rel=0.01
    )
    assert story.files("2-graft") == story.files("2")


def test_packages_made_anew_cost_next_to_nothing(story: Story) -> None:
    said = story.graft("1", "1b", "1b-graft")
    after, _ = story.pull("1b-graft")
    before, whole = story.pull("1b")
    log.info("%s bytes before, %s after graft, %s", before, after, said["layer"])
    assert whole > 50_000_000
    assert said.get("layer") is None
    assert after < 10_000
    assert story.files("1b-graft") == story.files("1b")


FOLDER, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Members = list[tuple[str, Mapping[str, object], bytes]]
OLD: Members = [
    ("d", {"type": FOLDER}, b""),
    *((f"d/{name}", {}, name.encode()) for name in ("x", "y", "z")),
    ("kept", {"type": FOLDER, "mode": 0o1777, "uid": 7}, b""),
    *((f"kept/{name}", {"uid": 1000}, name.encode()) for name in ("here", "gone")),
    ("turns", {}, b"into a directory"),
    ("was", {"type": FOLDER}, b""),
    ("was/in", {}, b"a directory"),
    ("way", {"type": FOLDER}, b""),
    ("way/in", {}, b"a directory"),
    ("a", {}, b"linked"),
    ("b", {"type": HARD, "linkname": "a"}, b""),
    ("lib", {"type": LINK, "linkname": "kept"}, b""),
]
NEW: Members = [
    ("d", {"type": FOLDER, "mode": 0o700}, b""),
    *((f"d/{name}", {"mode": 0o4755}, b"new") for name in ("!first", "-second", "zz")),
    ("kept", {"type": FOLDER, "mode": 0o1777, "uid": 7}, b""),
    ("kept/here", {"uid": 1000}, b"here"),
    ("kept/" + "long" * 30 + "/" + "name" * 30, {"uid": 3_000_000, "gid": 5}, b"far"),
    ("turns", {"type": FOLDER}, b""),
    ("turns/into", {}, b"a directory"),
    ("was", {}, b"a file"),
    ("way", {"type": LINK, "linkname": "../../kept"}, b""),
    ("a", {"mode": 0o755}, b"linked anew"),
    ("b", {"type": HARD, "linkname": "a", "mode": 0o755}, b""),
    ("c", {"type": HARD, "linkname": "a", "mode": 0o755}, b""),
    ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}, b""),
    ("pipe", {"type": tarfile.FIFOTYPE}, b""),
    ("unit\\x2d.slice", {}, b"backslash"),
    ("caf\udce9", {}, b"no UTF-8"),
    ("gr\u00fc\u00dfe", {"pax_headers": {"SCHILY.xattr.user.said": "hello"}}, b"attribute"),
]


@pytest.fixture(scope="module")
def hard_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout with an image ``new`` of all that is difficult, and its graft on another."""
    store = LayoutStore(tmp_path_factory.mktemp("hard") / "oci")
    for name, members in (("old", OLD), ("new", NEW)):
        content = tar(*members)
        target = Descriptor.of(content, media.LAYER_TAR)
        store.put(target, io.BytesIO(content))
        # Something large below, so that the graft is the cheaper way.
        base = real_layer(store, {"big": random.Random(3).randbytes(300_000)})
        layers = (
            [base, Layer(target, target.digest)]
            if name == "old"
            else [Layer(target, target.digest), base]
        )
        image = build_image(ImageConfig(platform=AMD64, cmd=("/none",)), layers)
        store.tag(put_image(store, image), name)
    names = [f"oci:{store.root}:{name}" for name in ("old", "new", "graft")]
    done = mlpack("--json", "graft", *names[:2], "-o", names[2])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["platforms"]["linux/amd64"]["strategy"] == "graft"
    return store.root


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_engines_unpack_a_graft_as_the_image_it_stands_for(
    name: str, hard_case: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    engine = request.getfixturevalue(name)
    seen = {}
    for tag in ("new", "graft"):
        engine.load(f"oci:{hard_case}:{tag}", f"localhost/hard:{tag}")
        container = run(*engine.command("create", f"localhost/hard:{tag}"))
        run(*engine.command("export", "-o", str(tmp_path / tag), container))
        run(*engine.command("rm", container))
        seen[tag] = dict(exported(tmp_path / tag))
    assert seen["graft"] == seen["new"]
    assert {"d/!first", "turns/into", "null", "c"} <= set(seen["graft"])


def test_containerd_unpacks_a_graft_as_the_image_it_stands_for(
    containerd: Containerd, hard_case: Path, tmp_path: Path
) -> None:
    seen = {}
    for tag in ("new", "graft"):
        containerd.load(f"oci:{hard_case}:{tag}", f"localhost/hard:{tag}")
        place = tmp_path / tag
        place.mkdir()
        run(*containerd.command("images", "mount", f"localhost/hard:{tag}", str(place)))
        try:
            seen[tag] = on_disk(place)
        finally:
            run(*containerd.command("images", "unmount", "--rm", str(place)))
    assert seen["graft"] == seen["new"]
    attributes = [
        node.xattrs for path, node in seen["graft"].items() if path.startswith("gr\u00fc")
    ]
    assert attributes == [(("user.said", b"hello"),)]
