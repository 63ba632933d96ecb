"""``mlpack tag``: aliases of model versions: made, moved, listed and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.errors import UsageError
from mlpack.interruptions import held_back
from mlpack.model.version import AT, LATEST, check_alias, parse_name
from mlpack.project.aliases import Alias, aliases, drop_alias, find_alias, keep_alias, resolved
from mlpack.project.directory import ModelStore
from mlpack.project.ledger import AliasMove, Ledger
from mlpack.project.references import releases

if TYPE_CHECKING:
    from mlpack.api.requests import TagVersion
    from mlpack.api.session import Session
    from mlpack.project.directory import ProjectDirectory


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """The aliases of a model, and what changed."""

    model: str
    alias: str = ""
    """The alias that was made, moved or deleted; empty if they were listed only."""

    version: str = ""
    """The version it names now; empty if it was deleted."""

    before: str = ""
    """The version it named before; empty if it is new."""

    aliases: tuple[Alias, ...] = ()
    """All aliases of the model."""

    moves: tuple[AliasMove, ...] = ()
    """What the ledger has of them, the first first."""

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json tag``."""
        return {
            "model": self.model,
            "alias": self.alias or None,
            "version": self.version or None,
            "before": self.before or None,
            "aliases": {each.alias: each.version for each in self.aliases},
            "moves": [
                {
                    "alias": each.alias,
                    "version": each.version or None,
                    "before": each.before or None,
                    "created": each.created,
                }
                for each in self.moves
            ],
        }


def tag(session: Session, request: TagVersion) -> Tagged:
    """Give the version ``request.model`` an alias, or delete it; without one, list the aliases.

    Raises :class:`~mlpack.project.directory.NoSuchModel`,
    :class:`~mlpack.project.aliases.NoSuchAlias`, or ``UsageError`` for an alias that looks like a
    version or a digest.
    """
    project = session.project
    name, version = parse_name(request.model)
    alias = check_alias(request.alias) if request.alias else ""
    if request.delete and not alias and version.startswith(AT):
        alias, version = version.removeprefix(AT), LATEST
    if not alias:
        if request.delete or version != LATEST:
            raise UsageError(
                f"{request.model!r} lacks an alias",
                hint=f"mlpack tag {name}:VERSION ALIAS, or to list them: mlpack tag {name}",
            )
        return _result(project, name)
    with project.exclusive(), held_back():
        layout = project.layout
        held = {each.alias: each for each in aliases(layout, name)}.get(alias)
        before = held.version if held else ""
        if request.delete:
            found, after = find_alias(layout, name, alias), ""
            if version not in (LATEST, found.version):
                raise UsageError(
                    f"{found} is {name}:{found.version}, not {name}:{version}",
                    hint=f"delete it with: mlpack tag {found} --delete",
                )
            drop_alias(layout, found)
        else:
            after = _existing(project, name, version)
            keep_alias(layout, Alias(name, alias, after))
        if after != before:
            now = session.clock.now()
            move = AliasMove(name=name, alias=alias, version=after, before=before, created=now)
            Ledger(project.ledger).record_alias(move)
    return _result(project, name, alias, after, before)


def _existing(project: ProjectDirectory, name: str, version: str) -> str:
    """Return the version, which is registered, or released only, as one that was pulled is."""
    layout = project.layout
    version = resolved(layout, name, version)
    built = list(releases(layout, name))
    if version in built:
        return version
    if built and version == LATEST and name not in ModelStore(layout).names():
        return built[-1]
    return ModelStore(layout).get(name, version).version


def _result(
    project: ProjectDirectory, name: str, alias: str = "", version: str = "", before: str = ""
) -> Tagged:
    layout = project.layout
    if not alias and not releases(layout, name) and name not in ModelStore(layout).names():
        ModelStore(layout).get(name)  # raises, naming the models there are
    return Tagged(
        model=name,
        alias=alias,
        version=version,
        before=before,
        aliases=aliases(layout, name),
        moves=Ledger(project.ledger).alias_moves(name),
    )
