"""The Debian layer of a base: the files of the unpacked packages that a device needs.

No maintainer script runs (:mod:`mlpack.base.mmdebstrap`), so the few files that scripts would
write are made here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpack.base.elf import MAGIC, needs, shrink
from mlpack.base.layer_files import LayerFile, file, folder, symlink, text
from mlpack.base.mmdebstrap import entries
from mlpack.base.prune_rules import DEBIAN, PruneCount, PrunedFiles, rule_for
from mlpack.errors import MlpackError
from mlpack.oci.layer import Entry

MINIMUM = (
    "base-files",
    "ca-certificates",
    "libc-bin",
    "libc6",
    "libpython3.11-stdlib",
    "libstdc++6",
    "media-types",
    "netbase",
    "python3.11-minimal",
    "tzdata",
)
"""What a Python server with native wheels needs; libraries the wheels need are added.

``libc-bin`` for its locale alone: onnxruntime's operators on texts (StringNormalizer, and with it
text models of scikit-learn) load en_US.UTF-8, and fail without.
"""

_LOCALE = "usr/lib/locale/C.utf8"
"""The C library's own locale of Unicode, whose cases and classes of letters are en_US.UTF-8's."""

USER = 65532
"""The user that releases run as; not root, and not an id that hosts give to people."""

SUITES = ("bookworm",)

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_CERTIFICATES = "usr/share/ca-certificates/mozilla/"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_PYTHON = "usr/bin/python3.11"


class UnknownSuite(MlpackError):
    """A Debian release that bases are not tested with."""

    hint = 'set [base] from = "debian:bookworm", or name an image ("oci:PATH")'


@dataclass(frozen=True)
class DebianPart:
    """The files of the Debian layer, and those left out."""

    items: tuple[LayerFile, ...]
    dropped: tuple[PrunedFiles, ...]


def check_suite(name: str) -> str:
    """Return ``name`` if it is a supported release; raise :class:`UnknownSuite` otherwise."""
    if name not in SUITES:
        raise UnknownSuite(f"debian:{name} is not supported (supported: {', '.join(SUITES)})")
    return name


def open_root(root: Path, about: Iterable[Mapping[str, str]], needed: frozenset[str]) -> DebianPart:
    """Return what the rules keep of the root file system in the tar ``root``.

    ``about`` has the control fields of its packages, ``needed`` the libraries that the wheels
    above link to.
    """
    found = {item.path: item for item in _items(root)}
    needed = linked(found.values(), needed)
    kept: dict[str, LayerFile] = {}
    pruned = PruneCount()
    for path, item in found.items():
        rule = rule_for(DEBIAN, path, needed)
        if rule is None:
            kept[path] = item
        else:
            pruned.add(rule, item.entry.size)
    certificates = [found[path].read() for path in sorted(found) if path.startswith(_CERTIFICATES)]
    for made in _made(kept, certificates, about):
        kept.setdefault(made.path, made)
    return DebianPart(tuple(kept.values()), pruned.files())


def linked(items: Iterable[LayerFile], needed: frozenset[str]) -> frozenset[str]:
    """Return ``needed`` and all libraries it links to, directly or not."""
    listed = list(items)
    while True:
        kept = [item for item in listed if rule_for(DEBIAN, item.path, needed) is None]
        more = {name for item in kept for name in _asks_for(item)} - needed
        if not more:
            return needed
        needed |= more


def _asks_for(item: LayerFile) -> Iterator[str]:
    """Yield the file names of the libraries a file needs."""
    if item.entry.kind == "symlink" and ".so" in item.path:
        yield posixpath.basename(item.entry.target)
    elif item.entry.kind == "file":
        yield from needs(item.read())


def _items(root: Path) -> Iterator[LayerFile]:
    for info, content in entries(root):
        path = posixpath.normpath(info.name)
        if info.issym():
            yield symlink(path, info.linkname)
        elif info.islnk():
            yield LayerFile(
                Entry(path, "hardlink", info.mode, target=posixpath.normpath(info.linkname))
            )
        else:
            small = shrink(content) if content.startswith(MAGIC) else content
            yield file(path, small, info.mode)


def _made(
    kept: Mapping[str, LayerFile],
    certificates: Iterable[bytes],
    packages: Iterable[Mapping[str, str]],
) -> Iterator[LayerFile]:
    """Yield the files that maintainer scripts would make, and the links that merge ``/usr``."""
    if _PYTHON not in kept:
        raise MlpackError(f"the Debian packages do not contain /{_PYTHON}")
    for name in _MERGED:
        if any(path.startswith(f"usr/{name}/") for path in kept):
            yield symlink(name, f"usr/{name}")
    if any(path.startswith(f"{_LOCALE}/") for path in kept):
        yield symlink("usr/lib/locale/en_US.utf8", posixpath.basename(_LOCALE))
    yield symlink("usr/bin/python3", "python3.11")
    yield symlink("usr/bin/python", "python3")
    yield file(_BUNDLE, b"".join(certificates))
    # OpenSSL searches /usr/lib/ssl, where the package openssl has these links.
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
    """Return a package database; vulnerability scanners identify packages by it only."""
    listed = sorted(packages, key=lambda each: each["Package"])
    return "\n".join(
        "Status: install ok installed\n"
        + "".join(f"{field}: {value}\n" for field, value in each.items())
        for each in listed
    )
