"""A base that starts from an image in a registry; its wheels are installed for real."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpack.base.source import pin
from mlpack.oci.descriptor import Reference
from mlpack.oci.image import ImageConfig, Layer, build_image, build_index
from mlpack.project.directory import ProjectDirectory
from mlpack.registry.repository import Registries
from mlpack.stores.store import put_bytes, put_image, read_image
from tests.registry.faulty import Faulty, faulty
from tests.registry.registry import running
from tests.support import AMD64, ARM64, real_layer, run

PYTHON = {
    "usr/local/bin/python3.12": b"\x7fELF and so on",
    "lib/x86_64-linux-gnu/libc.so.6": b"GNU C Library (Debian GLIBC 2.36-9) stable version 2.36.\n",
}


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Faulty]:
    with running(tmp_path / "registry") as started, faulty(started.host) as server:
        yield server


def publish(proxy: Faulty, place: str, text: str) -> tuple[Layer, ...]:
    """Push an image with a Python for both platforms, as another tool would; its layers."""
    with Registries() as registries:
        store = registries.store(Reference.parse(place), push=True)
        made = []
        for platform in (AMD64, ARM64):
            files = {**PYTHON, "etc/release": f"{text} {platform}".encode()}
            layer = real_layer(store, files)
            config = ImageConfig(platform=platform, env=("PATH=/usr/local/bin:/usr/bin",))
            made.append(build_image(config, [layer]))
            put_image(store, made[-1])
        index = build_index(made)
        store.tag(put_bytes(store, index.content, index.descriptor.media_type), "3.12")
    proxy.seen.clear()
    return tuple(layer for image in made for layer in image.layers)


def project(root: Path, place: str) -> ProjectDirectory:
    root.mkdir()
    (root / "mlpack.toml").write_text(f'[model]\nname = "fan"\n[base]\nfrom = "{place}:3.12"\n')
    (root / "requirements.in").write_text("")
    return ProjectDirectory(root)


def build(made: ProjectDirectory, *options: str) -> dict[str, object]:
    done = run("-C", str(made.root), "--json", "base", "build", *options)
    assert done.exit_code == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def source_layers(made: ProjectDirectory) -> list[Layer]:
    base = made.lock().base
    return [each.layer for on in base.platforms for each in on.layers if each.role == "source"]


@pytest.mark.slow
def test_a_base_from_a_registry(proxy: Faulty, tmp_path: Path) -> None:
    place = f"{proxy.host}/edge/{uuid.uuid4().hex}"
    layers = publish(proxy, place, "first")
    made = project(tmp_path / "p", place)
    built = build(made)
    assert tuple(source_layers(made)) == layers, "both platforms, the layers as they are"
    assert str(built["pinned"]).startswith(f"{place}@sha256:")
    fetched = [each.path for each in proxy.seen if each.path.endswith(str(layers[0].digest))]
    assert len(fetched) == 1, "each byte of a layer comes once"
    for on in made.lock().base.platforms:
        assert read_image(made.layout, on.manifest).layers[0] in layers

    proxy.seen.clear()
    assert build(made)["already"]
    assert proxy.seen == [], "a base that is here asks nobody"

    publish(proxy, place, "second")
    assert build(made)["already"], "the tag moved; the lock did not"


def test_a_tag_that_moved_is_followed_only_when_asked(proxy: Faulty) -> None:
    place = f"{proxy.host}/edge/{uuid.uuid4().hex}"
    publish(proxy, place, "first")
    with Registries() as registries:
        first = pin(f"{place}:3.12", "", registries)
        publish(proxy, place, "second")
        assert pin(f"{place}:3.12", first, registries) == first
        assert pin(f"{place}:3.12", "", registries) != first
    assert pin("debian:bookworm", "", None) == ""


def test_an_image_that_is_gone_is_named(proxy: Faulty, tmp_path: Path) -> None:
    made = project(tmp_path / "p", f"{proxy.host}/edge/none")
    done = run("-C", str(made.root), "base", "build")
    assert done.exit_code == 1
    assert "has no tag '3.12'" in done.stderr
    assert not made.has_lock
