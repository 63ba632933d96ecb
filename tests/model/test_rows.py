"""The proof that rows are independent: never for a model whose rows influence each other."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mlpack.model.rows.proof import prove_independence
from mlpack.runtime.scorer import Array
from tests.model.random_graphs import Arrays, RandomGraph, pairs, session
from tests.support import PROFILE

MODELS = 3000 if PROFILE == "full" else 150
PAIRS = 8

F, I64 = TensorProto.FLOAT, TensorProto.INT64


def model(
    *nodes: tuple[object, ...],
    x: tuple[object, ...] = ("n", 2),
    opset: int = 17,
    **weights: object,
) -> ModelProto:
    """A model from ``x`` to ``y``; each node is operator, inputs, output, attributes."""
    made = []
    for op, inputs, output, *more in nodes:
        domain = "ai.onnx.ml" if op in ("Scaler", "TreeEnsembleRegressor") else ""
        attributes = more[0] if more else {}
        made.append(
            helper.make_node(
                str(op), str(inputs).split(), [str(output)], domain=domain, **attributes
            )  # type: ignore[arg-type]
        )
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", F, x)],  # type: ignore[arg-type]
        [helper.make_tensor_value_info("y", F, None)],
        [
            numpy_helper.from_array(
                np.array(value, np.float32 if name.startswith("f") else np.int64), name
            )
            for name, value in weights.items()
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


INDEPENDENT = {
    "dense": model(
        ("Gemm", "x fw fb", "h"), ("Relu", "h", "r"), ("Softmax", "r", "y"),
        fw=np.ones((2, 3)), fb=np.ones(3),
    ),
    "view": model(
        ("Shape", "x", "s"), ("Gather", "s i", "n"), ("Concat", "n m", "t", {"axis": 0}),
        ("Reshape", "x t", "y"), x=("n", 2, 3), i=[0], m=[-1],
    ),
    "a size that is not the rows'": model(
        ("Shape", "x", "s"), ("Gather", "s i", "n"), ("Cast", "n", "c", {"to": F}),
        ("Div", "x c", "y"), x=("n", "width"), i=[1],
    ),
    "rows in the middle": model(
        ("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("ReduceSum", "t a", "r"),
        ("Transpose", "r", "u", {"perm": [1, 0, 2]}), ("Flatten", "u", "y"), x=("n", 4, 3), a=[0],
    ),
    "convolution": model(
        ("Conv", "x fw", "c"), ("GlobalAveragePool", "c", "p"), ("Flatten", "p", "y"),
        x=("n", 1, 4, 4), fw=np.ones((2, 1, 3, 3)),
    ),
    "attention": model(
        ("MatMul", "x fq", "q"), ("Transpose", "q", "k", {"perm": [0, 2, 1]}),
        ("MatMul", "q k", "m"), ("Softmax", "m", "a"), ("MatMul", "a x", "y"),
        x=("n", "words", 4), fq=np.ones((4, 4)),
    ),
    "recurrent": model(
        ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
        ("GRU", "t fw fr", "z", {"hidden_size": 1}), ("Squeeze", "z a", "s"),
        ("Transpose", "s", "y", {"perm": [1, 0, 2]}),
        x=("n", 3, 2), fw=np.ones((1, 3, 2)), fr=np.ones((1, 3, 1)), a=[1],
    ),
    "scaled": model(("Scaler", "x", "y", {"offset": [0.0, 1.0], "scale": [1.0, 2.0]})),
    "no name": model(("Relu", "x", "y"), x=(None, 2)),
    "normal rows": model(("LayerNormalization", "x fw", "y"), fw=np.ones(2)),
    "rows of length one": model(("LpNormalization", "x", "y")),
    "normal pictures": model(
        ("MeanVarianceNormalization", "x", "y", {"axes": [2, 3]}), x=("n", 1, 2, 2)
    ),
    "nothing dropped": model(("Dropout", "x", "y")),
}  # fmt: skip

DEPENDENT = {
    "normal columns": model(("LayerNormalization", "x fw", "y", {"axis": 0}), fw=np.ones(2)),
    "columns of length one": model(("LpNormalization", "x", "y", {"axis": 0})),
    "normal over all pictures": model(("MeanVarianceNormalization", "x", "y"), x=("n", 1, 2, 2)),
    "the mean of all rows": model(("ReduceMean", "x", "m", {"axes": [0]}), ("Sub", "x m", "y")),
    "one scale for all rows": model(("ReduceMax", "x", "m"), ("Div", "x m", "y")),
    "softmax over rows": model(("Softmax", "x", "y", {"axis": 0})),
    "softmax over all after axis 0, as before opset 13": model(
        ("Softmax", "x", "y", {"axis": 0}), opset=11
    ),
    "detections": model(
        ("Reshape", "x flat", "f"), ("Greater", "f fz", "m"),
        ("Compress", "f m", "c", {"axis": 0}), ("Reshape", "c col", "y"),
        flat=[-1], fz=0.5, col=[-1, 1],
    ),
    "the number of rows as data": model(
        ("Shape", "x", "s"), ("Gather", "s i", "n"), ("Cast", "n", "c", {"to": F}),
        ("Div", "x c", "y"), i=[0],
    ),
    "running sum": model(("CumSum", "x a", "y"), a=0),
    "rows turned over": model(
        ("Slice", "x b e a s", "y"), b=[-1], e=[-9999], a=[0], s=[-1],
    ),
    "the first row": model(("Slice", "x b e a", "f"), ("Sub", "x f", "y"), b=[0], e=[1], a=[0]),
    "products of rows": model(
        ("Transpose", "x", "t"), ("MatMul", "x t", "m"), ("ReduceSum", "m a", "y"), a=[1],
    ),
    "two rows in one": model(("Reshape", "x t", "y"), t=[-1, 4]),
    "rows that become columns": model(("Transpose", "x", "y")),
    "noise": model(("RandomNormalLike", "x", "y")),
    "an operator that is not known": model(("Unique", "x", "y", {"axis": 0})),
    "training": model(
        ("BatchNormalization", "x f1 f1 f1 f1", "y", {"training_mode": 1}),
        f1=[1, 1],
    ),
    "a vector for one row": model(
        ("Squeeze", "x a", "v"),
        ("Scaler", "v", "y", {"offset": [0.0], "scale": [1.0]}), x=("n", 1), a=[1],
    ),
    "flattened to one row": model(
        ("ReduceMean", "x", "m", {"axes": [1], "keepdims": 0}), ("Flatten", "m", "y", {"axis": 0})
    ),
    "a fixed number of rows": model(("Relu", "x", "y"), x=(1, 2)),
    "one result": model(("ReduceSum", "x", "y")),
    "repeated": model(("Tile", "x r", "y"), r=[2, 1]),
    "padded": model(("Pad", "x p", "y"), p=[1, 0, 0, 0]),
    "expanded by the width": model(
        ("Shape", "x", "s"), ("Gather", "s i", "n"), ("Concat", "n o", "t", {"axis": 0}),
        ("Expand", "x t", "y"), i=[1], o=[1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INDEPENDENT)
def test_what_is_proved(name: str) -> None:
    found = prove_independence(INDEPENDENT[name])
    assert (found.proved, found.reason) == (True, "")


@pytest.mark.parametrize("name", DEPENDENT)
def test_what_is_not_proved_and_why(name: str) -> None:
    found = prove_independence(DEPENDENT[name])
    assert not found.proved
    assert found.reason


@pytest.mark.parametrize(
    "odd",
    [
        model(("MatMul", "x", "y")),
        model(("Gather", "x", "y")),
        model(("Einsum", "x x", "y")),
        model(("Einsum", "x x", "y", {"equation": "->"})),
        model(("Softmax", "x", "y", {"axis": "last"})),
        model(("Transpose", "x", "y", {"perm": [1]})),
        model(("CumSum", "x a", "y"), a=[0, 1]),
        model(("Tile", "x r", "y"), r=2),
        model(("Gather", "f x", "y"), f=1.0),
        model(("Upsample", "x", "y", {"width_scale": 2.0, "height_scale": 2.0}), opset=1),
        model(("Relu", "x", "z")),
    ],
    ids=lambda given: str(given.graph.node[0].op_type),
)
def test_a_graph_that_onnx_does_not_allow_is_not_proved(odd: ModelProto) -> None:
    found = prove_independence(odd)
    assert not found.proved
    assert found.reason


def test_outputs_left_out_are_not_inputs_left_out() -> None:
    given = model(
        ("Unsqueeze", "x a", "u"),
        ("GRU", "u fw fr", "h", {"hidden_size": 1}),
        ("Squeeze", "h a", "s"),
        ("Clip", "f  fm", "c"),
        ("Add", "s c", "y"),
        fw=np.ones((1, 3, 2)),
        fr=np.ones((1, 3, 1)),
        f=[2.0],
        fm=1.0,
        a=[0],
    )
    gru, clip = given.graph.node[1], given.graph.node[3]
    gru.output[:] = ["", "h"]
    clip.input[:] = ["f", "", "fm"]
    assert prove_independence(given).proved


def test_weights_need_not_be_loaded() -> None:
    given = model(("MatMul", "x fw", "y"), fw=np.ones((2, 3)))
    weight = given.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    assert prove_independence(given).proved


def test_an_input_with_a_default_counts_as_constant() -> None:
    given = model(("Mul", "x fs", "y"), fs=[1.0])
    given.graph.input.append(helper.make_tensor_value_info("fs", F, [1]))
    assert prove_independence(given).proved


@pytest.mark.parametrize("start", range(0, MODELS, 50))
def test_joined_is_alone_for_every_random_model_that_is_proved(start: int) -> None:
    proved = 0
    for seed in range(start, start + 50):
        graph = RandomGraph(seed)
        made = graph.grow(graph.random.randint(1, 8))
        if prove_independence(made).proved:
            proved += 1
            check(made, graph)
    assert proved


def check(made: ModelProto, graph: RandomGraph) -> None:
    scorer = session(made)
    for one, two in pairs(graph, PAIRS):
        joined = {name: np.concatenate([one[name], two[name]]) for name in one}
        alone = [_run(scorer, each) for each in (one, two)]
        if any(each is None for each in alone):
            continue  # it does not run with these values, joined or not
        expected = np.concatenate([each for each in alone if each is not None])
        (found,) = scorer.run(None, joined)
        assert found.shape == expected.shape, graph.nodes
        assert np.allclose(found, expected, 1e-4, 1e-5, equal_nan=True), graph.nodes
        assert [len(each) for each in alone if each is not None] == [
            len(next(iter(each.values()))) for each in (one, two)
        ]


def _run(scorer: object, inputs: Arrays) -> Array | None:
    try:
        found: Array = scorer.run(None, inputs)[0]  # type: ignore[attr-defined]
    except Exception:
        return None
    return found
