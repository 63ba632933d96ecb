"""What people who pay read: the report as text and Markdown, against golden files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from mlpack.cli.console import table
from mlpack.plan.cost import Tariff
from mlpack.plan.engines import engine
from mlpack.plan.report import NOT_COUNTED, ReleaseReport
from mlpack.plan.transfer import diff_pull
from mlpack.render.document import Bullets, Heading, Paragraph, Table, markdown, text
from mlpack.render.report import diff_blocks, report_blocks
from tests.plan.fleet import make_report, move, release
from tests.plan.test_cost import shipped

WIDTH = 100
Golden = Callable[[str, str], None]


def shown(report: ReleaseReport) -> str:
    return text(report_blocks(report), table, WIDTH)


def sentences(report: ReleaseReport) -> list[str]:
    return [block.text for block in report_blocks(report) if isinstance(block, Paragraph)]


@pytest.mark.parametrize("tariff", ["per-mb", "origin-bundle", "flat"])
def test_the_report_of_each_shipped_tariff(tariff: str, golden: Golden) -> None:
    report = make_report(shipped(tariff), devices=2_500)
    golden(f"report/{tariff}.txt", shown(report) + "\n")
    golden(f"report/{tariff}.md", markdown(report_blocks(report)))


def test_the_diff(golden: Golden) -> None:
    planned = diff_pull("moby", "fan:1", "fan:2", move(release("1")))
    golden("report/diff.txt", text(diff_blocks(planned), table, WIDTH) + "\n")


def test_the_first_sentence_says_what_a_device_fetches_and_what_the_usual_build_would_send() -> (
    None
):
    report = make_report(shipped("per-mb"))
    ours, usual = report.alternative("layer"), report.alternative("usual")
    assert ours is not None
    assert usual is not None
    ratio = round(usual.transfer.total / ours.transfer.total)
    assert sentences(report)[0] == (
        "A device on fan:1 fetches 26.1 KB to reach fan:2; "
        f"the usual build would send 34.2 MB, {ratio:,} times as much."
    )


def test_the_second_sentence_keeps_fixed_and_usage_money_apart() -> None:
    said = sentences(make_report(shipped("per-mb")))[1]
    assert said == (
        "For 1,000 devices that is 26.1 MB and 0.81 USD; with the usual build, 34.2 GB and "
        "1,025.82 USD. 1,000.00 USD per month are due in any case. "
        "3 things are not counted: see below."
    )


def test_an_unknown_price_is_said_and_counted_never_shown_as_nothing() -> None:
    report = make_report(shipped("origin-bundle"))
    assert sentences(report)[1] == (
        "For 1,000 devices that is 26.1 MB, 1.3 % of the pool; with the usual build, 34.2 GB, of "
        "which 32.2 GB lie beyond the pool at a price the tariff does not state. 1,440.00 USD per "
        "month are due in any case. 6 things are not counted: see below."
    )
    money = tables(report)[2]
    assert [row[1] for row in money.rows] == ["unknown", "unknown", "in the pool", "1,440.00"]
    assert len(report.warnings) == 2
    assert len(report.unknowns) == 2 + 1 + len(NOT_COUNTED)
    assert "Not counted in any number above (6)" in shown(report)


def tables(report: ReleaseReport) -> list[Table]:
    return [block for block in report_blocks(report) if isinstance(block, Table)]


def test_the_columns_are_the_fleet_asked_for_beside_a_thousand_and_a_hundred_thousand() -> None:
    headers = tables(make_report(shipped("per-mb"), devices=2_500))[1].headers
    assert headers == ("way", "one device", "1,000 devices", "2,500 devices", "100,000 devices")
    assert tables(make_report(shipped("per-mb"), devices=1_000))[1].headers == (
        "way",
        "one device",
        "1,000 devices",
        "100,000 devices",
    )


def test_a_way_that_cannot_be_worked_out_is_counted() -> None:
    report = make_report(shipped("per-mb"), roles=False)
    assert sentences(report)[0] == "A device on fan:1 fetches 26.1 KB to reach fan:2."
    assert report.unknowns == ("the usual build: its layers are not known", *NOT_COUNTED)
    assert "Usual build: calculated" not in shown(report)


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ("base", "A device on the base fetches 26.1 KB to reach fan:2; "),
        ("none", "An empty device fetches 51.6 MB to reach fan:2, and 51.6 MB of the usual build."),
    ],
)
def test_what_the_devices_hold_is_said_in_words(old: str, said: str) -> None:
    assert sentences(make_report(shipped("per-mb"), old=old))[0].startswith(said)


@pytest.mark.parametrize("tariff", ["per-mb", "origin-bundle", "flat"])
def test_the_report_fits_a_terminal_of_80_columns(tariff: str) -> None:
    report = make_report(shipped(tariff), devices=2_500)
    for line in text(report_blocks(report), table, 80).splitlines():
        assert len(line) <= 80
        assert "…" not in line


def test_a_number_stays_with_its_unit() -> None:
    for width in range(40, 100):
        lines = text(report_blocks(make_report(shipped("per-mb"))), table, width).splitlines()
        assert not any(line.strip().startswith(("KB ", "GB ", "USD ", "% ")) for line in lines)


def test_the_json_holds_every_number_the_text_shows() -> None:
    report = make_report(shipped("per-mb"), devices=2_500)
    document = json.loads(json.dumps(report.to_json()))
    assert [each["engine"] for each in document["transfers"]] == ["moby", "containerd", "podman"]
    assert [way["name"] for way in document["strategies"]] == ["whole", "usual", "layer"]
    layer = document["strategies"][2]
    assert layer["transfer"] == document["transfers"][0]
    assert [bill["devices"] for bill in layer["costs"]] == [1_000, 2_500, 100_000]
    shown_amounts = {
        cell.replace(",", "") for row in tables(report)[2].rows[:3] for cell in row[1:]
    }
    amounts = {bill["usage"] for way in document["strategies"] for bill in way["costs"]}
    assert shown_amounts == amounts
    assert document["unknowns"] == list(report.unknowns)
    assert document["tariff"]["date"] == "2026-06-21"


def test_the_total_is_the_sum_of_the_parts_shown() -> None:
    for each in make_report(shipped("per-mb")).diffs:
        moved = each.transfer
        parts = (moved.layers, moved.manifest, moved.config, moved.headers, moved.handshakes)
        assert sum(parts) == moved.total


def test_names_and_titles_do_not_become_markup() -> None:
    tariff = replace(shipped("per-mb"), title="a|b <script> [x](y) *z*", name="my_file")
    written = markdown(report_blocks(make_report(tariff)))
    assert r"a\|b \<script\> \[x\](y) \*z\*" in written
    assert r"my\_file" in written
    for line in written.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (4, 5)


def test_markdown_tables_are_whole() -> None:
    block = Table(("a", "b"), [("x", "1"), ("y|z", "2")], right=(1,))
    assert markdown([Heading("T"), block, Bullets(("p", "q"))]) == (
        "### T\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n| y\\|z | 2 |\n\n- p\n- q\n"
    )


def test_text_never_breaks_a_digest_and_hangs_bullets() -> None:
    digest = "sha256:" + "a" * 64
    written = text([Bullets((f"one two three {digest}",))], table, 20)
    assert written == f"- one two three\n  {digest}"


def test_money_smaller_than_a_cent_is_not_nothing() -> None:
    tariff: Tariff = shipped("per-mb")
    tiny = replace(tariff, terms=replace(tariff.terms, price=Decimal("0.0000001")))
    rows = tables(make_report(tiny))[2].rows
    assert rows[2][1] == "under 0.01"


def test_the_engine_of_the_money_is_named() -> None:
    report = make_report(shipped("per-mb"))
    headings = [block.text for block in report_blocks(report) if isinstance(block, Heading)]
    assert headings[:3] == [
        "Bytes per device, by part (fan:1 to fan:2, linux/amd64)",
        "Ways compared: bytes, with moby",
        "Ways compared: USD for one rollout, with moby",
    ]
    assert engine(report.engine).measured in shown(report)
