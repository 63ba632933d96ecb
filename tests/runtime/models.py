"""Small ONNX models that behave in the ways a server has to cope with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dimensions = Sequence[int | str | None]


def value(name: str, shape: Dimensions, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
) -> Path:
    graph = helper.make_graph(nodes, "made", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def doubled(path: Path, shape: Dimensions = ("N", 4)) -> Path:
    """y = x + x, for any number of rows."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return save(path, [node], [value("x", shape)], [value("y", shape)])


def summed_over_rows(path: Path) -> Path:
    """y = x + the sum over axis 0, which is free and yet no batch's."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    return save(path, nodes, [value("x", ("N", 4))], [value("y", ("N", 4))], [axes])


def reduced(path: Path) -> Path:
    """One number for all rows: outputs that cannot be told apart."""
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)
    return save(path, [node], [value("x", ("N", 4))], [value("y", ("M", 4))])


def two_inputs(path: Path) -> Path:
    """y = a + b, z = a - b."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["y"]),
        helper.make_node("Sub", ["a", "b"], ["z"]),
    ]
    inputs = [value("a", ("N", 2)), value("b", ("N", 2))]
    return save(path, nodes, inputs, [value("y", ("N", 2)), value("z", ("N", 2))])


def texts(path: Path) -> Path:
    """The texts it is given."""
    node = helper.make_node("Identity", ["x"], ["y"])
    shape = ("N",)
    inputs = [value("x", shape, TensorProto.STRING)]
    return save(path, [node], inputs, [value("y", shape, TensorProto.STRING)])


def square(path: Path) -> Path:
    """x times x: only square ones can be, which the free shape does not say."""
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    return save(path, [node], [value("x", ("N", "M"))], [value("y", ("N", "M"))])


def scaled(path: Path) -> Path:
    """y = x times scale, which is 2 if a request leaves it out."""
    node = helper.make_node("Mul", ["x", "scale"], ["y"])
    default = numpy_helper.from_array(np.array([2], np.float32), "scale")
    inputs = [value("x", ("N", 2)), value("scale", (1,))]
    return save(path, [node], inputs, [value("y", ("N", 2))], [default])


def with_defaults(path: Path, size: int) -> Path:
    """y = x plus two inputs of ``size`` elements that have a default."""
    names = ["a", "b"]
    defaults = [numpy_helper.from_array(np.ones((size, 1), np.float32), name) for name in names]
    inputs = [value("x", ("N", 2)), *(value(name, (size, 1)) for name in names)]
    node = helper.make_node("Sum", ["x", *names], ["y"])
    return save(path, [node], inputs, [value("y", ("N", 2))], defaults)
