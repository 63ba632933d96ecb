"""A Debian archive: its signed list of packages, and the packages.

Read as apt reads it (https://wiki.debian.org/DebianRepository/Format): the
``InRelease`` of a suite is signed by the archive's keys, which ``gpgv`` checks;
it holds the sha256 of each package list, which holds the sha256 of each .deb.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpack.base.download import Advance, Missing, WrongContent, cached, fetch
from mlpack.base.packages import VERSION_ORDER, Package, parse_stanza
from mlpack.errors import MlpackError
from mlpack.model.lock import DebianPackage

MIRROR = "http://deb.debian.org/debian"
"""Plain HTTP, as apt does: signature and sha256 check what is fetched, and proxies keep it."""

SNAPSHOT = "https://snapshot.debian.org"
"""Keeps every version there ever was; asked where the mirror has replaced a locked one."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_MOST_RELEASE = 4 * 1024 * 1024
_MOST_LIST = 64 * 1024 * 1024
_MOST_PACKAGE = 512 * 1024 * 1024
_NAME = re.compile(r"^Package: (.+)$", re.MULTILINE)
_PROVIDES = re.compile(r"^Provides: (.+)$", re.MULTILINE)


class Untrusted(MlpackError):
    """An archive whose signature does not hold, or cannot be checked."""


class ArchiveMovedOn(MlpackError):
    """A locked Debian package that the mirror has replaced by another version."""

    hint = (
        "take today's versions with: mlpack base build --upgrade, or point [base] mirror "
        "in mlpack.toml at a snapshot that still has it "
        "(https://snapshot.debian.org/archive/debian/DATE/)"
    )


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signature is believed, and who keeps what mirrors have dropped."""

    keyring: Path = KEYRING
    snapshot: str = SNAPSHOT


DEBIAN = Trust()


@dataclass(frozen=True)
class PackageList:
    """The packages of one architecture, over the suites of an archive."""

    stanzas: Mapping[str, tuple[tuple[str, str], ...]]
    """By name: the URL of the archive and the text, of each version there is."""

    provided: Mapping[str, tuple[str, ...]]
    """By the name of what is provided: the packages that do."""

    def candidates(self, name: str) -> Collection[Package]:
        """Every package called ``name``, or that provides it."""
        names = (name, *self.provided.get(name, ()))
        return [
            parse_stanza(text, root)
            for each in dict.fromkeys(names)
            for root, text in self.stanzas.get(each, ())
        ]


@dataclass(frozen=True)
class Archive:
    """A mirror of the Debian archive at one release (``bookworm``)."""

    suite: str
    mirror: str
    cache: Path
    advance: Advance
    trust: Trust = DEBIAN

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        """URL and suite of each part: the release, its point updates, its security updates."""
        mirror = (self.mirror or MIRROR).rstrip("/")
        security = re.sub(r"/debian(?=/|$)", "/debian-security", mirror, count=1)
        parts = [(mirror, self.suite), (mirror, f"{self.suite}-updates")]
        # A mirror whose URL does not say /debian is taken to hold no security archive beside it.
        return (*parts, *([(security, f"{self.suite}-security")] if security != mirror else []))

    def packages(self, architecture: str) -> PackageList:
        """Fetch and check the package lists of all parts."""
        stanzas: dict[str, list[tuple[str, str]]] = {}
        provided: dict[str, list[str]] = {}
        for root, suite in self.sources:
            for text in self._list(root, suite, architecture).split("\n\n"):
                name = _NAME.search(text)
                if name is None:
                    continue
                stanzas.setdefault(name[1], []).append((root, text))
                for group in _PROVIDES.findall(text):
                    for each in group.split(","):
                        provided.setdefault(each.split()[0], []).append(name[1])
        return PackageList(
            {name: tuple(found) for name, found in stanzas.items()},
            {name: tuple(found) for name, found in provided.items()},
        )

    def download(self, package: Package) -> Path:
        """The .deb of ``package``, checked."""
        return cached(
            package.location, package.sha256, self.cache, limit=_MOST_PACKAGE, advance=self.advance
        )

    def locked(self, wanted: Collection[DebianPackage]) -> tuple[Path, ...]:
        """The .debs of locked packages: from the cache, the mirror, or the snapshot archive.

        Raises :class:`ArchiveMovedOn` naming the first that none of them has.
        """
        held = {each: self.cache / each.sha256 for each in wanted}
        missing = [each for each, path in held.items() if not path.is_file()]
        lists = {each.architecture for each in missing} - {"all"}
        # A package of architecture "all" is in the list of every architecture.
        named = lists or {"amd64"}
        offered = [self.packages(each) for each in sorted(named)] if missing else []
        for each in missing:
            found = [p for lst in offered for p in lst.candidates(each.name) if p.name == each.name]
            exact = [p for p in found if p.sha256 == each.sha256]
            held[each] = self.download(exact[0]) if exact else self._old(each, found)
        return tuple(held[each] for each in wanted)

    def _old(self, wanted: DebianPackage, offered: Collection[Package]) -> Path:
        """A version the mirror no longer has, from the snapshot archive."""
        from mlpack.base.snapshot import locate

        try:
            url = locate(self.trust.snapshot, wanted)
            return cached(url, wanted.sha256, self.cache, limit=_MOST_PACKAGE, advance=self.advance)
        except MlpackError as error:
            versions = sorted((each.version for each in offered), key=VERSION_ORDER)
            newest = versions[-1] if versions else "no version"
            raise ArchiveMovedOn(
                f"{wanted.name} {wanted.version} ({wanted.architecture}) is locked, the mirror has "
                f"{newest}, and the snapshot archive did not help: {error}"
            ) from error

    def _list(self, root: str, suite: str, architecture: str) -> str:
        path = f"main/binary-{architecture}/Packages.xz"
        digest, size = self._announced(root, suite, path)
        # By hash, so that a mirror that changes between two requests cannot mix them.
        folder = f"{root}/dists/{suite}/main/binary-{architecture}"
        try:
            content = fetch(f"{folder}/by-hash/SHA256/{digest}", limit=size, advance=self.advance)
        except Missing:
            content = fetch(f"{root}/dists/{suite}/{path}", limit=size, advance=self.advance)
        if hashlib.sha256(content).hexdigest() != digest:
            raise WrongContent(f"{root}/dists/{suite}/{path} is not the signed one")
        try:
            return lzma.decompress(content).decode()
        except (lzma.LZMAError, UnicodeDecodeError) as error:
            raise WrongContent(f"{root}/dists/{suite}/{path} is damaged ({error})") from error

    def _announced(self, root: str, suite: str, path: str) -> tuple[str, int]:
        """The sha256 and size of ``path`` in the signed release file."""
        url = f"{root}/dists/{suite}/InRelease"
        signed = verify(fetch(url, limit=_MOST_RELEASE), url, self.trust.keyring)
        section = signed.partition("\nSHA256:\n")[2]
        for line in section.splitlines():
            if not line.startswith(" "):
                break
            digest, size, name = line.split()
            if name == path:
                return digest, min(int(size), _MOST_LIST)
        raise MlpackError(
            f"{url} lists no {path}",
            hint="name another Debian release in [base] from, or another mirror",
        )


def verify(signed: bytes, url: str, keyring: Path) -> str:
    """The text of a signed file; raise :class:`Untrusted` unless a key of ``keyring`` signed it."""
    gpgv = shutil.which("gpgv")
    if gpgv is None or not keyring.is_file():
        lacking = "gpgv" if gpgv is None else str(keyring)
        raise Untrusted(
            f"the signature of {url} cannot be checked: {lacking} is missing",
            hint="install it (apt-get install gpgv debian-archive-keyring), or start the base "
            'from an image: [base] from = "oci:PATH"',
        )
    with tempfile.TemporaryDirectory(prefix="mlpack-") as folder:
        source, text = Path(folder) / "InRelease", Path(folder) / "text"
        source.write_bytes(signed)
        done = subprocess.run(
            [gpgv, "--homedir", folder, "--keyring", str(keyring), "-o", str(text), str(source)],
            capture_output=True,
            check=False,
        )
        if done.returncode or not text.is_file():
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            raise Untrusted(
                f"{url} is not signed by a key of {keyring} ({'; '.join(reason[-2:])})",
                hint="update the keys (apt-get install debian-archive-keyring), or try "
                "another mirror ([base] mirror)",
            )
        return text.read_text(encoding="utf-8")
