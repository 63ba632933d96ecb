"""The registry's requests and answers, and what it refuses (distribution-spec 1.1)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from starlette.applications import Starlette

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, canonical
from mlpack.oci.image import ImageConfig, build_image
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import releases
from mlpack.registry.serve.app import MAX_OPEN, BasicLogin, create_app
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import images, put_bytes
from tests.registry.serve.server import asking
from tests.support import AMD64, real_layer, released_project

Ask = Callable[[Starlette], Client]
BLOB = b"a blob of some bytes" * 100
DIGEST = str(Digest.of(BLOB))


@pytest.fixture
def layout(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "oci")


@pytest.fixture
def client(layout: LayoutStore) -> Iterator[Client]:
    with asking(create_app(layout)) as made:
        yield made


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with the releases fan:1 and fan:2."""
    return released_project(tmp_path / "project", 2)


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Begins servers, which end with the test."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(asking(app))


def code(answer: Any) -> tuple[int, str]:  # noqa: ANN401  # httpx's Response
    return answer.status_code, answer.json()["errors"][0]["code"]


def push_blob(client: Client, content: bytes, name: str = "fan") -> str:
    digest = str(Digest.of(content))
    begun = client.post(f"/v2/{name}/blobs/uploads/")
    assert begun.status_code == 202
    ended = client.put(begun.headers["location"], params={"digest": digest}, content=content)
    assert (ended.status_code, ended.headers["docker-content-digest"]) == (201, digest)
    return digest


def manifest_of(client: Client, config: bytes = b"{}", **more: object) -> bytes:
    """A manifest of one pushed config and no layers."""
    push_blob(client, config)
    described = Descriptor.of(config, media.CONFIG).to_json()
    document = {"schemaVersion": 2, "mediaType": media.MANIFEST, "config": described, "layers": []}
    return canonical({**document, **more})


def put_manifest(client: Client, name: str, content: bytes) -> Any:  # noqa: ANN401
    return client.put(f"/v2/{name}", content=content, headers={"content-type": media.MANIFEST})


def test_ping(client: Client) -> None:
    answer = client.get("/v2/")
    assert (answer.status_code, answer.json()) == (200, {})


def test_a_blob_in_one_piece(client: Client) -> None:
    assert client.head(f"/v2/fan/blobs/{DIGEST}").status_code == 404
    push_blob(client, BLOB)
    seen = client.head(f"/v2/fan/blobs/{DIGEST}")
    assert (seen.status_code, seen.headers["content-length"]) == (200, str(len(BLOB)))
    got = client.get(f"/v2/fan/blobs/{DIGEST}")
    assert (got.content, got.headers["docker-content-digest"]) == (BLOB, DIGEST)


def test_a_blob_in_one_request(client: Client) -> None:
    answer = client.post("/v2/fan/blobs/uploads/", params={"digest": DIGEST}, content=BLOB)
    assert answer.status_code == 201
    assert client.get(answer.headers["location"]).content == BLOB


def test_a_part_of_a_blob(client: Client) -> None:
    push_blob(client, BLOB)
    part = client.get(f"/v2/fan/blobs/{DIGEST}", headers={"range": "bytes=100-"})
    assert (part.status_code, part.content) == (206, BLOB[100:])
    assert part.headers["content-range"] == f"bytes 100-{len(BLOB) - 1}/{len(BLOB)}"
    beyond = client.get(f"/v2/fan/blobs/{DIGEST}", headers={"range": f"bytes={len(BLOB)}-"})
    assert beyond.status_code == 416


def test_an_upload_in_pieces_goes_on_where_it_stands(client: Client) -> None:
    place = client.post("/v2/fan/blobs/uploads/").headers["location"]
    first = client.patch(place, content=BLOB[:700], headers={"content-range": "0-699"})
    assert (first.status_code, first.headers["range"]) == (202, "0-699")
    for start in ("600-1299", "800-1499", "nonsense"):
        wrong = client.patch(place, content=BLOB[600:1300], headers={"content-range": start})
        assert code(wrong) == (416, "BLOB_UPLOAD_INVALID")
        assert wrong.headers["range"] == "0-699"
    stands = client.get(place)
    assert (stands.status_code, stands.headers["range"]) == (204, "0-699")
    ended = client.put(place, params={"digest": DIGEST}, content=BLOB[700:])
    assert ended.status_code == 201
    assert client.get(f"/v2/fan/blobs/{DIGEST}").content == BLOB
    assert code(client.get(place)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_what_is_not_its_digest_is_not_kept(client: Client, layout: LayoutStore) -> None:
    place = client.post("/v2/fan/blobs/uploads/").headers["location"]
    wrong = client.put(place, params={"digest": DIGEST}, content=BLOB[:-1])
    assert code(wrong) == (400, "DIGEST_INVALID")
    assert client.head(f"/v2/fan/blobs/{DIGEST}").status_code == 404
    assert code(client.get(place)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert not list((layout.root / "unfinished").iterdir())


def test_a_dropped_upload_leaves_nothing(client: Client, layout: LayoutStore) -> None:
    place = client.post("/v2/fan/blobs/uploads/").headers["location"]
    client.patch(place, content=BLOB)
    assert client.delete(place).status_code == 204
    assert not list((layout.root / "unfinished").iterdir())


def test_uploads_that_are_never_ended_are_bounded(client: Client, layout: LayoutStore) -> None:
    places = [
        client.post("/v2/fan/blobs/uploads/").headers["location"] for _ in range(MAX_OPEN + 1)
    ]
    assert code(client.get(places[0])) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert client.get(places[-1]).status_code == 204
    assert len(list((layout.root / "unfinished").iterdir())) == MAX_OPEN


def test_a_server_that_ends_leaves_no_upload(layout: LayoutStore) -> None:
    with asking(create_app(layout)) as client:
        client.post("/v2/fan/blobs/uploads/")
    assert not list((layout.root / "unfinished").iterdir())


def test_a_blob_of_another_repository_is_mounted(client: Client) -> None:
    push_blob(client, BLOB, "base")
    where = {"mount": DIGEST, "from": "base"}
    assert client.post("/v2/fan/blobs/uploads/", params=where).status_code == 201
    unknown = {"mount": f"sha256:{'0' * 64}", "from": "base"}
    assert client.post("/v2/fan/blobs/uploads/", params=unknown).status_code == 202


def test_a_manifest_by_tag_and_by_digest(client: Client) -> None:
    content = manifest_of(client)
    answer = put_manifest(client, "edge/fan/manifests/blue", content)
    digest = str(Digest.of(content))
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, digest)
    for reference in ("blue", digest):
        seen = client.head(f"/v2/edge/fan/manifests/{reference}")
        assert seen.headers["content-length"] == str(len(content))
        got = client.get(f"/v2/edge/fan/manifests/{reference}")
        assert (got.content, got.headers["content-type"]) == (content, media.MANIFEST)
    assert client.get("/v2/edge/fan/tags/list").json() == {"name": "edge/fan", "tags": ["blue"]}
    assert client.get("/v2/_catalog").json() == {"repositories": ["edge/fan"]}


def test_a_pushed_tag_moves(client: Client) -> None:
    old, new = manifest_of(client), manifest_of(client, b'{"a":1}')
    for content in (old, new):
        assert put_manifest(client, "fan/manifests/blue", content).status_code == 201
    assert client.get("/v2/fan/manifests/blue").content == new
    assert client.get(f"/v2/fan/manifests/{Digest.of(old)}").content == old


def test_a_manifest_comes_after_its_parts(client: Client) -> None:
    document = json.loads(manifest_of(client))
    document["layers"] = [{"mediaType": media.LAYER_TAR, "digest": DIGEST, "size": len(BLOB)}]
    early = put_manifest(client, "fan/manifests/1", canonical(document))
    assert code(early) == (404, "MANIFEST_BLOB_UNKNOWN")
    push_blob(client, BLOB)
    assert put_manifest(client, "fan/manifests/1", canonical(document)).status_code == 201


@pytest.mark.parametrize(
    "kind", ["", "application/json", "application/octet-stream", media.MANIFEST.upper() + "; q=1"]
)
def test_a_manifest_names_its_own_type(client: Client, kind: str) -> None:
    content = manifest_of(client)
    headers = {"content-type": kind} if kind else {}
    pushed = client.put("/v2/fan/manifests/1", content=content, headers=headers)
    assert pushed.status_code == 201
    assert client.get("/v2/fan/manifests/1").headers["content-type"] == media.MANIFEST
    untyped = client.put("/v2/fan/manifests/1", content=b'{"mediaType":7}', headers=headers)
    assert code(untyped) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize("count", ["0", "00", "9" * 5000, "-1", "\u00b2", "x", ""])
def test_a_page_never_leads_to_itself(client: Client, count: str) -> None:
    put_manifest(client, "fan/manifests/1", manifest_of(client))
    answer = client.get("/v2/fan/tags/list", params={"n": count})
    assert answer.status_code == 200
    assert "link" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "content", "expected"),
    [
        ("GET", "/v2/fan/blobs/sha256:1", b"", (400, "DIGEST_INVALID")),
        ("GET", "/v2/fan/blobs/..%2f..%2fetc", b"", (404, "UNSUPPORTED")),
        ("GET", "/v2/Fan/tags/list", b"", (400, "NAME_INVALID")),
        ("GET", "/v2/none/tags/list", b"", (404, "NAME_UNKNOWN")),
        ("GET", "/v2/none/manifests/1", b"", (404, "NAME_UNKNOWN")),
        ("GET", f"/v2/none/manifests/{DIGEST}", b"", (404, "MANIFEST_UNKNOWN")),
        ("GET", "/v2/fan/manifests/a%20b", b"", (400, "MANIFEST_INVALID")),
        ("DELETE", f"/v2/fan/blobs/{DIGEST}", b"", (405, "UNSUPPORTED")),
        ("GET", "/v1/", b"", (404, "UNSUPPORTED")),
        ("PUT", "/v2/fan/manifests/1", b"{", (400, "MANIFEST_INVALID")),
        ("PUT", "/v2/fan/manifests/1", b"{}", (400, "MANIFEST_INVALID")),
        ("PUT", "/v2/fan/manifests/1", b" " * 4_194_305, (413, "SIZE_INVALID")),
    ],
)
def test_what_cannot_be_is_refused(
    client: Client, method: str, path: str, content: bytes, expected: tuple[int, str]
) -> None:
    headers = {"content-type": media.MANIFEST}
    assert code(client.request(method, path, content=content, headers=headers)) == expected


def test_a_blob_is_no_manifest(client: Client) -> None:
    for content in (BLOB, b'{"mediaType":"text/plain"}'):
        digest = push_blob(client, content)
        assert code(client.get(f"/v2/fan/manifests/{digest}")) == (404, "MANIFEST_UNKNOWN")


def test_a_manifest_that_says_it_is_something_else(client: Client) -> None:
    content = manifest_of(client)
    headers = {"content-type": media.INDEX}
    wrong = client.put("/v2/fan/manifests/1", content=content, headers=headers)
    assert code(wrong) == (400, "MANIFEST_INVALID")
    other = put_manifest(client, f"fan/manifests/{DIGEST}", content)
    assert code(other) == (400, "DIGEST_INVALID")


def test_lists_come_in_pages(client: Client) -> None:
    content = manifest_of(client)
    for tag in ("a", "b", "c"):
        put_manifest(client, f"fan/manifests/{tag}", content)
    first = client.get("/v2/fan/tags/list", params={"n": 2})
    assert first.json()["tags"] == ["a", "b"]
    rest = client.get(first.headers["link"].partition("<")[2].partition(">")[0])
    assert (rest.json()["tags"], "link" in rest.headers) == (["c"], False)


def test_referrers_are_found_and_filtered(client: Client) -> None:
    subject = manifest_of(client)
    put_manifest(client, "fan/manifests/1", subject)
    target = Descriptor.of(subject, media.MANIFEST)
    for kind in ("text/sbom", "text/signature"):
        content = manifest_of(client, subject=target.to_json(), artifactType=kind)
        pushed = put_manifest(client, f"fan/manifests/{Digest.of(content)}", content)
        assert pushed.headers["oci-subject"] == str(target.digest)
    found = client.get(f"/v2/fan/referrers/{target.digest}")
    assert found.headers["content-type"] == media.INDEX
    kinds = [each["artifactType"] for each in found.json()["manifests"]]
    assert sorted(kinds) == ["text/sbom", "text/signature"]
    one = client.get(f"/v2/fan/referrers/{target.digest}", params={"artifactType": "text/sbom"})
    assert [each["artifactType"] for each in one.json()["manifests"]] == ["text/sbom"]
    assert one.headers["oci-filters-applied"] == "artifactType"
    assert client.get(f"/v2/fan/referrers/{DIGEST}").json()["manifests"] == []
    assert client.get("/v2/fan/tags/list").json()["tags"] == ["1"]


def test_an_index_can_have_a_subject(client: Client) -> None:
    subject = manifest_of(client)
    put_manifest(client, "fan/manifests/1", subject)
    target = Descriptor.of(subject, media.MANIFEST)
    index = {
        "schemaVersion": 2,
        "mediaType": media.INDEX,
        "artifactType": "text/reports",
        "manifests": [target.to_json()],
        "subject": target.to_json(),
        "annotations": {"of": "today"},
    }
    content = json.dumps(index).encode()
    headers = {"content-type": media.INDEX}
    pushed = client.put("/v2/fan/manifests/reports", content=content, headers=headers)
    assert pushed.headers["oci-subject"] == str(target.digest)
    [found] = client.get(f"/v2/fan/referrers/{target.digest}").json()["manifests"]
    assert (found["mediaType"], found["artifactType"]) == (media.INDEX, "text/reports")
    assert found["annotations"] == {"of": "today"}


def test_releases_are_repositories_and_tags(project: ProjectDirectory, ask: Ask) -> None:
    client = ask(create_app(project.layout))
    assert client.get("/v2/fan/tags/list").json()["tags"] == ["1", "2"]
    wanted = releases(project.layout, "fan")
    for tag, target in (("1", wanted["1"]), ("2", wanted["2"])):
        got = client.get(f"/v2/fan/manifests/{tag}")
        assert got.headers["docker-content-digest"] == str(target.digest)
        assert got.headers["content-type"] == media.INDEX
    named = client.get("/v2/_catalog").json()["repositories"]
    assert named == ["base", "fan", "model/fan", "release/fan"]
    [record] = client.get(f"/v2/fan/referrers/{wanted['1'].digest}").json()["manifests"]
    assert record["artifactType"] == "application/vnd.mlpack.release.v1+json"


def test_latest_is_there_if_it_was_pushed(project: ProjectDirectory, ask: Ask) -> None:
    client = ask(create_app(project.layout))
    assert code(client.get("/v2/fan/manifests/latest")) == (404, "MANIFEST_UNKNOWN")
    first = client.get("/v2/fan/manifests/1")
    headers = {"content-type": media.INDEX}
    client.put("/v2/fan/manifests/latest", content=first.content, headers=headers)
    got = client.get("/v2/fan/manifests/latest")
    assert got.headers["docker-content-digest"] == first.headers["docker-content-digest"]
    assert client.get("/v2/fan/tags/list").json()["tags"] == ["1", "2", "latest"]


@pytest.mark.parametrize(
    "name", ["fan/manifests/1", "base/manifests/latest", "model/fan/manifests/1"]
)
def test_what_is_the_projects_own_does_not_change(
    project: ProjectDirectory, name: str, ask: Ask
) -> None:
    client = ask(create_app(project.layout))
    before = client.get(f"/v2/{name}").content
    assert code(put_manifest(client, name, manifest_of(client))) == (403, "DENIED")
    assert client.get(f"/v2/{name}").content == before


def test_a_release_pushed_from_elsewhere_is_a_release_here(
    project: ProjectDirectory, layout: LayoutStore, ask: Ask
) -> None:
    made = images(project.layout, project.layout.resolve("fan-2"))[0]
    client = ask(create_app(layout))
    for part in (made.config_descriptor, *(each.descriptor for each in made.layers)):
        push_blob(client, project.layout.path(part).read_bytes())
    for tag in ("2", "blue"):
        assert put_manifest(client, f"fan/manifests/{tag}", made.manifest).status_code == 201
    assert {key: each.digest for key, each in releases(layout, "fan").items()} == {"2": made.digest}
    assert sorted(layout.tags()) == ["fan-2", "fan/blue"]
    # And from then on it does not change.
    assert code(put_manifest(client, "fan/manifests/2", manifest_of(client))) == (403, "DENIED")


def test_only_the_user_is_let_in(layout: LayoutStore, ask: Ask) -> None:
    client = ask(create_app(layout, login=BasicLogin("edge", "päss")))
    refused = client.get("/v2/")
    assert code(refused) == (401, "UNAUTHORIZED")
    assert refused.headers["www-authenticate"].startswith("Basic ")
    for pair, status in (("edge:päss", 200), ("edge:pass", 401), ("edge", 401)):
        sent = "Basic " + base64.b64encode(pair.encode()).decode()
        assert client.get("/v2/", headers={"authorization": sent}).status_code == status
    for sent in ("Basic ?", "Bearer x", "Basic"):
        assert client.get("/v2/", headers={"authorization": sent}).status_code == 401


def test_a_password_is_in_no_representation() -> None:
    assert "secret" not in repr(BasicLogin("edge", "secret"))


def test_a_read_only_registry_takes_no_push(layout: LayoutStore, ask: Ask) -> None:
    client = ask(create_app(layout, writable=False))
    assert code(client.post("/v2/fan/blobs/uploads/")) == (403, "DENIED")
    assert code(client.put("/v2/fan/manifests/1", content=b"{}")) == (403, "DENIED")


def test_a_blob_that_was_lost_is_said_to_be(layout: LayoutStore, ask: Ask) -> None:
    made = build_image(ImageConfig(platform=AMD64), [real_layer(layout, {"a": b"a"})])
    put_bytes(layout, made.config, media.CONFIG)
    layout.tag(put_bytes(layout, made.manifest, media.MANIFEST), "fan/1")
    layout.path(made.descriptor).unlink()
    client = ask(create_app(layout))
    assert code(client.get("/v2/fan/manifests/1")) == (404, "BLOB_UNKNOWN")
