"""Rules of operators that move, cut, join and repeat elements, and of those that read sizes."""

from __future__ import annotations

from collections.abc import Sequence

from mlpack.model.rows.node import (
    CONSTANT,
    ROWS,
    Fact,
    Node,
    Rows,
    Shape,
    Sizes,
    is_rows,
    product,
    rule,
    size_from_right,
)


@rule("Transpose")
def _transpose(node: Node) -> Fact:
    order = list(node.attributes.get("perm", range(node.rank())[::-1]))
    return Rows(order.index(node.rows()))


@rule("Unsqueeze")
def _unsqueeze(node: Node) -> Fact:
    rank = node.rank() + len(axes := _axes(node))
    new = {each % rank for each in axes}
    kept = [each for each in range(rank) if each not in new]
    return Rows(kept[node.rows()])


@rule("Squeeze")
def _squeeze(node: Node) -> Fact:
    gone = {each % node.rank() for each in _axes(node)}
    node.need(bool(gone) and node.rows() not in gone)
    return Rows(node.rows() - sum(each < node.rows() for each in gone))


def _axes(node: Node) -> Sequence[int]:
    given = node.attributes.get("axes")
    if given is None and node.has(1):
        given = node.value(1).reshape(-1).tolist()
    return given or ()


@rule("Flatten")
def _flatten(node: Node) -> Fact:
    axis = node.attributes.get("axis", 1)
    node.need(node.rows() == 0 and (axis if axis >= 0 else axis + node.rank()) == 1)
    return Rows(0)


@rule("Reshape")
def _reshape(node: Node) -> Fact:
    """Elements keep their order: rows stay apart if what is before and in each of them does."""
    axis, before, after = node.rows(), node.shape(0), node.result
    count = product(before[:axis])
    places = [each for each in range(len(after)) if product(after[:each]) == count is not None]
    if len(node.facts) > 1 and isinstance(node.facts[1], Sizes):
        # One size may be unknown: it follows from the others.
        node.need(after.count(ROWS) == 1 and after.index(ROWS) in places)
        node.need(sum(not _fixed(each) for each in after) <= 1)
        count, rest = (
            product(each) for each in (_but(before, axis), _but(after, after.index(ROWS)))
        )
        node.need(count is None or rest is None or count == rest)
        return Rows(after.index(ROWS))
    node.need_constants(1)
    found = [each for each in places if after[each] == ROWS or _is_rest(node, axis, each)]
    node.need(bool(found))
    return Rows(found[0])


def _but(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


def _is_rest(node: Node, before: int, after: int) -> bool:
    """Return whether a size of -1 at place ``after`` is the number of rows."""
    target = node.attributes.get("shape")
    sizes = list(node.value(1).tolist() if target is None else target)
    if sizes[after] != -1 or any(each < 1 for each in sizes[after + 1 :]):
        return False
    return product(tuple(sizes[after + 1 :])) == product(node.shape(0)[before + 1 :]) is not None


@rule("Concat")
def _concat(node: Node) -> Fact:
    axes = {each.axis if isinstance(each, Rows) else None for each in node.facts}
    node.need(len(axes) == 1)
    node.need(node.attributes.get("axis", 1) % node.rank() != node.rows())
    return Rows(node.rows())


@rule("Split")
def _split(node: Node) -> Fact:
    node.need_constants(1)
    node.need(node.attributes.get("axis", 0) % node.rank() != node.rows())
    return Rows(node.rows())


@rule("Slice")
def _slice(node: Node) -> Fact:
    if isinstance(node.facts[0], Sizes):
        return Sizes()
    node.need_constants(*range(1, len(node.facts)))
    starts = node.attributes.get("starts") if node.opset < 10 else node.value(1).tolist()
    axes = node.attributes.get("axes") if node.opset < 10 else None
    if node.has(3):
        axes = node.value(3).tolist()
    cut = {each % node.rank() for each in axes or range(len(starts or ()))}
    node.need(node.rows() not in cut)
    return Rows(node.rows())


@rule("Gather")
def _gather(node: Node) -> Fact:
    data, indices = node.facts
    if isinstance(data, Sizes):
        return _chosen_size(node, data)
    axis = node.attributes.get("axis", 0) % node.rank()
    if data == CONSTANT and isinstance(indices, Rows):
        return Rows(axis + indices.axis)
    node.need(isinstance(data, Rows) and indices == CONSTANT and node.rows() != axis)
    return Rows(node.rows() + (node.rank(1) - 1 if axis < node.rows() else 0))


def _chosen_size(node: Node, data: Sizes) -> Fact:
    """Sizes other than the number of rows are the same in every run."""
    chosen = node.values.get(node.proto.input[1])
    if data.elements is None or chosen is None or node.facts[1] != CONSTANT:
        return Sizes()
    places, count = chosen.reshape(-1).tolist(), len(data.elements)
    if not all(-count <= each < count for each in places):
        return Sizes()
    found = tuple(data.elements[each] for each in places)
    return Sizes(found) if ROWS in found else CONSTANT


def sizes(node: Node) -> Fact:
    """Return the fact about what is computed from sizes and constants alone."""
    if node.op not in ("Cast", "Concat", "Identity", "Squeeze", "Unsqueeze"):
        return Sizes()
    found: list[int | str | None] = []
    for i in range(len(node.facts) if node.op == "Concat" else 1):
        fact, value = node.facts[i], node.values.get(node.proto.input[i])
        elements = fact.elements if isinstance(fact, Sizes) else None
        if value is not None and fact == CONSTANT:
            elements = tuple(int(each) for each in value.reshape(-1).tolist())
        if elements is None:
            return Sizes()
        found += elements
    return Sizes(tuple(found))


@rule("GatherElements")
def _gather_elements(node: Node) -> Fact:
    node.need(node.facts[0] == node.facts[1])
    node.need(node.attributes.get("axis", 0) % node.rank() != node.rows())
    return Rows(node.rows())


@rule("GatherND")
def _gather_tuples(node: Node) -> Fact:
    node.need(node.facts[0] == node.facts[1] == Rows(0))
    node.need(node.attributes.get("batch_dims", 0) >= 1)
    return Rows(0)


@rule("Shape")
def _shape(node: Node) -> Fact:
    sizes = list(node.shape(0))
    sizes[node.rows()] = ROWS
    found = tuple(sizes[node.attributes.get("start", 0) : node.attributes.get("end", len(sizes))])
    return Sizes(found) if ROWS in found else CONSTANT


@rule("Size")
def _count(node: Node) -> Fact:
    node.rows()
    return Sizes()


@rule("Expand")
def _expand(node: Node) -> Fact:
    """Follow what is repeated to a shape in which only the rows' own size depends on them."""
    if not is_rows(node.facts[0]):
        return _made(node, 0)
    shape, place = node.result, node.rank() - node.rows()
    if isinstance(node.facts[1], Sizes):
        target = node.facts[1].elements or ()
        node.need(target.count(ROWS) == 1 and len(target) - target.index(ROWS) == place)
    else:
        target = tuple(node.value(1).tolist())
        node.need(size_from_right(target, -place) == 1)
    return Rows(len(shape) - place)


@rule("ConstantOfShape")
def _constant_of_shape(node: Node) -> Fact:
    return _made(node, None)


def _made(node: Node, data: int | None) -> Fact:
    """Return the fact about a constant that is repeated for each row."""
    shape = _target(node)
    node.need(all(_fixed(each) for each in shape) and shape.count(ROWS) == 1)
    axis = shape.index(ROWS)
    if data is not None:
        node.need(node.facts[data] == CONSTANT)
        node.need(size_from_right(node.shape(data), axis - len(shape)) == 1)
    return Rows(axis)


def _target(node: Node) -> Shape:
    """Return the shape that the last input asks for; sizes but the rows' are the same always."""
    fact = node.facts[-1]
    if isinstance(fact, Sizes) and fact.elements is not None:
        return tuple("any" if each is None else each for each in fact.elements)
    return node.result


def _fixed(size: int | str | None) -> bool:
    """Return whether a size is known or named by an input: inference names others ``unk__0``."""
    return isinstance(size, int) or (size is not None and not size.startswith("unk__"))


@rule("Tile")
def _tile(node: Node) -> Fact:
    node.need(int(node.value(1)[node.rows()]) == 1)
    return Rows(node.rows())


@rule("Pad")
def _pad(node: Node) -> Fact:
    given = node.attributes.get("pads") or node.attributes.get("paddings")
    node.need(not node.has(3))
    node.need_constants(2)
    pads = list(node.value(1).tolist() if given is None else given)
    axis, rank = node.rows(), node.rank()
    node.need(len(pads) == 2 * rank and pads[axis] == 0 == pads[axis + rank])
    return Rows(axis)


@rule("Resize Upsample")
def _resize(node: Node) -> Fact:
    node.need(node.rows() == 0 and not node.attributes.get("axes"))
    if node.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        raise node.mixes("with regions")
    if node.has(3):
        node.need(node.result[0] == ROWS and all(_fixed(each) for each in node.result))
        node.need(node.result.count(ROWS) == 1 and not is_rows(node.facts[3]))
        return Rows(0)
    scales = node.attributes.get("scales")
    if scales is None:
        scales = node.value(2 if node.op == "Resize" and node.opset > 10 else 1).tolist()
    node.need(scales[0] == 1)
    return Rows(0)


@rule("GRU LSTM RNN")
def _recurrent(node: Node) -> tuple[Fact, ...]:
    node.need_constants(1, 2, 3, 7)
    rows_first = bool(node.attributes.get("layout", 0))
    axis = 0 if rows_first else 1
    node.need(node.rows() == axis)
    for place, expected in ((4, 0), (5, axis), (6, axis)):
        node.need(not node.has(place) or node.facts[place] == Rows(expected))
    return Rows(0 if rows_first else 2), Rows(axis), Rows(axis)


@rule("Einsum")
def _einsum(node: Node) -> Fact:
    text = node.attributes["equation"].decode().replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    node.need(bool(arrow) and "." not in text)
    letters = {
        term[each.axis]
        for term, each in zip(terms, node.facts, strict=True)
        if isinstance(each, Rows)
    }
    node.need(len(letters) == 1)
    letter = letters.pop()
    for term, each in zip(terms, node.facts, strict=True):
        found = 1 if isinstance(each, Rows) else 0
        node.need(term.count(letter) == found and (each == CONSTANT or bool(found)))
    node.need(right.count(letter) == 1)
    return Rows(right.index(letter))


@rule("OneHot")
def _one_hot(node: Node) -> Fact:
    node.need_constants(1, 2)
    rank = node.rank() + 1
    place = node.attributes.get("axis", -1) % rank
    return Rows(node.rows() + (1 if place <= node.rows() else 0))


@rule("Trilu")
def _triangle(node: Node) -> Fact:
    node.need_constants(1)
    node.need(node.rows() < node.rank() - 2)
    return Rows(node.rows())
