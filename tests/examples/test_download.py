"""Downloads of known files from a server that breaks off, knows no ranges, or has other bytes."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.download import ATTEMPTS, KnownFile, NotDownloaded, download, download_all

CONTENT = bytes(range(256)) * 4000
HALF = len(CONTENT) // 2


class Host(http.server.ThreadingHTTPServer):
    """A web server for one file, with the faults a test asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.ranges = True
        self.most = len(CONTENT)
        """Bytes after which an answer breaks off."""
        self.breaks = 0
        """How many answers break off."""
        self.status = 0
        """Answers this instead."""
        self.shift = 0
        """Where a range begins that is not where it was asked to."""
        self.declares = True
        self.asked: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has seen enough closes the connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.onnx"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        host = self.server
        asked = self.headers.get("Range", "")
        host.asked.append(asked)
        if host.status:
            self.send_error(host.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and host.ranges else 0
        body = host.content[start + host.shift :] if start else host.content
        self.send_response(206 if start else 200)
        if start:
            first, total = start + host.shift, len(host.content)
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        if host.declares:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if host.breaks:
            host.breaks -= 1
            body = body[: host.most]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(file: KnownFile, path: Path) -> None:
    """Download, without waiting between attempts."""
    download(file, path, pause=0)


def known(*hosts: Host, content: bytes = CONTENT) -> KnownFile:
    digest = hashlib.sha256(content).hexdigest()
    urls = tuple(each.url for each in hosts)
    return KnownFile(urls=urls, size=len(content), sha256=digest)


def part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def test_a_file_is_downloaded_once(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    files = {"a.onnx": known(host), "b.onnx": known(host)}
    for again in (False, True):
        download_all(files, folder)
        said = capsys.readouterr()
        places = [f"{folder}/{name}.onnx" for name in "ab"]
        assert said.out == "".join(f"{place} is model.onnx\n" for place in places)
        assert len(said.err.splitlines()) == (0 if again else 2)
    assert host.asked == ["", ""]
    assert sorted(each.name for each in folder.iterdir()) == ["a.onnx", "b.onnx"]
    assert (folder / "b.onnx").read_bytes() == CONTENT


def test_what_cannot_be_downloaded_ends_the_program_with_a_hint(host: Host, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        download_all({"a.onnx": known(host, content=b"other")}, tmp_path)
    error, hint = str(caught.value).splitlines()
    assert error.startswith(f"error: {host.url} ")
    assert "make_weights.py" in hint


def test_a_connection_that_breaks_off_is_taken_up_where_it_did(host: Host, tmp_path: Path) -> None:
    host.breaks, host.most = 2, 300_000
    fetch(known(host), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert host.asked == ["", "bytes=300000-", "bytes=600000-"]


def test_a_broken_off_answer_of_unknown_length_is_noticed(host: Host, tmp_path: Path) -> None:
    host.declares, host.breaks, host.most = False, 1, 300_000
    fetch(known(host), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_the_next_run_goes_on_where_the_last_one_ended(host: Host, tmp_path: Path) -> None:
    host.breaks, host.most = 100, 0
    part(tmp_path / "f").write_bytes(CONTENT[:HALF])
    with pytest.raises(NotDownloaded):
        fetch(known(host), tmp_path / "f")
    assert len(host.asked) == ATTEMPTS
    assert part(tmp_path / "f").read_bytes() == CONTENT[:HALF]
    assert not (tmp_path / "f").exists()
    host.breaks = 0
    fetch(known(host), tmp_path / "f")
    assert host.asked[-1] == f"bytes={HALF}-"
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert not part(tmp_path / "f").exists()


def test_a_server_without_ranges_sends_all_again(host: Host, tmp_path: Path) -> None:
    host.ranges = False
    part(tmp_path / "f").write_bytes(CONTENT[:HALF])
    fetch(known(host), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_wrong_bytes_from_before_are_downloaded_again(host: Host, tmp_path: Path) -> None:
    part(tmp_path / "f").write_bytes(b"x" * HALF)
    fetch(known(host), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert host.asked == [f"bytes={HALF}-", ""]


def test_more_than_there_can_be_from_before_is_thrown_away(host: Host, tmp_path: Path) -> None:
    part(tmp_path / "f").write_bytes(CONTENT + b"x")
    fetch(known(host), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_other_bytes_are_refused_and_what_was_there_stays(host: Host, tmp_path: Path) -> None:
    host.content = CONTENT[:-1] + b"x"
    (tmp_path / "f").write_bytes(b"mine")
    with pytest.raises(NotDownloaded, match="has other bytes than sha256 "):
        fetch(known(host), tmp_path / "f")
    assert [each.name for each in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"mine"


@pytest.mark.parametrize("declares", [True, False])
def test_a_pointer_instead_of_the_file_is_refused(
    host: Host, tmp_path: Path, declares: bool
) -> None:
    host.content, host.declares = b"version https://git-lfs.github.com/spec/v1\n", declares
    with pytest.raises(NotDownloaded, match=r"another file|ended after 4\d of"):
        fetch(known(host), tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_longer_file_is_refused_before_all_of_it_came(host: Host, tmp_path: Path) -> None:
    host.content, host.declares = CONTENT * 2, False
    with pytest.raises(NotDownloaded, match="more than"):
        fetch(known(host), tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_was_not_asked_for_is_refused(host: Host, tmp_path: Path) -> None:
    host.shift = 1
    part(tmp_path / "f").write_bytes(CONTENT[:HALF])
    with pytest.raises(NotDownloaded, match=f"other bytes than those from {HALF}"):
        fetch(known(host), tmp_path / "f")


def test_a_missing_file_is_named(host: Host, tmp_path: Path) -> None:
    host.status = 404
    with pytest.raises(NotDownloaded, match="answers 404") as caught:
        fetch(known(host), tmp_path / "f")
    assert host.url in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_next_address_goes_on_with_the_first_one_s_bytes(host: Host, tmp_path: Path) -> None:
    host.breaks, host.most = 100, 0
    part(tmp_path / "f").write_bytes(CONTENT[:HALF])
    with Host() as second:
        thread = threading.Thread(target=second.serve_forever, args=(0.01,))
        thread.start()
        fetch(known(host, second), tmp_path / "f")
        second.shutdown()
        thread.join()
        assert second.asked == [f"bytes={HALF}-"]
    assert (tmp_path / "f").read_bytes() == CONTENT
