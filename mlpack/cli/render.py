"""``mlpack render``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import elsewhere, options, output
from mlpack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.api.render import Order, Rendered
    from mlpack.oci.descriptor import Platform
    from mlpack.oci.reference import Reference

_FILE = click.Path(path_type=Path)


@options.command(
    "render",
    examples="""
    mlpack render fan -o deployment.json                      all that a device runs
    mlpack render fan:2 --platform linux/arm64
    mlpack render $(mlpack build fan)
    mlpack render --base --device-group vans -o base.json     once for a group of devices
    mlpack render fan:2 --layered -o fan-2.json               once for each release
    mlpack render fan --template deployment.template.json -o deployment.json
    mlpack render fan --patch deployment.json --module scorer -o deployment.json
    ACR_PASSWORD=… mlpack render fan --with-secrets -o deployment.json
    """,
)
@click.argument("release", metavar="[NAME[:VERSION]]", required=False, default="")
@click.option(
    "--target",
    type=click.Choice(["iotedge", "kubernetes", "aci"]),
    default="iotedge",
    show_default=True,
    help="What runs it: IoT Edge, Kubernetes, or Azure Container Instances.",
)
@click.option(
    "-o",
    "--output",
    "path",
    type=_FILE,
    metavar="FILE",
    help="Write the manifest to FILE, whole or not at all, instead of printing it.",
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
    type=_FILE,
    metavar="FILE",
    help="Fill in a template of yours: ${NAME} and __NAME; Jinja in a file that ends in .j2.",
)
@click.option(
    "--patch",
    type=_FILE,
    metavar="FILE",
    help="Change the image of the release's module in this manifest, and no other byte of it.",
)
@click.option(
    "--repository", type=options.REPOSITORY, help="Use this instead of [image] repository."
)
@click.option(
    "--platform", type=options.PLATFORM, help="Name the image of one platform, not of all of them."
)
@click.option("--module", default="", metavar="ID", help="Use this instead of [module] name.")
@click.option(
    "--device-group",
    "group",
    default="",
    metavar="NAME",
    help="Allow pulls the time this group's link takes; without, that of the slowest group.",
)
@click.option(
    "--with-secrets",
    "passwords",
    is_flag=True,
    help="Fill in the passwords of registries from the environment; -o FILE is then yours alone "
    "to read, and left out of git.",
)
@click.option(
    "--token",
    type=_FILE,
    metavar="FILE",
    help="Take the login of [image] repository from what mlpack azure token wrote; says "
    "--with-secrets too.",
)
@click.option(
    "--image-volume",
    "volume",
    type=options.REPOSITORY,
    metavar="BASE",
    help="Kubernetes: run the base in this repository, and mount the release into it.",
)
@click.option("--apply", "apply", is_flag=True, help="Kubernetes: apply it to the cluster.")
@click.option("--context", default="", metavar="NAME", help="Another context of the kubeconfig.")
@click.option("--dry-run", is_flag=True, help="Have the cluster check it, and keep nothing.")
@click.option("--yes", is_flag=True, help="Apply without asking.")
def render(
    release: str,
    target: str,
    path: Path | None,
    layered: bool,
    base: bool,
    template: Path | None,
    patch: Path | None,
    repository: Reference | None,
    platform: Platform | None,
    module: str,
    group: str,
    passwords: bool,
    token: Path | None,
    volume: Reference | None,
    apply: bool,
    context: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Write the deployment manifest of a release.

    The image is pinned by its digest, and the manifest is checked as a device and
    IoT Hub would check it: what they would refuse is not written. NAME alone is the
    model's newest release; what mlpack build prints is taken as well.

    --target kubernetes writes a Deployment, or with --device-group a DaemonSet for the
    group's nodes, with its Service and NetworkPolicy; --target aci what
    az container create --file takes.
    """
    from mlpack.api.render import Form, Order

    login = _login(options.settings().directory / token) if token else {}
    passwords = passwords or bool(login)
    form = _form({"layered": layered, "base": base, "template": template, "patch": patch})
    if base and release:
        hint = "with a release, leave --base out; it has one deployment for all of them"
        raise UsageError(f"--base is for every release, and not for {release!r}", hint=hint)
    folder = options.settings().directory
    place = _place(path, passwords)
    cluster = elsewhere.Cluster(apply=apply, dry_run=dry_run, yes=yes, context=context)
    if target != "iotedge":
        if form:
            raise UsageError(f"--{form} is for IoT Edge, not for --target {target}")
        wanted = elsewhere.wanted(repository, platform, module, group, volume, passwords=passwords)
        elsewhere.render(target, release, wanted, path, cluster)
        return
    elsewhere.refuse(volume, cluster)
    if place is not None and template is not None and place == folder / template:
        raise UsageError(f"{path} is the template itself", hint="name another file with -o")
    file = template or patch
    order = Order(
        form=Form(form or "whole"),
        file=folder / file if file else None,
        repository=repository,
        platform=platform,
        module=module,
        group=group,
        environment={**os.environ, **login},
        passwords=passwords,
    )
    _for_iot_edge(release, order, path, place)


def _form(said: Mapping[str, object]) -> str:
    """The one form that is asked for; empty for none."""
    chosen = [name for name, wanted in said.items() if wanted]
    if len(chosen) > 1:
        names = " and ".join(f"--{name}" for name in chosen)
        raise UsageError(f"{names} exclude each other", hint="run the command once for each")
    return chosen[0] if chosen else ""


def _place(path: Path | None, passwords: bool) -> Path | None:
    if passwords and path is None:
        raise UsageError("--with-secrets prints nothing", hint="name a file with -o FILE")
    place = options.settings().directory / path if path else None
    if place is not None and place.is_dir():
        raise click.BadParameter(f"{path} is a directory", param_hint="-o")
    return place


def _for_iot_edge(release: str, order: Order, path: Path | None, place: Path | None) -> None:
    from mlpack.api.render import render as render_release

    rendered = render_release(options.project(), release, order)
    for each in rendered.warnings:
        output.note(f"warning: {each}")
    if place is None:
        _print(rendered)
        return
    rendered.write(place)
    output.note(f"{path}: {_summary(rendered, order)}")
    output.answer({**rendered.to_json(), "path": str(path)}, "")


def _login(path: Path) -> Mapping[str, str]:
    from mlpack.api.token import read_token

    return read_token(path)


def _print(rendered: Rendered) -> None:
    if options.settings().json:
        output.answer(rendered.to_json(), "")
        return
    # As it is: a patched manifest may end without a line break.
    click.echo(rendered.text, nl=False)


def _summary(rendered: Rendered, order: Order) -> str:
    private = "; it holds a password, and is for you alone to read" if rendered.private else ""
    if rendered.image is None:
        return f"IoT Edge's own modules{private}"
    way = ", over a base deployment" if order.form.value == "layered" else ""
    return f"module {rendered.module} runs {rendered.image}{way}{private}"
