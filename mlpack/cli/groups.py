"""``mlpack groups``."""

from __future__ import annotations

from mlpack.cli import console


@console.command(
    "groups",
    examples="""
    mlpack groups
    mlpack groups --json
    """,
)
def groups() -> None:
    """List the device groups of mlpack.toml.

    A device group is devices that get releases together: [deploy.groups.NAME] with the target
    condition that selects them. How releases reach them: mlpack docs how-to/deploy
    """
    from mlpack.settings.reader import share_text, stages_text

    found = console.project().groups()
    if not found.groups:
        console.note(
            "mlpack.toml has no device group: add [deploy.groups.vans] "
            "with target = \"tags.deviceGroup = 'vans'\""
        )
        console.answer(found, "")
        return
    headers = ("group", "target", "stages", "runs / fails", "requires")
    rows = [
        (
            each.name,
            each.condition.text,
            stages_text(each.stages).replace(",", " "),
            f"{share_text(each.success)} / {share_text(each.max_failures)}",
            each.require or "-",
        )
        for each in found.groups
    ]
    console.answer(found, lambda: console.table(headers, rows))
