"""Two ways to bring a device from one image to another: the image as it is, or a graft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlpack.oci.document import Node, canonical, parse
from mlpack.oci.image import Image, Layer, assemble, require_prefix
from mlpack.oci.validate import MAX_LAYERS
from mlpack.plan.engines import DeviceState, Engine
from mlpack.plan.transfer import Link, Transfer, transfer

Strategy = Literal["graft", "new"]

_KEPT = ("architecture", "os", "os.features", "os.version", "variant")
_OF_THE_BUILD = ("Image", "Hostname", "Domainname")
"""What Docker's classic builder writes of the container it built in; no engine reads it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The image to publish, and what each way costs a device that holds the old one."""

    strategy: Strategy
    image: Image
    why: str
    graft: Transfer | None
    """``None`` where a graft cannot be made."""

    new: Transfer

    @property
    def transfer(self) -> Transfer:
        """What the chosen way costs."""
        return self.graft if self.strategy == "graft" and self.graft else self.new


def grafted(old: Image, new: Image, layer: Layer | None) -> Image:
    """``old``'s layers, ``layer`` on them, and ``new``'s settings.

    Of ``new``'s config everything is kept that an engine reads; history, times and what
    is empty are dropped, since a device pays for each byte. ``layer`` is ``None`` where
    the file systems are equal.
    """
    read = parse(new.config, "config")
    config: dict[str, object] = {
        key: value.value for key, value in read.items() if key in _KEPT and value.value
    }
    layers = (*old.layers, layer) if layer else old.layers
    config["config"] = _settings(read.get("config"))
    config["rootfs"] = {"type": "layers", "diff_ids": [str(each.diff_id) for each in layers]}
    image = assemble(canonical(config), layers)
    require_prefix(image, old)
    return image


def choose(old: Image, new: Image, graft: Image, engine: Engine, link: Link) -> Choice:
    """The cheaper way for a device that holds ``old``; ``new`` itself where they are equal."""
    state = DeviceState.holding(old)
    whole = transfer(engine, new, None, state, link)
    if len(graft.layers) > MAX_LAYERS:
        why = f"the graft would have {len(graft.layers)} layers, and engines mount {MAX_LAYERS}"
        return Choice(strategy="new", image=new, why=why, graft=None, new=whole)
    ours = transfer(engine, graft, None, state, link)
    if ours.total < whole.total:
        why = "the graft is cheaper"
        return Choice(strategy="graft", image=graft, why=why, graft=ours, new=whole)
    why = "NEW itself is as cheap" if ours.total == whole.total else "NEW itself is cheaper"
    return Choice(strategy="new", image=new, why=why, graft=ours, new=whole)


def _settings(node: Node | None) -> dict[str, object]:
    if node is None:
        return {}
    return {
        key: value.value for key, value in node.items() if value.value and key not in _OF_THE_BUILD
    }
