"""Whatever a manifest holds, it is judged, shown, filled in or patched: nothing breaks off."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.iotedge.checks import problems, warnings
from mlpack.iotedge.deployment import InvalidTemplate
from mlpack.iotedge.manifest import InvalidDeployment, read_manifest
from mlpack.iotedge.patch import NoSuchModule, patch
from mlpack.iotedge.secrets import Passwords, redacted
from mlpack.iotedge.template import Variables, fill, with_texts
from mlpack.oci.descriptor import Digest, Reference
from tests.iotedge.test_iotedge_checks import GOOD
from tests.support import repeats

IMAGE = Reference.parse("registry.example.com/edge/fan").pinned(Digest("c" * 64))
LAYERED: dict[str, Any] = {
    "content": {
        "modulesContent": {
            "$edgeAgent": {
                "properties.desired.modules.fan": {"settings": {"image": "r.io/x:1.0.0"}}
            },
            "$edgeHub": {"properties.desired.routes.up": "FROM /* INTO $upstream"},
            "fan": {"properties.desired.limits": {"a": [1]}},
        }
    }
}
WORDS = [
    "${X}", "__MODULE_NAME", "$PATH_", "createOptions", "createOptions01", "settings", "env",
    "value", "password", "{}", '{"Env": 1}', '{"Env": ["A"], "HostConfig": []}', "null",
    "properties.desired", "properties.desired.modules", "\ud800", "FROM", "443/tcp",
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every member of every object."""
    for key, each in value.items() if isinstance(value, dict) else ():
        yield (*above, key)
        yield from places(each, (*above, key))


@settings(max_examples=repeats(60, 300))
@given(
    base=st.sampled_from([GOOD, LAYERED]),
    changes=st.lists(st.tuples(st.integers(0, 200), JSON, st.booleans()), min_size=1, max_size=3),
)
def test_any_manifest_is_judged(
    base: dict[str, Any], changes: list[tuple[int, object, bool]]
) -> None:
    document = copy.deepcopy(base)
    for number, value, added in changes:
        paths = list(places(document))
        *above, last = paths[number % len(paths)]
        target = document
        for key in above:
            target = target[key]
        target[f"{last}x" if added else last] = value
    text = json.dumps(document)
    for passwords in Passwords:
        assert all(each.path and each.what for each in problems(text.encode(), passwords))
    try:
        for each in warnings(read_manifest(text.encode())):
            assert each.path
    except InvalidDeployment:
        pass
    with contextlib.suppress(NoSuchModule):
        json.loads(patch(text, "fan", IMAGE))
    with contextlib.suppress(InvalidTemplate):
        with_texts(fill(document, Variables(module="fan", image=IMAGE)))
    redacted(document)
