"""``mlpack build --strategy``: anchors, patches, and the lock that names the anchors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpack.api.requests import Build
from mlpack.errors import UsageError
from mlpack.oci.image import require_prefix
from mlpack.project.directory import ProjectDirectory
from mlpack.project.ledger import Ledger
from mlpack.project.references import find_image
from mlpack.runtime.identity import read_identity
from mlpack.runtime.rebuild import rebuild
from mlpack.runtime.settings import RuntimeSettings
from mlpack.stores.integrity import validate
from tests.support import AMD64, ARM64, dense_onnx, make_project, run, tiny_base, tiny_onnx

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project of four versions: two fine-tuned from the first, and one trained anew."""
    made = make_project(tmp_path / "p")
    for tuned in (0, 1, 2):
        register(made, dense_onnx(tmp_path / "model.onnx", tuned=tuned))
    register(made, dense_onnx(tmp_path / "model.onnx", seed=7))
    return made


def at(project: ProjectDirectory, *args: str) -> Any:  # noqa: ANN401  # click's Result
    return run("-C", str(project.root), *args)


def register(project: ProjectDirectory, *args: object) -> None:
    done = at(project, "register", *map(str, args))
    assert done.exit_code == 0, done.stderr


def build(project: ProjectDirectory, *args: str) -> dict[str, Any]:
    done = at(project, "--json", "build", *args)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refusal(project: ProjectDirectory, *args: str) -> str:
    before, lock = dict(project.layout.tags()), (project.root / "mlpack.lock").read_bytes()
    done = at(project, "build", *args)
    assert (done.exit_code, done.stdout) == (1, "")
    assert dict(project.layout.tags()) == before
    assert (project.root / "mlpack.lock").read_bytes() == lock
    found: str = done.stderr
    return found


def unpack(project: ProjectDirectory, name: str, root: Path) -> None:
    """Lay the layers above the base into ``root``, as an engine would."""
    image, base = find_image(project, name, AMD64).image, find_image(project, "base", AMD64).image
    root.mkdir()
    for layer in image.layers[len(base.layers) :]:
        blob = project.layout.path(layer.descriptor)
        subprocess.run(["tar", "-xf", str(blob), "-C", str(root)], check=True)
        for mark in list(root.rglob(".wh.*")):
            mark.with_name(mark.name.removeprefix(".wh.")).unlink()
            mark.unlink()


def served(project: ProjectDirectory, name: str, root: Path) -> Path:
    """The folder of the model's files, as the runtime finds or rebuilds it."""
    unpack(project, name, root)
    env = find_image(project, name, AMD64).image.env
    settings = RuntimeSettings.read(
        {
            "AML_APP_ROOT": f"{root}/var/azureml-app",
            "AZUREML_MODEL_DIR": f"{root}{env['AZUREML_MODEL_DIR']}",
        }
    )
    found = rebuild(read_identity(settings).files, settings)
    return found.folder if found else settings.model_dir


def test_the_first_release_is_the_anchor_and_the_next_a_patch_on_it(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    first = build(project, "fan:1")
    assert (first["strategy"], first["anchored"]) == ("packed", True)
    assert first["anchor"] == first["digest"] == str(project.lock().anchors["fan"])
    second = build(project, "fan:2")
    assert (second["strategy"], second["anchored"]) == ("patch", False)
    assert second["anchor"] == first["digest"]
    for platform in (AMD64, ARM64):
        base, anchor, patch = (
            find_image(project, name, platform).image for name in ("base", "fan:1", "fan:2")
        )
        require_prefix(patch, anchor)
        assert len(patch.layers) == len(base.layers) + 2
        assert str(patch.layers[-1].digest) == second["layer"]["digest"]
        assert patch.env["AZUREML_MODEL_DIR"] == "/var/azureml-app/azureml-models/fan/2"
        assert patch.labels["io.mlpack.version"] == "2"
        assert patch.labels["io.mlpack.packed"] == anchor.labels["io.mlpack.packed"] == "1"
        assert set(patch.labels) == set(anchor.labels)
    candidates = second["candidates"]
    assert candidates["patch"]["bytes"] == second["layer"]["bytes"]
    assert candidates["patch"]["bytes"] < 0.7 * candidates["layer"]["bytes"]
    assert candidates["patch"]["devices_fetch"] == second["transfer"]["total"]
    assert validate(project.layout) == ()
    files = list(served(project, "fan:2", tmp_path / "root").iterdir())
    assert [each.name for each in files] == ["model.onnx"]
    assert files[0].read_bytes() == dense_onnx(tmp_path / "again.onnx", tuned=1).read_bytes()


def record_of(project: ProjectDirectory, made: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The names in a release's top layer, and its record's only file."""
    blob = project.layout.root / "blobs/sha256" / made["layer"]["digest"][7:]
    listed = subprocess.run(["tar", "-tf", str(blob)], capture_output=True, text=True, check=True)
    record = json.loads(
        subprocess.run(
            ["tar", "-xOf", str(blob), "var/azureml-app/mlpack.json"],
            capture_output=True,
            check=True,
        ).stdout
    )
    [file] = record["files"]
    return listed.stdout.split(), file


def names(patch: str) -> list[str]:
    return [
        "var/",
        "var/azureml-app/",
        "var/azureml-app/mlpack/",
        f"var/azureml-app/mlpack/{patch}",
        "var/azureml-app/mlpack.json",
    ]


def test_the_layer_of_a_patch_holds_the_patch_and_the_record(project: ProjectDirectory) -> None:
    build(project, "fan:1", "--strategy", "layer")
    listed, file = record_of(project, build(project, "fan:2"))
    assert listed == names("patch.mlpd")
    assert (file["from"], file["patch"]) == ("azureml-models/fan/1/model.onnx", "mlpack/patch.mlpd")


def test_the_layer_of_a_packed_model_holds_that_and_the_record(project: ProjectDirectory) -> None:
    listed, file = record_of(project, build(project, "fan:1"))
    assert listed == names("packed-1.mlpd")
    assert file["packed"] == "mlpack/packed-1.mlpd"
    assert not {"from", "patch"} & set(file)
    listed, file = record_of(project, build(project, "fan:2"))
    assert listed == names("patch.mlpd")
    assert (file["packed"], file["patch"]) == ("mlpack/packed-1.mlpd", "mlpack/patch.mlpd")
    assert "from" not in file


@pytest.mark.parametrize("anchor", ["layer", "packed"])
def test_patches_on_either_anchor_make_the_model(
    anchor: str, project: ProjectDirectory, tmp_path: Path
) -> None:
    first = build(project, "fan:1", "--strategy", anchor)
    assert (first["strategy"], first["anchored"]) == (anchor, True)
    for version in (1, 2):
        made = build(project, f"fan:{version}")
        assert made["strategy"] == (anchor if version == 1 else "patch")
        [file] = served(project, f"fan:{version}", tmp_path / f"root{version}").iterdir()
        model = dense_onnx(tmp_path / "again.onnx", tuned=version - 1)
        assert file.read_bytes() == model.read_bytes()


def test_a_packed_model_is_smaller_and_never_larger_than_the_layer(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    register(made, dense_onnx(tmp_path / "model.onnx"))
    found = build(made, "fan:1", "--strategy", "packed")
    sizes = {way: each and each["bytes"] for way, each in found["candidates"].items()}
    assert sizes["packed"] == found["layer"]["bytes"] < 0.92 * sizes["layer"]
    assert sizes["patch"] is None
    # A layer holds what is the same in files once, and each is packed by itself.
    register(made, repeated(tmp_path / "repeated"), "--name", "repeated")
    found = build(made, "repeated", "--strategy", "packed")
    assert (found["strategy"], found["anchored"]) == ("layer", True)
    assert found["candidates"]["packed"]["bytes"] > found["layer"]["bytes"] + 200
    assert "of the layer" in found["why"]


def test_a_model_that_packing_makes_no_smaller(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    folder = tmp_path / "text"
    folder.mkdir()
    tiny_onnx(folder / "model.onnx")
    (folder / "labels.txt").write_text("a label of many words\n" * 100)
    register(made, folder, "--name", "text")
    found = build(made, "text", "--strategy", "packed")
    assert found["strategy"] == "layer"
    assert found["candidates"]["packed"] is None
    assert "of the layer" in found["why"]


def repeated(folder: Path) -> Path:
    """Arrays that differ in their last number."""
    folder.mkdir()
    tiny_onnx(folder / "model.onnx")
    numbers = np.random.default_rng(1).normal(size=2000).astype(np.float32)
    for number in range(20):
        numbers[-1] = number
        np.save(folder / f"{number}.npy", numbers)
    return folder


def test_every_later_release_stands_on_the_anchor_alone(project: ProjectDirectory) -> None:
    build(project, "fan:1")
    build(project, "fan:2")
    third = build(project, "fan:3")
    assert third["strategy"] == "patch"
    anchor = find_image(project, "fan:1", AMD64).image
    assert find_image(project, "fan:3", AMD64).image.layers[:-1] == anchor.layers


def test_a_patch_above_70_percent_cuts_a_new_anchor(project: ProjectDirectory) -> None:
    build(project, "fan:1")
    fourth = build(project, "fan:4")
    assert (fourth["strategy"], fourth["anchored"]) == ("packed", True)
    assert "of the packed model, more than 70 %" in fourth["why"]
    candidates = fourth["candidates"]
    assert candidates["packed"]["bytes"] == fourth["layer"]["bytes"] < candidates["layer"]["bytes"]
    assert candidates["patch"]["bytes"] > 0.7 * candidates["packed"]["bytes"]
    assert str(project.lock().anchors["fan"]) == fourth["digest"]
    assert len(find_image(project, "fan:4", AMD64).image.layers) == 5


def test_building_again_gives_the_same_whatever_the_anchor_is_then(
    project: ProjectDirectory,
) -> None:
    digests = {version: build(project, f"fan:{version}")["digest"] for version in "1234"}
    lock = (project.root / "mlpack.lock").read_bytes()
    for version in "2341":
        assert build(project, f"fan:{version}")["digest"] == digests[version]
    assert (project.root / "mlpack.lock").read_bytes() == lock


def test_the_same_inputs_give_the_same_patch_elsewhere(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    build(project, "fan:1")
    here = build(project, "fan:2")
    made = make_project(tmp_path / "elsewhere")
    for tuned in (0, 1):
        register(made, dense_onnx(tmp_path / "model.onnx", tuned=tuned))
        build(made, "fan")
    assert str(find_image(made, "fan:2").target.digest) == here["digest"]


def test_a_clone_of_the_project_comes_to_the_same_releases(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    digests = [build(project, f"fan:{version}")["digest"] for version in "12"]
    lock = (project.root / "mlpack.lock").read_bytes()
    shutil.rmtree(project.root / ".mlpack")
    tiny_base(project)
    (project.root / "mlpack.lock").write_bytes(lock)
    clone = ProjectDirectory(project.root)
    register(clone, dense_onnx(tmp_path / "model.onnx", tuned=0))
    register(clone, dense_onnx(tmp_path / "model.onnx", tuned=1))
    # Before the anchor is there, a patch cannot be made; nobody else's anchor is replaced.
    error = refusal(clone, "fan:2", "--strategy", "patch")
    assert "the anchor" in error
    assert "is not in this store" in error
    assert f"mlpack pull registry.example.com/edge/fan@{digests[0]}" in error
    first = build(clone, "fan:1")
    assert (first["digest"], first["anchored"]) == (digests[0], False)
    assert build(clone, "fan:2")["digest"] == digests[1]
    assert (project.root / "mlpack.lock").read_bytes() == lock


def test_a_small_model_leaves_the_lock_alone(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    lock = (made.root / "mlpack.lock").read_bytes()
    for bias in (0.5, 0.75):
        register(made, tiny_onnx(tmp_path / "model.onnx", bias=bias))
        found = build(made, "fan")
        assert (found["strategy"], found["anchor"], found["anchored"]) == ("layer", None, False)
        assert "this small" in found["why"]
    assert (made.root / "mlpack.lock").read_bytes() == lock


def test_small_models_get_an_anchor_and_patches_where_they_are_asked_for(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    register(made, tiny_onnx(tmp_path / "model.onnx", bias=0.5))
    assert build(made, "fan", "--strategy", "layer")["anchored"] is True
    register(made, tiny_onnx(tmp_path / "model.onnx", bias=0.75))
    assert build(made, "fan")["strategy"] == "layer"
    assert build(made, "fan", "--strategy", "patch")["strategy"] == "patch"
    served(made, "fan:2", tmp_path / "root")


def test_a_layer_that_is_asked_for_leaves_a_good_anchor(project: ProjectDirectory) -> None:
    build(project, "fan:1")
    lock = (project.root / "mlpack.lock").read_bytes()
    found = build(project, "fan:2", "--strategy", "layer")
    assert (found["strategy"], found["anchored"], found["why"]) == ("layer", False, "requested")
    assert (project.root / "mlpack.lock").read_bytes() == lock


def test_a_layer_has_the_bytes_it_had_without_patches(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    build(project, "fan:1")
    by_layer = build(project, "fan:2", "--strategy", "layer")["digest"]
    other = make_project(tmp_path / "other")
    tiny_base(other, patch_formats=(1,))
    for tuned in (0, 1):
        register(other, dense_onnx(tmp_path / "model.onnx", tuned=tuned))
    assert build(other, "fan:2")["digest"] == by_layer


def test_a_base_of_before_applies_no_patches(project: ProjectDirectory) -> None:
    tiny_base(project, patch_formats=(1,))
    found = build(project, "fan:1")
    assert (found["strategy"], found["anchored"]) == ("layer", False)
    assert "the runtime in the locked base applies no patches of format 2" in found["why"]
    assert "mlpack base build" in found["why"]
    for strategy in ("patch", "packed"):
        error = refusal(project, "fan:2", "--strategy", strategy)
        assert "applies no patches" in error
        assert "mlpack base build" in error


def test_without_an_anchor_there_is_no_patch(project: ProjectDirectory) -> None:
    error = refusal(project, "fan:1", "--strategy", "patch")
    assert "fan has no anchor yet" in error
    assert "mlpack build --strategy layer" in error


def test_the_anchor_itself_is_no_patch(project: ProjectDirectory) -> None:
    build(project, "fan:1")
    assert "fan:1 is the anchor itself" in refusal(project, "fan:1", "--strategy", "patch")


def test_another_base_needs_another_anchor(project: ProjectDirectory) -> None:
    first = build(project, "fan:1")
    anchors = project.lock().anchors
    other = tiny_base(project, text=" anew")
    project.write_lock(type(other)(base=other.base, anchors=anchors))
    assert "is on another base" in refusal(project, "fan:2", "--strategy", "patch")
    second = build(project, "fan:2")
    assert (second["strategy"], second["anchored"]) == ("packed", True)
    assert first["digest"] != second["digest"] == str(project.lock().anchors["fan"])


def test_one_platform_alone_uses_the_anchor_of_all_and_replaces_none(
    project: ProjectDirectory,
) -> None:
    build(project, "fan:1")
    lock = (project.root / "mlpack.lock").read_bytes()
    found = build(project, "fan:2", "--platform", "linux/arm64")
    assert found["strategy"] == "patch"
    assert list(found["platforms"]) == ["linux/arm64"]
    # The tag fan-1 is another image then; the anchor stays what it is.
    build(project, "fan:1", "--platform", "linux/arm64")
    assert (project.root / "mlpack.lock").read_bytes() == lock
    assert build(project, "fan:3")["strategy"] == "patch"


def test_an_anchor_whose_model_was_dropped(project: ProjectDirectory) -> None:
    build(project, "fan:1")
    names = json.loads((project.layout.root / "index.json").read_text())
    names["manifests"] = [
        each
        for each in names["manifests"]
        if each["annotations"].get("org.opencontainers.image.ref.name") != "model/fan/1"
    ]
    (project.layout.root / "index.json").write_text(json.dumps(names))
    found = build(project, "fan:2")
    assert (found["strategy"], found["anchored"]) == ("packed", False)
    assert "the model of the anchor (fan:1) is not in this store" in found["why"]


def test_a_damaged_model_of_the_anchor(project: ProjectDirectory) -> None:
    build(project, "fan:1")
    document = json.loads(at(project, "--json", "show", "fan:1").stdout)
    path = project.layout.root / "blobs/sha256" / document["files"][0]["digest"][7:]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    error = refusal(project, "fan:2", "--strategy", "patch")
    assert "model.onnx in the store is not what was registered" in error


@pytest.mark.parametrize("strategy", ["patch", "packed"])
def test_docker_makes_no_patches(strategy: str, project: ProjectDirectory) -> None:
    done = at(project, "build", "fan", "--builder", "docker", "--strategy", strategy)
    assert done.exit_code == 2
    assert f"--strategy {strategy} works with --builder oci, not with docker" in done.stderr


@pytest.mark.parametrize("command", [("build", "fan"), ("patch", "make", "a", "b", "-o", "c")])
def test_an_unknown_effort(command: tuple[str, ...], project: ProjectDirectory) -> None:
    done = at(project, *command, "--effort", "most")
    assert done.exit_code == 2
    assert "'fast', 'default', 'max'" in done.stderr
    with pytest.raises(UsageError, match="'most' is not a known effort"):
        Build("fan", effort="most")  # type: ignore[arg-type]


def test_what_it_says(project: ProjectDirectory) -> None:
    said = at(project, "build", "fan:1").stderr
    assert "fan:1 is now the anchor of fan" in said
    assert "commit mlpack.lock" in said
    said = at(project, "build", "fan:2").stderr
    assert "a patch of" in said
    assert "a device on the anchor fetches" in said
    assert [line.split()[0] for line in said.splitlines()[1:4]] == [
        "holds",
        said.splitlines()[2],
        "fan:1",
    ]


def test_records_and_ledger_name_the_strategy(project: ProjectDirectory) -> None:
    first = build(project, "fan:1")
    build(project, "fan:2")
    assert [each.strategy for each in Ledger(project.ledger).releases()] == ["packed", "patch"]
    records = []
    for version in "12":
        target = project.layout.resolve(f"release/fan/{version}")
        manifest = json.loads(project.layout.path(target).read_bytes())
        blob = manifest["layers"][0]["digest"][7:]
        records.append(json.loads((project.layout.root / "blobs/sha256" / blob).read_bytes()))
    assert [each["strategy"] for each in records] == ["packed", "patch"]
    assert "anchor" not in records[0]
    assert records[1]["anchor"] == first["digest"]
    for each in records:
        assert each["whole"]["size"] > each["rebuilt"] * 0.8


FILES = ("model.onnx", "labels.txt", "sub/notes.json")


def several(folder: Path, tuned: int, labels: str) -> Path:
    folder.mkdir()
    dense_onnx(folder / "model.onnx", tuned=tuned)
    dense_onnx(folder / "second.onnx", tuned=tuned, seed=3)
    (folder / "labels.txt").write_text(labels)
    (folder / "sub").mkdir()
    (folder / "sub" / f"notes-{tuned}.json").write_text("{}" if tuned else "{ }")
    return folder


def test_several_files_each_come_their_own_way(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    scripts = []
    for tuned in (0, 1):
        script = tmp_path / f"score{tuned}.py"
        script.write_text(f"def init(): pass\ndef run(data): return {tuned}\n")
        scripts.append(script)
        folder = several(tmp_path / f"m{tuned}", tuned, "off\non\n")
        register(made, folder, "--name", "fan", "--scoring", script)
        build(made, "fan")
    patch = find_image(made, "fan:2", AMD64).image
    blob = made.layout.path(patch.layers[-1].descriptor)
    listed = subprocess.run(["tar", "-tf", str(blob)], capture_output=True, text=True, check=True)
    files = [each for each in listed.stdout.split() if not each.endswith("/")]
    assert files == [
        "var/azureml-app/azureml-models/fan/2/m1/sub/notes-1.json",
        "var/azureml-app/mlpack/patch-1.mlpd",
        "var/azureml-app/mlpack/patch-2.mlpd",
        "var/azureml-app/mlpack.json",
        "var/azureml-app/score.py",
    ]
    found = served(made, "fan:2", tmp_path / "root")
    held = {each.relative_to(found).as_posix() for each in found.rglob("*") if each.is_file()}
    names = {"model.onnx", "second.onnx", "labels.txt", "sub/notes-1.json"}
    assert held == {f"m1/{name}" for name in names}
    for name in held:
        assert (found / name).read_bytes() == (tmp_path / name).read_bytes()
    assert (tmp_path / "root/var/azureml-app/score.py").read_text() == scripts[1].read_text()


def test_weights_beside_the_model_are_known_by_what_it_says_of_them(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    for tuned in (0, 1):
        folder = tmp_path / f"m{tuned}"
        folder.mkdir()
        dense_onnx(folder / "model.onnx", tuned=tuned, beside="weights.bin")
        register(made, folder / "model.onnx", "--name", "fan")
    build(made, "fan:1")
    found = build(made, "fan:2")
    # As bytes of nothing known they would take nine tenths of the layer.
    assert found["strategy"] == "patch", found["why"]
    whole = served(made, "fan:2", tmp_path / "root")
    assert (whole / "weights.bin").read_bytes() == (tmp_path / "m1/weights.bin").read_bytes()
    assert (whole / "model.onnx").read_bytes() == (tmp_path / "m1/model.onnx").read_bytes()


def test_a_script_that_is_gone_is_gone(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    script = tmp_path / "score.py"
    script.write_text("def init(): pass\ndef run(data): return 1\n")
    register(made, dense_onnx(tmp_path / "model.onnx"), "--name", "fan", "--scoring", script)
    build(made, "fan")
    register(made, dense_onnx(tmp_path / "model.onnx", tuned=1), "--name", "fan")
    found = build(made, "fan")
    assert found["strategy"] == "patch"
    unpack(made, "fan:2", tmp_path / "root")
    assert not (tmp_path / "root/var/azureml-app/score.py").exists()


def test_a_script_that_stays_is_not_sent_again(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    script = tmp_path / "score.py"
    script.write_text("def init(): pass\ndef run(data): return 1\n")
    for tuned in (0, 1):
        model = dense_onnx(tmp_path / "model.onnx", tuned=tuned)
        register(made, model, "--name", "fan", "--scoring", script)
        build(made, "fan")
    patch = find_image(made, "fan:2", AMD64).image.layers[-1]
    blob = made.layout.path(patch.descriptor)
    listed = subprocess.run(["tar", "-tf", str(blob)], capture_output=True, text=True, check=True)
    assert "score.py" not in listed.stdout
    unpack(made, "fan:2", tmp_path / "root")
    assert (tmp_path / "root/var/azureml-app/score.py").read_text() == script.read_text()


def test_code_that_changes_is_sent_and_what_is_gone_is_gone(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    ends = "def init(): pass\ndef run(data): return 1\n"
    sources: list[dict[str, str]] = [
        {"detect.py": "import a, lib.b, c\n", "a.py": "1", "lib/b.py": "1", "c.py": "1"},
        {"detect.py": "import a, lib\n", "a.py": "1", "lib.py": "2"},
        {"detect.py": ""},
    ]
    for tuned, files in enumerate(sources):
        folder = tmp_path / f"s{tuned}"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text + (ends if name == "detect.py" else ""))
        model = dense_onnx(tmp_path / "model.onnx", tuned=tuned)
        register(made, model, "--name", "fan", "--scoring", folder / "detect.py")
        found = build(made, "fan")
    assert found["strategy"] == "patch"
    held = []
    for number in (1, 2, 3):
        root = tmp_path / f"r{number}"
        unpack(made, f"fan:{number}", root)
        app = root / "var/azureml-app"
        held.append({each.relative_to(app).as_posix() for each in app.rglob("*.py")})
    assert held == [{*sources[0]}, {*sources[1]}, {"score.py"}]
    env = [find_image(made, f"fan:{number}", AMD64).image.env for number in (1, 2, 3)]
    assert [each.get("AZUREML_ENTRY_SCRIPT") for each in env] == [
        "detect.py",
        "detect.py",
        "score.py",
    ]


GROUP = """
[deploy.groups.vans]
target = "tags.kind = 'van'"
"""


@pytest.mark.parametrize(
    ("release", "strategy"), [("fan:1", "patch"), ("none", "packed"), ("fan:0", "packed")]
)
def test_a_device_group_decides(
    project: ProjectDirectory, tmp_path: Path, release: str, strategy: str
) -> None:
    build(project, "fan:1")
    path = project.root / "mlpack.toml"
    path.write_text(path.read_text() + GROUP)
    fleet = tmp_path / "fleet.json"
    fleet.write_text(
        json.dumps(
            {
                "devices": [
                    {
                        "deviceId": "a",
                        "release": release,
                        "platform": "linux/arm64",
                        "count": 1000,
                        "tags": {"kind": "van"},
                    }
                ]
            }
        )
    )
    found = build(project, "fan:2", "--device-group", "vans", "--fleet", str(fleet))
    assert found["strategy"] == strategy, found["why"]
    assert "1,000 devices" in found["why"]
    assert found["anchored"] is False


def test_a_fleet_file_needs_a_group(project: ProjectDirectory) -> None:
    done = at(project, "build", "fan", "--fleet", "fleet.json")
    assert done.exit_code == 2
    assert "--device-group GROUP" in done.stderr


def test_processes_that_build_at_once_agree_on_one_anchor(project: ProjectDirectory) -> None:
    command = [sys.executable, "-m", "mlpack", "-C", str(project.root), "build"]
    running = [
        subprocess.Popen(
            [*command, f"fan:{number}"],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2, 3)
    ]
    answers = [each.communicate() for each in running]
    assert [each.returncode for each in running] == [0] * 3, answers
    anchors = [err for _, err in answers if "is now the anchor" in err]
    assert len(anchors) == 1
    named = project.lock().anchors["fan"]
    assert named in {find_image(project, f"fan:{n}").target.digest for n in (1, 2, 3)}
    assert validate(project.layout) == ()


def test_diff_and_plan_and_report_know_patch_releases(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    for version in "123":
        build(project, f"fan:{version}")
    patch = find_image(project, "fan:3").image.layers[-1].size
    anchor = find_image(project, "fan:1").image.layers[-1].size
    for old, actions, layers in (
        ("fan:1", ["reuse"] * 5 + ["fetch"], patch),
        ("fan:2", ["reuse"] * 5 + ["fetch"], patch),
        ("base", ["reuse"] * 4 + ["fetch"] * 2, patch + anchor),
    ):
        found = json.loads(at(project, "--json", "diff", old, "fan:3").stdout)
        assert [each["action"] for each in found["layers"]] == actions
        assert found["transfer"]["layers"] == layers
    assert {
        each["action"]
        for each in json.loads(at(project, "--json", "diff", "none", "fan:3").stdout)["layers"]
    } == {"fetch"}
    report = json.loads(at(project, "--json", "report", "fan:3", "--from", "fan:1").stdout)
    sent = {each["name"]: each["transfer"]["layers"] for each in report["strategies"]}
    assert list(sent) == ["whole", "usual", "layer", "patch"]
    assert sent["patch"] == patch < sent["layer"] <= sent["usual"]
    assert "mlpack patch" in at(project, "report", "fan:3", "--from", "fan:1").stdout
    path = project.root / "mlpack.toml"
    path.write_text(path.read_text() + GROUP)
    fleet = tmp_path / "fleet.json"
    states = ("fan:1", "fan:2", "none", "unknown")
    fleet.write_text(
        json.dumps(
            {
                "devices": [
                    {"deviceId": each, "release": each, "tags": {"kind": "van"}} for each in states
                ]
            }
        )
    )
    asked = ("plan", "fan:3", "--device-group", "vans", "--fleet", str(fleet))
    plan = json.loads(at(project, "--json", *asked).stdout)
    assert plan["strategy"] == "patch"
    ways = {
        each["release"]: {way["name"]: way["transfer"]["layers"] for way in each["strategies"]}
        for each in plan["cohorts"]
    }
    assert set(ways) == set(states)
    assert ways["fan:1"]["patch"] == ways["fan:2"]["patch"] == patch
    assert ways["fan:1"]["layer"] == sent["layer"]
    assert ways["none"]["patch"] > ways["none"]["layer"]
    shown = at(project, *asked)
    assert shown.exit_code == 0
    assert "mlpack patch" in shown.stdout


def test_the_image_of_a_patch_release_is_small(project: ProjectDirectory) -> None:
    build(project, "fan:1")
    build(project, "fan:2")
    first, second = (find_image(project, name).image for name in ("fan:1", "fan:2"))
    grown = len(second.manifest) + len(second.config) - len(first.manifest) - len(first.config)
    assert grown < 300


def test_a_rendered_module_has_room_for_the_model_it_rebuilds(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    build(project, "fan:1", "--strategy", "layer")
    build(project, "fan:2")
    build(project, "fan:3", "--strategy", "packed")
    mib = 1024 * 1024
    for release, room in (("fan:1", 64 * mib), ("fan:2", 65 * mib), ("fan:3", 65 * mib)):
        content = json.loads(at(project, "render", release).stdout)["modulesContent"]
        desired = content["$edgeAgent"]["properties.desired"]
        settings = desired["modules"]["fan"]["settings"]
        options = "".join(settings[key] for key in sorted(settings) if key.startswith("createO"))
        assert f"size={room}," in json.loads(options)["HostConfig"]["Tmpfs"]["/tmp"]
        done = at(project, "render", release, "--target", "kubernetes")
        assert f"sizeLimit: '{room}'" in done.stdout, done.stdout


def weights(folder: Path, noise: bytes) -> Path:
    """A model with a file of compressed weights next to it."""
    folder.mkdir()
    tiny_onnx(folder / "model.onnx")
    (folder / "weights.bin").write_bytes(noise)
    return folder


def test_what_no_patch_can_make_smaller_is_built_at_once(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    random = np.random.default_rng(1)
    first, second = random.bytes(3_000_000), random.bytes(3_000_000)
    for name, content in (("a", first), ("b", second), ("c", second[:40] + second)):
        register(made, weights(tmp_path / name, content), "--name", "fan")
    assert build(made, "fan:1")["strategy"] == "layer"
    command = [sys.executable, "-X", "importtime", "-m", "mlpack", "-C", str(made.root)]
    done = subprocess.run(
        [*command, "--json", "build", "fan:2"], cwd=CHECKOUT, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert (found["strategy"], found["anchored"]) == ("layer", True)
    assert "a patch is expected to take 100" in found["why"]
    assert found["candidates"] == {"layer": None, "packed": None, "patch": None}
    # Nothing is compared, so the libraries that make patches are not loaded.
    assert "mlpack.api.build" in done.stderr
    assert "numpy" not in done.stderr
    # Compressed files that have much in common are another matter.
    assert build(made, "fan:3")["strategy"] == "patch"
