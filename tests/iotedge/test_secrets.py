"""No secret leaves in a manifest, and none is repeated in what is said about it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from mlpack.iotedge.checks import problems
from mlpack.iotedge.manifest import Problem
from mlpack.iotedge.secrets import Passwords, holds_password, is_placeholder, redacted
from tests.iotedge.test_iotedge_checks import AGENT, FAN_AT, GOOD

KEY = "A" * 43 + "="
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"
SECRETS = {
    "hub": f"HostName=h.azure-devices.net;DeviceId=d;SharedAccessKey={KEY}",
    "storage": f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={'B' * 86}==",
    "sas": "SharedAccessSignature sr=h.azure-devices.net&sig=abcdefghij%2Bklmnop%3D&se=1795201314",
    "blob": "https://a.blob.core.windows.net/c/b?sv=2024&se=2027&sig=abcdefghijklmnopqrst%3D",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
    "jwt": JWT,
    "address": "amqp://user:hunter2secret@broker:5672",
    "database": "Server=db;User=sa;Password=hunter2secret",
    "key": KEY,
    "long key": "C" * 86 + "==",
}
HARMLESS = [
    "HostName=h;SharedAccessKey=${KEY}",
    "https://example.com:8080/path?sig=short",
    "http://edgeHub:9600/metrics,http://edgeAgent:9600/metrics",
    "sha256-" + KEY,
    "a" * 64,
    "SELECT * FROM x WHERE password = ${P}",
    "<log analytics workspace shared key>",
    "",
]


def with_env(name: str, value: object) -> bytes:
    document: Any = copy.deepcopy(GOOD)
    agent = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    agent["modules"]["fan"]["env"] = {name: {"value": value}}
    return json.dumps(document).encode()


def with_options(options: object) -> bytes:
    document: Any = copy.deepcopy(GOOD)
    agent = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    text = json.dumps(options)
    agent["modules"]["fan"]["settings"] |= {
        "createOptions": text[:20],
        "createOptions01": text[20:],
    }
    return json.dumps(document).encode()


def one(content: bytes, secret: str) -> Problem:
    (found,) = problems(content)
    assert secret not in str(found)
    return found


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_refused_wherever_it_stands(secret: str) -> None:
    assert one(with_env("VALUE", secret), secret).path == f"{FAN_AT}.env.VALUE.value"
    at = f"{FAN_AT}.settings.createOptions"
    assert one(with_options({"Env": ["A=b", f"VALUE={secret}"]}), secret).path == f"{at}.Env[1]"
    assert one(with_options({"Cmd": ["run", secret]}), secret).path == f"{at}.Cmd[1]"
    document: Any = copy.deepcopy(GOOD)
    document["modulesContent"]["fan"]["properties.desired"] = {"deep": {"list": [1, secret]}}
    found = one(json.dumps(document).encode(), secret)
    assert found.path == "modulesContent.fan.properties.desired.deep.list[1]"


@pytest.mark.parametrize(
    "name", ["image", "routes", "createOptions", "registryCredentials", "value"]
)
def test_no_name_hides_a_secret(name: str) -> None:
    secret = SECRETS["hub"]
    assert one(with_env(name, secret), secret)
    document: Any = copy.deepcopy(GOOD)
    for told in (secret, {"value": secret}, {"a": {"b": [secret]}}):
        document["modulesContent"]["fan"]["properties.desired"] = {name: told}
        assert one(json.dumps(document).encode(), secret)


def test_a_route_may_speak_of_a_password() -> None:
    document: Any = copy.deepcopy(GOOD)
    hub = document["modulesContent"]["$edgeHub"]["properties.desired"]
    hub["routes"]["up"] = "FROM /* WHERE $body.password = 'hunter2' INTO $upstream"
    assert problems(json.dumps(document).encode()) == ()


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_is_taken(text: str) -> None:
    assert problems(with_env("VALUE", text)) == ()


@pytest.mark.parametrize(
    "name",
    [
        "MQTT_PASSWORD", "password", "LogAnalyticsSharedKey", "API_KEY", "CLIENT_SECRET",
        "IOTHUB_CONNECTION_STRING", "connectionString", "SAS_TOKEN", "TOKEN", "auth-token",
    ],
)  # fmt: skip
def test_a_name_tells_too(name: str) -> None:
    found = one(with_env(name, "hunter2secret"), "hunter2secret")
    assert found.path == f"{FAN_AT}.env.{name}.value"
    assert "a secret, judging by its name" in found.what
    for harmless in ("${VALUE}", "<value>", "", "true", 1, False):
        assert problems(with_env(name, harmless)) == ()
    assert one(with_options({"Env": [f"{name}=hunter2secret"]}), "hunter2secret")


@pytest.mark.parametrize(
    "name", ["PASSWORD_FILE", "MAX_TOKENS", "PARTITION_KEY", "KEYBOARD", "SECRETARY", "TOKENIZER"]
)
def test_other_names_do_not(name: str) -> None:
    assert problems(with_env(name, "/run/mlpack/value")) == ()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["Eula=accept", "ApiKey=hunter2secret"], 1),
        (["apikey=hunter2secret"], 0),
        (["--api-key=hunter2secret"], 0),
        (["--password", "hunter2secret"], 1),
        (["-token", "hunter2secret"], 1),
        (["run", SECRETS["hub"]], 1),
        (["ApiKey=${KEY}", "--password", "$PASSWORD", "--api-key=<key>"], None),
        (["--password-file", "/run/secret", "x=y", "--verbose", "hunter2secret"], None),
        (["Mounts:License=/a", "sh", "-c", "echo a = b"], None),
    ],
)
def test_a_command_holds_no_secret(words: list[str], found: int | None) -> None:
    at = f"{FAN_AT}.settings.createOptions"
    for member in ("Cmd", "Entrypoint"):
        if found is None:
            assert problems(with_options({member: words})) == ()
        else:
            assert one(with_options({member: words}), "hunter2").path == f"{at}.{member}[{found}]"


def test_what_runs_here_may_have_secrets() -> None:
    for content in (with_env("PASSWORD", "hunter2"), with_password("hunter2"), with_password("$A")):
        assert problems(content, Passwords.HERE) == ()
    assert problems(with_env("A.B", "x"), Passwords.HERE) != ()


# --- the passwords of registries


def with_password(password: str) -> bytes:
    document: Any = copy.deepcopy(GOOD)
    agent = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    agent["runtime"]["settings"]["registryCredentials"]["acr"]["password"] = password
    return json.dumps(document).encode()


def test_a_registrys_password_is_taken_where_that_was_asked_for() -> None:
    path = f"{AGENT}.runtime.settings.registryCredentials.acr.password"
    clear, variable = with_password("hunter2secret"), with_password("${ACR}")
    found = one(clear, "hunter2secret")
    assert (found.path, found.what[:11]) == (path, "is in clear")
    assert problems(variable) == ()
    assert problems(clear, Passwords.EITHER) == problems(variable, Passwords.EITHER) == ()
    assert problems(clear, Passwords.CLEAR) == ()
    (unfilled,) = problems(variable, Passwords.CLEAR)
    assert (unfilled.path, unfilled.what) == (
        path,
        "is a variable that is not set in the environment",
    )


def test_what_is_shown_hides_passwords_and_nothing_else() -> None:
    clear, variable = json.loads(with_password("hunter2secret")), json.loads(with_password("${A}"))
    assert holds_password(clear)
    assert not holds_password(variable)
    assert redacted(variable) == variable
    assert json.loads(json.dumps(redacted(clear)).replace('"***"', '"hunter2secret"')) == clear
    assert "hunter2secret" not in json.dumps(redacted(clear))
    assert redacted({"registryCredentials": ["x", 1]}) == {"registryCredentials": ["x", 1]}


def test_variables_are_told_from_passwords() -> None:
    assert all(map(is_placeholder, ("${A}", "$ACR_PASSWORD", "<password>", "__REGISTRY_PASSWORD")))
    assert all(
        map(
            is_placeholder,
            (
                "$CONTAINER_REGISTRY_PASSWORD_myAcr",
                "${container_registry_password_x}",
                "$container_registry_password_x",
                "${A}${B}",
                "$(ACR.Password)",
                "#{AcrPassword}#",
                "{{ password }}",
                "%ACR_PASSWORD%",
                " $A ",
            ),
        )
    )
    plain = ("", "a${A}", "$ecret", "pa<ss>", "$Pa55word", "$my_password", "%a%", "$", "$1", "#{a}")
    assert not any(map(is_placeholder, plain))
