"""What is printed fits the terminal, and says no more than is known."""

from __future__ import annotations

import pytest

from mlpack.cli import console, terminal


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_table_cuts_no_number_and_no_header(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PIPE_WIDTH", columns)
    headers = ("stage", "share", "adds devices", "adds bytes", "devices so far", "platform")
    row = ("4", "100%", "1,234,521", "923.7 MB", "9,041,000", "linux/arm64")
    shown = console.table(headers, [row], right=range(5))
    assert max(map(len, shown.splitlines())) <= columns
    assert {*" ".join(headers).split(), *" ".join(row[:5]).split()} <= set(shown.split())


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_no_column_is_lost_where_words_do_not_fit(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PIPE_WIDTH", columns)
    headers = ("holds", "platform", "devices", "whole", "usual", "mlpack", "time")
    row = ("nothing", "not reported", "9,041,000", "39.2 MB", "24.6 MB", "32.9 KB", "82 min")
    shown = console.table(headers, [row], right=range(2, 7))
    assert all(each in shown for each in (*headers[2:], *row[2:]))


def test_the_base_reports_named_stages_of_all_platforms() -> None:
    from mlpack.api.base import _counting
    from mlpack.api.session import Progress, Session

    seen: list[Progress] = []
    with Session(progress=seen.append).step("building the base", 8, "stages") as step:
        begin = _counting(step)
        for stage in ("linux/amd64: choosing", "linux/arm64: choosing", "linux/amd64: packing"):
            begin(stage)
    assert [(each.done, each.detail) for each in seen[-3:]] == [
        (1, "linux/arm64: choosing"),
        (1, "linux/amd64: packing"),
        (1, ""),
    ]
    assert seen[-1].finished
