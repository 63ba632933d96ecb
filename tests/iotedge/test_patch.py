"""Another image in a manifest: that text changes, and no other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.iotedge.patch import NoSuchModule, patch
from mlpack.oci.descriptor import Digest, Reference

NEW = Reference.parse("registry.example.com/edge/fan").pinned(Digest("b" * 64))
DESIRED = "properties.desired"


def manifest(image: str = "r.io/fan:1", name: str = "fan") -> dict[str, Any]:
    module: dict[str, Any] = {
        "type": "docker",
        "settings": {"image": image, "createOptions": '{"Image":"x"}'},
    }
    agent: dict[str, Any] = {"systemModules": {name: {"settings": {"image": "r.io/agent:1"}}}}
    agent |= {"modules": {"other": {"settings": {"image": "r.io/other:1"}}, name: module}}
    return {"modulesContent": {"$edgeAgent": {DESIRED: agent}, name: {DESIRED: {"image": "?"}}}}


def test_spaces_order_escapes_and_line_ends_stay() -> None:
    text = (
        '\ufeff {"modulesContent":{\r\n\t"$edgeAgent" : {"properties.desired":{"modules" : {'
        '"fan":{"settings":{"createOptions":"{\\u0022Env\\u0022: []}" ,  "image":\t"a\\u002fb:1" }'
        '}}}}}, "metrics":{"image":"a/b:1", "n":[1.50,-0e1,{"image":"a/b:1"}]} }\r\n'
    )
    assert patch(text, "fan", NEW) == text.replace('"a\\u002fb:1"', f'"{NEW}"', 1)


@pytest.mark.parametrize(
    "agent",
    [
        {DESIRED: {"modules": {"fan": {"settings": {"image": "old"}}}}},
        {f"{DESIRED}.modules": {"fan": {"settings": {"image": "old"}}}},
        {f"{DESIRED}.modules.fan": {"settings": {"image": "old"}}},
        {f"{DESIRED}.modules.fan.settings": {"image": "old"}},
        {f"{DESIRED}.modules.fan.settings.image": "old"},
    ],
)
@pytest.mark.parametrize("above", [("modulesContent",), ("content", "modulesContent")])
def test_whole_and_layered_deployments_are_patched(agent: object, above: tuple[str, ...]) -> None:
    document: object = {"$edgeAgent": agent, "fan": {DESIRED: {"image": "old"}}}
    for key in reversed(above):
        document = {key: document}
    text = json.dumps(document)
    assert patch(text, "fan", NEW) == text.replace('"old"', f'"{NEW}"', 1)


def test_the_image_that_is_there_already_leaves_every_byte() -> None:
    text = json.dumps(manifest(str(NEW)), indent=3)
    assert patch(text, "fan", NEW) == text


@pytest.mark.parametrize("name", ["fam", "$edgeAgent", "edgeAgent", ""])
def test_a_module_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(NoSuchModule, match="has no module") as caught:
        patch(json.dumps(manifest()), name, NEW)
    assert "its modules: fan, other; " in caught.value.hint


def test_an_image_that_is_no_text_is_none() -> None:
    document = manifest()
    document["modulesContent"]["$edgeAgent"][DESIRED]["modules"]["fan"]["settings"]["image"] = ["x"]
    with pytest.raises(NoSuchModule):
        patch(json.dumps(document), "fan", NEW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["image", "settings"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    extra=st.dictionaries(st.text().filter(lambda key: key != "modulesContent"), JSON, max_size=3),
    twin=JSON,
    image=st.text(),
    indent=st.none() | st.integers(0, 4) | st.sampled_from(["\t", "\r\n "]),
    ascii_only=st.booleans(),
)
def test_only_the_image_of_the_module_differs(
    extra: dict[str, Any], twin: object, image: str, indent: int | str | None, ascii_only: bool
) -> None:
    document = manifest(image)
    document["modulesContent"]["fan"] = {DESIRED: twin}
    whole = {**extra, **document, **{f"{key}+": value for key, value in extra.items()}}
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only)
    patched = patch(text, "fan", NEW)
    modules = whole["modulesContent"]["$edgeAgent"][DESIRED]["modules"]
    modules["fan"]["settings"]["image"] = str(NEW)
    assert patched == json.dumps(whole, indent=indent, ensure_ascii=ascii_only)
