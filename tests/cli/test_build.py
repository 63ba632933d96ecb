"""``mlpack build`` on a tiny base: what it makes, prints, and refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from mlpack.oci.image import require_prefix
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import find_image
from mlpack.stores.integrity import validate
from tests.support import (
    AMD64,
    ARM64,
    make_project,
    run,
    tiny_base,
    tiny_onnx,
    unavailable,
)

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "p")
    for number, bias in enumerate((0.5, 0.7), 1):
        model = tiny_onnx(tmp_path / f"{number}.onnx", bias=bias)
        done = run("-C", str(made.root), "register", str(model))
        assert done.exit_code == 0, done.stderr
    return made


def build(project: ProjectDirectory, *args: str) -> dict[str, object]:
    done = run("-C", str(project.root), "--json", "build", *args)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_a_release_is_the_base_and_one_layer(project: ProjectDirectory) -> None:
    made = build(project, "fan:1")
    assert made["name"], made["version"] == ("fan", "1")
    for platform in (AMD64, ARM64):
        release = find_image(project, "fan:1", platform).image
        base = find_image(project, "base", platform).image
        require_prefix(release, base)
        assert len(release.layers) == len(base.layers) + 1
        assert str(release.layers[-1].digest) == made["layer"]["digest"]  # type: ignore[index]
        assert release.env["AZUREML_MODEL_DIR"] == "/var/azureml-app/azureml-models/fan/1"
        assert set(release.labels) == {"io.mlpack.model", "io.mlpack.version", "io.mlpack.digest"}
        assert len(release.manifest) + len(release.config) <= 2100
    assert validate(project.layout) == ()


def test_the_layer_holds_the_model_and_its_script(
    tmp_path: Path, project: ProjectDirectory
) -> None:
    (project.root / "score.py").write_text("def run(data): return data\n")
    run(
        "-C",
        str(project.root),
        "register",
        str(tiny_onnx(tmp_path / "3.onnx", bias=3)),
        "--scoring",
        str(project.root / "score.py"),
    )
    made = build(project, "fan:3")
    blob = project.layout.root / "blobs/sha256" / made["layer"]["digest"][7:]  # type: ignore[index]
    listed = subprocess.run(["tar", "-tzf", str(blob)], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == [
        "var/",
        "var/azureml-app/",
        "var/azureml-app/azureml-models/",
        "var/azureml-app/azureml-models/fan/",
        "var/azureml-app/azureml-models/fan/3/",
        "var/azureml-app/azureml-models/fan/3/3.onnx",
        "var/azureml-app/mlpack.json",
        "var/azureml-app/score.py",
    ]


def test_stdout_is_the_reference_alone(project: ProjectDirectory) -> None:
    done = run("-C", str(project.root), "build", "fan")
    digest = find_image(project, "fan:2").index.digest  # type: ignore[union-attr]
    assert done.stdout == f"registry.example.com/edge/fan@{digest}\n"
    assert "one layer of" in done.stderr
    assert find_image(project, done.stdout.strip()).index is not None


def test_building_again_changes_nothing(project: ProjectDirectory) -> None:
    first = build(project, "fan:1")
    before = sorted(project.layout.root.rglob("*"))
    assert build(project, "fan:1") == first
    assert sorted(project.layout.root.rglob("*")) == before


def test_the_same_inputs_give_the_same_digest_elsewhere(tmp_path: Path) -> None:
    digests = set()
    for place, umask in (("a", "022"), ("b/c", "077")):
        made = make_project(tmp_path / place)
        tiny_onnx(made.root / "m.onnx")
        script = f"umask {umask}; {sys.executable} -m mlpack -C {made.root}"
        subprocess.run(
            ["sh", "-c", f"{script} register {made.root}/m.onnx && {script} --json build fan"],
            check=True,
            capture_output=True,
            cwd=CHECKOUT,
            env={"PYTHONHASHSEED": "random"},
        )
        digests.add(build(made, "fan")["digest"])
    assert len(digests) == 1


def test_one_platform_has_no_index(project: ProjectDirectory) -> None:
    made = build(project, "fan:1", "--platform", "linux/arm64")
    found = find_image(project, "fan:1")
    assert found.index is None
    assert found.image.platform == ARM64
    assert made["platforms"] == {"linux/arm64": made["digest"]}


def test_a_platform_may_be_named_with_its_variant(project: ProjectDirectory) -> None:
    plain = build(project, "fan:1", "--platform", "linux/arm64")
    both = ["--platform", "linux/arm64", "--platform", "linux/arm64/v8"]
    assert build(project, "fan:1", *both) == plain
    done = run("-C", str(project.root), "build", "fan:1", "--platform", "linux/arm/v7")
    assert "it has nothing for linux/arm/v7" in done.stderr


def test_the_identity_record_refers_to_the_release(project: ProjectDirectory) -> None:
    made = build(project, "fan:1")
    manifest = json.loads(project.layout.path(project.layout.resolve("release/fan/1")).read_bytes())
    assert manifest["subject"]["digest"] == made["digest"]
    record = json.loads(
        (project.layout.root / "blobs/sha256" / manifest["layers"][0]["digest"][7:]).read_bytes()
    )
    assert record["packing"] == {"revision": 1, "compressor": "deflate 0.9.0"}
    assert record["base"] == made["base"]


def refusal(project: ProjectDirectory, *args: str) -> tuple[str, str]:
    """The error and the hint of a refused build; the store is as it was and valid."""
    before = dict(project.layout.tags())
    done = run("-C", str(project.root), "build", *args)
    assert done.exit_code == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert dict(project.layout.tags()) == before
    assert validate(project.layout) == ()
    return lines[0], lines[1] if len(lines) > 1 else ""


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        (
            "numpy==2.3.0\nonnxruntime",
            "numpy: requirements.in requires ==2.3.0, mlpack.lock has 2.4.6",
        ),
        ("pandas>=2", "pandas: requirements.in requires >=2, mlpack.lock does not have it"),
        (
            "numpy @ https://user:s3cret@example.com/numpy.whl",
            "requirements.in line 1: numpy is required from an address",
        ),
        ("numpy\nonnxruntime @ file:///x", "requirements.in line 2: onnxruntime is required"),
        ("numpy\nnot a line!", "requirements.in line 2: 'not a line!' cannot be read"),
    ],
)
def test_requirements_the_base_does_not_meet(
    project: ProjectDirectory, requirements: str, message: str
) -> None:
    (project.root / "requirements.in").write_text(requirements)
    error, _ = refusal(project, "fan")
    assert message in error


def test_requirements_are_named_as_the_settings_name_them(project: ProjectDirectory) -> None:
    path = project.root / "mlpack.toml"
    path.write_text(path.read_text() + '[base]\nrequirements = "needs.txt"\n')
    (project.root / "needs.txt").write_text("numpy==1.0")
    assert refusal(project)[0] == "error: numpy: needs.txt requires ==1.0, mlpack.lock has 2.4.6"
    (project.root / "needs.txt").write_bytes(b"\xff")
    assert refusal(project)[0].endswith("needs.txt is not UTF-8")


def test_a_requirement_for_other_machines_is_no_disagreement(project: ProjectDirectory) -> None:
    (project.root / "requirements.in").write_text('pywin32; sys_platform == "win32"\nnumpy\n')
    build(project, "fan")


def test_a_platform_the_base_does_not_have(tmp_path: Path, project: ProjectDirectory) -> None:
    error, hint = refusal(project, "fan", "--platform", "linux/riscv64")
    assert "the base is for linux/amd64, linux/arm64; it has nothing for linux/riscv64" in error
    assert "mlpack base build" in hint
    tiny_base(project, (AMD64,))
    error, _ = refusal(project, "fan")
    assert "nothing for linux/arm64" in error


def test_another_source_than_the_locked_one(project: ProjectDirectory) -> None:
    text = (project.root / "mlpack.toml").read_text()
    (project.root / "mlpack.toml").write_text(text + '[base]\nfrom = "oci:elsewhere"\n')
    error, hint = refusal(project, "fan")
    assert "a base from oci:elsewhere, mlpack.lock has debian:bookworm" in error
    assert "mlpack base build" in hint


def test_a_model_todays_onnxruntime_refuses(project: ProjectDirectory) -> None:
    path = project.root / "late.onnx"
    late = onnx.load(str(tiny_onnx(path)))
    late.opset_import[0].version = 99
    path.write_bytes(late.SerializeToString())
    done = run("-C", str(project.root), "register", str(path), "--name", "late")
    assert done.exit_code == 0, done.stderr
    error, hint = refusal(project, "late")
    assert "late:1 cannot run on the base: its opset 99 of ai.onnx is beyond" in error
    assert "export the model again" in hint


def test_no_base_yet(tmp_path: Path) -> None:
    made = make_project(tmp_path / "q", base=False)
    run("-C", str(made.root), "register", str(tiny_onnx(tmp_path / "m.onnx")))
    error, hint = refusal(made, "fan")
    assert "mlpack.lock" in error
    assert "mlpack base build" in hint


def test_a_lock_edited_by_hand(project: ProjectDirectory) -> None:
    lock = project.root / "mlpack.lock"
    lock.write_text(lock.read_text().replace("2.4.6", "2.4.7"))
    error, hint = refusal(project, "fan")
    assert "changed by hand" in error
    assert "git checkout mlpack.lock" in hint


@pytest.mark.parametrize("text", ["", "version = 2", "seal = 3\nversion = 1", "[[[", "\xff\xfe"])
def test_a_lock_that_is_none(project: ProjectDirectory, text: str) -> None:
    (project.root / "mlpack.lock").write_bytes(text.encode("latin-1"))
    error, _ = refusal(project, "fan")
    assert "mlpack.lock" in error


def test_a_base_that_was_deleted(project: ProjectDirectory) -> None:
    for platform in project.lock().base.platforms:
        project.layout.path(platform.manifest).unlink()
    done = run("-C", str(project.root), "build", "fan")
    assert done.exit_code == 1
    assert "is not whole in this store" in done.stderr
    assert "mlpack base build" in done.stderr


def test_a_model_that_changed_on_disk(project: ProjectDirectory) -> None:
    document = json.loads(run("-C", str(project.root), "--json", "show", "fan:1").stdout)
    digest = document["files"][0]["digest"].removeprefix("sha256:")
    path = project.layout.root / "blobs/sha256" / digest
    flip(path)
    done = run("-C", str(project.root), "build", "fan:1")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "is not what was registered" in done.stderr
    assert "hint: register the model again" in done.stderr
    assert "fan-1" not in project.layout.tags()
    model = tiny_onnx(project.root / "again.onnx")
    assert run("-C", str(project.root), "register", str(model)).exit_code == 0
    assert run("-C", str(project.root), "build", "fan:1").exit_code == 0
    assert validate(project.layout) == ()


@pytest.mark.parametrize("broken", ["index", "manifest", "config", "layer"])
def test_building_again_mends_a_release_with_a_flipped_byte(
    project: ProjectDirectory, broken: str
) -> None:
    build(project, "fan:1")
    release = find_image(project, "fan:1")
    assert release.index is not None
    target = {
        "index": release.index.descriptor,
        "manifest": release.image.descriptor,
        "config": release.image.config_descriptor,
        "layer": release.image.layers[-1].descriptor,
    }[broken]
    flip(project.layout.path(target))
    assert validate(project.layout) != ()
    if broken != "layer":  # a difference is worked out from the documents alone
        done = run("-C", str(project.root), "diff", "none", "fan:1")
        assert done.exit_code == 1
        assert done.stderr.startswith(f"error: {target.digest} holds other bytes")
        assert "hint: " in done.stderr
    build(project, "fan:1")
    assert validate(project.layout) == ()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_base_with_a_flipped_byte_is_not_built_upon(project: ProjectDirectory) -> None:
    flip(project.layout.path(project.lock().base.platforms[0].manifest))
    done = run("-C", str(project.root), "build", "fan:1")
    assert (done.exit_code, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert "holds other bytes" in error
    assert hint == "hint: make it from the lock: mlpack base build"
    assert "fan-1" not in project.layout.tags()


def test_two_processes_build_at_once(project: ProjectDirectory) -> None:
    command = [sys.executable, "-m", "mlpack", "-C", str(project.root), "build"]
    running = [
        subprocess.Popen(
            [*command, f"fan:{number % 2 + 1}"],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    answers = [each.communicate() for each in running]
    assert [each.returncode for each in running] == [0] * 4, answers
    assert len({out for out, _ in answers}) == 2
    assert {"fan-1", "fan-2"} <= set(project.layout.tags())
    assert validate(project.layout) == ()


def test_skopeo_reads_the_release(project: ProjectDirectory, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        unavailable("skopeo is not installed")
    build(project, "fan:1")
    done = subprocess.run(
        ["skopeo", "inspect", "--config", f"oci:{project.layout.root}:fan-1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["config"]["Labels"]["io.mlpack.version"] == "1"
