"""``mlpack render``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from mlpack.api.requests import KUBERNETES, Render
from mlpack.cli import console
from mlpack.errors import UsageError
from mlpack.json_document import document
from mlpack.kinds import DEFAULT_TARGET, TARGETS

if TYPE_CHECKING:
    from mlpack.api.render import Rendered


@console.command(
    "render",
    Render,
    examples="""
    mlpack render fan -o deployment.json                      all that a device runs
    mlpack render fan:2 --platform linux/arm64
    mlpack render $(mlpack build fan)
    mlpack render --base --device-group vans -o base.json     once for a group of devices
    mlpack render fan:2 --layered -o fan-2.json               once for each release
    mlpack render fan --template deployment.template.json -o deployment.json
    mlpack render fan --patch deployment.json --module scorer -o deployment.json
    ACR_PASSWORD=… mlpack render fan --with-secrets -o deployment.json
    mlpack render fan --target compose -o compose.yaml
    mlpack render fan --target azureml -o azureml
    """,
)
@click.argument("release", metavar="[NAME[:VERSION]]", required=False, default="")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default=DEFAULT_TARGET,
    show_default=True,
    help="What runs it: IoT Edge, Docker Compose, Kubernetes, Azure Container Instances, or an "
    "online endpoint of Azure ML.",
)
@click.option(
    "-o",
    "--output",
    "output",
    type=console.OUTPUT,
    metavar="FILE",
    help="Write the manifest to FILE, whole or not at all, instead of printing it; for azureml "
    "a directory of files.",
)
@click.option(
    "--layered",
    is_flag=True,
    help="Write the release and what goes with it, over a base deployment.",
)
@click.option(
    "--base", is_flag=True, help="Write IoT Edge's own modules alone, for releases to lie over."
)
@click.option(
    "--template",
    type=console.FILE,
    metavar="FILE",
    help="Fill in a template of yours: ${NAME} and __NAME; Jinja in a file that ends in .j2.",
)
@click.option(
    "--patch",
    type=console.FILE,
    metavar="FILE",
    help="Change the image of the release's module in this manifest, and no other byte of it.",
)
@click.option(
    "--repository", type=console.REPOSITORY, help="Use this instead of [image] repository."
)
@click.option(
    "--platform", type=console.PLATFORM, help="Name the image of one platform, not of all of them."
)
@click.option("--module", default="", metavar="ID", help="Use this instead of [module] name.")
@click.option(
    "--device-group",
    "device_group",
    default="",
    metavar="NAME",
    help="Allow pulls the time this group's link takes; without, that of the slowest group.",
)
@click.option(
    "--with-secrets",
    "with_secrets",
    is_flag=True,
    help="Fill in the passwords of registries from the environment; -o FILE is then yours alone "
    "to read, and left out of git.",
)
@click.option(
    "--token",
    type=console.FILE,
    metavar="FILE",
    help="Take the login of [image] repository from what mlpack azure token wrote; says "
    "--with-secrets too.",
)
@click.option(
    "--image-volume",
    "image_volume",
    type=console.REPOSITORY,
    metavar="BASE",
    help="Kubernetes: run the base in this repository, and mount the release into it.",
)
@click.option("--apply", "apply", is_flag=True, help="Kubernetes: apply it to the cluster.")
@click.option("--context", default="", metavar="NAME", help="Another context of the kubeconfig.")
@click.option("--dry-run", is_flag=True, help="Have the cluster check it, and keep nothing.")
@click.option("--yes", is_flag=True, help="Apply without asking.")
def render(request: Render, **cluster: Any) -> None:  # noqa: ANN401  (each has its own type)
    """Write the deployment manifest of a release.

    The image is pinned by its digest, and the manifest is checked as a device and
    IoT Hub would check it: what they would refuse is not written. NAME alone is the
    model's newest release; what mlpack build prints is taken as well.

    --target kubernetes writes a Deployment, or with --device-group a DaemonSet for the
    group's nodes, with its Service and NetworkPolicy; --target aci what
    az container create --file takes; --target azureml what az ml online-endpoint create and
    online-deployment create take; --target compose the services that mlpack up runs.
    """
    there = Cluster(**cluster)
    for name, value in cluster.items():
        if value and request.target != KUBERNETES:
            raise UsageError(f"--{name.replace('_', '-')} is for --target kubernetes")
    rendered = console.project().render(request)
    for each in rendered.notes:
        console.note(each)
    if request.output is not None:
        console.note(f"{request.output}: {rendered.summary}")
    if there.apply:
        _apply(rendered, there)
    elif request.output is not None or console.settings().json:
        console.answer(rendered, "")
    else:
        # As it is: a patched manifest may end without a line break.
        click.echo(rendered.text, nl=False)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The options about the cluster to apply to."""

    apply: bool = False
    context: str = ""
    dry_run: bool = False
    yes: bool = False


def _apply(rendered: Rendered, cluster: Cluster) -> None:
    from mlpack.api.kubernetes import Cluster as Reached
    from mlpack.api.kubernetes import apply

    reached = Reached(cluster.context)
    if not cluster.dry_run:
        names = ", ".join(str(each["kind"]) for each in rendered.objects)
        console.agree(f"apply {names} to {reached.name}?", yes=cluster.yes)
    done = apply(rendered.objects, reached, dry_run=cluster.dry_run)
    found = {**document(rendered), "applied": done}
    console.answer(found, "\n".join(str(each) for each in done))
