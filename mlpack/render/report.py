"""A release's bytes and money, for the people who pay: a sentence first, then tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from mlpack.humanize import counted, money, share, size, times
from mlpack.plan.cost import CostReport
from mlpack.plan.engines import engine
from mlpack.plan.refusals import warnings
from mlpack.plan.report import BudgetCheck, ReleaseReport
from mlpack.plan.transfer import Alternative, PullDiff, Transfer
from mlpack.render.document import Block, Bullets, Heading, Paragraph, Table


def transfer_table(transfers: Sequence[Transfer]) -> Table:
    """One column per transfer: its parts, their sum and the number of requests."""
    rows = [
        ("layers", *(size(each.layers) for each in transfers)),
        ("manifest", *(size(each.manifest) for each in transfers)),
        ("config", *(size(each.config) for each in transfers)),
        ("HTTP headers", *(size(each.headers) for each in transfers)),
        ("TLS handshakes", *(size(each.handshakes) for each in transfers)),
        ("total", *(size(each.total) for each in transfers)),
        ("requests", *(str(each.requests) for each in transfers)),
    ]
    engines = [each.engine for each in transfers]
    return Table(("part", *engines), rows, right=range(1, len(engines) + 1))


def device_on(old: str) -> str:
    """The subject of a sentence about a device that holds ``old``."""
    if old == "none":
        return "An empty device"
    return "A device on the base" if old == "base" else f"A device on {old}"


def diff_blocks(delta: PullDiff) -> tuple[Block, ...]:
    """The output of ``mlpack diff``: a sentence, the layers from the top, the bytes by part."""
    fetched = sum(step.action == "fetch" for step in delta.steps)
    rows = [
        (step.action, size(step.layer.size), step.layer.digest.short, step.why)
        for step in reversed(delta.steps)
    ]
    refused = warnings(delta.refusals)
    return (
        Paragraph(
            f"{device_on(delta.old)} fetches {size(delta.transfer.total)} to reach {delta.new} "
            f"with {delta.engine}: {fetched} of {counted(len(delta.steps), 'layer')}."
        ),
        *((Heading("Warnings"), Bullets(refused)) if refused else ()),
        Heading("Layers, the top one first"),
        Table(("action", "size", "layer", "why"), rows, right=(1,)),
        Heading("Bytes on the wire, by part"),
        transfer_table([delta.transfer]),
    )


def report_blocks(report: ReleaseReport) -> tuple[Block, ...]:
    """The whole report."""
    return tuple(_blocks(report))


def _blocks(report: ReleaseReport) -> Iterator[Block]:
    yield Paragraph(_bytes_sentence(report))
    yield Paragraph(_money_sentence(report))
    yield Heading(f"Bytes per device, by part ({_move(report)})")
    yield transfer_table([delta.transfer for delta in report.diffs])
    yield Heading(f"Ways compared: bytes, with {report.engine}")
    yield _bytes_table(report)
    yield Heading(f"Ways compared: {report.tariff.currency} for one rollout, with {report.engine}")
    yield _money_table(report)
    if report.warnings:
        yield Heading(f"{counted(len(report.warnings), 'warning')}, for {_devices(report.devices)}")
        yield Bullets(report.warnings)
    yield Heading(f"Not counted in any number above ({len(report.unknowns)})")
    yield Bullets(report.unknowns)
    yield Heading("Where the numbers come from")
    yield Bullets(tuple(_sources(report)))


def _move(report: ReleaseReport) -> str:
    return f"{report.old} to {report.release}, {report.platform}"


def _bytes_sentence(report: ReleaseReport) -> str:
    held = device_on(report.old)
    ours, usual = report.ours, report.alternative("usual")
    if ours is None:
        return f"{held} cannot be brought to {report.release}."
    total = ours.transfer.total
    sentence = f"{held} fetches {size(total)} to reach {report.release}"
    if usual is None:
        return f"{sentence}."
    other = usual.transfer.total
    if other <= total:
        return f"{sentence}, and {size(other)} of the usual build."
    return f"{sentence}; the usual build would send {size(other)}, {times(other, total)} as much."


def _money_sentence(report: ReleaseReport) -> str:
    ours, usual = report.ours, report.alternative("usual")
    count = len(report.unknowns)
    missing = f"{counted(count, 'thing')} {'is' if count == 1 else 'are'} not counted: see below."
    if ours is None:
        return missing
    bill = report.cost(ours, report.devices)
    sentence = f"For {_devices(report.devices)} that is {_spent(bill)}"
    if usual is not None and usual.transfer.total > ours.transfer.total:
        sentence += f"; with the usual build, {_spent(report.cost(usual, report.devices))}"
    due = ""
    if bill.fixed:
        due = (
            f" {money(bill.fixed)} {report.tariff.currency} per {report.tariff.per} are due "
            "in any case."
        )
    return f"{sentence}.{due} {missing}"


def _spent(bill: CostReport) -> str:
    """Return bytes and their price in one phrase."""
    sent = bill.bytes_per_device * bill.devices
    if bill.usage is None:
        return (
            f"{size(sent)}, of which {size(bill.beyond_bytes)} lie beyond the pool "
            "at a price the tariff does not state"
        )
    if bill.usage:
        return f"{size(sent)} and {money(bill.usage)} {bill.tariff.currency}"
    if bill.included_bytes:
        return f"{size(sent)}, {share(sent, bill.included_bytes)} of the pool"
    return f"{size(sent)}, {_free(bill)}"


def _free(bill: CostReport) -> str:
    """Return why bytes that were sent cost nothing more."""
    if bill.included_bytes is None:
        return "included"
    return "in the pool" if bill.included_bytes else "free"


def _bytes_table(report: ReleaseReport) -> Table:
    rows = [
        (
            way.title,
            size(way.transfer.total),
            *(size(way.transfer.total * count) for count in report.fleets),
        )
        for way in report.alternatives
    ]
    return Table(_headers(report, "one device"), rows, right=range(1, len(report.fleets) + 2))


def _money_table(report: ReleaseReport) -> Table:
    rows = [
        (way.title, *(_usage(report.cost(way, count)) for count in report.fleets))
        for way in report.alternatives
    ]
    fixed = [(f"due per {report.tariff.per} in any case", *_fixed(report))]
    return Table(_headers(report), [*rows, *fixed], right=range(1, len(report.fleets) + 1))


def _headers(report: ReleaseReport, *between: str) -> tuple[str, ...]:
    return ("way", *between, *(_devices(count) for count in report.fleets))


def _usage(bill: CostReport) -> str:
    if bill.usage is None:
        return "unknown"
    return money(bill.usage) if bill.usage else _free(bill)


def _fixed(report: ReleaseReport) -> Iterator[str]:
    way: Alternative = report.alternatives[0]
    for count in report.fleets:
        fixed: Decimal = report.cost(way, count).fixed
        yield money(fixed)


def _devices(count: int) -> str:
    return counted(count, "device")


def _sources(report: ReleaseReport) -> Iterator[str]:
    yield f"Release: {report.release} is {report.digest}."
    measured = ", ".join(engine(delta.engine).measured for delta in report.diffs)
    yield f"Engines: rules and request sizes as measured on {measured}; other versions differ."
    yield f"Link: {report.link}, as [device] in mlpack.toml says."
    yield (
        "Whole image: what an empty device fetches, and every device whose base changed or whose "
        "image was removed first."
    )
    if report.alternative("usual"):
        yield (
            "Usual build: calculated, not measured: this release's layers at their real sizes, but "
            "with the dependencies above the model and built again every time. A build that puts "
            "the model last, and finds its cache every time, comes near mlpack's number."
        )
    tariff = report.tariff
    yield (
        f"Tariff {tariff.name}: {tariff.title} ({tariff.source}; {tariff.date.isoformat()}). "
        "Set it with [fleet] tariff in mlpack.toml, or --tariff."
    )


def budget_blocks(verdict: BudgetCheck) -> tuple[Block, ...]:
    """A heading with the result, and a row for every bound."""
    over = len(verdict.over)
    result = f"over in {over} of {len(verdict.lines)}" if over else "kept"
    rows = [
        (line.title, line.allowed, line.found, "over" if line.over else "within")
        for line in verdict.lines
    ]
    return (
        Heading(f"Budget: {result}"),
        Table(("[budget]", "allowed", "found", ""), rows, right=(1, 2)),
    )
