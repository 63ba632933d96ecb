"""Write escalate.onnx: how likely a comment needs a person, by its sentiment.

python make_model.py

Takes ``scores`` [N, 3], the confidences positive, neutral and negative of the sentiment container;
answers ``escalate`` [N, 1], from 0 to 1. The weights are set by hand: a stand-in for a model that
was trained on what people did with comments before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.array([[-4.0], [-1.0], [6.0]], np.float32)
BIAS = np.array([-2.0], np.float32)


def build() -> onnx.ModelProto:
    """Make the model: the sigmoid of a weighted sum."""
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["scores", "weights", "bias"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["escalate"]),
        ],
        "escalate",
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("escalate", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(WEIGHTS, "weights"), numpy_helper.from_array(BIAS, "bias")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


if __name__ == "__main__":
    Path("escalate.onnx").write_bytes(build().SerializeToString())
    print("escalate.onnx")
