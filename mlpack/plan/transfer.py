"""What a pull puts on the wire: bytes by part, and the number of requests.

Against the pulls measured for :mod:`mlpack.plan.engines` the model is exact to the
byte for plain HTTP on all three engines (their images' sizes given), by tag and by
digest, with and without an index. Over TLS it is within 40 bytes for a small update,
and within 90 where containerd's answers share a connection. Real pulls are compared
with it in ``tests/e2e/test_prediction.py``. It approximates in these places:

- containerd on a link of no latency opens fewer connections than planned;
- what a token server adds over TLS (one connection) and by the length of its names
  follows from the engines' sources and is not measured;
- TLS records are those of a Go server; others frame large bodies with fewer.

TCP and IP headers, retransmissions and redirects to another host are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mlpack.oci.image import Image
from mlpack.oci.index import Index
from mlpack.plan.engines import DeviceState, Engine, LayerStep
from mlpack.plan.wire import (
    BEARER,
    COPIES,
    KEPT_ALIVE,
    WIRES,
    Exchange,
    Link,
    Wire,
    framing,
)

__all__ = ["Link", "Pull", "Transfer", "exchanges", "transfer", "weigh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Bytes of one device's pull over the wire, both directions, by what they are."""

    engine: str
    manifest: int
    """The manifest, and the index where the image has one."""

    config: int
    layers: int
    headers: int
    """HTTP requests and answers without these bodies; with those for tokens."""

    handshakes: int
    """TLS handshakes and framing; on plain HTTP the engines' vain attempt at TLS."""

    requests: int
    """A count, no bytes; it includes those for tokens, and that vain attempt."""

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.manifest + self.config + self.layers + self.headers + self.handshakes

    @property
    def payload(self) -> int:
        """What describes or is the image: manifest, config and layers."""
        return self.manifest + self.config + self.layers

    def to_json(self) -> dict[str, object]:
        """The ``transfer`` member of every document that has one."""
        return {
            "engine": self.engine,
            "total": self.total,
            "manifest": self.manifest,
            "config": self.config,
            "layers": self.layers,
            "headers": self.headers,
            "handshakes": self.handshakes,
            "requests": self.requests,
        }


@dataclass(frozen=True, kw_only=True)
class Pull:
    """An image asked for by a device in some state; the input of all that follows."""

    image: Image
    index: Index | None = None
    """The index the deployment names, where it names one."""

    state: DeviceState = field(default_factory=DeviceState)
    link: Link = field(default_factory=Link)

    @property
    def known(self) -> bool:
        """Whether the device holds what the deployment names."""
        return (self.index or self.image).digest in self.state.manifests


def transfer(
    engine: Engine, image: Image, index: Index | None, state: DeviceState, link: Link
) -> Transfer:
    """What ``engine`` sends and receives to bring a device in ``state`` to ``image``.

    ``index`` is what the deployment names, where it names an image of several
    platforms.
    """
    pull = Pull(image=image, index=index, state=state, link=link)
    return weigh(engine.name, pull, engine.steps(image, state))


def weigh(name: str, pull: Pull, steps: tuple[LayerStep, ...]) -> Transfer:
    """As :func:`transfer`, for steps that were decided already."""
    wire, link = WIRES[name], pull.link
    asked = exchanges(name, pull, steps)
    parts = {"manifest": 0, "config": 0, "layers": 0, "headers": 0}
    for each in asked:
        parts["headers"] += each.request + each.response
        parts[each.part] += each.body
    fetches = _token_fetches(wire, asked, link)
    token_requests = fetches * wire.token.requests
    if fetches:
        parts["headers"] += fetches * (wire.token.fixed + COPIES * link.token_bytes)
        parts["headers"] += sum(BEARER + link.token_bytes for each in asked if each.authorized)
    probes = 1 if link.tls == "none" and wire.probe else 0
    return Transfer(
        engine=name,
        manifest=parts["manifest"],
        config=parts["config"],
        layers=parts["layers"],
        headers=parts["headers"],
        handshakes=_handshakes(wire, asked, link, fetches),
        requests=len(asked) + token_requests + probes,
    )


def exchanges(name: str, pull: Pull, steps: tuple[LayerStep, ...]) -> tuple[Exchange, ...]:
    """The requests of a pull that needs no token, in the engine's order."""
    ask = {"moby": _moby, "containerd": _containerd, "podman": _podman}[name]
    return tuple(ask(WIRES[name], pull, steps))


def _moby(wire: Wire, pull: Pull, steps: tuple[LayerStep, ...]) -> Iterator[Exchange]:
    root, link = (pull.index or pull.image).descriptor, pull.link
    yield from wire.ask_ping(link)
    if not link.by_digest:
        yield from wire.ask_head(root, link)
    if pull.known:
        return
    yield wire.ask_manifest(root, link)
    if pull.index and pull.image.digest not in pull.state.manifests:
        yield wire.ask_manifest(pull.image.descriptor, link)
    yield from _missing_config(wire, pull)
    yield from _layers(wire, steps, link)


def _containerd(wire: Wire, pull: Pull, steps: tuple[LayerStep, ...]) -> Iterator[Exchange]:
    root, link = (pull.index or pull.image).descriptor, pull.link
    yield from wire.ask_head(root, link)
    if not pull.known:
        yield wire.ask_manifest(root, link)
    if pull.index and pull.image.digest not in pull.state.manifests:
        yield wire.ask_manifest(pull.image.descriptor, link)
    yield from _missing_config(wire, pull)
    yield from _layers(wire, steps, link)


def _podman(wire: Wire, pull: Pull, steps: tuple[LayerStep, ...]) -> Iterator[Exchange]:
    # Manifest and config are fetched at every pull, even of an image that is there.
    link = pull.link
    yield from wire.ask_ping(link)
    yield wire.ask_manifest((pull.index or pull.image).descriptor, link, named=True)
    if pull.index:
        yield wire.ask_manifest(pull.image.descriptor, link)
    yield wire.ask_blob(pull.image.config_descriptor, "config", link)
    yield from _layers(wire, steps, link)


def _missing_config(wire: Wire, pull: Pull) -> Iterator[Exchange]:
    config = pull.image.config_descriptor
    if config.digest not in pull.state.configs:
        yield wire.ask_blob(config, "config", pull.link)


def _layers(wire: Wire, steps: tuple[LayerStep, ...], link: Link) -> Iterator[Exchange]:
    for step in steps:
        if step.action == "fetch":
            yield wire.ask_blob(step.layer.descriptor, "layers", link)


def _token_fetches(wire: Wire, asked: tuple[Exchange, ...], link: Link) -> int:
    if not link.token_bytes:
        return 0
    authorized = [each for each in asked if each.authorized]
    # containerd's resolver and its fetcher get one each; the fetcher only where it fetches.
    fetches = wire.token.fetches if any(each.body for each in authorized) else 1
    return fetches if authorized else 0


def _handshakes(wire: Wire, asked: tuple[Exchange, ...], link: Link, token_fetches: int) -> int:
    if link.tls == "none":
        return wire.probe + link.server_name if wire.probe else 0
    sent = len(asked) + token_fetches * wire.token.requests
    opened = sent
    if wire.keeps_connections:
        usual = _opened_by_containerd(asked) + (1 if token_fetches else 0)
        opened = min(link.connections or usual, sent)
    return opened * link.connection + (sent - opened) * KEPT_ALIVE + framing(asked)


def _opened_by_containerd(asked: tuple[Exchange, ...]) -> int:
    """One connection for all manifests, and one more for each blob: all are asked for at once.

    Measured at 30 and 40 ms, for 1 to 8 layers, without exception. Where answers come at
    once, as over loopback, a blob may find the connection of another free, and 2 were
    often enough for a small update.
    """
    return 1 + sum(each.part in ("config", "layers") for each in asked)
