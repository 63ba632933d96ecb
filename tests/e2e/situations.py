"""What a device may hold and pull: images of random content, and the prediction of the pull."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.image import Image, ImageConfig, Index, Layer, build_image, build_index
from mlpack.plan.engines import DeviceState, Link, PullScenario, engine
from mlpack.plan.transfer import Transfer, transfer
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_bytes, put_image
from tests.e2e.engines import Engine, run
from tests.e2e.wire import Certificate, Count, CountingProxy, DockerRegistry
from tests.support import AMD64, ARM64, real_layer

LATENCY = 0.02
"""Seconds; without any, what containerd does side by side is a matter of luck."""

REPOSITORY = "edge/fan-failure"
SIZES = {"debian": 700_000, "packages": 250_000, "entry": 200, "model": 6_000, "patch": 600}
RULES = {"docker": "moby", "containerd": "containerd", "podman": "podman"}
"""The rule each engine follows."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Layers by name, bottom first; ``model/2`` is another content of the kind ``model``."""

    holds: str = "debian packages entry model"
    pulls: str = "debian packages entry model/2"
    by_digest: bool = True
    indexed: bool = True
    """Whether the image is named by an index of several platforms, as releases are."""

    loaded: bool = False
    """Whether the device got what it holds from a ``docker save`` file."""

    removed: bool = False
    """Whether what it pulled before was removed since."""

    host: str = "127.0.0.1"
    """What the registry is called; a name stands in each TLS hello, an address does not."""

    @property
    def again(self) -> bool:
        """Whether it pulls what it holds."""
        return self.holds == self.pulls


BASE = "debian packages entry"
SITUATIONS: Mapping[str, Situation] = {
    "model update": Situation(),
    "model update, by tag": Situation(by_digest=False),
    "model update, one platform": Situation(indexed=False),
    "model update, named registry": Situation(host="localhost"),
    "one platform, by tag": Situation(indexed=False, by_digest=False),
    "a patch on the last release": Situation(pulls=f"{BASE} model patch"),
    "nothing new": Situation(pulls=f"{BASE} model"),
    "nothing new, by tag": Situation(pulls=f"{BASE} model", by_digest=False),
    "another base": Situation(pulls="debian/2 packages/2 entry/2 model/2"),
    "a new device": Situation(holds=""),
    "after docker load": Situation(loaded=True),
    "after its removal": Situation(removed=True),
}
"""What fleets do."""

REUSE: Mapping[str, Situation] = {
    "two layers swapped": Situation(pulls="packages debian entry model"),
    "a layer in the middle replaced": Situation(pulls="debian packages/2 entry model"),
    "a layer compressed anew": Situation(pulls="debian packages~ entry model/2"),
    "a layer taken out": Situation(pulls="debian entry model"),
    "the model lowest": Situation(pulls="model debian packages entry"),
    "a new layer twice": Situation(pulls=f"{BASE} model/2 model/2"),
}
"""One for each way the engines' rules differ; each on plain HTTP."""


@dataclass(frozen=True)
class Measured:
    """One pull: what was counted, and what was planned."""

    what: str
    engine: str
    tls: str
    count: Count
    bodies: int
    usual: Transfer
    """What is planned without knowing how many connections containerd opens."""

    planned: Transfer
    """The same for the number it opened."""

    @property
    def error(self) -> float:
        """How far the plan's total is off, relative to the measured."""
        return self.planned.total / self.count.total - 1

    @property
    def body_error(self) -> float:
        """How far the plan's bodies are off, relative to the measured."""
        planned = self.planned.payload
        return (planned - self.bodies) / max(self.bodies, planned, 1)


def _plan(rule: str, pull: PullScenario) -> Transfer:
    return transfer(engine(rule), pull.image, pull.index, pull.state, pull.link)


class Range:
    """A registry on plain HTTP and on TLS, each behind a counting proxy, and images for it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.certificate = Certificate.made(folder / "certificates")
        self._layout = LayoutStore(folder / "images")
        self._folder = folder
        self._registries = {
            "none": stack.enter_context(DockerRegistry.started(folder / "registry")),
            "ec-chain": stack.enter_context(
                DockerRegistry.started(folder / "registry", self.certificate)
            ),
        }
        self._proxies = {
            tls: stack.enter_context(CountingProxy.started(each.port, delay=LATENCY))
            for tls, each in self._registries.items()
        }
        # Fresh in every run: podman and skopeo remember digests per machine, not per store.
        self._random = random.Random()
        self._pushed = 0

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Range]:
        """Everything runs until the block ends."""
        with ExitStack() as stack:
            yield cls(folder, stack)

    def measure(self, device: Engine, what: str, situation: Situation, tls: str) -> Measured:
        """Bring ``device`` into a situation nobody was in before, pull, and compare."""
        made: dict[str, Layer] = {}
        old = self._image(situation.holds.split(), made) if situation.holds else None
        new = old if old and situation.again else self._image(situation.pulls.split(), made)
        names = {id(each): self._push(each, situation.indexed) for each in (old, new) if each}
        if old is not None:
            self._bring(device, situation, tls, old, names[id(old)])
        proxy, registry = self._proxies[tls], self._registries[tls]
        tag, target = names[id(new)]
        proxy.take()
        registry.bodies()
        where = self._where(situation, tls)
        self._pull(
            device, tls, f"{where}@{target.digest}" if situation.by_digest else f"{where}:{tag}"
        )
        count, bodies = proxy.take(), registry.bodies()
        rule = RULES[device.name]
        pull = PullScenario(
            image=new,
            index=self._index(new) if situation.indexed else None,
            state=self._state(situation, old),
            link=self._link(situation, tls, tag),
        )
        pings = 2 if rule != "containerd" else 0
        return Measured(
            what=what,
            engine=rule,
            tls=tls,
            count=count,
            bodies=bodies - pings,
            usual=_plan(rule, pull),
            planned=_plan(
                rule, replace(pull, link=replace(pull.link, connections=count.connections))
            ),
        )

    def _bring(
        self,
        device: Engine,
        situation: Situation,
        tls: str,
        old: Image,
        name: tuple[str, Descriptor],
    ) -> None:
        tag, target = name
        if situation.loaded:
            archive = self._folder / "saved.tar"
            archive.unlink(missing_ok=True)
            source = f"oci:{self._layout.root}:{tag}"
            # In a cache for podman skopeo would note which content the digests here have;
            # no device knows that.
            hidden = "mount -t tmpfs none /var/lib/containers && exec skopeo copy -q $0 $1"
            there = f"docker-archive:{archive}:mlpack.test/{tag}:1"
            run("unshare", "-m", "sh", "-euc", hidden, source, there)
            device.take(archive)
            return
        where = self._where(situation, tls)
        held = f"{where}@{target.digest}" if situation.by_digest else f"{where}:{tag}"
        self._pull(device, tls, held)
        if situation.removed:
            device.remove(held)

    def _state(self, situation: Situation, old: Image | None) -> DeviceState:
        if old is None:
            return DeviceState()
        if situation.loaded:
            return DeviceState.loaded(old)
        if situation.removed:
            return DeviceState.holding(removed=[old])
        return DeviceState.holding(old, indexes=[self._index(old)] if situation.indexed else [])

    def _link(self, situation: Situation, tls: str, tag: str) -> Link:
        registry, _, repository = self._where(situation, tls).partition("/")
        return Link(
            tls=tls,
            by_digest=situation.by_digest,
            tag_bytes=len(tag),
            registry=registry,
            repository=repository,
        )

    def _where(self, situation: Situation, tls: str) -> str:
        return f"{situation.host}:{self._proxies[tls].port}/{REPOSITORY}"

    def _pull(self, device: Engine, tls: str, reference: str) -> None:
        device.pull(reference, ca=None if tls == "none" else self.certificate.ca)

    def _image(self, names: Sequence[str], made: dict[str, Layer]) -> Image:
        layers = []
        for name in names:
            if name not in made:
                made[name] = self._layer(name, made)
            layers.append(made[name])
        image = build_image(ImageConfig(platform=AMD64, env=("PATH=/usr/bin",)), layers)
        put_image(self._layout, image)
        return image

    def _layer(self, name: str, made: Mapping[str, Layer]) -> Layer:
        if name.endswith("~"):
            return self._compressed_anew(made[name[:-1]])
        size = SIZES[name.partition("/")[0]]
        # Half noise, half text: a blob that gzip makes something of.
        content = self._random.randbytes(size // 2) + b"text " * (size // 10)
        return real_layer(self._layout, {name.replace("/", "-"): content})

    def _compressed_anew(self, layer: Layer) -> Layer:
        content = self._layout.path(layer.descriptor).read_bytes()
        again = gzip.compress(gzip.decompress(content), 1, mtime=0)
        return Layer(put_bytes(self._layout, again, media.LAYER_GZIP), layer.diff_id)

    def _index(self, image: Image) -> Index:
        other = build_image(ImageConfig(platform=ARM64), image.layers)
        put_image(self._layout, other)
        return build_index([image, other])

    def _push(self, image: Image, indexed: bool) -> tuple[str, Descriptor]:
        """Publish ``image`` under a tag of its own."""
        self._pushed += 1
        tag, target = f"v{self._pushed}", image.descriptor
        if indexed:
            target = put_bytes(self._layout, self._index(image).content, media.INDEX)
        self._layout.tag(target, tag)
        port = self._registries["none"].port
        options = ["-q", "--all", "--preserve-digests", "--dest-tls-verify=false"]
        there = f"docker://127.0.0.1:{port}/{REPOSITORY}:{tag}"
        run("skopeo", "copy", *options, f"oci:{self._layout.root}:{tag}", there)
        return tag, target
