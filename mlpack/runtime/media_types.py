"""Media types of requests and responses (RFC 9110, 8.3 and 12.5.1): parsed, never compared as text.

>>> parse('Application/JSON; charset="UTF-8"')
MediaType(kind='application/json', parameters={'charset': 'UTF-8'}, is_json=True)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from .http_errors import BadRequest, UnsupportedMediaType

JSON = "application/json"

_JSON_KINDS = {
    "",
    JSON,
    "text/json",
    "text/plain",
    # curl's default.
    "application/x-www-form-urlencoded",
}
"""Types under which clients send JSON."""

_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))')
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
_CHARSETS = re.compile(
    r"utf-?(8|8-sig|16|16[bl]e|32|32[bl]e)|(us-)?ascii|iso-?8859-?\d{1,2}|latin-?1|windows-125\d"
)
"""Character sets that are accepted: they grow at most threefold in UTF-8."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A type and subtype in lower case, and parameters by name in lower case."""

    kind: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    is_json: bool = False
    """Whether a model without a script reads a body of this type as JSON."""


@lru_cache(maxsize=256)
def parse(text: str) -> MediaType:
    """Return a ``Content-Type``, over whatever transport it came."""
    kind, _, rest = text.partition(";")
    found = _PARAMETER.findall(";" + rest) if rest else ()
    parameters = {name.lower(): re.sub(r"\\(.)", r"\1", q) or plain for name, q, plain in found}
    kind = kind.strip().lower()
    return MediaType(kind, parameters, kind in _JSON_KINDS or kind.endswith("+json"))


def to_utf8(content: bytes, media_type: MediaType) -> bytes:
    """Return a text in UTF-8, without a byte order mark.

    Raises :class:`~.http_errors.UnsupportedMediaType` for an unknown character set, and
    :class:`~.http_errors.BadRequest` if ``content`` is not in the one it names.
    """
    if not media_type.parameters and content[:1] != b"\xef":
        return content
    charset = media_type.parameters.get("charset", "utf-8").lower().replace("_", "-")
    if charset in ("utf-8", "utf8", "us-ascii", "ascii"):
        return content.removeprefix(b"\xef\xbb\xbf")
    if not _CHARSETS.fullmatch(charset):
        raise UnsupportedMediaType(f"unknown charset {charset[:40]!r}: send UTF-8")
    try:
        return content.decode(charset).removeprefix("\ufeff").encode()
    except LookupError as error:
        raise UnsupportedMediaType(f"unknown charset {charset[:40]!r}: send UTF-8") from error
    except UnicodeError as error:
        raise BadRequest(f"the request is not in {charset}") from error


@lru_cache(maxsize=256)
def preferred(accept: str, offered: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``offered`` that an ``Accept`` header takes, the most wanted first.

    Of types with the same quality, one that the header names comes before one of a range, and the
    one that it lists first comes first; ``offered`` decides between types of one range.

    >>> preferred("text/csv, application/x-npy;q=0.5, */*;q=0.1", ("a/json", "application/x-npy"))
    ('application/x-npy', 'a/json')
    """
    ranges = [(parse(each), place) for place, each in enumerate(_ELEMENT.findall(accept))]
    found = []
    for order, kind in enumerate(offered):
        matching = [(_exactness(r.kind, kind), -place, r) for r, place in ranges]
        exactness, place, best = max(matching, key=lambda each: each[:2], default=(0, 0, None))
        if exactness and best is not None and (quality := _quality(best)):
            found.append((-quality, -exactness, -place, order, kind))
    return tuple(kind for *_, kind in sorted(found))


def names(accept: str, kind: str) -> bool:
    """Return whether an ``Accept`` header names ``kind`` itself and takes it.

    >>> names("text/html;level=1, */*;q=0.1", "text/html"), names("*/*", "text/html")
    (True, False)
    """
    listed = any(parse(each).kind == kind for each in _ELEMENT.findall(accept))
    return listed and bool(preferred(accept, (kind,)))


def _exactness(accepted: str, kind: str) -> int:
    """Return 0 if a media range does not include ``kind``; more for a more specific range."""
    if accepted == kind:
        return 3
    if accepted == kind.partition("/")[0] + "/*":
        return 2
    return 1 if accepted == "*/*" else 0


def _quality(accepted: MediaType) -> float:
    text = accepted.parameters.get("q", "1")
    return float(text) if _QUALITY.fullmatch(text) else 1.0
