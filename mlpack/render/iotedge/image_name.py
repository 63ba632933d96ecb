"""Which image names edgeAgent and the engine below it accept."""

from __future__ import annotations

import re

# edgeAgent's own pattern (Azure/iotedge, DockerConfig.cs): one colon at most after the last
# slash, so repository:tag@sha256:… is refused by the device although the schemas take it.
_EDGE_AGENT = re.compile(r"(?:[^/]*/)*[^/:]+(?::[^/:]+)?")
_PARENT = re.compile(r"\$upstream(?=:[1-9])")

# What the engine takes (distribution reference.go).
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAIL = r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})?"
_ENGINE = re.compile(rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*{_TAIL}")

PLACEHOLDER = re.compile(r"\$\{[^}]*\}")
"""A variable that a tool should have filled in before."""


def image_problem(text: str) -> str:
    """What is wrong with an image's name; empty where nothing is.

    >>> image_problem("registry.example.com/fan:3@sha256:" + "0" * 64)
    'has a tag and a digest, which edgeAgent refuses: write repository@sha256:…'
    """
    name = text.strip()
    if not name:
        return "is empty"
    if found := PLACEHOLDER.search(name):
        return f"holds {found[0]}, a placeholder that was not filled in"
    if name.startswith("$"):
        if not _PARENT.match(name):
            return f"{name!r} must be $upstream:PORT/… (edgeAgent wants the port)"
        name = _PARENT.sub("parent", name, count=1)
    return _form_problem(name)


def _form_problem(name: str) -> str:
    repository, at, _ = name.rpartition("/")[2].partition("@")
    if at and ":" in repository:
        return "has a tag and a digest, which edgeAgent refuses: write repository@sha256:…"
    if not _EDGE_AGENT.fullmatch(name) or not _ENGINE.fullmatch(name):
        return f"{name!r} is not an image name (REGISTRY/NAME:TAG or …@sha256:…, in lower case)"
    return ""
