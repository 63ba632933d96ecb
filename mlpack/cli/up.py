"""``mlpack up``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Up
from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.api.up import ModuleOutcome, UpResult


@console.command(
    "up",
    Up,
    examples="""
    mlpack render fan -o deployment.json && mlpack up
    mlpack up vans.json --dry-run
    mlpack up base.json --layer fan.json --layer camera.json
    mlpack up --network host --timeout 120
    mlpack down
    """,
)
@console.deployment
@click.option(
    "--layer",
    "layers",
    type=console.FILE,
    multiple=True,
    metavar="FILE",
    help="Merge FILE into it as IoT Hub does; may be repeated, the last is the highest.",
)
@click.option(
    "--network",
    type=click.Choice(["own", "host"]),
    default="own",
    show_default=True,
    help="Give the modules a network of their own, or that of this machine.",
)
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until the modules are ready."
)
@click.option(
    "--timeout",
    default=60.0,
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    show_default=True,
    help="Wait as long at most.",
)
@click.option("--dry-run", is_flag=True, help="Show what would happen, and change nothing.")
def up(request: Up) -> None:
    """Run a deployment manifest on this machine's Docker, to see it work.

    FILE is what mlpack render wrote, deployment.json by default. Its modules become services
    of .mlpack/compose.yaml, which docker compose brings up: containers with the modules' names,
    images, variables, ports, mounts, startup order and restart policies, in a network where
    they find each other by name. Releases come from the project's store, other images are
    pulled. edgeAgent, edgeHub, routes and twins need an IoT Edge device, and are left out with
    a note each.

    With --layer, layered deployments are merged over a base deployment. Files that the hub
    returned are ranked by their priorities: the base deployment of the highest one counts, and
    the layers above it.

    Run again, it changes what the manifest changed, and nothing else. mlpack down ends it.
    """
    done = console.project().up(request)
    console.answer(done, lambda: _text(done))
    for each in done.modules:
        if each.last_lines:
            console.note(f"the last lines of {each.name}:\n{each.last_lines}")
    if not request.dry_run:
        default = str(request.deployment) == console.DEPLOYMENT
        console.note(f"end it with: mlpack down{'' if default else f' {request.deployment}'}")
    done.require_ready()


_DONE = {
    "keep": "unchanged",
    "create": "created",
    "replace": "replaced",
    "start": "started",
}


def _text(done: UpResult) -> str:
    headers = ("module", "image", "change", "why") if done.dry_run else _HEADERS
    row = _planned if done.dry_run else _row
    lines = [console.table(headers, [row(each) for each in done.modules])]
    if done.removed:
        word = "would remove" if done.dry_run else "removed"
        lines.append(f"{word} {', '.join(done.removed)}: not in the manifest")
    return "\n".join(lines)


_HEADERS = ("module", "image", "change", "state", "address")


def _planned(module: ModuleOutcome) -> tuple[str, ...]:
    return (module.name, _image(module), module.action, module.why)


def _row(module: ModuleOutcome) -> tuple[str, ...]:
    done = _DONE[module.action]
    return (module.name, _image(module), done, module.state, " ".join(module.addresses))


def _image(module: ModuleOutcome) -> str:
    digest = module.image_id.removeprefix("sha256:")[:12]
    return f"{module.release or module.image.partition('@')[0]} {digest}".rstrip()
