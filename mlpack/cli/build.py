"""``mlpack build``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Build
from mlpack.cli import console
from mlpack.cli.push import push_notes
from mlpack.errors import MlpackError
from mlpack.kinds import REFUSALS, STRATEGIES

if TYPE_CHECKING:
    from mlpack.api.build import Release
    from mlpack.plan.release_strategy import StrategyDecision

_LAYERS = {
    "layer": "one layer",
    "packed": "one layer with the packed model",
    "patch": "the base's and the anchor's layers, and a patch",
}


@console.command(
    "build",
    Build,
    examples="""
    mlpack build                            the project's model, its latest version
    mlpack build fan:2                      this version
    mlpack build fan --platform linux/arm64
    mlpack build fan --strategy layer       the whole model, as it is
    mlpack build fan --strategy packed      the whole model, which devices unpack at start
    mlpack build fan --strategy patch       a patch to the anchor, or an error that says why not
    mlpack build fan --device-group vans --fleet fleet.json    by what these devices hold
    mlpack build fan --builder docker       through a Docker daemon
    mlpack build fan --builder acr --acr 0000-0001/edge     through ACR Tasks
    mlpack build fan --base registry.example.com/edge/base@sha256:…
    mlpack build fan --push                 and send it to [image] repository
    mlpack build fan --to registry.example.com/edge/fan:canary
    mlpack build fan --no-start             and do not start it once before it is named
    mlpack build fan --allow start          although it does not start here
    mlpack build fan --check --push         and send nothing that is over [budget]
    mlpack render $(mlpack build fan)       a command that takes what build prints
    """,
)
@click.argument("model", default="", metavar="[NAME[:VERSION]]")
@click.option(
    "--platform",
    "platforms",
    type=console.PLATFORM,
    multiple=True,
    help="Build for this platform only; may be repeated. Default: all of [base] platforms.",
)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default=STRATEGIES[0],
    show_default=True,
    help="The model as it is, packed, as a patch to its anchor, or what devices fetch less of.",
)
@console.effort
@click.option(
    "--device-group",
    "device_group",
    default="",
    metavar="GROUP",
    help="The devices auto decides for. Default: devices on the anchor, as in [device].",
)
@console.fleet
@click.option(
    "--builder",
    type=click.Choice(["oci", "docker", "acr"]),
    default="oci",
    show_default=True,
    help="What makes the layer: mlpack itself, a Docker daemon, or ACR Tasks in Azure.",
)
@click.option(
    "--acr",
    metavar="SUBSCRIPTION/GROUP[/REGISTRY]",
    help="The registry's place in Azure. Default: MLPACK_ACR.",
)
@click.option(
    "--base",
    metavar="REFERENCE",
    help="Build on the base in a registry; its layers stay there, and push mounts them.",
)
@click.option("--no-start", is_flag=True, help="Do not start the release once before naming it.")
@click.option(
    "--allow",
    type=click.Choice(REFUSALS),
    multiple=True,
    help="Release it although it does not start, or would not by its onnxruntime's documentation.",
)
@click.option("--check", is_flag=True, help="Exit with status 3 if it is over [budget].")
@click.option("--push", is_flag=True, help="Then push it, as mlpack push does.")
@click.option(
    "--to",
    metavar="REPOSITORY[:TAG]",
    help="Push it there instead of to [image] repository; implies --push.",
)
def build(request: Build) -> None:
    """Make a release: the base and one layer with the model, or a patch on its anchor.

    The first release of a model that is large enough is its anchor, which mlpack.lock names.
    For later ones samples show what may pay; that is made and measured, and what the devices
    fetch less of is kept. A patch above 70 % of the whole model is dropped, and the release
    becomes the new anchor. A whole model is packed if that saves more bytes than the longer
    start of the module is worth.

    Before it is named, the release is started once: the base's own Python and onnxruntime load
    its files and score one made request, without a network. One that does not start is refused;
    where no start can be tried, the release is marked "never started".

    Prints the release's reference with its digest, and nothing else, on stdout;
    stderr shows what a device will fetch.
    """
    try:
        release = console.project().build(request)
    except MlpackError as error:
        _describe(getattr(error, "release", None))
        for line in getattr(error, "log", ()):
            console.note(f"  | {line}")
        raise
    _describe(release)
    if release.pushed is None:
        console.answer(release, release.reference)
        return
    push_notes(release.pushed)
    console.answer(release, str(release.pushed.reference))


def _describe(release: Release | None) -> None:
    """Print what was made, and what a device will fetch."""
    if release is None:
        return
    cost, choice = release.transfer, release.choice
    patched = choice.strategy == "patch"
    console.note(
        f"{release.version} on base {release.base.digest.short}: "
        f"{_LAYERS[choice.strategy]} of {console.size(release.layer.size)} "
        f"({choice.strategy}: {choice.why})"
    )
    if choice.transfers:
        console.note(_compared(choice))
    console.note(
        f"a device on the {'anchor' if patched else 'base'} fetches {console.size(cost.total)} "
        f"with {cost.engine} "
        f"({cost.requests} requests): layer {console.size(cost.layers)}, manifest and config "
        f"{console.size(cost.manifest + cost.config)}, headers {console.size(cost.headers)}, "
        f"handshakes {console.size(cost.handshakes)}"
    )
    for platform, start in release.starts.items():
        console.note(f"{platform}: {start}")
    if release.anchored:
        console.note(
            f"{release.version} is now the anchor of {release.version.name}, which later patches "
            "are made against: commit mlpack.lock"
        )


def _compared(choice: StrategyDecision) -> str:
    """Compare the strategies that were tried for the devices that counted."""
    tried = list(choice.layers)
    rows = [
        (
            each.holds,
            f"{each.devices:,}",
            *(console.size(each.fetched[strategy].total) for strategy in tried),
        )
        for each in choice.transfers
    ]
    return console.table(("holds", "devices", *tried), rows, right=range(1, 2 + len(tried)))
