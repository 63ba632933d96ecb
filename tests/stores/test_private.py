"""Files with a secret: their mode, and the line that keeps git from them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlpack.stores.private import write_private


def test_the_owner_alone_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "out" / "deployment.json"
    write_private(path, b"one")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o600)
    path.chmod(0o644)
    write_private(path, b"two")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o600)
    # No repository, no .gitignore.
    assert [each.name for each in path.parent.iterdir()] == ["deployment.json"]


@pytest.mark.parametrize(
    "name", ["deployment.json", "a b.json", "#x", "!x", "a*b[1]?.json", "back\\slash", "end ", "é"]
)
def test_git_leaves_it_out(tmp_path: Path, name: str) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    folder = tmp_path / "deploy"
    other = folder / "aXb1Y.json"
    write_private(folder / name, b"secret")
    write_private(folder / name, b"secret")
    other.write_bytes(b"")
    said = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--porcelain", "-z", "-uall"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.split("\0")[:-1] == ["?? deploy/.gitignore", f"?? deploy/{other.name}"]
    assert len((folder / ".gitignore").read_text().splitlines()) == 1


def test_what_git_leaves_out_already_stays_so(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("*.log\n/d.json")
    write_private(tmp_path / "d.json", b"")
    assert (tmp_path / ".gitignore").read_text() == "*.log\n/d.json"
    write_private(tmp_path / "e.json", b"")
    assert (tmp_path / ".gitignore").read_text() == "*.log\n/d.json\n/e.json\n"
