"""Rollouts for people: the plan before, the stages during, planned and measured after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlpack.model.amounts import share_text, time_text
from mlpack.plan.cost import CostReport
from mlpack.plan.fleet import EMPTY, UNKNOWN, CohortPlan, FleetPlan
from mlpack.plan.strategy import WayName
from mlpack.render.document import Block, Bullets, Heading, Paragraph, Table
from mlpack.words import counted, money, size

TITLES: Mapping[WayName, str] = {
    "whole": "whole image",
    "usual": "usual build",
    "layer": "mlpack layer",
    "patch": "mlpack patch",
}
SHORT: Mapping[WayName, str] = {"whole": "whole", "usual": "usual", "layer": "layer"}
"""Where a terminal's 80 columns must do; mlpack's own way is called so."""


def plan_blocks(plan: FleetPlan) -> tuple[Block, ...]:
    """The answer of ``mlpack plan``, and what ``mlpack deploy`` shows before it asks."""
    return tuple(_plan(plan))


def _plan(plan: FleetPlan) -> Iterator[Block]:
    yield Paragraph(_sentence(plan))
    if plan.cohorts:
        yield Heading(
            f"Devices by what they hold, and what each of them fetches, with {plan.engine}"
        )
        yield _cohort_table(plan)
        yield Heading("Stages")
        yield _stage_table(plan)
        yield Heading(f"Ways compared, for all of {plan.group}")
        yield _way_table(plan)
    if plan.warnings or plan.missing:
        yield Heading("Warnings")
        yield Bullets((*plan.warnings, *plan.missing))


def _sentence(plan: FleetPlan) -> str:
    devices = counted(plan.devices, "device")
    if not plan.devices:
        return f"{plan.release} to {plan.group}: no device is meant by {plan.condition}"
    said = f"{plan.release} to {devices} of {plan.group}: {size(plan.total(plan.way) or 0)}"
    bill = plan.bill(plan.way)
    if bill is not None:
        said += f", {spent(bill)}"
    if plan.slowest_seconds:
        speed = f"{size(plan.link_bytes_per_second)} a second"
        said += f"; at {speed} a device takes up to {time_text(plan.slowest_seconds)}"
    return f"{said}."


def spent(bill: CostReport) -> str:
    """The price of the bytes alone, beside what is due anyway."""
    if bill.usage is None:
        return "at a price the tariff does not state"
    return f"{money(bill.usage)} {bill.tariff.currency}" if bill.usage else "included"


def _cohort_table(plan: FleetPlan) -> Table:
    rows = [
        (
            _holds(each.cohort.holds),
            each.cohort.platform or "not said",
            f"{each.cohort.devices:,}",
            *(_bytes(each, name) for name in plan.names),
            _time(plan, each),
        )
        for each in plan.cohorts
    ]
    return Table(
        (
            "holds",
            "platform",
            "devices",
            *("mlpack" if name == plan.way else SHORT[name] for name in plan.names),
            "time",
        ),
        rows,
        right=range(2, len(plan.names) + 4),
    )


def _holds(what: str) -> str:
    return {EMPTY: "nothing", UNKNOWN: "an unknown image"}.get(what, what)


def _bytes(each: CohortPlan, name: WayName) -> str:
    found = each.bytes(name)
    return "unknown" if found is None else size(found) if each.ways else "has it"


def _time(plan: FleetPlan, each: CohortPlan) -> str:
    if not plan.link_bytes_per_second:
        return "no link said"
    if not each.ways:
        return "0 s"
    return time_text((each.bytes(plan.way) or 0) / plan.link_bytes_per_second)


def _stage_table(plan: FleetPlan) -> Table:
    rows, devices, sent = [], 0, 0
    for number, share in enumerate(plan.stages):
        devices += plan.stage_devices(number)
        sent += plan.stage_bytes(number)
        rows.append(
            (
                str(number + 1),
                share_text(share),
                f"{plan.stage_devices(number):,}",
                size(plan.stage_bytes(number)),
                f"{devices:,}",
                size(sent),
            )
        )
    headers = ("stage", "share", "adds devices", "adds bytes", "devices so far", "bytes so far")
    return Table(headers, rows, right=range(6))


def _way_table(plan: FleetPlan) -> Table:
    rows = []
    for name in plan.names:
        bill = plan.bill(name)
        rows.append((TITLES[name], size(plan.total(name) or 0), spent(bill) if bill else "0.00"))
    return Table(("way", "bytes", "price"), rows, right=(1, 2))


def measured_blocks(
    release: str, planned: Mapping[str, object], measured: Mapping[str, object] | None
) -> tuple[Block, ...]:
    """The answer of ``mlpack report --rollout``: planned beside what devices said."""
    return tuple(_measured(release, planned, measured))


def _measured(
    release: str, planned: Mapping[str, object], measured: Mapping[str, object] | None
) -> Iterator[Block]:
    found = measured or {}
    state = str(found.get("state") or "planned")
    why = str(found.get("why") or "")
    yield Paragraph(f"{release} to {planned.get('group')}: {state}{f' ({why})' if why else ''}.")
    yield Heading("Planned and measured")
    yield Table(
        ("", "planned", "measured"),
        [
            ("devices", _count(planned, "devices"), _answered(found)),
            ("bytes", size(_number(planned, "bytes")), size(_number(found, "bytes"))),
            (_currency(planned), _planned_cost(planned), str(found.get("cost") or "unknown")),
        ],
        right=(1, 2),
    )
    rows = list(_stage_rows(found))
    if rows:
        yield Heading("Stages")
        yield Table(
            ("share", "devices", "running", "failed", "silent", "until (UTC)"),
            rows,
            right=range(1, 5),
        )
    yield Paragraph(
        "Measured are the devices that reported the release, running or failed, each at the "
        "bytes planned for it: an edge device does not report what it fetched. A registry's or a "
        "provider's own count holds retries, too."
    )


def _stage_rows(measured: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    stages = measured.get("stages")
    for each in stages if isinstance(stages, list) else []:
        yield (
            str(each["share"]),
            *(f"{each[key]:,}" for key in ("devices", "running", "failed", "silent")),
            str(each["until"])[: len("2026-11-20T20:13")].replace("T", " "),
        )


def _answered(measured: Mapping[str, object]) -> str:
    return f"{_number(measured, 'running') + _number(measured, 'failed'):,}"


def _planned_cost(planned: Mapping[str, object]) -> str:
    ways = planned.get("strategies")
    for each in ways if isinstance(ways, list) else []:
        if each.get("name") == planned.get("strategy") and each.get("cost"):
            return str(each["cost"]["usage"] or "unknown")
    return "unknown"


def _currency(planned: Mapping[str, object]) -> str:
    tariff = planned.get("tariff")
    return str(tariff.get("currency")) if isinstance(tariff, Mapping) else "money"


def _count(found: Mapping[str, object], key: str) -> str:
    return f"{_number(found, key):,}"


def _number(found: Mapping[str, object], key: str) -> int:
    value = found.get(key)
    return value if isinstance(value, int) else 0
