"""Models that a release holds as an anchor's files and a patch: rebuilt, kept, and refused."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlpack.runtime.identity import FileRecord, read_identity
from mlpack.runtime.rebuild import PREFIX, key, rebuild
from mlpack.runtime.settings import NotServable, RuntimeSettings
from mlpack.tensor_patch import make_patch
from tests.runtime import models
from tests.runtime.support import ask, start, started
from tests.support import free_port, tiny_onnx

OLD, NEW = b"old weights " * 5000, b"old weights " * 4000 + b"new weights " * 1500
LABELS = b"off\non\n"


def described(path: str, content: bytes, **more: str) -> dict[str, object]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"path": path, "sha256": sha256, "size": len(content), **more}


def patched(
    folder: Path, old: bytes = OLD, new: bytes = NEW, cache: Path | None = None
) -> RuntimeSettings:
    """A patch release of three files: one by a patch, one unchanged, one whole."""
    anchor, place = "azureml-models/fan/1", folder / "azureml-models" / "fan" / "2"
    for path, content in (
        (f"{anchor}/model.onnx", old),
        (f"{anchor}/labels.txt", LABELS),
        ("azureml-models/fan/2/sub/new.json", b"{}"),
        ("mlpack/patch.mlpd", make_patch(memoryview(old), memoryview(new))),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    source, patch = f"{anchor}/model.onnx", "mlpack/patch.mlpd"
    files = [
        {**described("labels.txt", LABELS), "from": f"{anchor}/labels.txt"},
        {**described("model.onnx", new), "from": source, "patch": patch},
        described("sub/new.json", b"{}"),
    ]
    document = {"name": "fan", "version": "2", "digest": "sha256:abc", "files": files}
    (folder / "mlpack.json").write_text(json.dumps(document))
    return RuntimeSettings(
        app_root=folder, model_dir=place, script=folder / "score.py", model_cache=cache
    )


def packed(folder: Path, cache: Path | None = None, *, patched: bool = False) -> RuntimeSettings:
    """A packed release of ``NEW``, or a patch release on an anchor that holds ``OLD`` packed."""
    empty, place = memoryview(b""), folder / "azureml-models" / "fan" / "2"
    made = {"mlpack/packed-1.mlpd": make_patch(empty, memoryview(OLD if patched else NEW))}
    named = {"packed": "mlpack/packed-1.mlpd"}
    if patched:
        made["mlpack/patch.mlpd"] = make_patch(memoryview(OLD), memoryview(NEW))
        named["patch"] = "mlpack/patch.mlpd"
    (folder / "mlpack").mkdir(parents=True)
    for path, content in made.items():
        (folder / path).write_bytes(content)
    document = {"name": "fan", "version": "2", "digest": "sha256:abc"}
    listed = [described("model.onnx", NEW, **named)]
    (folder / "mlpack.json").write_text(json.dumps({**document, "files": listed}))
    return RuntimeSettings(
        app_root=folder, model_dir=place, script=folder / "score.py", model_cache=cache
    )


def environ(settings: RuntimeSettings) -> dict[str, str]:
    return {
        "AML_APP_ROOT": str(settings.app_root),
        "AZUREML_MODEL_DIR": str(settings.model_dir),
        "MLPACK_HOST": "127.0.0.1",
        "PATH": os.environ["PATH"],
    }


def files(settings: RuntimeSettings) -> tuple[FileRecord, ...]:
    return read_identity(settings).files


def held(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


WHOLE = {"labels.txt": LABELS, "model.onnx": NEW, "sub/new.json": b"{}"}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder of the test's own, as TMPDIR in a container is."""
    own, before = tmp_path / "tmp", tempfile.tempdir
    own.mkdir()
    tempfile.tempdir = str(own)
    yield own
    tempfile.tempdir = before


def test_every_file_is_made_whole_in_a_temporary_folder(tmp_path: Path, temporary: Path) -> None:
    settings = patched(tmp_path / "app")
    found = rebuild(files(settings), settings)
    assert found is not None
    assert found.folder.parent == temporary
    assert held(found.folder) == WHOLE
    assert found.bytes == found.made == sum(map(len, WHOLE.values()))
    assert f"rebuilding {found.made} bytes in {found.folder}" in str(found)
    assert found.folder.stat().st_mode & 0o777 == 0o700


def test_a_release_with_the_whole_model_is_left_alone(tmp_path: Path, temporary: Path) -> None:
    settings = patched(tmp_path / "app")
    whole = [each for each in files(settings) if not each.source]
    assert rebuild(whole, settings) is None
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("on_anchor", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_a_packed_model_is_unpacked(cached: bool, on_anchor: bool, tmp_path: Path) -> None:
    cache = tmp_path / "cache" if cached else None
    settings = packed(tmp_path / "app", cache, patched=on_anchor)
    first, second = (rebuild(files(settings), settings) for _ in range(2))
    assert first is not None
    assert second is not None
    assert held(first.folder) == held(second.folder) == {"model.onnx": NEW}
    assert (first.made, second.made) == (len(NEW), 0 if cached else len(NEW))
    # The anchor's model is in memory only.
    assert f"rebuilding {len(NEW)} bytes" in str(first)


@pytest.mark.parametrize("on_anchor", [False, True])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda whole: whole[:-1], "packed-1.mlpd cannot be applied"),
        (lambda whole: b"", "packed-1.mlpd cannot be applied"),
        (None, "packed-1.mlpd cannot be read"),
        (
            lambda _: make_patch(memoryview(b""), memoryview(OLD + OLD)),
            "packed-1.mlpd (makes|holds)",
        ),
        (lambda _: make_patch(memoryview(b""), memoryview(OLD[1:] + b"?")), "makes|has sha256"),
        (lambda _: make_patch(memoryview(OLD), memoryview(NEW)), "old file has 0 bytes"),
    ],
)
def test_a_damaged_packed_model(
    damage: Callable[[bytes], bytes] | None, reason: str, on_anchor: bool, tmp_path: Path
) -> None:
    settings = packed(tmp_path / "app", patched=on_anchor)
    place = settings.app_root / "mlpack" / "packed-1.mlpd"
    if damage is None:
        place.unlink()
    else:
        place.write_bytes(damage(place.read_bytes()))
    with pytest.raises(NotServable, match=f"{reason}.*: the model is not the released one"):
        rebuild(files(settings), settings)


def test_too_little_memory_for_the_anchor(tmp_path: Path) -> None:
    settings = packed(tmp_path / "app", patched=True)
    program = (
        "import os, resource\n"
        "from mlpack.runtime.identity import read_identity\n"
        "from mlpack.runtime import patch, rebuild\n"
        "from mlpack.runtime.settings import NotServable, RuntimeSettings\n"
        "s = RuntimeSettings.read(os.environ)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 40_000,) * 2)\n"
        "try: rebuild.rebuild(read_identity(s).files, s)\n"
        "except NotServable as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ(settings), capture_output=True, text=True
    )
    assert "there is not enough memory to rebuild the model" in done.stdout, done.stderr


def test_the_module_scores_with_what_was_rebuilt(tmp_path: Path) -> None:
    old = tiny_onnx(tmp_path / "1.onnx", bias=0.5).read_bytes()
    new = tiny_onnx(tmp_path / "2.onnx", bias=0.75).read_bytes()
    settings = patched(tmp_path / "app", old, new)
    with started(settings) as module:
        answer = ask(module, "POST", "/score", b'{"data": [[0, 0, 0, 1]]}')
        assert answer.json() == {"result": [[3.75]]}
        assert os.environ["AZUREML_MODEL_DIR"] == str(module.settings.model_dir)
        assert module.identity.version == "2"


def test_a_script_finds_the_files_in_azureml_model_dir(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app")
    settings.script.write_text(
        "import os\n"
        "from pathlib import Path\n"
        "def init():\n"
        "    global content\n"
        "    content = (Path(os.environ['AZUREML_MODEL_DIR']) / 'labels.txt').read_text()\n"
        "def run(data): return content\n"
    )
    with started(settings) as module:
        assert ask(module, "POST", "/score", b"{}").json() == LABELS.decode()


def test_a_cache_keeps_it_and_is_compared_at_each_start(tmp_path: Path, temporary: Path) -> None:
    settings = patched(tmp_path / "app", cache=tmp_path / "cache")
    first, second = (rebuild(files(settings), settings) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.folder == second.folder == tmp_path / "cache" / key(files(settings))
    assert (first.made, second.made) == (first.bytes, 0)
    assert "checking" in str(second)
    assert held(first.folder) == WHOLE
    assert list(temporary.iterdir()) == []


def test_the_name_in_the_cache_is_that_of_a_list_of_sha256sum(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app", cache=tmp_path / "cache")
    found = rebuild(files(settings), settings)
    assert found is not None
    listed = subprocess.run(
        ["sha256sum", *WHOLE], cwd=found.folder, capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(listed).hexdigest() == found.folder.name


@pytest.mark.parametrize("damage", [b"", NEW[:-1], NEW[:-1] + b"?", NEW + b"?"])
def test_damage_in_the_cache_is_noticed_and_mended(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = patched(tmp_path / "app", cache=tmp_path / "cache")
    first = rebuild(files(settings), settings)
    assert first is not None
    (first.folder / "model.onnx").write_bytes(damage)
    second = rebuild(files(settings), settings)
    assert second is not None
    assert "model.onnx is damaged" in caplog.text
    assert second.made == len(NEW)
    assert held(second.folder) == WHOLE


def test_what_a_killed_container_left_in_the_cache_is_replaced(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app", cache=tmp_path / "cache")
    folder = tmp_path / "cache" / key(files(settings))
    folder.mkdir(parents=True)
    (folder / "model.onnx.part").write_bytes(b"half")
    assert rebuild(files(settings), settings) is not None
    assert held(folder) == WHOLE


def test_several_containers_share_a_cache(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app", cache=tmp_path / "cache")
    program = (
        "import os\n"
        "from mlpack.runtime.identity import read_identity\n"
        "from mlpack.runtime.rebuild import rebuild\n"
        "from mlpack.runtime.settings import RuntimeSettings\n"
        "s = RuntimeSettings.read(os.environ)\n"
        "print(rebuild(read_identity(s).files, s).made)\n"
    )
    environment = {**environ(settings), "MLPACK_MODEL_CACHE": str(settings.model_cache)}
    command = [sys.executable, "-c", program]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    made = sorted(int(each.communicate()[0]) for each in running)
    whole = sum(map(len, WHOLE.values()))
    # One of them makes it, the others wait for that and find it.
    assert made[:3] == [0, 0, 0]
    assert made[3] == whole
    assert held(tmp_path / "cache" / key(files(settings))) == WHOLE


def test_a_container_waits_for_the_one_that_fills_the_cache(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app", cache=tmp_path / "cache")
    folder = tmp_path / "cache" / key(files(settings))
    folder.mkdir(parents=True)
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    done: list[object] = []
    waiting = threading.Thread(target=lambda: done.append(rebuild(files(settings), settings)))
    waiting.start()
    waiting.join(0.3)
    assert done == []
    os.close(other)
    waiting.join(30)
    assert len(done) == 1


def test_a_cache_that_cannot_be_written_is_passed_over(
    tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    settings = patched(tmp_path / "app", cache=blocked)
    found = rebuild(files(settings), settings)
    assert found is not None
    assert found.folder.parent == temporary
    assert held(found.folder) == WHOLE
    assert f"MLPACK_MODEL_CACHE={blocked} cannot be used (Not a directory)" in caplog.text


@pytest.mark.parametrize("place", ["cache", "temporary"])
def test_no_room(
    place: str, tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", full], check=True)
    try:
        settings = patched(tmp_path / "app", cache=full if place == "cache" else None)
        if place == "cache":
            found = rebuild(files(settings), settings)
            assert found is not None
            assert found.folder.parent == temporary
            assert "cannot be used (No space left on device)" in caplog.text
            return
        tempfile.tempdir = str(full)
        with pytest.raises(NotServable, match=r"No space left.* 66009 bytes below TMPDIR"):
            rebuild(files(settings), settings)
    finally:
        subprocess.run(["umount", full], check=True)


def test_a_missing_anchor(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app")
    (settings.app_root / "azureml-models/fan/1/model.onnx").unlink()
    with pytest.raises(NotServable, match=r"fan/1/model\.onnx cannot be read .*pull the image"):
        start(settings)


def test_another_anchor(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app")
    (settings.app_root / "azureml-models/fan/1/model.onnx").write_bytes(b"!" * len(OLD))
    with pytest.raises(NotServable, match="the old file has sha256"):
        start(settings)
    (settings.app_root / "azureml-models/fan/1/model.onnx").write_bytes(b"")
    with pytest.raises(NotServable, match="the old file has 0 bytes"):
        start(settings)


def test_another_unchanged_file(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app")
    (settings.app_root / "azureml-models/fan/1/labels.txt").write_bytes(b"on\noff\n")
    with pytest.raises(NotServable, match=r"labels\.txt has sha256 .*pull the image again"):
        start(settings)


def test_every_truncation_of_the_patch_is_refused(tmp_path: Path, temporary: Path) -> None:
    settings = patched(tmp_path / "app", OLD, OLD + bytes(range(256)))
    place = settings.app_root / "mlpack" / "patch.mlpd"
    whole = place.read_bytes()
    for length in range(0, len(whole), 7):
        place.write_bytes(whole[:length])
        with pytest.raises(NotServable, match="cannot be applied"):
            rebuild(files(settings), settings)
    assert not [path for path in temporary.rglob("model.onnx*")]


def test_every_flipped_byte_of_the_patch_is_refused(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app", OLD, OLD + bytes(range(256)))
    place = settings.app_root / "mlpack" / "patch.mlpd"
    whole = place.read_bytes()
    for at in range(0, len(whole), 5):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        try:
            found = rebuild(files(settings), settings)
        except NotServable:
            continue
        # A bit that decides nothing; what was made is right all the same.
        assert found is not None
        assert (found.folder / "model.onnx").read_bytes() == OLD + bytes(range(256))


def test_a_patch_of_another_version(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app")
    other = make_patch(memoryview(OLD), memoryview(OLD + b"?"))
    (settings.app_root / "mlpack" / "patch.mlpd").write_bytes(other)
    with pytest.raises(NotServable, match=r"60001 bytes .*model\.onnx has 66000"):
        start(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from", "/etc/passwd"),
        ("from", "../up"),
        ("patch", "../up"),
        ("packed", "../up"),
        ("packed", "mlpack/packed-1.mlpd"),
        ("from", ""),
    ],
)
def test_records_that_lead_out_or_make_no_sense(name: str, value: str, tmp_path: Path) -> None:
    settings = patched(tmp_path / "app")
    document = json.loads((settings.app_root / "mlpack.json").read_text())
    document["files"][1][name] = value
    (settings.app_root / "mlpack.json").write_text(json.dumps(document))
    with pytest.raises(NotServable, match=r"mlpack\.json is not"):
        read_identity(settings)


def test_an_empty_file_is_made_of_an_empty_one(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app", b"", b"")
    found = rebuild(files(settings), settings)
    assert found is not None
    assert (found.folder / "model.onnx").read_bytes() == b""


def test_the_folder_goes_with_the_process_and_a_killed_ones_with_the_next(
    tmp_path: Path, temporary: Path
) -> None:
    models.doubled(tmp_path / "1.onnx")
    content = (tmp_path / "1.onnx").read_bytes()
    settings = patched(tmp_path / "app", content, content)
    left = temporary / f"{PREFIX}7-abcdefgh"
    left.mkdir()
    os.utime(left, (1, 1))
    young = temporary / f"{PREFIX}7-abcdefgi"
    young.mkdir()
    other_programs = temporary / f"{PREFIX}notes"
    other_programs.mkdir()
    os.utime(other_programs, (1, 1))
    inside = temporary / f"{PREFIX}7-abcdefgj"
    inside.mkdir()
    os.utime(inside, (1, 1))
    other = os.open(inside, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    program = (
        "import os; from mlpack.runtime.scoring_service import ScoringService\n"
        "from mlpack.runtime.settings import RuntimeSettings\n"
        "print(ScoringService.open(RuntimeSettings.read(os.environ)).settings.model_dir)\n"
    )
    environment = {"TMPDIR": str(temporary), **environ(settings)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    made = Path(done.stdout.strip())
    assert made.parent == temporary
    assert not made.exists()
    assert not left.exists()
    assert young.exists()
    assert other_programs.exists(), "only names that mlpack makes are its own"
    assert inside.exists()
    os.close(other)


def test_the_process_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    settings = patched(tmp_path / "app")
    (settings.app_root / "mlpack" / "patch.mlpd").write_bytes(b"MLPD")
    done = subprocess.run(
        [sys.executable, "-m", "mlpack.runtime"],
        env={"MLPACK_PORT": str(free_port()), **environ(settings)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "the patch ends in its header" in json.loads(line)["message"]
