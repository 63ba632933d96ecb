"""``mlpack doctor``: what is well, what may be missing, and what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from mlpack.api import doctor as api
from mlpack.api.doctor import Check
from mlpack.stores.holes import holes
from mlpack.stores.layout import validate
from mlpack.stores.machine import find_program, free_bytes
from mlpack.stores.project import Project
from tests.support import make_project, run


def states(done: Result) -> dict[str, str]:
    document = json.loads(done.stdout)
    assert document["healthy"] == (done.exit_code == 0)
    return {each["name"]: each["state"] for each in document["checks"]}


def examine(root: Path, *arguments: str) -> Result:
    return run("-C", str(root), "doctor", "--json", *arguments)


def check(root: Path, name: str, *arguments: str) -> dict[str, str]:
    document = json.loads(examine(root, *arguments).stdout)
    found: dict[str, str] = next(each for each in document["checks"] if each["name"] == name)
    return found


def test_a_project_with_a_base_is_healthy(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    done = examine(project.root)
    assert done.exit_code == 0, done.stderr
    found = states(done)
    needed = ("python", "uv", "disk", "project", "requirements", "lock", "base", "store")
    assert {found[name] for name in needed} == {"ok"}
    assert check(tmp_path, "base")["found"] == "linux/amd64, linux/arm64"


def test_the_table_names_every_check(tmp_path: Path) -> None:
    make_project(tmp_path)
    done = run("-C", str(tmp_path), "doctor")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["check", "state", "found", "what", "to", "do"]
    for name in states(examine(tmp_path)):
        assert any(line.startswith(name) for line in lines)


def test_without_a_project_the_machine_alone_is_checked(tmp_path: Path) -> None:
    done = examine(tmp_path)
    assert done.exit_code == 0
    assert states(done)["project"] == "missing"
    assert "lock" not in states(done)


def test_without_a_base_the_next_command_is_named(tmp_path: Path) -> None:
    make_project(tmp_path, base=False)
    found = check(tmp_path, "lock")
    assert found["state"] == "missing"
    assert "mlpack base build" in found["advice"]
    assert examine(tmp_path).exit_code == 0


def test_settings_that_cannot_be_followed_are_broken(tmp_path: Path) -> None:
    make_project(tmp_path, settings="[modul]\nport = 1\n")
    done = examine(tmp_path)
    assert done.exit_code == 1
    assert states(done)["project"] == "broken"
    assert "did you mean 'module'" in check(tmp_path, "project")["found"]
    assert done.stderr.splitlines() == [
        "error: broken: project",
        "hint: do what stands beside it, and run: mlpack doctor",
    ]


def test_files_that_the_settings_name_must_be_there(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (tmp_path / "mlpack.toml").write_text('[model]\nname = "fan"\nscoring = "../score.py"\n')
    assert check(tmp_path, "scoring")["state"] == "broken"
    assert "outside" in check(tmp_path, "scoring")["found"]
    (tmp_path / "mlpack.toml").write_text('[model]\nname = "fan"\nscoring = "score.py"\n')
    assert check(tmp_path, "scoring")["found"] == "no score.py"
    (tmp_path / "score.py").write_text("")
    assert check(tmp_path, "scoring")["state"] == "ok"
    (project.root / "requirements.in").unlink()
    assert check(tmp_path, "requirements")["state"] == "broken"


def test_a_lock_changed_by_hand_is_broken(tmp_path: Path) -> None:
    make_project(tmp_path)
    lock = tmp_path / "mlpack.lock"
    lock.write_text(lock.read_text().replace("2.4.6", "2.4.7"))
    assert "changed by hand" in check(tmp_path, "lock")["found"]
    assert examine(tmp_path).exit_code == 1


def test_a_lock_without_its_base_may_be_so(tmp_path: Path) -> None:
    # What a colleague finds after cloning the project: the lock, and no store.
    project = make_project(tmp_path)
    layers = sorted((project.layout.root / "blobs" / "sha256").iterdir())
    project.layout.path(project.lock().base.platforms[0].layers[0].layer.descriptor).unlink()
    assert check(tmp_path, "base")["found"] == "1 blobs are not in the store"
    for each in layers:
        each.unlink(missing_ok=True)
    (project.layout.root / "index.json").unlink()
    assert check(tmp_path, "base") == {
        "name": "base",
        "state": "missing",
        "found": "the locked base is not in the store",
        "advice": "run: mlpack base build (it gives the locked digests again)",
    }
    assert examine(tmp_path).exit_code == 0


def a_layer(project: Project) -> Path:
    return project.layout.path(project.lock().base.platforms[1].layers[2].layer.descriptor)


def test_a_missing_blob_is_found_by_name(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    assert holes(project.layout) == ()
    path = a_layer(project)
    path.unlink()
    (found,) = holes(project.layout)
    assert found == f"base: sha256:{path.name} is missing or cut short"
    assert check(tmp_path, "store")["found"] == found
    assert examine(tmp_path).exit_code == 1


def test_a_blob_cut_short_is_found(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    a_layer(project).write_bytes(b"x")
    assert len(holes(project.layout)) == 1


def test_a_flipped_byte_is_found_when_every_byte_is_read(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    path = a_layer(project)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert holes(project.layout) == ()
    assert validate(project.layout)
    assert check(tmp_path, "store")["state"] == "ok"
    assert check(tmp_path, "store", "--deep")["state"] == "broken"
    assert path.name in check(tmp_path, "store", "--deep")["found"]
    assert examine(tmp_path, "--deep").exit_code == 1


def test_a_broken_manifest_is_found(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    path = project.layout.path(project.lock().base.platforms[0].manifest)
    path.write_bytes(path.read_bytes().replace(b"layers", b"loyers"))
    (found,) = holes(project.layout)
    assert found.startswith("base: sha256:")
    assert check(tmp_path, "base")["state"] == "broken"


def test_an_index_that_is_not_json_is_found(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (project.layout.root / "index.json").write_text("{")
    assert "is not JSON" in check(tmp_path, "store")["found"]


# --- the machine


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ((3, 10, 14), "broken"),
        ((3, 11, 0), "ok"),
        ((3, 13, 9), "ok"),
        ((3, 14, 0), "broken"),
    ],
)
def test_the_pythons_that_fit(version: tuple[int, ...], state: str) -> None:
    found = api._python(version)
    assert (found.state, found.found) == (state, ".".join(map(str, version)))


def test_programs_are_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "skopeo"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("skopeo") == program
    assert find_program("docker") is None
    found = states(examine(tmp_path))
    assert (found["skopeo"], found["docker"]) == ("ok", "missing")


def test_mmdebstrap_is_needed_only_to_make_a_base_from_debian(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    make_project(tmp_path / "locked")
    make_project(tmp_path / "new", base=False)
    make_project(tmp_path / "image", base=False, settings='[base]\nfrom = "oci:x"\n')
    assert states(examine(tmp_path / "locked"))["mmdebstrap"] == "missing"
    assert states(examine(tmp_path / "new"))["mmdebstrap"] == "broken"
    assert "mmdebstrap" not in states(examine(tmp_path / "image"))


def test_mmdebstrap_needs_newuidmap_where_one_is_not_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path / "new", base=False)
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    (programs / "mmdebstrap").touch(mode=0o755)
    for root, state in ((True, "ok"), (False, "broken")):
        monkeypatch.setattr(api, "is_root", lambda root=root: root)
        assert check(tmp_path / "new", "mmdebstrap")["state"] == state
    assert "uidmap" in check(tmp_path / "new", "mmdebstrap")["advice"]
    (programs / "newuidmap").touch(mode=0o755)
    assert check(tmp_path / "new", "mmdebstrap")["state"] == "ok"


def test_a_full_disk_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(tmp_path / "not" / "yet" / "there") == pytest.approx(
        free_bytes(tmp_path), rel=0.2
    )
    monkeypatch.setattr(api, "LITTLE_BYTES", 2**62)
    assert check(tmp_path, "disk")["state"] == "broken"
    assert examine(tmp_path).exit_code == 1


def test_what_is_broken_is_named_once_for_all() -> None:
    checks = (Check("a", "ok", ""), Check("b", "broken", "", "mend it"), Check("c", "broken", ""))
    with pytest.raises(api.NotHealthy, match="broken: b, c"):
        api.require_healthy(checks)
    api.require_healthy(checks[:1])
