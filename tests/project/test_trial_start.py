"""The start of a release before it is named: what is kept, unpacked, and said if none is tried."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mlpack.api.session import Session
from mlpack.base.requirements import base_image
from mlpack.engines.root_cache import KEPT, RootCache
from mlpack.engines.trial_start import prepare
from mlpack.model.trial_start import TrialStart, never, worst
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Digest, Platform, parse
from mlpack.oci.image import Image, ImageConfig, build_image
from mlpack.project.directory import ProjectDirectory
from mlpack.runtime import trial
from mlpack.runtime.signature import Tensor
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import RecordContent, keep_record, read_record, read_starts
from mlpack.stores.store import put_bytes, put_image
from mlpack.stores.unpack import unpack
from tests.support import AMD64, make_project, real_layer, run, tiny_onnx

STARTED = TrialStart(
    outcome="started", way="namespaces", milliseconds=321, input="ones", at="2026-01-01T00:00:00Z"
)


def test_starts_are_kept_next_to_the_identity_which_stays_the_same(tmp_path: Path) -> None:
    layout = LayoutStore(tmp_path / "oci")
    target = put_bytes(layout, b'{"schemaVersion":2}', media.MANIFEST)
    image = Digest.of(b"image")
    keep_record(layout, "fan", "1", target, RecordContent({"a": 1}, {image: STARTED}))
    assert read_record(layout, target) == {"a": 1}
    assert read_starts(layout, target) == {image: STARTED}


def test_a_record_without_starts_is_that_of_before(tmp_path: Path) -> None:
    layout = LayoutStore(tmp_path / "oci")
    target = put_bytes(layout, b'{"schemaVersion":2}', media.MANIFEST)
    made = keep_record(layout, "fan", "1", target, RecordContent({"a": 1}))
    with layout.open(made) as content:
        layers = parse(content.read(), "record").need("layers").elements()
        assert len(list(layers)) == 1
    assert read_starts(layout, target) == {}


@pytest.mark.parametrize(
    ("outcomes", "found"),
    [
        ((), "never"),
        (("started",), "started"),
        (("started", "never"), "never"),
        (("never", "refused", "started"), "refused"),
    ],
)
def test_a_release_is_as_good_as_its_worst_platform(outcomes: tuple[str, ...], found: str) -> None:
    starts = [TrialStart(outcome=each) for each in outcomes]  # type: ignore[arg-type]
    assert worst(starts) == found


def test_a_start_is_one_sentence() -> None:
    assert str(never("no emulator")) == "never started: no emulator"
    assert str(STARTED) == "started in 0.32 s (namespaces) and scored a made request (ones)"


def test_layers_are_unpacked_as_engines_do(tmp_path: Path) -> None:
    layout = LayoutStore(tmp_path / "oci")
    layers = [
        real_layer(layout, {"usr/a": b"old", "usr/b": b"same"}),
        real_layer(layout, {"usr/a": b"new", "usr/d": b"same"}),
    ]
    root = tmp_path / "root"
    root.mkdir()
    unpack(layout, layers, root)
    found = {
        str(each.relative_to(root)): each.read_bytes() for each in root.rglob("*") if each.is_file()
    }
    assert found == {"usr/a": b"new", "usr/b": b"same", "usr/d": b"same"}


def _base(layout: LayoutStore, text: str, platform: Platform = AMD64) -> Image:
    config = ImageConfig(platform=platform, entrypoint=("/usr/bin/python3", "-m", "mlpack_runtime"))
    made = build_image(config, [real_layer(layout, {"usr/bin/python3": text.encode()})])
    put_image(layout, made)
    return made


def test_roots_are_unpacked_once_and_few_are_kept(tmp_path: Path) -> None:
    layout, cache = LayoutStore(tmp_path / "oci"), RootCache(tmp_path / "roots")
    warmed: list[Path] = []
    bases = [_base(layout, str(number)) for number in range(KEPT + 2)]
    for age, base in enumerate(bases):
        root = cache.make(layout, base, warmed.append)
        assert cache.make(layout, base, warmed.append) == root
        os.utime(root, (age, age))
    assert len(warmed) == len(bases)
    left = {each.name for each in cache.folder.iterdir() if each.is_dir()}
    assert bases[-1].digest.hex in left
    assert len(left) == KEPT
    assert not list(cache.folder.glob("*.part"))


def test_a_cache_of_another_user_is_said(tmp_path: Path) -> None:
    layout, cache = LayoutStore(tmp_path / "oci"), tmp_path / "cache"
    base = _base(layout, "x")
    root = RootCache(cache / "roots").make(layout, base, lambda _: None)
    lock = root.with_name(root.name + ".lock")
    lock.unlink()
    lock.mkdir()  # cannot be opened, whoever asks
    said = prepare(layout, base, cache)
    assert isinstance(said, str)
    assert "cannot be unpacked" in said


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"MLPACK_CACHE": "/a"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/mlpack"),
        ({"XDG_CACHE_HOME": "relative"}, f"{Path.home()}/.cache/mlpack"),
        ({}, f"{Path.home()}/.cache/mlpack"),
    ],
)
def test_the_cache_is_where_the_user_has_it(variables: dict[str, str], place: str) -> None:
    assert str(Session(environment=variables).cache) == place


def test_a_root_that_fails_is_not_kept(tmp_path: Path) -> None:
    layout, cache = LayoutStore(tmp_path / "oci"), RootCache(tmp_path / "roots")

    def fails(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.make(layout, _base(layout, "x"), fails)
    assert not [each for each in cache.folder.iterdir() if each.is_dir()]


def test_what_cannot_be_tried_is_said(tmp_path: Path) -> None:
    layout = LayoutStore(tmp_path / "oci")
    strange = _base(layout, "x", Platform("linux", "riscv64"))
    said = prepare(layout, strange, tmp_path)
    assert isinstance(said, str)
    assert "runs no linux/riscv64 programs" in said
    project = make_project(tmp_path / "fan")
    locked = project.lock().base.on(AMD64)
    assert locked is not None
    assert prepare(project.layout, base_image(project, locked), tmp_path) == (
        "the base has no /usr/bin/python3"
    )


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    return make_project(tmp_path / "fan")


def build(project: ProjectDirectory, model: Path, *options: str) -> tuple[int, str, str]:
    run("-C", str(project.root), "register", str(model), "--name", "fan")
    done = run("-C", str(project.root), "--json", "build", "fan", *options)
    return done.exit_code, done.stdout, done.stderr


def test_a_release_that_was_never_started_says_so_everywhere(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    status, out, said = build(project, tiny_onnx(tmp_path / "m.onnx"))
    assert status == 0
    assert {each["outcome"] for each in json.loads(out)["start"].values()} == {"never"}
    assert "linux/amd64: never started" in said
    for command in (["render", "fan"], ["report", "fan", "--from", "none"]):
        done = run("-C", str(project.root), "--json", *command)
        assert "never started" in json.loads(done.stdout)["never_started"][0], command


def test_without_a_start_the_prediction_decides(project: ProjectDirectory, tmp_path: Path) -> None:
    model = tiny_onnx(tmp_path / "m.onnx", opset=99)
    status, _, said = build(project, model, "--no-start")
    assert status == 1
    assert "opset 99" in said
    status, _, _ = build(project, model, "--no-start", "--allow", "onnxruntime")
    assert status == 0


def test_only_known_refusals_are_allowed(project: ProjectDirectory) -> None:
    done = run("-C", str(project.root), "build", "fan", "--allow", "everything")
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("kind", "shape", "fill", "made"),
    [
        ("tensor(float)", ("N", 2), "ones", [[1.0, 1.0]]),
        ("tensor(int64)", (2,), "zeros", [0, 0]),
        ("tensor(bool)", (1,), "ones", [True]),
        ("tensor(string)", (None,), "ones", ["a"]),
        ("tensor(double)", (), "ones", 1.0),
    ],
)
def test_tensors_are_made_for_a_signature(
    kind: str, shape: tuple[int | str | None, ...], fill: str, made: object
) -> None:
    found = trial.tensor(Tensor("x", kind, shape), 1, fill)
    assert found.tolist() == made
    assert found.dtype == Tensor("x", kind, shape).dtype


def test_a_tensor_that_is_too_large_is_not_made() -> None:
    with pytest.raises(trial.Unscored):
        trial.tensor(Tensor("x", "tensor(float)", (2**20, 2**20)), 1, "ones")
    assert np.dtype("float32") == Tensor("x", "tensor(float)", ()).dtype
