"""The route language: what edgeHub reads, and what it would refuse or never match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.render.iotedge.conditions import FUNCTIONS, condition_problem
from mlpack.render.iotedge.routes import InvalidRoute, Route, parse_route

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
    "": "FROM is expected at the end",
    "hello": "FROM is expected at character 1, not 'hello'",
    "FROM": "'/' is expected at the end",
    "FROM messages INTO $upstream": "'/' is expected at character 6",
    "FROM device messages INTO $upstream": "'/' is expected",
    "FROM / INTO $upstream": "'INTO' is a reserved word",
    "FROM /messages/* $upstream": "INTO is expected at character 18, not '$upstream'",
    "FROM /messages/* INTO": "$upstream or BrokeredEndpoint(…) is expected at the end",
    "FROM /messages/* INTO upstream": "is expected at character 23, not 'upstream'",
    "FROM /messages/* INTO $downstream": "is expected at character 23, not '$downstream'",
    "FROM /messages/* INTO $upstream $upstream": "the end is expected at character 33",
    "FROM /messages/* INTO $upstream;;": "the end is expected",
    "FROM /messages/* WHERE INTO $upstream": "the condition after WHERE is empty",
    "FROM /* WHERE (a = 1 INTO $upstream": "a '(' that is not closed",
    "FROM /* WHERE a = 1) INTO $upstream": "')' at character 20 closes nothing",
    "FROM /* WHERE a = 'x INTO $upstream": "the string at character 19 is not closed",
    "FROM /* WHERE a = 1": "INTO, after the condition, is expected at the end",
    'FROM /* INTO BrokeredEndpoint("/modules/fan/inputs/in"': "')' is expected at the end",
    "FROM /* INTO BrokeredEndpoint(/modules/fan/inputs/in)": "a string in quotes is expected",
    'FROM /* INTO BrokeredEndpoint("/modules/fan/in")': "'/modules/fan/in' is no endpoint",
    'FROM /* INTO BrokeredEndpoint("/modules//inputs/in")': "is no endpoint",
    'FROM /* INTO BrokeredEndpoint("/modules/fan/inputs/in/more")': "is no endpoint",
    'FROM /* INTO BrokeredEndpoint("/mods/fan/inputs/in")': "is no endpoint",
    "FROM /message/* INTO $upstream": "'/message/*' is no source",
    "FROM /messages/modules/fan/output/x INTO $upstream": "after the module comes /outputs/NAME",
    "FROM /messages/modules/fan/outputs/a/b INTO $upstream": "after the module comes",
    "FROM /messages/*/fan INTO $upstream": "* may only come last",
    "FROM /messages/modules/fan*/* INTO $upstream": "'fan*' is no wildcard",
    "FROM /messages/modules/42/* INTO $upstream": "'42' is a reserved word or a number",
    "FROM /messages/modules/not/* INTO $upstream": "'not' is a reserved word",
    "FROM /messages/modules/true/* INTO $upstream": "'true' is a reserved word",
    "FROM /* WHERE a = INTO $upstream": "a value is expected at the end of the condition",
    "FROM /* WHERE a = = 1 INTO $upstream": "a value is expected at character 19, not '='",
    "FROM /* WHERE a b INTO $upstream": "an operator is expected at character 17, not 'b'",
    "FROM /* WHERE AND a INTO $upstream": "a value is expected at character 15, not 'AND'",
    "FROM /* WHERE a AND (b, c) INTO $upstream": "an operator is expected at character 23, not ','",
    "FROM /* WHERE has(a) INTO $upstream": "'has' is no function",
    "FROM /* WHERE is_defind(a) INTO $upstream": "no function (did you mean 'is_defined'?)",
    "FROM /* WHERE lower(a INTO $upstream": "a '(' that is not closed",
    "FROM /* WHERE lower(a,) = b INTO $upstream": "a value is expected at character 23, not ')'",
    "FROM /* WHERE a[0] = 1 INTO $upstream": "'a[0]' is no property",
    "FROM /* WHERE a @ b INTO $upstream": "an operator is expected at character 17, not '@'",
    "FROM /* WHERE {a} = 1 INTO $upstream": "{$NAME} is expected at character 15",
    "FROM /* WHERE a = 1; b = 2 INTO $upstream": "an operator is expected at character 20",
    # edgeHub's lexer takes /* … */ as a comment, so the source here is /messages alone.
    "FROM /messages/* WHERE a = 1 */ 2 INTO $upstream": "INTO is expected at character 33",
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
    assert condition_problem(condition) == ""
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
        assert condition_problem(broken), broken
        with pytest.raises(InvalidRoute):
            parse_route(f"FROM /messages/* WHERE {broken} INTO $upstream")


def test_a_condition_of_nothing_but_parentheses_is_read() -> None:
    assert condition_problem("(" * 2000 + "a" + ")" * 2000) == ""
    assert condition_problem("NOT " * 2000 + "a") == ""


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        route = parse_route(text)
    except InvalidRoute:
        return
    assert route.source
