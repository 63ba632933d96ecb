"""A release's record beside it: in a registry without the referrers API, and in ours with it."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Reference, canonical
from mlpack.project.directory import ProjectDirectory
from mlpack.registry.referrers import fallback_tag
from mlpack.registry.repository import Registries, RegistryStore
from mlpack.registry.serve.app import create_app
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import CREATED, MAX_BYTES, RECORD, RecordContent, keep_record, records
from mlpack.stores.store import ReferrersUnsupported, put_bytes, read, read_index
from tests.registry.faulty import Fault, faulty
from tests.registry.registry import running
from tests.registry.serve.server import listening
from tests.support import make_project, released_project, run

KINDS = ("docker-registry", "ours")


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[str]:
    """Host and port of a registry without the referrers API, or with it."""
    if kind == "docker-registry":
        with running(folder / "registry") as registry:
            yield registry.host
    else:
        with listening(create_app(LayoutStore(folder / "served"))) as port:
            yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module", params=KINDS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(request.param, tmp_path_factory.mktemp("records")) as found:
        yield found


@pytest.fixture
def there(host: str) -> Iterator[RegistryStore]:
    """A repository of its own, to look at."""
    place = Reference.parse(f"{host}/edge/{uuid.uuid4().hex}")
    with Registries() as registries:
        yield registries.store(place, push=True)


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with a release of fan."""
    return released_project(tmp_path / "fan", 1)


def mlpack(project: ProjectDirectory, *args: str) -> dict[str, Any]:
    done = run("-C", str(project.root), "--json", *args)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_push_brings_the_record_and_a_pull_takes_it(
    project: ProjectDirectory, there: RegistryStore, tmp_path: Path
) -> None:
    record = project.layout.resolve("release/fan/1")
    pushed = mlpack(project, "push", "fan:1", "--to", str(there.place))
    assert pushed["record"] == str(record.digest)
    target = project.layout.resolve("fan-1")
    (listed,) = there.referrers(target, RECORD)
    assert (listed, listed.artifact_type) == (record, RECORD)

    other = make_project(tmp_path / "other", base=False)
    pulled = mlpack(other, "pull", f"{there.place}:1")
    assert pulled["record"] == str(record.digest)
    assert other.layout.resolve("release/fan/1") == record
    assert validate(other.layout) == ()
    manifest = json.loads(read(other.layout, record))
    assert read(other.layout, Descriptor.of(b"{}", media.EMPTY)) == b"{}"
    assert (other.layout.root / "blobs/sha256" / manifest["layers"][0]["digest"][7:]).is_file()


def test_a_second_push_asks_for_nothing_more(
    project: ProjectDirectory, there: RegistryStore
) -> None:
    mlpack(project, "push", "fan:1", "--to", str(there.place))
    again = mlpack(project, "push", "fan:1", "--to", str(there.place))
    wire = again["wire"]
    assert wire["requests"] == 2
    assert wire["sent_bytes"] + wire["received_bytes"] < 3_000
    named = mlpack(project, "push", "fan:1", "--to", f"{there.place}:canary")
    assert len(there.referrers(project.layout.resolve("fan-1"))) == 1, "listed once"
    assert named["wire"]["sent_bytes"] + named["wire"]["received_bytes"] < 6_000


def test_a_copy_brings_the_record_along(
    project: ProjectDirectory, host: str, there: RegistryStore, tmp_path: Path
) -> None:
    target, record = (project.layout.resolve(name) for name in ("fan-1", "release/fan/1"))
    mlpack(project, "copy", "fan:1", f"{there.place}:1")
    second = Reference.parse(f"{host}/edge/{uuid.uuid4().hex}")
    moved = mlpack(project, "copy", f"{there.place}:1", f"{second}:1")
    assert moved["record"] == str(record.digest)
    with Registries() as registries:
        assert records(registries.store(second), target) == (record,)
    mlpack(project, "copy", f"{second}:1", f"oci:{tmp_path}/out:x")
    out = LayoutStore.existing(tmp_path / "out")
    assert records(out, target) == (record,)
    assert validate(out) == ()
    again = run("diff", "none", f"oci:{tmp_path}/out")
    assert again.exit_code == 0, "the record is no second image of the layout"


def test_what_others_attached_stays(project: ProjectDirectory, there: RegistryStore) -> None:
    layout = project.layout
    target = layout.resolve("fan-1")
    mlpack(project, "copy", "fan:1", f"{there.place}:1")
    signature = _artifact(layout, target, "application/vnd.example.signature", {"by": "them"})
    there.attach(layout, signature, target)
    there.attach(layout, signature, target)
    mlpack(project, "push", "fan:1", "--to", f"{there.place}:2")
    listed = {each.artifact_type: each for each in there.referrers(target)}
    assert set(listed) == {RECORD, "application/vnd.example.signature"}
    assert listed["application/vnd.example.signature"].annotations == {"by": "them"}
    assert len(there.referrers(target)) == 2
    assert there.referrers(target, RECORD) == (listed[RECORD],)


def test_the_fallback_tag_is_written_only_where_it_is_needed(
    project: ProjectDirectory, there: RegistryStore, request: pytest.FixtureRequest
) -> None:
    mlpack(project, "push", "fan:1", "--to", str(there.place))
    target = project.layout.resolve("fan-1")
    fallback = fallback_tag(target)
    names = set(there.names())
    if "docker-registry" in request.node.name:
        assert names == {"1", fallback}
        index = json.loads(read(there, there.resolve(fallback)))
        assert (index["schemaVersion"], index["mediaType"]) == (2, media.INDEX)
        (entry,) = index["manifests"]
        record = project.layout.resolve("release/fan/1")
        assert entry == {
            "mediaType": media.MANIFEST,
            "digest": str(record.digest),
            "size": record.size,
            "artifactType": RECORD,
            "annotations": {CREATED: target.annotations[CREATED]},
        }
    else:
        assert fallback not in names


def test_a_fallback_tag_that_is_something_else_is_left_alone(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    layout, target = project.layout, project.layout.resolve("fan-1")
    record = layout.resolve("release/fan/1")
    with serving("docker-registry", tmp_path) as host, Registries() as registries:
        store = registries.store(Reference.parse(f"{host}/edge/fan"), push=True)
        mlpack(project, "push", "base", "--to", str(store.place))
        base = layout.resolve("base")
        image = read_index(layout, base).manifests[0]
        fallback = fallback_tag(target)
        # An index is added to, whatever it lists.
        store.tag(base, fallback)
        store.attach(layout, record, target)
        written = json.loads(read(store, store.resolve(fallback)))
        assert written["manifests"][:-1] == json.loads(read(layout, base))["manifests"]
        # An image is not.
        store.tag(image, fallback)
        with pytest.raises(ReferrersUnsupported, match="unchanged"):
            store.attach(layout, record, target)
        assert store.resolve(fallback) == image
        assert store.referrers(target) == ()


def test_a_registry_that_takes_images_only_gets_the_release(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    record = project.layout.resolve("release/fan/1")
    with running(tmp_path / "registry") as registry, faulty(registry.host) as proxy:
        proxy.faults.append(Fault(f"^PUT .*/manifests/{record.digest}", "status", status=415))
        done = run("-C", str(project.root), "push", "fan:1", "--to", f"{proxy.host}/edge/fan")
        assert done.exit_code == 0, done.stderr
        assert "the release's record stays here: " in done.stderr
        assert "answers 415" in done.stderr


def test_what_only_claims_to_be_a_record_is_not_brought(
    project: ProjectDirectory, there: RegistryStore, tmp_path: Path
) -> None:
    layout, target = project.layout, project.layout.resolve("fan-1")
    mlpack(project, "copy", "fan:1", f"{there.place}:1")
    other = make_project(tmp_path / "second", base=False)
    huge = put_bytes(other.layout, b"x" * (MAX_BYTES + 1), RECORD)
    made = _artifact(other.layout, target, RECORD, {"a": "b"}, huge)
    there.attach(other.layout, made, target)
    third = make_project(tmp_path / "third", base=False)
    mlpack(third, "pull", f"{there.place}:1")
    assert third.layout.resolve("release/fan/1") == layout.resolve("release/fan/1")
    assert not third.layout.exists(huge)


def test_devices_do_not_see_a_record(project: ProjectDirectory, there: RegistryStore) -> None:
    """Nothing that a device fetches names it: manifests and configs are what they were."""
    target = project.layout.resolve("fan-1")
    before = read(project.layout, target)
    mlpack(project, "push", "fan:1", "--to", str(there.place))
    with Registries() as registries:
        store = registries.store(there.place)
        assert read(store, store.resolve("1")) == before


def test_a_record_is_kept_for_a_layout_without_one(tmp_path: Path) -> None:
    layout = LayoutStore(tmp_path / "layout")
    target = put_bytes(layout, b'{"schemaVersion":2}', media.MANIFEST)
    layout.tag(target, "x")
    assert records(layout, target) == ()
    made = keep_record(layout, "fan", "1", target, RecordContent({"a": 1}))
    assert records(layout, target) == (made,)


def _artifact(
    layout: LayoutStore,
    subject: Descriptor,
    kind: str,
    notes: dict[str, str],
    content: Descriptor | None = None,
) -> Descriptor:
    part = content or put_bytes(layout, kind.encode(), kind)
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": kind,
        "config": put_bytes(layout, b"{}", media.EMPTY).to_json(),
        "layers": [part.to_json()],
        "subject": subject.to_json() | {"annotations": {}},
    }
    if notes:
        manifest["annotations"] = notes
    content_bytes = canonical(manifest)
    target = Descriptor.of(content_bytes, media.MANIFEST)
    layout.put(target, io.BytesIO(content_bytes))
    return target
