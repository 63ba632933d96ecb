"""push, pull, copy and diff with a real registry, as a user calls them."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from mlpack.api.project import Project
from mlpack.api.requests import Push
from mlpack.api.session import Progress
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Digest
from mlpack.oci.image import ImageConfig, Layer, build_image
from mlpack.project.directory import ProjectDirectory
from mlpack.stores.integrity import missing_blobs, validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_bytes, put_image, read_image, read_index
from tests.registry.faulty import Fault, Faulty, faulty
from tests.registry.registry import PASSWORD, USER, Registry, running
from tests.support import AMD64, make_project, released_project, require, run, tiny_onnx


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Faulty]:
    with faulty(registry.host) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with two releases of fan."""
    return released_project(tmp_path / "fan", 2)


def mlpack(project: ProjectDirectory, *args: str) -> dict[str, object]:
    """Run a command that must work; its JSON."""
    done = run("-C", str(project.root), "--json", *args)
    assert done.exit_code == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def failing(project: ProjectDirectory, *args: str) -> Result:
    done = run("-C", str(project.root), *args)
    assert done.exit_code != 0
    assert "Traceback" not in done.stderr
    return done


def place(registry: Registry | Faulty) -> str:
    return f"{registry.host}/edge/{uuid.uuid4().hex}"


def wire(document: dict[str, object]) -> tuple[int, int]:
    """Requests, and bytes in both directions."""
    counted = document["wire"]
    assert isinstance(counted, dict)
    return counted["requests"], counted["sent_bytes"] + counted["received_bytes"]


def test_a_release_is_built_and_pushed_in_one_go(
    tmp_path: Path, project: ProjectDirectory, registry: Registry
) -> None:
    """A large layer is sent while it is made, a small one after; nothing goes twice."""
    weights = tmp_path / "big" / "weights.bin"
    weights.parent.mkdir()
    weights.write_bytes(os.urandom(5_000_000))
    assert (
        run("-C", str(project.root), "register", str(weights.parent), "--name", "fan").exit_code
        == 0
    )
    to = place(registry)
    for version, size in (("fan:3", 5_000_000), ("fan:2", 0)):
        made = mlpack(project, "build", version, "--to", to)
        pushed = made["pushed"]
        assert isinstance(pushed, dict)
        assert pushed["reference"] == f"{to}@{made['digest']}"
        layer = made["layer"]
        assert isinstance(layer, dict)
        assert layer["digest"] in {each["digest"] for each in pushed["copied"]}
        assert layer["digest"] not in pushed["present"]
        assert size <= pushed["wire"]["sent_bytes"] < size + 40_000
        pulled = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", f"docker://{pushed['reference']}"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert layer["digest"] in json.loads(pulled.stdout)["Layers"]
    again = mlpack(project, "build", "fan:3", "--to", to)["pushed"]
    assert isinstance(again, dict)
    assert again["copied"] == []
    assert again["wire"]["sent_bytes"] < 3_000


def test_a_push_that_has_nowhere_to_go_builds_nothing(project: ProjectDirectory) -> None:
    settings = project.root / "mlpack.toml"
    settings.write_text(settings.read_text().replace("repository =", "# repository ="))
    model = tiny_onnx(project.root / "3.onnx", bias=3)
    assert run("-C", str(project.root), "register", str(model), "--name", "fan").exit_code == 0
    refused = failing(project, "build", "fan:3", "--push")
    assert "no repository is configured" in refused.stderr
    assert "fan-3" not in project.layout.tags()


def test_a_release_is_pushed_once(project: ProjectDirectory, registry: Registry) -> None:
    to = place(registry)
    done = run("-C", str(project.root), "push", "fan:1", "--to", to)
    digest = project.layout.resolve("fan-1").digest
    assert done.stdout == f"{to}@{digest}\n", "one line: what a deployment names"
    again = mlpack(project, "push", "fan:1", "--to", to)
    assert again["copied"] == []
    requests, total = wire(again)
    assert requests == 2
    assert total < 3_000
    second = mlpack(project, "push", "fan", "--to", to)
    assert second["tag"] == "2"
    sent = second["copied"]
    assert isinstance(sent, list)
    assert len(sent) == 6, "the layer, two configs, two manifests, one index"


def test_another_tool_reads_what_was_pushed(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    require(Path("/usr/bin/skopeo"))
    to = place(registry)
    mlpack(project, "push", "fan:2", "--to", f"{to}:canary")
    command = ["skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{to}:canary"]
    subprocess.run([*command, f"oci:{tmp_path}/out:x"], check=True, capture_output=True)
    copied = LayoutStore.existing(tmp_path / "out")
    assert copied.resolve("x").digest == project.layout.resolve("fan-2").digest
    assert validate(copied) == ()


def test_pulling_makes_it_a_release_of_another_project(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    to = place(registry)
    for version in ("1", "2"):
        mlpack(project, "push", f"fan:{version}", "--to", to)
    other = make_project(tmp_path / "other", base=False)
    pulled = mlpack(other, "pull", f"{to}:1")
    assert (pulled["release"], pulled["name"]) == ("fan:1", "fan-1")
    mlpack(other, "pull", f"{to}:2")
    ours, theirs = (mlpack(each, "diff", "fan:1", "fan:2") for each in (project, other))
    assert ours == theirs
    assert validate(other.layout) == ()
    named = mlpack(other, "pull", f"{to}:2", "--as", "candidate")
    assert (named["release"], named["name"]) == (None, "candidate")


def test_pulling_does_not_take_a_name_that_is_taken(
    project: ProjectDirectory, registry: Registry
) -> None:
    to = place(registry)
    mlpack(project, "push", "fan:1", "--to", to)
    done = failing(project, "pull", f"{to}:1", "--as", "fan-2")
    assert "another image called 'fan-2'" in done.stderr
    assert "hint: give this one a name with --as" in done.stderr


def test_how_much_moves_is_known_before_it_does(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    to = place(registry)
    mlpack(project, "push", "base", "--to", to)
    told: list[Progress] = []
    with Project.open(project.root, told.append) as here:
        here.push(Push("fan:1", to=to))
    first, *_, last = (each for each in told if each.total is not None)
    assert first.done == 0, "the base is there; the layer and two configs are not"
    assert last.done == first.total == last.total
    assert last.done > 0
    assert last.finished
    told.clear()
    other = make_project(tmp_path / "other", base=False)
    with Project.open(other.root, told.append) as here:
        here.pull(f"{to}:1")
    assert told[-1].done == told[-1].total
    assert {each.total for each in told} == {None, told[-1].total}


def test_a_tag_that_moves_is_said(project: ProjectDirectory, registry: Registry) -> None:
    to = f"{place(registry)}:edge"
    first = mlpack(project, "push", "fan:1", "--to", to)
    done = run("-C", str(project.root), "push", "fan:2", "--to", to)
    assert f"tag edge was {first['digest']} before" in done.stderr


def test_the_base_can_be_pushed(project: ProjectDirectory, registry: Registry) -> None:
    pushed = mlpack(project, "push", "base", "--to", place(registry))
    assert pushed["digest"] == str(project.lock().base.index.digest)
    assert pushed["tag"] == "base"


def test_the_repository_of_the_project_is_the_default(project: ProjectDirectory) -> None:
    (project.root / "mlpack.toml").write_text('[model]\nname = "fan"\n')
    done = failing(project, "push")
    assert done.exit_code == 1
    assert "hint: add repository" in done.stderr


def test_copying_between_repositories_moves_no_blob(
    project: ProjectDirectory, registry: Registry
) -> None:
    first, second = place(registry), place(registry)
    mlpack(project, "push", "fan:1", "--to", first)
    copied = mlpack(project, "copy", f"{first}:1", f"{second}:1")
    mounted, sent = copied["mounted"], copied["copied"]
    assert isinstance(mounted, list)
    assert isinstance(sent, list)
    assert len(mounted) == 2 * 4 + 1 + 2, "base layers, the model layer, configs"
    assert len(sent) == 3, "two manifests and the index"
    assert copied["reference"] == f"{second}@{copied['digest']}"


def test_copying_between_all_kinds(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    to = place(registry)
    mlpack(project, "copy", "fan:1", f"oci:{tmp_path}/a:x")
    mlpack(project, "copy", f"oci:{tmp_path}/a:x", f"{to}:y")
    back = mlpack(project, "copy", f"{to}:y", f"oci:{tmp_path}/b")
    layout = LayoutStore.existing(tmp_path / "b")
    assert validate(layout) == ()
    target = layout.resolve("latest")
    assert str(target.digest) == back["digest"] == str(project.layout.resolve("fan-1").digest)
    images = [read_image(layout, each) for each in read_index(layout, target).manifests]
    assert len(images) == 2


def test_copying_a_docker_archive(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    require(Path("/usr/bin/skopeo"))
    archive = f"docker-archive:{tmp_path}/saved.tar"
    copy = ["skopeo", "copy", "--override-arch", "amd64", f"oci:{project.layout.root}:fan-1"]
    subprocess.run([*copy, f"{archive}:fan:1"], check=True, capture_output=True)
    to = place(registry)
    mlpack(project, "copy", archive, f"{to}:1")
    mlpack(project, "copy", f"{to}:1", f"oci:{tmp_path}/back:x")
    layout = LayoutStore.existing(tmp_path / "back")
    assert layout.resolve("x").media_type == media.MANIFEST
    assert validate(layout) == ()


def test_diff_reads_manifests_and_configs_only(project: ProjectDirectory, proxy: Faulty) -> None:
    to = place(proxy)
    for version in ("1", "2"):
        mlpack(project, "push", f"fan:{version}", "--to", to)
    proxy.seen.clear()
    found = mlpack(project, "diff", f"{to}:1", f"{to}:2", "--engine", "moby")
    local = mlpack(project, "diff", "fan:1", "fan:2", "--engine", "moby")
    assert found["layers"] == local["layers"]
    there, here = found["transfer"], local["transfer"]
    assert isinstance(there, dict)
    assert isinstance(here, dict)
    # The two registries' names are not equally long, and names travel in headers.
    named = {"total", "headers", "handshakes"}
    assert {key: there[key] for key in there.keys() - named} == {
        key: here[key] for key in here.keys() - named
    }
    got = [each.path for each in proxy.seen if "/blobs/" in each.path]
    assert len(got) == 2, "the two configs"
    assert not [each for each in proxy.seen if each.method not in {"GET", "HEAD"}]


def test_a_push_that_was_killed_is_finished_by_another(
    project: ProjectDirectory, proxy: Faulty
) -> None:
    to = place(proxy)
    proxy.faults.append(Fault("^PUT .*/manifests/", "status", status=403))
    done = failing(project, "push", "fan:1", "--to", to)
    assert "answers 403" in done.stderr
    assert proxy.count("^PUT .*/manifests/1$") == 0, "no tag on half a release"
    again = mlpack(project, "push", "fan:1", "--to", to)
    present = again["present"]
    assert isinstance(present, list)
    assert len(present) == 2 * 4 + 1 + 2


@pytest.mark.parametrize("kind", ["truncate", "garble"])
def test_a_pull_of_other_bytes_leaves_nothing_named(
    project: ProjectDirectory, proxy: Faulty, tmp_path: Path, kind: str
) -> None:
    to = place(proxy)
    mlpack(project, "push", "fan:1", "--to", to)
    other = make_project(tmp_path / "other", base=False)
    layer = read_index(project.layout, project.layout.resolve("fan-1")).manifests[0]
    blob = read_image(project.layout, layer).layers[-1].digest
    proxy.faults.append(Fault(f"^GET .*/blobs/{blob}", kind, times=9))
    done = failing(other, "pull", f"{to}:1")
    assert str(blob) in done.stderr
    assert dict(other.layout.tags()) == {}
    assert not (other.layout.root / "blobs" / "sha256" / blob.hex).exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("pull", "HOST/edge/none:1"), "has no tag '1'"),
        (("pull", "fan:1"), "names no registry"),
        (("push", "fan:9", "--to", "HOST/x"), "fan:9 has no release"),
        (("push", "fan:1", "--to", f"HOST/x@sha256:{'0' * 64}"), "cannot push to the digest"),
        (("copy", "fan:1", "docker-archive:x.tar"), "cannot copy to"),
        (("copy", "fan:1", "fan:3"), "cannot copy to"),
        (("copy", "fan:1", "oci:"), "oci:PATH:TAG"),
        (("diff", "HOST/edge/none:1", "fan:1"), "has no tag '1'"),
        (("diff", "none", "registry.example.com/UPPER:1"), "has upper-case letters"),
    ],
)
def test_what_cannot_be_done_is_said(
    project: ProjectDirectory, registry: Registry, command: tuple[str, ...], message: str
) -> None:
    done = failing(project, *(each.replace("HOST", registry.host) for each in command))
    assert message in done.stderr


@pytest.fixture
def runner(project: ProjectDirectory, tmp_path: Path) -> ProjectDirectory:
    """What a CI runner checks out: settings and lock, a model, and no base."""
    made = make_project(tmp_path / "runner", base=False)
    (made.root / "mlpack.lock").write_bytes((project.root / "mlpack.lock").read_bytes())
    model = tiny_onnx(tmp_path / "3.onnx", bias=3)
    assert run("-C", str(made.root), "register", str(model), "--name", "fan").exit_code == 0
    return made


def base_layers(project: ProjectDirectory) -> set[str]:
    lock = project.lock()
    return {each.layer.digest.hex for on in lock.base.platforms for each in on.layers}


def test_a_runner_without_a_base_publishes_a_release(
    project: ProjectDirectory, runner: ProjectDirectory, proxy: Faulty
) -> None:
    first, to = place(proxy), place(proxy)
    base = mlpack(project, "push", "base", "--to", first)["reference"]
    proxy.seen.clear()
    proxy.moved = 0
    built = mlpack(runner, "build", "fan", "--base", str(base))
    pushed = mlpack(runner, "push", "fan", "--to", to)
    assert proxy.moved < 42_000, "the records of what it was made of and of its start included"
    assert pushed["record"] == str(runner.layout.resolve("release/fan/1").digest)
    assert pushed["digest"] == built["digest"]
    assert built["base"] == str(project.lock().base.index.digest)
    mounted = pushed["mounted"]
    assert isinstance(mounted, list)
    assert {each.removeprefix("sha256:") for each in mounted} == base_layers(project)
    here = {path.name for path in (runner.layout.root / "blobs" / "sha256").iterdir()}
    assert not here & base_layers(project), "no layer of the base came here"
    whole = make_project(runner.root.parent / "whole", base=False)
    mlpack(whole, "pull", f"{to}:1")
    assert validate(whole.layout) == ()


def test_a_release_is_the_same_wherever_its_base_is(
    project: ProjectDirectory, runner: ProjectDirectory, registry: Registry
) -> None:
    base = mlpack(project, "push", "base", "--to", place(registry))["reference"]
    model = runner.root.parent / "3.onnx"
    assert run("-C", str(project.root), "register", str(model), "--name", "fan").exit_code == 0
    built = mlpack(runner, "build", "fan", "--base", str(base))
    here = mlpack(project, "build", "fan:3")
    assert here["layer"] != built["layer"], "it is version 3 here and 1 there"
    assert here["base"] == built["base"]


def test_pushing_to_another_registry_brings_the_base_along(
    project: ProjectDirectory, runner: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    base = mlpack(project, "push", "base", "--to", place(registry))["reference"]
    mlpack(runner, "build", "fan", "--base", str(base))
    with running(tmp_path / "second") as second:
        to = place(second)
        mlpack(runner, "push", "fan", "--to", to)
        whole = make_project(tmp_path / "whole", base=False)
        mlpack(whole, "pull", f"{to}:1")
        assert validate(whole.layout) == ()


def test_a_base_that_is_not_the_locked_one_is_refused(
    project: ProjectDirectory, runner: ProjectDirectory, registry: Registry
) -> None:
    other = mlpack(project, "push", "fan:1", "--to", place(registry))["reference"]
    done = failing(runner, "build", "fan", "--base", str(other))
    assert "is not the base in mlpack.lock" in done.stderr
    assert "hint: publish the locked base" in done.stderr


def test_any_image_is_a_base_where_nothing_is_locked(
    project: ProjectDirectory, runner: ProjectDirectory, registry: Registry
) -> None:
    (runner.root / "mlpack.lock").unlink()
    base = mlpack(project, "push", "base", "--to", place(registry))["reference"]
    built = mlpack(runner, "build", "fan", "--base", str(base))
    assert built["base"] == str(project.lock().base.index.digest)
    assert len(built["platforms"]) == 2  # type: ignore[arg-type]
    assert not (runner.root / "mlpack.lock").exists()


def test_doctor_knows_that_the_base_is_elsewhere(
    project: ProjectDirectory, runner: ProjectDirectory, registry: Registry
) -> None:
    base = mlpack(project, "push", "base", "--to", place(registry))["reference"]
    mlpack(runner, "build", "fan", "--base", str(base))
    assert missing_blobs(runner.layout) == ()
    assert validate(runner.layout) == ()
    model = read_index(runner.layout, runner.layout.resolve("fan-1")).manifests[0]
    layer = read_image(runner.layout, model).layers[-1]
    runner.layout.path(layer.descriptor).unlink()
    assert missing_blobs(runner.layout)
    assert validate(runner.layout)


def test_a_registry_with_a_login_and_a_certificate_of_its_own(
    project: ProjectDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path / "guarded", login=True, tls=True) as guarded:
        assert guarded.ca is not None
        to = place(guarded)
        assert "[registry] ca" in failing(project, "push", "fan:1", "--to", to).stderr
        (project.root / "ca.pem").write_bytes(guarded.ca.read_bytes())
        with (project.root / "mlpack.toml").open("a") as out:
            out.write('\n[registry]\nca = "ca.pem"\n')
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        denied = failing(project, "push", "fan:1", "--to", to)
        assert "requires a login" in denied.stderr
        assert f"hint: log in with: docker login {guarded.host}" in denied.stderr

        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        logins = {"auths": {guarded.host: {"auth": pair}}}
        (tmp_path / "config.json").write_text(json.dumps(logins))
        done = run("-C", str(project.root), "--json", "push", "fan:1", "--to", to)
        assert done.exit_code == 0, done.stderr
        pulled = run("-C", str(project.root), "pull", f"{to}:1", "--as", "again")
        assert pulled.exit_code == 0, pulled.stderr
        said = done.stdout + done.stderr + pulled.stderr
        assert PASSWORD not in said
        assert pair not in said


def test_what_lies_in_a_layer_is_not_unpacked(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    """A gzip bomb and a way out of the directory are blobs like any other."""
    bomb = gzip.compress(b"\0" * 200_000_000)
    escape = io.BytesIO()
    with tarfile.open(fileobj=escape, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../../escaped"))
    layout = LayoutStore(tmp_path / "made")
    layers = []
    for content, kind in ((bomb, media.LAYER_GZIP), (escape.getvalue(), media.LAYER_TAR)):
        target = put_bytes(layout, content, kind)
        layers.append(Layer(target, Digest.of(content)))
    made = build_image(ImageConfig(platform=AMD64), layers)
    layout.tag(put_image(layout, made), "x")
    to = place(registry)
    mlpack(project, "copy", f"oci:{tmp_path}/made:x", f"{to}:x")
    pulled = mlpack(project, "pull", f"{to}:x", "--as", "odd")
    assert wire(pulled)[1] < 2 * len(bomb) + 20_000
    assert validate(LayoutStore(project.layout.root)) == ()
    assert not list(tmp_path.rglob("escaped"))


def test_a_base_from_the_same_registry_is_mounted(
    project: ProjectDirectory, registry: Registry
) -> None:
    """Layers that came from a repository of the registry are not sent to it again."""
    first, to = place(registry), place(registry)
    mlpack(project, "push", "base", "--to", f"{first}:1")
    lock = project.lock()
    base = replace(lock.base, source=f"{first}:1", pinned=f"{first}@{lock.base.index.digest}")
    layers = [
        replace(on, layers=tuple(replace(each, role="source") for each in on.layers))
        for on in base.platforms
    ]
    project.write_lock(replace(lock, base=replace(base, platforms=tuple(layers))))
    pushed = mlpack(project, "push", "fan:1", "--to", to)
    mounted = pushed["mounted"]
    assert isinstance(mounted, list)
    assert {each.removeprefix("sha256:") for each in mounted} == base_layers(project)
