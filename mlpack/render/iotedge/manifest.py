"""Reading a deployment manifest: a whole (base) deployment or a layered one.

A whole one gives each module's desired properties under ``properties.desired``;
a layered one gives parts of them under dotted keys
(``properties.desired.modules.fan``). Both are read into the same tree, so the
checks, and the paths they name, are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlpack.oci.document import MAX_DOCUMENT_BYTES, InvalidContent, Node
from mlpack.render.iotedge.problem import InvalidDeployment, Problem, require_readable

AGENT, HUB = "$edgeAgent", "$edgeHub"
DESIRED = "properties.desired"
ROOT = "deployment"
CONTENT = "modulesContent"
# Deployments of the preview service, and iotedgehubdev's still, say moduleContent.
_CONTENTS = (CONTENT, "moduleContent")
PLACES = tuple((*above, key) for above in ((), ("content",)) for key in _CONTENTS)
"""Where the modules lie: bare, or inside the ``content`` of an IoT Hub configuration."""


@dataclass(frozen=True, slots=True)
class Section:
    """The desired properties of one module, and which dotted paths they were given by."""

    desired: Node
    paths: frozenset[tuple[str, ...]] = frozenset()

    @property
    def layered(self) -> bool:
        """Whether the section adds to a base deployment's instead of being whole."""
        return bool(self.paths)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A deployment's sections by module, with what was wrong already while reading them."""

    where: str
    sections: Mapping[str, Section]
    problems: tuple[Problem, ...] = field(default=())

    @property
    def layered(self) -> bool:
        """Whether it is a layered deployment, which needs a base deployment below it."""
        return any(self.sections[name].layered for name in (AGENT, HUB) if name in self.sections)

    @property
    def modules(self) -> Mapping[str, Node] | None:
        """The user's modules by their id; ``None`` where there is no telling which they are."""
        section = self.sections.get(AGENT)
        found = section.desired.get("modules") if section else None
        return dict(found.items()) if found and isinstance(found.value, dict) else None


def read_manifest(content: bytes) -> Manifest:
    """Read a manifest; raise :class:`InvalidDeployment` where it is no deployment at all."""
    try:
        root = Node(load(content), ROOT)
        return _manifest(_modules_content(root))
    except InvalidContent as error:
        raise InvalidDeployment([Problem(error.where, error.problem)]) from error


def load(content: bytes) -> object:
    """Read a manifest's JSON, whatever it says; raise :class:`InvalidContent`."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InvalidContent(ROOT, f"is {len(content)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        document = json.loads(content, object_pairs_hook=_unique, parse_constant=_no_number)
    except InvalidContent:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidContent(ROOT, f"is not JSON ({error})") from error
    require_readable(document, ROOT)
    return document


def _no_number(text: str) -> object:
    """Refuse NaN and Infinity, which Python takes and JSON has not."""
    raise InvalidContent(ROOT, f"is not JSON ({text} is no number)")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a name given twice: the second would silently replace the first."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidContent(ROOT, f"gives {key!r} twice in one object")
        found[key] = value
    return found


def _modules_content(root: Node) -> Node:
    """Find the modules, bare or inside the ``content`` of an IoT Hub configuration."""
    content = root.get("content") or root
    for key in _CONTENTS:
        found = content.get(key)
        if found is not None:
            where = "content." * (content is not root) + key
            return Node(found.mapping(), where)
    raise InvalidContent(content.where, f"{_CONTENTS[0]!r} is missing")


def _manifest(content: Node) -> Manifest:
    sections: dict[str, Section] = {}
    problems: list[Problem] = []
    for name, node in content.items():
        try:
            sections[name] = _section(node)
        except InvalidContent as error:
            problems.append(Problem(error.where, error.problem))
    return Manifest(content.where, sections, tuple(problems))


def _section(node: Node) -> Section:
    desired = f"{node.where}.{DESIRED}"
    if set(node.mapping()) == {DESIRED}:
        whole = node.need(DESIRED)
        return Section(Node(whole.mapping(), desired))
    tree: dict[str, object] = {}
    paths = set()
    for path, value in _dotted(node):
        _place(tree, path, value)
        paths.add(path)
    if not paths:
        raise InvalidContent(node.where, f"{DESIRED!r} is missing")
    return Section(Node(tree, desired), frozenset(paths))


def _dotted(node: Node) -> Iterator[tuple[tuple[str, ...], Node]]:
    for key, value in node.items():
        if key == DESIRED:
            raise InvalidContent(value.where, "stands beside keys that are parts of it")
        if not key.startswith(f"{DESIRED}."):
            raise InvalidContent(value.where, f"is not {DESIRED} or a path below it")
        path = tuple(key.removeprefix(f"{DESIRED}.").split("."))
        if not all(path):
            raise InvalidContent(value.where, "has an empty part in its path")
        yield path, value


def _place(tree: dict[str, object], path: tuple[str, ...], value: Node) -> None:
    *above, last = path
    for part in above:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InvalidContent(value.where, "lies below another path of this section")
        tree = inner
    if last in tree:
        raise InvalidContent(value.where, "lies above another path of this section")
    tree[last] = value.value
