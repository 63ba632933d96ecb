"""The instructions of a pickle, where each lies and how long it is (pickletools, *PEP 3154*).

Nothing is loaded: of ``pickletools`` only its table of instructions is used.
"""

from __future__ import annotations

import pickletools
import re
from typing import NamedTuple

from mlpack.delta.spans.span import MAX_NAME, Damaged

MAX_LINE = 4096

_LINE = re.compile(rb"[^\n]{0,%d}+\n" % MAX_LINE)
_LINES = {"GLOBAL": 2, "INST": 2}
"""How many lines an argument of lines has, where it is not one."""
_COUNTED = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""How many bytes say how long an argument is."""
_ARGUMENTS = {
    ord(each.code): (each.name, each.arg.n if each.arg else 0) for each in pickletools.opcodes
}


class Instruction(NamedTuple):
    """An instruction by its name in ``pickletools``, and where its argument lies."""

    name: str
    start: int
    end: int


def instruction(view: memoryview, at: int) -> Instruction:
    """The instruction at a byte. Raises :class:`Damaged`."""
    if at >= len(view) or view[at] not in _ARGUMENTS:
        raise Damaged(f"no instruction at byte {at}")
    name, size = _ARGUMENTS[view[at]]
    start = at + 1
    if size in _COUNTED:
        begin = start + _COUNTED[size]
        # Four bytes have a sign in old instructions; a negative length is too long either way.
        end = begin + int.from_bytes(view[start:begin], "little")
        start = begin
    elif size == pickletools.UP_TO_NEWLINE:
        end = start
        for _ in range(_LINES.get(name, 1)):
            line = _LINE.match(view, end)
            end = line.end() if line else len(view) + 1
    else:
        end = start + size
    if end > len(view):
        raise Damaged(f"an argument at byte {at} that ends after the file")
    return Instruction(name, start, end)


def text(view: memoryview, start: int, end: int) -> str:
    """An argument as text; its first bytes, where it is no name but a book."""
    return view[start : min(end, start + MAX_NAME)].tobytes().decode("utf-8", "replace")


def line(view: memoryview, start: int, end: int) -> str:
    """An argument of one line as text."""
    return text(view, start, end - 1)


def path(view: memoryview, start: int, end: int) -> str:
    """An argument of two lines, a module and a name in it."""
    return ".".join(view[start:end].tobytes().decode("utf-8", "replace").split("\n")[:2])


def integer(view: memoryview, start: int, end: int) -> int | None:
    """An argument that is an integer with a sign, or ``None`` for one no array's size can be."""
    if end - start > 8:
        return None
    return int.from_bytes(view[start:end], "little", signed=True)


def unsigned(view: memoryview, start: int, end: int) -> int:
    """An argument that is an integer without a sign."""
    return int.from_bytes(view[start:end], "little")


def decimal(view: memoryview, start: int, end: int) -> int | None:
    """An argument that is an integer on a line; ``01`` and ``00`` are truth values."""
    said = line(view, start, end).removesuffix("L")
    return int(said) if re.fullmatch(r"-?[0-9]{1,19}", said) else None
