"""Model versions as values: their document, their digest, their names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.errors import MlpackError
from mlpack.json_document import document as to_document
from mlpack.model.order import next_version, version_order
from mlpack.model.version import (
    Framework,
    ModelFile,
    ModelSignature,
    ModelVersion,
    TensorSpec,
    check_version,
    content_digest,
    parse_name,
)
from mlpack.oci.descriptor import Digest, InvalidContent, Node, canonical, parse

NAMES = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,8}){0,2}", fullmatch=True)
PATHS = st.lists(st.from_regex(r"[a-zA-Z0-9_ é-]{1,9}", fullmatch=True), min_size=1, max_size=3)
FILES = st.builds(
    ModelFile,
    PATHS.map("/".join),
    st.integers(0, 10**12),
    st.binary(max_size=4).map(Digest.of),
)
SHAPES = st.none() | st.lists(
    st.none() | st.integers(0, 9) | st.text(min_size=1, max_size=4), max_size=4
).map(tuple)
SPECS = st.builds(TensorSpec, st.text(max_size=5), st.sampled_from(["float32", "int64"]), SHAPES)
TEXTS = st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3)
FRAMEWORKS: list[Framework] = ["onnx", "sklearn", "directory"]
VERSIONS = st.builds(
    ModelVersion,
    name=NAMES,
    version=NAMES.filter(lambda text: text != "latest"),
    framework=st.sampled_from(FRAMEWORKS),
    files=st.lists(FILES, min_size=1, max_size=4, unique_by=lambda f: f.path).map(
        lambda files: tuple(sorted(files))
    ),
    scoring=st.none() | FILES,
    signature=st.builds(
        ModelSignature,
        st.lists(SPECS, max_size=2).map(tuple),
        st.lists(SPECS, max_size=2).map(tuple),
    ),
    ir_version=st.integers(0, 20),
    opsets=st.dictionaries(st.text(max_size=9), st.integers(0, 40), max_size=3),
    domains=st.lists(st.text(max_size=9), max_size=3).map(tuple),
    tags=TEXTS,
    metrics=TEXTS,
    source_commit=st.text(max_size=9),
    created=st.text(max_size=9),
)


def version(**changes: object) -> ModelVersion:
    made = ModelVersion(
        name="fan",
        version="1",
        framework="onnx",
        files=(ModelFile("fan.onnx", 3, Digest.of(b"abc")),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@given(VERSIONS)
def test_a_document_reads_back_as_the_same_version(made: ModelVersion) -> None:
    content = canonical(to_document(made))
    assert ModelVersion.from_json(parse(content, "version")) == made
    assert canonical(to_document(ModelVersion.from_json(parse(content, "version")))) == content


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"name": "other"}, True),
        ({"version": "2"}, True),
        ({"created": "2024-06-01T00:00:00+00:00"}, True),
        ({"tags": {"a": "b"}, "metrics": {"accuracy": "1"}, "source_commit": "c"}, True),
        ({"framework": "sklearn"}, True),
        ({"files": (ModelFile("fan.onnx", 3, Digest.of(b"abd")),)}, False),
        ({"files": (ModelFile("other.onnx", 3, Digest.of(b"abc")),)}, False),
        ({"scoring": ModelFile("score.py", 3, Digest.of(b"abc"))}, False),
    ],
)
def test_the_digest_is_of_content_alone(changes: dict[str, object], same: bool) -> None:
    assert (version(**changes).digest == version().digest) is same


def test_the_digest_does_not_change_between_releases_of_mlpack() -> None:
    assert version().digest == Digest.of(
        b'{"files":[{"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f2001'
        b'5ad","path":"fan.onnx","size":3}],"scoring":null}'
    )


@given(st.lists(FILES, max_size=4))
def test_the_digest_is_of_files_in_any_order(files: list[ModelFile]) -> None:
    assert content_digest(files, None) == content_digest(files[::-1], None)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("framework", "torch"),
        ("files", [{"path": "../x", "size": 1, "digest": "sha256:" + "0" * 64}]),
        ("files", [{"path": "/x", "size": 1, "digest": "sha256:" + "0" * 64}]),
        ("files", [{"path": "x", "size": -1, "digest": "sha256:" + "0" * 64}]),
        ("files", [{"path": "x", "size": 1, "digest": "md5:0"}]),
        ("name", "x/.."),
        ("opsets", {"ai.onnx": "17"}),
        ("signature", {"inputs": []}),
        ("tags", {"a": 1}),
        ("metrics", None),
    ],
)
def test_a_document_that_lies_is_refused(member: str, value: object) -> None:
    document = to_document(version()) | {member: value}
    with pytest.raises(MlpackError):
        ModelVersion.from_json(Node(document, "version"))


def test_a_document_error_says_where() -> None:
    document = to_document(version()) | {"framework": "torch"}
    with pytest.raises(InvalidContent, match=r"^version\.framework: 'torch'"):
        ModelVersion.from_json(Node(document, "version"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fan", ("fan", "latest")),
        ("fan:latest", ("fan", "latest")),
        ("fan:3", ("fan", "3")),
        ("fan-failure:1.0.0", ("fan-failure", "1.0.0")),
    ],
)
def test_names_are_split(text: str, expected: tuple[str, str]) -> None:
    assert parse_name(text) == expected


@pytest.mark.parametrize("text", ["", ":", "fan:", "Fan", "a/b", "fan:1/2", "x/..", "fan:..", "-a"])
def test_names_that_could_be_paths_are_refused(text: str) -> None:
    with pytest.raises(MlpackError) as caught:
        parse_name(text)
    assert caught.value.exit_status == 2


def test_latest_is_no_version() -> None:
    with pytest.raises(MlpackError, match="means the newest"):
        check_version("latest")


@given(st.lists(st.integers(0, 10**6).map(str) | NAMES))
def test_the_next_version_is_new(versions: list[str]) -> None:
    made = next_version(versions)
    assert made not in versions
    numbers = [each for each in versions if each.isdecimal()]
    assert sorted([*numbers, made], key=version_order)[-1] == made


def test_shapes_are_shown_as_people_write_them() -> None:
    assert str(TensorSpec("x", "float32", ("N", None, 4))) == "x: float32 [N, ?, 4]"
    assert str(TensorSpec("x", "float32", ())) == "x: float32 []"
    assert str(TensorSpec("x", "sequence", None)) == "x: sequence"
