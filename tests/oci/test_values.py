"""Digests, descriptors, platforms, references, documents."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.errors import UsageError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Digest,
    InvalidContent,
    InvalidDigest,
    Node,
    Platform,
    Reference,
    canonical,
    parse,
)
from mlpack.oci.reference import InvalidReference

HEX = "0123456789abcdef" * 4


@given(st.binary())
def test_a_digest_reads_what_it_writes(content: bytes) -> None:
    digest = Digest.of(content)
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    ["", HEX, f"sha512:{HEX}", f"sha256:{HEX[:-1]}", f"sha256:{HEX.upper()}", f"sha256:{HEX}\n"],
)
def test_other_texts_are_no_digest(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), JSON))
def test_canonical_json_does_not_depend_on_order(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical(value) == canonical(turned)
    assert parse(canonical(value), "x").value == value


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not JSON"),
        (b"[1]", "is not an object"),
        (b'{"a":', "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "more than"),
    ],
    ids=["empty", "array", "cut", "not utf-8", "deep", "large"],
)
def test_what_is_no_document_is_said_so(content: bytes, problem: str) -> None:
    with pytest.raises(InvalidContent, match=problem) as caught:
        parse(content, "manifest")
    assert str(caught.value).startswith("manifest: ")


def test_a_problem_names_its_place() -> None:
    node = parse(b'{"layers":[{"size":1},{"size":"x"}]}', "manifest")
    sizes = [each.need("size") for each in node.need("layers").elements()]
    assert sizes[0].integer() == 1
    with pytest.raises(InvalidContent, match=r"^manifest\.layers\[1\]\.size: is not a whole"):
        sizes[1].integer()
    with pytest.raises(InvalidContent, match=r"^manifest: 'config' is missing"):
        node.need("config")
    with pytest.raises(InvalidContent, match="less than 0"):
        Node(-1, "x").integer()
    with pytest.raises(InvalidContent, match="whole number"):
        Node(True, "x").integer()


def test_a_descriptor_reads_what_it_writes() -> None:
    target = Descriptor(
        media.MANIFEST,
        Digest.of(b"x"),
        1,
        {"a": "b"},
        Platform("linux", "arm", "v7"),
        "application/x",
    )
    again = Descriptor.from_json(Node(json.loads(json.dumps(target.to_json())), "x"))
    assert again == target
    assert again.annotations == {"a": "b"}
    assert again.platform == Platform("linux", "arm", "v7")
    assert again.artifact_type == "application/x"


def test_descriptors_are_equal_when_the_bytes_are() -> None:
    assert Descriptor.of(b"x", media.CONFIG) == Descriptor(
        media.CONFIG, Digest.of(b"x"), 1, {"note": "other"}
    )


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64"])
def test_other_texts_are_no_platform(text: str) -> None:
    with pytest.raises(UsageError):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("linux/x86_64", Platform("linux", "amd64")),
        ("Linux/ARM64", Platform("linux", "arm64")),
        ("linux/aarch64/v8", Platform("linux", "arm64", "v8")),
        ("linux/arm64/v8.2", Platform("linux", "arm64", "v8.2")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/armel", Platform("linux", "arm", "v6")),
        ("linux/arm/6", Platform("linux", "arm", "v6")),
        ("linux/i386", Platform("linux", "386")),
        ("macos/arm64", Platform("darwin", "arm64")),
        ("windows(10.0.17763.1)/amd64", Platform("windows", "amd64", "", "10.0.17763.1")),
        ("windows(+win32k)/amd64", Platform("windows", "amd64", os_features=("win32k",))),
        ("windows(10.0+a+b)/amd64", Platform("windows", "amd64", "", "10.0", ("a", "b"))),
    ],
)
def test_platforms_are_read_by_all_their_names_and_written_by_one(
    text: str, found: Platform
) -> None:
    assert Platform.parse(text) == found
    assert Platform.parse(str(found)) == found
    assert Platform.from_json(Node(found.to_json(), "x")) == found


@pytest.mark.parametrize("platform", [{}, {"os": "linux"}, {"os": "", "architecture": "arm"}])
def test_an_entry_whose_platform_names_half_says_nothing(platform: dict[str, str]) -> None:
    entry = Descriptor.of(b"x", media.MANIFEST).to_json() | {"platform": platform}
    assert Descriptor.from_json(Node(entry, "x")).platform is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("localhost/fan", ("localhost", "fan", "", None)),
        ("127.0.0.1:5000/a/b:3", ("127.0.0.1:5000", "a/b", "3", None)),
        (f"r.example.com/a@sha256:{HEX}", ("r.example.com", "a", "", Digest(HEX))),
        (f"r.example.com/a:t@sha256:{HEX}", ("r.example.com", "a", "t", Digest(HEX))),
        ("[::1]:5000/a__b/c-d:T.1", ("[::1]:5000", "a__b/c-d", "T.1", None)),
        ("[2001:db8::1]/a", ("[2001:db8::1]", "a", "", None)),
        ("registry:5000/a", ("registry:5000", "a", "", None)),
    ],
)
def test_references(text: str, parts: tuple[str, str, str, Digest | None]) -> None:
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag, found.digest) == parts
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("docker.io/alpine", "docker.io/library/alpine"),
        ("docker.io/alpine:3.20", "docker.io/library/alpine:3.20"),
        (f"docker.io/alpine@sha256:{HEX}", f"docker.io/library/alpine@sha256:{HEX}"),
        ("index.docker.io/alpine", "docker.io/library/alpine"),
        ("registry-1.docker.io/alpine", "docker.io/library/alpine"),
        ("Docker.io/alpine", "docker.io/library/alpine"),
        ("docker.io/bitnami/redis", "docker.io/bitnami/redis"),
        ("docker.io/library/alpine", "docker.io/library/alpine"),
        ("docker://docker.io/alpine", "docker.io/library/alpine"),
        ("docker://r.example.com/alpine:3", "r.example.com/alpine:3"),
        ("mirror.docker.io/alpine", "mirror.docker.io/alpine"),
    ],
)
def test_docker_hub_and_its_registry_have_one_name(text: str, whole: str) -> None:
    found = Reference.parse(text)
    assert str(found) == whole
    assert Reference.parse(whole) == found
    hub = whole.startswith("docker.io/")
    assert found.host == ("registry-1.docker.io" if hub else found.registry)


HUBS = "docker.io/library/alpine"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("", "names no registry", "registry.example.com"),
        ("fan", "names no registry", "docker.io/library/fan"),
        ("fan:1", "names no registry", "docker.io/library/fan:1"),
        ("alpine", "names no registry", HUBS),
        ("docker://alpine:3", "names no registry", f"{HUBS}:3"),
        (f"alpine@sha256:{HEX}", "names no registry", f"{HUBS}@sha256:{HEX}"),
        ("bitnami/redis", "'bitnami' is not a host", "docker.io/bitnami/redis"),
        ("../fan", "'..' is not a host", "registry.example.com"),
        ("/fan", "names no registry", "registry.example.com"),
        ("r.example.com/", "names no registry", "registry.example.com"),
        ("r.example.com/A", "upper-case", "write r.example.com/a"),
        ("r.example.com/Team/fan:V1", "upper-case", "write r.example.com/team/fan"),
        ("r.example.com//a", "not a repository name", ""),
        ("r.example.com/a/", "not a repository name", ""),
        ("r.example.com/../a", "not a repository name", ""),
        ("r.example.com/a b", "not a repository name", ""),
        (f"r.example.com/{'a/' * 200}b", "more than 255", ""),
        ("r.example.com/a:", "is not a tag", ""),
        (f"r.example.com/a:{'x' * 129}", "is not a tag", ""),
        ("r.example.com/a:1:2", "is not a tag", ""),
        ("r.example.com/a@", "lacks a digest", ""),
        ("r.example.com/a@sha256:12", "not a digest", ""),
        ("r.example.com/a@sha512:ab12", "a digest of sha512, and mlpack takes sha256", "tag"),
        ("r.example.com/a@sha256+b64u:q_A=", "a digest of sha256+b64u", "tag"),
        ("r.example.com:/a", "'' is not a port", ""),
        ("r.example.com:0/a", "'0' is not a port", ""),
        ("r.example.com:65536/a", "'65536' is not a port", ""),
        ("r.example.com:http/a", "'http' is not a port", ""),
        ("[::1]:x/a", "'x' is not a port", ""),
        ("[::1]5000/a", "not a port", ""),
        ("[::g]:5000/a", "'[::g]' is not a host", ""),
        ("[fe80::1%eth0]:5000/a", "is not a host", ""),
        ("2001:db8::1/a", "is not a host", "in brackets"),
        ("-r.example.com/a", "is not a host", ""),
        ("https://r.example.com/a", "is not in a registry", "leave out https://"),
        ("oci://r.example.com/a", "is not in a registry", "leave out oci://"),
        ("dir:/tmp/image", "is not in a registry", "skopeo copy dir:/tmp/image oci:"),
        ("containers-storage:localhost/a:1", "is not in a registry", "podman save"),
    ],
)
def test_other_texts_are_no_reference(text: str, said: str, hint: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint in caught.value.hint


def test_pinning_drops_the_tag_that_edge_agent_refuses() -> None:
    pinned = Reference.parse("r.example.com/a:3").pinned(Digest(HEX))
    assert str(pinned) == f"r.example.com/a@sha256:{HEX}"
