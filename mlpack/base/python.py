"""The Python packages of a base: chosen, locked and installed by uv, and collected for a layer.

uv is a dependency of mlpack (PyPI package ``uv``), so it is installed with mlpack, and works for
any target platform.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlpack.base.elf import MAGIC, needs, shrink
from mlpack.base.layer_files import Advance, LayerFile, file, symlink
from mlpack.base.network_failure import UV, network_failure
from mlpack.base.prune_rules import ONLY_FOR_TOOLS, PACKAGES, PruneCount, PrunedFiles, rule_for
from mlpack.base.requirements import ONNXRUNTIME, ONNXRUNTIME_GPU, on_gpu
from mlpack.base.wheels import Interpreter, best_wheel, uv_platform
from mlpack.errors import MlpackError
from mlpack.model.lock import LockedPackage
from mlpack.oci.descriptor import Node, Platform
from mlpack.stores.files import temporary_folder

RUNTIME = (
    "httptools",
    "numpy",
    "onnxruntime",
    "orjson",
    "pcodec",
    "prometheus-client",
    "starlette",
    "uvicorn",
    "werkzeug",  # requests of @rawhttp scripts: 212 KB compressed with markupsafe
    "zstandard",
)
"""What the runtime in the image imports; a project's own requirements are added."""

_TWICE = "set [base] gpu = true for onnxruntime-gpu, and remove what requires the other build"

_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+)\s*(?:#\s*via\s+(?P<via>.*))?")
_QUIET = ("--quiet", "--no-progress")


class NoPackages(MlpackError):
    """Requirements that no set of wheels satisfies."""

    hint = "change requirements.in; every package must have a wheel for each [base] platform"


class NoUv(MlpackError):
    """uv is installed neither next to mlpack nor on the PATH."""

    hint = "install it with: python -m pip install uv"


@dataclass(frozen=True)
class WheelTarget:
    """The platform and Python that wheels must fit."""

    platform: Platform
    python: Interpreter

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments for uv."""
        return (
            *("--python-platform", uv_platform(self.platform, self.python)),
            *("--python-version", self.python.short),
            *("--only-binary", ":all:"),
        )


def resolve(
    requirements: Collection[Requirement],
    target: WheelTarget,
    held: Sequence[LockedPackage] = (),
    *,
    gpu: bool = False,
) -> tuple[LockedPackage, ...]:
    """Choose versions, each with the hash of its one wheel for ``target``.

    ``held`` are versions to keep if they still fit, ``gpu`` chooses the build of onnxruntime.
    Raises :class:`NoPackages`.
    """
    try:
        return _resolve(requirements, target, held, merge(requirements, gpu=gpu))
    except NoPackages as error:
        if gpu and ONNXRUNTIME_GPU in str(error):
            error.hint = (
                f"not every release of {ONNXRUNTIME_GPU} has a wheel for {target.platform}: "
                "take it out of [base] platforms, or name another release in the requirements"
            )
        raise


def _resolve(
    requirements: Collection[Requirement],
    target: WheelTarget,
    held: Sequence[LockedPackage],
    lines: Sequence[str],
) -> tuple[LockedPackage, ...]:
    with temporary_folder("mlpack-") as folder:
        source, pins = folder / "requirements.in", folder / "pins.txt"
        source.write_text("\n".join(lines) + "\n")
        # uv keeps the versions in its output file if they still fit.
        pins.write_text("".join(f"{each.name}=={each.version}\n" for each in held))
        _uv(
            folder,
            "pip", "compile", *target.arguments, "--no-header", "--annotation-style", "line",
            *("--output-file", str(pins)), str(source),
        )  # fmt: skip
        chosen = needed_packages(parse_pins(pins.read_text()), requirements)
        if {ONNXRUNTIME, ONNXRUNTIME_GPU} <= set(chosen):
            raise NoPackages("both builds of onnxruntime are required", hint=_TWICE)
        pins.write_text("".join(f"{name}=={version}\n" for name, version in chosen.items()))
        lock = folder / "pylock.toml"
        _uv(
            folder,
            "pip", "compile", *target.arguments, "--no-deps", "--format", "pylock.toml",
            *("--output-file", str(lock)), str(pins),
        )  # fmt: skip
        return parse_pylock(lock.read_text(), target)


def install(packages: Sequence[LockedPackage], target: WheelTarget, directory: Path) -> None:
    """Install exactly ``packages`` below ``directory``, each checked by its hash."""
    with temporary_folder("mlpack-") as folder:
        listed = folder / "requirements.txt"
        lines = (
            f"{each.name}=={each.version} " + " ".join(f"--hash={hash}" for hash in each.hashes)
            for each in packages
        )
        listed.write_text("\n".join(lines) + "\n")
        # Copied, not linked: the files are changed later, and uv's cache must not be.
        _uv(
            folder,
            "pip", "install", *target.arguments, "--require-hashes", "--no-deps",
            *("--no-compile-bytecode", "--link-mode", "copy"),
            *("--target", str(directory), "--requirements", str(listed)),
        )  # fmt: skip


def runtime_packages(gpu: bool) -> tuple[str, ...]:
    """Return what the runtime imports, with one of the two builds of onnxruntime."""
    return tuple(str(each) for each in on_gpu(map(Requirement, RUNTIME))) if gpu else RUNTIME


def merge(requirements: Collection[Requirement], *, gpu: bool = False) -> tuple[str, ...]:
    """Return the requirements of runtime and project as sorted lines.

    >>> merge([Requirement("numpy>=2")])[:3]
    ('httptools', 'numpy', 'numpy>=2')
    """
    return tuple(sorted({*runtime_packages(gpu), *(str(each) for each in requirements)}))


def parse_pins(text: str) -> Mapping[str, tuple[str, frozenset[str]]]:
    """Return version and requirers by name from ``uv pip compile --annotation-style line``."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for line in text.splitlines():
        pin = _PIN.fullmatch(line.strip())
        if pin is None:
            if line.strip():
                raise NoPackages(
                    f"{line.strip()!r} is not a package from an index",
                    hint="name packages by name and version in requirements.in",
                )
            continue
        via = frozenset(each.strip() for each in (pin["via"] or "").split(","))
        found[canonicalize_name(pin["name"])] = (pin["version"], via)
    return found


def needed_packages(
    pins: Mapping[str, tuple[str, frozenset[str]]], requirements: Collection[Requirement]
) -> Mapping[str, str]:
    """Return versions by name, without packages that only pruned tools import.

    A package required with an extra (``onnxruntime[symbolic]``) keeps all its dependencies.
    """
    extras = {canonicalize_name(each.name) for each in requirements if each.extras}
    spared: set[str] = set()
    for owner, names in ONLY_FOR_TOOLS.items():
        if owner not in extras:
            spared |= _only_for(owner, names, pins)
    return {name: version for name, (version, _) in pins.items() if name not in spared}


def _only_for(
    owner: str, names: Collection[str], pins: Mapping[str, tuple[str, frozenset[str]]]
) -> set[str]:
    """Return those of ``names`` that only ``owner`` or another of them requires."""
    spared = {name for name in names if name in pins}
    while outside := {name for name in spared if not pins[name][1] <= {owner, *spared}}:
        spared -= outside
    return spared


def parse_pylock(text: str, target: WheelTarget) -> tuple[LockedPackage, ...]:
    """Return each package with its wheel for ``target``, from a pylock.toml (PEP 751)."""
    locked = []
    for package in Node(tomllib.loads(text), "pylock.toml").need("packages").elements():
        name = package.need("name").text()
        listed = package.get("wheels")
        wheels = {_file_name(each): each for each in listed.elements()} if listed else {}
        best = best_wheel(wheels, target.platform, target.python)
        if best is None:
            raise NoPackages(
                f"{name} has no wheel for Python {target.python.short} on {target.platform}"
            )
        sha256 = wheels[best].need("hashes").need("sha256").text()
        version = package.need("version").text()
        locked.append(LockedPackage(name, version, (f"sha256:{sha256}",)))
    return tuple(sorted(locked))


def _file_name(wheel: Node) -> str:
    name = wheel.get("name")
    return name.text() if name else wheel.need("url").text().rpartition("/")[2]


def _uv(folder: Path, *arguments: str) -> None:
    """Run uv in ``folder``, where it finds no settings of another project."""
    # Any Python can serve any target; without one, uv would download that version.
    python = ("--python", sys.executable, "--no-python-downloads")
    command = [find_uv(), *arguments, *python, *_QUIET]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        if unreachable := network_failure(done.stderr, UV):
            raise unreachable
        raise NoPackages("uv failed: " + _reason(done.stderr))


def find_uv() -> str:
    """Return the path of ``uv``, next to this Python or on the PATH; raise :class:`NoUv`."""
    neighbour = Path(sys.executable).with_name("uv")
    found = str(neighbour) if neighbour.is_file() else shutil.which("uv")
    if found is None:
        raise NoUv("uv, which chooses and installs Python packages, was not found")
    return found


def _reason(text: str) -> str:
    """Return uv's message on one line, without the tree it draws."""
    # Box drawing, geometric shapes, and a multiplication sign for a cross.
    words = re.sub("[\u2500-\u25ff\u00d7]+", " ", text).split()
    return " ".join(words) or "no reason given"


_LAZY_STUBS = b"attach_stub"
"""``lazy_loader`` reads a package's type stub at import (scikit-image uses it)."""


@dataclass(frozen=True)
class PackagesPart:
    """The files of the packages layer."""

    items: tuple[LayerFile, ...]
    dropped: tuple[PrunedFiles, ...]
    needs: Mapping[str, tuple[str, ...]]
    """The libraries each shared object is linked to, by its path."""

    @property
    def needed(self) -> frozenset[str]:
        """All libraries that the packages are linked to."""
        return frozenset(name for names in self.needs.values() for name in names)


def collect(directory: Path, place: str, advance: Advance = lambda _: None) -> PackagesPart:
    """Return the files of ``directory``, where uv installed, that go to ``place`` in the image.

    Shrinks shared objects in place: ``directory`` belongs to the caller. ``advance`` is called
    before each file, and stops the work by raising.
    """
    items: list[LayerFile] = []
    linked: dict[str, tuple[str, ...]] = {}
    pruned = PruneCount()
    for source in _files(directory):
        advance(0)
        path = source.relative_to(directory).as_posix()
        rule = rule_for(PACKAGES, path)
        if rule is not None and not _read_when_imported(source):
            pruned.add(rule, source.lstat().st_size)
            continue
        item = _item(source, f"{place}/{path}")
        items.append(item)
        if item.entry.kind == "file" and _is_elf(source):
            linked[item.path] = needs(source.read_bytes())
    return PackagesPart(tuple(items), pruned.files(), linked)


def _files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield path


def _item(source: Path, path: str) -> LayerFile:
    if source.is_symlink():
        return symlink(path, str(source.readlink()))
    mode = source.stat().st_mode
    if _is_elf(source):
        before = source.read_bytes()
        after = shrink(before)
        if after != before:
            source.write_bytes(after)
    elif path.endswith(".dist-info/METADATA"):
        return file(path, metadata_head(source.read_bytes()), mode)
    return file(path, source, mode)


def metadata_head(content: bytes) -> bytes:
    """Return a package's metadata without its long description, which is its web page.

    >>> metadata_head(b"Name: a\\nVersion: 1\\n\\n# A\\n\\nLong.\\n")
    b'Name: a\\nVersion: 1\\n'
    """
    head, blank, _ = content.partition(b"\n\n")
    return head + b"\n" if blank else content


def _is_elf(path: Path) -> bool:
    with path.open("rb") as content:
        return content.read(len(MAGIC)) == MAGIC


def _read_when_imported(path: Path) -> bool:
    """Whether a path is a type stub that its package reads at run time."""
    if path.suffix != ".pyi":
        return False
    module = path.with_suffix(".py")
    return module.is_file() and _LAZY_STUBS in module.read_bytes()
