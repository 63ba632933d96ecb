"""The route language: what edgeHub reads, and what it would refuse or never match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.iotedge.manifest import FUNCTIONS, InvalidRoute, Route, parse_route

# The first five are edgeHub's own test cases (Azure/iotedge, RouteFactoryTest.cs).
READ = {
    'FROM /messages/modules/adapter INTO brokeredEndpoint("/modules/alertLogic/inputs/in")': Route(
        ("messages", "modules", "adapter"), "", "alertLogic", "in"
    ),
    "FROM /messages/modules/alertLogic/outputs/alerts INTO $upstream": Route(
        ("messages", "modules", "alertLogic", "outputs", "alerts")
    ),
    'FROM /messages/modules/a/outputs/commands WHERE alertType = "shutdown" '
    'INTO brokeredEndpoint("/modules/adapter/inputs/write")': Route(
        ("messages", "modules", "a", "outputs", "commands"),
        'alertType = "shutdown"',
        "adapter",
        "write",
    ),
    'FROM /messages/events INTO brokeredEndpoint("/modules/alertLogic/inputs/in1");': Route(
        ("messages", "events"), "", "alertLogic", "in1"
    ),
    "FROM /messages/* INTO $upstream": Route(("messages", "*")),
    "from /messages/* into $UPSTREAM": Route(("messages", "*")),
    "FROM /* INTO $upstream": Route(("*",)),
    "SELECT * FROM /* INTO $upstream": Route(("*",)),
    "FROM /twinChangeNotifications INTO $upstream": Route(("twinChangeNotifications",)),
    "FROM /messages/modules/* INTO $upstream": Route(("messages", "modules", "*")),
    "FROM /messages/modules/fan/* INTO $upstream": Route(("messages", "modules", "fan", "*")),
    "FROM /messages/modules/fan/outputs/* INTO $upstream": Route(
        ("messages", "modules", "fan", "outputs", "*")
    ),
    "FROM\t/messages/*\nWHERE NOT IS_DEFINED($connectionModuleId)\r\nINTO $upstream": Route(
        ("messages", "*"), "NOT IS_DEFINED($connectionModuleId)"
    ),
    "FROM /* WHERE topic = 'go INTO (space' AND (a > 1) INTO $upstream": Route(
        ("*",), "topic = 'go INTO (space' AND (a > 1)"
    ),
    "FROM /* WHERE a = 'it\\'s' INTO $upstream": Route(("*",), "a = 'it\\'s'"),
    "FROM /* WHERE {$connectionDeviceId} = 'a' ?? false INTO $upstream": Route(
        ("*",), "{$connectionDeviceId} = 'a' ?? false"
    ),
    "FROM /* WHERE $body.a[0].b != -1.5e3 || concat(x, 'y', upper(z)) INTO $upstream": Route(
        ("*",), "$body.a[0].b != -1.5e3 || concat(x, 'y', upper(z))"
    ),
    "FROM /* WHERE - 0xFF < temp-limit AND Is_Null ( ) INTO $upstream": Route(
        ("*",), "- 0xFF < temp-limit AND Is_Null ( )"
    ),
    "FROM /* INTO BrokeredEndpoint('modules/fan/inputs/x/')": Route(("*",), "", "fan", "x"),
}

REFUSED = {
    "": "column 1: expected FROM, not the end",
    "hello": "column 1: expected FROM, not 'hello'",
    "FROM": "column 5: expected /, not the end",
    "FROM messages INTO $upstream": "column 6: expected /, not 'messages'",
    "FROM device messages INTO $upstream": "column 6: expected /, not 'device'",
    "FROM / INTO $upstream": "'INTO' is a reserved word",
    "FROM /messages/* $upstream": "column 18: expected INTO, not '$upstream'",
    "FROM /messages/* INTO": "column 22: expected $upstream or BrokeredEndpoint(…), not the end",
    "FROM /messages/* INTO upstream": "BrokeredEndpoint(…), not 'upstream'",
    "FROM /messages/* INTO $downstream": "BrokeredEndpoint(…), not '$downstream'",
    "FROM /messages/* INTO $upstream $upstream": "column 33: expected the end",
    "FROM /messages/* INTO $upstream;;": "column 33: expected the end",
    "FROM /messages/* WHERE INTO $upstream": "column 24: expected a value, not 'INTO'",
    "FROM /* WHERE (a = 1 INTO $upstream": "column 22: expected an operator or ), not 'INTO'",
    "FROM /* WHERE a = 1) INTO $upstream": "column 20: expected an operator or INTO, not ')'",
    "FROM /* WHERE a = 'x INTO $upstream": "column 19: this string has no closing quote",
    "FROM /* WHERE a = 1": "column 20: expected an operator or INTO, not the end",
    'FROM /* INTO BrokeredEndpoint("/modules/fan/inputs/in"': "column 55: expected ), not the end",
    "FROM /* INTO BrokeredEndpoint(/modules/fan/inputs/in)": "expected a string in quotes",
    'FROM /* INTO BrokeredEndpoint("/modules/fan/in")': "'/modules/fan/in' is not an endpoint",
    'FROM /* INTO BrokeredEndpoint("/modules//inputs/in")': "is not an endpoint",
    'FROM /* INTO BrokeredEndpoint("/modules/fan/inputs/in/more")': "is not an endpoint",
    'FROM /* INTO BrokeredEndpoint("/mods/fan/inputs/in")': "is not an endpoint",
    "FROM /message/* INTO $upstream": "'/message/*' is not a source",
    "FROM /messages/modules/fan/output/x INTO $upstream": "after the module comes /outputs/NAME",
    "FROM /messages/modules/fan/outputs/a/b INTO $upstream": "after the module comes",
    "FROM /messages/*/fan INTO $upstream": "* may only come last",
    "FROM /messages/modules/fan*/* INTO $upstream": "'fan*' is not a wildcard",
    "FROM /messages/modules/42/* INTO $upstream": "'42' is a reserved word or a number",
    "FROM /messages/modules/not/* INTO $upstream": "'not' is a reserved word",
    "FROM /messages/modules/true/* INTO $upstream": "'true' is a reserved word",
    "FROM /* WHERE a = INTO $upstream": "column 19: expected a value, not 'INTO'",
    "FROM /* WHERE a = = 1 INTO $upstream": "column 19: expected a value, not '='",
    "FROM /* WHERE a b INTO $upstream": "column 17: expected an operator or INTO, not 'b'",
    "FROM /* WHERE AND a INTO $upstream": "column 15: expected a value, not 'AND'",
    "FROM /* WHERE a AND (b, c) INTO $upstream": "column 23: expected an operator or ), not ','",
    "FROM /* WHERE has(a) INTO $upstream": "'has' is not a function",
    "FROM /* WHERE is_defind(a) INTO $upstream": "is not a function (did you mean 'is_defined'?)",
    "FROM /* WHERE lower(a INTO $upstream": "column 23: expected an operator or ), not 'INTO'",
    "FROM /* WHERE lower(a,) = b INTO $upstream": "column 23: expected a value, not ')'",
    "FROM /* WHERE a[0] = 1 INTO $upstream": "'a[0]' is not a property",
    "FROM /* WHERE a @ b INTO $upstream": "column 17: expected an operator or INTO, not '@'",
    "FROM /* WHERE {a} = 1 INTO $upstream": "column 15: expected {$NAME}",
    "FROM /* WHERE a = 1; b = 2 INTO $upstream": "column 20: expected an operator",
    "FROM /* INTO $upstream \x0b": "column 24: expected the end",
    # edgeHub's lexer takes /* … */ as a comment, so the source here is /messages alone.
    "FROM /messages/* WHERE a = 1 */ 2 INTO $upstream": "column 33: expected INTO, not '2'",
}


@pytest.mark.parametrize(("text", "expected"), READ.items())
def test_reads_what_edgehub_reads(text: str, expected: Route) -> None:
    assert parse_route(text) == expected


@pytest.mark.parametrize(("text", "reason"), REFUSED.items())
def test_refuses_with_the_place_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidRoute) as caught:
        parse_route(text)
    assert reason in str(caught.value)
    assert "FROM /messages" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("/messages/modules/fan/outputs/*", "fan"),
        ("/MESSAGES/Modules/fan/*", "fan"),
        ("/messages/modules/*", ""),
        ("/messages/modules", ""),
        ("/messages/*", ""),
        ("/*", ""),
    ],
)
def test_names_the_module_of_its_source(source: str, module: str) -> None:
    assert parse_route(f"FROM {source} INTO $upstream").source_module == module


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{2,10}x", fullmatch=True)
CONDITIONS = st.sampled_from(["", "a = 1", "(a = 'into') or b", 'temp > 20 AND c = "x)"'])


@given(NAMES, NAMES, NAMES, NAMES, CONDITIONS)
def test_a_route_written_out_reads_back_as_itself(
    module: str, output: str, target: str, into: str, condition: str
) -> None:
    route = Route(("messages", "modules", module, "outputs", output), condition, target, into)
    assert parse_route(str(route)) == route


VALUES = st.sampled_from(
    ["a", "temp-limit", "1", "-2.5", "0xFF", "true", "null", '"x y"', "'it\\'s'", "$body.a[0].b"]
) | st.sampled_from(["{$connectionDeviceId}", "is_defined(a)", "NOT b", "- c"])
OPERATORS = st.sampled_from(
    ["=", "!=", "<>", "<", "<=", ">", ">=", "AND", "or", "+", "-", "*", "/", "%", "||", "??"]
)


def _joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, OPERATORS, inner).map(" ".join)
    call = st.tuples(st.sampled_from(sorted(FUNCTIONS)), st.lists(inner, max_size=3)).map(
        lambda each: f"{each[0]}({', '.join(each[1])})"
    )
    return pair | call | inner.map(lambda each: f"({each})") | inner.map(lambda each: f"NOT {each}")


EXPRESSIONS = st.recursive(VALUES, _joined, max_leaves=12)


@given(EXPRESSIONS)
def test_every_condition_of_the_grammar_is_read(condition: str) -> None:
    route = parse_route(f"FROM /messages/* WHERE {condition} INTO $upstream")
    assert route.condition == condition
    assert parse_route(str(route)) == route


@given(EXPRESSIONS, OPERATORS.filter(lambda each: each != "-"), VALUES)
def test_one_part_too_many_is_refused(condition: str, operator: str, value: str) -> None:
    for broken in (
        f"{condition} {operator}",
        f"{operator} {condition}",
        f"({condition}",
        f"{condition})",
        f"{condition}, {value}",
        f"{condition} ({value})" if condition.endswith(("'", '"', ")", "}")) else "a b",
        f"{condition} {operator} = {value}",
    ):
        with pytest.raises(InvalidRoute):
            parse_route(f"FROM /messages/* WHERE {broken} INTO $upstream")


def test_a_condition_of_nothing_but_parentheses_is_read() -> None:
    for condition in (
        "(" * 2000 + "a" + ")" * 2000,
        "NOT " * 2000 + "a",
        "abs(" * 2000 + "a" + ")" * 2000,
    ):
        assert parse_route(f"FROM /* WHERE {condition} INTO $upstream").condition == condition


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        route = parse_route(text)
    except InvalidRoute:
        return
    assert route.source
