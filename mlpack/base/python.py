"""The Python packages of a base: chosen, locked and installed by uv, for any platform.

uv is a dependency of mlpack (PyPI package ``uv``), so it is there wherever
mlpack is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlpack.base.rules import ONLY_FOR_TOOLS
from mlpack.base.wheels import Interpreter, best_wheel, uv_platform
from mlpack.errors import MlpackError
from mlpack.model.lock import LockedPackage
from mlpack.model.requirements import ONNXRUNTIME, ONNXRUNTIME_GPU, on_gpu
from mlpack.oci.descriptor import Platform
from mlpack.oci.document import Node

RUNTIME = (
    "httptools",
    "numpy",
    "onnxruntime",
    "orjson",
    "prometheus-client",
    "starlette",
    "uvicorn",
    "zstandard",
)
"""What the runtime in the image imports; a project's own requirements come on top."""

_TWICE = "set [base] gpu = true for onnxruntime-gpu, and take out what asks for the other build"

_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+)\s*(?:#\s*via\s+(?P<via>.*))?")
_QUIET = ("--quiet", "--no-progress")


class NoPackages(MlpackError):
    """Requirements that no set of wheels fulfils."""

    hint = "change requirements.in; every package must have a wheel for each [base] platform"


class NoUv(MlpackError):
    """uv is not installed beside mlpack nor anywhere on the path."""

    hint = "install it with: python -m pip install uv"


@dataclass(frozen=True)
class Target:
    """What wheels must fit: a platform and the Python on it."""

    platform: Platform
    python: Interpreter

    @property
    def arguments(self) -> tuple[str, ...]:
        """For uv."""
        return (
            *("--python-platform", uv_platform(self.platform, self.python)),
            *("--python-version", self.python.short),
            *("--only-binary", ":all:"),
        )


def resolve(
    requirements: Collection[Requirement],
    target: Target,
    held: Sequence[LockedPackage] = (),
    *,
    gpu: bool = False,
) -> tuple[LockedPackage, ...]:
    """Choose versions, each with the hash of its one wheel for ``target``.

    ``held`` are versions to keep where they still do, ``gpu`` chooses the build of
    onnxruntime. Raises :class:`NoPackages`.
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
    target: Target,
    held: Sequence[LockedPackage],
    wanted: Sequence[str],
) -> tuple[LockedPackage, ...]:
    with tempfile.TemporaryDirectory(prefix="mlpack-") as folder:
        source, pins = Path(folder) / "requirements.in", Path(folder) / "pins.txt"
        source.write_text("\n".join(wanted) + "\n")
        # uv keeps the versions it finds in its output file, where they still fit.
        pins.write_text("".join(f"{each.name}=={each.version}\n" for each in held))
        _uv(
            folder,
            "pip", "compile", *target.arguments, "--no-header", "--annotation-style", "line",
            *("--output-file", str(pins)), str(source),
        )  # fmt: skip
        chosen = needed_packages(parse_pins(pins.read_text()), requirements)
        if {ONNXRUNTIME, ONNXRUNTIME_GPU} <= set(chosen):
            raise NoPackages("two builds of onnxruntime are asked for", hint=_TWICE)
        pins.write_text("".join(f"{name}=={version}\n" for name, version in chosen.items()))
        lock = Path(folder) / "pylock.toml"
        _uv(
            folder,
            "pip", "compile", *target.arguments, "--no-deps", "--format", "pylock.toml",
            *("--output-file", str(lock)), str(pins),
        )  # fmt: skip
        return parse_pylock(lock.read_text(), target)


def install(packages: Sequence[LockedPackage], target: Target, directory: Path) -> None:
    """Install exactly ``packages`` below ``directory``, each checked by its hash."""
    with tempfile.TemporaryDirectory(prefix="mlpack-") as folder:
        listed = Path(folder) / "requirements.txt"
        lines = (
            f"{each.name}=={each.version} " + " ".join(f"--hash={hash}" for hash in each.hashes)
            for each in packages
        )
        listed.write_text("\n".join(lines) + "\n")
        # Copied and not linked: the files are changed here, and uv's cache must not be.
        _uv(
            folder,
            "pip", "install", *target.arguments, "--require-hashes", "--no-deps",
            *("--no-compile-bytecode", "--link-mode", "copy"),
            *("--target", str(directory), "--requirements", str(listed)),
        )  # fmt: skip


def runtime_packages(gpu: bool) -> tuple[str, ...]:
    """What the runtime imports, with one of the two builds of onnxruntime."""
    return tuple(str(each) for each in on_gpu(map(Requirement, RUNTIME))) if gpu else RUNTIME


def merge(requirements: Collection[Requirement], *, gpu: bool = False) -> tuple[str, ...]:
    """The runtime's requirements and the project's as lines, in one order.

    >>> merge([Requirement("numpy>=2")])[:3]
    ('httptools', 'numpy', 'numpy>=2')
    """
    return tuple(sorted({*runtime_packages(gpu), *(str(each) for each in requirements)}))


def parse_pins(text: str) -> Mapping[str, tuple[str, frozenset[str]]]:
    """Version and requirers by name, of what ``uv pip compile --annotation-style line`` writes."""
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
    """Versions by name, without what only left-out tools import.

    A package asked for with an extra (``onnxruntime[symbolic]``) keeps all it needs.
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
    """Those of ``names`` that nothing but ``owner``, or another of them, asks for."""
    spared = {name for name in names if name in pins}
    while outside := {name for name in spared if not pins[name][1] <= {owner, *spared}}:
        spared -= outside
    return spared


def parse_pylock(text: str, target: Target) -> tuple[LockedPackage, ...]:
    """The wheel of each package that fits ``target``, from a pylock.toml (PEP 751)."""
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


def _uv(folder: str, *arguments: str) -> None:
    """Run uv in ``folder``, where no settings of another project lie."""
    # Our own Python does for any target; else uv would look for one of the target's version,
    # and download it.
    python = ("--python", sys.executable, "--no-python-downloads")
    command = [find_uv(), *arguments, *python, *_QUIET]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPackages("uv could not do it: " + _reason(done.stderr))


def find_uv() -> str:
    """The ``uv`` beside this Python, or on the path; raise :class:`NoUv`."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise NoUv("uv, which chooses and installs Python packages, is not there")
    return found


def _reason(text: str) -> str:
    """uv's message in one line, without its drawing of a tree."""
    # Box drawing, geometric shapes, and a multiplication sign for a cross.
    words = re.sub("[\u2500-\u25ff\u00d7]+", " ", text).split()
    return " ".join(words) or "it gave no reason"
