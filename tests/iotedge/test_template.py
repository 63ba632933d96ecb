"""A user's own template: its variables, and the older tutorials' placeholders."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from mlpack.iotedge.deployment import InvalidTemplate, render_jinja
from mlpack.iotedge.template import (
    Variables,
    built_images,
    fill,
    image_variables,
    read,
    secret_places,
    with_texts,
)
from mlpack.oci.descriptor import Digest, InvalidContent, Platform, Reference
from tests.support import SHARED, require

IMAGE = Reference.parse("fleet.azurecr.io/edge/fan").pinned(Digest("a" * 64))
ENVIRONMENT = {"TAG": "2.1", "ORDER": "3", "REGISTRY_USER_NAME": "puller"}
ENVIRONMENT["REGISTRY_PASSWORD"] = "hunter2"


def variables(image: Reference = IMAGE, *, passwords: bool = False) -> Variables:
    return Variables(module="fan", image=image, environment=ENVIRONMENT, passwords=passwords)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("__MODULE_NAME", "fan"),
        ("__MODULE_NAME__", "fan"),
        ("/modules/__MODULE_NAME/inputs/amlInput", "/modules/fan/inputs/amlInput"),
        ("__REGISTRY_IMAGE_LOCATION", str(IMAGE)),
        ("__REGISTRY_NAME", "fleet"),
        ("__REGISTRY_NAME.azurecr.io", "fleet.azurecr.io"),
        ("${MODULES.fan}", str(IMAGE)),
        ("${MODULES.fan.amd64.debug}", str(IMAGE)),
        ("r.io/x:${TAG}-$TAG", "r.io/x:2.1-2.1"),
        ("$edgeHub $upstream $body.x $UNKNOWN", "$edgeHub $upstream $body.x $UNKNOWN"),
        ("__init__ a__TAG__b __tag__", "__init__ a__TAG__b __tag__"),
        ('{"Config":{"tag":"{{.Name}}"}}', '{"Config":{"tag":"{{.Name}}"}}'),
    ],
)
def test_variables_are_filled_in(text: str, filled: str) -> None:
    assert fill([text], variables()) == [filled]
    assert fill({text: 1}, variables()) == {filled: 1}


def test_a_registry_of_no_azure_has_its_own_address() -> None:
    here = Reference.parse("localhost:5000/fan").pinned(Digest("a" * 64))
    login = {"__REGISTRY_NAME": {"address": "__REGISTRY_NAME.azurecr.io"}}
    assert fill(login, variables(here)) == {"localhost": {"address": "localhost:5000"}}


def test_every_variable_that_stands_for_nothing_is_named() -> None:
    document = {"a": ["x", "${NOPE}"], "b": {"c": "__WHO_KNOWS ${MODULES.pump}"}}
    with pytest.raises(InvalidTemplate) as caught:
        fill(document, variables())
    assert str(caught.value) == (
        "a[1]: ${NOPE} is not set; b.c: __WHO_KNOWS is not set; b.c: ${MODULES.pump} is not set"
    )
    assert caught.value.hint == (
        "set NOPE, WHO_KNOWS in the environment; name images under [edge.modules], or with "
        "--module pump=IMAGE (--module NAME for the one that runs the release)"
    )


PUMP, LOGGER = "r.io/pump:4", "r.io/logger:1-debug"


@pytest.mark.parametrize(
    ("variable", "filled"),
    [
        ("MODULES.pump", PUMP),
        ("MODULES.pump.amd64", PUMP),
        ("MODULES.pump.arm32v7.debug", PUMP),
        ("MODULES.logger.debug", LOGGER),
        ("MODULES.logger", None),
        ("MODULES.pumps", None),
        ("MODULEDIR<../shared/pump>", PUMP),
        ("MODULEDIR<../shared/pump/>.amd64.debug", PUMP),
        ("MODULEDIR<..\\shared\\pump>.amd64", PUMP),
        ("MODULEDIR<../fan>.debug", str(IMAGE)),
        ("MODULEDIR<../valve>", None),
        ("MODULES.valve.amd64", "r.io/valve:2-amd64"),
        ("MODULES.valve.arm64v8", None),
    ],
)
def test_images_of_several_modules(variable: str, filled: str | None) -> None:
    known = variables()
    known.images = {"pump": PUMP, "logger.debug": LOGGER}
    known.built = {"MODULES.valve.amd64": "r.io/valve:2-amd64"}
    text = f"${{{variable}}}"
    if filled is None:
        with pytest.raises(InvalidTemplate, match="is not set"):
            fill([text], known)
    else:
        assert fill([text], known) == [filled]
    assert image_variables({"x": [text]}) == (variable,)


MODULE_JSON = {
    "$schema-version": "0.0.1",
    "image": {
        "repository": "${CONTAINER_REGISTRY_SERVER}/Valve",
        "tag": {
            "version": "2",
            "platforms": {"amd64": "a", "amd64.debug": "b", "arm64v8": "c", "windows-amd64": "d"},
        },
    },
}


def test_a_module_json_names_images_as_the_tools_that_build_them_do() -> None:
    place = "${CONTAINER_REGISTRY_SERVER}/Valve:2-"
    plain = built_images("MODULES.valve", MODULE_JSON, None)
    assert plain == {
        f"MODULES.valve.{each}": place + each
        for each in ("amd64", "amd64.debug", "arm64v8", "windows-amd64")
    }
    amd64 = built_images("MODULES.valve", MODULE_JSON, Platform("linux", "amd64"))
    assert {key: each for key, each in amd64.items() if key not in plain} == {
        "MODULES.valve": f"{place}amd64",
        "MODULES.valve.debug": f"{place}amd64.debug",
    }
    known = variables()
    known.built = amd64
    with pytest.raises(InvalidTemplate, match=r"a: \$\{CONTAINER_REGISTRY_SERVER\} is not set"):
        fill({"a": "${MODULES.valve}"}, known)
    known.environment = {"CONTAINER_REGISTRY_SERVER": "localhost:5000"}
    assert fill(["${MODULES.valve.debug}"], known) == ["localhost:5000/valve:2-amd64.debug"]


@pytest.mark.parametrize(
    "document", [{}, {"image": {}}, {"image": {"repository": 1}}, {"image": []}, []]
)
def test_a_module_json_that_names_no_image_is_refused(document: object) -> None:
    with pytest.raises(InvalidContent, match=r"module\.json"):
        built_images("MODULES.valve", document, None)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("$CONTAINER_REGISTRY_USERNAME_myAcr", "ann"),
        ("${CONTAINER_REGISTRY_USERNAME_MYACR}", "ann"),
        ("$lower_case/${lower_case}", "x/x"),
        ("${lower_CASE}", None),
        ("$TAGS", "$TAGS"),
        ("$upstream:443/x $edgeHub", "$upstream:443/x $edgeHub"),
        ("$$TAG", "$2.1"),
        ("${LITERAL}", "${TAG}"),
        ("$5 ${} ${A:-1} $(date)", "$5 ${} ${A:-1} $(date)"),
        ("${EMPTY}", ""),
    ],
)
def test_names_are_those_of_both_tools(text: str, filled: str | None) -> None:
    known = variables()
    known.environment = {
        "CONTAINER_REGISTRY_USERNAME_myacr": "ann",
        "lower_case": "x",
        "TAG": "2.1",
        "LITERAL": "${TAG}",
        "EMPTY": "",
        "edgeHub": "never",
        "upstream": "never",
    }
    if filled is None:
        with pytest.raises(InvalidTemplate):
            fill([text], known)
    else:
        assert fill([text], known) == [filled]


def test_what_looks_like_a_variable_and_stays_is_told() -> None:
    known = variables()
    command = ["sh", "-c", "echo $HOME ${A:-1} $TAG"]
    document = {"Cmd": command, "hub": {"routes": {"a": "WHERE $body.x"}}}
    assert fill(document, known)
    assert [str(each) for each in known.left] == [
        "Cmd[2]: $HOME is not set, and stays as it is",
        "Cmd[2]: ${A:-1} is not set, and stays as it is",
    ]
    with pytest.raises(InvalidTemplate, match=r"m\.settings\.image: \$REGISTRY is not set"):
        fill({"m": {"settings": {"image": "$REGISTRY/pump:1"}}}, known)


def test_a_route_keeps_what_edge_hub_reads() -> None:
    known = variables()
    known.environment = {"body": "never", "connectionModuleId": "never", "LIMIT": "30"}
    route = "FROM /* WHERE $body.x > ${LIMIT} AND $connectionModuleId = 'a' INTO $upstream"
    filled: Any = fill({"$edgeHub": {"routes": {"a": route}}}, known)
    assert filled["$edgeHub"]["routes"]["a"] == route.replace("${LIMIT}", "30")


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("0.5", 0.5),
        ("7200", 7200),
        ("-1", -1),
        ("true", True),
        ("null", None),
        ('"text"', "text"),
        ('{"a": [1, "}"]}', {"a": [1, "}"]}),
        ("[]", []),
    ],
)
def test_a_variable_without_quotes_is_a_value_of_json(value: str, filled: object) -> None:
    known = variables()
    known.environment = {"CPU": value, "N": "1"}
    for text in (
        '{"cpu": ${CPU}, "b": "$N"}',
        '{"cpu":$CPU,"b":"$N"}',
        '{"b":"${N}","cpu":${CPU}}',
    ):
        assert fill(read(text), known) == {"cpu": filled, "b": "1"}
    inner = '{"createOptions": "{\\"HostConfig\\":{\\"Memory\\":${CPU}}}"}'
    assert fill(read(inner), known) == {"createOptions": {"HostConfig": {"Memory": filled}}}


@pytest.mark.parametrize("value", ["", "hunter2", "1,", "{", "NaN", '{"a":1,"a":2}', "1 2"])
def test_a_value_that_is_no_json_is_not_repeated(value: str) -> None:
    known = variables()
    known.environment = {"CPU": value}
    with pytest.raises(InvalidTemplate) as caught:
        fill(read('{"cpu": ${CPU}}'), known)
    assert str(caught.value).startswith("cpu: the value of ${CPU} is not a number")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["$NOPE", "${NOPE}", "${NOPE:-1}", "__NOPE"])
def test_nothing_without_quotes_stays(name: str) -> None:
    with pytest.raises(InvalidTemplate, match="is not set"):
        fill(read(f'{{"cpu": {name}}}'), variables())


@pytest.mark.parametrize(
    "text", ['{"a": ${X}1}', '{"a": -${X}}', '{"a" ${X}}', '{"a": "${X}', "${X}}"]
)
def test_a_variable_is_a_whole_value_or_in_a_text(text: str) -> None:
    with pytest.raises(InvalidContent, match="is not JSON"):
        read(text)


def test_a_value_in_options_is_written_as_json_has_it() -> None:
    known = variables()
    known.environment = {"NAME": 'a"b\\c', "D": "/d"}
    options = {"Env": ["A=${NAME}"], "HostConfig": {"Binds": ["${D}:/d"]}}
    whole = json.dumps(options)
    for settings in (
        {"createOptions": options},
        {"createOptions": whole},
        {"image": "x", "createOptions": whole[:9], "createOptions01": whole[9:]},
    ):
        made: Any = with_texts(fill({"settings": settings}, known))
        written = json.loads(made["settings"]["createOptions"])
        assert written == {"Env": ['A=a"b\\c'], "HostConfig": {"Binds": ["/d:/d"]}}
    # Options without a variable keep their spaces: edgeAgent compares texts.
    plain = {"settings": {"createOptions": '{ "Env": [ ] }'}}
    assert with_texts(fill(plain, known)) == plain


def test_what_only_templates_have_is_left_out() -> None:
    assert read('\ufeff{"$schema-template": "4.0.0", "modulesContent": {}}') == {
        "modulesContent": {}
    }


def sql_edge(password: str, options: object) -> dict[str, Any]:
    module = {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "env": {"MSSQL_SA_PASSWORD": {"value": password}, "ACCEPT_EULA": {"value": "${EULA}"}},
        "settings": {"image": "${MODULES.fan}", "createOptions": options},
    }
    return {
        "modulesContent": {
            "$edgeAgent": {"properties.desired.modules.sql": module},
            "$edgeHub": {},
        }
    }


AT = "modulesContent.$edgeAgent.properties.desired.modules.sql"


@pytest.mark.parametrize("environment", [{"EULA": "Y", "SA": "hunter2secret"}, {"EULA": "Y"}, {}])
@pytest.mark.parametrize("as_text", [False, True])
def test_where_the_variables_of_secrets_are(environment: dict[str, str], *, as_text: bool) -> None:
    options: Any = {"Env": ["API_KEY=${SA}", "B=${EULA}"], "Cmd": ["ApiKey=$SA", "x=${EULA}"]}
    known = variables()
    known.environment = environment
    document = sql_edge("${SA}", json.dumps(options) if as_text else options)
    places = secret_places(document, known)
    assert places == {
        f"{AT}.env.MSSQL_SA_PASSWORD.value",
        f"{AT}.settings.createOptions.Env[0]",
        f"{AT}.settings.createOptions.Cmd[0]",
    }
    known.kept, known.environment = places, {"EULA": "Y"}
    filled = json.dumps(fill(document, known))
    assert filled.count("${SA}") == 3
    assert "${EULA}" not in filled


LOGIN = {
    "registryCredentials": {
        "__REGISTRY_NAME": {
            "username": "__REGISTRY_USER_NAME",
            "password": "__REGISTRY_PASSWORD",
            "address": "__REGISTRY_NAME.azurecr.io",
        },
        "other": {"username": "$OTHER_USER", "password": "${OTHER}", "address": "r.io"},
    }
}


def test_passwords_stay_variables_until_they_are_asked_for() -> None:
    def logins(*, passwords: bool) -> dict[str, dict[str, str]]:
        filled: Any = fill(LOGIN, variables(passwords=passwords))
        return dict(filled["registryCredentials"])

    kept = logins(passwords=False)
    assert kept["fleet"] == {
        "username": "puller",
        "password": "${REGISTRY_PASSWORD}",
        "address": "fleet.azurecr.io",
    }
    # Users and passwords that are not there stay as variables, whichever way they were written.
    assert kept["other"] == {"username": "${OTHER_USER}", "password": "${OTHER}", "address": "r.io"}
    assert logins(passwords=True)["fleet"]["password"] == "hunter2"


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(
        InvalidTemplate, match="'__MODULE_NAME' becomes 'fan', which already exists"
    ):
        fill({"fan": 1, "__MODULE_NAME": 2}, variables())


def test_options_that_are_objects_become_texts_in_pieces() -> None:
    options = {"HostConfig": {"Binds": ["/a:/a"] * 100}, "Env": ["B=1"]}
    document = {"modules": [{"settings": {"image": "x", "createOptions": options}}]}
    made: Any = with_texts(document)
    settings = made["modules"][0]["settings"]
    assert list(settings)[:3] == ["image", "createOptions", "createOptions01"]
    assert json.loads("".join(list(settings.values())[1:])) == options
    assert with_texts(made) == made


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__'"),
        ("{{ x.append(1) }}", "is unsafe"),
        ("{{ nobody }}", "'nobody' is undefined"),
        ("\n{% for %}", "(line 2)"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ {}['a'] + 1 }}", "'dict object' has no attribute 'a'"),
        ("{% include '/etc/passwd' %}", "/etc/passwd"),
    ],
)
def test_jinja_gets_values_and_no_python(template: str, what: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        render_jinja(template, {"x": []})
    assert what in str(caught.value)


# --- any manifest, with variables in place of everything


def as_template(document: object, environment: dict[str, str], *, bare: bool) -> str:
    """The text of a template that becomes ``document``: every value is a variable."""

    def variable(value: str) -> str:
        name = f"V{len(environment)}_x"
        environment[name] = value
        return f"${name}" if bare else f"${{{name}}}"

    def written(value: object, key: str) -> str:
        if isinstance(value, dict):
            inner = ",".join(f"{json.dumps(k)}:{written(v, k)}" for k, v in value.items())
            return f"{{{inner}}}"
        if isinstance(value, list):
            return f"[{','.join(written(each, key) for each in value)}]"
        if not isinstance(value, str):
            return variable(json.dumps(value))
        if key == "createOptions" and value.startswith("{"):
            return json.dumps(written(json.loads(value), ""))
        return json.dumps(variable(value)) if len(environment) % 3 else variable(json.dumps(value))

    return written(document, "")


def with_objects(document: Any) -> Any:  # noqa: ANN401  # JSON
    """``document`` with its options as objects, whose texts may differ in spaces."""
    if isinstance(document, list):
        return [with_objects(each) for each in document]
    if not isinstance(document, dict):
        return document
    options = sorted(key for key in document if key.startswith("createOptions"))
    whole = "".join(document[key] for key in options if isinstance(document[key], str))
    made = {key: with_objects(each) for key, each in document.items() if key not in options}
    return (
        {**made, "createOptions": json.loads(whole)} if whole.startswith("{") else document | made
    )


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("folder", ["manifests", "invalid"])
def test_any_manifest_as_a_template_becomes_itself(folder: str, *, bare: bool) -> None:
    tried = 0
    for path in sorted(require(SHARED / "iotedge" / folder).glob("*.json")):
        content = path.read_text()
        if "${" in content:
            continue  # a template
        document = json.loads(content)
        environment: dict[str, str] = {}
        # A text in several pieces has no variables here.
        pieces = re.search('"createOptions0[0-9]"', content)
        text = content if pieces else as_template(document, environment, bare=bare)
        known = Variables(module="none", image=None, environment=environment, passwords=True)
        filled = with_texts(fill(read(text), known))
        expected = with_texts(document)
        assert isinstance(expected, dict)
        expected.pop("$schema-template", None)
        assert with_objects(filled) == with_objects(expected), path.name
        tried += 1
    assert tried >= 3
