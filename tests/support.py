"""Content made for tests: layers and images from names, a project with a base, a tiny model."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner, Result

from mlpack.cli.main import cli
from mlpack.model.lock import Lock, LockedBase, LockedLayer, LockedPackage, LockedPlatform
from mlpack.oci import descriptor as media
from mlpack.oci.compression import PACKING
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.digest import Digest, Hashing
from mlpack.oci.image import Image, ImageConfig, Layer, build_image
from mlpack.oci.index import build_index
from mlpack.oci.layer import write_layer
from mlpack.oci.tree import Entry
from mlpack.stores.base import Store, put_bytes, put_image
from mlpack.stores.project import Project

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real models, images and manifests beside the checkout; not part of the project."""

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
ROLES = ("debian", "packages", "runtime", "entry")


def require(path: Path) -> Path:
    """``path``, or a skip with the reason; in CI a missing one is a failure."""
    if not path.exists():
        unavailable(f"{path} is not there")
    return path


def unavailable(reason: str) -> None:
    """Skip with ``reason``; where ``MLPACK_REQUIRE_E2E=1`` says nothing may be skipped, fail."""
    if os.environ.get("MLPACK_REQUIRE_E2E") == "1":
        pytest.fail(f"may not be skipped here: {reason}")
    pytest.skip(reason)


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
    project: Project,
    platforms: tuple[Platform, ...] = (AMD64, ARM64),
    *,
    patches: int = 1,
    text: str = "",
) -> Lock:
    """Put a base of four tiny layers per platform into the project, and lock it.

    ``patches`` says which its runtime applies; another ``text`` gives another base.
    """
    locked = [_tiny_platform(project, platform, patches, text) for platform in platforms]
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
    project: Project, platform: Platform, patches: int, text: str
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
        patches=patches,
    )


def make_project(
    root: Path, *, name: str = "fan", settings: str = "", base: bool = True
) -> Project:
    """A project in ``root``, its tiny base locked; ``settings`` are added to its mlpack.toml."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "mlpack.toml").write_text(
        f'[model]\nname = "{name}"\n\n'
        f'[image]\nrepository = "registry.example.com/edge/{name}"\n{settings}'
    )
    (root / "requirements.in").write_text("numpy\nonnxruntime\n")
    project = Project(root)
    if base:
        tiny_base(project)
    return project


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


def run(*args: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(cli, args, catch_exceptions=False)
