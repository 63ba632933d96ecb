"""The transfer model against the pulls that were measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlpack.json_document import document
from mlpack.kinds import ENGINES
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.image import Image, ImageConfig, Layer, build_image, build_index
from mlpack.plan.engines import PER_CONNECTION, DeviceState, InvalidLink, Link, PullScenario, engine
from mlpack.plan.transfer import Transfer, diff_pull, transfer
from mlpack.settings.project_settings import DeviceSettings
from tests.plan import measured
from tests.plan.measured import BASE, MINIMAL, MINIMAL_PLAIN, ROWS, TLS, TOKENS, V1, Row
from tests.support import AMD64, ARM64, image

NAMES = ENGINES
EMPTY = DeviceState()
HELD = DeviceState.holding(measured.measured_image(V1))


def smallest(tls: str = "none", *, by_digest: bool = False, token: int = 0) -> tuple[Image, Link]:
    """The smallest measured update: no history, no environment, a trimmed layer."""
    layers = [measured.measured_layer(name) for name in BASE.split()]
    model = measured.measured_layer("B")
    layers.append(Layer(replace(model.descriptor, size=MINIMAL[2]), model.diff_id))
    # Over loopback containerd opened 2 connections, and its answers shared them.
    link = Link(tls=tls, by_digest=by_digest, tag_bytes=4, token_bytes=token, connections=2)
    return build_image(ImageConfig(platform=AMD64), layers), link


def total(name: str, tls: str = "none", *, by_digest: bool = False, token: int = 0) -> Transfer:
    target, link = smallest(tls, by_digest=by_digest, token=token)
    return transfer(engine(name), target, None, HELD, link)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_plain_http_is_exact_to_the_byte(row: Row, name: str) -> None:
    planned = transfer(engine(name), row.target, None, row.state, row.link)
    assert (planned.total, planned.requests) == getattr(row, name)[:2]


def test_the_images_have_the_measured_manifest_and_config_sizes() -> None:
    assert [
        (len(i.manifest), len(i.config)) for i in (ROWS["v2 replace"].target, ROWS["fresh"].target)
    ] == [
        (1191, 1077),
        (1191, 1077),
    ]
    assert len(smallest()[0].manifest) == MINIMAL[0]


def test_the_parts_of_the_measured_pull_of_v2() -> None:
    row = ROWS["v2 replace"]
    pull = PullScenario(image=row.target, state=row.state, link=row.link)
    seen = {
        name: [
            (each.what, each.request, each.response, each.body)
            for each in engine(name).requests(
                engine(name).wire, pull, engine(name).steps(row.target, row.state)
            )
        ]
        for name in NAMES
    }
    assert seen == {
        "moby": [
            ("ping", 249, 188, 2),
            ("head", 569, 379, 0),
            ("manifest", 660, 379, 1191),
            ("config", 333, 416, 1077),
            ("layers", 333, 416, 6188),
        ],
        "containerd": [
            ("head", 309, 360, 0),
            ("manifest", 246, 360, 1191),
            ("config", 240, 397, 1077),
            ("layers", 243, 397, 6188),
        ],
        "podman": [
            ("ping", 193, 188, 2),
            ("manifest", 571, 379, 1191),
            ("config", 277, 416, 1077),
            ("layers", 277, 416, 6188),
        ],
    }


# Records grow along a connection, and containerd's answers share one: it needs fewer than planned.
TLS_WITHIN = {"moby": 32, "containerd": 90, "podman": 14}


@pytest.mark.parametrize(("name", "tls", "by_digest"), TLS)
def test_tls_is_within_some_bytes_of_what_was_measured(
    name: str, tls: str, by_digest: bool
) -> None:
    over_tls, plain = TLS[name, tls, by_digest]
    planned = total(name, tls, by_digest=by_digest).total - total(name, by_digest=by_digest).total
    assert planned == pytest.approx(over_tls - plain, abs=TLS_WITHIN[name])


@pytest.mark.parametrize(("name", "tls", "by_digest"), measured.TLS_LARGER_CONFIG)
def test_so_it_is_around_a_larger_config(name: str, tls: str, by_digest: bool) -> None:
    over_tls, plain = measured.TLS_LARGER_CONFIG[name, tls, by_digest]
    target, link = smallest(tls, by_digest=by_digest)
    fill = 5979 - len(build_image(ImageConfig(platform=AMD64, labels={"p": ""}), []).config)
    layers = target.layers
    fill -= len(target.config) - len(build_image(ImageConfig(platform=AMD64), []).config)
    larger = build_image(ImageConfig(platform=AMD64, labels={"p": "." * fill}), layers)
    assert len(larger.config) == 5979
    planned, without = (
        transfer(engine(name), larger, None, HELD, each)
        for each in (link, replace(link, tls="none"))
    )
    assert planned.total - without.total == pytest.approx(over_tls - plain, abs=TLS_WITHIN[name])


@pytest.mark.parametrize(("tls", "by_digest"), measured.TLS_THREE_CONNECTIONS)
def test_containerd_with_a_connection_for_each_blob_is_what_was_measured(
    tls: str, by_digest: bool
) -> None:
    seen = measured.TLS_THREE_CONNECTIONS[tls, by_digest]
    target, link = smallest(tls, by_digest=by_digest)
    planned = transfer(engine("containerd"), target, None, HELD, replace(link, connections=0))
    assert planned.total == pytest.approx(seen, abs=TLS_WITHIN["containerd"])


@pytest.mark.parametrize(("name", "token"), TOKENS)
def test_tokens_cost_what_was_measured(name: str, token: int) -> None:
    seen, requests = TOKENS[name, token]
    planned, without = total(name, token=token), total(name)
    assert planned.total - without.total == seen - MINIMAL_PLAIN[name]
    assert planned.requests == requests
    assert planned.handshakes == without.handshakes


def test_a_device_that_has_the_digest_fetches_no_token() -> None:
    target, link = smallest("ec", by_digest=True, token=1000)
    state = DeviceState.holding(target)
    assert transfer(engine("moby"), target, None, state, link) == Transfer(
        engine="moby", manifest=0, config=0, layers=0, headers=439, handshakes=1238, requests=1
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tls", PER_CONNECTION)
@pytest.mark.parametrize("token", [0, 1500])
def test_an_index_costs_one_more_manifest_request(name: str, tls: str, token: int) -> None:
    target, link = image("a", "b", "c"), Link(tls=tls, token_bytes=token)
    state = DeviceState.holding(image("a", "b"))
    index = build_index([target, image("a", "b", "c", platform=ARM64)])
    alone = transfer(engine(name), target, None, state, link)
    named = transfer(engine(name), target, index, state, link)
    assert named.requests == alone.requests + 1
    assert named.manifest == alone.manifest + len(index.content)
    assert (named.config, named.layers) == (alone.config, alone.layers)


@pytest.mark.parametrize("name", ["moby", "containerd"])
def test_an_index_that_was_pulled_before_is_not_fetched_again(name: str) -> None:
    target = image("a", "b")
    index = build_index([target, image("a", "b", platform=ARM64)])
    state = DeviceState.holding(target, indexes=[index])
    planned = transfer(engine(name), target, index, state, Link())
    assert (planned.payload, planned.requests) == (0, 1)


def test_large_bodies_over_tls_pay_for_their_records() -> None:
    blob = Descriptor(media.LAYER_TAR, image("x").layers[0].digest, 100 * 16_384)
    target = build_image(ImageConfig(platform=AMD64), [Layer(blob, blob.digest)])
    for name in ("moby", "podman"):
        planned = transfer(engine(name), target, None, EMPTY, Link(tls="ec"))
        # 100 full records, and the small ones a Go server starts a connection with.
        framing = planned.handshakes - planned.requests * PER_CONNECTION["ec"]
        assert 99 * 22 < framing < 130 * 22


NAMED = Link(tls="none", registry="registry.example.com:8443", repository="edge/fan-failure")


@pytest.mark.parametrize(("name", "requests"), [("moby", 5), ("containerd", 5), ("podman", 5)])
def test_each_letter_of_a_name_costs_a_byte_per_request(name: str, requests: int) -> None:
    target = image("a", "b", "c")
    index = build_index([target])
    state = DeviceState.holding(image("a", "b"))
    plain, named = (
        transfer(engine(name), target, index, state, link) for link in (Link(tls="none"), NAMED)
    )
    host, repository = len(NAMED.registry) - 14, len(NAMED.repository) - 6
    pings = 0 if name == "containerd" else 1
    assert named.headers - plain.headers == requests * (host + repository) - pings * repository


def test_a_registry_with_a_name_is_named_in_every_handshake() -> None:
    target = image("a")
    one = transfer(engine("moby"), target, None, EMPTY, Link(tls="ec"))
    for registry, more in (
        ("registry.example.com:8443", 9 + 20),
        ("registry.example.com", 9 + 20),
        ("10.0.0.7:5000", 0),
        ("[::1]:5000", 0),
    ):
        named = transfer(engine("moby"), target, None, EMPTY, Link(tls="ec", registry=registry))
        # Longer requests do not change the framing of the answers.
        assert named.handshakes - one.handshakes == more * one.requests


def test_certificates_weigh_what_they_weigh() -> None:
    target = image("a")
    usual, other = (
        transfer(engine("podman"), target, None, EMPTY, Link(certificate_bytes=size))
        for size in (0, 2523)
    )
    assert other.handshakes - usual.handshakes == 500 * usual.requests
    assert Link.of(DeviceSettings(certificate_bytes=2523)) == Link(certificate_bytes=2523)


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 6, 8])
def test_containerd_opens_a_connection_for_each_blob_and_one_more(layers: int) -> None:
    target = image(*(str(number) for number in range(layers)))
    usual = transfer(engine("containerd"), target, None, EMPTY, Link())
    said = transfer(engine("containerd"), target, None, EMPTY, Link(connections=layers + 2))
    fewer = transfer(engine("containerd"), target, None, EMPTY, Link(connections=layers + 1))
    assert usual == said
    assert usual.handshakes - fewer.handshakes == PER_CONNECTION["ec-chain"] - 44


def test_containerd_asks_for_each_blob_by_its_media_type() -> None:
    gzip = image("x").layers[0]
    tar = Layer(replace(gzip.descriptor, media_type=media.LAYER_TAR), gzip.diff_id)
    sizes = {
        layer.descriptor.media_type: transfer(
            engine("containerd"),
            build_image(ImageConfig(platform=AMD64), [layer]),
            None,
            EMPTY,
            Link(tls="none"),
        )
        for layer in (gzip, tar)
    }
    # Both in the request's Accept header and in the manifest: "+gzip" is five letters.
    assert sizes[media.LAYER_GZIP].headers - sizes[media.LAYER_TAR].headers == 5
    assert sizes[media.LAYER_GZIP].total - sizes[media.LAYER_TAR].total == 10


@pytest.mark.parametrize("name", NAMES)
def test_the_json_is_the_contract(name: str) -> None:
    value = total(name, "ec-chain").to_json()
    assert list(value) == [
        "engine", "total", "manifest", "config", "layers", "headers", "handshakes", "requests",
    ]  # fmt: skip
    parts = ("manifest", "config", "layers", "headers", "handshakes")
    numbers = [value[part] for part in parts]
    assert value["total"] == sum(number for number in numbers if isinstance(number, int))
    assert value["engine"] == name


def test_diff_lists_every_layer_and_its_transfer() -> None:
    row = ROWS["v3swap"]
    pull = PullScenario(image=row.target, state=row.state, link=row.link)
    planned = diff_pull("moby", "fan:1", "fan:2", pull)
    shown = document(planned)
    assert list(shown) == ["engine", "old", "new", "layers", "transfer", "refusals"]
    assert (shown["engine"], shown["old"], shown["new"]) == ("moby", "fan:1", "fan:2")
    layers = shown["layers"]
    assert isinstance(layers, list)
    assert [layer["action"] for layer in layers] == ["reuse"] * 3 + ["fetch"] * 3
    assert [set(layer) for layer in layers] == [{"digest", "bytes", "action", "why"}] * 6
    assert layers[0]["bytes"] == measured.SIZES["b1"]
    assert planned.transfer.layers == sum(step.bytes for step in planned.steps)


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        (lambda: Link(tls="dsa"), "'dsa'"),
        (lambda: Link(token_bytes=-1), "negative"),
        (lambda: Link(tag_bytes=0), "negative"),
    ],
)
def test_a_link_that_cannot_be_is_refused(link: object, problem: str) -> None:
    assert callable(link)
    with pytest.raises(InvalidLink) as caught:
        link()
    assert problem in str(caught.value)


def test_the_link_of_the_settings() -> None:
    link = Link.of(DeviceSettings(tls="rsa-chain", token_bytes=1300))
    assert link == Link(tls="rsa-chain", token_bytes=1300, by_digest=True)
    assert str(link) == (
        "pulled by digest, TLS 1.3 with an RSA certificate and its intermediate, "
        "a bearer token of 1300 bytes"
    )
