"""A user's own template: its variables, and the older tutorials' placeholders."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlpack.iotedge.deployment import InvalidTemplate, render_jinja
from mlpack.iotedge.template import Variables, fill, with_texts
from mlpack.oci.descriptor import Digest, Reference

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
