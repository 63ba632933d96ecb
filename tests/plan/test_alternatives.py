"""The ways of shipping the same content, beside each other."""

from __future__ import annotations

import pytest

from mlpack.kinds import ENGINES
from mlpack.model.lock import LockedLayer
from mlpack.oci.image import Image, problems
from mlpack.plan.engines import engine
from mlpack.plan.transfer import alternative, usual_build, usual_image, whole_image
from tests.plan.fleet import BASE, MODEL_BYTES, SIZES, move, release
from tests.support import layer

ROLES = {locked.layer.digest: locked.role for locked in BASE}
REMADE = SIZES["packages"] + SIZES["runtime"] + SIZES["entry"]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("old", [release("1"), release("")], ids=["fan:1", "base"])
def test_the_usual_build_sends_the_dependencies_with_every_model(name: str, old: Image) -> None:
    pull = move(old)
    usual = usual_build(engine(name), pull, old, BASE)
    assert usual is not None
    assert usual.transfer.layers == MODEL_BYTES + REMADE
    ours = alternative("layer", engine(name), pull).transfer
    assert ours.layers == MODEL_BYTES
    assert (usual.transfer.manifest, usual.transfer.config) == (ours.manifest, ours.config)


@pytest.mark.parametrize("name", ENGINES)
def test_an_empty_device_fetches_the_same_whichever_way_the_image_was_made(name: str) -> None:
    pull = move(None)
    whole = whole_image(engine(name), pull).transfer
    assert whole.layers == sum(SIZES.values()) + MODEL_BYTES
    assert whole == alternative("layer", engine(name), pull).transfer
    usual = usual_build(engine(name), pull, None, BASE)
    assert usual is not None
    assert usual.transfer == whole


def test_the_whole_image_does_not_depend_on_what_the_device_holds() -> None:
    moby = engine("moby")
    assert whole_image(moby, move(release("1"))) == whole_image(moby, move(None))


def test_the_usual_image_has_the_model_below_its_dependencies_and_the_same_sizes() -> None:
    image = release("2")
    made = usual_image(image, ROLES, "new")
    assert problems(made) == ()
    assert [each.size for each in made.layers] == [
        SIZES["debian"],
        MODEL_BYTES,
        SIZES["packages"],
        SIZES["runtime"],
        SIZES["entry"],
    ]
    assert made.layers[:2] == (image.layers[0], image.layers[-1])
    assert not {each.digest for each in made.layers[2:]} & set(ROLES)
    assert (len(made.manifest), len(made.config)) == (len(image.manifest), len(image.config))


def test_two_builds_share_only_what_the_usual_build_starts_from() -> None:
    one, two = (usual_image(release("2"), ROLES, build) for build in ("a", "b"))
    shared = {each.digest for each in one.layers} & {each.digest for each in two.layers}
    assert shared == {one.layers[0].digest, one.layers[1].digest}
    assert usual_image(release("2"), ROLES, "a") == one


def test_a_release_on_another_base_has_no_usual_build_to_tell() -> None:
    old = release("1")
    assert usual_build(engine("moby"), move(old), old, [BASE[0], BASE[2]]) is None
    longer = [*BASE, BASE[0]]
    assert usual_build(engine("moby"), move(old), old, longer) is None


def test_a_source_image_is_started_from_as_debian_is() -> None:
    source = LockedLayer("source", layer("python:3.12-slim", 45_000_000))
    base = (source, *BASE[1:])
    roles = {locked.layer.digest: locked.role for locked in base}
    made = usual_image(release("2", base), roles, "new")
    assert made.layers[0] == source.layer
