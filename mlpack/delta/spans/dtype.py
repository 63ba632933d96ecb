"""numpy's names of types, as .npy files and pickled arrays write them (*The array interface*)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from mlpack.delta.spans.span import Kind

_CODE = re.compile(r"([<>|=]?)([?a-zA-Z])(\d{0,9})(?:\[[^\]]{0,20}\])?")
_NUMBERS: dict[str, tuple[Kind, tuple[int, ...]]] = {
    "f2": (Kind.F16, ()),
    "f4": (Kind.F32, ()),
    "f8": (Kind.F64, ()),
    "c8": (Kind.F32, (2,)),
    "c16": (Kind.F64, (2,)),
    "?": (Kind.I8, ()),
    "b1": (Kind.I8, ()),
    **{f"{sign}{width}": (kind, ()) for sign in "iu" for width, kind in (
        (1, Kind.I8), (2, Kind.I16), (4, Kind.I32), (8, Kind.I64)
    )},
    "m8": (Kind.I64, ()),
    "M8": (Kind.I64, ()),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Element:
    """One element of an array: numbers of ``kind``, ``tail`` of them."""

    kind: Kind
    tail: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """The bytes of one element."""
        return self.kind.width * prod(self.tail)


def element(code: str) -> Element | None:
    """The element a type's name like ``<f4`` says, or ``None`` for texts, objects and records.

    A number whose high byte comes first orders by no kind there is; it is a row of bytes.
    """
    said = _CODE.fullmatch(code)
    if not said or said[2] + said[3] not in _NUMBERS:
        return None
    kind, tail = _NUMBERS[said[2] + said[3]]
    if said[1] == ">" and kind.width > 1:
        return Element(Kind.I8, (*tail, kind.width))
    return Element(kind, tail)
