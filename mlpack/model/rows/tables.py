"""Rules of the operators of ``ai.onnx.ml``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlpack.model.rows.node import (
    CONSTANT,
    ML,
    Fact,
    Node,
    Rows,
    Shape,
    product,
    rule,
)

if TYPE_CHECKING:
    from onnx import NodeProto


@rule("ArrayFeatureExtractor", ML)
def _features(node: Node) -> Fact:
    data, indices = node.facts
    if data == CONSTANT and isinstance(indices, Rows):
        # One row of constants, one of which is taken for each row.
        node.need(product(node.shape(0)[:-1]) == 1 == product(_others(node, 1)))
        return Rows(len(node.result) - 1)
    node.need_constants(1)
    node.need(node.rank() >= 2 and node.rows() == node.rank() - 2)
    return Rows(len(node.result) - 2)


def _others(node: Node, place: int) -> Shape:
    """Return the sizes of an input without the rows."""
    shape, axis = node.shape(place), node.rows(place)
    return (*shape[:axis], *shape[axis + 1 :])


@rule("OneHotEncoder", ML)
def _encoder(node: Node) -> Fact:
    return Rows(node.rows())


_TABLES = frozenset(("LinearRegressor", "SVMRegressor", "TreeEnsemble", "TreeEnsembleRegressor"))
_CLASSIFIERS = frozenset(("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"))
_SAME = frozenset(
    ("Binarizer", "CategoryMapper", "Imputer", "LabelEncoder", "Normalizer", "Scaler")
)


@rule(" ".join(("Imputer Normalizer Scaler ZipMap", *_TABLES, *_CLASSIFIERS)), ML)
@rule("TfIdfVectorizer")
def _table(node: Node) -> Fact:
    """Follow operators on rows and columns; they take a vector for one row."""
    node.need(node.rows() == 0 and node.rank() == 2)
    return Rows(0)


@rule("FeatureVectorizer", ML)
def _joined_columns(node: Node) -> Fact:
    node.need(all(each == Rows(0) for each in node.facts))
    node.need(all(node.rank(i) == 2 for i in range(len(node.facts))))
    return Rows(0)


def ml_shapes(proto: NodeProto, shape: Shape) -> Sequence[Shape]:
    """Return the shapes of a node's outputs, for operators that shape inference leaves out.

    ``shape`` is that of the first input.
    """
    op = proto.op_type
    if proto.domain != ML or not shape:
        return ()
    if op in _SAME:
        return (shape,)
    if op == "OneHotEncoder":
        return ((*shape, None),)
    if op == "ArrayFeatureExtractor":
        return ((*(shape[:-1] or (1,)), None),)
    if len(shape) != 2:
        return ()
    table: Shape = (shape[0], None)
    if op in _CLASSIFIERS:
        return ((shape[0],), table)
    return (table,) if op in _TABLES | {"FeatureVectorizer"} else ()
