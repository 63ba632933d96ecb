"""The Debian part of a base: packages opened as ``mmdebstrap --variant=extract`` opens them.

No maintainer script runs, so arm64 is made on amd64 without an emulator; the
few files such scripts would have written are made here. mmdebstrap itself is
not used: it needs root or user namespaces and a Debian host, and takes today's
versions, where a lock asks for the same ones again. A test compares the two.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpack.base.archive import Archive
from mlpack.base.deb import Member, control, members
from mlpack.base.elf import MAGIC, shrink
from mlpack.base.items import Item, file, folder, symlink, text
from mlpack.base.packages import Package, closure
from mlpack.base.rules import DEBIAN, Dropped, rule_for
from mlpack.errors import MlpackError
from mlpack.model.lock import DebianPackage
from mlpack.oci.tree import Entry

MINIMUM = (
    "base-files",
    "ca-certificates",
    "libc6",
    "libpython3.11-stdlib",
    "libstdc++6",
    "media-types",
    "netbase",
    "python3.11-minimal",
    "tzdata",
)
"""What a Python server with native wheels needs; their own needs are added."""

LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    # Tools for maintainer scripts, which never run.
    "*": ("awk", "debconf", "dpkg", "perl-base"),
    # The certificates are put together here, not by update-ca-certificates.
    "ca-certificates": ("openssl",),
    # For dbm.ndbm, curses, readline and nis, which the rules leave out.
    "libpython3.11-stdlib": (
        *("libdb5.3", "libncursesw6", "libnsl2", "libreadline8", "libtinfo6", "libtirpc3"),
    ),
}

USER = 65532
"""The user that releases run as; not root, and not a number hosts give to people."""

SUITES = ("bookworm",)

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_CERTIFICATES = "usr/share/ca-certificates/mozilla/"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_PYTHON = "usr/bin/python3.11"


class UnknownSuite(MlpackError):
    """A Debian release that no base was tried on."""

    hint = 'set [base] from = "debian:bookworm", or name an image ("oci:PATH")'


@dataclass(frozen=True)
class DebianPart:
    """The files of the Debian layer, and what was left out."""

    items: tuple[Item, ...]
    dropped: tuple[Dropped, ...]


def check_suite(name: str) -> str:
    """``name`` where it is a release this module knows; else :class:`UnknownSuite`."""
    if name not in SUITES:
        raise UnknownSuite(f"debian:{name} is not a base mlpack can make ({', '.join(SUITES)})")
    return name


def resolve(
    archive: Archive,
    architecture: str,
    extra: Collection[str],
    held: Mapping[str, str],
) -> tuple[Package, ...]:
    """Choose the packages of the base: the minimum, ``extra``, and what they need.

    ``held`` are versions to keep where the archive still offers them.
    """
    offered = archive.packages(architecture)
    return closure((*MINIMUM, *extra), offered.candidates, left_out=LEFT_OUT, held=held)


def lock(package: Package) -> DebianPackage:
    """What of ``package`` the lock holds."""
    return DebianPackage(package.name, package.version, package.architecture, package.sha256)


def open_packages(debs: Sequence[Path], needed: frozenset[str]) -> DebianPart:
    """Open ``debs`` and keep what the rules keep; ``needed`` are libraries the wheels link to."""
    kept: dict[str, Item] = {}
    certificates: dict[str, bytes] = {}
    counted: dict[str, Dropped] = {}
    for path in debs:
        for member in members(path):
            place = merged(member.path)
            if place.startswith(_CERTIFICATES) and member.kind == "file":
                certificates[place] = member.content
            rule = rule_for(DEBIAN, place, needed)
            if rule is None:
                kept[place] = _item(place, member)
            else:
                before = counted.get(rule.why, Dropped(rule.why, 0, 0))
                counted[rule.why] = Dropped(
                    rule.why, before.files + 1, before.bytes + len(member.content)
                )
    for made in _made(kept, certificates, [control(path) for path in debs]):
        kept.setdefault(made.path, made)
    return DebianPart(tuple(kept.values()), tuple(counted.values()))


def merged(path: str) -> str:
    """Where a file lies once ``/bin``, ``/lib`` and the like are links into ``/usr``.

    >>> merged("lib/x86_64-linux-gnu/libc.so.6"), merged("etc/services")
    ('usr/lib/x86_64-linux-gnu/libc.so.6', 'etc/services')
    """
    return f"usr/{path}" if path.split("/", 1)[0] in _MERGED else path


def _item(place: str, member: Member) -> Item:
    if member.kind == "symlink":
        return symlink(place, _retarget(member.path, place, member.target))
    if member.kind == "hardlink":
        return Item(Entry(place, "hardlink", member.mode, target=merged(member.target)))
    content = shrink(member.content) if member.content.startswith(MAGIC) else member.content
    return file(place, content, member.mode)


def _retarget(path: str, place: str, target: str) -> str:
    """A relative link keeps pointing at the same file after its directory moved."""
    if path == place or target.startswith("/"):
        return target
    meant = merged(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))
    return posixpath.relpath(meant, posixpath.dirname(place))


def _made(
    kept: Mapping[str, Item],
    certificates: Mapping[str, bytes],
    packages: Iterable[Mapping[str, str]],
) -> Iterator[Item]:
    """What maintainer scripts and the merge of ``/usr`` would have made."""
    if _PYTHON not in kept:
        raise MlpackError(f"the Debian packages hold no /{_PYTHON}")
    for name in _MERGED:
        if any(path.startswith(f"usr/{name}/") for path in kept):
            yield symlink(name, f"usr/{name}")
    yield symlink("usr/bin/python3", "python3.11")
    yield symlink("usr/bin/python", "python3")
    yield file(_BUNDLE, b"".join(certificates[name] for name in sorted(certificates)))
    # OpenSSL looks below /usr/lib/ssl, where the package openssl has these links.
    yield symlink("usr/lib/ssl/cert.pem", f"/{_BUNDLE}")
    yield symlink("usr/lib/ssl/certs", "/etc/ssl/certs")
    yield text(
        "etc/passwd",
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        f"mlpack:x:{USER}:{USER}:mlpack:/tmp:/usr/sbin/nologin\n",
    )
    yield text("etc/group", f"root:x:0:\nnogroup:x:65534:\nmlpack:x:{USER}:\n")
    yield text(
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    )
    yield text("var/lib/dpkg/status", _status(packages))
    for name in ("dev", "proc", "run", "sys", "root", "home"):
        yield folder(name)
    for name in ("tmp", "var/tmp"):
        yield folder(name, 0o1777)


def _status(packages: Iterable[Mapping[str, str]]) -> str:
    """A package database for vulnerability scanners, which know an image by nothing else."""
    listed = sorted(packages, key=lambda each: each["Package"])
    fields = ("Package", "Architecture", "Source", "Version", "Maintainer")
    return "\n".join(
        "Status: install ok installed\n"
        + "".join(f"{field}: {each[field]}\n" for field in fields if field in each)
        for each in listed
    )
