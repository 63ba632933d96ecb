"""The registry client against a real registry, and against what networks do."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Reference, canonical
from mlpack.oci.image import ImageConfig, Layer, build_image
from mlpack.registry.auth import Unauthorized
from mlpack.registry.credentials import Logins
from mlpack.registry.http import Client, ClientSettings
from mlpack.registry.http_types import InsecureConnection, Request, StatusError, Unreachable
from mlpack.registry.repository import Registries, RegistryStore
from mlpack.registry.serve.app import create_app
from mlpack.stores.copy import THREADS, copy
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import Corrupt, NotFound, put_bytes, put_image, read
from tests.doubles.memory_store import MemoryStore
from tests.registry.faulty import Fault, Faulty, faulty
from tests.registry.registry import PASSWORD, USER, Registry, running
from tests.registry.serve.server import listening
from tests.support import AMD64, free_port, real_layer

BLOB = os.urandom(3_000_000)
TARGET = Descriptor.of(BLOB, media.LAYER_TAR)


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Faulty]:
    with faulty(registry.host) as server:
        yield server


@contextmanager
def opened(
    host: str, *, config: Path | None = None, settings: ClientSettings | None = None, name: str = ""
) -> Iterator[tuple[RegistryStore, list[float]]]:
    """A repository of its own at ``host``, and the pauses its client made (it does not sleep)."""
    waits: list[float] = []
    client = Client(settings, sleep=waits.append)
    place = Reference.parse(f"{host}/tests/{name or uuid.uuid4().hex}")
    with Registries(client, Logins([config] if config else [])) as registries:
        yield registries.store(place, push=True), waits


def login(folder: Path, host: str, password: str = PASSWORD) -> Path:
    """A docker config with a login for ``host``."""
    path = folder / "config.json"
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return path


def test_what_goes_over_the_wire_is_counted(proxy: Faulty) -> None:
    waits: list[float] = []
    with Registries(Client(sleep=waits.append)) as registries:
        store = registries.store(Reference.parse(f"{proxy.host}/tests/counted"), push=True)
        store.put(TARGET, io.BytesIO(BLOB))
        up = registries.traffic
        assert read(store, TARGET, limit=TARGET.size) == BLOB
        down = registries.traffic.since(up)
    assert up.requests == 4, "the way to talk, HEAD, POST, PUT"
    assert len(BLOB) < up.sent < len(BLOB) + 2_000
    assert down.requests == 1
    assert len(BLOB) < down.received < len(BLOB) + 1_000
    assert [str(each).split("?")[0].rpartition("/")[0] for each in proxy.seen][:1] == ["GET /v2"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_an_upload_cut_off_is_sent_again(proxy: Faulty, share: float) -> None:
    """docker-registry 2.8 forgets what came before a cut ("upload resumed at wrong offset")."""
    proxy.faults.append(Fault("^PUT .*digest=", "cut-request", share))
    with opened(proxy.host) as (store, waits):
        store.put(TARGET, io.BytesIO(BLOB))
        assert read(store, TARGET, limit=TARGET.size) == BLOB
    assert len(waits) == 1, "it paused before the next attempt"


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_an_upload_cut_off_is_taken_up_where_it_broke(tmp_path: Path, share: float) -> None:
    app = create_app(LayoutStore(tmp_path / "oci"), writable=True)
    with listening(app) as port, faulty(f"127.0.0.1:{port}") as proxy:
        proxy.faults.append(Fault("^PUT .*digest=", "cut-request", share))
        with opened(proxy.host) as (store, waits):
            store.put(TARGET, io.BytesIO(BLOB))
            assert read(store, TARGET, limit=TARGET.size) == BLOB
        assert len(waits) == 1
        sent = [each.body for each in proxy.seen if each.method == "PUT"]
    assert len(sent) == 2
    assert sent[1] == len(BLOB) - int(share * len(BLOB)), "what came is not sent again"


def test_a_source_that_changed_is_never_stored(proxy: Faulty) -> None:
    with opened(proxy.host) as (store, _):
        for other in (BLOB[:-1] + bytes([BLOB[-1] ^ 1]), BLOB[:-1], BLOB + b"x"):
            with pytest.raises(Corrupt):
                store.put(TARGET, io.BytesIO(other))
            assert not store.exists(TARGET)


def test_a_blob_goes_on_from_a_download_that_an_upload_must_go_back_in(proxy: Faulty) -> None:
    with opened(proxy.host) as (source, _), opened(proxy.host) as (target, _):
        source.put(TARGET, io.BytesIO(BLOB))
        proxy.faults.append(Fault("^PUT .*digest=", "cut-request", 0.5))
        with source.open(TARGET) as content:
            target.put(TARGET, content)
        assert read(target, TARGET, limit=TARGET.size) == BLOB


def test_an_upload_whose_last_answer_is_lost_is_not_sent_again(proxy: Faulty) -> None:
    proxy.faults.append(Fault("^PUT .*digest=", "cut-answer", 0.0))
    proxy.faults.append(Fault("^PUT .*digest=", "status", status=599))
    with opened(proxy.host) as (store, _):
        store.put(TARGET, io.BytesIO(BLOB))
    assert proxy.count("^PUT .*digest=") == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_download_cut_off_is_taken_up_where_it_broke(proxy: Faulty, share: float) -> None:
    with opened(proxy.host) as (store, waits):
        store.put(TARGET, io.BytesIO(BLOB))
        proxy.faults.append(Fault("^GET .*/blobs/sha", "cut-answer", share))
        before = store.session.session.client.traffic
        assert read(store, TARGET, limit=TARGET.size) == BLOB
        again = store.session.session.client.traffic.since(before)
    assert len(waits) == 1
    assert again.received < len(BLOB) + 2_000, "nothing came twice"
    asked = [each for each in proxy.seen if each.method == "GET" and "/blobs/" in each.path]
    assert ("Range" in asked[-1].headers) == (share > 0)


def test_a_server_that_ignores_ranges_is_read_from_the_start(proxy: Faulty) -> None:
    with opened(proxy.host) as (store, _):
        store.put(TARGET, io.BytesIO(BLOB))
        proxy.faults.append(Fault("^GET .*/blobs/sha", "cut-answer", 0.5))
        proxy.ignore_range = True
        assert read(store, TARGET, limit=TARGET.size) == BLOB


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("request_line", ["^HEAD", "^POST", "^PUT .*digest=", "^GET .*/blobs/sha"])
def test_what_passes_is_tried_again(proxy: Faulty, status: int, request_line: str) -> None:
    proxy.faults.append(Fault(request_line, "status", status=status, times=2))
    with opened(proxy.host) as (store, waits):
        store.put(TARGET, io.BytesIO(BLOB))
        assert read(store, TARGET, limit=TARGET.size) == BLOB
    assert len(waits) == 2
    assert waits[0] < waits[1], "longer each time"


def test_retry_after_is_obeyed(proxy: Faulty) -> None:
    headers = {"Retry-After": "7"}
    date = {
        "Retry-After": "Fri, 20 Nov 2026 20:00:30 GMT",
        "Date": "Fri, 20 Nov 2026 20:00:10 GMT",
    }
    proxy.faults += [
        Fault("^HEAD", "status", status=429, headers=headers),
        Fault("^HEAD", "status", status=503, headers=date),
    ]
    with opened(proxy.host) as (store, waits):
        assert not store.exists(TARGET)
    assert waits == [7.0, 20.0]


def test_a_registry_that_asks_for_an_hour_gets_an_error(proxy: Faulty) -> None:
    proxy.faults.append(Fault("^HEAD", "status", status=429, headers={"Retry-After": "3600"}))
    with opened(proxy.host) as (store, waits), pytest.raises(StatusError, match="wait 3600 s"):
        store.exists(TARGET)
    assert waits == []


def test_a_registry_that_stays_broken_is_named(proxy: Faulty) -> None:
    proxy.faults.append(Fault("^HEAD", "status", status=503, times=99))
    with opened(proxy.host) as (store, waits), pytest.raises(StatusError, match="answers 503"):
        store.exists(TARGET)
    assert len(waits) == 4


def test_a_registry_that_is_not_there_is_named() -> None:
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=host), opened(host) as (store, _):
        store.exists(TARGET)


@pytest.mark.parametrize("kind", ["garble", "truncate"])
def test_other_bytes_than_the_digest_says_are_refused(proxy: Faulty, kind: str) -> None:
    with opened(proxy.host) as (store, _):
        store.put(TARGET, io.BytesIO(BLOB))
        proxy.faults.append(Fault("^GET .*/blobs/sha", kind))
        with pytest.raises(Corrupt):
            read(store, TARGET, limit=TARGET.size)


@pytest.mark.parametrize("kind", ["garble", "truncate", "lie"])
def test_a_manifest_that_is_not_its_digest_is_refused(proxy: Faulty, kind: str) -> None:
    made = build_image(ImageConfig(platform=AMD64), [])
    name = uuid.uuid4().hex
    with opened(proxy.host, name=name) as (store, _):
        put_image(store, made)
        store.tag(made.descriptor, "v1")
    for asked in ("v1", str(made.digest)):
        proxy.faults.append(Fault("^GET .*/manifests/", kind))
        with opened(proxy.host, name=name) as (store, _), pytest.raises(MlpackError):
            store.resolve(asked)


def test_a_manifest_of_100_mb_is_refused_before_it_is_read(proxy: Faulty) -> None:
    proxy.faults.append(Fault("^GET .*/manifests/", "huge"))
    with opened(proxy.host) as (store, _):
        with pytest.raises(Corrupt, match="longer than 4194304 bytes"):
            store.resolve("v1")
        received = store.session.session.client.traffic.received
    assert received < 6_000_000


def test_a_peer_that_drips_is_given_up(proxy: Faulty) -> None:
    with opened(proxy.host) as (store, _):
        store.put(TARGET, io.BytesIO(BLOB))
    name = store.place.repository.rpartition("/")[2]
    proxy.faults.append(Fault("^GET .*/blobs/sha", "drip", times=99))
    with (
        opened(proxy.host, name=name, settings=ClientSettings(patience=0.2)) as (store, waits),
        pytest.raises(Unreachable, match="slower than 100 bytes a second"),
    ):
        read(store, TARGET, limit=TARGET.size)
    assert len(waits) == 4


def test_a_token_that_expires_in_the_middle_is_renewed(proxy: Faulty) -> None:
    proxy.token_uses = 1
    name = uuid.uuid4().hex
    with opened(proxy.host, name=name) as (store, _):
        store.put(TARGET, io.BytesIO(BLOB))
        assert read(store, TARGET, limit=TARGET.size) == BLOB
    assert len(proxy.scopes) >= 3
    assert all(scope == [f"repository:tests/{name}:pull,push"] for scope in proxy.scopes)


def test_reading_asks_for_the_right_to_read_only(proxy: Faulty) -> None:
    proxy.token_uses = 100
    with Registries(Client(sleep=lambda _: None)) as registries:
        store = registries.store(Reference.parse(f"{proxy.host}/tests/reading"))
        assert not store.exists(TARGET)
    assert proxy.scopes == [["repository:tests/reading:pull"]]


def test_credentials_do_not_follow_a_redirect_to_another_host(
    tmp_path: Path, registry: Registry
) -> None:
    with (
        running(tmp_path / "login", login=True) as guarded,
        faulty(guarded.host) as front,
        faulty(registry.host) as other,
    ):
        config = login(tmp_path, front.host)
        name = uuid.uuid4().hex
        with opened(other.host, name=name) as (there, _):
            there.put(TARGET, io.BytesIO(BLOB))
        other.seen.clear()
        with opened(front.host, config=config, name=name) as (store, _):
            front.faults.append(
                Fault("^GET .*/blobs/sha", "redirect", place=f"http://{other.host}", times=9)
            )
            assert not store.exists(TARGET), "the front registry is asked with the login"
            assert read(store, TARGET, limit=TARGET.size) == BLOB
    assert any("Authorization" in each.headers for each in front.seen)
    assert len(other.seen) == 1
    assert "Authorization" not in other.seen[0].headers


def test_another_host_cannot_ask_for_the_credentials(tmp_path: Path, registry: Registry) -> None:
    with (
        running(tmp_path / "login", login=True) as guarded,
        faulty(guarded.host) as front,
        faulty(registry.host) as thief,
    ):
        thief.token_uses = 100
        config = login(tmp_path, front.host)
        with opened(front.host, config=config) as (store, _):
            front.faults.append(
                Fault("^GET .*/blobs/sha", "redirect", place=f"http://{thief.host}", times=9)
            )
            store.exists(TARGET)
            with pytest.raises(StatusError, match="401"):
                read(store, TARGET, limit=TARGET.size)
    assert thief.scopes == [], "nobody asked its token service for anything"
    assert all("Authorization" not in each.headers for each in thief.seen)


def test_basic_credentials(tmp_path: Path) -> None:
    with running(tmp_path / "login", login=True) as guarded:
        config = login(tmp_path, guarded.host)
        with opened(guarded.host, config=config) as (store, _):
            store.put(TARGET, io.BytesIO(BLOB))
            assert read(store, TARGET, limit=TARGET.size) == BLOB
        with (
            opened(guarded.host) as (store, _),
            pytest.raises(Unauthorized, match="requires a login"),
        ):
            store.exists(TARGET)
        wrong = login(tmp_path, guarded.host, "wr0ng-word")
        with opened(guarded.host, config=wrong) as (store, _):
            with pytest.raises(Unauthorized, match="does not accept") as caught:
                store.exists(TARGET)
            shown = f"{caught.value} {caught.value.hint} {caught.value!r} {store!r} {vars(store)}"
            shown += repr(store.session)
    assert "wr0ng" not in shown
    assert "Basic " not in shown


def test_a_private_authority(tmp_path: Path) -> None:
    with running(tmp_path / "tls", tls=True) as secure:
        with opened(secure.host, settings=ClientSettings(ca=secure.ca)) as (store, _):
            store.put(TARGET, io.BytesIO(BLOB))
            assert read(store, TARGET, limit=TARGET.size) == BLOB
        with (
            pytest.raises(InsecureConnection, match="certificate is not trusted") as caught,
            opened(secure.host) as (store, _),
        ):
            store.exists(TARGET)
    assert "[registry] ca" in caught.value.hint


@pytest.mark.parametrize("text", [None, "", "no certificate"])
def test_an_authority_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    ca = tmp_path / "ca.pem"
    if text is not None:
        ca.write_text(text)
    request = Request(method="GET", url="https://127.0.0.1/v2/")
    with pytest.raises(InsecureConnection, match=r"ca\.pem holds no readable certificate"):
        Client(ClientSettings(ca=ca)).send(request)


def test_plain_http_only_where_it_was_allowed() -> None:
    request = Request(method="GET", url="http://registry.example.com/v2/")
    with pytest.raises(InsecureConnection, match="not be encrypted"):
        Client().send(request)


def test_mounting_moves_no_bytes(proxy: Faulty) -> None:
    with Registries(Client(sleep=lambda _: None)) as registries:
        first = registries.store(
            Reference.parse(f"{proxy.host}/tests/{uuid.uuid4().hex}"), push=True
        )
        second = registries.store(
            Reference.parse(f"{proxy.host}/tests/{uuid.uuid4().hex}"), push=True
        )
        first.put(TARGET, io.BytesIO(BLOB))
        before = registries.traffic
        assert second.mount(TARGET, first.place)
        assert registries.traffic.since(before).total < 2_000
        assert second.exists(TARGET)
        absent = Descriptor.of(b"absent", media.LAYER_TAR)
        assert not second.mount(absent, first.place)
        second.put(absent, io.BytesIO(b"absent"))
        assert read(second, absent) == b"absent"


def test_tags_over_several_pages(proxy: Faulty) -> None:
    with opened(proxy.host) as (store, _):
        assert store.names() == ()
        made = build_image(ImageConfig(platform=AMD64), [])
        put_image(store, made)
        for number in range(5):
            store.tag(made.descriptor, f"v{number}")
        proxy.page_size = 2
        assert store.names() == ("v0", "v1", "v2", "v3", "v4")
    assert proxy.count("^GET .*/tags/list") == 4


def test_referrers_from_the_fallback_tag(registry: Registry) -> None:
    with opened(registry.host) as (store, _):
        made = build_image(ImageConfig(platform=AMD64), [])
        put_image(store, made)
        assert store.referrers(made.descriptor) == ()
        record = Descriptor(media.MANIFEST, TARGET.digest, 5, artifact_type="application/x")
        empty = build_image(ImageConfig(platform=AMD64, env=("A=1",)), [])
        put_image(store, empty)
        listed = {**empty.descriptor.to_json(), "artifactType": record.artifact_type}
        index = canonical({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": [listed]})
        store.tag(put_bytes(store, index, media.INDEX), f"sha256-{made.digest.hex}")
        assert store.referrers(made.descriptor, "application/x") == (empty.descriptor,)
        assert store.referrers(made.descriptor, "application/y") == ()


def test_a_blob_that_is_not_there(registry: Registry) -> None:
    with opened(registry.host) as (store, _), pytest.raises(NotFound, match="does not hold"):
        read(store, TARGET, limit=TARGET.size)


def test_a_peer_that_drips_its_headers_is_given_up() -> None:
    """The slow-loris, turned on a client: always a byte more, never an answer."""
    asked = threading.Event()

    def drip(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, suppress(OSError):
                peer.recv(10_000)
                asked.set()
                peer.sendall(b"HTTP/1.1 200 OK\r\n")
                while True:
                    peer.sendall(b"X")
                    time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        request = Request(
            method="GET", url=f"http://127.0.0.1:{listener.getsockname()[1]}/", attempts=1
        )
        client = Client(ClientSettings(patience=0.2), sleep=lambda _: None)
        try:
            with pytest.raises(Unreachable, match="slower than 100 bytes a second"):
                client.send(request)
        finally:
            client.close()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert asked.is_set()


@pytest.mark.parametrize("tokens", [None, 100])
def test_several_blobs_move_at_once(proxy: Faulty, tokens: int | None) -> None:
    """Each of four uploads waits in the proxy until all four are there."""
    proxy.token_uses = tokens
    blobs = [os.urandom(1000) for _ in range(4)]
    layout = MemoryStore()
    layers = []
    for blob in blobs:
        target = put_bytes(layout, blob, media.LAYER_TAR)
        layers.append(Layer(target, target.digest))
    made = build_image(ImageConfig(platform=AMD64), layers)
    put_image(layout, made)
    proxy.gather = threading.Barrier(4, timeout=20)
    with opened(proxy.host) as (store, _):
        copied = copy(layout, store, made.descriptor)
    assert len(copied.sent) == 6
    assert not proxy.gather.broken
    assert len(proxy.scopes) == (0 if tokens is None else 1), "one token for all of them"


def test_connections_are_used_again(registry: Registry, tmp_path: Path) -> None:
    """Also after answers that are not read: over TLS each connection costs a handshake."""
    layout = LayoutStore(tmp_path / "oci")
    layers = [real_layer(layout, {name: name.encode()}) for name in "abcdefgh"]
    target = put_image(layout, build_image(ImageConfig(platform=AMD64), layers))
    with Registries() as registries:
        store = registries.store(Reference.parse(f"{registry.host}/tests/kept"), push=True)
        for name in ("a", "b"):
            assert not store.exists(Descriptor.of(name.encode(), "text/plain"))
        with pytest.raises(NotFound):
            store.resolve("none")
        copy(layout, store, target)
        store.tag(target, "x")
        assert store.names() == ("x",)
        counted = registries.traffic
    assert counted.requests > 10
    # One finds out whether there is TLS; then one for each thread of the copy.
    assert counted.connections <= 1 + THREADS
