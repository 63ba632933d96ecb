"""Pictures: bounded before they are decoded, and blamed on the request when broken."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from mlpack.runtime.codec import open_image
from mlpack.runtime.http_errors import BadRequest, ContentTooLarge

MOST = 64_000_000


def encoded(kind: str, size: tuple[int, int] = (64, 48), mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], len(mode)), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(noise.squeeze(), mode).save(file, kind)
    return file.getvalue()


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG of one grey channel by hand, whatever its size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    ("kind", "content_type"), [("JPEG", "image/jpeg"), ("JPEG", "image/jpg"), ("PNG", "image/png")]
)
def test_pictures_are_opened(kind: str, content_type: str) -> None:
    image = open_image(encoded(kind), content_type, MOST)
    assert image.size == (64, 48)
    assert np.asarray(image.convert("RGB")).shape == (48, 64, 3)


def test_a_picture_is_of_the_type_that_is_said() -> None:
    with pytest.raises(BadRequest, match="not a JPEG") as caught:
        open_image(encoded("PNG"), "image/jpeg", MOST)
    assert caught.value.field == "image"
    with pytest.raises(BadRequest, match="not a PNG"):
        open_image(encoded("GIF", mode="L"), "image/png", MOST)
    for content in (b"", b"\xff\xd8", b"\xff" * 1000, b"{}"):
        with pytest.raises(BadRequest):
            open_image(content, "image/jpeg", MOST)


@pytest.mark.parametrize("use", ["load", "convert", "resize", "array", "thumbnail", "getpixel"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_pictures_are_the_requests_fault(kind: str, use: str) -> None:
    content = encoded(kind, (200, 200))
    image = open_image(content[: len(content) // 2], f"image/{kind.lower()}", MOST)
    with pytest.raises(BadRequest, match="the picture is broken") as caught:
        if use == "load":
            image.load()
        elif use == "convert":
            image.convert("L")
        elif use == "resize":
            image.resize((10, 10))
        elif use == "thumbnail":
            image.thumbnail((10, 10))
        elif use == "getpixel":
            image.getpixel((0, 0))
        else:
            np.asarray(image)
    assert caught.value.field == "image"


def test_damaged_pictures_never_fail_otherwise() -> None:
    random = np.random.default_rng(1)
    for kind in ("JPEG", "PNG"):
        whole = encoded(kind)
        for _ in range(150):
            broken = bytearray(whole)
            for place in random.integers(0, len(broken), 4):
                broken[place] = random.integers(0, 256)
            try:
                open_image(bytes(broken), f"image/{kind.lower()}", MOST).convert("RGB")
            except (BadRequest, ContentTooLarge) as problem:
                assert problem.field == "image"


@pytest.mark.parametrize("size", [(8001, 8000), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 9)])
def test_bombs_are_not_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(ContentTooLarge, match="more than 64000000 pixels"):
        open_image(png(*size), "image/png", MOST)


def test_a_picture_that_is_smaller_than_it_says() -> None:
    image = open_image(png(2000, 2000, b"\0" * 100), "image/png", MOST)
    with pytest.raises(BadRequest, match="broken"):
        image.load()
