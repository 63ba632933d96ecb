"""ONNX files: parsed and checked by the onnx package, with the external data beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.model.version import Dimension, Signature, TensorSpec
from mlpack.stores.importers.external_data import external_files
from mlpack.stores.importers.source import (
    Graph,
    ModelSource,
    UnreadableModel,
    first_line,
    require_regular,
)

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
"""No protobuf message may be longer (protobuf.dev, *Encoding*, size limits)."""

_DTYPES = {"FLOAT": "float32", "DOUBLE": "float64"}
_ONNX = "ai.onnx"

_MARKS: tuple[tuple[bytes, int, str], ...] = (
    (b"version https://git-lfs", 0, "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (b"\x80", 0, "a pickle"),
    (b"PK\x03\x04", 0, "a ZIP archive (PyTorch and Keras save such): export it to ONNX"),
    (b"\x89HDF", 0, "an HDF5 file (Keras saves such): export it to ONNX"),
    (b"TFL3", 4, "a TensorFlow Lite file: convert it to ONNX"),
    (b"GGUF", 0, "a GGUF file, which onnxruntime does not run"),
    (b"\x1f\x8b", 0, "gzip-compressed: unpack it first"),
    (b"{", 0, "JSON"),
    (b"<", 0, "HTML or XML: was it downloaded whole?"),
)
"""Bytes, where they stand, and what such a file is."""

_FIRST_FIELD = b"\x08"
"""The key of ``ir_version``: every exporter writes the fields in order, and that one first."""


def read_onnx(path: Path) -> ModelSource:
    """Read the ONNX file at ``path`` and find its external data; raise :class:`UnreadableModel`."""
    graph, external = _read(path)
    _check(path)
    return ModelSource(framework="onnx", content={path.name: path, **external}, graph=graph)


def _read(path: Path) -> tuple[Graph, dict[str, Path]]:
    # A function of its own, so that the parsed model is gone when the checker parses its own:
    # one at a time, a model of 100 MB takes 230 MB of memory instead of 340.
    model = parse_onnx(path)
    return describe(model), external_files(path, tensors(model))


def parse_onnx(path: Path) -> ModelProto:
    """Parse the file, without its external data and not yet checked."""
    size = require_regular(path)
    if size > MAX_BYTES:
        raise UnreadableModel(
            f"{path} is {size} bytes; an ONNX file ends at {MAX_BYTES}",
            hint="save the weights as external data: onnx.save(…, save_as_external_data=True)",
        )
    with path.open("rb") as content:
        start = content.read(64)
    _refuse_others(path, start)
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise _broken(path, size, start) from error
    if not model.HasField("graph") or not model.graph.node:
        raise _broken(path, size, start)
    return model


def describe(model: ModelProto) -> Graph:
    """What the model says of its tensors and of the operators it needs."""
    declared = {each.domain or _ONNX: each.version for each in model.opset_import}
    local = {(each.domain, each.name) for each in model.functions}
    used = {
        node.domain or _ONNX for node in _nodes(model) if (node.domain, node.op_type) not in local
    }
    # A file of IR 1 or 2 declares none and means opset 1 (ONNX's IR.md, *Operator Sets*).
    return Graph(
        signature=_signature(model.graph),
        ir_version=model.ir_version,
        opsets=declared or {_ONNX: 1},
        domains=tuple(sorted(used)),
    )


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor stored in the model, in its graphs, functions and training data."""
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


def _signature(graph: GraphProto) -> Signature:
    # Up to IR 3 the weights were listed among the inputs.
    weights = {each.name for each in graph.initializer}
    return Signature(
        tuple(_tensor(each) for each in graph.input if each.name not in weights),
        tuple(_tensor(each) for each in graph.output),
    )


def _tensor(info: ValueInfoProto) -> TensorSpec:
    kind = info.type.WhichOneof("value")
    if kind not in ("tensor_type", "sparse_tensor_type"):
        return TensorSpec(info.name, kind.removesuffix("_type") if kind else "unknown", None)
    tensor: TypeProto.Tensor = getattr(info.type, kind)
    dtype = _dtype(tensor.elem_type)
    if not tensor.HasField("shape"):
        return TensorSpec(info.name, dtype, None)
    sizes: list[Dimension] = []
    for dimension in tensor.shape.dim:
        known = dimension.WhichOneof("value")
        sizes.append(getattr(dimension, known) if known else None)
    return TensorSpec(info.name, dtype, tuple(sizes))


def _dtype(number: int) -> str:
    from onnx import TensorProto

    if number not in TensorProto.DataType.values():
        return f"type {number}"
    name = str(TensorProto.DataType.Name(number))
    return _DTYPES.get(name, name.lower())


def _check(path: Path) -> None:
    """Ask onnx.checker, by path: so it looks at the external data too, and does not copy it."""
    from onnx import checker

    try:
        checker.check_model(str(path))
    except checker.ValidationError as error:
        raise UnreadableModel(
            f"{path} is not a valid ONNX model: {first_line(error)}",
            hint="export the model again; onnx.checker.check_model says more",
        ) from error


def _refuse_others(path: Path, start: bytes) -> None:
    for mark, place, what in _MARKS:
        if start[place:].startswith(mark):
            raise UnreadableModel(f"{path} is not an ONNX file but {what}")


def _broken(path: Path, size: int, start: bytes) -> UnreadableModel:
    if start.startswith(_FIRST_FIELD):
        return UnreadableModel(
            f"{path} is cut short or damaged ({size} bytes that are no whole ONNX model)",
            hint="copy or export the model again",
        )
    return UnreadableModel(f"{path} is not an ONNX file")
