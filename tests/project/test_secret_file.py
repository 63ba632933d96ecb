"""Files with a secret: their mode, and that git never keeps them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlpack.project.secret_file import Tracked, require_untracked, write_secret


def git(folder: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *args], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def test_the_owner_alone_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "out" / "deployment.json"
    assert write_secret(path, b"one") == ""
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o600)
    path.chmod(0o644)
    write_secret(path, b"two")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o600)
    assert [each.name for each in path.parent.iterdir()] == ["deployment.json"]


def test_a_file_git_would_track_is_refused(repository: Path) -> None:
    path = repository / "new" / "d.json"
    with pytest.raises(Tracked, match=r"d\.json") as refused:
        write_secret(path, b"secret")
    assert "d.json to .gitignore" in refused.value.hint
    assert not path.exists()


def test_a_file_git_ignores_is_written(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.secret.json\n")
    path = repository / "d.secret.json"
    write_secret(path, b"secret")
    assert git(repository, "status", "--porcelain") == "?? .gitignore\n"


def test_a_tracked_file_is_refused_whatever_is_ignored(repository: Path) -> None:
    path = repository / "d.json"
    path.write_bytes(b"public")
    git(repository, "add", "d.json")
    (repository / ".gitignore").write_text("d.json\n")
    with pytest.raises(Tracked):
        write_secret(path, b"secret")
    assert path.read_bytes() == b"public"


def test_where_git_cannot_tell_it_is_noted(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "make sure" in require_untracked(repository / "d.json")
    assert "make sure" in write_secret(repository / "d.json", b"secret")


def test_where_a_link_points_is_what_git_must_ignore(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitignore").write_text("secret.json\n")
    (repository / "secret.json").symlink_to("d.json")
    with pytest.raises(Tracked):
        write_secret(repository / "secret.json", b"secret")
    (repository / "d.json").symlink_to("kept/secret.json")
    write_secret(repository / "d.json", b"secret")
    assert (repository / "d.json").is_symlink()
    place = repository / "kept" / "secret.json"
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (b"secret", 0o600)
