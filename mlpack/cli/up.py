"""``mlpack up``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.api.up_outcome import Module, Up


@options.command(
    "up",
    examples="""
    mlpack render fan -o deployment.json && mlpack up
    mlpack up vans.json --dry-run
    mlpack up --network host --timeout 120
    mlpack down
    """,
)
@options.deployment
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
def up(deployment: Path, network: str, wait: bool, timeout: float, dry_run: bool) -> None:
    """Run a deployment manifest on this machine's Docker, to see it work.

    FILE is what mlpack render wrote, deployment.json if none is named. Each module of it
    becomes a container of the module's name, with its image, variables, ports, mounts,
    startup order and restart policy, in a network where modules find each other by name.
    Releases come from the project's store, other images are pulled. There is no IoT Edge
    here: edgeAgent, edgeHub, routes and twins are left out, and said.

    Run again, it changes what the manifest has changed, and nothing else. mlpack down ends it.
    """
    from mlpack.api import up as api
    from mlpack.api.up_outcome import require_ready

    readable = api.read(options.settings().directory / deployment)
    for problem in readable.warnings:
        output.note(f"warning: {problem}")
    for part in readable.skipped:
        output.note(str(part))
    order = api.Order(
        on_host=network == "host",
        seconds=timeout if wait else 0,
        dry_run=dry_run,
    )
    talk = api.Talk(say=output.note, progress=output.progress)
    done = api.up(options.project_if_any(), readable, order, talk)
    document = {**done.to_json(), "skipped": [str(each) for each in readable.skipped]}
    output.answer(document, lambda: _text(done))
    for each in done.modules:
        if each.last_words:
            output.note(f"the last that {each.name} said:\n{each.last_words}")
    if not dry_run:
        named = "" if str(deployment) == options.DEPLOYMENT else f" {deployment}"
        output.note(f"end it with: mlpack down{named}")
    require_ready(done)


_DONE = {
    "keep": "unchanged",
    "create": "created",
    "replace": "replaced",
    "start": "started",
    "stop": "stopped",
}


def _text(done: Up) -> str:
    headers = ("module", "image", "change", "why") if done.dry_run else _HEADERS
    row = _planned if done.dry_run else _row
    lines = [output.table(headers, [row(each) for each in done.modules])]
    if done.removed:
        word = "would remove" if done.dry_run else "removed"
        lines.append(f"{word} {', '.join(done.removed)}: not in the manifest")
    return "\n".join(lines)


_HEADERS = ("module", "image", "change", "state", "address")


def _planned(module: Module) -> tuple[str, ...]:
    return (module.name, _image(module), module.change.step.value, module.change.why)


def _row(module: Module) -> tuple[str, ...]:
    done = _DONE[module.change.step.value]
    return (module.name, _image(module), done, module.state, " ".join(module.addresses))


def _image(module: Module) -> str:
    image = module.image
    digest = image.id.removeprefix("sha256:")[:12]
    return f"{image.release or image.name.partition('@')[0]} {digest}".rstrip()
