"""Rollouts for people: the plan before, the stages during, planned and measured after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from mlpack.humanize import counted, money, size
from mlpack.plan.cost import CostReport
from mlpack.plan.fleet import EMPTY, UNKNOWN, CohortPlan, FleetPlan
from mlpack.plan.transfer import TITLES, AlternativeName
from mlpack.render.document import Block, Bullets, Heading, Paragraph, Table
from mlpack.rollout.decide import HubDeployment, Label
from mlpack.rollout.record import RolloutReport
from mlpack.settings.reader import share_text, time_text
from mlpack.settings.targets import DeviceGroup

BAR = 20
"""Columns of a bar."""

MOST_REASONS = 5
_MINUTES = len("2026-11-20T20:13")


def plan_blocks(plan: FleetPlan) -> Iterator[Block]:
    """Show a plan, as ``mlpack plan`` does, and ``mlpack deploy`` before it asks."""
    yield Paragraph(_sentence(plan))
    if any(each.alternatives for each in plan.cohorts):
        yield Heading(
            f"Devices by the release they hold, and what each of them fetches, with {plan.engine}"
        )
        yield _cohort_table(plan)
        yield Heading("Stages")
        yield _stage_table(plan)
        yield Heading(f"Alternatives compared, for all of {plan.group}")
        yield _alternatives_table(plan)
    if plan.warnings or plan.missing:
        yield Heading("Warnings")
        yield Bullets((*plan.warnings, *plan.missing))


def _sentence(plan: FleetPlan) -> str:
    devices = counted(plan.devices, "device")
    if not plan.devices:
        return f"{plan.release} to {plan.group}: no device matches {plan.condition}"
    if all(each.current for each in plan.cohorts):
        return f"{plan.release} to {devices} of {plan.group}: nothing, as all of them have it."
    said = f"{plan.release} to {devices} of {plan.group}: {size(plan.total(plan.strategy) or 0)}"
    bill = plan.bill(plan.strategy)
    if bill is not None:
        said += f", {spent(bill)}"
    if plan.slowest_seconds:
        speed = f"{size(plan.link_bytes_per_second)} a second"
        said += f"; at {speed} a device takes at most {time_text(plan.slowest_seconds)}"
    return f"{said}."


def spent(bill: CostReport) -> str:
    """Format the price of the bytes alone, without the fixed part."""
    if bill.usage is None:
        return "at a price the tariff does not state"
    return f"{money(bill.usage)} {bill.tariff.currency}" if bill.usage else "included"


def _cohort_table(plan: FleetPlan) -> Table:
    rows = [
        (
            {EMPTY: "nothing", UNKNOWN: "an unknown image"}.get(
                each.cohort.holds, each.cohort.holds
            ),
            each.cohort.platform or "not reported",
            f"{each.cohort.devices:,}",
            *(_bytes(each, name) for name in plan.names),
            _time(plan, each),
        )
        for each in plan.cohorts
    ]
    # One word each, to fit the 80 columns of a terminal.
    names = ("mlpack" if name == plan.strategy else name for name in plan.names)
    headers = ("holds", "platform", "devices", *names, "time")
    return Table(headers, rows, right=range(2, len(plan.names) + 4))


def _bytes(each: CohortPlan, name: AlternativeName) -> str:
    found = each.bytes(name)
    if not each.alternatives:
        return "has it" if each.current else "no image"
    return "unknown" if found is None else size(found)


def _time(plan: FleetPlan, each: CohortPlan) -> str:
    if not plan.link_bytes_per_second:
        return "no link set"
    if not each.alternatives:
        return "0 s"
    return time_text((each.bytes(plan.strategy) or 0) / plan.link_bytes_per_second)


def _stage_table(plan: FleetPlan) -> Table:
    rows, devices, sent = [], 0, 0
    for number, share in enumerate(plan.stages):
        adds, fetched = plan.stage_devices(number), plan.stage_bytes(number)
        devices, sent = devices + adds, sent + fetched
        rows.append(
            (
                str(number + 1),
                share_text(share),
                f"{adds:,}",
                size(fetched),
                f"{devices:,}",
                size(sent),
            )
        )
    headers = ("stage", "share", "adds devices", "adds bytes", "devices so far", "bytes so far")
    return Table(headers, rows, right=range(6))


def _alternatives_table(plan: FleetPlan) -> Table:
    rows = []
    for name in plan.names:
        bill = plan.bill(name)
        rows.append((TITLES[name], size(plan.total(name) or 0), spent(bill) if bill else "0.00"))
    return Table(("alternative", "bytes", "price"), rows, right=(1, 2))


def measured_blocks(report: RolloutReport) -> Iterator[Block]:
    """Show the plan of a rollout next to what its devices reported."""
    planned, found = report.planned, report.measured
    why = f" ({found.why})" if found.why else ""
    yield Paragraph(f"{report.release} to {planned.group}: {found.state or 'planned'}{why}.")
    yield Heading("Planned and measured")
    yield Table(
        ("", "planned", "measured"),
        [
            ("devices", f"{planned.devices:,}", f"{found.last.running + found.last.failed:,}"),
            ("bytes", size(planned.bytes), size(found.bytes)),
            (planned.currency or "money", planned.cost or "unknown", found.cost or "unknown"),
        ],
        right=(1, 2),
    )
    if found.stages:
        yield Heading("Stages")
        rows = [
            (
                each.share,
                *(f"{n:,}" for n in (each.devices, each.running, each.failed, each.silent)),
                each.until[:_MINUTES].replace("T", " "),
            )
            for each in found.stages
        ]
        headers = ("share", "devices", "running", "failed", "silent", "until (UTC)")
        yield Table(headers, rows, right=range(1, 5))
    yield Paragraph(
        "The measured numbers count the devices that reported the release as running or failed, "
        "each with the bytes planned for it: an edge device does not report what it fetched. The "
        "count of a registry or a provider includes retries, too."
    )


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage: its share, the devices up to it, and how many of them run the release."""

    share: str
    devices: int
    running: int
    state: str
    """``done``, ``now`` or ``ahead``."""


@dataclass(frozen=True, kw_only=True)
class GroupStatus:
    """A device group and its latest deployment."""

    group: DeviceGroup
    current: HubDeployment | None = None
    targeted: int = 0
    applied: int = 0
    running: int = 0
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    stages: tuple[StageStatus, ...] = ()
    older: tuple[HubDeployment, ...] = ()

    @property
    def silent(self) -> int:
        """Devices that reported the release neither as running nor as failed."""
        return max(0, self.targeted - self.running - self.failed)

    def to_json(self) -> dict[str, object]:
        """Return one element of the ``groups`` of ``mlpack --json status``."""
        current = self.current
        return {
            "group": self.group.name,
            "release": current.release if current else None,
            "deployment": current.id if current else None,
            "state": current.state if current else None,
            "started": current.labels.get(Label.STARTED) if current else None,
            "since": current.labels.get(Label.SINCE) if current else None,
            "targeted": self.targeted,
            "applied": self.applied,
            "running": self.running,
            "failed": self.failed,
            "silent": self.silent,
            "reasons": dict(self.reasons),
            "stages": [asdict(each) for each in self.stages],
            "older": [each.release for each in self.older],
        }


def status_blocks(status: GroupStatus) -> Iterator[Block]:
    """Show one group's status: a sentence, a bar per stage, the reasons of failed devices."""
    current = status.current
    if current is None:
        yield Heading(f"{status.group.name}: no release is deployed")
        return
    since = current.labels.get(Label.SINCE, "").replace("T", " ").removesuffix("Z")
    yield Heading(f"{status.group.name}: {current.release}, {current.state}, since {since} UTC")
    yield Paragraph(
        f"{counted(status.targeted, 'device')} targeted; {status.applied:,} have received it, "
        f"{status.running:,} run it, {status.failed:,} failed, {status.silent:,} silent."
    )
    rows = [
        (
            stage.share,
            f"{stage.devices:,}",
            bar(stage.running, stage.devices),
            f"{stage.running:,}",
            stage.state,
        )
        for stage in status.stages
    ]
    yield Table(("up to", "devices", "", "run it", ""), rows, right=(0, 1, 3))
    said = sorted(status.reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    if said:
        yield Bullets(tuple(f"{count:,} report: {reason}" for reason, count in said[:MOST_REASONS]))
    if status.older:
        yield Paragraph(
            "Earlier releases on the hub: " + ", ".join(each.release for each in status.older)
        )


def bar(part: int, whole: int) -> str:
    """Draw a fraction as a bar of 20 columns.

    >>> bar(1, 2), bar(0, 0)
    ('██████████░░░░░░░░░░', '░░░░░░░░░░░░░░░░░░░░')
    """
    filled = BAR * part // whole if whole else 0
    return "█" * filled + "░" * (BAR - filled)
