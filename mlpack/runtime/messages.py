"""Messages of devices as requests, and answers as predictions: the same for MQTT and IoT Edge.

A sensor sends ``{"deviceID": "1", "rotation": 600, …}``; a prediction is
``{"deviceID": "1", "fault": "0"}``. docs/scoring.md describes both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from .answers import to_json
from .problems import BadRequest, Failed, TooLarge
from .scorer import JSON, Payload, Reply

DEVICE = "deviceID"
"""The member of a message that says whose reading it is; predictions repeat it."""

_REQUESTS = ("params", "data", "inputs")
"""Members of what is a request already, as it would come over HTTP."""

_PICTURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A message as a request; ``device`` is what it says of itself, ``None`` where nothing."""

    payload: Payload
    device: object = None


def read(
    content: bytes, *, content_type: str = "", fields: Sequence[str] = (), most: int = 2**63
) -> Reading:
    """A message of at most ``most`` bytes as a request; ``fields`` are the script's.

    Raises a :class:`~.problems.Problem`.

    >>> message = b'{"deviceID": "7", "rotation": 600, "sound": 48.5}'
    >>> reading = read(message, fields=("rotation", "sound"))
    >>> reading.device, reading.payload.content
    ('7', b'{"params":[600,48.5]}')
    """
    if len(content) > most:
        raise TooLarge(f"the message has {len(content)} bytes; {most} are allowed")
    kind = content_type or _sniffed(content)
    if kind != JSON:
        return Reading(payload=Payload(content=content, content_type=kind))
    try:
        document = orjson.loads(content)
    except ValueError as error:
        raise BadRequest(f"the message is not JSON ({error})") from error
    if not isinstance(document, dict):
        return Reading(payload=Payload(content=content))
    device = document.get(DEVICE)
    if fields and not any(name in document for name in _REQUESTS):
        content = orjson.dumps({"params": [_value(document, name) for name in fields]})
    return Reading(payload=Payload(content=content), device=device)


def write(answer: object, device: object = None, members: Sequence[str] = ()) -> bytes:
    """A prediction: whose it is, and ``members`` of the answer, or all of it.

    Raises a :class:`~.problems.Problem` where the answer is one, or no JSON.

    >>> write({"fault": "0", "probability": 0.1}, "7", ("fault",))
    b'{"deviceID":"7","fault":"0"}'
    """
    if isinstance(answer, Reply):
        answer = _parsed(answer)
    document: dict[str, object] = {} if device is None else {DEVICE: device}
    if not isinstance(answer, Mapping):
        document["result"] = answer
    elif members:
        document.update((name, answer[name]) for name in members if name in answer)
    else:
        document.update(answer)
    try:
        return to_json(document)
    except (TypeError, ValueError, RecursionError) as error:
        raise Failed(f"the result of scoring is not JSON ({type(error).__name__})") from error


def device_of(content: bytes) -> object:
    """Whose message it is, for a log; ``None`` where it does not say."""
    try:
        document = orjson.loads(content)
    except ValueError:
        return None
    return document.get(DEVICE) if isinstance(document, dict) else None


def _sniffed(content: bytes) -> str:
    """The content type of a message that comes without one."""
    for start, kind in _PICTURES.items():
        if content.startswith(start):
            return kind
    return JSON


def _value(document: Mapping[str, object], name: str) -> object:
    if name not in document:
        raise BadRequest(f"the message has no {name}", field=name)
    return document[name]


def _parsed(reply: Reply) -> object:
    if reply.status >= 500:
        raise Failed(f"scoring answered {reply.status}")
    if reply.status >= 400:
        raise BadRequest(f"scoring answered {reply.status}")
    try:
        return orjson.loads(reply.content)
    except ValueError as error:
        raise Failed("the result of scoring is not JSON") from error
