"""The arrays of an ONNX model (*Open Neural Network Exchange*, onnx.proto).

A tensor's numbers are one block in ``raw_data``, ``float_data`` or ``double_data``, or are in
another file. Integers that are not raw are varints of different widths, so they have no span.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from mlpack.tensor_patch.spans.protobuf import FIXED32, LEN, Field, Message, Wire
from mlpack.tensor_patch.spans.span import (
    MAX_NAME,
    MAX_PATH,
    MAX_RANK,
    MAX_SPANS,
    Damaged,
    External,
    Kind,
    Span,
    array_span,
    inner_path,
)

SUFFIX = ".onnx"
MAX_DEPTH = 32
"""Of graphs within graphs: protobuf's own readers stop at a hundred messages, three a graph."""

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTION = 7, 20, 25
_TRAINING_GRAPHS = 1, 2
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_ATTRIBUTE = 1, 7, 11
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_NODE_OUTPUT, _NODE_NAME, _NODE_ATTRIBUTE = 2, 3, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOATS = 1, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_DIMS, _TYPE, _FLOATS, _NAME, _RAW, _DOUBLES, _EXTERNAL, _LOCATION = 1, 2, 4, 8, 9, 10, 13, 14
_KEY, _VALUE = 1, 2

_KINDS = {
    1: Kind.F32,
    2: Kind.I8,
    3: Kind.I8,
    4: Kind.I16,
    5: Kind.I16,
    6: Kind.I32,
    7: Kind.I64,
    9: Kind.I8,
    10: Kind.F16,
    11: Kind.F64,
    12: Kind.I32,
    13: Kind.I64,
    14: Kind.F32,
    15: Kind.F64,
    16: Kind.BF16,
    **dict.fromkeys(range(17, 29), Kind.I8),  # of eight bits or fewer
}
"""Of ``TensorProto.DataType``; strings (8) have no span."""
_COMPLEX = {14, 15}
"""Pairs of floats."""

_MAX_SIZE = 2**63


def find(view: memoryview) -> list[Span]:
    """Return the arrays in a ``ModelProto``.

    ONNX has no magic: a model is a file that reads as protobuf to its last byte and has a graph.
    Raises :class:`Damaged` for everything else.
    """
    return _read(view).inside


def find_external(view: memoryview, _: str) -> External:
    """Return the arrays in a model's external data files by location, as :func:`find` does."""
    return _read(view).external


def _read(view: memoryview) -> _Reader:
    reader = _Reader(Wire(view))
    reader.model(len(view))
    return reader


class _Reader:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.inside: list[Span] = []
        self.external: External = {}

    def model(self, end: int) -> None:
        model = self._wire.message(0, end)
        if not model.has(_MODEL_GRAPH):
            raise Damaged("no graph")
        for part in model.parts(_MODEL_GRAPH):
            self._graph(part, "", 0)
        for part in model.parts(_MODEL_TRAINING):
            for graph in self._wire.message(*part).parts(*_TRAINING_GRAPHS):
                self._graph(graph, "training/", 0)
        for part in model.parts(_MODEL_FUNCTION):
            function = self._wire.message(*part)
            name = function.text(_FUNCTION_NAME, MAX_NAME)
            for node in function.parts(_FUNCTION_NODE):
                self._node(node, f"{name}/", 0)
            for attribute in function.parts(_FUNCTION_ATTRIBUTE):
                self._attribute(attribute, f"{name}.", 0)

    def _graph(self, part: tuple[int, int], prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Damaged(f"graphs within graphs, more than {MAX_DEPTH} deep")
        graph = self._wire.message(*part)
        for node in graph.parts(_GRAPH_NODE):
            self._node(node, prefix, depth)
        for tensor in graph.parts(_GRAPH_TENSOR):
            self._tensor(tensor, prefix)
        for sparse in graph.parts(_GRAPH_SPARSE):
            self._sparse(sparse, prefix)

    def _node(self, part: tuple[int, int], prefix: str, depth: int) -> None:
        node = self._wire.message(*part)
        # An output always has a name that is unique in the graph; a node's name is optional.
        name = node.text(_NODE_OUTPUT, MAX_NAME) or node.text(_NODE_NAME, MAX_NAME)
        for attribute in node.parts(_NODE_ATTRIBUTE):
            self._attribute(attribute, f"{prefix}{name}.", depth)

    def _attribute(self, part: tuple[int, int], prefix: str, depth: int) -> None:
        attribute = self._wire.message(*part)
        name = f"{prefix}{attribute.text(_ATTRIBUTE_NAME, MAX_NAME)}"[-MAX_NAME:]
        for field in attribute.fields(_ATTRIBUTE_FLOATS):
            self._numbers(field, name, Kind.F32)
        for tensor in attribute.parts(*_ATTRIBUTE_TENSORS):
            self._tensor(tensor, f"{name}.")
        for sparse in attribute.parts(*_ATTRIBUTE_SPARSE):
            self._sparse(sparse, f"{name}.")
        for graph in attribute.parts(*_ATTRIBUTE_GRAPHS):
            self._graph(graph, f"{name}/", depth + 1)

    def _sparse(self, part: tuple[int, int], prefix: str) -> None:
        sparse = self._wire.message(*part)
        for number, within in ((_SPARSE_VALUES, prefix), (_SPARSE_INDICES, f"{prefix}indices.")):
            for tensor in sparse.parts(number):
                self._tensor(tensor, within)

    def _tensor(self, part: tuple[int, int], prefix: str) -> None:
        tensor = self._wire.message(*part)
        # Names are cut to their end, where the tensor's own part is.
        name = (prefix + tensor.text(_NAME, MAX_NAME)).removesuffix(".")
        code = tensor.number(_TYPE)
        kind = _KINDS.get(code)
        shape = tensor.numbers(_DIMS, MAX_RANK + 1) + ((2,) if code in _COMPLEX else ())
        if tensor.number(_LOCATION):
            self._external(tensor, name, kind, shape)
            return
        for number, typed in ((_FLOATS, Kind.F32), (_DOUBLES, Kind.F64), (_RAW, kind)):
            for field in tensor.fields(number):
                self._numbers(field, name, typed, shape)

    def _numbers(
        self, field: Field, name: str, kind: Kind | None, shape: tuple[int, ...] | None = None
    ) -> None:
        """Add numbers in one block, or each after its tag as records of bytes.

        onnx.proto packs the numbers of tensors but not the floats of attributes, so a tree
        ensemble is a table of the tag and four bytes.
        """
        start, length = field.start, field.end - field.start
        if field.wire == LEN and kind:
            self._keep(self.inside, array_span(name, start, length, kind, shape))
        elif field.wire == FIXED32 and length > _RECORD:
            records = (length // _RECORD, _RECORD)
            self._keep(self.inside, array_span(name, start, length, Kind.I8, records))

    def _external(
        self, tensor: Message, name: str, kind: Kind | None, shape: tuple[int, ...]
    ) -> None:
        """Add a tensor whose numbers are in another file (*External Data*)."""
        entries = dict[str, str]()
        for part in tensor.parts(_EXTERNAL):
            entry = self._wire.message(*part)
            entries[entry.text(_KEY, MAX_NAME)] = entry.text(_VALUE, MAX_PATH + 1)
        location = inner_path(entries.get("location", ""))
        offset = _amount(entries.get("offset", "0"))
        if not location or not kind or offset is None:
            return
        length = _amount(entries.get("length", str(prod(shape) * kind.width)))
        if length is not None and offset + length < _MAX_SIZE:
            found = self.external.setdefault(location, [])
            self._keep(found, array_span(name, offset, length, kind, shape))

    def _keep(self, found: list[Span], spans: Iterator[Span]) -> None:
        if len(found) >= MAX_SPANS:
            raise Damaged(f"more than {MAX_SPANS} arrays")
        found.extend(spans)


_RECORD = 5
"""Bytes of a float that is not packed: its tag and four."""


def _amount(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
