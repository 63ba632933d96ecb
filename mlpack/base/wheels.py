"""Which wheel of a package fits a platform (PEP 425, 600, 656), and uv's name of the platform."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Platform

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_UV_GLIBC = (17, 28, *range(31, 41))
"""Minor versions of glibc 2 that uv has a name for; newer libraries can use an older one."""

_OLDEST_GLIBC = 5
_OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_MUSL = 2


class UnsupportedPlatform(MlpackError):
    """A platform without wheels."""

    hint = "a base can be made for linux/amd64 and linux/arm64: [base] platforms in mlpack.toml"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python inside a base, as far as wheels and the entry point depend on it."""

    path: str
    """Path in the image, without the first slash (``usr/bin/python3.11``)."""

    version: tuple[int, int]
    glibc: int | None
    """Minor version of glibc 2; ``None`` on musl."""

    directory: str
    """Where packages are installed, without the first slash."""

    on_path: bool = True
    """Whether this interpreter searches ``directory`` by default."""

    @property
    def short(self) -> str:
        """The version as uv expects it (``3.11``)."""
        return f"{self.version[0]}.{self.version[1]}"


def machine(platform: Platform) -> str:
    """Return the processor in wheel names; raise :class:`UnsupportedPlatform`."""
    if platform.os != "linux" or platform.architecture not in _MACHINES or platform.variant:
        raise UnsupportedPlatform(f"a base cannot be made for {platform}")
    return _MACHINES[platform.architecture]


def uv_platform(platform: Platform, python: Interpreter) -> str:
    """Return the value for ``uv --python-platform``.

    >>> debian = Interpreter("usr/bin/python3.11", (3, 11), 36, "opt")
    >>> uv_platform(Platform("linux", "arm64"), debian)
    'aarch64-manylinux_2_36'
    """
    if python.glibc is None:
        return f"{machine(platform)}-unknown-linux-musl"
    known = [each for each in _UV_GLIBC if each <= python.glibc]
    if not known:
        raise UnsupportedPlatform(f"glibc 2.{python.glibc} is older than any wheel's")
    minor = known[-1]
    name = "manylinux2014" if minor == _UV_GLIBC[0] else f"manylinux_2_{minor}"
    return f"{machine(platform)}-{name}"


def best_wheel(names: Iterable[str], platform: Platform, python: Interpreter) -> str | None:
    """Return the file name an installer would choose among ``names``; ``None`` if none fits."""
    order = {tag: rank for rank, tag in enumerate(_tags(platform, python))}
    ranked = []
    for name in names:
        try:
            tags = parse_wheel_filename(name)[3]
        except InvalidWheelFilename:
            continue
        ranks = [order[tag] for tag in tags if tag in order]
        if ranks:
            ranked.append((min(ranks), name))
    return min(ranked)[1] if ranked else None


def _tags(platform: Platform, python: Interpreter) -> Iterator[Tag]:
    platforms = list(_platforms(machine(platform), python.glibc))
    abi = f"cp{python.version[0]}{python.version[1]}"
    yield from cpython_tags(python.version, [abi], platforms)
    yield from compatible_tags(python.version, abi, platforms)


def _platforms(name: str, glibc: int | None) -> Iterator[str]:
    if glibc is None:
        yield from (f"musllinux_1_{minor}_{name}" for minor in range(_MUSL, 0, -1))
    else:
        for minor in range(glibc, _OLDEST_GLIBC - 1, -1):
            yield f"manylinux_2_{minor}_{name}"
            if minor in _OLD_NAMES:
                yield f"{_OLD_NAMES[minor]}_{name}"
    yield f"linux_{name}"
