"""Proof that row i of each output of an ONNX model depends on row i of its inputs alone.

Only then may requests of different clients be joined on axis 0 and scored in one run. The proof
follows the axis of the rows through the graph, operator by operator. What it does not know, it
refuses: such a model is scored one request at a time, which is slower and right.

For each tensor the proof holds one of three facts, true for any number of rows:

- *constant*: its value and shape are the same in every run;
- *sizes*: it depends on the number of rows and nothing else, as the result of ``Shape`` does;
- *rows on axis k*: slice i along axis k depends on row i alone, and there is one for each row.

Operators' semantics: onnx/docs/Operators.md and Operators-ml.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from mlpack.model.rows import (
    Independence,
    arithmetic,  # noqa: F401  (adds its rules)
    layout,
    tables,
)
from mlpack.model.rows.node import (
    CONSTANT,
    ML,
    RANDOM,
    ROWS,
    RULES,
    SMALL,
    Fact,
    Node,
    NotProved,
    Rows,
    Shape,
    Sizes,
)

if TYPE_CHECKING:
    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_FOLDED = frozenset({"Cast", "Concat", "Gather", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose value is computed if their inputs are small constants: they make axes."""


def prove_independence(model: ModelProto) -> Independence:
    """Return whether row i of each output depends on row i of the inputs alone.

    Axis 0 of every input counts as the rows, except inputs with a default: joined requests leave
    them out. The weights need not be loaded.
    """
    try:
        proof = _Proof(_light(model))
        proof.run()
    except NotProved as reason:
        return Independence(False, str(reason))
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        # A damaged file may hold any number anywhere; onnxruntime says what is wrong with it.
        return Independence(False, f"the graph contradicts itself ({type(error).__name__})")
    return Independence(True)


class _Proof:
    """The facts about the tensors of one graph, established node by node."""

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._opsets = {each.domain: each.version for each in model.opset_import}
        self._shapes = _shapes(model)
        self._values = dict(_small_values(model.graph.initializer))
        self._facts: dict[str, Fact] = {"": CONSTANT}
        for weight in model.graph.initializer:
            self._facts[weight.name] = CONSTANT
        for each in model.graph.input:
            self._facts[each.name] = Rows(0) if _has_rows(each) else CONSTANT

    def run(self) -> None:
        for node in self._graph.node:
            self._follow(node)
        for each in self._graph.output:
            if self._facts.get(each.name) != Rows(0):
                raise NotProved(f"output {each.name!r} does not have one element for each row")

    def _follow(self, proto: NodeProto) -> None:
        missing = [name for name in proto.input if name not in self._facts]
        if missing:
            raise NotProved(f"tensor {missing[0]!r} is unknown")
        self._fold(proto)
        node = Node(
            proto,
            opset=self._opsets.get(proto.domain, 1),
            facts=tuple(self._facts[name] for name in proto.input),
            shapes=self._shapes,
            values=self._values,
        )
        found = _conclude(node)
        each = found if isinstance(found, tuple) else (found,) * len(proto.output)
        self._facts.update(zip(proto.output, each, strict=False))
        self._facts[""] = CONSTANT  # outputs left out and inputs left out share this name

    def _fold(self, proto: NodeProto) -> None:
        """Compute a small constant."""
        import numpy as np
        from onnx import numpy_helper
        from onnx.reference import ReferenceEvaluator

        if proto.op_type == "Constant" and proto.attribute and proto.attribute[0].name == "value":
            self._values[proto.output[0]] = numpy_helper.to_array(proto.attribute[0].t)
        elif proto.op_type == "Constant" or (
            proto.op_type in _FOLDED and all(name in self._values for name in proto.input)
        ):
            given = {name: self._values[name] for name in proto.input}
            try:
                found = ReferenceEvaluator(proto).run(None, given)
            except Exception:  # an unusual node: its value stays unknown
                return
            self._values[proto.output[0]] = np.asarray(*found)


def _conclude(node: Node) -> Fact | tuple[Fact, ...]:
    """Return the facts about the outputs of a node from those about its inputs."""
    if node.op in RANDOM or node.has_graphs or node.domain not in ("", ML):
        raise NotProved(f"{node.name} is not known to keep rows apart")
    if not any(isinstance(each, Rows) for each in node.facts):
        if not any(isinstance(each, Sizes) for each in node.facts):
            return CONSTANT
        if node.op not in ("Expand", "ConstantOfShape", "Gather", "Slice"):
            return layout.sizes(node)
    rule = RULES.get((node.domain, node.op))
    if rule is None:
        raise NotProved(f"{node.name} is not known to keep rows apart")
    try:
        return rule(node)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Nothing has checked the file: inputs or attributes may be missing, or of another form.
        raise NotProved(f"{node.name} does not have the form that ONNX describes") from error


def _light(model: ModelProto) -> ModelProto:
    """Return the model without large weights and without shapes that it only declares.

    Its inputs' first dimension is :data:`~.node.ROWS`.
    """
    from onnx import ModelProto, inliner

    if model.functions:
        model = inliner.inline_local_functions(model)
    light = ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    for each in light.opset_import:
        each.domain = "" if each.domain == "ai.onnx" else each.domain
    source, graph = model.graph, light.graph
    graph.name = "rows"
    _put_weights(source, graph)
    known = {each.name for each in (*graph.initializer, *graph.input)}
    own = [each for each in source.input if each.name not in known]
    replaced = {name for each in own for name in _row_names(each)}
    for each in own:
        graph.input.add().CopyFrom(each)
        _name_rows(graph.input[-1], replaced)
    for each in source.output:
        graph.output.add(name=each.name)
    _put_nodes(source.node, graph)
    return light


def _put_weights(source: GraphProto, graph: GraphProto) -> None:
    """Copy small weights; declare the large ones, as inputs without rows."""
    for weight in source.initializer:
        if weight.data_location == weight.EXTERNAL or math.prod(weight.dims) > SMALL:
            _declare(graph, weight.name, weight.data_type, weight.dims)
        else:
            graph.initializer.add().CopyFrom(weight)
    for sparse in source.sparse_initializer:
        _declare(graph, sparse.values.name, sparse.values.data_type, sparse.dims)


def _put_nodes(nodes: Iterable[NodeProto], graph: GraphProto) -> None:
    for node in nodes:
        tensor = _value(node)
        if tensor is not None and math.prod(tensor.dims) > SMALL:
            _declare(graph, node.output[0], tensor.data_type, tensor.dims)
        else:
            graph.node.add().CopyFrom(node)
            if node.domain == "ai.onnx":
                graph.node[-1].domain = ""


def _value(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant":
        return None
    return next((each.t for each in node.attribute if each.name == "value"), None)


def _declare(graph: GraphProto, name: str, kind: int, sizes: Iterable[int]) -> None:
    from onnx import helper

    graph.input.append(helper.make_tensor_value_info(name, kind, list(sizes)))


def _row_names(info: ValueInfoProto) -> Iterator[str]:
    """Yield the name of the first dimension; raise unless it is free."""
    shape = info.type.tensor_type.shape
    if info.type.WhichOneof("value") != "tensor_type" or not shape.dim:
        raise NotProved(f"input {info.name!r} has no rows")
    if shape.dim[0].WhichOneof("value") == "dim_value":
        raise NotProved(f"input {info.name!r} takes {shape.dim[0].dim_value} rows, no other number")
    if shape.dim[0].dim_param:
        yield shape.dim[0].dim_param


def _name_rows(info: ValueInfoProto, replaced: set[str]) -> None:
    """Name the first dimension of an input, and no other as it was named."""
    first, *others = info.type.tensor_type.shape.dim
    first.dim_param = ROWS
    for each in others:
        if each.dim_param in replaced or each.dim_param == ROWS:
            each.Clear()


def _has_rows(info: ValueInfoProto) -> bool:
    dims = info.type.tensor_type.shape.dim
    return bool(dims) and dims[0].dim_param == ROWS


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """Infer the shapes of all tensors, those of operators of ``ai.onnx.ml`` too."""
    while True:
        graph = _infer(model)
        found: dict[str, Shape] = {each.name: tuple(each.dims) for each in graph.initializer}
        kinds = {}
        for info in (*graph.value_info, *graph.output, *graph.input):
            kinds[info.name] = info.type.tensor_type.elem_type
            if info.type.tensor_type.HasField("shape"):
                found[info.name] = _sizes(info)
        more = {
            name: shape
            for node in graph.node
            for name, shape in zip(
                node.output,
                tables.ml_shapes(node, found.get((*node.input, "")[0], ())),
                strict=False,
            )
            if name not in found
        }
        if not more:
            return found
        _tell(model.graph, more, kinds)


def _infer(model: ModelProto) -> GraphProto:
    from onnx import shape_inference

    try:
        return shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:
        raise NotProved("the shapes of its tensors cannot be inferred") from error


def _sizes(info: ValueInfoProto) -> Shape:
    return tuple(
        each.dim_value if each.HasField("dim_value") else each.dim_param or None
        for each in info.type.tensor_type.shape.dim
    )


def _tell(graph: GraphProto, shapes: Mapping[str, Shape], kinds: Mapping[str, int]) -> None:
    """Declare shapes, so that inference goes on from them."""
    from onnx import TensorProto, helper

    outputs = {each.name: each for each in graph.output}
    for name, shape in shapes.items():
        kind = kinds.get(name) or TensorProto.FLOAT
        info = helper.make_tensor_value_info(name, kind, shape)
        if name in outputs:
            outputs[name].CopyFrom(info)
        else:
            graph.value_info.append(info)


def _small_values(weights: Iterable[TensorProto]) -> Iterator[tuple[str, np.ndarray]]:
    from onnx import numpy_helper

    for each in weights:
        yield each.name, numpy_helper.to_array(each)
