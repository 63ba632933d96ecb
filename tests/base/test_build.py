"""Making, making again and renewing a base."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mlpack.api import base as api
from mlpack.base.lock_diff import NotReproduced
from mlpack.base.python import NoPackages
from mlpack.base.source import WrongPlatform
from mlpack.errors import MlpackError
from mlpack.model.lock import InvalidLock
from mlpack.project.directory import ProjectDirectory
from mlpack.runtime.patch.container import VERSIONS
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import select_image
from tests.base.conftest import new_project
from tests.base.doubles import World, elf, source_image, source_layout, system
from tests.base.trees import tree
from tests.support import AMD64, ARM64, build_base, run, session

PACKAGES = "opt/mlpack"


def test_a_base_is_its_source_and_three_layers(project: ProjectDirectory, world: World) -> None:
    built = build_base(project)
    assert [each.platform for each in built.base.platforms] == [AMD64, ARM64]
    for locked in built.base.platforms:
        roles = [each.role for each in locked.layers]
        assert roles == ["source", "source", "packages", "runtime", "entry"]
        source = select_image(world.source, world.source.resolve("python"), locked.platform)
        # What devices hold of the source, they need not fetch again.
        assert [each.layer for each in locked.layers[:2]] == list(source.layers)
        assert {each.name: each.version for each in locked.python} == {
            "httptools": "1.0",
            "numpy": "1.0",
            "onnxruntime": "1.0",
            "orjson": "1.0",
            "pcodec": "1.0",
            "prometheus-client": "1.0",
            "starlette": "1.0",
            "uvicorn": "1.0",
            "werkzeug": "1.0",
            "zstandard": "1.0",
        }
        assert locked.patch_formats == VERSIONS
    assert project.lock().base == built.base
    assert project.layout.resolve("base").digest == built.base.index.digest
    assert validate(project.layout) == ()
    assert built.missing == ()


def test_what_is_in_a_base(project: ProjectDirectory, world: World) -> None:
    files = tree(project.layout, build_base(project).base, AMD64)
    assert files[f"{PACKAGES}/numpy/__init__.py"] == b"version = '1.0'\n"
    assert files[f"{PACKAGES}/numpy-1.0.dist-info/METADATA"].splitlines()[-1] == b"Version: 1.0"
    native = files[f"{PACKAGES}/numpy/native.so"]
    assert len(native) < len(elf(("libc.so.6",)))
    assert f"{PACKAGES}/mlpack_runtime/__main__.py" in files
    assert json.loads(files["etc/mlpack/base.json"])["packages"]["numpy"] == "1.0"
    assert files["var/azureml-app/azureml-models"] == b""
    left_out = ("numpy/__init__.pyi", "protobuf/__init__.py", "numpy-1.0.dist-info/RECORD")
    assert not {path for path in left_out if f"{PACKAGES}/{path}" in files}


def test_how_a_container_starts(project: ProjectDirectory, world: World) -> None:
    build_base(project)
    made = select_image(project.layout, project.layout.resolve("base"), ARM64)
    config = json.loads(made.config)
    assert config["config"] == {
        "Entrypoint": ["/usr/local/bin/python3.11", "-m", "mlpack_runtime"],
        "Env": [
            "PATH=/usr/local/bin:/usr/bin",
            "LANG=C.UTF-8",
            "AML_APP_ROOT=/var/azureml-app",
            "ORT_DISABLE_TELEMETRY=1",
            "PYTHONPATH=/opt/mlpack",
        ],
        "ExposedPorts": {"5001/tcp": {}},
        "User": "65532",
        "WorkingDir": "/var/azureml-app",
    }
    assert (config["os"], config["architecture"]) == ("linux", "arm64")


def test_the_same_lock_gives_the_same_digests_anywhere(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = new_project(tmp_path / "one", world.source_text)
    first = build_base(one)
    before = os.umask(0o077)
    try:
        other = new_project(tmp_path / "somewhere" / "else", world.source_text)
        shutil.copy(one.root / "mlpack.lock", other.root)
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
        again = build_base(other)
    finally:
        os.umask(before)
    assert again.base == first.base
    assert (other.root / "mlpack.lock").read_bytes() == (one.root / "mlpack.lock").read_bytes()


def test_a_base_that_is_there_is_not_made_again(project: ProjectDirectory, world: World) -> None:
    first = build_base(project)
    # Nothing can be read any more, so anything but doing nothing would fail.
    shutil.rmtree(world.index.folder)
    shutil.rmtree(world.source.root)
    again = build_base(project)
    assert again.already
    assert again.base == first.base


def test_lost_and_damaged_blobs_are_made_again_from_the_lock(
    project: ProjectDirectory, world: World
) -> None:
    first = build_base(project)
    layer = first.base.platforms[0].layers[2].layer.descriptor
    path = project.layout.path(layer)
    damaged = bytearray(path.read_bytes())
    damaged[-20] ^= 1
    path.write_bytes(damaged)
    assert not api.show(session(project)).in_store
    again = build_base(project)
    assert (again.already, again.base) == (False, first.base)
    assert validate(project.layout) == ()
    path.unlink()
    assert build_base(project).base == first.base
    assert api.show(session(project)).in_store


def test_newer_packages_are_taken_only_on_request(project: ProjectDirectory, world: World) -> None:
    first = build_base(project)
    world.index.add("numpy", "2.0", native=True)
    assert build_base(project).already
    second = build_base(project, upgrade=True)
    assert second.changes == (
        "linux/amd64: numpy: 1.0 -> 2.0",
        "linux/amd64: the entry layer",
        "linux/arm64: numpy: 1.0 -> 2.0",
        "linux/arm64: the entry layer",
    )
    assert second.base.index != first.base.index
    # The old base stays in the store: devices hold it.
    assert project.layout.exists(first.base.index)
    assert project.layout.resolve("base") == second.base.index


def test_changed_settings_make_a_new_base_of_the_locked_versions(
    project: ProjectDirectory, world: World
) -> None:
    build_base(project)
    world.index.add("numpy", "2.0", native=True)
    (project.root / "requirements.in").write_text("extra>=1\n")
    second = build_base(project)
    assert [line for line in second.changes if "entry" not in line] == [
        "linux/amd64: extra: not there -> 1.0",
        "linux/arm64: extra: not there -> 1.0",
    ]


def test_a_locked_version_that_no_longer_fits_is_replaced(
    project: ProjectDirectory, world: World
) -> None:
    build_base(project)
    world.index.add("numpy", "2.0", native=True)
    (project.root / "requirements.in").write_text("numpy>=2\n")
    assert "linux/amd64: numpy: 1.0 -> 2.0" in build_base(project).changes


def test_a_comment_in_the_requirements_makes_no_new_base(
    project: ProjectDirectory, world: World
) -> None:
    build_base(project)
    (project.root / "requirements.in").write_text("# nothing yet\n")
    assert build_base(project).already


def test_a_package_only_its_tools_need_stays_where_the_project_asks(
    tmp_path: Path, world: World
) -> None:
    project = new_project(tmp_path / "p", world.source_text, requirements="protobuf\n")
    names = {each.name for each in build_base(project).base.platforms[0].python}
    assert "protobuf" in names
    assert "packaging" not in names


def test_a_package_that_is_not_the_locked_one_is_refused(
    project: ProjectDirectory, world: World
) -> None:
    first = build_base(project)
    shutil.rmtree(project.state)
    shutil.rmtree(os.environ["UV_CACHE_DIR"])
    world.index.add("orjson", "1.0", needs=("extra",))
    with pytest.raises(NoPackages):
        build_base(project)
    assert not project.layout.tags()
    assert project.lock().base == first.base


def test_a_package_that_is_gone_is_named(project: ProjectDirectory, world: World) -> None:
    world.index.remove("orjson")
    with pytest.raises(NoPackages, match="orjson"):
        build_base(project)
    assert not project.has_lock
    assert not project.layout.tags()


def test_a_source_that_changed_under_its_name_is_refused(
    project: ProjectDirectory, world: World
) -> None:
    first = build_base(project)
    shutil.rmtree(project.state)
    source_layout(world.source.root, motd=b"changed")
    with pytest.raises(NotReproduced, match="layer 'source' came out as") as refused:
        build_base(project)
    assert "--upgrade" in refused.value.hint
    assert not project.layout.tags()
    assert project.lock().base == first.base
    assert "linux/amd64: the source layer" in build_base(project, upgrade=True).changes


def test_fewer_platforms_are_another_base(project: ProjectDirectory, world: World) -> None:
    build_base(project)
    settings = project.root / "mlpack.toml"
    settings.write_text(settings.read_text() + 'platforms = ["linux/amd64"]\n')
    renewed = build_base(ProjectDirectory(project.root))
    assert renewed.changes == ("platform linux/arm64 is gone",)
    assert [each.platform for each in renewed.base.platforms] == [AMD64]


def test_a_platform_the_source_lacks_is_named(tmp_path: Path, world: World) -> None:
    store = LayoutStore(tmp_path / "one")
    store.tag(source_image(store, [system()]).descriptor, "python")
    project = new_project(tmp_path / "p", f"oci:{store.root}:python")
    with pytest.raises(WrongPlatform, match="linux/arm64"):
        build_base(project)


def test_a_lock_edited_by_hand_is_replaced_on_request_only(
    project: ProjectDirectory, world: World
) -> None:
    build_base(project)
    path = project.root / "mlpack.lock"
    path.write_text(path.read_text().replace('"1.0"', '"9.9"', 1))
    with pytest.raises(InvalidLock):
        build_base(project)
    build_base(project, upgrade=True)
    assert api.show(session(project)).in_store


def test_a_library_that_is_not_there_is_named(tmp_path: Path, world: World) -> None:
    world.index.add("cv2", "1.0", native=True, links=("libGL.so.1",))
    project = new_project(tmp_path / "p", world.source_text, requirements="cv2\n")
    done = run("-C", str(project.root), "base", "build")
    assert done.exit_code == 0
    warning = "linux/amd64: opt/mlpack/cv2/native.so is linked to libGL.so.1"
    assert warning in done.stderr.replace("\n", " ")


def test_a_source_image_with_musl(tmp_path: Path, world: World) -> None:
    store = LayoutStore(tmp_path / "musl")
    files = {"usr/bin/python3.12": b"", "lib/ld-musl-x86_64.so.1": b""}
    store.tag(source_image(store, [files]).descriptor, "python")
    settings = 'platforms = ["linux/amd64"]\n'
    project = new_project(tmp_path / "p", f"oci:{store.root}:python", settings=settings)
    # The wheels of the index are for glibc.
    with pytest.raises(NoPackages, match="numpy"):
        build_base(project)
    world.index.remove("numpy")
    world.index.remove("onnxruntime")
    world.index.add("numpy", "1.0")
    world.index.add("onnxruntime", "1.0")
    image = build_base(project).base.platforms[0].manifest
    config = json.loads(select_image(project.layout, image, None).config)["config"]
    assert config["Entrypoint"][0] == "/usr/bin/python3.12"


def test_a_missing_requirements_file_is_named(project: ProjectDirectory, world: World) -> None:
    (project.root / "requirements.in").unlink()
    with pytest.raises(MlpackError, match=r"requirements\.in is missing"):
        build_base(project)


def test_the_commands(project: ProjectDirectory, world: World) -> None:
    root = str(project.root)
    made = run("-C", root, "base", "build")
    assert made.exit_code == 0, made.output
    digest = project.lock().base.index.digest
    assert made.stdout == f"base@{digest}\n"
    assert "packages" in made.stderr
    again = run("-C", root, "base", "build")
    assert again.stdout == f"base@{digest}\n"
    assert "already built" in again.stderr
    assert "onnxruntime" in run("-C", root, "base", "show", "--packages").stdout
    value = json.loads(run("-C", root, "--json", "base", "show").stdout)
    assert (value["digest"], value["in_store"]) == (str(digest), True)
    assert value["platforms"][0]["python"]["numpy"] == "1.0"
    document = json.loads(run("-C", root, "base", "build", "--json").stdout)
    assert document["already"] is True


def test_a_base_that_is_not_in_the_store_is_said_so(
    project: ProjectDirectory, world: World
) -> None:
    build_base(project)
    shutil.rmtree(project.state)
    assert "not in the store" in run("-C", str(project.root), "base", "show").stdout


def test_without_a_base_there_is_a_hint(project: ProjectDirectory) -> None:
    done = run("-C", str(project.root), "base", "show")
    assert done.exit_code == 1
    assert "hint: build the base once with: mlpack base build" in done.stderr
