"""``mlpack serve``."""

from __future__ import annotations

import os
from collections.abc import Mapping

import click

from mlpack.cli import options, output

# A shell may have been set up for another module; --env says what this one is to find.
_OTHERS = ("AZUREML_ENTRY_SCRIPT", "MLPACK_HOST")


@options.command(
    "serve",
    examples="""
    mlpack serve fan
    mlpack serve fan:2 --port 8080
    mlpack serve fan --env MQTT_BROKER=localhost --env MLPACK_LOG=debug
    """,
)
@click.argument("model", metavar="NAME[:VERSION]")
@click.option(
    "--port", default=5001, type=click.IntRange(1, 65535), help="Port here.", show_default=True
)
@options.env("Set for the runtime and the scoring script.")
def serve(model: str, port: int, env: tuple[tuple[str, str], ...]) -> None:
    """Serve a model version on this machine, without a container, until interrupted.

    The runtime is the one that bases hold, run by this Python with its packages. Prints the
    address that scores; a browser finds a page to try the model there. The runtime's log
    goes to stderr.
    """
    from mlpack.api import serve as api
    from mlpack.model.version import parse_name

    project = options.project()
    lacking = api.lacking_requirements(project)
    if lacking:
        output.note(f"not installed here: {', '.join(lacking)}; mend it: {api.mend(project)}")
    with api.serve(
        project, *parse_name(model), port=port, environment=_environment(dict(env))
    ) as served:
        output.answer(served.to_json(), served.url)
        try:
            served.wait()
        except KeyboardInterrupt:
            # Asked to end, it ends.
            output.note(f"ending {served.version}")


def _environment(said: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _OTHERS}
    return {**inherited, **said}
