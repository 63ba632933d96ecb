"""An ONNX file as a model: its signature, opsets, and the files with its external data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.model.rows.proof import prove_independence
from mlpack.model.servable import UNKNOWN
from mlpack.model.version import Dimension, ModelSignature, TensorSpec
from mlpack.project.importers.external_data import external_files
from mlpack.project.importers.links import allowed_folders
from mlpack.project.importers.onnx_validity import check, without_external
from mlpack.project.importers.recipes import Foreign
from mlpack.project.importers.recognise import recognise, recognise_protobuf
from mlpack.project.importers.source import (
    Graph,
    ModelSource,
    UnreadableModel,
    require_regular,
    utf8,
)
from mlpack.stores.files import open_file

if TYPE_CHECKING:
    from onnx import (
        AttributeProto,
        GraphProto,
        ModelProto,
        NodeProto,
        TensorProto,
        TypeProto,
        ValueInfoProto,
    )

MAX_BYTES = 2**31 - 1
"""The limit of a protobuf message (protobuf.dev, *Encoding*, size limits)."""

_DTYPES = {"FLOAT": "float32", "DOUBLE": "float64"}
_ONNX = "ai.onnx"
_IR_WITH_DEFAULTS = 4
"""The first IR whose initialisers are defaults if they are listed as inputs (ONNX's IR.md)."""
_MOST_DEFAULTS = 1024
"""Elements of all inputs with a default; more are weights, which PyTorch 1.2 listed as inputs.

``mlpack/runtime/onnx.py`` has the same number.
"""

_FIRST_FIELD = b"\x08"
"""The key of ``ir_version``, the first field every exporter writes."""


def read_onnx(path: Path, folder: Path | None = None) -> ModelSource:
    """Read the ONNX file at ``path`` and find its external data; raise :class:`UnreadableModel`.

    Links to its data may lead into ``folder``, by default its own.
    """
    graph, external, stripped = _read(path, allowed_folders(folder or path.parent))
    return ModelSource(
        framework="onnx",
        content={path.name: path, **external},
        graph=graph,
        notes=check(path, graph, stripped),
    )


def _read(path: Path, folders: tuple[Path, ...]) -> tuple[Graph, dict[str, Path], bytes | None]:
    # A function of its own, so that the parsed model is gone when the checker parses its own:
    # one at a time, a model of 100 MB takes 230 MB of memory instead of 340.
    model = parse_onnx(path)
    graph, external = describe(model), external_files(path, tensors(model), folders)
    return graph, external, without_external(model, tensors(model)) if external else None


def parse_onnx(path: Path) -> ModelProto:
    """Parse the file without its external data; it is not validated yet."""
    size = require_regular(path)
    if size > MAX_BYTES:
        raise UnreadableModel(
            f"{path} is {size} bytes; an ONNX file has at most {MAX_BYTES}",
            hint="save the weights as external data: onnx.save(…, save_as_external_data=True)",
        )
    if foreign := recognise(path):
        raise refused(path, foreign)
    with open_file(path) as content:
        start = content.read(1)
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise _broken(path, size, start) from error
    # A graph may return its inputs or weights without a node.
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise _broken(path, size, start)
    return model


def describe(model: ModelProto) -> Graph:
    """Return the signature of the model and the operators it needs."""
    declared = {utf8(each.domain) or _ONNX: each.version for each in model.opset_import}
    # A file of IR 1 or 2 declares none and means opset 1 (ONNX's IR.md, *Operator Sets*).
    return Graph(
        signature=_signature(model),
        ir_version=model.ir_version,
        opsets=declared or {_ONNX: 1},
        domains=tuple(sorted(_domains(model))),
        independence=prove_independence(model),
    )


def _domains(model: ModelProto) -> set[str]:
    """Return the domains of the operators that a run needs; functions that nothing calls do not."""
    functions = {(each.domain, each.name): each for each in model.functions}
    found: set[str] = set()
    called: set[tuple[str, str]] = set()
    waiting = [model.graph.node]
    while waiting:
        for node in _walk(waiting.pop()):
            name = (node.domain, node.op_type)
            if name not in functions:
                found.add(utf8(node.domain) or _ONNX)
            elif name not in called:
                called.add(name)
                waiting.append(functions[name].node)
    return found


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor stored in the model's graphs, functions and training data."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from _held(attribute)


def _held(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    yield model.graph
    for training in model.training_info:
        yield from (training.initialization, training.algorithm)
    for node in _nodes(model):
        yield from _subgraphs(node)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    yield from _walk(model.graph.node)
    for training in model.training_info:
        yield from _walk(training.initialization.node)
        yield from _walk(training.algorithm.node)
    for function in model.functions:
        yield from _walk(function.node)


def _walk(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from _walk(graph.node)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _signature(model: ModelProto) -> ModelSignature:
    """Return the inputs and outputs; inputs with a default come last, as onnxruntime lists them."""
    graph = model.graph
    weights = {each.name for each in graph.initializer}
    weights.update(each.values.name for each in graph.sparse_initializer)
    inputs = [_input(each) for each in graph.input if each.name not in weights]
    # Up to IR 3 every weight had to be listed among the inputs and none could be given.
    defaults = [each for each in graph.input if each.name in weights]
    sizes = (prod(_fixed(each)) for each in defaults)
    if model.ir_version >= _IR_WITH_DEFAULTS and sum(sizes) <= _MOST_DEFAULTS:
        inputs += [replace(_tensor(each), optional=True) for each in defaults]
    inputs.sort(key=lambda each: each.optional)
    return ModelSignature(tuple(inputs), tuple(_tensor(each) for each in graph.output))


def _input(info: ValueInfoProto) -> TensorSpec:
    """Return an input; a tensor of ONNX's optional type may be left out."""
    held = info.type.optional_type.elem_type
    if not held.HasField("tensor_type"):
        return _tensor(info)
    from onnx import ValueInfoProto

    return replace(_tensor(ValueInfoProto(name=info.name, type=held)), optional=True)


def _tensor(info: ValueInfoProto) -> TensorSpec:
    kind = info.type.WhichOneof("value")
    if kind not in ("tensor_type", "sparse_tensor_type"):
        return TensorSpec(utf8(info.name), kind.removesuffix("_type") if kind else UNKNOWN, None)
    tensor: TypeProto.Tensor = getattr(info.type, kind)
    dtype = _dtype(tensor.elem_type)
    if kind == "sparse_tensor_type":
        dtype = f"sparse {dtype}"
    if not tensor.HasField("shape"):
        return TensorSpec(utf8(info.name), dtype, None)
    sizes: list[Dimension] = []
    for dimension in tensor.shape.dim:
        known = dimension.WhichOneof("value")
        size = getattr(dimension, known) if known else None
        sizes.append(size if isinstance(size, int) or size is None else utf8(size))
    return TensorSpec(utf8(info.name), dtype, tuple(sizes))


def _fixed(info: ValueInfoProto) -> list[int]:
    return [size for size in _tensor(info).shape or () if isinstance(size, int)]


def _dtype(number: int) -> str:
    from onnx import TensorProto

    if number not in TensorProto.DataType.values():
        return f"type {number}"
    name = str(TensorProto.DataType.Name(number))
    return _DTYPES.get(name, name.lower())


def refused(path: Path, foreign: Foreign) -> UnreadableModel:
    """Return the error for a model of another framework."""
    remedy = f"{foreign.remedy}; or register a folder with it and a scoring script"
    return UnreadableModel(
        f"{path} is not an ONNX file but {foreign.name}", hint=remedy if foreign.remedy else ""
    )


def _broken(path: Path, size: int, start: bytes) -> UnreadableModel:
    if foreign := recognise_protobuf(path):
        return refused(path, foreign)
    if start.startswith(_FIRST_FIELD):
        return UnreadableModel(
            f"{path} is cut short or damaged ({size} bytes that are not a whole ONNX model)",
            hint="copy or export the model again",
        )
    return UnreadableModel(f"{path} is not an ONNX file")
