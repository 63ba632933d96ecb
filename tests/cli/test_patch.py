"""``mlpack patch`` from the command line: made, applied, looked into, refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mlpack.api import patch as api
from mlpack.api.requests import ApplyPatch, MakePatch
from mlpack.api.session import Progress, Session
from mlpack.runtime.patch import container
from mlpack.stores.patch_files import file_spans, mapped
from mlpack.tensor_patch.compression import unsigned
from tests.support import make_project, run, tiny_onnx
from tests.tensor_patch.spans.test_external import VARIABLES, index, manifest, weight

RANDOM = np.random.default_rng(7)


def network(path: Path, moved: float, *, data: str = "") -> Path:
    """An ONNX model with 64 KB of weights, ``moved`` from where they began."""
    weights = np.random.default_rng(1).normal(0, 0.05, (128, 128))
    change = np.random.default_rng(2).normal(0, 1e-4, weights.shape)
    model = onnx.load(str(tiny_onnx(path)))
    [node] = [each for each in model.graph.initializer if each.name == "w"]
    changed = (weights + moved * change).astype(np.float32)
    node.CopyFrom(numpy_helper.from_array(changed, "w"))
    if data:
        onnx.save(model, path, save_as_external_data=True, location=data, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return network(tmp_path / "v1.onnx", 0), network(tmp_path / "v2.onnx", 1)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_patch_is_small_says_so_and_makes_the_file(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = pair
    out, back = tmp_path / "v2.mlpd", tmp_path / "back.onnx"
    done = run("patch", "make", str(old), str(new), "-o", str(out))
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    assert "differences in 1 piece" in done.stderr
    assert "by zstd -19" in done.stderr
    assert out.stat().st_size < new.stat().st_size * 0.75
    done = run("patch", "apply", str(old), str(out), "-o", str(back))
    assert (done.exit_code, done.stdout) == (0, f"{back}\n")
    assert sha256(new) in done.stderr
    assert back.read_bytes() == new.read_bytes()


def test_the_documents_say_what_the_texts_say(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    out = tmp_path / "v2.mlpd"
    made = json.loads(run("patch", "make", str(old), str(new), "-o", str(out), "--json").stdout)
    assert made["bytes"] == out.stat().st_size
    assert made["new"] == {"bytes": new.stat().st_size, "digest": f"sha256:{sha256(new)}"}
    assert made["old"]["digest"] == f"sha256:{sha256(old)}"
    assert made["ratio"] == pytest.approx(made["bytes"] / made["new"]["bytes"], abs=1e-6)
    assert sum(each["bytes"] for each in made["operations"]) == new.stat().st_size
    assert (
        sum(each["stored_bytes"] for each in made["streams"]) + made["header_bytes"]
        == made["bytes"]
    )
    seen = json.loads(run("patch", "inspect", str(out), "--json").stdout)
    assert f"sha256:{sha256(old)}".startswith(seen["old"].pop("digest")), (
        "only its beginning is in the patch"
    )
    made["old"].pop("digest")
    assert seen == {key: made[key] for key in seen}
    text = run("patch", "inspect", str(out)).stdout
    for each in (*made["streams"], *made["operations"]):
        assert each.get("stream", each.get("kind")) in text
    assert max(map(len, text.splitlines())) <= 100
    applied = run("--json", "patch", "apply", str(old), str(out), "-o", str(tmp_path / "b"))
    assert json.loads(applied.stdout) == {"path": str(tmp_path / "b"), **made["new"]}


@pytest.mark.parametrize("old", [b"", b"x" * 5000, RANDOM.bytes(5000)])
@pytest.mark.parametrize("new", [b"", b"x" * 5000, RANDOM.bytes(5000)])
def test_any_two_files_will_do(tmp_path: Path, old: bytes, new: bytes) -> None:
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    done = run("-C", str(tmp_path), "patch", "make", "old", "new", "-o", "p")
    assert (done.exit_code, done.stdout) == (0, "p\n")
    assert run("-C", str(tmp_path), "patch", "inspect", "p").exit_code == 0
    # Neither input is overwritten (tests/cli/test_outputs.py).
    done = run("-C", str(tmp_path), "patch", "apply", "old", "p", "-o", "made")
    assert (done.exit_code, done.stdout) == (0, "made\n")
    assert (tmp_path / "made").read_bytes() == new


def test_external_data_is_understood_through_its_model(tmp_path: Path) -> None:
    for folder, moved in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        network(tmp_path / folder / "model.onnx", moved, data="weights.bin")
    old, new = (tmp_path / each / "weights.bin" for each in ("a", "b"))
    made = api.make(Session(), MakePatch(old, new, tmp_path / "p"))
    assert made.description.made("differences")
    with mapped(old) as content:
        assert [each.name for each in file_spans(old, content)] == ["w", "b"]
        # Two models name it: which of them is right nobody knows.
        (tmp_path / "a" / "copy.onnx").write_bytes((tmp_path / "a" / "model.onnx").read_bytes())
        assert file_spans(old, content) == ()


def test_tensorflow_describes_weights_in_other_files(tmp_path: Path) -> None:
    (tmp_path / "variables.index").write_bytes(index(VARIABLES))
    (tmp_path / "variables.data-00000-of-00001").write_bytes(bytes(91))
    group = {"paths": ["weights.bin"], "weights": [weight("w", 4, 4)]}
    (tmp_path / "model.json").write_bytes(manifest(group))
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    for name, arrays in (("variables.data-00000-of-00001", 4), ("weights.bin", 1)):
        with mapped(tmp_path / name) as content:
            assert len(file_spans(tmp_path / name, content)) == arrays


def test_model_versions_are_files_too(pair: tuple[Path, Path], tmp_path: Path) -> None:
    root = make_project(tmp_path / "fan", base=False).root
    for each in pair:
        assert run("-C", str(root), "register", str(each)).exit_code == 0
    done = run("-C", str(root), "patch", "make", "fan:1", "fan:2", "-o", "p", "--json")
    assert json.loads(done.stdout)["new"]["digest"] == f"sha256:{sha256(pair[1])}"
    done = run("-C", str(root), "patch", "make", "fan:1", "fan:9", "-o", "q")
    assert done.exit_code == 1
    assert "no version '9'" in done.stderr
    blob = root / ".mlpack" / "oci" / "blobs" / "sha256" / sha256(pair[1])
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    assert run("-C", str(root), "patch", "make", "fan:1", "fan:2", "-o", "q").exit_code == 1
    assert not (root / "q").exists()


def test_what_cannot_be_read_is_said_in_two_lines(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, out = str(pair[0]), str(tmp_path / "out")
    os.mkfifo(tmp_path / "pipe")
    for wrong in ("missing", "pipe", ""):
        given = str(tmp_path / wrong)
        for args in (
            ("make", given, old, "-o", out),
            ("make", old, given, "-o", out),
            ("apply", old, given, "-o", out),
            ("inspect", given),
        ):
            done = run("patch", *args)
            assert (done.exit_code, done.stdout) == (1, ""), args
            assert done.stderr.startswith("error: "), args
            assert len(done.stderr.splitlines()) == 2, args
    done = run("patch", "make", old, old, "-o", str(tmp_path / "pipe"))
    assert (done.exit_code, "not a regular file" in done.stderr) == (1, True)
    assert not (tmp_path / "out").exists()


def test_a_damaged_patch_leaves_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    whole = tmp_path / "whole"
    api.make(Session(), MakePatch(old, new, whole))
    content = whole.read_bytes()
    made = tmp_path / "folder" / "made"
    for number, place in enumerate(range(0, len(content), len(content) // 40)):
        path = tmp_path / "damaged"
        changed = bytes([content[place] ^ 0x10]) + content[place + 1 :]
        path.write_bytes(content[:place] + (changed if number % 2 else b""))
        done = run("patch", "apply", str(old), str(path), "-o", str(made))
        assert done.exit_code == 1, place
        assert done.stderr.startswith(f"error: {path}"), done.stderr
        assert "hint: " in done.stderr
        assert not made.exists()
        assert not list(made.parent.glob(".*"))
    for given in (new, whole):
        done = run("patch", "apply", str(given), str(whole), "-o", str(made))
        assert (done.exit_code, "the patch is for" in done.stderr) == (1, True)


def test_a_patch_that_declares_the_whole_of_memory_is_refused(tmp_path: Path) -> None:
    for declared in (2**25 + 1, 2**50, 2**62):
        head = container.MAGIC + bytes([container.VERSION]) + unsigned(0) + unsigned(2**60)
        head += hashlib.sha256(b"").digest() + bytes([container.ZSTD])
        (tmp_path / "p").write_bytes(head + unsigned(declared) + unsigned(4) + b"\x28\xb5\x2f\xfd")
        (tmp_path / "e").write_bytes(b"")
        for args in (("inspect", "p"), ("apply", "e", "p", "-o", "q")):
            done = run("-C", str(tmp_path), "patch", *args)
            assert done.exit_code == 1
            assert done.stderr.startswith(f"error: {tmp_path / 'p'}")


def test_an_interrupted_command_leaves_what_was_there(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = pair
    out = tmp_path / "folder" / "out"
    out.parent.mkdir()
    out.write_bytes(b"before")
    api.make(Session(), MakePatch(old, new, tmp_path / "p"))

    def interrupt(report: Progress) -> None:
        if report.done and not report.finished:
            raise KeyboardInterrupt

    session = Session(tmp_path, interrupt)
    with pytest.raises(KeyboardInterrupt):
        api.make(session, MakePatch(old, new, out))
    with pytest.raises(KeyboardInterrupt):
        api.apply(session, ApplyPatch(old, "p", out))
    assert [(each.name, each.read_bytes()) for each in out.parent.iterdir()] == [("out", b"before")]
