"""``mlpack bundle`` from the command line: made, checked, refused."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from mlpack.oci.layer import END, Entry, header, padding
from mlpack.project.directory import ProjectDirectory
from tests.support import make_project, run, tiny_onnx

ENGINES = ["moby", "containerd", "podman"]


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "fan")
    for version, bias in enumerate((0.5, 1.5), 1):
        model = tiny_onnx(tmp_path / "model.onnx", bias=bias)
        for command in (["register", str(model), "--name", "fan"], ["build", f"fan:{version}"]):
            done = run("-C", str(made.root), *command)
            assert done.exit_code == 0, done.output
    return made


def make(project: ProjectDirectory, out: Path, *args: str) -> dict[str, object]:
    done = run("-C", str(project.root), "--json", "bundle", "fan:2", "-o", str(out), *args)
    assert done.exit_code == 0, done.output
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bundle_is_small_whole_and_repeatable(
    project: ProjectDirectory, tmp_path: Path, engine: str
) -> None:
    answer = make(project, tmp_path / "b", "--onto", "fan:1", "--engine", engine)
    assert answer["name"] == "registry.example.com/edge/fan:2"
    assert [each["carried"] for each in answer["layers"]] == [False] * 4 + [True]  # type: ignore[attr-defined]
    assert answer["bytes"] == (tmp_path / "b").stat().st_size
    done = run("--json", "bundle", "verify", str(tmp_path / "b"))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["image"] == answer["image"]
    again = make(project, tmp_path / "again", "--onto", "fan:1", "--engine", engine)
    assert again["digest"] == answer["digest"]


def test_a_bundle_is_in_the_projects_directory(project: ProjectDirectory) -> None:
    make(project, Path("b.tar"), "--onto", "fan:1")
    assert (project.root / "b.tar").is_file()
    for file, status in (("b.tar", 0), ("c.tar", 1)):
        assert run("-C", str(project.root), "bundle", "verify", file).exit_code == status


def test_the_layer_in_a_docker_bundle_is_the_tar_with_the_model(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    make(project, tmp_path / "b", "--onto", "fan:1", "--engine", "moby")
    [layer] = [c for name, c in members(tmp_path / "b").items() if name.endswith(".tar")]
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        assert "var/azureml-app/azureml-models/fan/2/model.onnx" in inner.getnames()


def test_for_an_empty_device_it_is_everything(project: ProjectDirectory, tmp_path: Path) -> None:
    answer = make(project, tmp_path / "b", "--onto", "none", "--engine", "podman")
    assert answer["onto"] is None
    assert all(each["carried"] for each in answer["layers"])  # type: ignore[attr-defined]


def test_another_base_is_refused(project: ProjectDirectory, tmp_path: Path) -> None:
    done = run(
        *("-C", str(project.root), "bundle", "fan:2", "-o", str(tmp_path / "b")),
        *("--onto", f"oci:{_foreign(tmp_path)}:x"),
    )
    assert done.exit_code == 1
    assert "bottom layers differ" in done.stderr
    assert not (tmp_path / "b").exists()


def _foreign(folder: Path) -> Path:
    from mlpack.oci.image import ImageConfig, build_image
    from mlpack.stores.layout import LayoutStore
    from mlpack.stores.store import put_image
    from tests.support import AMD64, real_layer

    layout = LayoutStore(folder / "foreign")
    foreign = build_image(ImageConfig(platform=AMD64), [real_layer(layout, {"x": b"x"})])
    layout.tag(put_image(layout, foreign), "x")
    return layout.root


def test_an_image_without_a_name_needs_one(project: ProjectDirectory, tmp_path: Path) -> None:
    args = ["-C", str(project.root), "bundle", "base", "--onto", "none", "-o", str(tmp_path / "b")]
    done = run(*args)
    assert done.exit_code == 2
    assert "--name" in done.stderr
    assert run(*args, "--name", "localhost/base:1").exit_code == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 0.99])
def test_a_bundle_cut_on_the_way_is_found(
    project: ProjectDirectory, tmp_path: Path, engine: str, place: float
) -> None:
    path = tmp_path / "b"
    make(project, path, "--onto", "fan:1", "--engine", engine)
    whole = path.read_bytes()
    at = int(len(whole) * place)
    path.write_bytes(whole[:at])
    done = run("bundle", "verify", str(path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert str(path) in done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_one_other_byte_in_any_part_is_found(
    project: ProjectDirectory, tmp_path: Path, engine: str
) -> None:
    path = tmp_path / "b"
    make(project, path, "--onto", "fan:1", "--engine", engine)
    parts = members(path)
    for changed in parts:
        if changed == "mlpack-bundle.json":
            continue
        content = parts[changed][:-1] + bytes([parts[changed][-1] ^ 1])
        _rewrite(path, parts | {changed: content})
        done = run("bundle", "verify", str(path))
        assert done.exit_code == 1
        assert f"{changed} does not match" in done.stderr
    _rewrite(path, dict(list(parts.items())[:-1]))
    assert "is missing" in run("bundle", "verify", str(path)).stderr
    _rewrite(path, parts | {"more": b"x"})
    assert "more is not in the list" in run("bundle", "verify", str(path)).stderr


def test_orders_to_a_terminal_are_not_passed_on(project: ProjectDirectory, tmp_path: Path) -> None:
    path = tmp_path / "b"
    make(project, path, "--onto", "fan:1", "--engine", "moby")
    parts = members(path)
    _rewrite(path, parts | {"\x1b[2J": b""})
    done = run("bundle", "verify", str(path))
    assert done.exit_code == 1
    listed = parts["mlpack-bundle.json"].replace(b"edge/fan:2", b"edge/\\u001b[2J")
    _rewrite(path, {**parts, "mlpack-bundle.json": listed})
    second = run("bundle", "verify", str(path))
    assert second.exit_code == 1
    assert "unprintable" in second.stderr
    assert "\x1b" not in done.output + second.output


def _rewrite(path: Path, parts: dict[str, bytes]) -> None:
    tar = b"".join(
        header(Entry(name, size=len(content))) + content + padding(len(content))
        for name, content in parts.items()
    )
    path.write_bytes(tar + END)


@pytest.mark.parametrize(
    "content",
    [b"", b"no tar at all", gzip.compress(b"no tar inside"), b"\0" * 10240],
    ids=["empty", "text", "gzip", "zeros"],
)
def test_what_is_no_bundle_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b"
    path.write_bytes(content)
    done = run("bundle", "verify", str(path))
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
