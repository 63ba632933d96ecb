"""mlpack.lock is exactly what mlpack wrote."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomli_w

from mlpack.model.lock import InvalidLock, Lock
from mlpack.oci.descriptor import Digest, Platform, canonical
from tests.support import AMD64, ARM64, make_project


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    return make_project(tmp_path / "fan").lock()


def sealed(text: str, **changes: object) -> str:
    """The lock with other values, and a seal that fits them."""
    document = tomllib.loads(text)
    document.pop("seal", None)
    document |= changes
    return tomli_w.dumps({**document, "seal": str(Digest.of(canonical(document)))})


def test_it_reads_what_it_writes(lock: Lock) -> None:
    assert Lock.parse(lock.dump()) == lock
    anchored = Lock(base=lock.base, anchors={"fan": Digest.of(b"anchor")})
    assert Lock.parse(anchored.dump()) == anchored


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: "[", "not TOML"),
        (lambda text: "version = " + "9" * 5000, "not TOML"),
        (lambda text: "version = " + "[" * 5000, "not TOML"),
        (lambda text: "", "version"),
        (lambda text: sealed(text, version=99), "version 99"),
        (lambda text: text.replace("debian:bookworm", "debian:trixie"), "seal"),
        (lambda text: sealed(text, base="none"), "base"),
        (lambda text: sealed(text, anchors={"fan": "sha256:0"}), "sha256:0"),
    ],
)
def test_another_text_is_refused(lock: Lock, change: object, expected: str) -> None:
    assert callable(change)
    with pytest.raises(InvalidLock, match=expected):
        Lock.parse(change(lock.dump()))


def test_the_base_of_a_platform_fits_its_variants(lock: Lock) -> None:
    found = lock.base.on(Platform("linux", "arm64", "v8"))
    assert found is not None
    assert found.platform == ARM64
    exact = lock.base.on(AMD64)
    assert exact is not None
    assert exact.platform == AMD64
    assert lock.base.on(Platform("linux", "riscv64")) is None
