"""Values of the command line and rows of CSV files."""

from __future__ import annotations

import pytest

from mlpack.errors import UsageError
from mlpack.model.reading import NotATable, Reading, Table, is_number, read_table, read_values


@pytest.mark.parametrize(
    ("text", "cells"),
    [("7", ("7",)), ("1, 2", ("1", "2")), ("1,,2", ("1", "", "2")), ("5,pro", ("5", "pro"))],
)
def test_values_in_order(text: str, cells: tuple[str, ...]) -> None:
    assert read_values(text) == Reading(text, cells)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a=1", (("a", ("1",)),)),
        ("a=1,2,b=x=y", (("a", ("1", "2")), ("b", ("x=y",)))),
        ("x[0]=1, größe=", (("x[0]", ("1",)), ("größe", ("",)))),
    ],
)
def test_values_by_name(text: str, named: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
    assert read_values(text) == Reading(text, named=named)


@pytest.mark.parametrize("text", ["1e999", "1,-1e999"])
def test_a_number_beyond_all_floats_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="beyond all"):
        read_values(text)


@pytest.mark.parametrize("text", ["1", "-1.5", ".5", "5.", "+1e-3", " 7 ", "nan", "-inf"])
def test_numbers(text: str) -> None:
    assert is_number(text)


@pytest.mark.parametrize("text", ["", "e", "1e", "0x1", "1_000", "1 2", "٣", "one"])
def test_other_texts_are_not_numbers(text: str) -> None:
    assert not is_number(text)


@pytest.mark.parametrize(
    ("content", "names", "rows"),
    [
        ("a,b\n1,x\n", ("a", "b"), (("1", "x"),)),
        ("a;b\r\n1,5;x\r\n", ("a", "b"), (("1,5", "x"),)),
        ("a\tb\n1\tx", ("a", "b"), (("1", "x"),)),
        ('\ufeffa,b\n"1\n2","x, y"\n\n', ("a", "b"), (("1\n2", "x, y"),)),
        ("1,2\n3,4\n", (), (("1", "2"), ("3", "4"))),
        ("text\ngood\n", ("text",), (("good",),)),
    ],
)
def test_tables(content: str, names: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> None:
    assert read_table("t.csv", content.encode()) == Table("t.csv", names, rows)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "t.csv has no rows"),
        (b"a,b\n", "has a header, but no rows"),
        (b"a,b\n1\n", "line 2: 1 values, but the first line has 2"),
        (b"a,a\n1,2\n", "two columns 'a'"),
        (b"a\n\xff\n", "is not UTF-8"),
    ],
)
def test_what_is_no_table(content: bytes, reason: str) -> None:
    with pytest.raises(NotATable, match=reason):
        read_table("t.csv", content)
