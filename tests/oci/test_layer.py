"""The bytes of a layer: readable by others, the same everywhere, written in flat memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import deflate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.oci import descriptor as media
from mlpack.oci import layer as layers
from mlpack.oci.descriptor import Hashing
from mlpack.oci.image import Layer
from mlpack.oci.layer import ContentChanged, Entry, header, write_layer
from tests.oci.test_tree import PATHS
from tests.support import contents, repeats

CHECKOUT = Path(__file__).resolve().parents[2]


def write(files: dict[str, bytes], *more: Entry) -> tuple[Layer, bytes]:
    entries, open_file = contents(files)
    out = io.BytesIO()
    layer = write_layer([*entries, *more], open_file, Hashing(out))  # type: ignore[arg-type]
    return layer, out.getvalue()


def members(blob: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as archive:
        return {member.name: member for member in archive.getmembers()}


def test_the_names_are_those_of_the_bytes() -> None:
    layer, blob = write({"a/b.txt": b"hello"})
    assert layer.digest.hex == hashlib.sha256(blob).hexdigest()
    assert layer.size == len(blob)
    assert layer.diff_id.hex == hashlib.sha256(gzip.decompress(blob)).hexdigest()
    assert layer.descriptor.media_type == media.LAYER_GZIP


@settings(max_examples=repeats(25, 50))
@given(st.dictionaries(PATHS, st.binary(max_size=600), max_size=5))
def test_tarfile_reads_what_we_write(files: dict[str, bytes]) -> None:
    files = {p: c for p, c in files.items() if not any(o.startswith(p + "/") for o in files)}
    _, blob = write(files)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob)), errorlevel=2) as archive:
        read = {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if member.isfile()
        }
    assert read == files


def test_gnu_tar_reads_long_foreign_and_linked_names(tmp_path: Path) -> None:
    long, split = "d" * 90 + "/" + "f" * 120, "p" * 120 + "/" + "n" * 90
    files = {long: b"1", split: b"2", "größe/ü": b"3", "target": b"4"}
    links = [
        Entry("link", "symlink", target="/" + "t" * 150),
        Entry("hard", "hardlink", target="target"),
    ]
    _, blob = write(files, *links)
    (tmp_path / "l.tgz").write_bytes(blob)
    subprocess.run(["tar", "-xzf", "l.tgz"], cwd=tmp_path, check=True)
    for name, content in files.items():
        assert (tmp_path / name).read_bytes() == content
    assert str((tmp_path / "link").readlink()) == "/" + "t" * 150
    assert (tmp_path / "hard").samefile(tmp_path / "target")


def test_a_size_beyond_the_octal_field_is_a_pax_record() -> None:
    huge = Entry("model.bin", size=9 * 1024**3)
    with tarfile.open(fileobj=io.BytesIO(header(huge))) as archive:
        member = archive.next()
    assert member is not None
    assert member.size == huge.size


def test_nothing_of_the_machine_is_in_the_headers() -> None:
    _, blob = write({"a/b": b"x"})
    for member in members(blob).values():
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == 0
    assert blob[:10] == bytes.fromhex("1f8b08000000000002ff"), "no name, time 0, system unknown"


GOLDEN = {
    "small": "sha256:001dc9b859d37d1da119cde337566a3f52ac5fc3de5058b16b51c5460019d262",
    "large": "sha256:8b9efd7ee2ee0531e2ceaf4d646ed4d68d8bd8fafdf3e88543a08d910c35daaa",
}
"""Blob digests of `golden_layers`. If one changes, raise PACKING.revision: every base and
release built before would get another name."""

SCRIPT = """
import io, random, sys
from contextlib import contextmanager
from mlpack.oci.descriptor import Hashing
from mlpack.oci.layer import write_layer
from mlpack.oci.layer import Entry

noise = random.Random(7)
FILES = {
    "small": {"app/model.bin": noise.randbytes(6000), "app/score.py": b"def run(): ...\\n" * 40},
    "large": {"usr/lib/words": b" ".join(b"%d" % n for n in range(2_500_000))},
}
for name, files in FILES.items():
    @contextmanager
    def open_file(path, files=files):
        yield io.BytesIO(files[path])
    entries = [Entry(path, size=len(files[path])) for path in files]
    layer = write_layer(entries, open_file, Hashing(io.BytesIO()))
    print(name, layer.digest)
"""


def interpreters() -> list[str]:
    """Every supported Python on this machine that starts, each once."""
    places = [Path("/usr/bin"), *Path.home().glob(".pyenv/versions/*/bin")]
    found = [place / f"python3.{minor}" for place in places for minor in (11, 12, 13)]
    return sorted({sys.executable, *(str(path) for path in found if path.is_file())})


@pytest.mark.parametrize("python", interpreters())
def test_every_python_writes_the_golden_digests(python: str, tmp_path: Path) -> None:
    # The compressor is one abi3 wheel, so other interpreters can load this one's.
    (tmp_path / "deflate").symlink_to(Path(deflate.__file__).parent)
    done = subprocess.run(
        [python, "-c", SCRIPT],
        env={
            "PYTHONPATH": f"{CHECKOUT}:{tmp_path}",
            "PYTHONHASHSEED": "random",
            "TZ": "Asia/Tokyo",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(line.split() for line in done.stdout.splitlines()) == GOLDEN


def test_the_recorded_compressor_is_the_installed_one() -> None:
    assert layers.PACKING.compressor == f"deflate {version('deflate')}"


def test_noise_is_stored_and_text_is_not() -> None:
    noise = random.Random(1).randbytes(5 * 1024 * 1024)
    layer, blob = write({"weights.bin": noise})
    assert layer.descriptor.media_type == media.LAYER_TAR
    assert layer.digest == layer.diff_id
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        assert archive.getnames() == ["weights.bin"]
    text = b"weights " * (5 * 1024 * 1024 // 8)
    layer, blob = write({"weights.txt": text})
    assert layer.descriptor.media_type == media.LAYER_GZIP
    assert len(blob) < len(text) // 20


def test_members_of_a_large_layer_read_as_one_stream(tmp_path: Path) -> None:
    text = b" ".join(b"%d" % number for number in range(3_500_000))
    assert len(text) > 3 * layers.MEMBER
    _, blob = write({"a": text})
    assert blob.count(blob[:10]) >= 4
    (tmp_path / "l.tgz").write_bytes(blob)
    subprocess.run(["tar", "-xzf", "l.tgz"], cwd=tmp_path, check=True)
    assert (tmp_path / "a").read_bytes() == text


@pytest.mark.parametrize("size", [4, 6])
def test_a_file_that_changes_while_it_is_read_is_noticed(size: int) -> None:
    @contextmanager
    def open_file(path: str) -> Iterator[BinaryIO]:
        yield io.BytesIO(b"12345")

    with pytest.raises(ContentChanged, match=f"is not the {size} bytes"):
        write_layer([Entry("a", size=size)], open_file, Hashing(io.BytesIO()))


@pytest.mark.slow
def test_gigabytes_pass_in_flat_memory() -> None:
    total = repeats(2**29, 2**31)
    # Half noise, half text: the level is for what compresses, so all of it goes through deflate.
    script = """
import io, random, sys
from pathlib import Path
from contextlib import contextmanager
from mlpack.oci.descriptor import Hashing
from mlpack.oci.layer import write_layer
from mlpack.oci.layer import Entry

SIZE = int(sys.argv[1])
noise = random.Random(1).randbytes(1024 * 1024)

class Endless(io.RawIOBase):
    at = 0
    def seek(self, place, whence=0):
        self.at = place
        return place
    def read(self, count=-1):
        count = min(count, SIZE - self.at)
        half = self.at // len(noise) % 2
        self.at += count
        return (noise if half else bytes(len(noise)))[:count]

class Nothing:
    def write(self, data):
        return len(data)

@contextmanager
def open_file(path):
    yield Endless()

layer = write_layer([Entry("model.bin", size=SIZE)], open_file, Hashing(Nothing()))
status = Path("/proc/self/status").read_text()
peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
print(layer.descriptor.media_type, layer.size, peak)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(total)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    kind, size, peak = done.stdout.split()
    assert kind == media.LAYER_GZIP
    assert int(size) > total // 2
    assert int(peak) * 1024 < 150_000_000, f"peak memory {int(peak) // 1024} MiB"
