"""Target conditions: what they mean, and where a wrong one goes wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.settings.condition import MAX_BYTES, Condition, InvalidCondition, where
from tests.doubles.iothub_query import BadQuery, parse_condition, parse_query

VAN: dict[str, Any] = {
    "deviceId": "van-7",
    "tags": {"deviceGroup": "vans", "wheels": 4, "test": False, "a-b": "x", "site": {"floor": 2}},
    "properties": {"reported": {"owner": "O'Neil", "load": 0.5}},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("tags.deviceGroup = 'vans'", True),
        ("tags.deviceGroup='drones'", False),
        ("tags.deviceGroup != 'drones'", True),
        ("tags.deviceGroup <> 'vans'", False),
        ("tags.missing != 'x'", False),
        ("NOT tags.missing = 'x'", False),
        ("NOT tags.missing = 'x' OR tags.wheels = 4", True),
        ("NOT (tags.missing = 'x' AND tags.wheels = 3)", True),
        ("tags.wheels != '4'", True),
        ("NOT tags.wheels < 'x'", False),
        ("tags.wheels >= 4 AND tags.wheels < 4.5", True),
        ("tags.wheels = '4'", False),
        ("tags.wheels > -1e2", True),
        ("tags.wheels <= 3", False),
        ("tags.test = false", True),
        ("tags.test = 0", False),
        ("deviceId = 'van-7'", True),
        ("tags.[[a-b]] = 'x'", True),
        ("tags.site.floor.deep = 1", False),
        (" * ", True),
        ("is_defined(tags.site) and not IS_DEFINED(tags.roof)", True),
        ("properties.reported.owner = 'O''Neil'", True),
        ("tags.wheels = 3 AND tags.test = true OR deviceId = 'van-7'", True),
        ("tags.wheels = 3 AND (tags.test = true OR deviceId = 'van-7')", False),
        ("NOT tags.wheels = 4 OR tags.wheels = 4", True),
        ("NOT (tags.wheels = 4 OR tags.wheels = 5)", False),
    ],
)
def test_what_a_condition_means(text: str, holds: bool) -> None:
    assert Condition.parse(text).holds(VAN) is holds


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("tags.a == 'x'", 8, "write = once"),
        ("tags.a = vans", 10, "quote a text: 'vans'"),
        ("tags.a = 'two words'", 14, "' ' is not allowed in a text"),
        ("tags.a = 'é'", 11, "'é' is not allowed"),
        ('tags.a = "vans"', 10, "single quotes"),
        ("tags.a = \u2018vans\u2019", 10, "single quotes"),
        ("tags.a-b = 1", 7, "write tags.[[my-tag]]"),
        ("tag.a = 1", 1, "tag.a is not tags.NAME"),
        ("tags = 'x'", 1, "tags is not tags.NAME"),
        ("properties.desired.x = 1", 1, "is not tags.NAME, properties.reported.NAME"),
        ("tags.mlpack.bucket < 5", 1, "reserved for mlpack"),
        ("tags.a = 'x", 10, "no closing quote"),
        ("tags.a = 'x' tags.b = 1", 14, "expected AND, OR or the end"),
        ("tags.a = 1 AND", 15, "expected a property (tags.NAME), not the end"),
        ("(tags.a = 1", 12, "expected AND, OR or ), not the end"),
        ("tags.a = 'x' NOT tags.b = 1", 14, "expected AND, OR or the end, not 'NOT'"),
        ("deviceid = 'x'", 1, "deviceid is not tags.NAME"),
        ("moduleId = '$edgeAgent'", 1, "moduleId is not tags.NAME"),
        ("tags.[[a/b]] = 1", 9, "/ may not be in a property's name"),
        ("tags.[[a;b]] = 1", 9, "; may not be in a property's name"),
        ("STARTSWITH(deviceId, 'van')", 1, "'STARTSWITH' is not a function here"),
        ("tags.a = 1 AND startswith(tags.b, 'x')", 16, "'startswith' is not a function here"),
        ("FROM devices.modules WHERE tags.a = 1", 1, "'FROM' belongs to a query"),
        ("from devices.modules where tags.a = 1", 1, "'from' belongs to a query"),
        ("SELECT * FROM devices WHERE tags.a = 1", 1, "'SELECT' belongs to a query"),
        ("tags.a = null", 10, "nothing compares with null"),
        ("tags.a <> undefined", 11, "nothing compares with undefined"),
        ("tags.a IS NULL", 8, "expected a comparison after a property, not 'IS'"),
        ("tags.a = tags.b", 10, "expected a value"),
        ("* AND tags.a = 1", 1, "expected a property (tags.NAME), not '*'"),
        ("tags.a = 1;", 11, "';' is not part of a condition"),
        ("tags.a LIKE 'x'", 8, "expected a comparison after a property, not 'LIKE'"),
        ("tags.a = 1 && tags.b = 2", 12, "'&' is not part of a condition"),
        ("(" * 60 + "tags.a = 1", 51, "nested deeper"),
    ],
)
def test_a_mistake_has_its_column(text: str, column: int, said: str) -> None:
    with pytest.raises(InvalidCondition) as caught:
        Condition.parse(text)
    assert f"column {column}: " in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "column", "hint"),
    [
        ("deviceId IN ['a', 'b']", 10, "write (deviceId = 'a' OR deviceId = 'b')"),
        ("deviceId in ['a']", 10, "write deviceId = 'a'"),
        ("tags.a IN ['true', true]", 8, "write (tags.a = 'true' OR tags.a = true)"),
        ("tags.a = 1 AND tags.b IN (1, 2)", 23, "write (tags.b = 1 OR tags.b = 2)"),
        ("tags.a NIN ['x', 'y']", 8, "write (tags.a != 'x' AND tags.a != 'y')"),
        ("tags.a NOT IN ['x']", 8, "write tags.a != 'x'"),
        ("NOT tags.a IN ['x']", 12, "write tags.a = 'x'"),
        ("tags.a IN ['O''N', 'b'] OR tags.b = 1", 8, "(tags.a = 'O''N' OR tags.a = 'b')"),
        ("tags.a IN [1, 2, 3, 4]", 8, "write (tags.a = 1 OR tags.a = 2 OR tags.a = 3 OR …)"),
        ("deviceId IN [a, true]", 10, "write (deviceId = 'a' OR deviceId = true)"),
        ("tags.a IN []", 8, "write (tags.a = 'a' OR tags.a = 'b')"),
        ("tags.a IN 'x'", 8, "write tags.a = 'x'"),
        ("tags.a IN", 8, "write (tags.a = 'a' OR tags.a = 'b')"),
    ],
)
def test_a_list_is_refused_with_the_comparisons_that_mean_the_same(
    text: str, column: int, hint: str
) -> None:
    with pytest.raises(InvalidCondition, match=r"IoT Hub has no N?IN") as caught:
        Condition.parse(text)
    assert f"column {column}: " in str(caught.value)
    assert hint in caught.value.hint
    with pytest.raises(BadQuery):
        parse_condition(text)


def test_devices_are_named_by_comparisons() -> None:
    found = Condition.of_devices(["van-7", "O'Neil", "van-7"])
    assert found.text == "deviceId = 'van-7' OR deviceId = 'O''Neil'"
    assert found.holds(VAN)
    assert not found.holds({"deviceId": "van-8"})
    assert found.narrowed(5) == f"({found.text}) AND tags.mlpack.bucket < 5"
    assert Condition.of_devices(["van-7"]).text == "deviceId = 'van-7'"


@pytest.mark.parametrize("id", ["", "two words", "é", "a/b", 'a"b', "x" * 129])
def test_what_names_no_device(id: str) -> None:
    with pytest.raises(InvalidCondition, match="is not the id of a device"):
        Condition.of_devices(["van-7", id])


def test_no_devices_are_an_empty_condition() -> None:
    with pytest.raises(InvalidCondition, match="is empty"):
        Condition.of_devices([])


def test_a_condition_fits_into_every_query_about_it() -> None:
    text = "tags.b = 1 OR tags.a = 'x'"
    text = text.replace("x", "x" * (MAX_BYTES - len(text) + 1))
    assert len(text) == MAX_BYTES
    narrowed = Condition.parse(text).narrowed(9999)
    parse_condition(narrowed)
    parse_query(f"SELECT COUNT() AS number FROM devices {where(narrowed)}")
    with pytest.raises(InvalidCondition, match="has 8,001 bytes, of 8,000 at most") as caught:
        Condition.parse(text.replace("tags.b", "tags.bb"))
    assert "give the devices a tag" in caught.value.hint
    with pytest.raises(InvalidCondition, match="at most"):
        Condition.of_devices(f"device-{number:05}" for number in range(1000))
    assert len(Condition.of_devices(f"van-{number}" for number in range(300)).text) < MAX_BYTES


def test_every_device_is_narrowed_and_asked_about_like_any_group() -> None:
    every = Condition.parse("*")
    assert every.narrowed(10_000) == "*"
    assert every.narrowed(5) == "tags.mlpack.bucket < 5"
    assert where(every.text) == "WHERE capabilities.iotEdge = true"
    assert where(every.narrowed(5)) == "WHERE tags.mlpack.bucket < 5"


def test_an_empty_condition_is_refused() -> None:
    with pytest.raises(InvalidCondition, match="is empty"):
        Condition.parse("  ")


def test_a_narrowed_condition_means_fewer_devices_of_the_same() -> None:
    plain = Condition.parse(" tags.a = 'x' ")
    assert plain.narrowed(10_000) == plain.text == "tags.a = 'x'"
    assert plain.narrowed(100) == "tags.a = 'x' AND tags.mlpack.bucket < 100"
    either = Condition.parse("tags.a = 'x' OR tags.b = 1")
    assert either.narrowed(5) == "(tags.a = 'x' OR tags.b = 1) AND tags.mlpack.bucket < 5"


@given(st.text(max_size=40) | st.text("tagsdeviceId.'=<>()[],0 ANDORNOTIN-", max_size=40))
def test_any_text_is_a_condition_or_one_clear_refusal(text: str) -> None:
    try:
        found = Condition.parse(text)
    except InvalidCondition as error:
        assert "target condition" in str(error)
        return
    assert found.holds(VAN) in (True, False)
    assert Condition.parse(found.text) == found


PATHS = st.sampled_from(["tags.a", "tags.b.c", "properties.reported.x", "deviceId", "tags.[[a-b]]"])
VALUES = st.sampled_from(["'x'", "'O''N'", "1", "2.5", "-3", "true", "false"])
SINGLE = st.one_of(
    st.builds("{} {} {}".format, PATHS, st.sampled_from(["=", "!=", "<", ">="]), VALUES),
    st.builds("is_defined({})".format, PATHS),
)
CONDITIONS = st.recursive(
    SINGLE,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("{} OR {}".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=6,
)
FOUND = st.sampled_from([None, "x", "O'N", 1, 2.5, -3, True, False, "1"])


@given(CONDITIONS, FOUND, FOUND, FOUND, FOUND)
def test_it_means_what_the_hub_takes_it_for(
    text: str, first: object, second: object, third: object, fourth: object
) -> None:
    twin = {
        "deviceId": "x",
        "tags": {
            **({} if first is None else {"a": first}),
            **({} if second is None else {"b": {"c": second}}),
            **({} if third is None else {"a-b": third}),
        },
        "properties": {"reported": {} if fourth is None else {"x": fourth}},
    }
    assert Condition.parse(text).holds(twin) is (parse_condition(text)(twin) is True)
