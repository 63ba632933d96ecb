"""The suite every store passes."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, Reference
from mlpack.oci.image import Image, ImageConfig, build_image
from mlpack.registry.repository import Registries
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import (
    Corrupt,
    ListingStore,
    NotFound,
    StagingStore,
    put_image,
    read,
    read_image,
    verified,
)
from tests.doubles.memory_store import MemoryStore
from tests.registry.registry import Registry
from tests.support import AMD64, image

CONTENT = b"some bytes"
TARGET = Descriptor.of(CONTENT, media.LAYER_TAR)


class _Staging(StagingStore, ListingStore): ...


@pytest.fixture(params=["memory", "layout"])
def staging(request: pytest.FixtureRequest, tmp_path: Path) -> _Staging:
    made: dict[str, object] = {"memory": MemoryStore(), "layout": LayoutStore(tmp_path / "oci")}
    return made[request.param]  # type: ignore[return-value]


@pytest.fixture(params=["memory", "layout", "registry"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ListingStore]:
    made: dict[str, object] = {"memory": MemoryStore(), "layout": LayoutStore(tmp_path / "oci")}
    if request.param != "registry":
        yield made[request.param]  # type: ignore[misc]
        return
    registry: Registry = request.getfixturevalue("registry")
    place = Reference.parse(f"{registry.host}/contract/{uuid.uuid4().hex}")
    with Registries() as registries:
        yield registries.store(place, push=True)


def named(store: ListingStore, env: str) -> Image:
    """Put an image without layers: a registry names nothing but manifests that are whole."""
    made = build_image(ImageConfig(platform=AMD64, env=(env,)), [])
    put_image(store, made)
    return made


def test_what_is_put_can_be_read(store: ListingStore) -> None:
    assert not store.exists(TARGET)
    store.put(TARGET, io.BytesIO(CONTENT))
    assert store.exists(TARGET)
    assert read(store, TARGET) == CONTENT


def test_putting_twice_is_putting_once(store: ListingStore) -> None:
    store.put(TARGET, io.BytesIO(CONTENT))
    store.put(TARGET, io.BytesIO(CONTENT))
    assert read(store, TARGET) == CONTENT


@pytest.mark.parametrize("content", [b"", b"some byte", b"some bytes!", b"some_bytes", b"x" * 999])
def test_other_bytes_are_refused_and_leave_nothing(store: ListingStore, content: bytes) -> None:
    with pytest.raises(Corrupt):
        store.put(TARGET, io.BytesIO(content))
    assert not store.exists(TARGET)
    with pytest.raises(NotFound), store.open(TARGET):
        pass


def test_what_is_not_there_is_not_found(store: ListingStore) -> None:
    with pytest.raises(NotFound), store.open(TARGET):
        pass
    with pytest.raises(NotFound, match="'latest'"):
        store.resolve("latest")
    with pytest.raises(NotFound):
        store.tag(image("a").descriptor, "latest")
    assert dict(store.tags()) == {}


def test_a_name_points_at_the_last_thing_it_was_given(store: ListingStore) -> None:
    first, other = named(store, "N=1"), named(store, "N=2")
    store.tag(first.descriptor, "b")
    store.tag(first.descriptor, "a")
    store.tag(other.descriptor, "b")
    assert store.resolve("b") == other.descriptor
    assert store.resolve("a") == first.descriptor
    assert list(store.tags()) == ["a", "b"]
    assert read_image(store, store.resolve("b")) == other


def test_a_staged_blob_is_kept_when_it_is_committed(staging: _Staging) -> None:
    with staging.stage() as out:
        out.write(CONTENT[:3])
        out.write(CONTENT[3:])
        assert not staging.exists(TARGET)
        assert (out.digest, out.size) == (TARGET.digest, TARGET.size)
        out.commit(TARGET)
    assert read(staging, TARGET) == CONTENT


def test_a_staged_blob_that_is_other_bytes_is_refused(staging: _Staging) -> None:
    with pytest.raises(Corrupt), staging.stage() as out:
        out.write(b"other")
        out.commit(TARGET)
    assert not staging.exists(TARGET)


def test_a_document_above_the_limit_is_refused_before_it_is_read(store: ListingStore) -> None:
    store.put(TARGET, io.BytesIO(CONTENT))
    with pytest.raises(Corrupt, match="more than 3"):
        read(store, TARGET, limit=3)


class _Endless(io.RawIOBase):
    """Never ends; counts how far it was read."""

    given = 0

    def read(self, size: int = -1) -> bytes:
        self.given += size
        return b"x" * size


def test_a_source_that_never_ends_is_given_up_at_the_declared_size() -> None:
    endless = _Endless()
    with pytest.raises(Corrupt, match="longer than"):
        list(verified(endless, Descriptor(media.LAYER_TAR, Digest.of(b""), 5_000_000)))  # type: ignore[arg-type]
    assert endless.given <= 5_000_001
