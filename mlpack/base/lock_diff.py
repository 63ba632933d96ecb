"""Comparing two locked bases: what changed, and whether a rebuilt one is the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mlpack.errors import MlpackError
from mlpack.model.lock import DebianPackage, LockedBase, LockedPackage, LockedPlatform


class NotReproduced(MlpackError):
    """A base rebuilt from its lock that is not the same."""

    hint = "make a new base, which every device fetches once, with: mlpack base build --upgrade"


def changes(old: LockedBase, new: LockedBase) -> tuple[str, ...]:
    """Return what is different in ``new``, one line each; empty if both are the same base."""
    found: list[str] = []
    if old.source != new.source:
        found.append(f"from: {old.source} -> {new.source}")
    if old.packing != new.packing:
        found.append(f"layers: {old.packing} -> {new.packing}")
    before = {each.platform: each for each in old.platforms}
    after = {each.platform: each for each in new.platforms}
    found += [f"platform {each} is gone" for each in before if each not in after]
    for platform, locked in after.items():
        if platform not in before:
            found.append(f"platform {platform} is new")
        else:
            found += [f"{platform}: {line}" for line in _changed(before[platform], locked)]
    return tuple(found)


def check_same(old: LockedBase, new: LockedBase) -> None:
    """Raise :class:`NotReproduced` with the first layer of ``new`` that differs from ``old``."""
    for locked in old.platforms:
        made = new.on(locked.platform)
        layers = made.layers if made else ()
        if len(layers) != len(locked.layers):
            raise NotReproduced(
                f"{locked.platform}: the lock has {len(locked.layers)} layers, "
                f"{len(layers)} were made"
            )
        for ours, theirs in zip(layers, locked.layers, strict=True):
            if ours != theirs:
                raise NotReproduced(
                    f"{locked.platform}: layer {theirs.role!r} came out as "
                    f"{ours.layer.digest.short}, the lock has {theirs.layer.digest.short}"
                )
    if old.index != new.index:
        raise NotReproduced(
            f"the base came out as {new.index.digest.short}, the lock has {old.index.digest.short}"
        )


def _changed(old: LockedPlatform, new: LockedPlatform) -> Iterator[str]:
    yield from _versions(old.debian, new.debian, " (Debian)")
    yield from _versions(old.python, new.python, "")
    for role in ("source", "runtime", "entry"):
        layers = [each for each in old.layers if each.role == role]
        if layers != [each for each in new.layers if each.role == role]:
            yield f"the {role} layer"


_Packages = Iterable[DebianPackage | LockedPackage]


def _versions(old: _Packages, new: _Packages, kind: str) -> Iterator[str]:
    olds, news = ({each.name: each.version for each in packages} for packages in (old, new))
    for name in sorted({*olds, *news}):
        before, after = olds.get(name), news.get(name)
        if before != after:
            yield f"{name}{kind}: {before or 'not there'} -> {after or 'not there'}"
