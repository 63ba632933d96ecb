"""``requirements.in`` against the lock: may a release be built on the base as it is?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlpack.errors import MlpackError
from mlpack.model.lock import LockedPlatform
from mlpack.oci.descriptor import Platform

PYTHON = "3.11"
"""The Python of the base: Debian bookworm's."""

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


ONNXRUNTIME, ONNXRUNTIME_GPU = "onnxruntime", "onnxruntime-gpu"
"""Two builds of one package, which overwrite each other where both are installed."""


class InvalidRequirements(MlpackError):
    """A line of ``requirements.in`` that is not a requirement."""

    hint = "write one requirement a line, as in: numpy>=2.0 (no options, no files)"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A requirement the locked base does not meet."""

    package: str
    wanted: str
    """What ``requirements.in`` asks for (``==2.3.0``, or ``any version``)."""

    locked: str
    """What the lock holds; empty where the package is not in the base."""

    file: str = "requirements.in"
    """What the user calls the requirements."""

    def __str__(self) -> str:
        held = f"mlpack.lock has {self.locked}" if self.locked else "mlpack.lock does not have it"
        return f"{self.package}: {self.file} wants {self.wanted}, {held}"


def parse_requirements(text: str, file: str = "requirements.in") -> tuple[Requirement, ...]:
    """Read the requirements in ``file``; comments and empty lines are skipped."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        # A comment starts a line or follows a space: a URL may hold a hash sign.
        content = line.split(" #")[0].strip()
        if not content or content.startswith("#"):
            continue
        try:
            read = Requirement(content)
        except InvalidRequirement as error:
            problem = str(error).splitlines()[0]
            raise InvalidRequirements(
                f"{file} line {number}: {content!r} cannot be read ({problem})"
            ) from error
        if read.url:
            # The address itself is not repeated: it may hold a password.
            raise InvalidRequirements(
                f"{file} line {number}: {read.name} is asked for from an address, and a base is "
                "made of packages from an index",
                hint=f"name it by its version, as in: {read.name}>=1.0",
            )
        found.append(read)
    return tuple(found)


def on_gpu(requirements: Iterable[Requirement]) -> tuple[Requirement, ...]:
    """The requirements with onnxruntime's build for graphics processors in the other's place.

    >>> [str(each) for each in on_gpu([Requirement("onnxruntime>=1.20"), Requirement("pillow")])]
    ['onnxruntime-gpu>=1.20', 'pillow']
    """
    return tuple(_swapped(each) for each in requirements)


def _swapped(requirement: Requirement) -> Requirement:
    if canonicalize_name(requirement.name) != ONNXRUNTIME:
        return requirement
    swapped = Requirement(str(requirement))
    swapped.name = ONNXRUNTIME_GPU
    return swapped


def disagreements(
    requirements: tuple[Requirement, ...], locked: LockedPlatform, file: str = "requirements.in"
) -> tuple[Disagreement, ...]:
    """Every requirement that ``locked`` does not meet."""
    held = {canonicalize_name(each.name): each.version for each in locked.python}
    found = []
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate(_environment(locked.platform)):
            continue
        version = held.get(canonicalize_name(requirement.name), "")
        if not version or not requirement.specifier.contains(version, prereleases=True):
            wanted = str(requirement.specifier) or "any version"
            found.append(Disagreement(requirement.name, wanted, version, file))
    return tuple(found)


def _environment(platform: Platform) -> dict[str, str]:
    """The markers' variables on the device (PEP 508), where they matter to a base."""
    return {
        "os_name": "posix",
        "platform_machine": _MACHINES.get(platform.architecture, platform.architecture),
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{PYTHON}.2",
        "python_version": PYTHON,
        "sys_platform": "linux",
    }
