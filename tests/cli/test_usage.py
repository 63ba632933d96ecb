"""What holds for every command: two lines where something is wrong, and nothing on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.support import make_project, run, tiny_onnx

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with two releases, fan:1 and fan:2."""
    made = make_project(tmp_path / "project")
    for bias in (0.5, 1.5):
        run("-C", str(made.root), "register", str(tiny_onnx(tmp_path / "m.onnx", bias=bias)))
        assert run("-C", str(made.root), "build", "fan").exit_code == 0
    return made


def refused(*args: str, status: int) -> tuple[str, str]:
    """Run a command that must fail; return its error and its hint."""
    done = run(*args)
    assert (done.exit_code, done.stdout) == (status, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error.removeprefix("error: "), hint.removeprefix("hint: ")


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["bogus"], "no such command 'bogus'", "see: mlpack --help"),
        (["--bogus"], "no such option", "see: mlpack --help"),
        (["diff", "fan:1"], "missing argument 'NEW'", "see: mlpack diff --help"),
        (["base", "bogus"], "no such command 'bogus'", "see: mlpack base --help"),
        (["build", "fan", "door"], "got unexpected extra argument", "see: mlpack build --help"),
        (["report", "--devices", "many"], "invalid value for '--devices': 'many' is not", "see"),
        (["report", "--devices", "9" * 30], "invalid value for '--devices'", "see"),
        (["init", "--template", "car"], "invalid value for '--template': 'car'", "see"),
        (["register", ""], "an argument is empty", "is a variable of the shell not set?"),
        (["report", "--from", ""], "an argument is empty", "is a variable"),
        (["report", "--from="], "an argument is empty", "is a variable"),
        (["-C", "", "models"], "an argument is empty", "is a variable"),
        (
            ["build", "fan", "--platform", "arm"],
            "'arm' is not a platform",
            "write it as linux/amd64",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_two_lines(args: list[str], error: str, hint: str) -> None:
    said = refused(*args, status=2)
    assert said[0].startswith(error)
    assert said[1].startswith(hint)


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    error, _ = refused("diff", "none", f"oci:{tmp_path}/a\nb\x1b[31m", status=1)
    assert "a\\nb\\x1b[31m is not an OCI image layout" in error


@pytest.mark.parametrize("args", [["models"], ["report"], ["base", "show"], ["register", "m.onnx"]])
def test_outside_a_project(tmp_path: Path, args: list[str]) -> None:
    error, hint = refused("-C", str(tmp_path), *args, status=1)
    assert error == f"{tmp_path} has no mlpack.toml"
    assert "mlpack init" in hint


def test_before_the_first_build(tmp_path: Path) -> None:
    made = make_project(tmp_path / "project")
    run("-C", str(made.root), "register", str(tiny_onnx(tmp_path / "m.onnx")))
    for args in (["report"], ["render", "fan"], ["diff", "none", "fan"]):
        said = refused("-C", str(made.root), *args, status=1)
        assert said == ("model 'fan' has no release", "make one: mlpack build fan")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "mlpack.toml: 'model' is missing"),
        ("x", "mlpack.toml is not TOML"),
        ('model = "fan"', "model: is not an object"),
        ("[model]\nname = 1", "model.name: is not a string"),
        ('[model]\nname = "a/.."', "model.name: 'a/..' is not a model name"),
        ('[model]\nname = "base"', "model.name: 'base' cannot be a model name"),
        ('[model]\nnmae = "fan"', "model.nmae: is not a setting (did you mean 'name'"),
        ('[bsae]\nfrom = "x"', "bsae: is not a setting (did you mean 'base'?)"),
        ('[base]\nplatforms = ["arm"]', "base.platforms[0]: 'arm' is not a platform"),
        ('[base]\nplatforms = "linux/amd64"', "base.platforms: is not an array"),
        ('[base]\nfrom = ""', "base.from: is empty"),
        ('[base]\npackages = ["-o=x"]', "base.packages[0]: '-o=x' is not the name of"),
        ('[device]\nengine = "crio"', "device.engine: 'crio' is not an engine"),
        ("[device]\ntoken_bytes = -1", "device.token_bytes: is -1, less than 0"),
        (f"[device]\ntoken_bytes = {10**30}", "device.token_bytes: is 1000"),
        ("[module]\nport = 65536", "module.port: is 65536, more than 65535"),
        ("[fleet]\ndevices = 0", "fleet.devices: is 0, less than 1"),
        (f"[fleet]\ndevices = {10**20}", "fleet.devices: is 1000"),
        ("[fleet]\ndevices = true", "fleet.devices: is not a whole number"),
        ('[image]\nrepository = "fan"', "image.repository: 'fan' names no registry"),
        ('[image]\nrepository = "r.io/x:1"', "image.repository: 'r.io/x:1' has a tag"),
        ('[base]\n"a\\nb" = 1', "base.a\\nb: is not a setting"),
    ],
)
def test_settings_that_cannot_be_followed_are_named(tmp_path: Path, text: str, error: str) -> None:
    model = "" if "model" in text or not text.startswith("[") else '[model]\nname = "fan"\n'
    (tmp_path / "mlpack.toml").write_text(model + text)
    said, _ = refused("-C", str(tmp_path), "report", status=1)
    assert error in said
    assert said.startswith("mlpack.toml")
    assert text in ("", "x") or " line " in said


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("MLPACK_DEVICES", "many", "MLPACK_DEVICES: is not a whole number"),
        ("MLPACK_ENGINE", "crio", "MLPACK_ENGINE: 'crio' is not an engine"),
        ("MLPACK_TARIFF", "free", "MLPACK_TARIFF: mlpack ships no tariff 'free'"),
        ("MLPACK_REPOSITORY", "fan", "MLPACK_REPOSITORY: 'fan' names no registry"),
    ],
)
def test_settings_of_the_environment_are_checked(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch, name: str, value: str, error: str
) -> None:
    monkeypatch.setenv(name, value)
    assert refused("-C", str(project.root), "report", status=1)[0] == error


def test_the_command_line_goes_before_the_environment_before_the_file(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project.root / "mlpack.toml"
    path.write_text(path.read_text() + '[device]\nengine = "containerd"\n[fleet]\ndevices = 7\n')

    def said(*args: str) -> tuple[str, int]:
        found = json.loads(run("-C", str(project.root), "--json", "report", *args).stdout)
        return found["engine"], found["devices"]

    assert said() == ("containerd", 7)
    monkeypatch.setenv("MLPACK_ENGINE", "podman")
    monkeypatch.setenv("MLPACK_DEVICES", "8")
    assert said() == ("podman", 8)
    assert said("--engine", "moby", "--devices", "9") == ("moby", 9)
    built = json.loads(run("-C", str(project.root), "--json", "build").stdout)
    assert built["transfer"]["engine"] == "podman"


def shape(value: object) -> object:
    """A document with types in place of values; a list is as its first element."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


TRANSFER = {
    "engine": "str",
    "total": "int",
    "manifest": "int",
    "config": "int",
    "layers": "int",
    "headers": "int",
    "handshakes": "int",
    "requests": "int",
}


def test_documents_other_tools_rely_on(project: ProjectDirectory) -> None:
    at = ("-C", str(project.root), "--json")
    diff = json.loads(run(*at, "diff", "fan:1", "fan:2", "--engine", "podman").stdout)
    assert shape(diff) == {
        "engine": "str",
        "old": "str",
        "new": "str",
        "layers": [{"digest": "str", "bytes": "int", "action": "str", "why": "str"}],
        "transfer": TRANSFER,
        "refusals": [],
    }
    assert {each["action"] for each in diff["layers"]} == {"reuse", "fetch"}
    build = json.loads(run(*at, "build", "fan:1").stdout)
    # Beyond the contract: the line printed without --json, and each platform's image.
    beyond = ("reference", "platforms", "start")
    assert shape({key: build[key] for key in build if key not in beyond}) == {
        "name": "str",
        "version": "str",
        "digest": "str",
        "strategy": "str",
        "why": "str",
        "anchor": "NoneType",
        "anchored": "bool",
        "candidates": dict.fromkeys(("layer", "packed", "patch"), "NoneType"),
        "base": "str",
        "layer": {"digest": "str", "diff_id": "str", "bytes": "int"},
        "transfer": TRANSFER,
    }
    assert (build["name"], build["version"], build["strategy"]) == ("fan", "1", "layer")


@pytest.mark.parametrize(
    "command",
    ["models", "show fan", "base show", "build", "diff base fan", "report", "render fan", "doctor"],
)
@pytest.mark.parametrize("before", [True, False])
def test_json_is_one_document_alone_on_stdout(
    project: ProjectDirectory, command: str, before: bool
) -> None:
    args = ["--json", *command.split()] if before else [*command.split(), "--json"]
    done = run("-C", str(project.root), *args)
    assert isinstance(json.loads(done.stdout), dict)


def test_what_build_prints_is_a_reference_everywhere(project: ProjectDirectory) -> None:
    at = ("-C", str(project.root))
    for repository in (True, False):
        if not repository:
            (project.root / "mlpack.toml").write_text('[model]\nname = "fan"\n')
        printed = run(*at, "build").stdout.strip()
        assert run(*at, "report", printed).exit_code == 0
        assert json.loads(run(*at, "--json", "report", printed).stdout)["release"] == "fan:2"
        assert json.loads(run(*at, "--json", "diff", "fan:1", printed).stdout)["new"] == printed
        rendered = run(*at, "render", printed, "--repository", "r.example.com/fan")
        assert f"r.example.com/fan@{printed.partition('@')[2]}" in rendered.stdout


def test_an_image_of_one_platform_is_a_reference_too(project: ProjectDirectory) -> None:
    at = ("-C", str(project.root))
    platforms = json.loads(run(*at, "--json", "build", "fan").stdout)["platforms"]
    arm = f"fan@{platforms['linux/arm64']}"
    found = json.loads(run(*at, "--json", "report", arm).stdout)
    assert (found["release"], found["platform"]) == ("fan:2", "linux/arm64")
    assert found["digest"] == platforms["linux/arm64"]


def test_a_digest_belongs_to_its_model(project: ProjectDirectory) -> None:
    at = ("-C", str(project.root))
    digest = json.loads(run(*at, "--json", "build", "fan").stdout)["digest"]
    error, _ = refused(*at, "diff", "none", f"door@{digest}", status=1)
    assert error == f"this project holds no image door@{digest}"


def test_paths_of_images_are_relative_to_the_directory_of_c(
    project: ProjectDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    image = "oci:project/.mlpack/oci:fan-2"
    outside = run("-C", str(tmp_path), "diff", "none", image)
    inside = run("-C", str(project.root), "diff", "none", "oci:.mlpack/oci:fan-2")
    assert (outside.exit_code, inside.exit_code) == (0, 0)
    assert run("diff", "none", image).exit_code == 1


def test_build_without_a_name_takes_the_project_s_model(project: ProjectDirectory) -> None:
    at = ("-C", str(project.root))
    assert run(*at, "build").stdout == run(*at, "build", "fan:2").stdout


def mlpack(project: ProjectDirectory, command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which ``mlpack`` is this checkout's."""
    return subprocess.run(
        ["bash", "-c", f'mlpack() {{ "{sys.executable}" -m mlpack "$@"; }}; {command}'],
        capture_output=True,
        text=True,
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        check=False,
    )


def test_a_reader_that_goes_away_is_no_error(project: ProjectDirectory) -> None:
    done = mlpack(project, "mlpack report | true; exit ${PIPESTATUS[0]}")
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_an_answer_that_cannot_be_written_is_an_error(project: ProjectDirectory) -> None:
    done = mlpack(project, "mlpack report > /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: No space left on device"


def test_a_directory_that_cannot_be_written_is_one_error_line(project: ProjectDirectory) -> None:
    (project.root / ".mlpack").rename(project.root / "moved")
    (project.root / ".mlpack").write_text("a file, where the directory of mlpack belongs")
    error, hint = refused("-C", str(project.root), "register", "mlpack.toml", status=1)
    assert "mlpack.toml is not an ONNX file" in error
    tiny_onnx(project.root / "m.onnx", bias=9.0)
    error, hint = refused("-C", str(project.root), "register", "m.onnx", status=1)
    assert error == f"{project.root}/.mlpack: is not a directory"
    assert hint == "a part of this path is a file, not a directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take another user's rights")
def test_a_read_only_directory_is_one_error_line(project: ProjectDirectory) -> None:
    tiny_onnx(project.root / "m.onnx", bias=9.0)
    for path in (project.root, project.root / ".mlpack", project.root / ".mlpack" / "oci"):
        path.chmod(0o755)
    nobody = f"setpriv --reuid=65534 --regid=65534 --clear-groups {sys.executable} -m mlpack"
    for command in ("register m.onnx", "build fan", "init --name x new", "render fan -o d.json"):
        done = mlpack(project, f"{nobody} {command}")
        if "can't open" in done.stderr or "No module named" in done.stderr:
            pytest.skip("this Python cannot be read by another user")
        assert (done.returncode, done.stdout) == (1, "")
        error, hint = done.stderr.splitlines()[-2:]
        assert error.startswith("error: ")
        assert error.endswith("Permission denied")
        assert hint.startswith("hint: check who owns the file or directory")


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["regsiter", "fan.onnx"], "register"),
        (["buld"], "build"),
        (["base", "biuld"], "build"),
        (["bundle", "verfiy", "b.tar.gz"], "verify"),
    ],
)
def test_a_mistyped_command_names_the_nearest(args: list[str], meant: str) -> None:
    done = run(*args)
    assert done.exit_code == 2
    assert f"did you mean '{meant}'?" in done.stderr.lower()


def test_a_mistyped_model_names_the_nearest(tmp_path: Path) -> None:
    project = make_project(tmp_path / "fan")
    here = ("-C", str(project.root))
    assert run(*here, "register", str(tiny_onnx(tmp_path / "fan.onnx"))).exit_code == 0
    assert run(*here, "build", "fan").exit_code == 0
    for args in (["diff", "fna:1", "fan"], ["report", "fan", "--from", "fna:1"], ["push", "fna"]):
        done = run(*here, *args)
        assert done.exit_code == 1
        assert "no model 'fna' here (did you mean 'fan'?)" in done.stderr
