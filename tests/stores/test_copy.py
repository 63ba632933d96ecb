"""Copies between stores: what is left out, what stops them, and that they can be run again."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.image import ImageConfig, build_image
from mlpack.stores.copy import THREADS, CopyOptions, copy
from mlpack.stores.store import put_image, verify, walk
from tests.doubles.memory_store import MemoryStore
from tests.support import AMD64, Callbacks, real_layer

DEADLINE_SECONDS = 200
"""Reading it all would take five times as long."""


class _Dripping(io.RawIOBase):
    """Content that would take for ever to read."""

    def read(self, size: int = -1) -> bytes:
        time.sleep(0.01)
        return b"x"


class _Failing(MemoryStore):
    """A store in which one layer does something bad when it is opened, and all others drip."""

    bad: Descriptor | None = None
    action = staticmethod(lambda: None)

    @contextmanager
    def open(self, target: Descriptor) -> Iterator[BinaryIO]:
        if target == self.bad:
            self.action()
        if target.media_type in media.GZIP_LAYERS | media.TAR_LAYERS:
            yield cast(BinaryIO, _Dripping())
        else:
            with super().open(target) as content:
                yield content


def source(store: MemoryStore, layers: int = THREADS) -> Descriptor:
    made = [real_layer(store, {str(number): b"x" * 100_000}) for number in range(layers)]
    return put_image(store, build_image(ImageConfig(platform=AMD64), made))


def fail() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("position", range(THREADS))
@pytest.mark.parametrize(
    ("action", "raised"),
    [(fail, ZeroDivisionError), (lambda: os.kill(os.getpid(), signal.SIGINT), KeyboardInterrupt)],
    ids=["a failure", "an interrupt"],
)
def test_one_failure_or_interrupt_stops_all_blobs(
    position: int, action: object, raised: type[BaseException]
) -> None:
    store, target = _Failing(), MemoryStore()
    root = source(store)
    store.bad = [each for each in walk(store, root) if each.media_type != media.CONFIG][position]
    store.action = action  # type: ignore[assignment]
    threads, began = threading.enumerate(), time.monotonic()
    with pytest.raises(raised):
        copy(store, target, root)
    assert time.monotonic() - began < DEADLINE_SECONDS
    assert threading.enumerate() == threads
    assert not target.exists(root), "the manifest comes last"


def test_an_interrupted_copy_is_finished_by_running_it_again() -> None:
    store, target = MemoryStore(), MemoryStore()
    root = source(store, 8)
    blobs = [each for each in walk(store, root) if each != root]
    sizes: list[int] = []

    def interrupt(count: int) -> None:
        sizes.append(count)
        if len(sizes) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        copy(store, target, root, CopyOptions(progress=Callbacks(interrupt)))
    done = {each for each in blobs if target.exists(each)}
    assert not target.exists(root)
    again = copy(store, target, root)
    assert set(again.present) == done
    assert {*again.sent, *done} == {*blobs, root}
    for each in (*blobs, root):
        verify(target, each)


def test_what_is_skipped_is_left_out() -> None:
    store, target = MemoryStore(), MemoryStore()
    root = source(store, 2)
    first = next(walk(store, root))
    copied = copy(store, target, root, CopyOptions(skip={first.digest}))
    assert first not in copied.sent
    assert not target.exists(first)
    assert target.exists(root)
