"""``createOptions``: container settings as JSON inside a string, in one member or several."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlpack.oci.document import InvalidContent, Node
from mlpack.render.iotedge.problem import Problem, require_readable

NAME = "createOptions"
CHUNK = 512
"""Characters per member: what edgeAgent itself writes (Azure/iotedge, Constants.cs
TwinValueMaxSize). IoT Hub takes 4 KB a value today, older hubs took 512 bytes."""

MAX_CHUNKS = 100
"""edgeAgent reads createOptions and createOptions01 to createOptions99, and ignores more."""

_MEMBER = re.compile(r"createOptions([0-9]*)", re.IGNORECASE)
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_EVERY = ("", "0.0.0.0", "::")  # noqa: S104  (read, not bound)
MAX_PORT = 65535


def split(options: Mapping[str, object], *, sort: bool = True) -> dict[str, str]:
    """Write ``options`` as the members of a module's ``settings``.

    Sorted, so that the same options are the same text: edgeAgent compares texts. What a
    user wrote keeps its order.

    >>> split({"HostConfig": {}})
    {'createOptions': '{"HostConfig":{}}'}
    """
    whole = json.dumps(options, separators=(",", ":"), sort_keys=sort)
    pieces = [whole[start : start + CHUNK] for start in range(0, len(whole), CHUNK)]
    return {f"{NAME}{number:02}" if number else NAME: each for number, each in enumerate(pieces)}


def join(settings: Node) -> Node:
    """Read the options back; raise :class:`InvalidContent` where edgeAgent could not."""
    where = f"{settings.where}.{NAME}"
    members = _members(settings)
    if len(members) > MAX_CHUNKS:
        raise InvalidContent(members[MAX_CHUNKS].where, f"edgeAgent reads {MAX_CHUNKS} of them")
    whole = "".join(each.text() for each in members)
    if not whole.strip() or whole.strip().lower() == "null":
        return Node({}, where)
    try:
        options = json.loads(whole)
    except (ValueError, RecursionError) as error:
        parts = f" ({len(members)} members joined)" if len(members) > 1 else ""
        raise InvalidContent(where, f"is not JSON{parts}: {error}") from error
    require_readable(options, where)
    return Node(Node(options, where).mapping(), where)


def is_member(key: str) -> bool:
    """Whether ``key`` is ``createOptions`` or one of its numbered parts."""
    return _MEMBER.fullmatch(key) is not None


def _members(settings: Node) -> list[Node]:
    # edgeAgent sorts the names as text and wants none, 1, 2, … (JsonEx.cs, ChunkedProperty).
    found = sorted((key.lower(), each) for key, each in settings.items() if is_member(key))
    for number, (key, each) in enumerate(found):
        digits = key[len(NAME) :]
        if digits != "" if number == 0 else int(digits or 0) != number:
            wanted = f"{NAME}{number:02}" if number else NAME
            raise InvalidContent(each.where, f"stands where {wanted} is expected")
    return [each for _, each in found]


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the host that a module binds."""

    port: str
    """With its protocol: ``443/tcp``."""

    address: str
    """The one address of the host it is bound at; empty for every one."""

    where: str

    def clashes(self, other: HostPort) -> bool:
        """Whether the engine cannot give both."""
        same = self.address == other.address or not (self.address and other.address)
        return self.port == other.port and same


def host_ports(options: Node) -> Iterator[HostPort]:
    """Every port of the host the options bind.

    Raises :class:`InvalidContent` for a port that is none.
    """
    host = options.get("HostConfig")
    bindings = host.get("PortBindings") if host else None
    for inside, listed in bindings.items() if bindings else ():
        matched = _PORT.fullmatch(inside)
        if not matched or not 1 <= int(matched[1]) <= MAX_PORT:
            raise InvalidContent(listed.where, "is not a port such as 443/tcp")
        for binding in listed.elements():
            port, address = binding.get("HostPort"), binding.get("HostIp")
            if port is not None and (number := _host_port(port)):
                at = address.text() if address else ""
                yield HostPort(
                    f"{number}/{matched[2] or 'tcp'}", "" if at in _EVERY else at, port.where
                )


def _host_port(node: Node) -> int:
    """The number; 0 where the engine chooses one, or resolves a range (``8000-8010``)."""
    digits = str(node.value)
    if not digits or "-" in digits:
        return 0
    if not digits.isdecimal() or int(digits) > MAX_PORT:
        raise InvalidContent(node.where, f"is {node.value!r}, not a port of the host")
    return int(digits)


def check(settings: Node) -> Iterator[Problem]:
    """Check that edgeAgent can read the options, and that the ports in them are ports."""
    for _ in host_ports(join(settings)):
        pass
    yield from ()
