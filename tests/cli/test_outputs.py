"""Outputs of every command: never an input, links are followed, errors name them."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from mlpack.api.patch import make
from mlpack.api.requests import MakePatch
from mlpack.api.session import Session
from mlpack.cli.main import cli
from mlpack.stores.files import atomic
from tests.support import released_project, run, tiny_onnx, unavailable

READ = {
    "register": ("scoring", "metrics_file", "check", "code"),
    "round": ("check",),
    "build": ("fleet",),
    "patch make": ("old", "new"),
    "patch apply": ("old", "file"),
    "patch inspect": ("file",),
    "devices": ("fleet",),
    "plan": ("fleet",),
    "bundle verify": ("file",),
    "render": ("template", "patch", "token"),
    "up": ("deployment", "layers"),
    "down": ("deployment",),
    "registry serve": ("password_file", "certificate", "key"),
}
"""The parameters of each command that name a path it reads only."""

WRITTEN = {
    "init": ("directory",),
    "patch make": ("out",),
    "patch apply": ("out",),
    "graft": ("out",),
    "copy": ("target",),
    "bundle make": ("out",),
    "render": ("output",),
    "azure token": ("output",),
    "registry serve": ("store",),
}
"""The parameters of each command that name what it writes; :data:`OVERWRITING` tries each."""

OVERWRITING: dict[str, tuple[tuple[str, ...], ...]] = {
    "patch make": (
        ("patch", "make", "1.onnx", "2.onnx", "-o", "1.onnx"),
        ("patch", "make", "1.onnx", "2.onnx", "-o", "./sub/../2.onnx"),
        ("patch", "make", "1.onnx", "2.onnx", "-o", "link.onnx"),
        ("patch", "make", "1.onnx", "2.onnx", "-o", "hard.onnx"),
        ("patch", "make", "link.onnx", "2.onnx", "-o", "1.onnx"),
        ("patch", "make", "1.onnx", "2.onnx", "-o", "beside.onnx"),
        ("patch", "make", "fan:1", "2.onnx", "-o", "mlpack.toml"),
        ("patch", "make", "fan:1", "2.onnx", "-o", "mlpack.lock"),
        ("patch", "make", "fan:1", "2.onnx", "-o", ".mlpack/oci/index.json"),
        ("patch", "make", "fan:1", "2.onnx", "-o", ".mlpack/ledger.db"),
    ),
    "patch apply": (
        ("patch", "apply", "1.onnx", "2.mlpd", "-o", "1.onnx"),
        ("patch", "apply", "1.onnx", "2.mlpd", "-o", "2.mlpd"),
        ("patch", "apply", "fan:1", "2.mlpd", "-o", "link.mlpd"),
    ),
    "graft": (
        ("graft", "oci:layout:1", "oci:layout:2", "-o", "oci:layout:1"),
        ("graft", "oci:layout:1", "oci:layout:2", "-o", "oci:sub/../layout:2"),
        ("graft", "oci:layout:1", "oci:layout:2", "-o", "oci:layout/sub:1"),
        ("graft", "oci:layout:1", "oci:layout:2", "-o", "oci:.:1"),
    ),
    "copy": (
        ("copy", "oci:layout:1", "oci:layout:1"),
        ("copy", "oci:layout:1", "oci:linked:1"),
        ("copy", "oci:layout:1", "oci:layout/blobs:1"),
        ("copy", "oci:layout:1", "oci:.:1"),
        ("copy", "docker-archive:saved.tar", "oci:saved.tar:1"),
        ("copy", "docker-archive:saved.tar", "oci:.:1"),
    ),
    "bundle make": (
        ("bundle", "make", "oci:layout:2", "--onto", "oci:layout:1", "-o", "layout/index.json"),
        ("bundle", "make", "oci:layout:2", "--onto", "oci:layout:1", "-o", "linked/new.tar"),
        ("bundle", "make", "docker-archive:saved.tar", "--onto", "none", "-o", "saved.tar"),
        ("bundle", "make", "fan:2", "--onto", "none", "-o", "mlpack.toml"),
    ),
    "render": (
        ("render", "fan", "--template", "t.json", "-o", "t.json"),
        ("render", "fan", "--token", "t.json", "-o", "t.json"),
        ("render", "fan", "-o", "mlpack.toml"),
        ("render", "fan", "-o", "mlpack.lock"),
        ("render", "fan", "-o", ".mlpack/oci/blobs/new"),
    ),
    "azure token": (
        ("azure", "token", "--group", "vans", "--registry", "0/edge", "-o", "mlpack.toml"),
    ),
    "registry serve": (
        ("registry", "serve", "--store", "t.json", "--user", "me", "--password-file", "t.json"),
        ("registry", "serve", "--store", ".", "--user", "me", "--password-file", "t.json"),
    ),
}
"""Calls of each command in a project whose output is one of its inputs."""

NAMED_NEITHER = {
    "completion",
    "docs",
    "gc",
    "releases",
    "tag",
    *("models", "show", "base build", "base show", "push", "pull", "diff", "report", "groups"),
    *("deploy", "status", "rollback", "load", "run", "score", "serve", "doctor"),
}
"""Commands that name no path, or only as an image, a model or an input to score. What they write
is in the project's store, a registry, an engine or a hub."""


def commands(found: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(found, click.Group):
        yield path, found
        return
    context = click.Context(found)
    for name in found.list_commands(context):
        below = found.get_command(context, name)
        assert below is not None
        yield from commands(below, f"{path} {name}".strip())


def test_every_command_is_known_by_what_it_reads_and_writes() -> None:
    read, written = {}, {}
    for name, command in commands(cli):
        paths = {
            str(each.name)
            for each in command.params
            if isinstance(each.type, click.Path | click.File)
            or {"-o", "--output", "--out"} & set(each.opts)
            or each.name in ("out", "store")
            or (each.name == "target" and isinstance(each, click.Argument))
        }
        known = set(WRITTEN.get(name, ()))
        read[name], written[name] = paths - known, paths & known
    assert {name: each for name, each in read.items() if each} == {
        name: set(each) for name, each in READ.items()
    }
    assert {name: each for name, each in written.items() if each} == {
        name: set(each) for name, each in WRITTEN.items()
    }
    assert read.keys() == NAMED_NEITHER | READ.keys() | WRITTEN.keys()
    # ``init`` reads nothing, and refuses files that exist.
    assert OVERWRITING.keys() == WRITTEN.keys() - {"init"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project and a file of every kind that a command reads."""
    root = released_project(tmp_path_factory.mktemp("outputs") / "fan", 2).root
    here = ("-C", str(root))
    settings = "\n[deploy.groups.vans]\ntarget = \"tags.kind = 'van'\"\n"
    (root / "mlpack.toml").write_text((root / "mlpack.toml").read_text() + settings)
    for version in (1, 2):
        tiny_onnx(root / f"{version}.onnx", bias=version)
        assert run(*here, "copy", f"fan:{version}", f"oci:layout:{version}").exit_code == 0
    tiny_onnx(root / "beside.onnx")
    assert run(*here, "patch", "make", "1.onnx", "2.onnx", "-o", "2.mlpd").exit_code == 0
    done = run(*here, "bundle", "make", "fan:1", "--onto", "none", "-o", "saved.tar.gz")
    assert done.exit_code == 0, done.stderr
    (root / "saved.tar").write_bytes(gzip.decompress((root / "saved.tar.gz").read_bytes()))
    assert run(*here, "render", "--base", "-o", "base.json").exit_code == 0
    (root / "t.json").write_text("{}")
    (root / "sub").mkdir()
    (root / "linked").symlink_to("layout")
    (root / "link.onnx").symlink_to("1.onnx")
    (root / "link.mlpd").symlink_to("2.mlpd")
    os.link(root / "2.onnx", root / "hard.onnx")
    return root


def content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    "args", [each for calls in OVERWRITING.values() for each in calls], ids=" ".join
)
def test_an_output_that_is_an_input_is_refused(made: Path, args: tuple[str, ...]) -> None:
    before = content(made)
    done = run("-C", str(made), *args)
    error, hint = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert "this command" in error
    assert hint.startswith("hint: write to another")
    assert content(made) == before


def test_images_of_one_layout_may_get_further_names(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "fan"
    shutil.copytree(made, root, symlinks=True)
    assert run("-C", str(root), "copy", "oci:layout:1", "oci:layout:stable").exit_code == 0
    done = run("-C", str(root), "graft", "oci:layout:1", "oci:layout:2", "-o", "oci:layout:3")
    assert done.exit_code == 0, done.stderr


def test_a_manifest_is_changed_in_place(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "fan"
    shutil.copytree(made, root, symlinks=True)
    assert run("-C", str(root), "render", "fan:1", "-o", "d.json").exit_code == 0
    before = (root / "d.json").read_text()
    done = run("-C", str(root), "render", "fan:2", "--patch", "d.json", "-o", "d.json")
    assert done.exit_code == 0, done.stderr
    assert (root / "d.json").read_text() != before


WRITING: tuple[tuple[str, ...], ...] = (
    ("patch", "make", "1.onnx", "2.onnx", "-o"),
    ("patch", "apply", "1.onnx", "2.mlpd", "-o"),
    ("patch", "apply", "fan:1", "2.mlpd", "-o"),
    ("bundle", "make", "fan:2", "--onto", "fan:1", "-o"),
    ("render", "fan", "-o"),
)


@pytest.mark.parametrize("args", WRITING, ids=" ".join)
def test_a_link_stays_and_its_target_is_replaced(
    made: Path, tmp_path: Path, args: tuple[str, ...]
) -> None:
    assert run("-C", str(made), *args, str(tmp_path / "plain")).exit_code == 0
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "target").write_bytes(b"before")
    (tmp_path / "link").symlink_to("middle")
    (tmp_path / "middle").symlink_to("far/target")
    (tmp_path / "nothing").symlink_to("far/new")
    (tmp_path / "circle").symlink_to("circle")
    for name, place in (("link", "target"), ("nothing", "new")):
        done = run("-C", str(made), *args, str(tmp_path / name))
        assert done.exit_code == 0, done.stderr
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "middle").is_symlink()
        written = tmp_path / "far" / place
        assert not written.is_symlink()
        assert written.read_bytes() == (tmp_path / "plain").read_bytes()
    done = run("-C", str(made), *args, str(tmp_path / "circle"))
    assert (done.exit_code, f"cannot write {tmp_path / 'circle'}" in done.stderr) == (1, True)
    assert (tmp_path / "circle").is_symlink()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with the options; it is unmounted when the test ends."""
    places: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"mounted-{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            unavailable(f"no tmpfs can be mounted: {done.stderr.strip()}")
        places.append(place)
        return place

    yield mount
    for each in places:
        subprocess.run(["umount", str(each)], check=True)


@pytest.mark.parametrize("args", WRITING, ids=" ".join)
def test_where_nothing_can_be_written_the_error_names_the_output(
    made: Path, tmp_path: Path, mounted: Callable[[str], Path], args: tuple[str, ...]
) -> None:
    full = mounted("size=4k")
    (full / "taken").write_bytes(bytes(4096))
    (tmp_path / "file").write_bytes(b"")
    for folder, reason, hint in (
        (mounted("ro"), "Read-only file system", "write to another path"),
        (full, "No space left on device", "free some disk space, or write to another path"),
        (tmp_path / "file", "is not a directory", "a part of this path is a file"),
    ):
        done = run("-C", str(made), *args, str(folder / "out"))
        error, advice = done.stderr.splitlines()
        assert done.exit_code == 1, done.stderr
        assert error.startswith(f"error: cannot write {folder / 'out'}: "), error
        assert error.endswith(reason)
        assert hint in advice
        assert "-C" not in advice
        assert not folder.is_dir() or not list(folder.glob(".part*"))
    (tmp_path / "link").symlink_to(mounted("ro") / "out")
    done = run("-C", str(made), *args, str(tmp_path / "link"))
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'link'}: "), done.stderr
    done = run("-C", str(made), *args, str(tmp_path / ("long" * 100)))
    assert (done.exit_code, "hint: choose a shorter name" in done.stderr) == (1, True)
    done = run("-C", str(made), *args, str(tmp_path))
    assert (done.exit_code, "is a directory" in done.stderr) == (1, True)
    done = run("-C", str(made), *args, str(tmp_path / "missing" / "out"))
    assert done.exit_code == 0, "a missing directory is made"


def test_the_compared_size_is_that_of_the_new_file(made: Path, tmp_path: Path) -> None:
    old, new = made / "1.onnx", made / "2.onnx"
    sizes = {make(Session(), MakePatch(old, new, tmp_path / "p")).zstd for _ in range(2)}
    assert len(sizes) == 1
    assert (sizes.pop() or 0) > 100


def test_hints_tell_a_wrong_old_file_from_a_damaged_patch(tmp_path: Path) -> None:
    content = os.urandom(20_000)
    (tmp_path / "old").write_bytes(content)
    (tmp_path / "new").write_bytes(content[:9_000] + b"new" + content[9_000:])
    (tmp_path / "other").write_bytes(os.urandom(20_000))
    here = ("-C", str(tmp_path), "patch")
    assert run(*here, "make", "old", "new", "-o", "p").exit_code == 0
    right = hashlib.sha256(content).hexdigest()
    done = run(*here, "apply", "other", "p", "-o", "out")
    assert done.exit_code == 1
    assert "hint: give the file of 20,000 bytes" in done.stderr
    assert f"with sha256 {right[:16]}" in done.stderr
    done = run(*here, "apply", "new", "p", "-o", "out")
    assert (done.exit_code, "new is already what" in done.stderr) == (1, True)
    assert "hint: there is nothing to apply" in done.stderr
    done = run(*here, "make", "old", "old", "-o", "same")
    assert (done.exit_code, "OLD and NEW are equal" in done.stderr) == (0, True)
    whole = (tmp_path / "p").read_bytes()
    for at in range(len(whole) // 2, len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        (tmp_path / "damaged").write_bytes(changed)
        done = run(*here, "apply", "old", "damaged", "-o", "out")
        if done.exit_code:  # a few bits of a patch may mean nothing
            assert (done.exit_code, "hint: copy it again" in done.stderr) == (1, True), at
            assert "give the file" not in done.stderr
        (tmp_path / "out").unlink(missing_ok=True)


@pytest.mark.parametrize("old", ["fan:1", "fan"])
def test_patches_are_applied_to_versions_by_their_names(
    made: Path, tmp_path: Path, old: str
) -> None:
    new = "1.onnx" if old == "fan" else "2.onnx"
    patch, out = str(tmp_path / "p"), str(tmp_path / "out")
    here = ("-C", str(made))
    assert run(*here, "patch", "make", old, new, "-o", patch).exit_code == 0
    assert run(*here, "patch", "apply", old, patch, "-o", out).exit_code == 0
    assert Path(out).read_bytes() == (made / new).read_bytes()


def test_only_what_mlpack_left_is_cleaned(tmp_path: Path) -> None:
    others = (".part-notes", ".part-abcdefgh", ".part-mlpack-notes", ".part-mlpack-7-toolong99")
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    pipe, link = (tmp_path / f".part-mlpack-7-abcdefg{each}" for each in "hi")
    os.mkfifo(pipe)
    link.symlink_to(".part-notes")
    (tmp_path / ".part-mlpack-7-abcdefgj").mkdir()
    left = tmp_path / ".part-mlpack-7-abcdefgk"
    left.write_bytes(b"half")
    with atomic(tmp_path / "out") as content:
        [held] = set(tmp_path.glob(f".part-mlpack-{os.getpid()}-*"))
        with atomic(tmp_path / "other") as more:
            more.write(b"2")
        assert held.exists(), "that of a running process stays"
        content.write(b"1")
    assert not left.exists()
    assert all((tmp_path / name).read_bytes() == b"mine" for name in others)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert (tmp_path / "out").read_bytes() == b"1"


DROP_BOX = """
import os, sys
from pathlib import Path
from mlpack.stores.files import atomic, output
if os.geteuid() == 0:
    os.setuid(65534)
with output(Path(sys.argv[1])) as place, atomic(place) as content:
    content.write(b"new")
"""


def test_a_folder_that_may_only_be_written_to_is_written_to(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # every user may enter what is above it
    try:
        folder.chmod(0o333)
        command = [sys.executable, "-c", DROP_BOX, str(folder / "out")]
        subprocess.run(command, check=True)
        assert (folder / "out").read_bytes() == b"new"
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


READING: tuple[tuple[str, ...], ...] = (
    ("patch", "make", "{}", "2.onnx", "-o", "{out}"),
    ("patch", "make", "1.onnx", "{}", "-o", "{out}"),
    ("patch", "apply", "{}", "2.mlpd", "-o", "{out}"),
    ("patch", "apply", "1.onnx", "{}", "-o", "{out}"),
    ("patch", "inspect", "{}"),
    ("register", "{}"),
    ("register", "1.onnx", "--scoring", "{}"),
    ("register", "1.onnx", "--metrics", "{}"),
    ("round", "fan:2", "--onto", "fan:1", "--check", "{}", "--dry-run"),
    ("render", "fan", "--template", "{}"),
    ("render", "fan", "--patch", "{}"),
    ("render", "fan", "--token", "{}", "-o", "{out}"),
    ("copy", "docker-archive:{}", "oci:{out}:1"),
    ("copy", "oci:{}:1", "oci:{out}:1"),
    ("bundle", "verify", "{}"),
    ("devices", "--device-group", "vans", "--fleet", "{}"),
    ("plan", "fan", "--device-group", "vans", "--fleet", "{}"),
    ("build", "fan", "--device-group", "vans", "--fleet", "{}"),
    ("up", "{}", "--dry-run"),
    ("up", "base.json", "--layer", "{}", "--dry-run"),
    ("score", "http://127.0.0.1:9", "{}"),
    ("registry", "serve", "--user", "me", "--password-file", "{}"),
    ("registry", "serve", "--certificate", "{}", "--key", "t.json"),
)


@pytest.mark.parametrize("args", READING, ids=" ".join)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_not_a_file_is_not_opened(
    made: Path, tmp_path: Path, kind: str, args: tuple[str, ...]
) -> None:
    place = tmp_path / "special"
    listener = socket.socket(socket.AF_UNIX)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        listener.bind(str(place))
    else:
        place = Path("/dev/zero")
    given = [each.format(place, out=tmp_path / "out") for each in args]
    done = []
    thread = threading.Thread(target=lambda: done.append(run("-C", str(made), *given)), daemon=True)
    thread.start()
    thread.join(20)
    assert done, "it waits for a writer"
    listener.close()
    assert done[0].exit_code in (1, 2), done[0].stderr
    assert len(done[0].stderr.splitlines()) <= 2
    assert str(place) in done[0].stderr
    assert not (tmp_path / "out").exists()


def test_a_pipe_among_the_blobs_of_a_layout_is_not_waited_for(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "layout"
    shutil.copytree(made / "layout", root)
    for blob in (root / "blobs" / "sha256").iterdir():
        blob.unlink()
        os.mkfifo(blob)
    done = run("-C", str(made), "copy", f"oci:{root}:1", f"oci:{tmp_path / 'out'}:1")
    assert (done.exit_code, done.stderr.startswith("error: ")) == (1, True)


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    from mlpack.stores.files import NotAFile, open_file

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAFile, match="is not a regular file"):
        open_file(tmp_path / "pipe")
