"""What registries answer that no specification allows, before a real one: the copy goes on."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Reference, canonical
from mlpack.oci.image import Image, ImageConfig, build_image
from mlpack.registry import upload
from mlpack.registry.answers import NotARegistry
from mlpack.registry.http import Client
from mlpack.registry.http_types import RegistryError, Request
from mlpack.registry.repository import Registries, RegistryStore
from mlpack.stores.copy import copy, copy_record
from mlpack.stores.records import RECORD
from mlpack.stores.store import ReferrersUnsupported, put_bytes, put_image, read
from tests.doubles.memory_store import MemoryStore
from tests.registry.faulty import Fault, Faulty, faulty
from tests.registry.registry import Registry
from tests.support import AMD64, real_layer

HTML = {"Content-Type": "text/html; charset=utf-8"}
PAGE = b"<!doctype html><title>Sign in</title>"
HERE = "^GET .*"


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Faulty]:
    with faulty(registry.host) as server:
        yield server


@contextmanager
def opened(proxy: Faulty, name: str = "") -> Iterator[RegistryStore]:
    """A repository of its own; the client does not sleep."""
    place = Reference.parse(f"{proxy.host}/quirks/{name or uuid.uuid4().hex}")
    with Registries(Client(sleep=lambda _: None)) as registries:
        yield registries.store(place, push=True)


def status(match: str, code: int, body: bytes = b"{}", times: int = 99, **headers: str) -> Fault:
    named = {key.replace("_", "-"): text for key, text in headers.items()}
    return Fault(match, "status", status=code, headers=named, body=body, times=times)


def page(match: str, code: int = 200) -> Fault:
    return replace(status(match, code, PAGE), headers=HTML)


def headers(match: str, **given: str) -> Fault:
    named = {key.replace("_", "-"): text for key, text in given.items()}
    return Fault(match, "headers", headers=named, times=99)


NO_ADDRESSES = {
    "brackets": "http://[::1:xx/",
    "a port too high": "http://127.0.0.1:99999/",
    "a port that is none": "http://127.0.0.1:x/",
    "a file": "file:///etc/passwd",
    "no host": "https:///v2/",
    "a letter": "/v2/\xe9/",
    "a space": "/v2/a b?password=secret",
}

MOUNT = "^POST .*mount="
TWO = "scope=.*scope="
SCARCE = 'Bearer realm="http://%s/token",service="tests",error="insufficient_scope"'
REFUSED = {
    **{str(code): [status(MOUNT, code)] for code in (400, 401, 403, 404, 405, 429, 500, 501, 503)},
    "a web page": [page(MOUNT)],
    "a web page, 201": [page(MOUNT, 201)],
    "201 that is not true": [status(MOUNT, 201)],
    "200": [status(MOUNT, 200)],
    "202 without an address": [status(MOUNT, 202)],
    "202 with an address elsewhere": [status(MOUNT, 202, Location="http://127.0.0.1:1/v2/x")],
    **{
        f"202 with {kind}": [status(MOUNT, 202, Location=place)]
        for kind, place in NO_ADDRESSES.items()
    },
    "a login page elsewhere": [status(MOUNT, 302, Location="http://login.example/")],
    "a login page here": [status(MOUNT, 302, Location="/login"), page("/login")],
    "Basic": [status(MOUNT, 401, WWW_Authenticate='Basic realm="harbor"')],
    "no token for two": [status(TWO, 401)],
    "no token for two, 500": [status(TWO, 500)],
    "a web page instead of a token for two": [page(TWO)],
    "an empty token for two": [status(TWO, 200, b'{"token":""}')],
    "insufficient_scope": [],
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_mount_ends_in_an_upload(proxy: Faulty, kind: str) -> None:
    proxy.token_uses = 1000
    with opened(proxy) as source:
        layer = real_layer(source, {"model": b"quirks" * 9})
        image = build_image(ImageConfig(platform=AMD64), [layer])
        put_image(source, image)
        with Registries(Client(sleep=lambda _: None)) as registries:
            place = Reference.parse(f"{proxy.host}/quirks/{uuid.uuid4().hex}")
            target = registries.store(place, push=True)
            proxy.faults += [replace(each) for each in REFUSED[kind]]
            if kind == "insufficient_scope":
                scarce = SCARCE % proxy.host
                proxy.faults.append(status(MOUNT, 401, WWW_Authenticate=scarce))
            copied = copy(source, target, image.descriptor)
            proxy.faults.clear()
            assert read(target, layer.descriptor, limit=9999)
    assert copied.mounted == ()
    assert len(copied.sent) == 3
    assert proxy.count(MOUNT) <= 4, "a repository that is refused is not asked for every blob"


LIST = "^GET .*/referrers/"
NONSENSE = {
    "a web page": page(LIST),
    "a web page without a type": status(LIST, 200, PAGE),
    "{}": status(LIST, 200),
    "null": status(LIST, 200, b"null"),
    "[]": status(LIST, 200, b"[]"),
    "nothing": status(LIST, 200, b""),
    "manifests null": status(LIST, 200, b'{"schemaVersion":2,"manifests":null}'),
    "manifests of texts": status(LIST, 200, b'{"schemaVersion":2,"manifests":["x"]}'),
    "too much": status(LIST, 200, b" " * 5_000_000),
    "a cut": Fault(LIST, "cut-answer", times=99),
    "a login page elsewhere": status(LIST, 302, Location="http://login.example/"),
    "redirects without an end": status(LIST, 302, Location="/v2/quirks/x/referrers/x"),
    **{
        f"a redirect to {kind}": status(LIST, 302, Location=place)
        for kind, place in NO_ADDRESSES.items()
    },
    **{str(code): status(LIST, code) for code in (204, 400, 401, 403, 404, 405, 429, 500, 501)},
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_list_of_referrers_that_is_none_is_looked_for_at_the_tag(
    proxy: Faulty, kind: str
) -> None:
    with opened(proxy) as store:
        image = build_image(ImageConfig(platform=AMD64), [])
        put_image(store, image)
        proxy.faults.append(replace(NONSENSE[kind]))
        assert store.referrers(image.descriptor) == ()
        memory = MemoryStore()
        artifact = record_of(image, memory)
        store.attach(memory, artifact, image.descriptor)
        assert [each.digest for each in store.referrers(image.descriptor)] == [artifact.digest]
        proxy.faults.append(page("^GET .*/manifests/sha256-"))
        assert store.referrers(image.descriptor) == ()
        with pytest.raises(ReferrersUnsupported, match="a login page answered"):
            store.attach(memory, artifact, image.descriptor)


def record_of(image: Image, memory: MemoryStore) -> Descriptor:
    """An artifact as mlpack attaches it, with its parts in ``memory``."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": RECORD,
        "config": put_bytes(memory, b"{}", media.EMPTY).to_json(),
        "layers": [put_bytes(memory, b"{ }", RECORD).to_json()],
        "subject": image.descriptor.to_json(),
    }
    return put_bytes(memory, canonical(manifest), media.MANIFEST)


@pytest.mark.parametrize("gone", ["^GET .*/blobs/", "^GET .*/manifests/"])
@pytest.mark.parametrize("code", [401, 403, 404, 200])
def test_a_record_that_is_listed_and_not_there_does_not_stop_a_copy(
    proxy: Faulty, gone: str, code: int
) -> None:
    name, memory = uuid.uuid4().hex, MemoryStore()
    image = build_image(ImageConfig(platform=AMD64), [])
    with opened(proxy, name) as store:
        put_image(store, image)
        store.attach(memory, record_of(image, memory), image.descriptor)
        assert copy_record(store, MemoryStore(), image.descriptor)
    with opened(proxy, name) as store:
        found = store.referrers(image.descriptor)
        proxy.faults.append(replace(status(gone, code), match=f"{gone}(?!sha256-)"))
        with suppress(ReferrersUnsupported):
            assert copy_record(store, MemoryStore(), image.descriptor) is None
    assert found


BLOB = bytes(range(256)) * 4000
TARGET = Descriptor.of(BLOB, media.LAYER_TAR)
HEAD = "^HEAD .*/blobs/"


@pytest.mark.parametrize(
    "fault",
    [
        *(status(HEAD, code) for code in (400, 403, 405, 406, 501)),
        page(HEAD),
        headers(HEAD, Content_Length=""),
        headers(HEAD, Docker_Content_Digest=""),
        headers(HEAD, Docker_Content_Digest="sha256:" + "0" * 64),
        headers(HEAD, Docker_Content_Digest=str(TARGET.digest).upper()),
        headers(HEAD, Docker_Content_Digest=f'"{TARGET.digest}"'),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status} {fault.headers}"[:60],
)
def test_what_head_answers(proxy: Faulty, fault: Fault) -> None:
    proxy.faults.append(replace(fault))
    with opened(proxy) as store:
        store.put(TARGET, io.BytesIO(BLOB))
        store.put(TARGET, io.BytesIO(BLOB))
        assert read(store, TARGET, limit=TARGET.size) == BLOB


@pytest.mark.parametrize(
    "fault",
    [
        *(status("^GET .*/blobs/sha", code, times=1) for code in (400, 403, 416, 501)),
        status("^GET .*/blobs/sha", 206, b"xxx", times=1),
        status("^GET .*/blobs/sha", 206, b"xxx", 1, Content_Range="bytes 999999999-/*"),
        status("^GET .*/blobs/sha", 206, b"xxx", 1, Content_Range="nonsense"),
    ],
    ids=lambda fault: f"{fault.status} {fault.headers}",
)
def test_a_range_that_is_refused_ends_in_the_whole(proxy: Faulty, fault: Fault) -> None:
    with opened(proxy) as store:
        store.put(TARGET, io.BytesIO(BLOB))
        proxy.faults += [Fault("^GET .*/blobs/sha", "cut-answer", 0.5), replace(fault)]
        assert read(store, TARGET, limit=TARGET.size) == BLOB
    assert proxy.count("^GET .*/blobs/sha") == 3


TAGS = "^GET .*/tags/list"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (status(TAGS, 404), ()),
        (status(TAGS, 200, b'{"tags":null}'), ()),
        (status(TAGS, 200, b"{}"), ()),
        (status(TAGS, 200, b'{"tags":["b","a","b"]}'), ("a", "b")),
        (status(TAGS, 200, b'{"tags":["a"]}', Link="</v2/x/tags/list?n=1>; rel=next"), ("a",)),
        (status("tags", 200, b'{"tags":["a"]}', Link='<?last=a>; rel="next"'), ("a",)),
        (status("tags", 200, b'{"tags":["a"]}', Link="<http://x/tags/list>;rel=next"), ("a",)),
        (status("tags", 200, b'{"tags":["a"]}', Link="<http://[::1:x>;rel=next"), ("a",)),
        (status(TAGS, 200, b'{"tags":["a"]}', Link="<x"), ("a",)),
    ],
)
def test_lists_of_tags(proxy: Faulty, fault: Fault, expected: tuple[str, ...]) -> None:
    proxy.faults.append(replace(fault))
    with opened(proxy) as store:
        assert store.names() == expected
    assert proxy.count("tags/list") <= 2, "pages that lead to each other end"


def test_a_tag_that_is_deleted_meanwhile_is_left_out(proxy: Faulty) -> None:
    with opened(proxy) as store:
        image = build_image(ImageConfig(platform=AMD64), [])
        put_image(store, image)
        store.tag(image.descriptor, "kept")
        proxy.faults.append(status(TAGS, 200, json.dumps({"tags": ["gone", "kept"]}).encode()))
        assert list(store.tags()) == ["kept"]


@pytest.mark.parametrize(
    "fault",
    [
        page("^GET /v2/$"),
        page("^GET /v2/$", 404),
        status("^GET /v2/$", 302, Location="http://login.example/"),
        status("^GET /v2/$", 302, Location="/login"),
        status("^GET /v2/$", 401),
    ],
    ids=lambda fault: f"{fault.status} {fault.headers}",
)
def test_whatever_answers_at_the_root(proxy: Faulty, fault: Fault) -> None:
    proxy.faults.append(replace(fault))
    with opened(proxy) as store:
        store.put(TARGET, io.BytesIO(BLOB))
        assert store.exists(TARGET)


MANIFEST = "^GET .*/manifests/"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (page(MANIFEST), "a login page answered instead of a registry"),
        (replace(page(MANIFEST), body=b"<html>It works"), "a web page answered instead of a regis"),
        (replace(page(MANIFEST), headers={}), "a login page answered instead of a registry"),
        (status(MANIFEST, 200, b"{}"), "no manifest .it has neither"),
        (status(MANIFEST, 200, b"null"), "no manifest .is not an object"),
        (status(MANIFEST, 200, b"[]"), "no manifest .is not an object"),
        (status(MANIFEST, 200, b""), "no manifest .is not JSON"),
        (page(MANIFEST, 502), r"answers 502 \(a login page\)"),
        (page(MANIFEST, 511), r"answers 511 \(a login page\)"),
        (page(TAGS), "a login page answered instead of a registry"),
        (status(TAGS, 200, b"[]"), "no list of tags"),
        (page("^GET .*/blobs/"), "a login page answered instead of a registry"),
        (page("^POST "), "a login page answered instead of a registry"),
        (page("^PUT "), "a login page answered instead of a registry"),
        (status("^POST ", 202), "names no address to upload to"),
    ],
    ids=lambda each: getattr(each, "match", each)[:40],
)
def test_a_required_answer_that_is_none_says_what_answered(
    proxy: Faulty, fault: Fault, said: str
) -> None:
    proxy.faults.append(replace(fault))
    other = Descriptor.of(uuid.uuid4().bytes, media.LAYER_TAR)
    with opened(proxy) as store, pytest.raises(RegistryError, match=said) as caught:
        if fault.match.startswith(MANIFEST):
            store.resolve("1")
        elif fault.match == TAGS:
            store.names()
        elif "blobs" in fault.match:
            read(store, other)
        else:
            store.put(TARGET, io.BytesIO(BLOB))
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    if "answered" in said:
        assert isinstance(caught.value, NotARegistry)


@pytest.mark.parametrize("code", [400, 405, 411, 413, 415, 501])
def test_a_blob_that_is_refused_whole_is_sent_in_parts(
    proxy: Faulty, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PART", 300_000)
    proxy.faults.append(status("^PUT .*digest=", code, times=1))
    if code == 413:
        proxy.faults.append(headers("^POST", OCI_Chunk_Min_Length="600000"))
    with opened(proxy) as store:
        store.put(TARGET, io.BytesIO(BLOB))
        assert read(store, TARGET, limit=TARGET.size) == BLOB
    parts = [each.body for each in proxy.seen if each.method == "PATCH"]
    assert parts == ([600_000, 424_000] if code == 413 else [300_000, 300_000, 300_000, 124_000])


def test_what_is_refused_in_parts_too_keeps_its_words(proxy: Faulty) -> None:
    proxy.faults += [status("^PUT .*digest=", 413), status("^PATCH", 413)]
    with opened(proxy) as store, pytest.raises(RegistryError, match="answers 413") as caught:
        store.put(TARGET, io.BytesIO(BLOB))
    assert "no content this large" in caught.value.hint


def test_an_upload_at_another_name_of_the_registry(proxy: Faulty) -> None:
    """A registry that knows itself as ``localhost``, and takes tokens at its own name only."""
    proxy.token_uses = 1000
    with opened(proxy) as store:
        place = f"http://localhost:{proxy.server_address[1]}/v2/{store.place.repository}/blobs"
        request = Request(method="POST", url=store.session.uploads)
        with store.session.send(request) as opened_here:
            path = opened_here.headers["location"].rpartition("/uploads/")[2]
        proxy.faults.append(headers("^POST", Location=f"{place}/uploads/{path}#top"))
        store.put(TARGET, io.BytesIO(BLOB))
        assert read(store, TARGET, limit=TARGET.size) == BLOB
    elsewhere = [each for each in proxy.seen if "localhost" in each.headers["Host"]]
    assert elsewhere
    assert not any("Authorization" in each.headers for each in elsewhere)


@pytest.mark.parametrize("kind", NO_ADDRESSES)
def test_an_address_that_is_none_is_refused(proxy: Faulty, kind: str) -> None:
    proxy.faults += [
        status("^GET .*/manifests/", 302, Location=NO_ADDRESSES[kind]),
        headers("^POST", Location=NO_ADDRESSES[kind]),
    ]
    with opened(proxy) as store:
        with pytest.raises(RegistryError, match="which is not an address") as caught:
            store.resolve("1")
        assert "check the registry's name" in caught.value.hint
        assert "secret" not in str(caught.value)
        with pytest.raises(RegistryError, match="names no address to upload to"):
            store.put(TARGET, io.BytesIO(BLOB))


def test_storage_that_refuses_an_upload_gets_it_once(proxy: Faulty) -> None:
    elsewhere = f"http://localhost:{proxy.server_address[1]}/bucket/1"
    proxy.faults += [headers("^POST", Location=elsewhere), status("^PUT /bucket/", 403)]
    with opened(proxy) as store, pytest.raises(RegistryError, match=r"localhost:.* answers 403"):
        store.put(TARGET, io.BytesIO(BLOB))
    assert proxy.count("^PUT /bucket/") == 1


@pytest.mark.parametrize("declared", ["", "application/json", "text/plain; charset=utf-8"])
@pytest.mark.parametrize("kind", [media.MANIFEST, media.INDEX])
def test_a_manifest_without_a_type_is_known_by_its_members(
    proxy: Faulty, kind: str, declared: str
) -> None:
    image = json.loads(build_image(ImageConfig(platform=AMD64), []).manifest)
    del image["mediaType"]
    document = image if kind == media.MANIFEST else {"schemaVersion": 2, "manifests": []}
    fault = status(MANIFEST, 200, canonical(document))
    fault.headers = {"Content-Type": declared} if declared else {}
    proxy.faults.append(fault)
    with opened(proxy) as store:
        assert store.resolve("1").media_type == kind
