"""Random ONNX models, of operators that keep rows apart and of operators that mix them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from mlpack.runtime.scorer import Array

Arrays = dict[str, Array]
OPSETS = (9, 11, 12, 13, 15, 17, 18, 21)

UNARY = ("Abs", "Ceil", "Exp", "Identity", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh")
BINARY = ("Add", "Div", "Max", "Mul", "Pow", "Sub", "Sum")
REDUCE = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


class RandomGraph:
    """A graph grown node by node; a node that onnxruntime does not run is dropped."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.opset = self.random.choice(OPSETS)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.inputs = {
            f"x{i}": tuple(self.random.randint(1, 3) for _ in range(self.random.choice((1, 1, 2))))
            for i in range(self.random.choice((1, 1, 2)))
        }
        self._made = 0
        self.shapes = {name: (2, *rest) for name, rest in self.inputs.items()}

    def grow(self, nodes: int) -> ModelProto:
        makers = _MAKERS
        for _ in range(nodes):
            before = len(self.nodes), len(self.weights)
            self.random.choice(makers)(self)
            if len(self.nodes) == before[0] or not self._runs():
                del self.nodes[before[0] :], self.weights[before[1] :]
        names = [name for name in self.shapes if name not in self.inputs]
        return self.model(names[-1:] or ["x0"])

    def model(self, outputs: Sequence[str]) -> ModelProto:
        def value(name: str, shape: Sequence[int | str] | None) -> ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        nodes = list(self.nodes)
        if outputs == ["x0"]:
            nodes.append(helper.make_node("Identity", ["x0"], ["last"]))
            outputs = ["last"]
        graph = helper.make_graph(
            nodes,
            "random",
            [value(name, ["n", *rest]) for name, rest in self.inputs.items()],
            [value(name, None) for name in outputs],
            self.weights,
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)

    def rows(self, count: int) -> Arrays:
        return {
            name: self.numbers.standard_normal((count, *rest)).astype(np.float32)
            for name, rest in self.inputs.items()
        }

    def _runs(self) -> bool:
        name = self.nodes[-1].output[0]
        try:
            (found,) = run(self.model([name]), self.rows(2))
        except Exception:
            return False
        if found.dtype != np.float32 or found.size > 4096:
            return False
        self.shapes[name] = found.shape
        return True

    # What the makers below use.

    def pick(self) -> str:
        return self.random.choice(list(self.shapes)[-4:])

    def axis(self, name: str) -> int:
        rank = len(self.shapes[name])
        return self.random.randrange(-rank, rank) if rank else 0

    def weight(self, array: npt.NDArray[np.generic]) -> str:
        self._made += 1
        self.weights.append(numpy_helper.from_array(array, f"w{self._made}"))
        return f"w{self._made}"

    def integers(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def floats(self, *shape: int) -> str:
        return self.weight(self.numbers.standard_normal(shape).astype(np.float32))

    def node(self, op: str, inputs: Sequence[str], **attributes: object) -> str:
        self._made += 1
        name = f"t{self._made}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))  # type: ignore[arg-type]
        return name


def _unary(graph: RandomGraph) -> None:
    graph.node(graph.random.choice(UNARY), [graph.pick()])


def _binary(graph: RandomGraph) -> None:
    name = graph.pick()
    shape = list(graph.shapes[name])
    kind = graph.random.randrange(4)
    if kind == 0:
        other = graph.pick()
    elif kind == 1:
        other = graph.floats(*shape[graph.random.randrange(len(shape) + 1) :])
    else:
        other = graph.floats(*(graph.random.choice((1, each)) for each in shape))
    pair = [name, other] if graph.random.random() < 0.5 else [other, name]
    graph.node(graph.random.choice(BINARY), pair)


def _reduce(graph: RandomGraph) -> None:
    name, op = graph.pick(), graph.random.choice(REDUCE)
    axis, keep = graph.axis(name), graph.random.randrange(2)
    if graph.opset >= 18 or (op == "ReduceSum" and graph.opset >= 13):
        graph.node(op, [name, graph.integers(axis)], keepdims=keep)
    else:
        graph.node(op, [name], axes=[axis], keepdims=keep)


def _softmax(graph: RandomGraph) -> None:
    name = graph.pick()
    axis = graph.axis(name)
    graph.node(graph.random.choice(("LogSoftmax", "Softmax")), [name], axis=axis)


def _transpose(graph: RandomGraph) -> None:
    name = graph.pick()
    order = list(range(len(graph.shapes[name])))
    if not order:
        return
    graph.random.shuffle(order)
    graph.node("Transpose", [name], perm=order)


def _reshape(graph: RandomGraph) -> None:
    name = graph.pick()
    shape = list(graph.shapes[name])
    kind = graph.random.randrange(4)
    if kind == 0 and shape:
        target = [0, -1]
    elif kind == 1:
        target = [-1, graph.random.choice((1, 2, 3, *shape))]
    elif kind == 2:
        target = [-1, *shape[1:], 1]
    else:
        target = [graph.random.choice((1, 2)), -1]
    graph.node("Reshape", [name, graph.integers(*target)])


def _view(graph: RandomGraph) -> None:
    """Reshape by sizes that are read from a tensor, as PyTorch exports ``view``."""
    name = graph.pick()
    if not graph.shapes[name]:
        return
    sizes = graph.node("Shape", [name])
    which = graph.integers(graph.random.randrange(len(graph.shapes[name])))
    size = graph.node("Gather", [sizes, which], axis=0)
    rest = graph.integers(graph.random.choice((-1, -1, 1, 2)))
    pair = [size, rest] if graph.random.random() < 0.8 else [rest, size]
    target = graph.node("Concat", pair, axis=0)
    graph.node(graph.random.choice(("Reshape", "Reshape", "Expand")), [name, target])


def _repeated(graph: RandomGraph) -> None:
    name = graph.pick()
    sizes = graph.node("Shape", [name])
    made = graph.node("ConstantOfShape", [sizes])
    graph.node("Add", [made, name])


def _counted(graph: RandomGraph) -> None:
    """Use the number of rows, or another size, as data."""
    name = graph.pick()
    if not graph.shapes[name]:
        return
    sizes = graph.node("Shape", [name])
    which = graph.integers(graph.random.randrange(len(graph.shapes[name])))
    size = graph.node("Cast", [graph.node("Gather", [sizes, which])], to=TensorProto.FLOAT)
    graph.node("Div", [name, size])


def _matmul(graph: RandomGraph) -> None:
    name = graph.pick()
    shape = graph.shapes[name]
    if not shape:
        return
    kind = graph.random.randrange(5)
    if kind == 0:
        graph.node("MatMul", [name, graph.floats(shape[-1], 2)])
    elif kind == 1:
        graph.node("MatMul", [name, graph.floats(shape[-1])])
    elif kind == 2 and len(shape) > 1:
        graph.node("MatMul", [graph.floats(2, shape[-2]), name])
    elif kind == 3:
        graph.node("MatMul", [name, graph.floats(graph.random.choice((1, 2)), shape[-1], 2)])
    else:
        graph.node("MatMul", [name, graph.pick()])


def _gemm(graph: RandomGraph) -> None:
    name = graph.pick()
    shape = graph.shapes[name]
    if len(shape) != 2:
        return
    flip = graph.random.randrange(2)
    extra = graph.random.choice(([2], [1, 2], [shape[flip], 2], [1]))
    inputs = [name, graph.floats(shape[1 - flip], 2), graph.floats(*extra)]
    graph.node("Gemm", inputs, transA=flip)


def _squeeze(graph: RandomGraph) -> None:
    name = graph.pick()
    op = graph.random.choice(("Squeeze", "Unsqueeze"))
    axis = graph.axis(name)
    if graph.opset >= 13:
        graph.node(op, [name, graph.integers(axis)])
    else:
        graph.node(op, [name], axes=[abs(axis)])


def _concat(graph: RandomGraph) -> None:
    name = graph.pick()
    other = graph.pick() if graph.random.random() < 0.6 else graph.floats(*graph.shapes[name])
    graph.node("Concat", [name, other], axis=graph.axis(name))


def _slice(graph: RandomGraph) -> None:
    name = graph.pick()
    axis = graph.axis(name)
    start, end = graph.random.choice(((0, 1), (0, 2), (-1, 9), (0, 9)))
    if graph.opset >= 10:
        inputs = [name, *(graph.integers(each) for each in (start, end, axis))]
        graph.node("Slice", inputs)
    else:
        graph.node("Slice", [name], starts=[start], ends=[end], axes=[abs(axis)])


def _gather(graph: RandomGraph) -> None:
    name = graph.pick()
    axis = graph.axis(name)
    size = (*graph.shapes[name], 1)[axis]
    count = graph.random.choice((1, 2))
    indices = [graph.random.randrange(max(size, 1)) for _ in range(count)]
    graph.node("Gather", [name, graph.integers(*indices)], axis=axis)


def _embed(graph: RandomGraph) -> None:
    name = graph.pick()
    rows = graph.node("Clip", [name, *_bounds(graph)]) if graph.opset >= 11 else name
    whole = graph.node("Cast", [rows], to=TensorProto.INT64)
    graph.node("Gather", [graph.floats(3, 2), whole], axis=graph.random.randrange(1))


def _bounds(graph: RandomGraph) -> tuple[str, str]:
    return graph.weight(np.array(0, np.float32)), graph.weight(np.array(2, np.float32))


def _cumulative(graph: RandomGraph) -> None:
    name = graph.pick()
    if graph.opset >= 11:
        graph.node("CumSum", [name, graph.weight(np.array(graph.axis(name), np.int64))])


def _flatten(graph: RandomGraph) -> None:
    name = graph.pick()
    graph.node("Flatten", [name], axis=graph.random.randrange(len(graph.shapes[name]) + 1))


def _arguments(graph: RandomGraph) -> None:
    name = graph.pick()
    keep = graph.random.randrange(2)
    found = graph.node("ArgMax", [name], axis=graph.axis(name), keepdims=keep)
    graph.node("Cast", [found], to=TensorProto.FLOAT)


def _select(graph: RandomGraph) -> None:
    name = graph.pick()
    zero = graph.weight(np.array(0, np.float32))
    positive = graph.node("Greater", [name, zero])
    graph.node("Where", [positive, name, graph.pick()])


def _picture(graph: RandomGraph) -> None:
    name = graph.pick()
    if len(graph.shapes[name]) == 3:
        channels = graph.shapes[name][1]
        op = graph.random.choice(("Conv", "GlobalAveragePool", "InstanceNormalization"))
        weights = {
            "Conv": [graph.floats(2, channels, 1)],
            "GlobalAveragePool": [],
            "InstanceNormalization": [graph.floats(channels), graph.floats(channels)],
        }
        graph.node(op, [name, *weights[op]])


def _compress(graph: RandomGraph) -> None:
    name = graph.pick()
    flat = graph.node("Reshape", [name, graph.integers(-1)])
    mask = graph.node("Greater", [flat, graph.weight(np.array(0, np.float32))])
    graph.node("Compress", [flat, mask], axis=0)


def _tile(graph: RandomGraph) -> None:
    name = graph.pick()
    repeats = [graph.random.choice((1, 1, 2)) for _ in graph.shapes[name]]
    graph.node("Tile", [name, graph.integers(*repeats)])


def _pad(graph: RandomGraph) -> None:
    name = graph.pick()
    pads = [graph.random.choice((0, 0, 1)) for _ in range(2 * len(graph.shapes[name]))]
    if graph.opset >= 11:
        graph.node("Pad", [name, graph.integers(*pads)])
    else:
        graph.node("Pad", [name], pads=pads)


def _einsum(graph: RandomGraph) -> None:
    name = graph.pick()
    shape = graph.shapes[name]
    if graph.opset >= 12 and len(shape) == 2:
        equation = graph.random.choice(("ab,bc->ac", "ab,bc->ca", "ab,ac->bc", "ab,bc->c"))
        graph.node("Einsum", [name, graph.floats(shape[1], 2)], equation=equation)


def _recurrent(graph: RandomGraph) -> None:
    name = graph.pick()
    shape = graph.shapes[name]
    if len(shape) == 3:
        weights = [graph.floats(1, 3 * 2, shape[2]), graph.floats(1, 3 * 2, 2)]
        graph.node("GRU", [name, *weights], hidden_size=2)


_MAKERS: tuple[Callable[[RandomGraph], None], ...] = (
    *(_unary, _binary, _binary, _reduce, _softmax, _transpose, _reshape, _view, _repeated),
    *(_counted, _matmul, _matmul, _gemm, _squeeze, _squeeze, _concat, _slice, _gather, _embed),
    *(_cumulative, _flatten, _arguments, _select, _picture, _compress, _tile, _pad, _einsum),
    _recurrent,
)


def run(model: ModelProto, inputs: Arrays) -> list[Array]:
    found: list[Array] = session(model).run(None, inputs)
    return found


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def pairs(graph: RandomGraph, count: int) -> Iterator[tuple[Arrays, Arrays]]:
    """Yield requests of two clients, of one to three rows each."""
    for _ in range(count):
        yield graph.rows(graph.random.randint(1, 3)), graph.rows(graph.random.randint(1, 3))
