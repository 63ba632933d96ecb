"""Layer or patch: what files are made of, when a patch is taken, when a new anchor is due."""

from __future__ import annotations

import pytest

from mlpack.model.version import ModelFile
from mlpack.oci.digest import Digest
from mlpack.oci.image import Image, ImageConfig, append, build_image
from mlpack.plan.engines import ENGINES, DeviceState, engine
from mlpack.plan.patching import Meant, choose, one_more_layer, pairs, sides, too_small
from mlpack.plan.transfer import Link
from tests.support import AMD64, layer

BASE = build_image(ImageConfig(platform=AMD64), [layer("debian", 17_000_000), layer("packages")])
ANCHOR = append(BASE, layer("model 1", 1_000_000))
LINK = Link()


def file(path: str, content: str = "") -> ModelFile:
    return ModelFile(path, 10, Digest.of((content or path).encode()))


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ([file("m.onnx", "2")], [file("m.onnx", "1")], ["m.onnx"]),
        ([file("m.onnx", "1")], [file("m.onnx", "1")], ["m.onnx"]),
        # The name has the version in it.
        ([file("fan-2.onnx")], [file("fan-1.onnx")], ["fan-1.onnx"]),
        # The same content under another name, although there is one of the same name.
        ([file("b", "x")], [file("a", "x"), file("b", "y")], ["a"]),
        # Of several that are left nobody knows which is which.
        ([file("a2.onnx"), file("b2.onnx")], [file("a1.onnx"), file("b1.onnx")], [None, None]),
        ([file("a.onnx")], [file("labels.txt")], [None]),
        (
            [file("new.onnx"), file("labels.txt", "l")],
            [file("labels.txt", "k")],
            [None, "labels.txt"],
        ),
        ([], [file("a")], []),
    ],
)
def test_what_a_file_is_made_of(
    new: list[ModelFile], old: list[ModelFile], expected: list[str | None]
) -> None:
    found = pairs(new, old)
    assert [each.new for each in found] == new
    assert [each.old.path if each.old else None for each in found] == expected


def released(whole: int, patch: int) -> tuple[Image, Image]:
    return append(BASE, layer("model 2", whole)), append(ANCHOR, layer("patch 2", patch))


def on(image: Image | None, devices: int = 1, name: str = "") -> Meant:
    state = DeviceState.holding(image) if image else DeviceState()
    return Meant(holds=name, devices=devices, state=state)


CASES = [
    # whole, patch, devices on the anchor, on the base, empty → strategy, new anchor
    (1_000_000, 400_000, (1, 0, 0), "patch", False),
    (1_000_000, 700_000, (1, 0, 0), "patch", False),
    (1_000_000, 700_001, (1, 0, 0), "layer", True),
    (1_000_000, 990_000, (1, 0, 0), "layer", True),
    # Devices without the anchor fetch it, too.
    (1_000_000, 400_000, (10, 1, 0), "patch", False),
    (1_000_000, 400_000, (1, 10, 0), "layer", False),
    (1_000_000, 400_000, (1, 0, 10), "layer", False),
    (1_000_000, 1_000, (100, 50, 40), "patch", False),
    (1_000_000, 1_000, (0, 0, 3), "layer", False),
]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("whole", "patch", "devices", "strategy", "anchors"), CASES)
def test_the_devices_meant_decide(
    name: str,
    whole: int,
    patch: int,
    devices: tuple[int, int, int],
    strategy: str,
    anchors: bool,
) -> None:
    by_layer, by_patch = released(whole, patch)
    meant = [on(held, n) for held, n in zip((ANCHOR, BASE, None), devices, strict=True) if n]
    found = sides(engine(name), LINK, meant, [by_layer], [by_patch])
    choice = choose(by_layer.layers[-1], by_patch.layers[-1], found)
    assert (choice.strategy, choice.anchors) == (strategy, anchors), choice.why
    assert choice.why
    fetched = {way: choice.total(way) for way in ("layer", "patch")}
    assert choice.to_json()["patch"] == {"bytes": patch, "devices_fetch": fetched["patch"]}
    if not anchors:
        assert fetched[strategy] == min(fetched.values())


def test_the_sides_are_what_devices_fetch() -> None:
    by_layer, by_patch = released(1_000_000, 300_000)
    (anchor, base) = sides(engine("moby"), LINK, [on(ANCHOR), on(BASE)], [by_layer], [by_patch])
    assert (anchor.layer.layers, anchor.patch.layers) == (1_000_000, 300_000)
    assert (base.layer.layers, base.patch.layers) == (1_000_000, 1_300_000)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("tls", ["none", "ec-chain", "rsa-chain"])
def test_a_small_model_needs_no_patches(name: str, tls: str) -> None:
    link = Link(tls=tls)
    costs = one_more_layer(engine(name), link, BASE, released(1_000, 1)[0])
    # A request more: its headers, a connection where the engine opens one, lines in the documents.
    assert 500 < costs < 7_000
    edge = costs * 10 // 3
    assert too_small(engine(name), link, BASE, released(edge - 20, 1)[0])
    assert not too_small(engine(name), link, BASE, released(edge + 20, 1)[0])


def test_the_fan_of_six_kilobytes_is_too_small_on_any_link_with_tls() -> None:
    fan = released(6_131, 1)[0]
    assert all(too_small(each, Link(), BASE, fan) for each in ENGINES.values())
