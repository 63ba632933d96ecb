"""Media types and content codings of requests: parsed, decoded, bounded."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.runtime import content_coding, media_types
from mlpack.runtime.http_errors import BadRequest, ContentTooLarge, UnsupportedMediaType
from mlpack.runtime.media_types import MediaType, names, parse, preferred, to_utf8

OFFERED = ("application/json", "application/octet-stream", "application/x-npy")


@pytest.mark.parametrize(
    ("text", "kind", "parameters"),
    [
        ("application/json", "application/json", {}),
        (" Application/JSON ;Charset=UTF-8", "application/json", {"charset": "UTF-8"}),
        ('a/b; x="a;b,\\"c"; y=1', "a/b", {"x": 'a;b,"c', "y": "1"}),
        ("", "", {}),
        (";", "", {}),
        ("a/b;;charset", "a/b", {}),
    ],
)
def test_types_and_parameters(text: str, kind: str, parameters: dict[str, str]) -> None:
    assert parse(text) == MediaType(kind, parameters, kind in ("", "application/json"))


@given(st.text(max_size=60))
def test_any_text_is_parsed(text: str) -> None:
    parse(text)
    preferred(text, OFFERED)


@pytest.mark.parametrize(
    ("charset", "content"),
    [
        ("utf-8", "ä".encode()),
        ("utf-8", b"\xef\xbb\xbf\xc3\xa4"),
        ("UTF8", "ä".encode()),
        ("utf-16", "ä".encode("utf-16")),
        ("UTF-16LE", "ä".encode("utf-16-le")),
        ("utf-32", "ä".encode("utf-32")),
        ("iso-8859-1", b"\xe4"),
        ("ISO_8859-15", b"\xe4"),
        ("windows-1252", b"\xe4"),
    ],
)
def test_texts_become_utf_8(charset: str, content: bytes) -> None:
    assert to_utf8(content, parse(f'application/json; charset="{charset}"')) == "ä".encode()


def test_unknown_charsets_and_texts_that_are_not_in_theirs() -> None:
    assert to_utf8(b"\xef\xbb\xbf{}", parse("application/json")) == b"{}"
    for charset in ("klingon", "zip", "utf-7", "unicode_escape", "idna", "iso-8859-99"):
        with pytest.raises(UnsupportedMediaType, match=charset.replace("_", "-")):
            to_utf8(b"{}", parse(f"application/json; charset={charset}"))
    with pytest.raises(BadRequest, match="utf-16"):
        to_utf8(b"abc", parse("application/json; charset=utf-16-le".replace("-le", "le")))


@pytest.mark.parametrize(
    ("accept", "kinds"),
    [
        ("", ""),
        ("*/*", "jon"),
        ("application/*", "jon"),
        ("application/octet-stream", "o"),
        ("APPLICATION/X-NPY;q=1", "n"),
        ("application/json, application/octet-stream", "jo"),
        ("application/octet-stream, application/json", "oj"),
        ("application/octet-stream;q=0.5, application/json", "jo"),
        ("application/x-npy;q=0.9, application/json;q=0.1, */*;q=0", "nj"),
        ("application/octet-stream;q=0, */*", "jn"),
        ("text/html, */*;q=0.1", "jon"),
        ("text/html", ""),
        ('text/html;a="application/x-npy,", application/json', "j"),
    ],
)
def test_the_most_wanted_type_comes_first(accept: str, kinds: str) -> None:
    short = {kind.partition("/")[2].removeprefix("x-")[0]: kind for kind in OFFERED}
    assert preferred(accept, OFFERED) == tuple(short[each] for each in kinds)


def test_types_that_are_named() -> None:
    assert names("text/html,application/xhtml+xml,*/*;q=0.8", "text/html")
    assert names("Text/HTML; q=0.9", "text/html")
    assert not names("text/html;q=0", "text/html")
    assert not names('*/*;a="text/html"', "text/html")


RAW = zlib.compressobj(wbits=-15)
CODED = [
    ("gzip", gzip.compress(b"content" * 9, mtime=0)),
    ("gzip", gzip.compress(b"content" * 4, mtime=0) + gzip.compress(b"content" * 5, mtime=0)),
    ("gzip", gzip.compress(b"content" * 9, mtime=0) + bytes(7)),
    ("deflate", zlib.compress(b"content" * 9)),
    ("deflate", RAW.compress(b"content" * 9) + RAW.flush()),
]


@pytest.mark.parametrize(
    ("coding", "content"), CODED, ids=["gzip", "members", "padded", "zlib", "raw"]
)
def test_codings_are_decoded(coding: str, content: bytes) -> None:
    assert content_coding.decode(content, coding, 63) == b"content" * 9
    with pytest.raises(ContentTooLarge, match="62 bytes"):
        content_coding.decode(content, coding, 62)
    for damaged in (content[:-9] or b"", content[1:], b""):
        with pytest.raises(BadRequest, match=f"not {coding}"):
            content_coding.decode(damaged, coding, 63)
    if coding == "deflate":
        with pytest.raises(BadRequest):
            content_coding.decode(content + b"more", coding, 63)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_decoded_or_refused(content: bytes, coding: str) -> None:
    for start in (b"", b"\x1f\x8b\x08\0", b"x\x9c"):
        try:
            content_coding.decode(start + content, coding, 1000)
        except (BadRequest, ContentTooLarge) as error:
            assert error.status in (400, 413)


def test_a_bomb_is_refused_before_it_takes_memory() -> None:
    bomb = gzip.compress(bytes(200_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ContentTooLarge):
            content_coding.decode(bomb, "gzip", 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "coding"),
    [("gzip", "gzip"), ("X-GZIP", "gzip"), (" deflate, identity", "deflate"), ("identity", "")],
)
def test_names_of_codings(text: str, coding: str) -> None:
    assert content_coding.name_of(text) == coding


@pytest.mark.parametrize("text", ["br", "zstd", "gzip, gzip", "utf-8", "compress", "gzip;q=1"])
def test_other_codings_are_answered_with_those_that_are_taken(text: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=text) as caught:
        content_coding.name_of(text)
    assert caught.value.status == 415
    assert caught.value.headers == {"accept-encoding": "gzip, deflate, identity"}


def test_json_is_sent_under_several_types() -> None:
    for text in ("", "text/json", "application/vnd.api+json; charset=utf-8", "Text/Plain"):
        assert media_types.parse(text).is_json
    assert not media_types.parse("text/csv").is_json
