"""``mlpack render``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
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
def render(
    release: str,
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
) -> None:
    """Write the IoT Edge deployment manifest of a release.

    The image is pinned by its digest, and the manifest is checked as a device and
    IoT Hub would check it: what they would refuse is not written. NAME alone is the
    model's newest release; what mlpack build prints is taken as well.
    """
    from mlpack.api.render import Form, Order
    from mlpack.api.render import render as render_release
    from mlpack.errors import UsageError

    forms = {
        Form.LAYERED: layered,
        Form.BASE: base,
        Form.TEMPLATE: template is not None,
        Form.PATCH: patch is not None,
    }
    chosen = [form for form, wanted in forms.items() if wanted]
    if len(chosen) > 1:
        said = " and ".join(f"--{form.value}" for form in chosen)
        raise UsageError(f"{said} exclude each other", hint="run the command once for each")
    if base and release:
        hint = "with a release, leave --base out; it has one deployment for all of them"
        raise UsageError(f"--base is for every release, and not for {release!r}", hint=hint)
    if passwords and path is None:
        raise UsageError("--with-secrets prints nothing", hint="name a file with -o FILE")
    folder = options.settings().directory
    target = folder / path if path else None
    if target is not None and target.is_dir():
        raise click.BadParameter(f"{path} is a directory", param_hint="-o")
    if target is not None and template is not None and target == folder / template:
        raise UsageError(f"{path} is the template itself", hint="name another file with -o")
    file = template or patch
    order = Order(
        form=chosen[0] if chosen else Form.WHOLE,
        file=folder / file if file else None,
        repository=repository,
        platform=platform,
        module=module,
        group=group,
        environment=os.environ,
        passwords=passwords,
    )
    rendered = render_release(options.project(), release, order)
    for each in rendered.warnings:
        output.note(f"warning: {each}")
    if target is None:
        _print(rendered)
        return
    rendered.write(target)
    output.note(f"{path}: {_summary(rendered, order)}")
    output.answer({**rendered.to_json(), "path": str(path)}, "")


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
