"""``mlpack render``: which image, where it goes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlpack.api.render import module_name
from mlpack.model.edge import ModuleRecipe
from mlpack.render.iotedge.validate import problems
from mlpack.stores.base import read_index
from mlpack.stores.project import Project
from tests.support import ARM64, make_project, run, tiny_onnx


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path / "fan")
    release(made)
    return made


def release(project: Project, *, bias: float = 0.5) -> str:
    """Register and build one more version; return what build prints."""
    tiny_onnx(project.root / "m.onnx", bias=bias)
    assert run("-C", str(project.root), "register", str(project.root / "m.onnx")).exit_code == 0
    built = run("-C", str(project.root), "build", project.recipe.model)
    assert built.exit_code == 0, built.stderr
    return built.stdout.strip()


def module(text: str, name: str = "fan") -> dict[str, object]:
    content = json.loads(text)["modulesContent"]["$edgeAgent"]["properties.desired"]
    found: dict[str, object] = content["modules"][name]
    return found


def image(text: str, name: str = "fan") -> str:
    settings = module(text, name)["settings"]
    assert isinstance(settings, dict)
    return str(settings["image"])


def test_prints_the_manifest_of_the_newest_release_pinned_by_its_index(project: Project) -> None:
    second = release(project, bias=0.7)
    done = run("-C", str(project.root), "render", "fan")
    assert done.exit_code == 0
    assert problems(done.stdout.encode()) == ()
    assert image(done.stdout) == second
    assert image(done.stdout) == f"registry.example.com/edge/fan@{digest(project, '2')}"
    assert module(done.stdout)["version"] == "2"


def digest(project: Project, version: str) -> str:
    return str(project.layout.resolve(f"fan-{version}").digest)


def test_names_a_version_when_asked(project: Project) -> None:
    release(project, bias=0.7)
    done = run("-C", str(project.root), "render", "fan:1")
    assert image(done.stdout).endswith(digest(project, "1"))
    assert module(done.stdout)["version"] == "1"


def test_takes_what_build_prints(project: Project) -> None:
    printed = release(project, bias=0.7)
    release(project, bias=0.9)
    done = run("-C", str(project.root), "render", printed)
    assert image(done.stdout) == printed
    assert module(done.stdout)["version"] == "2"


def test_the_repository_may_be_in_what_build_prints_alone(tmp_path: Path) -> None:
    made = make_project(tmp_path / "fan")
    release(made)
    (made.root / "mlpack.toml").write_text('[model]\nname = "fan"\n')
    other = f"other.example.com/x/fan@{digest(made, '1')}"
    assert image(run("-C", str(made.root), "render", other).stdout) == other
    refused = run("-C", str(made.root), "render", "fan")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: it is not said where devices fetch 'fan' from\n")
    assert "hint: add repository" in refused.stderr
    named = run("-C", str(made.root), "render", "fan", "--repository", "r.io/edge/fan")
    assert image(named.stdout) == f"r.io/edge/fan@{digest(made, '1')}"


def test_a_platform_pins_its_image_instead_of_the_index(project: Project) -> None:
    index = read_index(project.layout, project.layout.resolve("fan-1"))
    done = run("-C", str(project.root), "render", "fan", "--platform", "linux/arm64")
    assert image(done.stdout).endswith(str(index.select(ARM64).digest))
    refused = run("-C", str(project.root), "render", "fan", "--platform", "linux/s390x")
    assert refused.exit_code == 1
    assert "there is no image for linux/s390x" in refused.stderr


def test_writes_a_file_and_says_so_on_stderr(project: Project) -> None:
    done = run("-C", str(project.root), "render", "fan", "-o", "out/deployment.json")
    assert done.stdout == ""
    assert done.stderr.startswith("out/deployment.json: module fan runs registry.example.com/")
    written = project.root / "out" / "deployment.json"
    assert written.read_text() == run("-C", str(project.root), "render", "fan").stdout
    assert [each.name for each in written.parent.iterdir()] == ["deployment.json"]


def test_json_holds_the_manifest_and_what_it_was_made_of(project: Project) -> None:
    done = run("-C", str(project.root), "--json", "render", "fan")
    document = json.loads(done.stdout)
    assert document["deployment"] == json.loads(
        run("-C", str(project.root), "render", "fan").stdout
    )
    assert (document["name"], document["version"], document["module"]) == ("fan", "1", "fan")
    assert document["image"] == f"registry.example.com/edge/fan@{digest(project, '1')}"
    written = run("-C", str(project.root), "render", "fan", "-o", "d.json", "--json")
    assert json.loads(written.stdout)["path"] == "d.json"


def test_the_module_is_as_mlpack_toml_says(tmp_path: Path) -> None:
    settings = '[module]\nname = "fan_scorer"\nport = 8080\nenv = { LOG_LEVEL = "debug" }\n'
    made = make_project(tmp_path / "fan", settings=settings)
    release(made)
    text = run("-C", str(made.root), "render", "fan").stdout
    found = module(text, "fan_scorer")
    assert found["env"] == {"LOG_LEVEL": {"value": "debug"}}
    assert '"5001/tcp\\":[{\\"HostPort\\":\\"8080\\"}]' in text
    assert "FROM /messages/modules/fan_scorer/outputs/*" in text


def test_a_model_with_a_dot_gets_a_module_id_without(tmp_path: Path) -> None:
    made = make_project(tmp_path / "fan", name="fan.v2")
    release(made)
    assert image(run("-C", str(made.root), "render", "fan.v2").stdout, "fan-v2")
    assert module_name(ModuleRecipe(name="x"), "fan.v2") == "x"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ('[module]\nname = "fan.v2"\n', "modules.fan.v2: 'fan.v2' is no module id"),
        ('[module]\nenv = { "A.B" = "1" }\n', "env.A.B: 'A.B' is no variable name"),
        ("[module]\nport = 443\n", "binds port 443/tcp of the host, which edgeHub binds too"),
    ],
)
def test_settings_a_device_would_refuse_leave_no_file(
    tmp_path: Path, settings: str, reason: str
) -> None:
    made = make_project(tmp_path / "fan", settings=settings)
    release(made)
    done = run("-C", str(made.root), "render", "fan", "-o", "deployment.json")
    assert done.exit_code == 1
    assert reason in done.stderr
    assert not (made.root / "deployment.json").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("pump",), 1, "model 'pump' has no release"),
        (("fan:9",), 1, "fan:9 has no release"),
        (("base",), 2, "'base' is not a release of a model"),
        (("fan@sha256:" + "0" * 64,), 1, "this project holds no image fan@sha256:000"),
        (("fan@sha256:0",), 2, "'sha256:0' is not a digest"),
        (("r.example.com/fan:1",), 2, "is in a registry"),
        (("none",), 2, "none stands for an empty device"),
        (("fan", "--platform", "arm64"), 2, "'arm64' is not a platform"),
        (("fan", "--repository", "fan"), 2, "'fan' names no registry"),
        (("fan", "--repository", "r.example.com/fan:1"), 2, "has a tag or digest"),
        (("fan", "-o", ".mlpack"), 2, ".mlpack is a directory"),
        (("fan", "-o", "mlpack.toml/x.json"), 1, "mlpack.toml: is not a directory"),
    ],
)
def test_what_cannot_be_rendered_is_one_error_line(
    project: Project, arguments: tuple[str, ...], status: int, reason: str
) -> None:
    done = run("-C", str(project.root), "render", *arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert reason in error
    assert hint.startswith("hint: ")
