"""A layer sent while it is written: an attempt, whose failure costs nothing but time."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Reference
from mlpack.registry.http import Client
from mlpack.registry.repository import Registries, RegistryStore
from mlpack.registry.upload import streaming
from mlpack.stores.store import read
from tests.registry.faulty import Fault, Faulty, faulty
from tests.registry.registry import Registry

BLOB = os.urandom(6_000_000)
TARGET = Descriptor.of(BLOB, media.LAYER_TAR)
PIECES = [BLOB[start : start + 1_000_000] for start in range(0, len(BLOB), 1_000_000)]


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Faulty]:
    with faulty(registry.host) as server:
        yield server


@pytest.fixture
def store(proxy: Faulty) -> Iterator[RegistryStore]:
    place = Reference.parse(f"{proxy.host}/tests/{uuid.uuid4().hex}")
    with Registries(Client(sleep=lambda _: None)) as registries:
        yield registries.store(place, push=True)


def stream_all(store: RegistryStore, target: Descriptor = TARGET) -> bool:
    with streaming(store.session) as stream:
        for piece in PIECES:
            stream.write(piece)
        return stream.finish(target)


def test_what_is_written_is_there_at_the_end(proxy: Faulty, store: RegistryStore) -> None:
    assert stream_all(store)
    assert read(store, TARGET, limit=TARGET.size) == BLOB
    sent = next(each for each in proxy.seen if each.method == "PATCH")
    assert sent.headers["Transfer-Encoding"] == "chunked"
    assert proxy.count("^DELETE") == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault("^POST", "status", status=403),
        Fault("^PATCH", "status", status=500),
        Fault("^PATCH", "status", status=401),
        Fault("^PATCH", "cut-request", 0.5),
        Fault("^PUT .*digest=", "status", status=500),
    ],
    ids=lambda fault: f"{fault.match} {fault.kind} {fault.status}",
)
def test_what_goes_wrong_is_only_said(proxy: Faulty, store: RegistryStore, fault: Fault) -> None:
    proxy.faults.append(fault)
    assert not stream_all(store)
    store.put(TARGET, io.BytesIO(BLOB))
    assert read(store, TARGET, limit=TARGET.size) == BLOB


def test_other_bytes_than_the_digest_says_are_not_kept(store: RegistryStore) -> None:
    other = Descriptor.of(BLOB[1:], media.LAYER_TAR)
    assert not stream_all(store, other)
    assert not store.exists(other)


def test_a_writer_that_fails_leaves_no_upload(proxy: Faulty, store: RegistryStore) -> None:
    with pytest.raises(ZeroDivisionError), streaming(store.session) as stream:
        stream.write(PIECES[0])
        raise ZeroDivisionError
    assert not store.exists(TARGET)
    assert proxy.count("^PUT") == 0
