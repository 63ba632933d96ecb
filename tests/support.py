"""Content made for tests: layers and images from names, a project with a base, a tiny model."""

from __future__ import annotations

import atexit
import io
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner, Result

from mlpack.api.base import BuiltBase, build
from mlpack.api.requests import BuildBase
from mlpack.api.session import Clock, Session
from mlpack.cli.main import cli
from mlpack.model.lock import Lock, LockedBase, LockedLayer, LockedPackage, LockedPlatform
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, Hashing, Platform
from mlpack.oci.image import Image, ImageConfig, Layer, build_image, build_index
from mlpack.oci.layer import PACKING, Entry, write_layer
from mlpack.project.directory import ProjectDirectory
from mlpack.stores.store import Store, put_bytes, put_image

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real models, images and manifests beside the checkout; not part of the project."""

PROFILE = os.environ.get("MLPACK_TEST_PROFILE", "default")
"""How often tests of random input repeat: ``default``, or ``full`` as in CI."""

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
ROLES = ("debian", "packages", "runtime", "entry")


def require(path: Path) -> Path:
    """``path``, or a skip with the reason; in CI a missing one is a failure."""
    if not path.exists():
        unavailable(f"{path} is not there")
    return path


@contextmanager
def own_environment() -> Iterator[None]:
    """Undo at the end what a module opened in this process exports for its script."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def unavailable(reason: str) -> None:
    """Skip with ``reason``; where ``MLPACK_REQUIRE_E2E=1`` says nothing may be skipped, fail."""
    if os.environ.get("MLPACK_REQUIRE_E2E") == "1":
        pytest.fail(f"may not be skipped here: {reason}")
    pytest.skip(reason)


def repeats(default: int, full: int) -> int:
    """How often a test repeats: ``full`` in CI and ``make test-full``, else ``default``."""
    return {"default": default, "full": full}[PROFILE]


def lasting_folder() -> Path:
    """A new folder that lasts as long as this process, for what several tests share."""
    folder = Path(tempfile.mkdtemp(prefix="mlpack-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


PORTS = range(20_000, 32_768)
"""Below the ports that the kernel gives to connections and to servers that ask for any."""

_CLAIMED: list[socket.socket] = []


def free_port() -> int:
    """A port of the loopback address that stays this process's own until it ends.

    Its server may start later, or again: meanwhile no connection gets the port as its own end, no
    server that asks for any, and no other test process, which would claim the same name.
    """
    while True:
        port = random.choice(PORTS)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0mlpack-tests-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _CLAIMED.append(claim)
        return port


@atexit.register
def _release_ports() -> None:
    for each in _CLAIMED:
        each.close()


def layer(name: str, size: int = 1000) -> Layer:
    """A layer out of thin air: its digest and diff id come from its name."""
    blob = Descriptor(media.LAYER_GZIP, Digest.of(f"blob {name}".encode()), size)
    return Layer(blob, Digest.of(f"diff {name}".encode()))


def image(*names: str, platform: Platform = AMD64) -> Image:
    """An image of invented layers, bottom first."""
    return build_image(ImageConfig(platform=platform), [layer(name) for name in names])


def contents(files: Mapping[str, bytes]) -> tuple[list[Entry], Callable[[str], object]]:
    """Entries and the function that opens them, for ``write_layer``."""

    @contextmanager
    def open_file(path: str) -> Iterator[BinaryIO]:
        yield io.BytesIO(files[path])

    return [Entry(path, size=len(files[path])) for path in files], open_file


def real_layer(store: Store, files: Mapping[str, bytes]) -> Layer:
    """Write a real layer of ``files`` into ``store``."""
    entries, open_file = contents(files)
    blob = io.BytesIO()
    made = write_layer(entries, open_file, Hashing(blob))  # type: ignore[arg-type]
    store.put(made.descriptor, io.BytesIO(blob.getvalue()))
    return made


def tiny_base(
    project: ProjectDirectory,
    platforms: tuple[Platform, ...] = (AMD64, ARM64),
    *,
    patch_formats: tuple[int, ...] = (1, 2),
    text: str = "",
) -> Lock:
    """Put a base of four tiny layers per platform into the project, and lock it.

    ``patch_formats`` are those its runtime applies; another ``text`` makes another base.
    """
    locked = [_tiny_platform(project, platform, patch_formats, text) for platform in platforms]
    index = build_index([image for image, _ in locked])
    target = put_bytes(project.layout, index.content, media.INDEX)
    project.layout.tag(target, "base")
    lock = Lock(
        base=LockedBase(
            source="debian:bookworm",
            recipe=Digest.of(b"recipe"),
            index=target,
            packing=PACKING,
            platforms=tuple(platform for _, platform in locked),
        )
    )
    project.write_lock(lock)
    return lock


def _tiny_platform(
    project: ProjectDirectory, platform: Platform, patch_formats: tuple[int, ...], text: str
) -> tuple[Image, LockedPlatform]:
    layers = [
        real_layer(project.layout, {f"base/{role}": f"{role} {platform}{text}".encode() * 100})
        for role in ROLES
    ]
    config = ImageConfig(
        platform=platform,
        env=("PATH=/usr/bin", "AML_APP_ROOT=/var/azureml-app"),
        entrypoint=("/usr/bin/python3", "-m", "mlpack_runtime"),
    )
    made = build_image(config, layers)
    put_image(project.layout, made)
    return made, LockedPlatform(
        platform=platform,
        manifest=made.descriptor,
        layers=tuple(LockedLayer(r, each) for r, each in zip(ROLES, layers, strict=True)),
        python=(
            LockedPackage("numpy", "2.4.6", ("sha256:" + "0" * 64,)),
            LockedPackage("onnxruntime", "1.31.1", ("sha256:" + "1" * 64,)),
        ),
        patch_formats=patch_formats,
    )


def make_project(
    root: Path, *, name: str = "fan", settings: str = "", base: bool = True
) -> ProjectDirectory:
    """A project in ``root``, its tiny base locked; ``settings`` are added to its mlpack.toml."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "mlpack.toml").write_text(
        f'[model]\nname = "{name}"\n\n'
        f'[image]\nrepository = "registry.example.com/edge/{name}"\n{settings}'
    )
    (root / "requirements.in").write_text("numpy\nonnxruntime\n")
    project = ProjectDirectory(root)
    if base:
        tiny_base(project)
    return project


def released_project(root: Path, releases: int = 1) -> ProjectDirectory:
    """A project in ``root`` with so many releases of fan; built once, and copied for each test."""
    shutil.copytree(_released(releases), root)
    return ProjectDirectory(root)


@cache
def _released(releases: int) -> Path:
    folder = lasting_folder()
    made = make_project(folder / "fan")
    for version in range(1, releases + 1):
        model = tiny_onnx(folder / f"{version}.onnx", bias=version)
        for command in (("register", str(model), "--name", "fan"), ("build", f"fan:{version}")):
            assert run("-C", str(made.root), *command).exit_code == 0
    return made.root


def tiny_onnx(path: Path, *, bias: float = 0.5, features: int = 4, opset: int = 17) -> Path:
    """Write a valid ONNX model of a few hundred bytes: y = x·W + bias."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.arange(features, dtype=np.float32).reshape(features, 1)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["xw"]),
            helper.make_node("Add", ["xw", "b"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([bias], dtype=np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def dense_onnx(
    path: Path, *, seed: int = 1, tuned: int = 0, width: int = 160, beside: str = ""
) -> Path:
    """Write a network of two layers, some 100 KB; ``tuned`` gives the same one trained further.

    Each step moves every weight a little, as fine-tuning does; another ``seed`` is another model.
    Its weights are in the file ``beside`` it where that is given.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    start, steps = np.random.default_rng(seed), np.random.default_rng(seed + 1000)
    shapes = {"w1": (4, width), "w2": (width, width), "w3": (width, 1)}
    weights = {n: start.normal(0, 0.2, s).astype(np.float32) for n, s in shapes.items()}
    for _ in range(tuned):
        for name, each in weights.items():
            weights[name] = each + steps.normal(0, 2e-5, each.shape).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["c"]),
        helper.make_node("Tanh", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w3"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(each, name) for name, each in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if beside:
        options = {"save_as_external_data": True, "location": beside, "size_threshold": 0}
        onnx.save(model, str(path), **options)  # type: ignore[arg-type]
        return path
    onnx.save(model, str(path))
    return path


def run(*args: str, clock: Clock | None = None) -> Result:
    """Run the command line in this process, by the machine's clock or another."""
    return CliRunner().invoke(cli, args, obj=clock, catch_exceptions=False)


@dataclass(frozen=True)
class Callbacks:
    """The progress of a copy, told to functions."""

    advance: Callable[[int], None]
    total: Callable[[int], None] = lambda _: None

    def __call__(self, count: int, /) -> None:
        self.advance(count)

    def expect(self, total: int, /) -> None:
        self.total(total)


def session(project: ProjectDirectory | Path) -> Session:
    """What verbs need besides their request, for a project or a directory."""
    return Session(project.root if isinstance(project, ProjectDirectory) else project)


def build_base(project: ProjectDirectory, *, upgrade: bool = False) -> BuiltBase:
    """Make the base of a project, or find it made."""
    return build(session(project), BuildBase(upgrade))
