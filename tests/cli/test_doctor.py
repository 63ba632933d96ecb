"""``mlpack doctor``: what is well, what may be missing, and what is broken."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from click.testing import Result

from mlpack.api import doctor as api
from mlpack.api.doctor import Check, Diagnosis, find_program, free_bytes
from mlpack.project.directory import ProjectDirectory
from mlpack.stores.integrity import missing_blobs, validate
from tests.registry.registry import PASSWORD, USER, running
from tests.support import free_port, make_project, run, session


def states(done: Result) -> dict[str, str]:
    document = json.loads(done.stdout)
    assert document["healthy"] == (done.exit_code == 0)
    return {each["name"]: each["state"] for each in document["checks"]}


def examine(root: Path, *arguments: str) -> Result:
    """The doctor's document of a project; no program is started unless a test is about that."""
    return run("-C", str(root), "doctor", "--quick", "--json", *arguments)


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
    done = run("-C", str(tmp_path), "doctor", "--quick")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["check", "state", "found"]
    below = done.stdout.partition("\n\nwhat to do\n")[2]
    checks = json.loads(examine(tmp_path, "--quick").stdout)["checks"]
    advised = [f"  {each['name']}: {each['advice']}" for each in checks if each.get("advice")]
    assert below.splitlines() == advised
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
    assert run("-C", str(tmp_path), "doctor", "--quick").stderr.splitlines() == [
        "error: broken: project",
        "hint: fix the items above, then run mlpack doctor again",
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
        "advice": "run: mlpack base build (it makes the locked digests again)",
    }
    assert examine(tmp_path).exit_code == 0


def a_layer(project: ProjectDirectory) -> Path:
    return project.layout.path(project.lock().base.platforms[1].layers[2].layer.descriptor)


def test_a_missing_blob_is_found_by_name(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    assert missing_blobs(project.layout) == ()
    path = a_layer(project)
    path.unlink()
    (found,) = missing_blobs(project.layout)
    assert found == f"base: sha256:{path.name} is missing or cut short"
    assert check(tmp_path, "store")["found"] == found
    assert examine(tmp_path).exit_code == 1


def test_a_blob_cut_short_is_found(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    a_layer(project).write_bytes(b"x")
    assert len(missing_blobs(project.layout)) == 1


def test_a_flipped_byte_is_found_when_every_byte_is_read(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    path = a_layer(project)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert missing_blobs(project.layout) == ()
    assert validate(project.layout)
    assert check(tmp_path, "store")["state"] == "ok"
    assert check(tmp_path, "store", "--deep")["state"] == "broken"
    assert path.name in check(tmp_path, "store", "--deep")["found"]
    assert examine(tmp_path, "--deep").exit_code == 1


def test_a_broken_manifest_is_found(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    path = project.layout.path(project.lock().base.platforms[0].manifest)
    path.write_bytes(path.read_bytes().replace(b"layers", b"loyers"))
    (found,) = missing_blobs(project.layout)
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


def test_without_a_project_mmdebstrap_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert check(tmp_path, "mmdebstrap")["state"] == "missing"
    assert examine(tmp_path).exit_code == 0


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def engines(tmp_path: Path) -> dict[str, Check]:
    return {each.name: each for each in api._engines(quick=False)}


def test_a_client_without_its_daemon_is_not_ok(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    program(tmp_path / "bin", "docker", "echo null; echo 'Cannot connect to it' >&2; exit 1")
    program(tmp_path / "bin", "podman", "echo 'no subuid ranges' >&2; exit 125")
    found = engines(tmp_path)
    assert (found["docker"].state, found["podman"].state) == ("missing", "missing")
    assert "Cannot connect to it" in found["docker"].found
    assert "start" in found["docker"].advice
    assert "no subuid ranges" in found["podman"].found


def test_a_daemon_that_answers_is_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    server = '{"Version": "28.5.1", "MinAPIVersion": "1.24"}'
    program(tmp_path / "bin", "docker", f"echo '{server}'")
    program(tmp_path / "bin", "podman", "echo 5.4.2")
    found = engines(tmp_path)
    assert (found["docker"].state, found["podman"].state) == ("ok", "ok")
    assert "28.5.1" in found["docker"].found
    assert "iotedge" not in found


@pytest.mark.parametrize(("installed", "state"), [(True, "broken"), (False, "missing")])
def test_docker_29_refuses_iot_edge(
    installed: bool, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    server = '{"Version": "29.0.0", "MinAPIVersion": "1.44"}'
    program(tmp_path / "bin", "docker", f"echo '{server}'")
    if installed:
        program(tmp_path / "bin", "iotedge", "true")
    found = engines(tmp_path)["iotedge"]
    assert found.state == state
    assert "min-api-version" in found.advice
    assert "1.44" in found.found


def test_a_program_that_hangs_does_not_hang_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "SECONDS", 0.2)
    program(tmp_path, "slow", "exec sleep 5")
    assert "did not answer" in api.run_program((str(tmp_path / "slow"),)).problem


def test_extras_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = {"good": ("json",), "absent": ("no_such_module", "a.b")}
    monkeypatch.setattr(api, "_EXTRAS", extras)
    found = {each.name: each for each in api._extras(quick=False)}
    assert (found["[good]"].state, found["[absent]"].state) == ("ok", "missing")
    assert "no_such_module" in found["[absent]"].found


def test_an_extra_that_cannot_be_imported_is_not_ok(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "damaged.py").write_text("raise ImportError('libGL.so.1 is missing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(api, "_EXTRAS", {"broken": ("damaged",)})
    (found,) = api._extras(quick=False)
    assert found.state == "missing"
    assert "libGL.so.1 is missing" in found.found


@pytest.mark.parametrize(
    ("text", "enough"),
    [
        ("ann:100000:65536\n", True),
        ("bob:100000:65536\n1000:200000:65536\n", True),
        ("ann:100000:1000\n", False),
        ("annika:100000:65536\n", False),
        ("ann:100000:many\n", False),
        ("", False),
    ],
)
def test_subordinate_ids(text: str, enough: bool) -> None:
    assert api.subordinate_ids(text, "ann", 1000) == enough


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
        Diagnosis(checks).require_healthy()
    Diagnosis(checks[:1]).require_healthy()


def registry(root: Path) -> Check | None:
    found = api.doctor(session(root)).checks
    return next((each for each in found if each.name == "registry"), None)


def naming(root: Path, host: str) -> Path:
    made = make_project(root, base=False)
    image = f'[image]\nrepository = "{host}/edge/fan"\n' if host else ""
    (made.root / "mlpack.toml").write_text(f'[model]\nname = "fan"\n{image}')
    return made.root


@pytest.fixture
def nothing_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the registry: no engine is asked and no package imported."""
    monkeypatch.setattr(api, "_machine", lambda *_, **__: iter(()))


@pytest.mark.usefixtures("nothing_started")
def test_the_registry_of_the_project_is_asked_for_its_api(tmp_path: Path) -> None:
    assert registry(naming(tmp_path / "none", "")) is None
    with running(tmp_path / "registry") as open_to_all:
        root = naming(tmp_path / "open", open_to_all.host)
        assert registry(root) == Check("registry", "ok", f"{open_to_all.host} answers")
        assert "registry" not in states(examine(root))


@pytest.mark.usefixtures("nothing_started")
def test_a_registry_that_needs_a_login_is_optional(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with running(tmp_path / "registry", login=True) as closed:
        root = naming(tmp_path / "closed", closed.host)
        found = registry(root)
        assert found is not None
        assert found.state == "missing"
        assert f"{closed.host} needs a login" in found.found
        assert "docker login" in found.advice
        api.doctor(session(root)).require_healthy()
        (tmp_path / ".docker").mkdir()
        config = tmp_path / ".docker" / "config.json"
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config.write_text(json.dumps({"auths": {f"{closed.host}/edge": {"auth": auth}}}))
        found = registry(root)
        said = f"{closed.host} answers, with {config}, auths '{closed.host}/edge'"
        assert found == Check("registry", "ok", said), "which file and key, and no secret"
        config.write_text('{"credsStore": "not-installed"}')
        found = registry(root)
        assert found is not None
        assert "docker-credential-not-installed could not be run" in found.found


@pytest.mark.usefixtures("nothing_started")
def test_a_registry_that_does_not_answer_is_optional(tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    found = registry(naming(tmp_path / "refused", host))
    assert found is not None
    assert (found.state, found.found) == (
        "missing",
        f"{host} is not reachable: the connection is refused",
    )
    named = registry(naming(tmp_path / "unknown", "registry.invalid"))
    assert named is not None
    assert named.state == "missing"
    assert named.found.startswith("registry.invalid is not reachable: its name ")
    assert named.found.endswith(" (DNS)")


@pytest.mark.usefixtures("nothing_started")
def test_a_registry_whose_certificate_is_not_trusted(tmp_path: Path) -> None:
    with running(tmp_path / "registry", tls=True) as secure:
        found = registry(naming(tmp_path / "tls", secure.host))
        assert found is not None
        assert found.state == "missing"
        assert "certificate is not trusted" in found.found
        assert "[registry] ca" in found.advice
