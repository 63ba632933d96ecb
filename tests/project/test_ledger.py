"""The ledger on a real file, read and written by real processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from mlpack.oci.descriptor import Digest
from mlpack.project.ledger import (
    Ledger,
    LedgerError,
    ReleaseRecord,
    RolloutRecord,
    UnknownRelease,
    UnknownRollout,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def release(version: str = "1", *, name: str = "fan", created: datetime = NOON) -> ReleaseRecord:
    return ReleaseRecord(
        digest=Digest.of(f"{name} {version}".encode()),
        name=name,
        version=version,
        model_digest=Digest.of(b"model"),
        base_digest=Digest.of(b"base"),
        strategy="layer",
        layer_digest=Digest.of(b"layer"),
        layer_bytes=6188,
        identity={"packing": {"revision": 1}, "tool": "mlpack 1 é"},
        created=created,
    )


def rollout(of: ReleaseRecord, *, group: str = "vans") -> RolloutRecord:
    return RolloutRecord(
        group=group,
        release_digest=of.digest,
        devices=1000,
        planned={"total": 21_950, "money": "0.66"},
        created=NOON,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / ".mlpack" / "ledger.db")


def test_a_release_comes_back_as_it_was_recorded(ledger: Ledger) -> None:
    assert ledger.record_release(release())
    assert ledger.releases() == (release(),)
    assert ledger.release(release().digest) == release()
    assert ledger.release(Digest.of(b"other")) is None


def test_recording_a_release_again_changes_nothing(ledger: Ledger) -> None:
    ledger.record_release(release())
    later = replace(release(), created=NOON + timedelta(days=1), strategy="patch")
    assert not ledger.record_release(later)
    assert ledger.releases() == (release(),)


def test_releases_are_listed_by_model_as_they_were_recorded_whatever_the_clock_showed(
    ledger: Ledger,
) -> None:
    east = timezone(timedelta(hours=9))
    # 19:00 in the east is 10:00 UTC, before noon.
    early = release("2", created=datetime(2026, 11, 20, 19, tzinfo=east))
    for each in (release("10"), early, release("9"), release("1", name="door")):
        ledger.record_release(each)
    assert [each.version for each in ledger.releases("fan")] == ["10", "2", "9"]
    assert ledger.releases("fan")[1].created == early.created
    assert [each.name for each in ledger.releases("door")] == ["door"]
    assert len(ledger.releases()) == 4
    assert ledger.releases("window") == ()


def test_a_rollout_is_planned_and_later_measured(ledger: Ledger) -> None:
    ledger.record_release(release())
    number = ledger.record_rollout(rollout(release()))
    other = ledger.record_rollout(rollout(release(), group="drones"))
    assert ledger.rollouts() == (rollout(release()), rollout(release(), group="drones"))
    assert [each.id for each in ledger.rollouts()] == [number, other]
    ledger.record_measured(number, {"total": 22_001})
    assert ledger.rollouts("vans") == (replace(rollout(release()), measured={"total": 22_001}),)
    assert ledger.rollouts("drones")[0].measured is None


def test_a_rollout_needs_its_release(ledger: Ledger) -> None:
    with pytest.raises(UnknownRelease, match=f"has no release {release().digest}"):
        ledger.record_rollout(rollout(release()))
    with pytest.raises(UnknownRollout, match="has no rollout 7"):
        ledger.record_measured(7, {})
    assert ledger.rollouts() == ()


def test_reading_where_nothing_was_written_makes_no_file(ledger: Ledger) -> None:
    assert (ledger.releases(), ledger.rollouts()) == ((), ())
    assert not ledger.path.parent.exists()


def test_a_failed_transaction_leaves_nothing(ledger: Ledger) -> None:
    ledger.record_release(release())
    with pytest.raises(LedgerError, match="CHECK constraint failed"):
        ledger.record_release(replace(release("2"), layer_bytes=-1))
    assert ledger.releases() == (release(),)


def test_it_is_in_write_ahead_mode(ledger: Ledger) -> None:
    ledger.record_release(release())
    with closing(sqlite3.connect(ledger.path)) as opened:
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.project.test_ledger import NOON, release, rollout
from mlpack.project.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(10):
    ledger.record_release(release(f"{sys.argv[2]}.{number}"))
    ledger.record_release(release("shared"))
    ledger.record_rollout(rollout(release("shared"), group=sys.argv[2]))
"""


def test_processes_that_start_at_once_all_write(ledger: Ledger) -> None:
    root = str(Path(__file__).resolve().parents[2])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(ledger.path), str(number), root],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    said = [writer.communicate(timeout=120)[1] for writer in writers]
    assert said == [""] * 4
    assert len(ledger.releases()) == 41
    assert len({each.id for each in ledger.rollouts()}) == 40


def test_a_writer_that_dies_leaves_no_half_record(ledger: Ledger) -> None:
    ledger.record_release(release())
    code = (
        "import os, sqlite3, sys\n"
        "opened = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "opened.execute('BEGIN IMMEDIATE')\n"
        "opened.execute(\"UPDATE releases SET name = 'lost'\")\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(ledger.path)]).returncode == 9
    assert ledger.releases() == (release(),)
    assert ledger.record_release(release("2"))


def broken(ledger: Ledger, content: bytes) -> LedgerError:
    for beside in ledger.path.parent.glob("ledger.db*"):
        beside.unlink()
    ledger.path.write_bytes(content)
    with pytest.raises(LedgerError) as caught:
        ledger.releases()
    assert str(ledger.path) in str(caught.value)
    return caught.value


def test_what_is_no_database_is_said_so(ledger: Ledger) -> None:
    ledger.record_release(release())
    error = broken(ledger, b"not a database at all" * 100)
    assert "file is not a database" in str(error)
    assert "move the file away" in error.hint
    with pytest.raises(LedgerError):
        ledger.record_release(release())
    assert ledger.path.read_bytes() == b"not a database at all" * 100


def test_a_torn_ledger_is_said_so(ledger: Ledger) -> None:
    for number in range(50):
        ledger.record_release(release(str(number)))
    with closing(sqlite3.connect(ledger.path)) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = ledger.path.read_bytes()
    assert "move the file away" in broken(ledger, whole[: len(whole) // 3]).hint


def test_an_empty_file_is_a_new_ledger(ledger: Ledger) -> None:
    ledger.path.parent.mkdir()
    ledger.path.touch()
    assert ledger.releases() == ()
    assert ledger.record_release(release())


def test_a_ledger_of_a_later_mlpack_is_left_alone(ledger: Ledger) -> None:
    ledger.record_release(release())
    with closing(sqlite3.connect(ledger.path)) as opened:
        opened.execute("PRAGMA user_version = 2")
    with pytest.raises(LedgerError, match="has format 2, this mlpack reads 1") as caught:
        ledger.record_release(release("2"))
    assert caught.value.hint == "use the mlpack that wrote it"


def test_a_record_that_was_edited_into_nonsense_is_said_so(ledger: Ledger) -> None:
    ledger.record_release(release())
    with closing(sqlite3.connect(ledger.path)) as opened, opened:
        opened.execute("UPDATE releases SET base_digest = 'sha256:xyz'")
    with pytest.raises(LedgerError, match="has a damaged record: 'sha256:xyz' is not a digest"):
        ledger.releases()
