"""What a pull puts on the wire, and what other ways of shipping the same content would.

Compared with the pulls measured for :mod:`mlpack.plan.engines` the model is exact to the
byte for plain HTTP on all three engines (their images' sizes given), by tag and by
digest, with and without an index. Over TLS it is within 40 bytes for a small update,
and within 90 where containerd's answers share a connection. Real pulls are compared
with it in ``tests/e2e/test_prediction.py``. It is approximate in these cases:

- containerd on a link of no latency opens fewer connections than planned;
- the bytes of a token server over TLS (one connection) and of its names follow from the engines'
  sources and were not measured;
- TLS records are those of a Go server; others frame large bodies with fewer.

TCP and IP headers, retransmissions and redirects to another host are not counted.

A release is compared with up to four alternatives, with the same engine, link and files:

- *whole*: an empty device fetches the whole image; so does every device after a change of its
  base, or if the old image was removed before the new one came;
- *usual*: the dependency layers are above the model and are built again with every build, so
  they get new names each time and travel with every model;
- *layer*: mlpack's release, one layer on the base;
- *packed*: mlpack's release with the packed model, compared with the layer of the model as it is;
- *patch*: mlpack's patch release, one layer on the anchor, compared with that layer, too.

The usual build is a computation, not a measurement: the layers of the release and of the base,
reordered, at their real sizes. It favours that build, whose config also has a history (5 KB in
Docker's Python image). It depends on the order and the rebuilding: a Dockerfile that installs
first, copies the model last and finds its build cache every time fetches about as much as *layer*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from mlpack.json_document import named
from mlpack.model.lock import LockedLayer
from mlpack.oci.descriptor import Descriptor, Digest, canonical, parse
from mlpack.oci.image import Image, Index, Layer
from mlpack.oci.unpacking import LayerFacts
from mlpack.plan.engines import (
    BEARER,
    COPIES,
    KEPT_ALIVE,
    DeviceState,
    EngineRule,
    EngineWire,
    Exchange,
    LayerStep,
    Link,
    PullScenario,
    engine,
    framing,
)
from mlpack.plan.refusals import Refusal

STABLE_ROLES = frozenset({"debian", "source"})
"""Layers of the base that the usual build starts ``FROM``."""

AlternativeName = Literal["whole", "usual", "layer", "packed", "patch"]
TITLES: Mapping[AlternativeName, str] = {
    "whole": "whole image",
    "usual": "usual build",
    "layer": "mlpack layer",
    "packed": "mlpack packed",
    "patch": "mlpack patch",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Bytes of one device's pull over the wire, both directions, by what they are."""

    engine: str
    manifest: int
    """The manifest, and the index if the image has one."""

    config: int
    layers: int
    headers: int
    """HTTP requests and responses without these bodies; those for tokens with theirs."""

    handshakes: int
    """TLS handshakes and framing; on plain HTTP the engine's failed attempt at TLS."""

    requests: int
    """A count, not bytes; includes those for tokens and that failed attempt."""

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.manifest + self.config + self.layers + self.headers + self.handshakes

    @property
    def payload(self) -> int:
        """The image itself: manifest, config and layers."""
        return self.manifest + self.config + self.layers

    def to_json(self) -> dict[str, object]:
        """Return the ``transfer`` member of every document that has one."""
        members = asdict(self)
        return {"engine": members.pop("engine"), "total": self.total, **members}


def transfer(
    rule: EngineRule, image: Image, index: Index | None, state: DeviceState, link: Link
) -> Transfer:
    """Calculate what an engine transfers to bring a device in ``state`` to ``image``.

    ``index`` is the index that the deployment names, if it names an image of several platforms.
    """
    pull = PullScenario(image=image, index=index, state=state, link=link)
    return weigh(rule, pull, rule.steps(image, state))


def weigh(rule: EngineRule, pull: PullScenario, steps: tuple[LayerStep, ...]) -> Transfer:
    """Calculate the transfer for steps that were decided already."""
    wire, link = rule.wire, pull.link
    asked = tuple(rule.requests(wire, pull, steps))
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
        engine=rule.name,
        manifest=parts["manifest"],
        config=parts["config"],
        layers=parts["layers"],
        headers=parts["headers"],
        handshakes=_handshakes(wire, asked, link, fetches),
        requests=len(asked) + token_requests + probes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PullDiff:
    """What a device that holds ``old`` fetches to reach ``new`` with one engine."""

    engine: str
    old: str
    """As the user wrote it; ``none`` for an empty device."""

    new: str
    steps: tuple[LayerStep, ...] = field(metadata=named("layers"))
    """One per layer of the new image, bottom first."""

    transfer: Transfer
    refusals: tuple[Refusal, ...] = ()
    """Why the engine does not take the new image as it is."""


def diff_pull(
    name: str, old: str, new: str, pull: PullScenario, facts: Sequence[LayerFacts] = ()
) -> PullDiff:
    """Plan ``pull`` with engine ``name``; raise :class:`~mlpack.plan.engines.UnknownEngine`.

    ``facts`` are of the new image's layers, where they were read.
    """
    rule = engine(name)
    steps = rule.steps(pull.image, pull.state)
    return PullDiff(
        engine=rule.name,
        old=old,
        new=new,
        steps=steps,
        transfer=weigh(rule, pull, steps),
        refusals=rule.refusals(pull.image, pull.index, facts),
    )


def _token_fetches(wire: EngineWire, asked: tuple[Exchange, ...], link: Link) -> int:
    if not link.token_bytes:
        return 0
    authorized = [each for each in asked if each.authorized]
    # containerd's resolver and its fetcher get one each; the fetcher only if it fetches.
    fetches = wire.token.fetches if any(each.body for each in authorized) else 1
    return fetches if authorized else 0


def _handshakes(
    wire: EngineWire, asked: tuple[Exchange, ...], link: Link, token_fetches: int
) -> int:
    if link.tls == "none":
        return wire.probe + link.server_name if wire.probe else 0
    sent = len(asked) + token_fetches * wire.token.requests
    opened = sent
    if wire.keeps_connections:
        usual = _opened_by_containerd(asked) + (1 if token_fetches else 0)
        opened = min(link.connections or usual, sent)
    return opened * link.connection + (sent - opened) * KEPT_ALIVE + framing(asked)


def _opened_by_containerd(asked: tuple[Exchange, ...]) -> int:
    """One connection for all manifests, and one per blob: all blobs are requested at once.

    Measured at 30 and 40 ms, for 1 to 8 layers, without exception. Over loopback, where responses
    are immediate, a blob may reuse another's connection, and 2 often sufficed for a small update.
    """
    return 1 + sum(each.part in ("config", "layers") for each in asked)


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way of bringing a device to the release."""

    name: AlternativeName
    title: str
    transfer: Transfer


def alternative(name: AlternativeName, engine: EngineRule, pull: PullScenario) -> Alternative:
    """Work out what ``pull`` transfers: of mlpack's release, or of its patch and perhaps anchor."""
    moved = transfer(engine, pull.image, pull.index, pull.state, pull.link)
    return Alternative(name, TITLES[name], moved)


def whole_image(engine: EngineRule, pull: PullScenario) -> Alternative:
    """Work out what an empty device fetches."""
    return alternative("whole", engine, replace(pull, state=DeviceState()))


def with_layer(image: Image, whole: Layer, strategy: AlternativeName) -> Image:
    """Return the release ``image`` with ``whole`` instead of the layers above its base.

    A packed release has one layer there, a patch release two.
    """
    above = 1 if strategy == "packed" else 2
    return _with_layers(image, [*image.layers[:-above], whole])


def usual_build(
    engine: EngineRule, pull: PullScenario, old: Image | None, base: Sequence[LockedLayer]
) -> Alternative | None:
    """Work out what a device on the usual build of ``old`` fetches of that of the release.

    ``base`` are the base's layers with their roles. Returns ``None`` if the release does not
    start with them.
    """
    layers = [locked.layer for locked in base]
    if list(pull.image.layers[: len(base)]) != layers:
        return None
    roles = {locked.layer.digest: locked.role for locked in base}
    before = DeviceState() if old is None else DeviceState.holding(usual_image(old, roles, "old"))
    new = usual_image(pull.image, roles, "new")
    return alternative("usual", engine, replace(pull, image=new, state=before))


def usual_image(image: Image, roles: Mapping[Digest, str], build: str) -> Image:
    """Reorder ``image`` as usual: what it starts from, the model, then the rest, built again.

    Layers that are built again get names of their own for each ``build``: installing again writes
    other times and compiled files, so other bytes of the same sizes.
    """
    stable = [each for each in image.layers if roles.get(each.digest) in STABLE_ROLES]
    model = [each for each in image.layers if each.digest not in roles]
    rest = [each for each in image.layers if each not in stable and each not in model]
    return _with_layers(image, [*stable, *model, *(_rebuilt(each, build) for each in rest)])


def _rebuilt(layer: Layer, build: str) -> Layer:
    named = Digest.of(f"{build} {layer.digest}".encode())
    content = Digest.of(f"{build} {layer.diff_id}".encode())
    return Layer(replace(layer.descriptor, digest=named), content)


def _with_layers(image: Image, layers: Sequence[Layer]) -> Image:
    """Replace the layers by others of the same sizes; manifest and config keep theirs, too."""
    config = dict(parse(image.config, "config").mapping())
    rootfs = {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]}
    made = canonical({**config, "rootfs": rootfs})
    described = Descriptor.of(made, image.config_descriptor.media_type)
    manifest = dict(parse(image.manifest, "manifest").mapping())
    manifest["config"] = described.to_json()
    manifest["layers"] = [layer.descriptor.to_json() for layer in layers]
    return Image(canonical(manifest), made)
