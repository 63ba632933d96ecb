"""What of the installed packages goes into a base, and what of the Debian part."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpack.base.prune_rules import DEBIAN, PACKAGES, rule_for, rules_digest
from mlpack.base.python import collect
from tests.base.doubles import elf

PLACE = "opt/mlpack"


def install(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def test_packages_are_collected_with_what_they_link_to(tmp_path: Path) -> None:
    native = elf(("libm.so.6",), debug=b"d" * 5000)
    part = collect(
        install(
            tmp_path,
            {
                "a/__init__.py": b"x = 1\n",
                "a/native.so": native,
                "a-1.dist-info/METADATA": b"Name: a\n\nLong.\n",
                "a-1.dist-info/licenses/LICENSE": b"free\n",
                "a-1.dist-info/RECORD": b"",
                "a/__pycache__/x.pyc": b"",
                "bin/a": b"#!/usr/bin/python\n",
            },
        ),
        PLACE,
    )
    found = {item.path: item.read() for item in part.items}
    assert found[f"{PLACE}/a/__init__.py"] == b"x = 1\n"
    assert found[f"{PLACE}/a-1.dist-info/METADATA"] == b"Name: a\n"
    assert found[f"{PLACE}/a-1.dist-info/licenses/LICENSE"] == b"free\n"
    assert len(found[f"{PLACE}/a/native.so"]) < 500
    assert len(found) == 4
    assert part.needs == {f"{PLACE}/a/native.so": ("libm.so.6",)}
    assert part.needed == {"libm.so.6"}
    assert sum(each.files for each in part.dropped) == 3


def test_a_stub_that_is_read_at_run_time_stays(tmp_path: Path) -> None:
    part = collect(
        install(
            tmp_path,
            {
                "a/__init__.py": b"__getattr__ = lazy.attach_stub(__name__, __file__)\n",
                "a/__init__.pyi": b"from .b import c\n",
                "a/b.py": b"c = 1\n",
                "a/b.pyi": b"c: int\n",
            },
        ),
        PLACE,
    )
    assert {item.path for item in part.items} == {
        f"{PLACE}/a/__init__.py",
        f"{PLACE}/a/__init__.pyi",
        f"{PLACE}/a/b.py",
    }


def test_it_stops_when_told(tmp_path: Path) -> None:
    def stop(count: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        collect(install(tmp_path, {"a.py": b""}), PLACE, stop)


def test_the_order_on_disk_does_not_matter(tmp_path: Path) -> None:
    names = ["b/x.py", "a/x.py", "c.py", "a/b/c.py"]
    one = install(tmp_path / "one", {name: b"" for name in names})
    two = install(tmp_path / "two", {name: b"" for name in reversed(names)})
    paths = [[item.path for item in collect(root, PLACE).items] for root in (one, two)]
    assert paths[0] == paths[1]


@pytest.mark.parametrize(
    "path",
    [
        "numpy/__init__.py",
        "numpy/testing/__init__.py",
        "numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so",
        "numpy.libs/libscipy_openblas64_-1.so",
        "numpy/lib/npyio.py",
        "onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so",
        "onnxruntime/capi/onnxruntime_inference_collection.py",
        "onnxruntime/ThirdPartyNotices.txt",
        "onnxruntime/LICENSE",
        "zstandard/backend_c.cpython-311-x86_64-linux-gnu.so",
        "mine/tests/data.json",
        "mine/tools/run.py",
        "a-1.dist-info/METADATA",
        "a-1.dist-info/entry_points.txt",
        "a-1.dist-info/licenses/LICENSE",
        "share/data/table.bin",
    ],
)
def test_what_packages_need_stays(path: str) -> None:
    assert rule_for(PACKAGES, path) is None


@pytest.mark.parametrize(
    "path",
    [
        "numpy/_core/tests/test_umath.py",
        "numpy/tests/test_ctypeslib.py",
        "pandas/tests/io/test_csv.py",
        "numpy/f2py/crackfortran.py",
        "numpy/_core/include/numpy/arrayobject.h",
        "numpy/random/lib/libnpyrandom.a",
        "numpy/__init__.pyi",
        "onnxruntime/transformers/optimizer.py",
        "onnxruntime/capi/libonnxruntime.so.1.31.1",
        "zstandard/_cffi.cpython-311-x86_64-linux-gnu.so",
        "bin/f2py",
        "a-1.dist-info/RECORD",
        "a/__pycache__/b.cpython-311.pyc",
    ],
)
def test_what_no_device_reads_goes(path: str) -> None:
    assert rule_for(PACKAGES, path) is not None


@pytest.mark.parametrize(
    "path",
    [
        # What applies a patch reads parts that bzip2 and LZMA packed.
        "usr/lib/python3.11/lib-dynload/_bz2.cpython-311-x86_64-linux-gnu.so",
        "usr/lib/python3.11/lib-dynload/_lzma.cpython-311-x86_64-linux-gnu.so",
        "usr/lib/python3.11/bz2.py",
        "usr/lib/python3.11/lzma.py",
        "usr/lib/python3.11/_compression.py",
        "usr/lib/x86_64-linux-gnu/libbz2.so.1.0",
        "usr/lib/x86_64-linux-gnu/liblzma.so.5.4.1",
        "usr/bin/python3.11",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30",
        "usr/lib/x86_64-linux-gnu/libsqlite3.so.0.8.6",
        "usr/lib/x86_64-linux-gnu/libnss_dns.so.2",
        "usr/lib/python3.11/asyncio/runners.py",
        "usr/lib/python3.11/unittest/mock.py",
        "usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so",
        "usr/lib/python3.11/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so",
        "usr/share/zoneinfo/Europe/Berlin",
        "usr/share/doc/libc6/copyright",
        "etc/services",
        "etc/os-release",
        "usr/lib/os-release",
    ],
)
def test_what_a_server_needs_stays(path: str) -> None:
    assert rule_for(DEBIAN, path) is None


@pytest.mark.parametrize(
    "path",
    [
        "usr/share/doc/libc6/changelog.Debian.gz",
        "usr/share/man/man1/python3.11.1.gz",
        "usr/lib/x86_64-linux-gnu/gconv/libCNS.so",
        "usr/lib/python3.11/pydoc_data/topics.py",
        "usr/lib/python3.11/lib-dynload/_curses.cpython-311-x86_64-linux-gnu.so",
        "usr/share/zoneinfo/right/Europe/Berlin",
        "usr/share/ca-certificates/mozilla/A.crt",
        "var/lib/dpkg/info/libc6.list",
        "etc/apt/sources.list",
    ],
)
def test_what_no_server_reads_goes(path: str) -> None:
    assert rule_for(DEBIAN, path) is not None


def test_a_library_stays_where_something_is_linked_to_it() -> None:
    path = "usr/lib/x86_64-linux-gnu/libmvec.so.1"
    assert rule_for(DEBIAN, path) is not None
    assert rule_for(DEBIAN, path, frozenset({"libmvec.so.1"})) is None


def test_every_rule_has_a_reason_of_its_own() -> None:
    reasons = [rule.why for rule in (*DEBIAN, *PACKAGES)]
    assert len(set(reasons)) == len(reasons)
    assert all(reasons)
    assert rules_digest() == rules_digest()
