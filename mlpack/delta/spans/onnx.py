"""The arrays of an ONNX model (*Open Neural Network Exchange*, onnx.proto).

A tensor's numbers are one block in ``raw_data``, ``float_data`` or ``double_data``, or lie in
another file. Integers that are not raw are varints: no block of equal numbers, so no span.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from mlpack.delta.spans.protobuf import FIXED32, LEN, Field, Message, Wire
from mlpack.delta.spans.span import MAX_NAME, MAX_RANK, MAX_SPANS, Damaged, Kind, Span, array

MAX_DEPTH = 32
"""Of graphs within graphs: protobuf's own readers stop at a hundred messages, three a graph."""

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTION = 7, 20, 25
_TRAINING = (1, 2)
_FUNCTION = (1, 7, 11)
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_ATTRIBUTE = _FUNCTION
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_NODE = (2, 3, 5)
_NODE_OUTPUT, _NODE_NAME, _NODE_ATTRIBUTE = _NODE
_ATTRIBUTE = (1, 7, 5, 10, 6, 11, 22, 23)
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOATS = 1, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_SPARSE = (1, 2)
_SPARSE_VALUES, _SPARSE_INDICES = _SPARSE
_TENSOR = (1, 2, 4, 8, 9, 10, 13, 14)
_DIMS, _TYPE, _FLOATS, _NAME, _RAW, _DOUBLES, _EXTERNAL, _LOCATION = _TENSOR
_ENTRY = (1, 2)
_KEY, _VALUE = _ENTRY

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
"""``TensorProto.DataType``; texts (8) are no numbers."""
_COMPLEX = {14, 15}
"""As pairs of floats."""

_MAX_PATH = 4096
_MAX_SIZE = 2**63


def find(view: memoryview) -> tuple[list[Span], dict[str, list[Span]]]:
    """The arrays in a ``ModelProto``, and by location those in files beside it.

    ONNX has no magic: a model is what reads as protobuf to its last byte and has a graph.
    Raises :class:`Damaged` for everything else.
    """
    reader = _Reader(Wire(view))
    reader.model(len(view))
    return reader.inside, reader.beside


class _Reader:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.inside: list[Span] = []
        self.beside: dict[str, list[Span]] = {}

    def model(self, end: int) -> None:
        graphs = 0
        for number, wire, begin, stop in self._wire.fields(0, end):
            if number == _MODEL_GRAPH:
                graphs += 1
                self._model_graph(wire, begin, stop)
            elif number == _MODEL_TRAINING and wire == LEN:
                training = self._wire.message(begin, stop, _TRAINING)
                for part in training.parts(*_TRAINING):
                    self._graph(*part, "training/", 0)
            elif number == _MODEL_FUNCTION and wire == LEN:
                self._function(self._wire.message(begin, stop, _FUNCTION))
        if not graphs:
            raise Damaged("no graph")

    def _model_graph(self, wire: int, start: int, end: int) -> None:
        if wire != LEN:
            raise Damaged("a graph that is no message")
        self._graph(start, end, "", 0)

    def _function(self, function: Message) -> None:
        name = function.text(_FUNCTION_NAME, MAX_NAME)
        for part in function.parts(_FUNCTION_NODE):
            self._node(self._wire.message(*part, _NODE), f"{name}/", 0)
        for part in function.parts(_FUNCTION_ATTRIBUTE):
            self._attribute(self._wire.message(*part, _ATTRIBUTE), f"{name}.", 0)

    def _graph(self, start: int, end: int, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Damaged(f"graphs within graphs, more than {MAX_DEPTH} deep")
        for number, wire, begin, stop in self._wire.fields(start, end):
            if wire != LEN:
                continue
            if number == _GRAPH_NODE:
                self._node(self._wire.message(begin, stop, _NODE), prefix, depth)
            elif number == _GRAPH_TENSOR:
                self._tensor(self._wire.message(begin, stop, _TENSOR), prefix)
            elif number == _GRAPH_SPARSE:
                self._sparse(self._wire.message(begin, stop, _SPARSE), prefix)

    def _node(self, node: Message, prefix: str, depth: int) -> None:
        attributes = list(node.parts(_NODE_ATTRIBUTE))
        if not attributes:
            return
        # An output always has a name, and it is the graph's own; a node need have none.
        name = node.text(_NODE_OUTPUT, MAX_NAME) or node.text(_NODE_NAME, MAX_NAME)
        for part in attributes:
            self._attribute(self._wire.message(*part, _ATTRIBUTE), f"{prefix}{name}.", depth)

    def _attribute(self, attribute: Message, prefix: str, depth: int) -> None:
        name = f"{prefix}{attribute.text(_ATTRIBUTE_NAME, MAX_NAME)}"[-MAX_NAME:]
        for field in attribute.fields(_ATTRIBUTE_FLOATS):
            self._numbers(field, name, Kind.F32)
        for part in attribute.parts(*_ATTRIBUTE_TENSORS):
            self._tensor(self._wire.message(*part, _TENSOR), f"{name}.")
        for part in attribute.parts(*_ATTRIBUTE_SPARSE):
            self._sparse(self._wire.message(*part, _SPARSE), f"{name}.")
        for part in attribute.parts(*_ATTRIBUTE_GRAPHS):
            self._graph(*part, f"{name}/", depth + 1)

    def _sparse(self, sparse: Message, prefix: str) -> None:
        for number, within in ((_SPARSE_VALUES, prefix), (_SPARSE_INDICES, f"{prefix}indices.")):
            for part in sparse.parts(number):
                self._tensor(self._wire.message(*part, _TENSOR), within)

    def _tensor(self, tensor: Message, prefix: str) -> None:
        # Only what would be kept of a name is read: the end, where the tensor's own part stands.
        name = (prefix + tensor.text(_NAME, MAX_NAME)).removesuffix(".")
        shape = tensor.numbers(_DIMS, MAX_RANK + 1)
        code = next(iter(tensor.numbers(_TYPE, 1)), 0)
        kind = _KINDS.get(code)
        if code in _COMPLEX:
            shape += (2,)
        if any(tensor.numbers(_LOCATION, 1)):
            self._beside(tensor, name, kind, shape)
            return
        for number, typed in ((_FLOATS, Kind.F32), (_DOUBLES, Kind.F64), (_RAW, kind)):
            for field in tensor.fields(number):
                self._numbers(field, name, typed, shape)

    def _numbers(
        self, field: Field, name: str, kind: Kind | None, shape: tuple[int, ...] | None = None
    ) -> None:
        """Numbers in one block; or each after its tag, which makes records of bytes of them.

        onnx.proto packs the numbers of tensors but not the floats of attributes, so what a tree
        ensemble holds is a table of the tag and four bytes.
        """
        start, length = field.start, field.end - field.start
        if field.wire == LEN and kind:
            self._keep(self.inside, array(name, start, length, kind, shape))
        elif field.wire == FIXED32 and length > _RECORD:
            records = (length // _RECORD, _RECORD)
            self._keep(self.inside, array(name, start, length, Kind.I8, records))

    def _beside(
        self, tensor: Message, name: str, kind: Kind | None, shape: tuple[int, ...]
    ) -> None:
        """A tensor whose numbers are in another file (*External Data*)."""
        said = dict[str, str]()
        for part in tensor.parts(_EXTERNAL):
            entry = self._wire.message(*part, _ENTRY)
            said[entry.text(_KEY, MAX_NAME)] = entry.text(_VALUE, _MAX_PATH + 1)
        location = _inner_path(said.get("location", ""))
        offset = _amount(said.get("offset", "0"))
        if not location or not kind or offset is None:
            return
        length = _amount(said.get("length", str(prod(shape) * kind.width)))
        if length is not None and offset + length < _MAX_SIZE:
            found = self.beside.setdefault(location, [])
            self._keep(found, array(name, offset, length, kind, shape))

    def _keep(self, found: list[Span], spans: Iterator[Span]) -> None:
        if len(found) >= MAX_SPANS:
            raise Damaged(f"more than {MAX_SPANS} arrays")
        found.extend(spans)


_RECORD = 5
"""A float that is not packed: one byte of tag and four."""


def _amount(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _inner_path(text: str) -> str | None:
    """A location that stays below the model's folder, without ``.`` and ``//``."""
    steps = [step for step in text.split("/") if step not in ("", ".")]
    refused = text.startswith("/") or len(text) > _MAX_PATH or ".." in steps
    if refused or not steps or any(sign in text for sign in "\\:\0"):
        return None
    return "/".join(steps)
