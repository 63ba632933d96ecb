"""Rules of operators that compute: element by element, products, layers of networks, sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlpack.model.rows.node import (
    CONSTANT,
    ML,
    Fact,
    Node,
    Rows,
    is_rows,
    rule,
    size_from_right,
)


@rule(
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh DequantizeLinear"
    " Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not"
    " QuantizeLinear Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt"
    " Swish Tan Tanh ThresholdedRelu"
)
@rule("Binarizer LabelEncoder CategoryMapper", ML)
def _each_element(node: Node) -> Fact:
    node.need_constants(*range(1, len(node.facts)))
    axis = node.rows()
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        node.need(_scales_fit(node, axis))
    return Rows(axis)


def _scales_fit(node: Node, axis: int) -> bool:
    """Return whether the scales are the same for all rows."""
    scale = node.shape(1)
    if len(scale) == 0 or scale == (1,):
        return True
    along = node.attributes.get("axis", 1) % node.rank()
    return len(scale) == 1 and along != axis


@rule("Dropout")
def _dropout(node: Node) -> Fact:
    trains = bool(node.value(2)) if node.has(2) else False
    node.need(not trains and (node.opset >= 7 or bool(node.attributes.get("is_test", 0))))
    return Rows(node.rows())


@rule(
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less"
    " LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"
)
def _broadcast(node: Node) -> Fact:
    node.need(node.opset >= 7)  # before, the attributes axis and broadcast align the shapes
    places = {
        node.rank(i) - each.axis for i, each in enumerate(node.facts) if isinstance(each, Rows)
    }
    node.need(len(places) == 1)
    place = places.pop()
    for i, each in enumerate(node.facts):
        if not is_rows(each):
            node.need(each == CONSTANT and size_from_right(node.shape(i), -place) == 1)
    return Rows(max(map(node.rank, range(len(node.facts)))) - place)


@rule("Gemm")
def _gemm(node: Node) -> Fact:
    node.need_constants(1)
    node.need(node.rows() == (1 if node.attributes.get("transA", 0) else 0))
    if node.has(2) and is_rows(node.facts[2]):
        node.need(node.rows(2) == node.rank(2) - 2)
    elif node.has(2):
        node.need(node.facts[2] == CONSTANT and size_from_right(node.shape(2), -2) == 1)
    return Rows(0)


@rule("MatMul MatMulInteger QLinearMatMul")
def _matmul(node: Node) -> Fact:
    first, second = (0, 3) if node.op == "QLinearMatMul" else (0, 1)
    node.need_constants(*(i for i in range(len(node.facts)) if i not in (first, second)))
    if node.op != "MatMul":
        node.need_constants(second)
        node.need(all(math.prod(_known(node, i)) == 1 for i in _zeros(node)))
    places = []
    for i, banned in ((first, 1), (second, 2)):
        if is_rows(node.facts[i]):
            # From the right: 1 is the last axis, which the left operand is contracted over.
            places.append(node.rank(i) - node.rows(i))
            node.need(node.rank(i) > 1 and places[-1] != banned)
    place = places[0]
    if len(places) == 2:
        node.need(places[0] == places[1] > 2)
    else:
        constant = second if is_rows(node.facts[first]) else first
        node.need(node.facts[constant] == CONSTANT)
        node.need(place <= 2 or size_from_right(node.shape(constant), -place) == 1)
        if node.rank(constant) == 1:  # its axis is dropped from the result
            place -= 1 if constant == second or place > 1 else 0
    return Rows(len(node.result) - place)


def _zeros(node: Node) -> Sequence[int]:
    places = (1, 2, 4, 5, 6, 7) if node.op == "QLinearMatMul" else (2, 3)
    return [each for each in places if node.has(each)]


def _known(node: Node, place: int) -> Sequence[int]:
    """Return a shape that is known whole."""
    shape = node.shape(place)
    node.need(all(isinstance(each, int) for each in shape))
    return [each for each in shape if isinstance(each, int)]


@rule(
    "AveragePool BatchNormalization Conv ConvInteger ConvTranspose DepthToSpace GlobalAveragePool"
    " GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization LRN LpPool MaxPool"
    " QLinearConv SpaceToDepth"
)
def _picture(node: Node) -> Fact:
    """Follow operators on N, C, …, which compute each picture of axis 0 alone."""
    node.need_constants(*range(1, len(node.facts)))
    node.need(node.rows() == 0)
    node.need(not node.attributes.get("training_mode", 0))
    node.need(len(node.proto.output) == 1 or node.op == "MaxPool")
    if node.op == "BatchNormalization":
        node.need(node.opset >= 7 and bool(node.attributes.get("spatial", 1)))
    if node.op == "MaxPool" and len(node.proto.output) > 1:
        raise node.mixes("with indices")  # they count from the first picture
    return Rows(0)


@rule("LayerNormalization RMSNormalization SimplifiedLayerNormalization")
def _layer_norm(node: Node) -> Fact:
    node.need_constants(*range(1, len(node.facts)))
    rank, axis = node.rank(), node.rows()
    node.need(axis < node.attributes.get("axis", -1) % rank)
    for i in range(1, len(node.facts)):
        if node.has(i):
            node.need(size_from_right(node.shape(i), axis - rank) == 1)
    return Rows(axis)


@rule("Softmax LogSoftmax Hardmax")
def _softmax(node: Node) -> Fact:
    rank, axis = node.rank(), node.rows()
    if node.opset < 13:  # all axes from this one on are one
        node.need(axis < node.attributes.get("axis", 1) % rank)
    else:
        node.need(axis != node.attributes.get("axis", -1) % rank)
    return Rows(axis)


@rule("LpNormalization")
def _lp_norm(node: Node) -> Fact:
    node.need(node.rows() != node.attributes.get("axis", -1) % node.rank())
    return Rows(node.rows())


@rule("MeanVarianceNormalization")
def _mean_variance(node: Node) -> Fact:
    axes = node.attributes.get("axes", (0, 2, 3))
    node.need(node.rows() not in {each % node.rank() for each in axes})
    return Rows(node.rows())


@rule("CumSum")
def _cumulative(node: Node) -> Fact:
    node.need(int(node.value(1).item()) % node.rank() != node.rows())
    return Rows(node.rows())


@rule(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd"
    " ReduceSum ReduceSumSquare"
)
def _reduce(node: Node) -> Fact:
    given = node.attributes.get("axes")
    if given is None and node.has(1):
        given = node.value(1).tolist()
    if not given:
        node.need(bool(node.attributes.get("noop_with_empty_axes", 0)))
        return Rows(node.rows())
    return _without(node, given)


def _without(node: Node, axes: Sequence[int]) -> Fact:
    """Return the fact about a result from which ``axes`` are reduced."""
    rank, axis = node.rank(), node.rows()
    gone = {each % rank for each in axes}
    node.need(axis not in gone)
    if node.attributes.get("keepdims", 1):
        return Rows(axis)
    return Rows(axis - sum(each < axis for each in gone))


@rule("ArgMax ArgMin")
def _argument(node: Node) -> Fact:
    return _without(node, (node.attributes.get("axis", 0),))


@rule("TopK")
def _top(node: Node) -> Fact:
    node.need_constants(1)
    node.need(node.attributes.get("axis", -1) % node.rank() != node.rows())
    return Rows(node.rows())
