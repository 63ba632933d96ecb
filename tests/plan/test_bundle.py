"""What a bundle carries, by engine, and when there is none."""

from __future__ import annotations

import json

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.image import ImageConfig, Layer, build_image
from mlpack.oci.unpacking import LayerFacts
from mlpack.plan.bundle import LIST, NothingShared, bundle, load_refusals
from mlpack.plan.engines import engine
from tests.support import AMD64, image, layer

OLD = image("debian", "packages", "model 1")
NEW = image("debian", "packages", "model 2")


@pytest.mark.parametrize("engine", ["moby", "containerd", "podman"])
def test_it_carries_the_one_layer_the_device_lacks(engine: str) -> None:
    made = bundle(engine, "localhost/fan:2", NEW, OLD)
    assert made.carried == (layer("model 2"),)
    listed = json.loads(made.documents()[LIST])
    assert listed["onto"] == str(OLD.digest)
    assert set(listed["sha256"]) == (set(made.documents()) | set(made.layers)) - {LIST}


def test_moby_goes_by_the_chain_and_the_others_by_blob() -> None:
    swapped = image("debian", "model 2", "packages")
    assert bundle("moby", "f:2", swapped, OLD).carried == swapped.layers[1:]
    for name in ("containerd", "podman"):
        assert bundle(name, "f:2", swapped, OLD).carried == (layer("model 2"),)


def test_a_recompressed_layer_is_spared_on_moby_alone() -> None:
    recompressed = Layer(layer("other name").descriptor, layer("packages").diff_id)
    new = build_image(ImageConfig(platform=AMD64), [layer("debian"), recompressed])
    assert bundle("moby", "f:2", new, OLD).carried == ()
    assert bundle("containerd", "f:2", new, OLD).carried == (recompressed,)


def test_nothing_in_common_is_refused_and_said() -> None:
    with pytest.raises(NothingShared, match="bottom layers differ") as refused:
        bundle("moby", "f:2", image("other", "packages", "model 2"), OLD)
    assert "--onto none" in refused.value.hint


def test_onto_nothing_is_the_whole_image() -> None:
    assert bundle("podman", "f:2", NEW, None).carried == NEW.layers


def test_docker_loads_plain_tars_of_layers_that_it_cannot_pull() -> None:
    blob = layer("z").descriptor
    zstd = Layer(Descriptor(media.LAYER_ZSTD, blob.digest, blob.size), layer("z").diff_id)
    new = build_image(ImageConfig(platform=AMD64), [layer("debian"), zstd])
    assert bundle("moby", "f:2", new, OLD).carried == (zstd,)
    assert engine("moby").refusals(new)
    assert load_refusals(engine("moby"), new, ()) == ()
    facts = [LayerFacts(compression="xz", broken="it is odd")]
    assert [each.why for each in load_refusals(engine("moby"), new, facts)] == ["it is odd"]
    told = load_refusals(engine("containerd"), new, facts)
    assert [each.why for each in told] == ["it is xz, which is not unpacked", "it is odd"]


def test_docker_is_told_of_every_layer_and_given_the_new_one() -> None:
    [listed] = json.loads(bundle("moby", "localhost/fan:2", NEW, OLD).documents()["manifest.json"])
    assert listed["RepoTags"] == ["localhost/fan:2"]
    assert listed["Layers"] == [f"{each.hex}.tar" for each in NEW.diff_ids]
