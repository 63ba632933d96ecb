"""``mlpack groups``."""

from __future__ import annotations

from mlpack.cli import options, output


@options.command(
    "groups",
    examples="""
    mlpack groups
    mlpack groups --json
    """,
)
def groups() -> None:
    """List the device groups of mlpack.toml.

    A device group is devices that get releases together: [deploy.groups.NAME] with the target
    condition that says which they are. docs/deploy.md goes the whole way.
    """
    from mlpack.api.groups import list_groups
    from mlpack.model.amounts import share_text, stages_text

    found = list_groups(options.project())
    if not found.groups:
        output.note(
            "mlpack.toml has no device group: add [deploy.groups.vans] "
            "with target = \"tags.deviceGroup = 'vans'\""
        )
        output.answer(found.to_json(), "")
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
    output.answer(found.to_json(), lambda: output.table(headers, rows))
