"""The Debian part of a base: what of the unpacked packages a device needs.

No maintainer script runs (:mod:`mlpack.base.mmdebstrap`), so the few files such
scripts would have written are made here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpack.base.elf import MAGIC, needs, shrink
from mlpack.base.items import Item, file, folder, symlink, text
from mlpack.base.mmdebstrap import entries
from mlpack.base.rules import DEBIAN, Dropped, rule_for
from mlpack.errors import MlpackError
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


def open_root(root: Path, about: Iterable[Mapping[str, str]], needed: frozenset[str]) -> DebianPart:
    """What the rules keep of the root file system in the tar ``root``.

    ``about`` is what its packages say of themselves, ``needed`` the libraries that
    the wheels above link to.
    """
    found = {item.path: item for item in _items(root)}
    needed = linked(found.values(), needed)
    kept: dict[str, Item] = {}
    counted: dict[str, Dropped] = {}
    for path, item in found.items():
        rule = rule_for(DEBIAN, path, needed)
        if rule is None:
            kept[path] = item
        else:
            before = counted.get(rule.why, Dropped(rule.why, 0, 0))
            size = before.bytes + item.entry.size
            counted[rule.why] = Dropped(rule.why, before.files + 1, size)
    certificates = [found[path].read() for path in sorted(found) if path.startswith(_CERTIFICATES)]
    for made in _made(kept, certificates, about):
        kept.setdefault(made.path, made)
    return DebianPart(tuple(kept.values()), tuple(counted.values()))


def linked(items: Iterable[Item], needed: frozenset[str]) -> frozenset[str]:
    """``needed``, and the libraries that what is kept because of it links to, and so on."""
    listed = list(items)
    while True:
        kept = [item for item in listed if rule_for(DEBIAN, item.path, needed) is None]
        more = {name for item in kept for name in _asks_for(item)} - needed
        if not more:
            return needed
        needed |= more


def _asks_for(item: Item) -> Iterator[str]:
    """File names of the libraries an item is of no use without."""
    if item.entry.kind == "symlink" and ".so" in item.path:
        yield posixpath.basename(item.entry.target)
    elif item.entry.kind == "file":
        yield from needs(item.read())


def _items(root: Path) -> Iterator[Item]:
    for info, content in entries(root):
        path = posixpath.normpath(info.name)
        if info.issym():
            yield symlink(path, info.linkname)
        elif info.islnk():
            yield Item(Entry(path, "hardlink", info.mode, target=posixpath.normpath(info.linkname)))
        else:
            small = shrink(content) if content.startswith(MAGIC) else content
            yield file(path, small, info.mode)


def _made(
    kept: Mapping[str, Item],
    certificates: Iterable[bytes],
    packages: Iterable[Mapping[str, str]],
) -> Iterator[Item]:
    """What maintainer scripts would have made, and the links that merge ``/usr``."""
    if _PYTHON not in kept:
        raise MlpackError(f"the Debian packages hold no /{_PYTHON}")
    for name in _MERGED:
        if any(path.startswith(f"usr/{name}/") for path in kept):
            yield symlink(name, f"usr/{name}")
    yield symlink("usr/bin/python3", "python3.11")
    yield symlink("usr/bin/python", "python3")
    yield file(_BUNDLE, b"".join(certificates))
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
    return "\n".join(
        "Status: install ok installed\n"
        + "".join(f"{field}: {value}\n" for field, value in each.items())
        for each in listed
    )
