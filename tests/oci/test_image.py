"""Images, indexes, and the rule that a release starts with its base."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Digest, InvalidContent, Platform, canonical
from mlpack.oci.image import (
    Image,
    ImageConfig,
    NoSuchPlatform,
    NotOnBase,
    append,
    build_image,
    build_index,
    chain_ids,
    entry_problems,
    problems,
    require_prefix,
)
from tests.support import AMD64, ARM64, image, layer


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=6))
def test_chain_ids_are_the_specifications_fold(parts: list[bytes]) -> None:
    diffs = [Digest.of(part) for part in parts]
    chain = str(diffs[0])
    for diff in diffs[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff}".encode()).hexdigest()
    assert str(chain_ids(diffs)[-1]) == chain
    assert len(chain_ids(diffs)) == len(diffs)


def test_append_changes_nothing_below() -> None:
    base = image("debian", "packages")
    made = append(base, layer("model"))
    assert made.layers == (*base.layers, layer("model"))
    assert made.chain_ids[:2] == base.chain_ids
    assert problems(made) == ()
    require_prefix(made, base)


def test_append_sets_environment_and_labels_over_the_bases() -> None:
    base = build_image(
        ImageConfig(platform=AMD64, env=("A=1", "B=2"), labels={"x": "1"}), [layer("a")]
    )
    made = append(base, layer("b"), env={"B": "3", "C": "4=5"}, labels={"y": "2"})
    assert made.env == {"A": "1", "B": "3", "C": "4=5"}
    assert made.labels == {"x": "1", "y": "2"}
    assert base.env == {"A": "1", "B": "2"}


def test_append_keeps_what_other_tools_wrote_but_not_what_devices_pay_for() -> None:
    config = json.loads(image("a").config)
    config |= {"created": "2026-01-01T00:00:00Z", "history": [{"created_by": "x" * 999}]}
    config["config"] = {"StopSignal": "SIGINT"}
    raw = canonical(config)
    manifest = json.loads(image("a").manifest)
    manifest["config"] = {
        "mediaType": media.CONFIG,
        "digest": str(Digest.of(raw)),
        "size": len(raw),
    }
    made = json.loads(append(Image(canonical(manifest), raw), layer("b")).config)
    assert made["config"] == {"StopSignal": "SIGINT"}
    assert not {"created", "history"} & set(made)


def test_the_base_of_four_layers_and_a_model_stay_small() -> None:
    # A device fetches both documents with every release.
    base = build_image(
        ImageConfig(
            platform=AMD64,
            env=("PATH=/usr/local/bin:/usr/bin:/bin", "AML_APP_ROOT=/var/azureml-app"),
            entrypoint=("/usr/bin/python3", "-m", "mlpack_runtime"),
            user="10001",
            ports=("5001/tcp",),
        ),
        [layer(name, 30_000_000) for name in ("debian", "packages", "runtime", "entry")],
    )
    made = append(
        base,
        layer("model", 6000),
        env={"AZUREML_MODEL_DIR": "/var/azureml-app/azureml-models/fan-failure/12"},
        labels={
            "io.mlpack.model": "fan-failure",
            "io.mlpack.version": "12",
            "io.mlpack.digest": str(Digest.of(b"")),
        },
    )
    assert len(made.manifest) + len(made.config) <= 2100


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("debian", "other", "model"), "layer 2 of image"),
        (("debian",), "has 1 layers"),
        (("packages", "debian", "model"), "layer 1 of image"),
    ],
)
def test_an_image_that_is_not_on_the_base_is_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(NotOnBase, match=message) as caught:
        require_prefix(image(*names), image("debian", "packages"))
    assert "mlpack build" in caught.value.hint


def test_a_recompressed_base_layer_is_refused() -> None:
    # Docker fetches everything above a layer with another digest, though its diff id is the same.
    packed = layer("packages")
    other = replace(packed, descriptor=layer("packages again").descriptor)
    base = build_image(ImageConfig(platform=AMD64), [layer("debian"), packed])
    made = build_image(ImageConfig(platform=AMD64), [layer("debian"), other, layer("model")])
    with pytest.raises(NotOnBase, match="layer 2"):
        require_prefix(made, base)


def test_manifest_and_config_must_agree_on_the_layers() -> None:
    broken = Image(image("a", "b").manifest, image("a").config)
    with pytest.raises(InvalidContent, match="lists 1 layers, the manifest 2"):
        _ = broken.layers
    assert any("lists 1 layers" in problem for problem in problems(broken))


def test_problems_of_foreign_layers_are_named() -> None:
    manifest = json.loads(image("a", "b").manifest)
    manifest["layers"][1]["mediaType"] = "application/vnd.acme.model"
    found = problems(Image(canonical(manifest), image("a", "b").config))
    assert found == ("manifest.layers[1].mediaType: application/vnd.acme.model is not a layer",)
    manifest["layers"][1]["mediaType"] = media.LAYER_TAR
    found = problems(Image(canonical(manifest), image("a", "b").config))
    assert found == ("manifest.layers[1]: an uncompressed layer whose digest is not its diff id",)


@pytest.mark.parametrize(
    ("config", "platform"),
    [
        ({}, "linux/amd64"),
        ({"os": "", "architecture": ""}, "linux/amd64"),
        ({"os": None, "architecture": None, "variant": None}, "linux/amd64"),
        ({"os": "linux"}, "linux/amd64"),
        ({"architecture": "arm64"}, "linux/arm64"),
        ({"architecture": "arm", "variant": "v7"}, "linux/arm/v7"),
        ({"os": "windows", "architecture": "amd64"}, "windows/amd64"),
    ],
)
def test_a_config_without_a_platform_has_the_usual_one(
    config: dict[str, object], platform: str
) -> None:
    made = Image(b"{}", canonical(config))
    assert str(made.built_for) == platform
    assert str(replace(made, listed=ARM64).platform) == "linux/arm64"


@pytest.mark.parametrize("config", [{"os": 5}, {"architecture": ["amd64"]}])
def test_a_platform_of_something_else_is_an_error(config: dict[str, object]) -> None:
    with pytest.raises(InvalidContent, match="is not a string"):
        _ = Image(b"{}", canonical(config)).built_for


def test_an_index_selects_by_platform() -> None:
    both = [image("a", platform=ARM64), image("a", platform=AMD64)]
    index = build_index(both)
    assert index.platforms == (AMD64, ARM64)
    assert index.select(ARM64).digest == both[0].digest
    assert build_index(both[::-1]).content == index.content
    with pytest.raises(NoSuchPlatform, match=r"linux/riscv64 .*linux/amd64, linux/arm64"):
        index.select(replace(AMD64, architecture="riscv64"))
    arm64, amd64 = both
    assert entry_problems(index.manifests[0], amd64) == ()
    assert len(entry_problems(index.manifests[0], arm64)) == 2


def test_an_entry_may_name_a_variant_that_the_config_leaves_out() -> None:
    made = image("a", platform=Platform("linux", "arm"))
    entry = replace(made.descriptor, platform=Platform("linux", "arm", "v5"))
    assert entry_problems(entry, made) == ()
    listed = replace(made, listed=entry.platform)
    assert str(listed.platform) == "linux/arm/v5"
    assert build_index([listed]).platforms == (entry.platform,)
    assert listed == made


def test_attestations_in_an_index_are_no_images() -> None:
    document = json.loads(build_index([image("a")]).content)
    document["manifests"].append(
        document["manifests"][0] | {"platform": {"os": "unknown", "architecture": "unknown"}}
    )
    index = replace(build_index([image("a")]), content=canonical(document))
    assert index.platforms == (AMD64,)
