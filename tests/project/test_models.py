"""The model store, on every store that lists its names."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from mlpack.model.version import InvalidName, ModelFile, ModelVersion
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Digest
from mlpack.project.directory import ARTIFACT, CONFIG, FILE, SCORING_FILE, ModelStore, NoSuchModel
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import Corrupt, ListingStore, put_bytes, read
from tests.doubles.memory_store import MemoryStore

FILES = {"a/weights.bin": b"w" * 3000, "model.onnx": b"graph", "empty": b""}
SCRIPT = b"def init(): ...\n"


@pytest.fixture(params=["memory", "layout"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ListingStore:
    made: dict[str, ListingStore] = {
        "memory": MemoryStore(),
        "layout": LayoutStore(tmp_path / "oci"),
    }
    return made[request.param]


def version(number: str = "1", name: str = "fan", **files: bytes) -> ModelVersion:
    return ModelVersion(
        name=name,
        version=number,
        framework="directory",
        files=tuple(
            sorted(ModelFile(p, len(c), Digest.of(c)) for p, c in {**FILES, **files}.items())
        ),
        scoring=ModelFile("score.py", len(SCRIPT), Digest.of(SCRIPT)),
        created="2024-06-01T12:00:00+00:00",
    )


@contextmanager
def opened(file: ModelFile) -> Iterator[BinaryIO]:
    held = {Digest.of(each): each for each in (*FILES.values(), SCRIPT)}
    yield io.BytesIO(held[file.digest])


def test_what_is_added_comes_back(store: ListingStore) -> None:
    models = ModelStore(store)
    models.add(version(), opened)
    assert models.get("fan", "1") == version()
    assert models.names() == ("fan",)
    for file in version().files:
        with models.open_file(file) as content:
            assert content.read() == FILES[file.path]


def test_versions_of_one_second_are_in_the_order_of_their_numbers(store: ListingStore) -> None:
    models = ModelStore(store)
    for number in ("9", "10", "1"):
        models.add(version(number), opened)
    models.add(version("3", "fan-failure"), opened)
    assert [each.version for each in models.versions("fan")] == ["1", "9", "10"]
    assert models.get("fan").version == models.get("fan", "").version == "10"
    assert models.names() == ("fan", "fan-failure")
    assert models.holds("fan", "9")
    assert not models.holds("fan", "3")


def test_the_newest_is_the_one_registered_last(store: ListingStore) -> None:
    models = ModelStore(store)
    for number, hour in (("10", 9), ("9", 11), ("beta", 10)):
        created = f"2024-06-01T{hour:02}:00:00+00:00"
        models.add(replace(version(number), created=created), opened)
    assert [each.version for each in models.versions("fan")] == ["10", "beta", "9"]
    assert models.get("fan").version == "9"
    models.describe(replace(models.get("fan", "10"), tags={"stage": "field"}))
    assert models.get("fan").version == "9", "a tag makes no version newer"


def test_the_order_survives_a_copy_by_another_tool(store: ListingStore) -> None:
    models = ModelStore(store)
    for number, hour in (("10", 9), ("9", 11)):
        created = f"2024-06-01T{hour:02}:00:00+00:00"
        target = models.add(replace(version(number), created=created), opened)
        store.tag(replace(target, annotations={}, artifact_type=""), f"model/fan/{number}")
    assert models.get("fan").version == "9"


def test_a_version_is_an_artifact_as_the_page_says(store: ListingStore) -> None:
    target = ModelStore(store).add(version(), opened)
    assert store.resolve("model/fan/1").artifact_type == ARTIFACT
    manifest = json.loads(read(store, target))
    assert manifest["artifactType"] == ARTIFACT
    assert manifest["mediaType"] == media.MANIFEST
    assert manifest["config"]["mediaType"] == CONFIG
    titles = [
        (each["mediaType"], each["annotations"]["org.opencontainers.image.title"])
        for each in manifest["layers"]
    ]
    paths = [(FILE, path) for path in sorted(FILES)]
    assert titles == [*paths, (SCORING_FILE, "score.py")]


def test_the_page_names_the_media_types() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/reference/formats.md").read_text(
        encoding="utf-8"
    )
    for name in (ARTIFACT, CONFIG, FILE, SCORING_FILE):
        assert f"`{name}`" in page


def test_describing_again_keeps_the_content(store: ListingStore) -> None:
    models = ModelStore(store)
    models.add(version(), opened)
    models.describe(replace(version(), tags={"stage": "field"}))
    assert models.get("fan").tags == {"stage": "field"}
    assert len(models.versions("fan")) == 1


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("van", "", r"no model 'van' here .*'fan'"),
        ("fan", "2", r"no version '2' \(it has: 1\)"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    store: ListingStore, name: str, number: str, said: str
) -> None:
    models = ModelStore(store)
    models.add(version(), opened)
    with pytest.raises(NoSuchModel, match=said) as caught:
        models.get(name, number)
    assert caught.value.hint


@pytest.mark.parametrize(("name", "number"), [("x/..", ""), ("../fan", "1"), ("fan", "../1")])
def test_a_name_is_never_a_path(store: ListingStore, name: str, number: str) -> None:
    models = ModelStore(store)
    models.add(version(), opened)
    with pytest.raises(InvalidName):
        models.get(name, number)


def test_other_bytes_than_announced_name_nothing(store: ListingStore) -> None:
    @contextmanager
    def other(_: ModelFile) -> Iterator[BinaryIO]:
        yield io.BytesIO(b"something else")

    with pytest.raises(Corrupt):
        ModelStore(store).add(version(), other)
    assert ModelStore(store).names() == ()


def test_a_document_of_another_version_is_refused(store: ListingStore) -> None:
    models = ModelStore(store)
    store.tag(models.add(version(), opened), "model/fan/2")
    with pytest.raises(Corrupt, match="describes fan:1"):
        models.get("fan", "2")


def test_a_manifest_of_something_else_is_refused(store: ListingStore) -> None:
    config = put_bytes(store, b"{}", media.EMPTY)
    manifest = json.dumps({"config": config.to_json(), "layers": []}).encode()
    store.tag(put_bytes(store, manifest, media.MANIFEST), "model/fan/1")
    with pytest.raises(Corrupt, match="not a model version"):
        ModelStore(store).get("fan")


def flip(layout: LayoutStore, digest: Digest) -> None:
    path = layout.root / "blobs" / "sha256" / digest.hex
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_is_found_when_the_file_is_read(tmp_path: Path) -> None:
    layout = LayoutStore(tmp_path)
    models = ModelStore(layout)
    models.add(version(), opened)
    assert validate(layout) == ()
    weights = version().files[0]
    flip(layout, weights.digest)
    with models.open_file(weights) as content:
        content.seek(2000)
        content.read(10)
        content.seek(0)
        assert len(content.read(weights.size - 1)) == weights.size - 1
        with pytest.raises(Corrupt, match="is not what was registered") as caught:
            content.read(1)
    assert caught.value.hint.startswith("register the model again")
    assert len(validate(layout)) == 1


def test_a_flipped_byte_in_the_document_is_found(tmp_path: Path) -> None:
    layout = LayoutStore(tmp_path)
    models = ModelStore(layout)
    flip(layout, models.add(version(), opened).digest)
    with pytest.raises(Corrupt):
        models.get("fan")


@pytest.mark.parametrize("sizes", [(7,), (1000, 1), (4096,), (1, 2999)])
def test_reading_in_pieces_and_with_jumps_gives_the_same(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    models = ModelStore(LayoutStore(tmp_path))
    models.add(version(), opened)
    weights = version().files[0]
    with models.open_file(weights) as content:
        content.seek(1500)
        assert content.read(3) == b"www"
        content.seek(0)
        found = b""
        for turn in range(10_000):
            piece = content.read(sizes[turn % len(sizes)])
            if not piece:
                break
            found += piece
    assert found == FILES["a/weights.bin"]
