"""The ledger: releases as they were made, rollouts planned and measured, aliases as they moved.

One SQLite file per project (``.mlpack/ledger.db``), in write-ahead mode, so several
processes may write it at once and a killed one leaves whole records only. It is a
record, not a source: deleting it loses history and breaks no build.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Digest, canonical, parse
from mlpack.stores.files import locked, make_folder

T = TypeVar("T")

SCHEMA = 1
"""``PRAGMA user_version`` of the tables below."""

WAIT_SECONDS = 30.0
"""How long a writer waits for another process's transaction."""

_TABLES = """
CREATE TABLE releases (
    digest        TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    version       TEXT NOT NULL,
    model_digest  TEXT NOT NULL,
    base_digest   TEXT NOT NULL,
    strategy      TEXT NOT NULL,
    layer_digest  TEXT NOT NULL,
    layer_bytes   INTEGER NOT NULL CHECK (layer_bytes >= 0),
    identity      TEXT NOT NULL,
    created       TEXT NOT NULL
) STRICT;
CREATE INDEX releases_by_name ON releases (name, created);
CREATE TABLE rollouts (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    device_group   TEXT NOT NULL,
    release_digest TEXT NOT NULL REFERENCES releases (digest),
    devices        INTEGER NOT NULL CHECK (devices >= 0),
    planned        TEXT NOT NULL,
    measured       TEXT,
    created        TEXT NOT NULL
) STRICT;
"""

_ALIAS_MOVES = """
CREATE TABLE IF NOT EXISTS alias_moves (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT NOT NULL,
    alias   TEXT NOT NULL,
    version TEXT NOT NULL,
    before  TEXT NOT NULL,
    created TEXT NOT NULL
) STRICT;
"""
"""Added later: an mlpack that does not know it reads the rest."""


class LedgerError(MlpackError):
    """A ledger that cannot be read or written."""


class UnknownRelease(LedgerError):
    """A rollout of a release the ledger does not know."""

    hint = "build it in this project: mlpack build NAME:VERSION"


class UnknownRollout(LedgerError):
    """A measurement of a rollout the ledger does not know."""


@dataclass(frozen=True, kw_only=True)
class ReleaseRecord:
    """A release as it was made."""

    digest: Digest
    """The digest that deployments name: of the image, or of the index of several platforms."""

    name: str
    version: str
    model_digest: Digest
    base_digest: Digest
    strategy: str
    """``layer``, ``packed`` or ``patch``."""

    layer_digest: Digest
    layer_bytes: int
    identity: Mapping[str, object]
    """Everything that decided the release's bytes, as JSON."""

    created: datetime
    """In UTC."""


@dataclass(frozen=True, kw_only=True)
class RolloutRecord:
    """A release sent to a device group; ``id`` is 0 until it is recorded."""

    group: str
    release_digest: Digest
    devices: int
    planned: Mapping[str, object]
    created: datetime
    measured: Mapping[str, object] | None = None
    id: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """An alias that was made, moved or deleted."""

    name: str
    alias: str
    version: str
    """Empty if it was deleted."""

    before: str
    """Empty if it was new."""

    created: datetime


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger at ``path``; one that does not exist is empty, and is made by the first record."""

    path: Path

    def record_release(self, release: ReleaseRecord) -> bool:
        """Record ``release``; return whether it is new. The first record of a digest stays."""
        with self._open() as ledger:
            changed = ledger.execute(
                "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (digest) DO NOTHING",
                (
                    str(release.digest),
                    release.name,
                    release.version,
                    str(release.model_digest),
                    str(release.base_digest),
                    release.strategy,
                    str(release.layer_digest),
                    release.layer_bytes,
                    _dump(release.identity),
                    _moment(release.created),
                ),
            )
            return changed.rowcount == 1

    def releases(self, name: str = "") -> tuple[ReleaseRecord, ...]:
        """Return the releases of model ``name``, or of all models, the one recorded first first."""
        every = "SELECT * FROM releases WHERE ? IN ('', name) ORDER BY rowid"
        return tuple(self._parsed(_release, row) for row in self._rows(every, name))

    def release(self, digest: Digest) -> ReleaseRecord | None:
        """Return the release with this digest, or ``None``."""
        rows = self._rows("SELECT * FROM releases WHERE digest = ?", str(digest))
        return self._parsed(_release, rows[0]) if rows else None

    def record_rollout(self, rollout: RolloutRecord) -> int:
        """Record ``rollout`` and return its number; raise :class:`UnknownRelease`."""
        with self._open() as ledger:
            digest = str(rollout.release_digest)
            if not ledger.execute("SELECT 1 FROM releases WHERE digest = ?", (digest,)).fetchone():
                raise UnknownRelease(f"{self.path} has no release {digest}")
            added = ledger.execute(
                "INSERT INTO rollouts"
                " (device_group, release_digest, devices, planned, measured, created)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    rollout.group,
                    digest,
                    rollout.devices,
                    _dump(rollout.planned),
                    None if rollout.measured is None else _dump(rollout.measured),
                    _moment(rollout.created),
                ),
            )
            return int(added.lastrowid or 0)

    def record_measured(self, rollout: int, measured: Mapping[str, object]) -> None:
        """Record what a rollout really took; raise :class:`UnknownRollout`."""
        with self._open() as ledger:
            changed = ledger.execute(
                "UPDATE rollouts SET measured = ? WHERE id = ?", (_dump(measured), rollout)
            )
            if changed.rowcount != 1:
                raise UnknownRollout(f"{self.path} has no rollout {rollout}")

    def rollouts(self, group: str = "") -> tuple[RolloutRecord, ...]:
        """Return the rollouts to ``group``, or to all groups, oldest first."""
        every = "SELECT * FROM rollouts WHERE ? IN ('', device_group) ORDER BY id"
        return tuple(self._parsed(_rollout, row) for row in self._rows(every, group))

    def record_alias(self, move: AliasMove) -> None:
        """Record that an alias was made, moved or deleted."""
        with self._open() as ledger:
            ledger.execute(
                "INSERT INTO alias_moves (name, alias, version, before, created)"
                " VALUES (?, ?, ?, ?, ?)",
                (move.name, move.alias, move.version, move.before, _moment(move.created)),
            )

    def alias_moves(self, name: str = "") -> tuple[AliasMove, ...]:
        """Return what became of the aliases of model ``name``, or of all models."""
        every = "SELECT * FROM alias_moves WHERE ? IN ('', name) ORDER BY id"
        return tuple(self._parsed(_alias_move, row) for row in self._rows(every, name))

    def _rows(self, query: str, value: str) -> list[sqlite3.Row]:
        if not self.path.exists():
            return []
        with self._open() as ledger:
            return ledger.execute(query, (value,)).fetchall()

    def _parsed(self, read: Callable[[sqlite3.Row], T], row: sqlite3.Row) -> T:
        try:
            return read(row)
        except ValueError as error:
            raise LedgerError(
                f"{self.path} has a damaged record: {error}", hint=_START_AGAIN
            ) from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction; errors of sqlite3 are raised as :class:`LedgerError`."""
        make_folder(self.path.parent)
        try:
            connected = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
            with closing(connected) as ledger:
                ledger.row_factory = sqlite3.Row
                self._prepare(ledger)
                ledger.execute("PRAGMA foreign_keys = ON")
                ledger.execute("BEGIN IMMEDIATE")
                ledger.execute(_ALIAS_MOVES)
                yield ledger
                ledger.execute("COMMIT")
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}", hint=_hint(error)) from error

    def _prepare(self, ledger: sqlite3.Connection) -> None:
        """Create the tables of a new ledger; refuse one that a later mlpack wrote."""
        found = _schema(ledger)
        if found == 0:
            # Changing the journal mode does not wait for another process that changes it, too.
            with locked(self.path.with_name(self.path.name + ".lock")):
                ledger.execute("PRAGMA journal_mode = WAL")
                if _schema(ledger) == 0:
                    ledger.executescript(
                        f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;"
                    )
        elif found != SCHEMA:
            raise LedgerError(
                f"{self.path} has format {found}, this mlpack reads {SCHEMA}",
                hint="use the mlpack that wrote it",
            )


_START_AGAIN = (
    "move the file away, and the next build starts a new one; releases and devices are not affected"
)


def _hint(error: sqlite3.Error) -> str:
    # Extended codes keep the primary one in their low byte (sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return {
        sqlite3.SQLITE_NOTADB: _START_AGAIN,
        sqlite3.SQLITE_CORRUPT: _START_AGAIN,
        sqlite3.SQLITE_BUSY: "another mlpack is writing it: run the command again",
        sqlite3.SQLITE_FULL: "free some disk space and run the command again",
        sqlite3.SQLITE_READONLY: "check who owns the file and its directory",
        sqlite3.SQLITE_CANTOPEN: "check who owns the file and its directory",
    }.get(code, "")


def _schema(ledger: sqlite3.Connection) -> int:
    return int(ledger.execute("PRAGMA user_version").fetchone()[0])


def _release(row: sqlite3.Row) -> ReleaseRecord:
    return ReleaseRecord(
        digest=Digest.parse(row["digest"]),
        name=row["name"],
        version=row["version"],
        model_digest=Digest.parse(row["model_digest"]),
        base_digest=Digest.parse(row["base_digest"]),
        strategy=row["strategy"],
        layer_digest=Digest.parse(row["layer_digest"]),
        layer_bytes=row["layer_bytes"],
        identity=_load(row["identity"]),
        created=datetime.fromisoformat(row["created"]),
    )


def _rollout(row: sqlite3.Row) -> RolloutRecord:
    return RolloutRecord(
        id=row["id"],
        group=row["device_group"],
        release_digest=Digest.parse(row["release_digest"]),
        devices=row["devices"],
        planned=_load(row["planned"]),
        measured=None if row["measured"] is None else _load(row["measured"]),
        created=datetime.fromisoformat(row["created"]),
    )


def _alias_move(row: sqlite3.Row) -> AliasMove:
    return AliasMove(
        name=row["name"],
        alias=row["alias"],
        version=row["version"],
        before=row["before"],
        created=datetime.fromisoformat(row["created"]),
    )


def _dump(document: Mapping[str, object]) -> str:
    return canonical(dict(document)).decode()


def _load(text: str) -> Mapping[str, object]:
    return parse(text.encode(), "ledger").mapping()


def _moment(created: datetime) -> str:
    """Format a moment in UTC, so that texts sort as moments do."""
    return created.astimezone(UTC).isoformat(timespec="seconds")
