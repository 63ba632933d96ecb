"""``mlpack doctor``."""

from __future__ import annotations

import click

from mlpack.cli import options, output


@options.command(
    "doctor",
    examples="""
    mlpack doctor
    mlpack doctor --deep
    mlpack -C fan doctor --json
    """,
)
@click.option("--deep", is_flag=True, help="Read every blob of the store and compare its digest.")
def doctor(deep: bool) -> None:
    """Check this machine and this project.

    What is missing may be so; exit status 1 says that something needed is broken.
    """
    from mlpack.api import doctor as api

    checks = api.doctor(options.settings().directory, deep=deep)
    output.answer(
        {
            "healthy": all(each.state != "broken" for each in checks),
            "checks": [each.to_json() for each in checks],
        },
        lambda: output.table(
            ("check", "state", "found", "what to do"),
            [(each.name, each.state, each.found, each.advice) for each in checks],
        ),
    )
    api.require_healthy(checks)
