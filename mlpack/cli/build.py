"""``mlpack build``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import output
from mlpack.cli.options import PLATFORM, command, fleet, hub, now, project, registries, setting

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.api.build import Release
    from mlpack.api.remote_base import RemoteBase
    from mlpack.api.strategy import Cohorts
    from mlpack.builders.builder import Builder
    from mlpack.oci.descriptor import Platform
    from mlpack.oci.reference import Reference
    from mlpack.plan.patching import Choice
    from mlpack.stores.project import Project


@command(
    "build",
    examples="""
    mlpack build                            the project's model, its latest version
    mlpack build fan:2                      this version
    mlpack build fan --platform linux/arm64
    mlpack build fan --strategy layer       the whole model, not a patch
    mlpack build fan --strategy patch       a patch to the anchor, or an error that says why not
    mlpack build fan --device-group vans --fleet fleet.json    by what these devices hold
    mlpack build fan --builder docker       through a Docker daemon
    mlpack build fan --builder acr --acr 0000-0001/edge     through ACR Tasks
    mlpack build fan --base registry.example.com/edge/base@sha256:…
    mlpack build fan --push                 and send it to [image] repository
    mlpack build fan --to registry.example.com/edge/fan:canary
    mlpack build fan --check --push         and send nothing that is over [budget]
    mlpack render $(mlpack build fan)       a command that takes what build prints
    """,
)
@click.argument("model", default="", metavar="[NAME[:VERSION]]")
@click.option(
    "--platform",
    "platforms",
    type=PLATFORM,
    multiple=True,
    help="Build for this platform only; may be repeated. Default: all of [base] platforms.",
)
@click.option(
    "--strategy",
    type=click.Choice(["auto", "layer", "patch"]),
    default="auto",
    show_default=True,
    help="The whole model, a patch to the one in its anchor, or what devices fetch less of.",
)
@click.option(
    "--device-group",
    "group",
    default="",
    metavar="GROUP",
    help="The devices auto decides for. Default: devices on the anchor, as [device] says.",
)
@fleet
@click.option(
    "--builder",
    type=click.Choice(["oci", "docker", "acr"]),
    default="oci",
    show_default=True,
    help="Who makes the layer: mlpack itself, a Docker daemon, or ACR Tasks in Azure.",
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
@click.option("--check", is_flag=True, help="End with status 3 where [budget] allows less.")
@click.option("--push", is_flag=True, help="Then push it, as mlpack push does.")
@click.option(
    "--to",
    metavar="REPOSITORY[:TAG]",
    help="Push it there instead of to [image] repository; says --push too.",
)
def build(
    model: str,
    platforms: tuple[Platform, ...],
    strategy: str,
    group: str,
    fleet: Path | None,
    builder: str,
    acr: str | None,
    base: str | None,
    check: bool,
    push: bool,
    to: str | None,
) -> None:
    """Make a release: the base and one layer with the model, or a patch on its anchor.

    The first release of a model that is large enough is its anchor, which mlpack.lock names.
    Later ones are made both ways, measured, and what the devices fetch less of is kept; a patch
    above 70 % of the layer is dropped, and the release becomes the new anchor.

    Prints the release's reference with its digest, and nothing else, on stdout;
    what a device will fetch is said on stderr.
    """
    from mlpack.api import build as api
    from mlpack.api.strategy import check_strategy
    from mlpack.model.version import parse_name

    check_strategy(strategy, builder)

    here = project()
    name, version = parse_name(model or here.recipe.model)
    place = _place(to, builder, push)
    below = _base(base, name) if base else None
    made_by = _builder(builder, acr or setting("acr"), below.place if below else None)
    cohorts = _cohorts(here, group, fleet)
    if push or to:
        from mlpack.api.publish import publish
        from mlpack.cli.push import say

        with output.progress("pushing") as advance:
            made = publish(
                here,
                registries(),
                name,
                version,
                to=place,
                platforms=platforms,
                builder=made_by,
                base=below,
                strategy=strategy,
                cohorts=cohorts,
                now=now(),
                advance=advance,
                agree=_checked if check else _say,
            )
        say(made.pushed)
        output.answer(made.to_json(), str(made.pushed.reference))
        return
    with output.progress("making the patch") as advance:
        release = api.build(
            here,
            name,
            version,
            platforms=platforms,
            builder=made_by,
            base=below,
            strategy=strategy,
            cohorts=cohorts,
            now=now(),
            advance=advance,
        )
    (_checked if check else _say)(release)
    output.answer(release.to_json(), release.reference)


def _say(release: Release) -> None:
    """What was made, and what a device will fetch."""
    cost, choice = release.transfer, release.choice
    patched = choice.strategy == "patch"
    what = "the base's and the anchor's layers, and a patch" if patched else "one layer"
    output.note(
        f"{release.version} on base {release.base.digest.short}: "
        f"{what} of {output.size(release.layer.size)} ({choice.strategy}: {choice.why})"
    )
    if choice.sides:
        output.note(_compared(choice))
    output.note(
        f"a device on the {'anchor' if patched else 'base'} fetches {output.size(cost.total)} "
        f"with {cost.engine} "
        f"({cost.requests} requests): layer {output.size(cost.layers)}, manifest and config "
        f"{output.size(cost.manifest + cost.config)}, headers {output.size(cost.headers)}, "
        f"handshakes {output.size(cost.handshakes)}"
    )
    if release.anchored:
        output.note(
            f"{release.version} is now the anchor of {release.version.name}, which later patches "
            "are made against: commit mlpack.lock"
        )


def _compared(choice: Choice) -> str:
    """Both ways beside each other, for the devices that counted."""
    rows = [
        (
            each.holds,
            f"{each.devices:,}",
            output.size(each.layer.total),
            output.size(each.patch.total),
        )
        for each in choice.sides
    ]
    return output.table(("holds", "devices", "layer", "patch"), rows, right=(1, 2, 3))


def _checked(release: Release) -> None:
    """Say what was made; raise ``OverBudget`` where devices would fetch too much of it."""
    from mlpack.api.report import report
    from mlpack.plan.budget import check

    _say(release)
    here = project()
    found = report(here, str(release.version), registries=registries)
    check(found, here.recipe.budget).require()


def _cohorts(project: Project, name: str, fleet: Path | None) -> Cohorts | None:
    """The devices of a group, from a fleet file or from the hub."""
    from mlpack.errors import UsageError

    if not name:
        if fleet:
            raise UsageError("--fleet needs a group", hint="say which: --device-group GROUP")
        return None
    from mlpack.api.devices import devices
    from mlpack.api.plan import meant

    with output.progress("reading twins", counting=True) as bar:
        held = devices(project, name, fleet=fleet, open_hub=lambda: hub(project), advance=bar)
    return meant(project, held.devices)


def _place(to: str | None, builder: str, push: bool) -> Reference | None:
    """Where the user says to push."""
    from mlpack.errors import UsageError
    from mlpack.oci.reference import Reference

    if (push or to) and builder == "acr":
        raise UsageError("ACR pushes what it builds itself", hint="leave --push and --to out")
    return Reference.parse(to) if to else None


def _base(reference: str, model: str) -> RemoteBase:
    from mlpack.api.remote_base import adopt, adopt_anchor
    from mlpack.oci.reference import Reference

    found = adopt(project(), registries(), Reference.parse(reference))
    adopt_anchor(project(), registries(), model)
    return found


def _builder(name: str, place: str, base_at: Reference | None) -> Builder | None:
    """The builder of that name; ``None`` is mlpack's own."""
    if name == "acr":
        return _acr(place, base_at)
    if name == "docker":
        from mlpack.builders.docker import DockerBuilder

        return DockerBuilder(base_at)
    return None


def _acr(place: str, base_at: Reference | None) -> Builder:
    from mlpack.azure.management import CLOUD, registry_account
    from mlpack.builders.acr import AcrBuilder
    from mlpack.errors import UsageError

    repository = project().recipe.repository
    if repository is None:
        raise UsageError(
            "mlpack.toml names no repository for ACR to push to",
            hint='add under [image]: repository = "contoso.azurecr.io/edge/model"',
        )
    return AcrBuilder(
        account=registry_account(place, repository, setting("azure_endpoint") or CLOUD),
        repository=repository,
        open_store=registries().store,
        say=output.note,
        base_at=base_at,
    )
