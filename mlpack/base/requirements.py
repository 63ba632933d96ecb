"""What a project and its model require of the base: may a release be built on it as it is?

``requirements.in`` is held against the lock, a model against the onnxruntime in the base, without
loading it, and the locked base must be complete, and the one that mlpack.toml describes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlpack.errors import MlpackError
from mlpack.model.lock import Lock, LockedPlatform
from mlpack.model.version import ModelVersion
from mlpack.oci.descriptor import Platform
from mlpack.oci.image import Image
from mlpack.project.directory import ProjectDirectory, read_text
from mlpack.stores.store import Corrupt, NotFound, read_image

PYTHON = "3.11"
"""The Python of the base: Debian bookworm's."""

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


ONNXRUNTIME, ONNXRUNTIME_GPU = "onnxruntime", "onnxruntime-gpu"
"""Two builds of one package, which overwrite each other where both are installed."""


class InvalidRequirements(MlpackError):
    """A line of ``requirements.in`` that is not a requirement."""

    hint = "write one requirement a line, as in: numpy>=2.0 (no options, no files)"


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
                f"{file} line {number}: {read.name} is required from an address, and a base is "
                "made from packages of an index",
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
    requirements: tuple[Requirement, ...], locked: LockedPlatform, file: str
) -> Iterator[str]:
    """Yield a message for each requirement in ``file`` that ``locked`` does not meet."""
    held = {canonicalize_name(each.name): each.version for each in locked.python}
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate(_environment(locked.platform)):
            continue
        version = held.get(canonicalize_name(requirement.name), "")
        if not version or not requirement.specifier.contains(version, prereleases=True):
            required = str(requirement.specifier) or "any version"
            there = f"has {version}" if version else "does not have it"
            yield f"{requirement.name}: {file} requires {required}, mlpack.lock {there}"


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


ONNX, ML = "ai.onnx", "ai.onnx.ml"

OLDEST_OPSET = 7
"""Below this nothing is promised (the same page): some operators load, others do not."""

_OWN = {
    "ai.onnx.preview.training": 1,
    "ai.onnx.training": 1,
    "com.microsoft": 1,
    "com.microsoft.experimental": 1,
    "com.microsoft.nchwc": 1,
    "org.pytorch.aten": 1,
}
"""Domains all measured releases know, and the highest opset they take of each."""


class Support:
    """What one onnxruntime release takes: per domain the highest opset, and the file format."""

    def __init__(self, *, onnx: int, ml: int, ir: int, preview: bool = False) -> None:
        self.ir = ir
        domains = {ONNX: onnx, ML: ml, "com.ms.internal.nhwc": onnx, **_OWN}
        self.opsets: Mapping[str, int] = domains | ({"ai.onnx.preview": 1} if preview else {})


_OPSET_26 = Support(onnx=26, ml=5, ir=13)
_WITH_PREVIEW = Support(onnx=26, ml=5, ir=13, preview=True)
# The table was measured by loading models of one operator into each release from
# the package index (the last patch release of each minor one, CPU build, linux
# x86-64) with ever higher numbers, and agrees with the project's own table where
# that goes (https://onnxruntime.ai/docs/reference/compatibility.html, *ONNX opset
# support*). What it cannot tell: whether a kernel exists for every operator and
# element type within a supported opset.
SUPPORT: Mapping[tuple[int, int], Support] = {
    (1, 16): Support(onnx=19, ml=3, ir=9),
    (1, 17): Support(onnx=20, ml=4, ir=9),
    (1, 18): Support(onnx=21, ml=5, ir=10),
    (1, 19): Support(onnx=21, ml=5, ir=10),
    (1, 20): Support(onnx=21, ml=5, ir=10),
    (1, 21): Support(onnx=22, ml=5, ir=10),
    (1, 22): Support(onnx=22, ml=5, ir=10),
    (1, 23): Support(onnx=23, ml=5, ir=11),
    (1, 24): Support(onnx=25, ml=5, ir=13),
    (1, 25): _OPSET_26,
    (1, 26): _OPSET_26,
    (1, 27): _OPSET_26,
    (1, 28): _WITH_PREVIEW,
    (1, 29): _WITH_PREVIEW,
    (1, 30): _WITH_PREVIEW,
    (1, 31): _WITH_PREVIEW,
    (1, 32): Support(onnx=28, ml=5, ir=14, preview=True),
}
NEWEST = max(SUPPORT)


def unsupported(version: ModelVersion, onnxruntime: str) -> str | None:
    """Return why onnxruntime ``onnxruntime`` cannot load the model, or ``None``.

    ``None`` also if it is not known (then :func:`uncertain` has the reason).
    Operators of domains that no release has are refused unless a script may register them.
    """
    release = _release(onnxruntime)
    support = SUPPORT.get(release) if release else None
    beyond = _beyond(version, support, f"onnxruntime {onnxruntime}") if support else ()
    custom = () if version.scoring else _custom(version)
    return "; ".join([*custom, *beyond]) or None


def uncertain(version: ModelVersion, onnxruntime: str) -> str | None:
    """Return what is not known about this model on this onnxruntime, or ``None``.

    A release newer than the table runs all that the newest measured one runs,
    as onnxruntime promises; only what goes beyond that is uncertain.
    """
    doubts = [*_doubts(version)]
    if unmeasured := _unmeasured(version, onnxruntime):
        doubts.append(unmeasured)
    return "; ".join(doubts) or None


def _doubts(version: ModelVersion) -> Iterator[str]:
    """Yield what only an attempt can tell, whatever the release."""
    declared = version.opsets.get(ONNX)
    if declared is not None and declared < OLDEST_OPSET:
        yield (
            f"its opset {declared} is older than {OLDEST_OPSET}, of which onnxruntime loads some "
            "operators and not others"
        )
    if version.scoring:
        yield from (f"{each}: its script must register them" for each in _custom(version))


def _unmeasured(version: ModelVersion, onnxruntime: str) -> str | None:
    release = _release(onnxruntime)
    if not version.opsets or release in SUPPORT:
        return None
    if release is not None and release > NEWEST and not [*_beyond(version, SUPPORT[NEWEST], "")]:
        return None
    oldest, newest = (".".join(map(str, each)) for each in (min(SUPPORT), NEWEST))
    return (
        f"whether onnxruntime {onnxruntime or 'of unknown version'} loads {version} is not known "
        f"(measured: {oldest} to {newest})"
    )


def newest_opset(onnxruntime: str) -> int:
    """Return the newest opset of ONNX's own operators that onnxruntime ``onnxruntime`` loads.

    >>> newest_opset("1.20.1"), newest_opset("1.99.0"), newest_opset("unknown")
    (21, 28, 19)
    """
    release = _release(onnxruntime) or min(SUPPORT)
    known = [each for each in SUPPORT if each <= release] or [min(SUPPORT)]
    return SUPPORT[max(known)].opsets[ONNX]


def _custom(version: ModelVersion) -> Iterator[str]:
    known = SUPPORT[NEWEST].opsets
    for domain in version.domains:
        if domain not in known:
            yield f"it uses custom operators of the domain {domain}, which onnxruntime lacks"


def _beyond(version: ModelVersion, support: Support, release: str) -> Iterator[str]:
    # A declared opset counts even where no operator of it is used: onnxruntime checks
    # the declarations of every domain it knows, and ignores those it does not know.
    for domain, opset in sorted(version.opsets.items()):
        most = support.opsets.get(domain, opset)
        if opset > most:
            yield f"its opset {opset} of {domain} is beyond {most}, the newest of {release}"
    for domain in version.domains:
        if domain not in support.opsets and domain in SUPPORT[NEWEST].opsets:
            yield f"it uses operators of the domain {domain}, which {release} lacks"
    if version.ir_version > support.ir:
        yield (
            f"its ONNX file format (IR) {version.ir_version} is beyond {support.ir}, "
            f"the newest of {release}"
        )


def _release(onnxruntime: str) -> tuple[int, int] | None:
    major, _, rest = onnxruntime.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


NEW_BASE = (
    "make a new base, which every device fetches once: mlpack base build; "
    "or put back what was changed"
)


class BaseDisagrees(MlpackError):
    """The locked base is not the one that mlpack.toml describes."""

    hint = NEW_BASE


class UnsupportedModel(MlpackError):
    """A model that the onnxruntime of the base cannot load."""


def locked_platforms(
    project: ProjectDirectory, lock: Lock, asked: Sequence[Platform]
) -> tuple[LockedPlatform, ...]:
    """The base's platforms to build for; all of mlpack.toml's if none is requested."""
    wanted = tuple(dict.fromkeys(asked)) or project.settings.base.platforms
    found = [(platform, lock.base.on(platform)) for platform in wanted]
    missing = ", ".join(str(platform) for platform, locked in found if locked is None)
    if missing:
        held = ", ".join(str(each.platform) for each in lock.base.platforms)
        raise BaseDisagrees(
            f"the base is for {held}; it has nothing for {missing}",
            hint="add it to [base] platforms in mlpack.toml and run: mlpack base build",
        )
    # Two names of one platform ask for one image.
    chosen = {locked.platform: locked for _, locked in found if locked is not None}
    return tuple(chosen.values())


def check_base(project: ProjectDirectory, lock: Lock, chosen: Sequence[LockedPlatform]) -> None:
    """Raise :class:`BaseDisagrees` unless the locked base is the one mlpack.toml describes."""
    wanted = project.settings.base
    if wanted.source != lock.base.source:
        raise BaseDisagrees(
            f"mlpack.toml names a base from {wanted.source}, mlpack.lock has {lock.base.source}"
        )
    if any(each.gpu != wanted.gpu for each in chosen):
        asked, held = ("with", "without") if wanted.gpu else ("without", "with")
        raise BaseDisagrees(f"mlpack.toml names a base {asked} gpu, mlpack.lock has one {held}")
    file = project.path(wanted.requirements)
    if not file.is_file():
        raise BaseDisagrees(
            f"{wanted.requirements} is missing, and mlpack.lock was made from it",
            hint="restore the file, or name another in [base] requirements",
        )
    text = read_text(file, InvalidRequirements)
    requirements = parse_requirements(text, wanted.requirements)
    if wanted.gpu:
        requirements = on_gpu(requirements)
    found = (disagreements(requirements, each, wanted.requirements) for each in chosen)
    if problems := dict.fromkeys(chain.from_iterable(found)):
        raise BaseDisagrees("; ".join(problems))


def check_runtime(model: ModelVersion, chosen: Sequence[LockedPlatform]) -> None:
    """Raise :class:`UnsupportedModel` if a platform's onnxruntime cannot load the model."""
    for locked in chosen:
        reason = unsupported(model, locked.onnxruntime)
        if reason:
            raise UnsupportedModel(
                f"{model.name}:{model.version} cannot run on the base: {reason}",
                hint="export the model again for what the base's onnxruntime supports, "
                "or change onnxruntime in the requirements and run: mlpack base build",
            )


def base_image(project: ProjectDirectory, locked: LockedPlatform) -> Image:
    """Read the locked base of a platform; raise :class:`BaseDisagrees` if it is not whole."""
    try:
        image = read_image(project.layout, locked.manifest)
    except (NotFound, Corrupt) as error:
        raise BaseDisagrees(
            f"the locked base for {locked.platform} is not whole in this store ({error})",
            hint="make it from the lock: mlpack base build",
        ) from error
    if image.layers != tuple(each.layer for each in locked.layers):
        raise BaseDisagrees(f"the base for {locked.platform} has other layers than mlpack.lock")
    return image
