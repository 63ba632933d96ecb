"""What a running module takes, as it describes itself, and requests made of a user's values.

Sources: the module's ``/swagger.json``, and its model metadata of the Open Inference Protocol.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlpack.errors import UsageError
from mlpack.humanize import counted, nearest
from mlpack.model.reading import Reading, Table, is_number
from mlpack.model.sample import JSON, Sample

MOST_ROWS = 1000
"""Rows of one request."""
MOST_VALUES = 1_000_000
"""Values of one request."""

FIELDS = "x-fields"
"""The member of ``params`` in ``/swagger.json`` that names a script's numbers."""

MODEL_ALONE = "onnx_onnxv1"
"""The platform, in model metadata, of a model without a script."""

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_SHOWN = 12
_ANY = -1


class Unfitting(UsageError):
    """Values that do not fit what the module takes."""


@dataclass(frozen=True, slots=True)
class Column:
    """One value of a row: its name, its type in the protocol, and the input that it is part of."""

    name: str
    datatype: str
    input: str


@dataclass(frozen=True, slots=True)
class ModuleInput:
    """One input as in model metadata; a dimension of any length is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one row: without a first dimension that is free or one."""
        rowed = bool(self.shape) and self.shape[0] in (_ANY, 1)
        return self.shape[1:] if rowed else self.shape

    @property
    def width(self) -> int | None:
        """The number of values of one row; ``None`` if it is free."""
        return None if _ANY in self.row else math.prod(self.row)

    def columns(self) -> tuple[Column, ...]:
        """The columns of one row; none if their number is free."""
        width = self.width or 0
        names = [self.name] if width == 1 else [f"{self.name}[{n}]" for n in range(width)]
        return tuple(Column(each, self.datatype, self.name) for each in names)


@dataclass(frozen=True, slots=True)
class ModuleInterface:
    """What a module takes: a script's numbers, a model's inputs, or nothing that is known."""

    fields: tuple[str, ...] | None = None
    """Names of the numbers in ``params``; ``None`` if the module takes no ``params``."""

    inputs: tuple[ModuleInput, ...] = ()

    @property
    def required(self) -> tuple[ModuleInput, ...]:
        """The inputs without a default."""
        return tuple(each for each in self.inputs if not each.optional)

    @property
    def batches(self) -> bool:
        """Whether one request can have several rows."""
        free = [bool(each.shape) and each.shape[0] == _ANY for each in self.required]
        return self.fields is None and bool(free) and all(free)

    def columns(self) -> tuple[Column, ...]:
        """The columns of one row, in the order in which values without names are taken."""
        if self.fields is not None:
            return tuple(Column(each, "FP64", "params") for each in self.fields)
        return tuple(column for each in self.required for column in each.columns())

    def __str__(self) -> str:
        if self.inputs and self.fields is None:
            return ", ".join(f"{each.name} {_notation(each.shape)}" for each in self.required)
        return _listed([each.name for each in self.columns()]) or "values in an unknown order"


def read_interface(swagger: object, metadata: object) -> ModuleInterface:
    """Return what a module takes, from its two documents; what is not understood is not known."""
    params = _member(swagger, "components", "schemas", "ServiceInput", "properties", "params")
    alone = _member(metadata, "platform") == MODEL_ALONE
    if isinstance(params, Mapping) and not alone:
        names = params.get(FIELDS)
        return ModuleInterface(tuple(map(str, names)) if isinstance(names, list) else ())
    listed = _member(metadata, "inputs")
    found = [_input(each) for each in listed] if isinstance(listed, list) else []
    return ModuleInterface(inputs=tuple(each for each in found if each is not None))


def module_name(swagger: object) -> str:
    """Return the model's name in a module's ``/swagger.json``; empty if it has none."""
    name = _member(swagger, "info", "title")
    return name if isinstance(name, str) else ""


def from_reading(reading: Reading, interface: ModuleInterface) -> Sample:
    """Return the request for one row; raise :class:`Unfitting`."""
    columns = interface.columns()
    if len(columns) == 1 and columns[0].datatype == "BYTES" and not reading.named:
        row: dict[str, object] = _row([reading.text], interface)
    elif not reading.named:
        row = _row(reading.cells, interface)
    else:
        row = _named_row(reading, interface)
    return Sample(reading.text, _body([row], interface), JSON)


def from_table(table: Table, interface: ModuleInterface) -> list[Sample]:
    """Return requests for the rows of a CSV file, in their order; raise :class:`Unfitting`."""
    places = _places(table, interface)
    rows = [
        _row([row[place] for place in places], interface, f"{table.source}, row {number}: ")
        for number, row in enumerate(table.rows, 1)
    ]
    most = min(MOST_ROWS, max(1, MOST_VALUES // max(1, len(places)))) if interface.batches else 1
    parts = [(at, rows[at : at + most]) for at in range(0, len(rows), most)]
    return [
        Sample(_slice_name(table, at, len(part)), _body(part, interface), JSON, len(part))
        for at, part in parts
    ]


def ignored(table: Table, interface: ModuleInterface) -> tuple[str, ...]:
    """Return the columns of a CSV file that the module does not take."""
    places = set(_places(table, interface))
    return tuple(name for place, name in enumerate(table.names) if place not in places)


def _slice_name(table: Table, at: int, count: int) -> str:
    return f"{table.source}, row{f's {at + 1}-' if count > 1 else ' '}{at + count}"


def _places(table: Table, interface: ModuleInterface) -> Sequence[int]:
    """Return the place in a file's rows of each column that the module takes."""
    width = len(table.names) or len(table.rows[0])
    columns = interface.columns()
    free = [each for each in interface.required if each.width is None]
    if not columns and not (interface.fields and table.names):
        return range(width)
    known = {name.casefold(): place for place, name in enumerate(table.names)}
    missing = [each.name for each in columns if each.name.casefold() not in known]
    if not missing:
        return [known[each.name.casefold()] for each in columns]
    # Columns of one array have no names that a file could have.
    unnamed = (
        not table.names or all(each.input != each.name for each in columns) or len(columns) == 1
    )
    if (unnamed and width == len(columns) and len(missing) == len(columns)) or free:
        return range(width)
    if not table.names or len(missing) == len(columns):
        raise Unfitting(
            f"{table.source} has {counted(width, 'column')}, but the module takes "
            f"{len(columns)}: {_listed([each.name for each in columns])}",
            hint="name the columns in the first line as the module does",
        )
    near = nearest(missing[0], table.names)
    raise Unfitting(f"{table.source} has no column {missing[0]!r}{near}")


def _row(cells: Sequence[str], interface: ModuleInterface, where: str = "") -> dict[str, object]:
    """Return the members of one row for values in order."""
    if interface.fields is not None or not interface.required:
        values = [_unknown(each) for each in cells]
        if interface.fields and len(values) != len(interface.fields):
            raise _miscounted(len(cells), len(interface.fields), interface, where)
        return {"params" if interface.fields is not None else "data": values}
    widths = [each.width for each in interface.required]
    known = sum(each for each in widths if each is not None)
    free = sum(each is None for each in widths)
    if free > 1 or (free == 0 and known != len(cells)) or known > len(cells):
        raise _miscounted(len(cells), known, interface, where)
    left = iter(cells)
    return {
        each.name: _value(
            [next(left) for _ in range(len(cells) - known if width is None else width)], each, where
        )
        for each, width in zip(interface.required, widths, strict=True)
    }


def _named_row(reading: Reading, interface: ModuleInterface) -> dict[str, object]:
    given = dict(reading.named)
    if interface.fields is None and not interface.inputs:
        return {
            name: _unknown(values[0]) if len(values) == 1 else [_unknown(each) for each in values]
            for name, values in given.items()
        }
    columns = [each.name for each in interface.columns()]
    known = [*columns, *(each.name for each in interface.inputs)]
    for name in given:
        if name not in known:
            near = nearest(name, known)
            raise Unfitting(f"the module has no input {name!r}{near}; it takes {interface}")
    if interface.fields is not None:
        return _row([_only(given, each) for each in columns], interface)
    return {
        each.name: _value(_cells(each, given, interface), each, "")
        for each in interface.inputs
        if not each.optional or _is_given(each, given)
    }


def _is_given(input_: ModuleInput, given: Mapping[str, Sequence[str]]) -> bool:
    return input_.name in given or any(each.name in given for each in input_.columns())


def _cells(
    input_: ModuleInput, given: Mapping[str, Sequence[str]], interface: ModuleInterface
) -> Sequence[str]:
    """Return an input's values, given by its own name or by those of its columns."""
    if input_.name in given:
        return given[input_.name]
    if not _is_given(input_, given):
        raise Unfitting(f"{input_.name} is missing; the module takes {interface}")
    return [_only(given, each.name) for each in input_.columns()]


def _only(given: Mapping[str, Sequence[str]], name: str) -> str:
    values = given.get(name, ())
    if len(values) != 1:
        problem = f"{name} has {len(values)} values, not one" if values else f"{name} is missing"
        raise Unfitting(f"{problem}: write it as {name}=VALUE")
    return values[0]


def _value(cells: Sequence[str], input_: ModuleInput, where: str) -> object:
    """Return the value of one row of an input, nested as its shape is."""
    width = input_.width
    if width is not None and len(cells) != width:
        raise Unfitting(
            f"{where}{input_.name} {_notation(input_.shape)} takes {counted(width, 'value')}, "
            f"{len(cells)} given"
        )
    flat = [_typed(each, input_, where) for each in cells]
    sizes = [size if size != _ANY else 1 for size in input_.row]
    if width is None:
        sizes[-1] = len(flat)
    return _nested(flat, sizes)


def _typed(cell: str, input_: ModuleInput, where: str) -> object:
    text, datatype = cell.strip(), input_.datatype
    if datatype == "BYTES":
        return cell
    if datatype == "BOOL" and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    if datatype == "BOOL":
        raise Unfitting(f"{where}{input_.name} takes true or false, not {cell!r}")
    if datatype.startswith("FP"):
        if not text:
            return None  # a missing value, which the module takes where the user allows it
        if is_number(text):
            return _finite(float(text))
        raise Unfitting(f"{where}{input_.name} takes a number, not {cell!r}")
    if is_number(text) and _finite(float(text)) is not None and float(text).is_integer():
        return int(text) if text.lstrip("+-").isdecimal() else int(float(text))
    raise Unfitting(f"{where}{input_.name} takes a whole number, not {cell!r}")


def _unknown(cell: str) -> object:
    """Return a value whose type the module does not say."""
    if not is_number(cell):
        return cell
    if cell.strip().lstrip("+-").isdecimal():
        return int(cell)
    return _finite(float(cell))


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _body(rows: Sequence[Mapping[str, object]], interface: ModuleInterface) -> bytes:
    """Return the JSON of a request; inputs without a free first dimension have one row."""
    [first] = rows[:1]
    if interface.fields is not None:
        return json.dumps(first).encode()
    if not interface.inputs:
        document = {"data": [row["data"] for row in rows]} if "data" in first else first
        return json.dumps(document).encode()
    rowed = {each.name: len(each.row) < len(each.shape) for each in interface.inputs}
    made = {name: [row[name] for row in rows] if rowed[name] else first[name] for name in first}
    return json.dumps(made).encode()


def _nested(flat: Sequence[object], sizes: Sequence[int]) -> object:
    if not sizes:
        return flat[0]
    if len(sizes) == 1:
        return list(flat)
    step = len(flat) // sizes[0]
    return [_nested(flat[at * step : (at + 1) * step], sizes[1:]) for at in range(sizes[0])]


def _miscounted(given: int, taken: int, interface: ModuleInterface, where: str) -> Unfitting:
    return Unfitting(
        f"{where}{counted(given, 'value')} given, but the module takes {taken}: {interface}"
    )


def _notation(shape: Iterable[int]) -> str:
    return f"[{', '.join('N' if each == _ANY else str(each) for each in shape)}]"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _member(document: object, *path: str) -> object:
    for name in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def _input(described: object) -> ModuleInput | None:
    shape, name = _member(described, "shape"), _member(described, "name")
    datatype = _member(described, "datatype")
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
        return None
    if not all(isinstance(each, int) and each >= _ANY for each in shape):
        return None
    optional = _member(described, "optional") is True
    return ModuleInput(name, datatype, tuple(shape), optional)
