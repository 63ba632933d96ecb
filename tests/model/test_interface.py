"""Requests made of a user's values, by what a module says it takes."""

from __future__ import annotations

import json

import pytest

from mlpack.model.interface import (
    MODEL_ALONE,
    ModuleInput,
    ModuleInterface,
    Unfitting,
    from_reading,
    from_table,
    ignored,
    module_name,
    read_interface,
)
from mlpack.model.reading import Table, read_values

UNKNOWN = ModuleInterface()


def takes(*inputs: tuple[str, str, tuple[int, ...]]) -> ModuleInterface:
    return ModuleInterface(inputs=tuple(ModuleInput(*each) for each in inputs))


def sent(interface: ModuleInterface, text: str) -> object:
    return json.loads(from_reading(read_values(text), interface).content)


@pytest.mark.parametrize(
    ("datatype", "shape", "text", "expected"),
    [
        ("FP32", (-1, 3), "1,2.5,3", [[1, 2.5, 3]]),
        ("FP32", (1, 3), "1,2,3", [[1, 2, 3]]),
        ("FP32", (3,), "1,2,3", [1, 2, 3]),
        ("FP32", (-1,), "1", [1]),
        ("FP32", (), "1", 1),
        ("FP32", (2, 2), "1,2,3,4", [[1, 2], [3, 4]]),
        ("FP32", (-1, 2, 2), "1,2,3,4", [[[1, 2], [3, 4]]]),
        ("FP32", (-1, -1), "1,2,3", [[1, 2, 3]]),
        ("FP64", (-1, 2), "nan,", [[None, None]]),
        ("INT64", (-1, 2), "9007199254740993,2.0", [[9007199254740993, 2]]),
        ("UINT64", (-1, 1), "18446744073709551615", [[18446744073709551615]]),
        ("BOOL", (-1, 3), "true,0,YES", [[True, False, True]]),
        ("BYTES", (-1, 2), "5,pro", [["5", "pro"]]),
        ("BYTES", (-1, 1), "good, not great", [["good, not great"]]),
    ],
)
def test_values_become_the_input(
    datatype: str, shape: tuple[int, ...], text: str, expected: object
) -> None:
    assert sent(takes(("x", datatype, shape)), text) == {"x": expected}


def test_several_inputs_take_values_in_order_or_by_name() -> None:
    interface = takes(("a", "FP32", (-1, 2)), ("b", "BYTES", (-1, 1)))
    expected = {"a": [[1, 2]], "b": [["x"]]}
    for text in ("1,2,x", "b=x,a=1,2", "a[1]=2,a[0]=1,b=x"):
        assert sent(interface, text) == expected


def test_an_input_with_a_default_is_sent_only_if_it_is_named() -> None:
    scale = ModuleInput("scale", "FP32", (1,), optional=True)
    interface = ModuleInterface(inputs=(ModuleInput("x", "FP32", (-1, 2)), scale))
    assert sent(interface, "1,2") == {"x": [[1, 2]]}
    assert sent(interface, "x=1,2,scale=3") == {"x": [[1, 2]], "scale": [3]}


def test_a_scripts_fields_are_params() -> None:
    interface = ModuleInterface(fields=("rotation", "sound"))
    assert sent(interface, "600,47") == {"params": [600, 47]}
    assert sent(interface, "sound=47,rotation=600") == {"params": [600, 47]}
    with pytest.raises(Unfitting, match="3 values given, but the module takes 2: rotation, sound"):
        sent(interface, "1,2,3")
    # A module of an earlier mlpack does not name them.
    assert sent(ModuleInterface(fields=()), "600,47") == {"params": [600, 47]}


def test_a_module_that_does_not_describe_itself_is_sent_what_was_given() -> None:
    assert sent(UNKNOWN, "1,2,pro") == {"data": [[1, 2, "pro"]]}
    assert sent(UNKNOWN, "a=1,b=x,c=1,2") == {"a": 1, "b": "x", "c": [1, 2]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1", "1 value given, but the module takes 2: x \\[N, 2\\]"),
        ("x=1", "takes 2 values, 1 given"),
        ("x[0]=1,2,x[1]=1", "x\\[0\\] has 2 values, not one"),
        ("x[0]=1", "x\\[1\\] is missing"),
        ("1,b", "x takes a number, not 'b'"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Unfitting, match=reason):
        sent(takes(("x", "FP32", (-1, 2))), text)


@pytest.mark.parametrize(
    ("interface", "table", "bodies"),
    [
        (
            takes(("a", "FP32", (-1, 1)), ("b", "BYTES", (-1, 1))),
            Table("t", ("B", "c", "a"), (("x", "?", "1"), ("y", "?", "2"))),
            [{"a": [[1], [2]], "b": [["x"], ["y"]]}],
        ),
        (
            takes(("x", "FP32", (-1, 2))),
            Table("t", ("width", "height"), (("1", "2"), ("3", "4"))),
            [{"x": [[1, 2], [3, 4]]}],
        ),
        (
            takes(("x", "FP32", (1, 2))),
            Table("t", (), (("1", "2"), ("3", "4"))),
            [{"x": [[1, 2]]}, {"x": [[3, 4]]}],
        ),
        (takes(("x", "FP32", (-1,))), Table("t", ("v",), (("1",), ("2",))), [{"x": [1, 2]}]),
        (
            ModuleInterface(fields=("a", "b")),
            Table("t", ("b", "a"), (("1", "2"),)),
            [{"params": [2, 1]}],
        ),
        (UNKNOWN, Table("t", ("a", "b"), (("1", "x"),)), [{"data": [[1, "x"]]}]),
    ],
)
def test_rows_become_requests(
    interface: ModuleInterface, table: Table, bodies: list[object]
) -> None:
    samples = from_table(table, interface)
    assert [json.loads(each.content) for each in samples] == bodies
    assert sum(each.rows for each in samples) == len(table.rows)


def test_many_rows_are_several_requests() -> None:
    table = Table("t", (), (("1",),) * 2500)
    samples = from_table(table, takes(("x", "FP32", (-1, 1))))
    assert [each.rows for each in samples] == [1000, 1000, 500]
    assert samples[2].name == "t, rows 2001-2500"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("a", "bb"), "t has no column 'b' .did you mean 'bb'"),
        (("c", "d"), "t has 2 columns, but the module takes 2: a, b"),
    ],
)
def test_columns_that_are_missing_are_named(names: tuple[str, ...], reason: str) -> None:
    interface = takes(("a", "FP32", (-1, 1)), ("b", "FP32", (-1, 1)))
    with pytest.raises(Unfitting, match=reason):
        from_table(Table("t", names, (("1", "2"),)), interface)


def test_other_columns_are_named_as_ignored() -> None:
    table = Table("t", ("id", "a"), (("1", "2"),))
    assert ignored(table, takes(("a", "FP32", (-1, 1)))) == ("id",)


def test_the_row_of_a_wrong_value_is_named() -> None:
    table = Table("t.csv", ("a",), (("1",), ("x",)))
    with pytest.raises(Unfitting, match=r"t\.csv, row 2: a takes a number, not 'x'"):
        from_table(table, takes(("a", "FP32", (-1, 1))))


PARAMS = {
    "components": {"schemas": {"ServiceInput": {"properties": {"params": {"x-fields": ["a"]}}}}}
}
INPUTS = {"inputs": [{"name": "params", "datatype": "FP32", "shape": [-1, 4]}]}


@pytest.mark.parametrize(
    ("swagger", "metadata", "expected"),
    [
        (PARAMS, INPUTS, ModuleInterface(fields=("a",))),
        (PARAMS, {**INPUTS, "platform": MODEL_ALONE}, takes(("params", "FP32", (-1, 4)))),
        (None, None, UNKNOWN),
        ([], "words", UNKNOWN),
        ({}, {"inputs": [1, {"name": "x"}, {"name": 1, "datatype": "", "shape": ["N"]}]}, UNKNOWN),
    ],
)
def test_what_a_module_says_of_itself(
    swagger: object, metadata: object, expected: ModuleInterface
) -> None:
    assert read_interface(swagger, metadata) == expected


def test_a_modules_name() -> None:
    assert module_name({"info": {"title": "fan"}}) == "fan"
    assert module_name({"info": {"title": 1}}) == ""
