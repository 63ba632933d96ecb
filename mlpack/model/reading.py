"""Values that a user gives to be scored: on the command line, or as the rows of a CSV file."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlpack.errors import UsageError

_NAMED = re.compile(r"\s*([^\s=,;]+)\s*=(.*)", re.DOTALL)
_NUMBER = re.compile(
    r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*|\s*[-+]?(nan|inf)\s*", re.I | re.ASCII
)
_DELIMITERS = ",;\t"
MAX_FIELD = 16 * 1024 * 1024


class NotATable(UsageError):
    """A CSV file that cannot be read as rows under named columns."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One row as texts: in the order of the model's inputs, or by name."""

    text: str
    """What the user wrote, which may be one text with commas in it."""

    cells: tuple[str, ...] = ()
    named: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """The values of each name; empty if the row is ``cells``."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a CSV file; ``names`` is empty if it has no header."""

    source: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def read_values(text: str) -> Reading:
    """Return the values in ``text``: ``600,38`` or ``tenure=5,plan=pro,sizes=1,2,3``.

    >>> read_values("600, 38").cells
    ('600', '38')
    >>> read_values("tenure=5,plan=pro").named
    (('tenure', ('5',)), ('plan', ('pro',)))
    """
    cells = tuple(each.strip() for each in text.split(","))
    for each in cells:
        if is_number(each) and "inf" not in each.lower() and math.isinf(float(each)):
            raise UsageError(f"{text}: a number is beyond all that a model takes")
    if not _NAMED.fullmatch(cells[0]):
        return Reading(text, cells)
    named: list[tuple[str, tuple[str, ...]]] = []
    for cell in cells:
        found = _NAMED.fullmatch(cell)
        if found:
            named.append((found[1], (found[2].strip(),)))
        else:
            # The next value of a name that has several.
            name, values = named[-1]
            named[-1] = (name, (*values, cell))
    return Reading(text, named=tuple(named))


def read_table(source: str, content: bytes) -> Table:
    """Return the rows of a CSV file with commas, semicolons or tabs; raise :class:`NotATable`.

    The first row is the header unless all of it are numbers.

    >>> read_table("a.csv", b"plan;tenure\\npro;5\\n")
    Table(source='a.csv', names=('plan', 'tenure'), rows=(('pro', '5'),))
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotATable(f"{source} is not UTF-8", hint="save the CSV file as UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    csv.field_size_limit(MAX_FIELD)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [(reader.line_num, tuple(each)) for each in reader if any(map(str.strip, each))]
    except csv.Error as error:
        raise NotATable(f"{source} is not a CSV file ({error})") from error
    if not rows:
        raise NotATable(f"{source} has no rows")
    names = () if all(map(is_number, rows[0][1])) else tuple(map(str.strip, rows[0][1]))
    body = rows[1:] if names else rows
    _require_columns(source, names, [row for _, row in rows], [line for line, _ in rows])
    if not body:
        raise NotATable(f"{source} has a header, but no rows")
    return Table(source, names, tuple(row for _, row in body))


def is_number(text: str) -> bool:
    """Return whether ``text`` is a number.

    >>> is_number("-1.5e3"), is_number("pro"), is_number("")
    (True, False, False)
    """
    return bool(_NUMBER.fullmatch(text))


def _require_columns(
    source: str, names: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int]
) -> None:
    twice = next((each for each in names if names.count(each) > 1), None)
    if twice is not None:
        raise NotATable(f"{source} has two columns {twice!r}", hint="rename one of them")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(rows[0]):
            raise NotATable(
                f"{source}, line {line}: {len(row)} values, but the first line has {len(rows[0])}",
                hint="quote values that contain the separator",
            )
