"""Layers read into trees: what mlpack writes, what others write, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import py_compile
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import cache_from_source
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.difference import difference
from mlpack.oci.filesystem import BrokenLayer, FileNode, Tree
from mlpack.oci.image import ImageConfig, Layer, build_image
from mlpack.oci.layer import write_arranged
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import Corrupt, StagingStore, put_image
from mlpack.stores.trees import LayerLimits, LayerTooLarge, copy_contents, read_tree
from tests.doubles.memory_store import MemoryStore
from tests.oci.trees import BY_DIGEST, file, pairs
from tests.support import AMD64, repeats, unavailable

BY_TIME = py_compile.PycInvalidationMode.TIMESTAMP


def write_tree(store: StagingStore, old: Tree, new: Tree) -> Layer:
    """Write the layer that turns ``old`` into ``new``."""

    @contextmanager
    def open_file(path: str) -> Iterator[BinaryIO]:
        yield io.BytesIO(BY_DIGEST[new[path].content])

    with store.stage() as out:
        made = write_arranged(difference(old, new).entries, open_file, out)
        out.commit(made.descriptor)
    return made


def keep(store: MemoryStore, blob: bytes, diff: bytes | None = None) -> Layer:
    """A layer of somebody else's bytes; ``diff`` is its tar where it is compressed."""
    target = Descriptor.of(blob, media.LAYER_GZIP)
    store.put(target, io.BytesIO(blob))
    return Layer(target, Digest.of(blob if diff is None else diff))


def tar(*members: tuple[str, Mapping[str, object], bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of members as ``tarfile`` writes it: name, header fields, content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, fields, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in fields.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


@settings(max_examples=repeats(30, 150))
@given(pairs())
def test_what_is_written_is_read_back(
    both: tuple[dict[str, FileNode], dict[str, FileNode]],
) -> None:
    old, new = both
    store = MemoryStore()
    layers = [write_tree(store, {}, old), write_tree(store, old, new)]
    below = read_tree(store, layers[:1])
    assert below.tree == old
    assert read_tree(store, layers[1:], below).tree == new
    assert read_tree(store, layers).tree == new


def test_the_time_of_a_source_in_what_was_compiled_is_no_difference(tmp_path: Path) -> None:
    head = b"\xa7\r\r\n" + bytes(4)
    made = [head + stamp + b"size code" for stamp in (b"aaaa", b"bbbb", bytes(4))]
    hashed = b"\xa7\r\r\n\1\0\0\0" + b"aaaabbbb code"
    store = MemoryStore()
    for content, expected in [(made[0], made[2]), (made[1], made[2]), (hashed, hashed)]:
        layer = keep(store, tar(("m.pyc", {}, content)))
        pile = read_tree(store, [layer])
        node = pile.tree["m.pyc"]
        assert node.content == Digest.of(expected)
        assert node.time_cleared is (content is not hashed)
        copy_contents(pile, ["m.pyc"], tmp_path)
        assert (tmp_path / Digest.of(expected).hex).read_bytes() == expected


def test_python_takes_what_was_compiled_beside_a_source_of_time_zero(tmp_path: Path) -> None:
    source, other = tmp_path / "m.py", tmp_path / "other.py"
    other.write_text("v = 2")
    compiled = Path(py_compile.compile(str(other), invalidation_mode=BY_TIME, doraise=True) or "")
    store = MemoryStore()
    pile = read_tree(store, [keep(store, tar(("m.pyc", {}, compiled.read_bytes())))])
    copy_contents(pile, ["m.pyc"], tmp_path)
    (made,) = tmp_path.glob("?" * 64)
    # The source says something else in as many bytes: only what was compiled can say 2.
    made.rename(cache_from_source(str(source)))
    source.write_text("v = 1")
    os.utime(source, (0, 0))
    command = [sys.executable, "-c", "import m; print(m.v)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_and_owners_of_other_tools(kind: int) -> None:
    long = "d" * 120 + "/" + "f" * 120
    store = MemoryStore()
    content = tar(
        ("./", {"type": tarfile.DIRTYPE}, b""),
        ("/abs/./x", {"uid": 70_000, "gid": 5, "mode": 0o4755}, b"1"),
        (long, {}, b"2"),
        ("h", {"type": tarfile.LNKTYPE, "linkname": "./abs/x", "uid": 1}, b""),
        ("caf\udce9", {}, b"3"),
        ("s", {"type": tarfile.SYMTYPE, "linkname": "../" * 50 + "x"}, b""),
        ("c", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, b""),
        (".wh..wh.plnk/1", {}, b"aufs"),
        kind=kind,
    )
    tree = read_tree(store, [keep(store, content)]).tree
    assert set(tree) >= {"abs/x", long, "h", "caf\udce9", "s", "c"}
    assert tree["abs/x"] == tree["h"]
    assert (tree["h"].uid, tree["h"].first) == (1, "abs/x")
    assert tree["s"].target == "../" * 50 + "x"
    assert tree["c"].device == (1, 3)
    assert not any("wh." in path for path in tree)


def compressed(with_program: str) -> Callable[[bytes], bytes]:
    def compress(content: bytes) -> bytes:
        if shutil.which(with_program) is None:
            unavailable(f"{with_program} is not installed")
        done = subprocess.run([with_program, "-c"], input=content, capture_output=True, check=True)
        return done.stdout

    return compress


@pytest.mark.parametrize("program", ["gzip", "zstd"])
def test_compression_is_told_by_the_bytes(program: str) -> None:
    content = tar(("x", {}, b"1" * 5_000_000))
    store = MemoryStore()
    layer = keep(store, compressed(program)(content), content)
    assert read_tree(store, [layer]).tree == {"x": file(b"1" * 5_000_000)}


@pytest.mark.parametrize(
    "blob",
    [b"", bytes(10240), *(gzip.compress(each, mtime=0) for each in (b"", bytes(1024)))],
    ids=["no byte", "zeros", "gzip of no byte", "gzip of zeros"],
)
def test_a_layer_without_files_changes_nothing(blob: bytes) -> None:
    store = MemoryStore()
    below = keep(store, tar(("x", {}, b"1")))
    empty = keep(store, blob, gzip.decompress(blob) if blob[:2] == b"\x1f\x8b" else blob)
    assert read_tree(store, [below, empty, below, empty]).tree == {"x": file(b"1")}
    with pytest.raises(Corrupt, match="holds another tar"):
        read_tree(store, [below, replace(empty, diff_id=below.diff_id)])


def test_sparse_files_of_gnu_tar(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as out:
        out.seek(3_000_000)
        out.write(b"end")
    command = ["tar", "-C", str(tmp_path), "-cSf", "-", "hole"]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(content) < 100_000
    store = MemoryStore()
    node = read_tree(store, [keep(store, content)]).tree["hole"]
    assert (node.size, node.content) == (3_000_003, Digest.of(bytes(3_000_000) + b"end"))


HOSTILE: dict[str, tuple[bytes, type[MlpackError], str]] = {
    "out of the image": (tar(("a/../../etc/passwd", {}, b"x")), BrokenLayer, "leads out"),
    "a link out of the image": (
        tar(("a", {"type": tarfile.LNKTYPE, "linkname": "../x"}, b"")),
        BrokenLayer,
        "leads out",
    ),
    "a deletion as overlayfs keeps it": (
        tar(("a", {"type": tarfile.CHRTYPE}, b"")),
        BrokenLayer,
        "0:0",
    ),
    "a kind nobody knows": (tar(("a", {"type": b"Z"}, b"")), BrokenLayer, "no engine unpacks"),
    "an endless name": (tar(("a/" * 3000, {}, b"")), BrokenLayer, "not a valid path"),
    "an owner nobody can be": (tar(("a", {"uid": 2**32}, b"")), BrokenLayer, "invalid owner"),
    "a negative owner": (
        tar(("a", {"gid": -1}, b""), kind=tarfile.GNU_FORMAT),
        BrokenLayer,
        "invalid owner",
    ),
    "half a tar": (tar(("a", {}, b"x" * 5000))[:3000], Corrupt, "unexpected end"),
    "a broken header": (
        tar(("a", {}, b"x"))[:1024] + b"rubbish".ljust(512, b"!"),
        BrokenLayer,
        "broken tar header",
    ),
    "no tar": (b"hello" * 200, Corrupt, "a readable tar"),
    "half a gzip": (
        gzip.compress(tar(("a", {}, os.urandom(9000))))[:4000],
        Corrupt,
        "a readable tar",
    ),
    "half a zstandard": (b"\x28\xb5\x2f\xfd" + b"x" * 100, Corrupt, "a readable tar"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_layers_are_refused(case: str) -> None:
    blob, error, said = HOSTILE[case]
    store = MemoryStore()
    with pytest.raises(error, match=said):
        read_tree(store, [keep(store, blob)])


def extending(count: int) -> bytes:
    """Pax headers that extend each other."""
    one = tar(("a", {"pax_headers": {"comment": "x"}}, b""))[:1024]
    return one * count


def test_headers_upon_headers_are_refused() -> None:
    store = MemoryStore()
    with pytest.raises(Corrupt, match="a readable tar"):
        read_tree(store, [keep(store, extending(5000))])


def test_a_header_of_gigabytes_is_not_read() -> None:
    blob = bytearray(extending(1)[:512])
    blob[124:136] = b"%011o\0" % (2**32)
    blob[148:156] = b" " * 8
    blob[148:156] = b"%06o\0 " % sum(blob)
    store = MemoryStore()
    with pytest.raises(LayerTooLarge, match="header of"):
        read_tree(store, [keep(store, bytes(blob))])


def test_a_gzip_bomb_is_given_up_early() -> None:
    content = tar(("zeros", {}, bytes(40_000_000)))
    blob = gzip.compress(content)
    assert len(blob) * 200 < len(content)
    store = MemoryStore()
    layer = keep(store, blob, content)
    with pytest.raises(LayerTooLarge, match="unpacks to more than"):
        read_tree(store, [layer], limits=LayerLimits(trusted=1_000_000))
    with pytest.raises(LayerTooLarge, match="unpacks to more than 1000000"):
        read_tree(store, [layer], limits=LayerLimits(bytes=1_000_000))
    assert read_tree(store, [layer]).tree["zeros"].size == 40_000_000


def test_too_many_files_are_refused() -> None:
    store = MemoryStore()
    layer = keep(store, tar(*((f"{n}", {}, b"") for n in range(20))))
    with pytest.raises(LayerTooLarge, match="more than 10 files"):
        read_tree(store, [layer], limits=LayerLimits(members=10))


def test_other_bytes_than_the_digests_say_are_refused() -> None:
    store = MemoryStore()
    content = tar(("a", {}, b"x"))
    with pytest.raises(Corrupt, match="holds another tar"):
        read_tree(store, [keep(store, gzip.compress(content), b"another")])
    layer = keep(store, content)
    wrong = replace(layer.descriptor, digest=Digest.of(b"wrong"))
    store._blobs[wrong.digest] = content
    with pytest.raises(Corrupt, match="holds other bytes"):
        read_tree(store, [Layer(wrong, layer.diff_id)])


def on_disk(root: Path) -> dict[str, FileNode]:
    """What somebody else unpacked, as a tree."""
    found: dict[str, FileNode] = {}
    inodes: dict[int, list[str]] = {}
    # overlayfs lists the whiteouts of a directory in whose place there was a symlink.
    for path in (each for each in sorted(root.rglob("*")) if os.path.lexists(each)):
        name, status = str(path.relative_to(root)), path.lstat()
        found[name] = _found(path, status)
        if not stat.S_ISDIR(status.st_mode):
            inodes.setdefault(status.st_ino, []).append(name)
    for names in (sorted(each) for each in inodes.values()):
        if len(names) > 1:
            found.update((name, replace(found[name], first=names[0])) for name in names)
    return found


def _found(path: Path, status: os.stat_result) -> FileNode:
    mode = stat.S_IMODE(status.st_mode)
    attributes = {} if path.is_symlink() else _attributes(path)
    kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}.get(
        stat.S_IFMT(status.st_mode), "file"
    )
    content = path.read_bytes() if kind == "file" else b""
    return FileNode(
        kind=kind,  # type: ignore[arg-type]
        mode=mode,
        uid=status.st_uid,
        gid=status.st_gid,
        xattrs=tuple(sorted(attributes.items())),
        size=len(content),
        content=Digest(hashlib.sha256(content).hexdigest()) if kind == "file" else None,
        target=str(path.readlink()) if kind == "symlink" else "",
    )


def _attributes(path: Path) -> dict[str, bytes]:
    names: Iterable[str] = os.listxattr(path)
    return {name: os.getxattr(path, name) for name in names if name.startswith("user.")}


@settings(max_examples=repeats(15, 40))
@given(pairs())
def test_umoci_unpacks_the_same_tree(
    tmp_path_factory: pytest.TempPathFactory,
    both: tuple[dict[str, FileNode], dict[str, FileNode]],
) -> None:
    if shutil.which("umoci") is None or os.geteuid() != 0:
        unavailable("umoci is not installed, or this is not root")
    old, new = both
    root = tmp_path_factory.mktemp("umoci")
    store = LayoutStore(root / "oci")
    layers = [write_tree(store, {}, old), write_tree(store, old, new)]
    store.tag(put_image(store, build_image(ImageConfig(platform=AMD64), layers)), "it")
    command = ["umoci", "unpack", "--image", f"{store.root}:it", str(root / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert on_disk(root / "bundle" / "rootfs") == new
    shutil.rmtree(root)
