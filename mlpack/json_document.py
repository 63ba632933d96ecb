"""The one writer of JSON documents: dataclasses in, dicts, lists, texts and numbers out.

A dataclass is written as its fields, in their order. A field's metadata changes how::

    size: int = field(metadata=named("bytes"))

If the members are not the fields, ``json_members`` returns them::

    def json_members(self) -> Mapping[str, object]:
        return {"digest": self.target.digest, "transfer": self.transfer}

Neither has to convert values; all documents write them as in this table:

=================================  ==========================================
``Digest, Platform, Reference``    their text
``Decimal``                        its digits, as a text: JSON numbers are not exact
``Path``                           its text
``datetime``, ``date``             ISO 8601
an ``Enum``                        its value
a float that is not finite         null: JSON has no infinity
a mapping                          an object; its keys are written as text
any other iterable of values       a list
=================================  ==========================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from math import isfinite
from pathlib import PurePath

from mlpack.oci.descriptor import Digest, Platform, Reference

_NAME, _OMIT, _INLINE, _WRITE = "json.name", "json.omit", "json.inline", "json.write"

HIDDEN: dict[str, object] = {_OMIT: lambda _: True}
"""Metadata of a field that is not in the document."""

IF_SET: dict[str, object] = {_OMIT: lambda value: not value}
"""Metadata of a field that is in the document only if it is not empty."""

INLINE: dict[str, object] = {_INLINE: True}
"""Metadata of a field whose members are members of the document itself."""

OR_NULL: dict[str, object] = {_WRITE: lambda value: value or None}
"""Metadata of a field that is null if it is empty."""


SORTED: dict[str, object] = {
    _WRITE: lambda value: dict(sorted(value.items())) if isinstance(value, dict) else value
}
"""Metadata of a mapping that is written in the order of its keys."""


def named(key: str) -> dict[str, object]:
    """Metadata of a field that the document calls ``key``."""
    return {_NAME: key}


def unless(default: object) -> dict[str, object]:
    """Metadata of a field that is in the document only if it is not ``default``."""
    return {_OMIT: lambda value: value == default}


def written(write: Callable[[object], object]) -> dict[str, object]:
    """Metadata of a field that ``write`` turns into a value first."""
    return {_WRITE: write}


def rounded(digits: int) -> dict[str, object]:
    """Metadata of a float of which ``digits`` decimals are written."""
    return written(lambda value: round(value, digits) if isinstance(value, float) else value)


def to_json(value: object) -> object:
    """Write ``value`` as what ``json.dumps`` takes; or raise ``TypeError``.

    >>> to_json({"price": Decimal("0.10"), "path": PurePath("a/b"), "share": float("inf")})
    {'price': '0.10', 'path': 'a/b', 'share': None}
    """
    if value is None or isinstance(value, str | bool | int):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Digest | Platform | Reference | Decimal | PurePath):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [to_json(each) for each in value]
    return document(value)


def document(value: object) -> dict[str, object]:
    """Write a dataclass or a mapping as one JSON object; or raise ``TypeError``."""
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    own = getattr(value, "json_members", None)
    if own is not None:
        return document(own())
    formatted = getattr(value, "to_json", None)  # a file format's own writer, next to its reader
    if formatted is not None:
        return dict(formatted())
    if is_dataclass(value) and not isinstance(value, type):
        return dict(_members(value, fields(value)))
    raise TypeError(f"{type(value).__name__} cannot be written as a JSON document")


def _members(value: object, declared: Sequence[Field[object]]) -> Iterator[tuple[str, object]]:
    for each in declared:
        held, metadata = getattr(value, each.name), each.metadata
        if _OMIT in metadata and metadata[_OMIT](held):
            continue
        if _INLINE in metadata:
            yield from document(held).items()
            continue
        shown = metadata[_WRITE](held) if _WRITE in metadata else held
        yield metadata.get(_NAME, each.name), to_json(shown)
