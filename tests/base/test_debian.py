"""The Debian part: what mmdebstrap is asked, what is checked, and what of it is kept."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from mlpack.base.debian import linked, open_root
from mlpack.base.layer_files import file, symlink
from mlpack.base.mmdebstrap import (
    ArchiveMovedOn,
    DebianFailed,
    DebianRequest,
    NoMmdebstrap,
    arguments,
    check_held,
    pins,
    sources,
    unpack,
)
from mlpack.model.lock import DebianPackage
from tests.support import unavailable

LIBC = DebianPackage("libc6", "2.36-9", "amd64", "a" * 64)
REQUEST = DebianRequest(suite="bookworm", architecture="arm64", packages=("libc6", "tzdata"))


def nothing(_: int) -> None:
    """No progress."""


def test_mmdebstrap_only_unpacks_and_is_told_all_it_may_choose(tmp_path: Path) -> None:
    asked = arguments(REQUEST, tmp_path / "de bs", tmp_path / "root.tar", tmp_path / "pins")
    assert "--variant=extract" in asked
    assert "--architectures=arm64" in asked
    assert "--include=libc6,tzdata" in asked
    assert '--aptopt=APT::Install-Recommends "false"' in asked
    assert f"--extract-hook=sync-out /var/cache/apt/archives '{tmp_path}/de bs'" in asked
    assert asked[-5:-3] == ["bookworm", str(tmp_path / "root.tar")]
    assert not any("Valid-Until" in each for each in asked)


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        (
            "",
            [
                "deb http://deb.debian.org/debian bookworm main",
                "deb http://deb.debian.org/debian bookworm-updates main",
                "deb http://deb.debian.org/debian-security bookworm-security main",
            ],
        ),
        (
            "http://snapshot.debian.org/archive/debian/20261120T000000Z/",
            [
                "deb http://snapshot.debian.org/archive/debian/20261120T000000Z bookworm main",
                "deb http://snapshot.debian.org/archive/debian/20261120T000000Z "
                "bookworm-updates main",
                "deb http://snapshot.debian.org/archive/debian-security/20261120T000000Z "
                "bookworm-security main",
            ],
        ),
        (
            "http://mirror.example.com/deb",
            [
                "deb http://mirror.example.com/deb bookworm main",
                "deb http://mirror.example.com/deb bookworm-updates main",
            ],
        ),
    ],
)
def test_where_apt_looks(mirror: str, expected: list[str]) -> None:
    assert list(sources("bookworm", mirror)) == expected


def test_a_snapshot_may_be_past_its_date(tmp_path: Path) -> None:
    request = DebianRequest(
        suite="bookworm", architecture="amd64", packages=(), mirror="http://snapshot.debian.org/x"
    )
    asked = arguments(request, tmp_path, tmp_path, tmp_path)
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in asked


def test_held_versions_are_pinned() -> None:
    assert pins([LIBC]) == "Package: libc6\nPin: version 2.36-9\nPin-Priority: 1001\n"
    assert pins([]) == ""


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        (
            [DebianPackage("libc6", "2.36-10", "amd64", "b" * 64)],
            "libc6 2.36-9 for arm64, the archive libc6 2.36-10",
        ),
        ([], "libc6 2.36-9 for arm64, the archive no libc6"),
        ([LIBC, DebianPackage("tar", "1", "amd64", "c" * 64)], "no tar for arm64, the archive tar"),
        (
            [DebianPackage("libc6", "2.36-9", "amd64", "f" * 64)],
            "libc6 2.36-9 for arm64, the archive libc6 2.36-9",
        ),
    ],
    ids=["newer", "gone", "more", "rebuilt"],
)
def test_an_archive_that_moved_on_is_named_with_both_versions(
    taken: list[DebianPackage], message: str
) -> None:
    request = DebianRequest(suite="bookworm", architecture="arm64", packages=(), held=(LIBC,))
    check_held(request, [LIBC])
    with pytest.raises(ArchiveMovedOn, match=message) as caught:
        check_held(request, taken)
    assert "--upgrade" in caught.value.hint


def program(folder: Path, script: str) -> None:
    """Something called mmdebstrap."""
    path = folder / "mmdebstrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_without_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoMmdebstrap) as caught:
        unpack(REQUEST, tmp_path, nothing)
    assert "apt-get install mmdebstrap" in caught.value.hint


APT = "apt-get --yes -oDebug::pkgDpkgPm=1 -oDPkg::Tools::options::'cat >&7' install x failed"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "E: Unable to locate package libnothing\nE: Unable to locate package other",
            "Debian bookworm has no package libnothing, other",
        ),
        (
            "Package libold is not available, but is referred to by another package.\n"
            "E: Package 'libold' has no installation candidate",
            "Debian bookworm has no package libold",
        ),
        ("E: Failed to fetch http://m/x.deb  404", "mmdebstrap failed: Failed to fetch http://m"),
        ("", "mmdebstrap failed: apt download failed"),
    ],
)
def test_what_apt_said_is_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, message: str
) -> None:
    (tmp_path / "said").write_text(
        f"I: running\n{said}\nE: apt download failed: E: {APT}\nE: mmdebstrap failed to run\n"
    )
    program(tmp_path, f"cat {tmp_path}/said >&2; exit 25")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(DebianFailed) as caught:
        unpack(REQUEST, tmp_path, nothing)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "apt-get" not in str(caught.value)


def test_a_package_that_does_not_exist_really(tmp_path: Path) -> None:
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        unavailable("mmdebstrap is not installed, or this is not root")
    asked = replace(REQUEST, architecture="amd64", packages=("libc6", "libno-such-thing9"))
    place = tmp_path / "work"
    place.mkdir()
    with pytest.raises(DebianFailed) as caught:
        unpack(asked, place, nothing)
    assert str(caught.value) == "Debian bookworm has no package libno-such-thing9"
    assert "[base] packages" in caught.value.hint


def test_what_mmdebstrap_leaves_is_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended in the middle it leaves a keyring, ``$TMPDIR/mmdebstrap.gpghome.*``."""
    if os.geteuid() != 0:
        unavailable("not root")
    program(tmp_path, 'mkdir "${TMPDIR:-/tmp}/mmdebstrap.gpghome.mlpack-test"; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with tempfile.TemporaryDirectory() as name:
        with pytest.raises(DebianFailed):
            unpack(REQUEST, Path(name), nothing)
        assert [each.name for each in (Path(name) / "tmp").iterdir()] == [
            "mmdebstrap.gpghome.mlpack-test"
        ]
    assert not (Path(tempfile.gettempdir()) / "mmdebstrap.gpghome.mlpack-test").exists()


@pytest.mark.parametrize(
    "said",
    [
        "E: unable to pick chroot mode automatically (use --mode for manual selection)",
        "cannot create /home/user/tmp: Permission denied",
    ],
)
def test_without_root_the_hint_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    program(tmp_path, f"echo '{said}' >&2; exit 25")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(DebianFailed) as caught:
        unpack(REQUEST, tmp_path, nothing)
    for need in ("uidmap", "/etc/subuid", "TMPDIR"):
        assert need in caught.value.hint


def test_an_interrupt_ends_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, f"trap 'echo stopped > {tmp_path}/said; exit 1' TERM; sleep 60 & wait")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def interrupted(_: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        unpack(REQUEST, tmp_path, interrupted)
    assert (tmp_path / "said").read_text() == "stopped\n"


def root(path: Path, files: dict[str, bytes], links: dict[str, str]) -> Path:
    """A root file system as mmdebstrap writes it."""
    with tarfile.open(path, "w") as archive:
        console = tarfile.TarInfo("./dev/console")
        console.type = tarfile.CHRTYPE
        archive.addfile(console)
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode, info.mtime = len(content), 0o755, 1_700_000_000
            archive.addfile(info, io.BytesIO(content))
        for name, target in links.items():
            info = tarfile.TarInfo(f"./{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def test_what_is_kept_left_out_and_made(tmp_path: Path) -> None:
    made = open_root(
        root(
            tmp_path / "root.tar",
            {
                "usr/bin/python3.11": b"python",
                "usr/bin/dpkg": b"dpkg",
                "usr/share/man/man1/tar.1": b"manual",
                "usr/share/doc/libc6/copyright": b"GPL",
                "usr/share/ca-certificates/mozilla/B.crt": b"two\n",
                "usr/share/ca-certificates/mozilla/A.crt": b"one\n",
                "etc/resolv.conf": b"nameserver 10.1.2.3",
                "etc/hostname": b"build-host",
            },
            {"bin": "usr/bin", "lib32": "usr/lib32"},
        ),
        [{"Package": "libc6", "Version": "2.36-9", "Architecture": "amd64"}],
        frozenset(),
    )
    items = {item.path: item for item in made.items}
    assert items["etc/ssl/certs/ca-certificates.crt"].read() == b"one\ntwo\n"
    assert items["usr/bin/python3.11"].entry.mode == 0o755
    assert items["usr/bin/python3"].entry.target == "python3.11"
    assert items["bin"].entry.target == "usr/bin"
    assert b"Package: libc6\n" in items["var/lib/dpkg/status"].read()
    assert "usr/share/doc/libc6/copyright" in items
    assert items["tmp"].entry.mode == 0o1777
    gone = {"usr/bin/dpkg", "usr/share/man/man1/tar.1", "lib32", "dev/console"}
    assert not gone & set(items)
    assert not {"etc/resolv.conf", "etc/hostname"} & set(items), "nothing of the build machine"
    assert sum(each.files for each in made.dropped) == 8


def test_a_library_stays_where_something_kept_links_to_it() -> None:
    # libnss → libtirpc's link → its file: none of them by name, all by need.
    library = "usr/lib/x86_64-linux-gnu"
    items = [
        symlink(f"{library}/libtirpc.so.3", "libtirpc.so.3.0.0"),
        file(f"{library}/libtirpc.so.3.0.0", b""),
    ]
    assert linked(items, frozenset()) == frozenset()
    assert linked(items, frozenset({"libtirpc.so.3"})) == {"libtirpc.so.3", "libtirpc.so.3.0.0"}
