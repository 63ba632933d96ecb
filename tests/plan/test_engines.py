"""The rules of the engines, as rows: what is held, what is wanted, what each one fetches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.kinds import ENGINES
from mlpack.plan.engines import DeviceState, UnknownEngine, engine
from tests.plan.measured import ROWS, Row, measured_image
from tests.support import image

NAMES = ENGINES


def fetched(name: str, wanted: str, state: DeviceState) -> str:
    """The names of the layers ``name`` fetches, bottom first."""
    steps = engine(name).steps(image(*wanted.split()), state)
    return " ".join(
        layer for layer, step in zip(wanted.split(), steps, strict=True) if step.action == "fetch"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_fetches_the_layers_that_were_seen_in_the_measured_pull(row: Row, name: str) -> None:
    steps = engine(name).steps(row.target, row.state)
    pulled = [
        layer
        for layer, step in zip(row.pulled.split(), steps, strict=True)
        if step.action == "fetch"
    ]
    assert " ".join(pulled) == getattr(row, name)[2]


@pytest.mark.parametrize(
    ("holds", "wants", "moby", "containerd", "podman"),
    [
        ("base deps model1", "base deps model2", "model2", "model2", "model2"),
        ("base model1 deps", "base model2 deps", "model2 deps", "model2", "model2"),
        ("base deps", "base deps model", "model", "model", "model"),
        ("base deps model", "base deps", "", "", ""),
        ("", "base deps", "base deps", "base deps", "base deps"),
        ("a b", "b a", "b a", "", ""),
        ("base", "base m m", "m", "m", "m m"),
    ],
)
def test_rules(holds: str, wants: str, moby: str, containerd: str, podman: str) -> None:
    state = DeviceState.holding(image(*holds.split())) if holds else DeviceState()
    want = {"moby": moby, "containerd": containerd, "podman": podman}
    assert {name: fetched(name, wants, state) for name in NAMES} == want


def test_podman_knows_a_recompressed_layer_it_has_seen_before() -> None:
    held = measured_image("b1 b2 b3 b4 b5 A")
    seen = measured_image("b1 b2 b3recomp b4 b5 A")
    steps = engine("podman").steps(
        measured_image("b1 b2 b3recomp b4 b5 B"), DeviceState.holding(held, removed=[seen])
    )
    assert [step.action for step in steps] == ["reuse"] * 5 + ["fetch"]


def test_a_removed_image_leaves_no_content_behind() -> None:
    state = DeviceState.holding(removed=[image("a", "b")])
    for name in NAMES:
        assert fetched(name, "a b", state) == "a b"


def test_moby_fetches_nothing_for_an_image_whose_config_it_has() -> None:
    held, other = measured_image("b1 b2 b3 A"), measured_image("b1 b2 b3recomp A")
    assert held.config_descriptor == other.config_descriptor
    actions = {
        name: [step.action for step in engine(name).steps(other, DeviceState.holding(held))]
        for name in NAMES
    }
    assert actions == {
        "moby": ["reuse"] * 4,
        "containerd": ["reuse", "reuse", "fetch", "reuse"],
        "podman": ["reuse", "reuse", "fetch", "reuse"],
    }


def test_every_step_says_why() -> None:
    held = DeviceState.holding(measured_image("b1 b2 b3 b4 A"))
    wanted = measured_image("b1 b3recomp b4 A B")
    whys = {name: [step.why for step in engine(name).steps(wanted, held)] for name in NAMES}
    recompressed = "its content is held, but under another digest"
    by_blob = [
        "this blob is held",
        recompressed,
        "this blob is held",
        "this blob is held",
        "not on the device",
    ]
    above = ["held, but a layer below it is fetched"] * 2 + ["not on the device"]
    assert whys == {
        "moby": ["held, and all below it is unchanged", recompressed, *above],
        "containerd": by_blob,
        "podman": by_blob,
    }


def test_docker_is_moby() -> None:
    assert engine("docker") is engine("moby")


def test_an_unknown_engine_is_wrong_usage_and_the_hint_lists_them() -> None:
    with pytest.raises(UnknownEngine) as caught:
        engine("crio")
    assert caught.value.exit_status == 2
    assert str(caught.value) == "'crio' is not an engine"
    assert caught.value.hint == "one of: moby, containerd, podman"


stacks = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6).map(tuple)


@given(held=st.lists(stacks, max_size=3), wanted=stacks)
def test_moby_fetches_a_top_and_the_others_never_more(
    held: list[tuple[str, ...]], wanted: tuple[str, ...]
) -> None:
    state = DeviceState.holding(*(image(*names) for names in held))
    target = image(*wanted)
    by_engine = {
        name: {s.layer.digest for s in engine(name).steps(target, state) if s.action == "fetch"}
        for name in NAMES
    }
    assert by_engine["containerd"] <= by_engine["moby"]
    assert by_engine["podman"] <= by_engine["containerd"]
    prefix = max(
        (
            next(
                (n for n, (x, y) in enumerate(zip(names, wanted, strict=False)) if x != y),
                min(len(names), len(wanted)),
            )
            for names in held
        ),
        default=0,
    )
    above = {layer.digest for layer in target.layers[prefix:]}
    assert by_engine["moby"] == (set() if wanted in held else above)


@given(stack=stacks)
def test_a_held_image_is_not_fetched_and_a_new_one_is_fetched_whole(stack: tuple[str, ...]) -> None:
    target = image(*stack)
    for name in NAMES:
        assert not any(s.bytes for s in engine(name).steps(target, DeviceState.holding(target)))
        fresh = [s.layer.digest for s in engine(name).steps(target, DeviceState()) if s.bytes]
        listed = [layer.digest for layer in target.layers]
        assert sorted(fresh) == sorted(listed if name == "podman" else set(listed))


@pytest.mark.parametrize("name", NAMES)
def test_what_was_loaded_from_a_file_has_no_digest_to_be_known_by(name: str) -> None:
    state = DeviceState.loaded(image("a", "b"))
    steps = engine(name).steps(image("a", "b", "c"), state)
    assert [step.action for step in steps] == ["fetch"] * 3
    assert [step.why for step in steps] == [
        "its content is held, but was loaded and not pulled: its digest is not known",
        "its content is held, but was loaded and not pulled: its digest is not known",
        "not on the device",
    ]
