"""Debian packages through mmdebstrap: chosen, checked and unpacked by apt and dpkg.

``--variant=extract`` unpacks and runs no maintainer script, so arm64 is made on
amd64 without an emulator. The versions of a lock become apt preferences: apt takes
them if the archive still has them, and the result is compared with the lock.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpack.base.layer_files import Advance
from mlpack.base.network_failure import APT, network_failure
from mlpack.errors import MlpackError
from mlpack.model.lock import DebianPackage
from mlpack.stores.files import file_sha256

MIRROR = "http://deb.debian.org/debian"
"""Plain HTTP, as apt uses: signatures and hashes check the files, and proxies can cache them."""

HOOKS = "/usr/share/mmdebstrap/hooks/merged-usr"
_POLL_SECONDS = 0.2
_FIELDS = ("Package", "Architecture", "Source", "Version", "Maintainer")


class NoMmdebstrap(MlpackError):
    """mmdebstrap is not installed."""

    hint = (
        "install it (apt-get install mmdebstrap uidmap), or start the base from an image: "
        '[base] from = "oci:PATH"'
    )


class DebianFailed(MlpackError):
    """mmdebstrap or apt failed."""


class ArchiveMovedOn(MlpackError):
    """A locked Debian package that the archive has replaced by another version."""

    hint = (
        "take today's versions with: mlpack base build --upgrade, or point [base] mirror "
        "in mlpack.toml at a snapshot that still has it "
        "(http://snapshot.debian.org/archive/debian/DATE/)"
    )


@dataclass(frozen=True)
class UnpackedDebian:
    """The root file system that mmdebstrap made, and the packages in it."""

    root: Path
    """The tar of the root file system."""

    packages: tuple[DebianPackage, ...]
    about: tuple[Mapping[str, str], ...]
    """The control fields of each package, for a package database."""


@dataclass(frozen=True, kw_only=True)
class DebianRequest:
    """What to fetch from a Debian archive."""

    suite: str
    architecture: str
    packages: Sequence[str]
    mirror: str = ""
    held: Sequence[DebianPackage] = ()
    """Versions to take if the archive still has them."""


def unpack(request: DebianRequest, folder: Path, advance: Advance) -> UnpackedDebian:
    """Run mmdebstrap, which chooses, fetches, checks and unpacks; the caller removes ``folder``."""
    program = shutil.which("mmdebstrap")
    if program is None:
        raise NoMmdebstrap("mmdebstrap is not installed; a Debian base needs it")
    debs, root, preferences = folder / "debs", folder / "root.tar", folder / "preferences"
    debs.mkdir()
    preferences.write_text(pins(request.held))
    command = [*_temporary(folder), program, *arguments(request, debs, root, preferences)]
    _run(command, request.suite, advance)
    found = [_package(path) for path in sorted(debs.glob("*.deb"))]
    about = tuple(_about(path) for path in sorted(debs.glob("*.deb")))
    return UnpackedDebian(root, tuple(sorted(found)), about)


def check_held(request: DebianRequest, found: Sequence[DebianPackage]) -> None:
    """Raise :class:`ArchiveMovedOn` unless ``found`` is exactly what the lock has."""
    held = {each.name: each for each in request.held}
    taken = {each.name: each for each in found}
    for name in sorted({*held, *taken}):
        if held.get(name) != taken.get(name):
            raise ArchiveMovedOn(
                f"the lock has {_version(held.get(name), name)} for {request.architecture}, "
                f"the archive {_version(taken.get(name), name)}"
            )


def arguments(request: DebianRequest, debs: Path, root: Path, preferences: Path) -> list[str]:
    """Return mmdebstrap's arguments.

    The .debs are copied out for their hashes, which go into the lock.
    """
    upload = f"upload {shlex.quote(str(preferences))} /etc/apt/preferences.d/mlpack"
    return [
        # Not --quiet, which hides apt's messages, such as which package does not exist.
        *("--variant=extract", "--format=tar"),
        f"--architectures={request.architecture}",
        f"--include={','.join(request.packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        # A snapshot's release file has expired, but is still signed.
        *(['--aptopt=Acquire::Check-Valid-Until "false"'] if "snapshot" in request.mirror else []),
        f"--hook-dir={HOOKS}",
        '--setup-hook=mkdir -p "$1"/etc/apt/preferences.d',
        f"--setup-hook={upload}",
        f"--extract-hook=sync-out /var/cache/apt/archives {shlex.quote(str(debs))}",
        request.suite,
        str(root),
        *sources(request.suite, request.mirror),
    ]


def sources(suite: str, mirror: str) -> tuple[str, ...]:
    """Return apt's sources: the release, its point updates, its security updates.

    >>> sources("bookworm", "http://m/debian/")[2]
    'deb http://m/debian-security bookworm-security main'
    """
    place = (mirror or MIRROR).rstrip("/")
    security = re.sub(r"/debian(?=/|$)", "/debian-security", place, count=1)
    parts = [(place, suite), (place, f"{suite}-updates")]
    # A mirror without /debian in its URL is assumed to have no security archive next to it.
    if security != place:
        parts.append((security, f"{suite}-security"))
    return tuple(f"deb {url} {name} main" for url, name in parts)


def pins(held: Sequence[DebianPackage]) -> str:
    """Return apt preferences (apt_preferences(5)) for these versions, downgrades included."""
    return "\n".join(
        f"Package: {each.name}\nPin: version {each.version}\nPin-Priority: 1001\n"
        for each in sorted(held)
    )


def entries(root: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield the files and links of a root file system, with the content of files."""
    with tarfile.open(root, "r:") as archive:
        for info in archive:
            if info.isfile():
                opened = archive.extractfile(info)
                yield info, opened.read() if opened else b""
            elif info.issym() or info.islnk():
                yield info, b""


def _temporary(folder: Path) -> tuple[str, ...]:
    """Return a command prefix that keeps temporary files, such as the keyring, in ``folder``.

    Only as root: otherwise mmdebstrap works as other users, who cannot enter ``folder`` and whose
    files mlpack could not remove.
    """
    if os.geteuid() != 0:
        return ()
    place = folder / "tmp"
    place.mkdir()
    # apt fetches as its own user, who must be able to enter.
    place.chmod(0o1777)
    folder.chmod(0o755)
    return ("env", f"TMPDIR={place}")


def _run(command: Sequence[str], suite: str, advance: Advance) -> None:
    """Run to the end; ``advance`` is called meanwhile, and stops it by raising."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                try:
                    advance(0)
                except BaseException:
                    process.terminate()
                    raise
    if process.returncode:
        text = output.decode(errors="replace")
        if missing := _missing(text):
            raise DebianFailed(
                f"Debian {suite} has no package {', '.join(missing)}",
                hint="check [base] packages in mlpack.toml; names: https://packages.debian.org",
            )
        unreachable = None if _NO_ROOT.search(text) else network_failure(text, APT)
        if unreachable is not None:
            raise unreachable
        raise DebianFailed(f"mmdebstrap failed: {_reason(text)}", hint=_hint(text))


_UNKNOWN = re.compile(r"E: (?:Unable to locate package|Package) (\S+)(?= has no inst|$)", re.M)
_ENDED = re.compile(r"E: mmdebstrap failed to run")
_NO_ROOT = re.compile(r"chroot mode|new[ug]idmap|unshare|cannot create \S+ Permission denied")


def _hint(output: str) -> str:
    """Return what to do; without root, more than a network can be missing."""
    if _NO_ROOT.search(output):
        return (
            "run it as root, or give your user what mmdebstrap needs without root: newuidmap "
            "(apt-get install uidmap), lines in /etc/subuid and /etc/subgid (usermod "
            "--add-subuids 100000-165535 --add-subgids 100000-165535 USER), user namespaces "
            "(none in a chroot and in most containers), a TMPDIR that every user may enter"
        )
    return "check the network and [base] mirror and packages in mlpack.toml"


def _missing(output: str) -> tuple[str, ...]:
    """Return the packages apt does not know."""
    return tuple(dict.fromkeys(found.strip("'\"") for found in _UNKNOWN.findall(output)))


def _reason(output: str) -> str:
    """Return the error lines, apt's before mmdebstrap's own."""
    lines = [line.strip() for line in output.splitlines()]
    wrong = [line for line in lines if line.startswith(("E:", "Err:", "W: Failed"))]
    # mmdebstrap adds apt's whole command line, which helps nobody.
    telling = [line.partition(": E: apt-get ")[0] for line in wrong if not _ENDED.match(line)]
    chosen = telling[:2] or lines[-2:] or ["no reason given"]
    return "; ".join(line.removeprefix("E: ") for line in chosen)


def _package(path: Path) -> DebianPackage:
    """Read name, version and architecture from dpkg's file name (``%3a`` is a colon)."""
    name, version, architecture = path.stem.split("_")
    return DebianPackage(name, version.replace("%3a", ":"), architecture, file_sha256(path))


def _about(path: Path) -> Mapping[str, str]:
    done = subprocess.run(
        ["dpkg-deb", "--field", str(path), *_FIELDS],  # noqa: S607  # wherever mmdebstrap is
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DebianFailed(f"{path.name} cannot be read: {_reason(done.stderr)}")
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)


def _version(package: DebianPackage | None, name: str) -> str:
    return f"{name} {package.version}" if package else f"no {name}"
