"""A release's bytes and money, for the people who pay: a sentence first, then tables."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from mlpack.plan.cost import CostReport
from mlpack.plan.engines import ENGINES
from mlpack.plan.report import Report
from mlpack.plan.strategy import Way
from mlpack.render.document import Block, Bullets, Heading, Paragraph, Table
from mlpack.render.transfers import device_on, transfer_table
from mlpack.words import counted, money, share, size, times


def report_blocks(report: Report) -> tuple[Block, ...]:
    """The whole report."""
    return tuple(_blocks(report))


def _blocks(report: Report) -> Iterator[Block]:
    yield Paragraph(_bytes_sentence(report))
    yield Paragraph(_money_sentence(report))
    yield Heading(f"Bytes per device, by part ({_move(report)})")
    yield transfer_table([delta.transfer for delta in report.deltas])
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


def _move(report: Report) -> str:
    return f"{report.old} to {report.release}, {report.platform}"


def _bytes_sentence(report: Report) -> str:
    held = device_on(report.old)
    ours, usual = report.ours, report.way("usual")
    if ours is None:
        return f"{held} cannot be brought to {report.release}."
    total = ours.transfer.total
    said = f"{held} fetches {size(total)} to reach {report.release}"
    if usual is None:
        return f"{said}."
    other = usual.transfer.total
    if other <= total:
        return f"{said}, and {size(other)} of the usual build."
    return f"{said}; the usual build would send {size(other)}, {times(other, total)} as much."


def _money_sentence(report: Report) -> str:
    ours, usual = report.ours, report.way("usual")
    count = len(report.unknowns)
    missing = f"{counted(count, 'thing')} {'is' if count == 1 else 'are'} not counted: see below."
    if ours is None:
        return missing
    bill = report.cost(ours, report.devices)
    said = f"For {_devices(report.devices)} that is {_spent(bill)}"
    if usual is not None and usual.transfer.total > ours.transfer.total:
        said += f"; with the usual build, {_spent(report.cost(usual, report.devices))}"
    due = ""
    if bill.fixed:
        due = (
            f" {money(bill.fixed)} {report.tariff.currency} per {report.tariff.per} are due "
            "whatever is sent."
        )
    return f"{said}.{due} {missing}"


def _spent(bill: CostReport) -> str:
    """Bytes and their price in one phrase."""
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
    """Why bytes that were sent cost nothing more."""
    if bill.included_bytes is None:
        return "included"
    return "in the pool" if bill.included_bytes else "free"


def _bytes_table(report: Report) -> Table:
    rows = [
        (
            way.title,
            size(way.transfer.total),
            *(size(way.transfer.total * count) for count in report.fleets),
        )
        for way in report.ways
    ]
    return Table(_headers(report, "one device"), rows, right=range(1, len(report.fleets) + 2))


def _money_table(report: Report) -> Table:
    rows = [
        (way.title, *(_usage(report.cost(way, count)) for count in report.fleets))
        for way in report.ways
    ]
    fixed = [(f"due per {report.tariff.per} in any case", *_fixed(report))]
    return Table(_headers(report), [*rows, *fixed], right=range(1, len(report.fleets) + 1))


def _headers(report: Report, *between: str) -> tuple[str, ...]:
    return ("way", *between, *(_devices(count) for count in report.fleets))


def _usage(bill: CostReport) -> str:
    if bill.usage is None:
        return "unknown"
    return money(bill.usage) if bill.usage else _free(bill)


def _fixed(report: Report) -> Iterator[str]:
    way: Way = report.ways[0]
    for count in report.fleets:
        fixed: Decimal = report.cost(way, count).fixed
        yield money(fixed)


def _devices(count: int) -> str:
    return counted(count, "device")


def _sources(report: Report) -> Iterator[str]:
    yield f"Release: {report.release} is {report.digest}."
    measured = ", ".join(ENGINES[delta.engine].measured for delta in report.deltas)
    yield f"Engines: rules and request sizes as measured on {measured}; other versions differ."
    yield f"Link: {report.link}, as [device] in mlpack.toml says."
    yield (
        "Whole image: what an empty device fetches, and every device whose base changed or whose "
        "image was removed first."
    )
    if report.way("usual"):
        yield (
            "Usual build: worked out, not measured: this release's layers at their real sizes, but "
            "with the dependencies above the model and made anew by every build. A build that puts "
            "the model last, and finds its cache every time, comes near mlpack's number."
        )
    tariff = report.tariff
    yield (
        f"Tariff {tariff.name}: {tariff.title} ({tariff.source}; {tariff.date.isoformat()}). "
        "Set it with [fleet] tariff in mlpack.toml, or --tariff."
    )
