"""A base and two releases of realistic size, and the report about them."""

from __future__ import annotations

from mlpack.kinds import ENGINES
from mlpack.model.lock import LockedLayer
from mlpack.oci.image import Image, ImageConfig, Index, build_image, build_index
from mlpack.plan.cost import Tariff
from mlpack.plan.engines import DeviceState, Link, PullScenario, engine
from mlpack.plan.report import ReleaseReport
from mlpack.plan.transfer import Alternative, alternative, diff_pull, usual_build, whole_image
from tests.support import AMD64, ARM64, layer

SIZES = {"debian": 17_400_000, "packages": 34_100_000, "runtime": 11_000, "entry": 190}
BASE = tuple(LockedLayer(role, layer(f"base {role}", size)) for role, size in SIZES.items())
MODEL_BYTES = 6_131


def release(model: str, roles: tuple[LockedLayer, ...] = BASE) -> Image:
    """A release of ``model`` on ``roles``; an empty model is the base itself."""
    layers = [locked.layer for locked in roles]
    model_layers = [layer(f"model {model}", MODEL_BYTES)] if model else []
    config = ImageConfig(platform=AMD64, env=("PATH=/usr/bin",), labels={"v": model or "base"})
    return build_image(config, [*layers, *model_layers])


def pair(model: str) -> Index:
    """The index of a release for two platforms."""
    return build_index([release(model), build_image(ImageConfig(platform=ARM64), [layer("arm")])])


def move(old: Image | None, new: str = "2", link: Link | None = None) -> PullScenario:
    """The pull of release ``new`` on a device that holds ``old``."""
    state = DeviceState() if old is None else DeviceState.holding(old)
    return PullScenario(image=release(new), index=pair(new), state=state, link=link or Link())


def make_report(
    tariff: Tariff, *, devices: int = 1000, old: str = "fan:1", roles: bool = True
) -> ReleaseReport:
    """The report of fan:2 on a fleet that holds ``old``."""
    held = None if old == "none" else release("1" if old == "fan:1" else "")
    pull, moby = move(held), engine("moby")
    usual = usual_build(moby, pull, held, BASE) if roles else None
    ways: tuple[Alternative | None, ...] = (
        whole_image(moby, pull),
        usual,
        alternative("layer", moby, pull),
    )
    return ReleaseReport(
        release="fan:2",
        digest=pair("2").digest,
        platform=AMD64,
        old=old,
        engine="moby",
        link=pull.link,
        diffs=tuple(diff_pull(name, old, "fan:2", pull) for name in ENGINES),
        alternatives=tuple(way for way in ways if way),
        missing=() if roles else ("the usual build: its layers are not known",),
        tariff=tariff,
        devices=devices,
    )
