"""``mlpack render``."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    mlpack render fan --template deployment.template.json --module pump=r.io/edge/pump:4 -o d.json
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
@click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="ID|ID=IMAGE",
    help="Use ID instead of [module] name; with IMAGE, the image of ${MODULES.ID} of a template "
    "(may be repeated).",
)
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
    help="Fill in the passwords of registries and the secrets of [edge.modules]; -o FILE is then "
    "yours alone to read, and left out of git.",
)
@click.option(
    "--allow-secret",
    "allow_secrets",
    multiple=True,
    metavar="JSONPATH",
    help="Accept the secret that the manifest of --patch has there in clear; * is any part of a "
    "path (may be repeated).",
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
def render(
    request: Render,
    modules: tuple[str, ...],
    **cluster: Any,  # noqa: ANN401  (each has its own type)
) -> None:
    """Write the deployment manifest of a release.

    The image is pinned by its digest, and the manifest is checked as a device and
    IoT Hub would check it: what they would refuse is not written. NAME alone is the
    model's newest release; what mlpack build prints is taken as well.

    --target kubernetes writes a Deployment, or with --device-group a DaemonSet for the
    group's nodes, with its Service and NetworkPolicy; --target aci what
    az container create --file takes; --target azureml what az ml online-endpoint create and
    online-deployment create take; --target compose the services that mlpack up runs.
    """
    request = _with_modules(request, modules)
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


def _with_modules(request: Render, modules: tuple[str, ...]) -> Render:
    """Read ``--module ID``, once, and ``--module ID=IMAGE``, as often as there are modules."""
    images: dict[str, str] = {}
    own: list[str] = []
    for each in modules:
        name, equals, image = (part.strip() for part in each.partition("="))
        if not equals:
            own.append(name)
        elif not (name and image) or name in images:
            what = "names an image twice" if name in images else "names no image"
            raise UsageError(f"--module {each!r} {what}", hint="write it as --module ID=IMAGE")
        else:
            images[name] = image
    if len(own) > 1:
        raise UsageError(
            f"--module {own[0]} and --module {own[1]} exclude each other",
            hint="one module runs the release; the others have images: --module ID=IMAGE",
        )
    return replace(request, module=own[0] if own else "", images=images)


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
