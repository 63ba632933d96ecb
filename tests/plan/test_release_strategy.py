"""Layer or patch: what files are made of, when a patch is taken, when a new anchor is due."""

from __future__ import annotations

import pytest

from mlpack.kinds import ENGINES
from mlpack.model.version import ModelFile
from mlpack.oci.descriptor import Digest
from mlpack.oci.image import Image, ImageConfig, Layer, append, build_image
from mlpack.plan.engines import DeviceState, Link, engine
from mlpack.plan.release_strategy import (
    ExpectedSizes,
    Strategy,
    TargetDevices,
    choose,
    choose_whole,
    compare_transfers,
    one_more_layer,
    pairs,
    too_small,
)
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


def on(image: Image | None, devices: int = 1, name: str = "") -> TargetDevices:
    state = DeviceState.holding(image) if image else DeviceState()
    return TargetDevices(holds=name, devices=devices, state=state)


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


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("whole", "patch", "devices", "strategy", "anchors"), CASES)
def test_the_target_devices_decide(
    name: str,
    whole: int,
    patch: int,
    devices: tuple[int, int, int],
    strategy: str,
    anchors: bool,
    packed: bool,
) -> None:
    by_layer, by_patch = released(whole, patch)
    images: dict[Strategy, list[Image]] = {"layer": [by_layer], "patch": [by_patch]}
    other: Strategy = "layer"
    if packed:
        # The same with a packed model instead: the layer is larger, and the model large enough.
        other, images["packed"] = "packed", images["layer"]
        images["layer"] = [append(BASE, layer("model 2 as it is", whole * 10 // 8))]
        strategy = "packed" if strategy == "layer" else strategy
    on_devices = [on(held, n) for held, n in zip((ANCHOR, BASE, None), devices, strict=True) if n]
    layers: dict[Strategy, Layer] = {
        way: made[0].layers[-1] for way, made in images.items() if way != "patch"
    }
    found = compare_transfers(engine(name), LINK, on_devices, images)
    choice = choose(choose_whole(1_300_000, layers), by_patch.layers[-1], found)
    assert (choice.strategy, choice.anchors) == (strategy, anchors), choice.why
    assert choice.why
    ways: tuple[Strategy, ...] = (other, "patch")
    fetched = {way: choice.total(way) for way in ways}
    document = choice.to_json()
    assert document["patch"] == {"bytes": patch, "devices_fetch": fetched["patch"]}
    assert (document["packed"] is not None) == packed
    if not anchors:
        assert fetched[choice.strategy] == min(fetched.values())


def test_the_sides_are_what_devices_fetch() -> None:
    by_layer, by_patch = released(1_000_000, 300_000)
    images: dict[Strategy, list[Image]] = {"layer": [by_layer], "patch": [by_patch]}
    found = compare_transfers(engine("moby"), LINK, [on(ANCHOR), on(BASE)], images)
    (anchor, base) = [
        {strategy: each.fetched[strategy].layers for strategy in images} for each in found
    ]
    assert anchor == {"layer": 1_000_000, "patch": 300_000}
    assert base == {"layer": 1_000_000, "patch": 1_300_000}


@pytest.mark.parametrize(
    ("model", "whole", "packed", "strategy"),
    [
        # The bytes of face and speech detectors, a network of integers, a weight file.
        (1_270_727, 1_064_587, 944_480, "packed"),
        (333_288, 91_800, 83_700, "packed"),
        (2_388_912, 1_894_000, 1_881_000, "packed"),
        (2_388_912, 1_894_000, 1_887_000, "layer"),
        (89_000_000, 70_100_000, 61_200_000, "packed"),
        (100_000_000, 100_006_000, 100_004_000, "layer"),
        # Below some kilobytes nothing is worth the start-up.
        (12_000, 10_062, 9_305, "layer"),
        (1_000_000, 500_000, 500_200, "layer"),
    ],
)
def test_a_model_is_packed_if_that_is_worth_the_start(
    model: int, whole: int, packed: int, strategy: str
) -> None:
    layers: dict[Strategy, Layer] = {"layer": layer("1", whole), "packed": layer("2", packed)}
    choice = choose_whole(model, layers)
    assert choice.strategy == strategy, choice.why
    assert "of the layer" in choice.why
    sizes = ExpectedSizes(model=model, layer=whole, packed=whole, least_packed=packed, patch=0)
    assert sizes.packing_pays == (strategy == "packed")


@pytest.mark.parametrize(
    ("layer", "packed", "patch", "pays"),
    [
        (1_000_000, 1_000_000, 500_000, True),
        # An estimate a little above the limit may be wrong.
        (1_000_000, 1_000_000, 875_000, True),
        (1_000_000, 1_000_000, 880_000, False),
        (1_000_000, 800_000, 875_000, False),
        (1_000_000, 1_000_000, 0, True),
    ],
)
def test_estimates_show_which_patch_may_pay(
    layer: int, packed: int, patch: int, pays: bool
) -> None:
    expected = ExpectedSizes(
        model=1_100_000, layer=layer, packed=packed, least_packed=packed, patch=patch
    )
    assert expected.patch_pays == pays


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
    assert all(too_small(each, Link(), BASE, fan) for each in map(engine, ENGINES))
