"""Debian package lists as values: what a package needs, and which packages that makes.

Follows deb-control(5), deb-version(7) and Debian Policy chapter 7.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cmp_to_key
from itertools import zip_longest

from mlpack.errors import MlpackError

_RELATION = re.compile(
    r"\s*(?P<name>[a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?"
    r"(?:\s*\(\s*(?P<operator><<|<=|=|>=|>>)\s*(?P<version>[^\s)]+)\s*\))?\s*"
)
_PARTS = re.compile(r"(\d+)")


class NoSuchPackage(MlpackError):
    """A Debian package that the archive does not have, or not as another one needs it."""

    hint = "check [base] packages in mlpack.toml at https://packages.debian.org"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package of an archive, as its list describes it."""

    name: str
    version: str
    architecture: str
    location: str
    """Where the .deb is: its URL."""

    size: int
    sha256: str
    needs: tuple[tuple[Relation, ...], ...] = ()
    """Depends and Pre-Depends: of each group one alternative is enough."""

    provides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Relation:
    """A package and the versions of it that will do."""

    name: str
    operator: str = ""
    version: str = ""

    def admits(self, version: str) -> bool:
        """Whether ``version`` satisfies this relation."""
        order = compare_versions(version, self.version) if self.operator else 0
        return {
            "": True,
            "<<": order < 0,
            "<=": order <= 0,
            "=": order == 0,
            ">=": order >= 0,
            ">>": order > 0,
        }[self.operator]


def parse_stanza(text: str, root: str) -> Package:
    """Read one paragraph of a package list; ``root`` is the URL of its archive."""
    fields = parse_fields(text)
    try:
        groups = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
        return Package(
            name=fields["Package"],
            version=fields["Version"],
            architecture=fields["Architecture"],
            location=f"{root}/{fields['Filename']}",
            size=int(fields["Size"]),
            sha256=fields["SHA256"],
            needs=tuple(parse_relations(groups)),
            provides=tuple(g[0].name for g in parse_relations(fields.get("Provides", ""))),
        )
    except (KeyError, ValueError) as error:
        name = fields.get("Package", "?")
        raise MlpackError(f"the package list of {root} is damaged at {name} ({error})") from error


def parse_fields(text: str) -> dict[str, str]:
    """The fields of one paragraph; of a field over several lines, the first (deb-control(5))."""
    lines = (line.partition(":") for line in text.splitlines() if not line[:1].isspace())
    return {key: value.strip() for key, separator, value in lines if separator}


def parse_relations(text: str) -> Iterable[tuple[Relation, ...]]:
    """Read a ``Depends`` field: groups divided by commas, alternatives by bars."""
    for group in filter(None, (part.strip() for part in text.split(","))):
        yield tuple(_relation(alternative) for alternative in group.split("|"))


def compare_versions(one: str, other: str) -> int:
    """Below, equal to or above 0 as ``one`` is older, the same or newer (deb-version(7)).

    >>> compare_versions("2.36-9+deb12u10", "2.36-9+deb12u9") > 0
    True
    >>> compare_versions("1.0~rc1", "1.0") < 0
    True
    """
    (epoch, upstream, revision), (epochs, upstreams, revisions) = map(_split_version, (one, other))
    return (
        epoch - epochs or _compare_parts(upstream, upstreams) or _compare_parts(revision, revisions)
    )


VERSION_ORDER = cmp_to_key(compare_versions)
"""Sorts versions, oldest first."""


def closure(
    roots: Iterable[str],
    candidates: Callable[[str], Collection[Package]],
    *,
    left_out: Mapping[str, Collection[str]],
    held: Mapping[str, str] | None = None,
) -> tuple[Package, ...]:
    """Every package that ``roots`` need, themselves included, in the order of their names.

    ``candidates`` gives the packages of a name, or that provide it. Of several
    versions the newest is taken, or the one in ``held`` where it is on offer.
    ``left_out`` says of which packages which needs are not followed (``*`` is
    any package). Raises :class:`NoSuchPackage`.
    """
    chosen: dict[str, Package] = {}
    waiting: list[tuple[tuple[Relation, ...], str]] = [
        ((Relation(name),), "") for name in sorted(set(roots), reverse=True)
    ]
    everywhere = frozenset(left_out.get("*", ()))
    while waiting:
        group, wanted_by = waiting.pop()
        skipped = everywhere | frozenset(left_out.get(wanted_by, ()))
        if wanted_by and any(each.name in skipped for each in group):
            continue
        if _satisfied(group, chosen.values()):
            continue
        package = _choose(group, candidates, held or {}, wanted_by)
        chosen[package.name] = package
        waiting += [(needed, package.name) for needed in reversed(package.needs)]
    return tuple(chosen[name] for name in sorted(chosen))


def _satisfied(group: tuple[Relation, ...], chosen: Iterable[Package]) -> bool:
    packages = tuple(chosen)
    return any(
        (each.name == relation.name and relation.admits(each.version))
        or relation.name in each.provides
        for relation in group
        for each in packages
    )


def _choose(
    group: tuple[Relation, ...],
    candidates: Callable[[str], Collection[Package]],
    held: Mapping[str, str],
    wanted_by: str,
) -> Package:
    for relation in group:
        offered = candidates(relation.name)
        real = [p for p in offered if p.name == relation.name and relation.admits(p.version)]
        kept = [p for p in real if held.get(p.name) == p.version]
        if real:
            return (kept or sorted(real, key=lambda p: VERSION_ORDER(p.version)))[-1]
        provided = sorted((p for p in offered if p.name != relation.name), key=lambda p: p.name)
        if provided and not relation.operator:
            return provided[0]
    wanted = " | ".join(
        f"{r.name} ({r.operator} {r.version})" if r.operator else r.name for r in group
    )
    by = f", which {wanted_by} needs" if wanted_by else ""
    raise NoSuchPackage(f"the Debian archive has no package {wanted}{by}")


def _relation(text: str) -> Relation:
    found = _RELATION.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not a relation")
    return Relation(found["name"], found["operator"] or "", found["version"] or "")


def _split_version(text: str) -> tuple[int, str, str]:
    """Epoch, upstream version and revision; an absent one is 0 or empty."""
    epoch, colon, rest = text.partition(":")
    if not colon:
        epoch, rest = "0", text
    upstream, hyphen, revision = rest.rpartition("-")
    return int(epoch), upstream if hyphen else rest, revision if hyphen else ""


def _compare_parts(one: str, other: str) -> int:
    """Compare texts and numbers in turn, a missing one as the empty text and as 0."""
    for left, right in zip_longest(_PARTS.split(one), _PARTS.split(other), fillvalue=""):
        if (left or right).isdigit():
            order = int(left or 0) - int(right or 0)
        else:
            order = _compare_texts(left, right)
        if order:
            return order
    return 0


def _compare_texts(one: str, other: str) -> int:
    # The end of a text ranks 0, between a tilde and everything else.
    left, right = ([*map(_rank, text), 0] for text in (one, other))
    return (left > right) - (left < right)


def _rank(char: str) -> int:
    """A tilde comes before the end of the text, then letters, then all else."""
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256
