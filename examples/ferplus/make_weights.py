"""Make a stand-in for the zoo's emotion-ferplus-8.onnx: the same network, weights of chance.

It answers nonsense. It is for trying everything that does not depend on the answers without
downloading anything: registering, building, sending, scoring, measuring. The same seed gives the
same bytes on any machine.

    python make_weights.py                 writes model/model.onnx, 35 MB
    python make_weights.py --seed 2        the same network, other weights

What the real file's graph looks like was put together from public listings of it:

- nodes, their inputs and outputs, shapes of the weights: a published table of its layers, and
  a transcription into Java in openjdk/babylon (cr-examples/onnx, FERModel.java), which also has the
  attributes and the two constants, 127.5 and 255
- that it is a VGG of 13 layers, and dropout's ratios: its authors' microsoft/FERPlus, src/models.py
- file format, producer, metadata of the graph: the zoo's MNIST files, of the same
  exporter

The file made here has the real one's size to the byte, 35,040,571, which differs as soon as one
name, attribute or shape does.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

INPUT, OUTPUT = "Input3", "Plus692_Output_0"
CLASSES = 8
MIDDLE, RANGE = 127.5, 255.0
"""The network's first two steps: (pixel - MIDDLE) / RANGE."""

CONVOLUTIONS = (
    ((362, 3, 64), (380, 23, 64)),
    ((418, 63, 128), (436, 83, 128)),
    ((474, 575, 256), (492, 595, 256), (510, 615, 256)),
    ((548, 655, 256), (566, 675, 256), (584, 695, 256)),
)
"""Between two poolings: number of the node, number of its weights, channels out."""

POOLINGS = ((398, 408), (454, 464), (528, 538), (602, 612))
"""Numbers of each pooling and of the dropout after it."""

DENSE = ((622, 1367, 1024), (656, 1403, 1024), (690, 1693, CLASSES))
"""Number of the node, number of its weights, numbers out."""

OPSET, IR_VERSION = 8, 3
SIZE = 35_040_571
"""Bytes of the zoo's file, and of what is made here."""

Shape = tuple[int, ...]
Attribute = float | str | list[int]


class Network:
    """Collects nodes and weights; weights come from PCG64's bits, the same in every numpy."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.between: list[ValueInfoProto] = []
        """What flows between nodes; CNTK wrote it down, the output last."""

    def weight(self, name: str, shape: Shape, bound: float) -> str:
        """Add a float32 tensor of numbers between -bound and bound; return its name."""
        raw = self._bits.random_raw(math.prod(shape))
        unit = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
        values = (unit * np.float32(bound)).reshape(shape)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def constant(self, name: str, value: float) -> str:
        """Add a scalar; return its name."""
        self.weights.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def shape(self, name: str, *lengths: int) -> str:
        """Add a shape to reshape to; return its name."""
        self.weights.append(helper.make_tensor(name, TensorProto.INT64, [len(lengths)], lengths))
        return name

    def node(
        self, kind: str, names: str, inputs: Sequence[str], shape: Shape, **more: Attribute
    ) -> str:
        """Add a node of one output of this shape; ``names`` is NAME or NAME/OUTPUT."""
        name, _, output = names.partition("/")
        output = output or f"{name}_Output_0"
        node = helper.make_node(kind, inputs, [output], name=name)
        node.doc_string = node.domain = ""
        node.attribute.extend(helper.make_attribute(key, it) for key, it in more.items())
        self.nodes.append(node)
        self.between.append(tensor(output, shape))
        return output


def build(seed: int = 1) -> ModelProto:
    """The whole network: ``Input3`` float32 [1, 1, 64, 64], grey 0 to 255, to eight scores."""
    network = Network(seed)
    shaped = flat(network)
    shape: Shape = (1, 1, 64, 64)
    source = network.node(
        "Sub", "Minus340", [INPUT, network.constant("Constant339", MIDDLE)], shape
    )
    source = network.node(
        "Div", "Block352", [source, network.constant("Constant343", RANGE)], shape
    )
    edge, before = 64, 1
    for convolutions, (pool, dropout) in zip(CONVOLUTIONS, POOLINGS, strict=True):
        for number, weights, after in convolutions:
            source = convolve(network, source, (number, weights), (1, after, edge, edge), before)
            before = after
        edge //= 2
        shape = (1, before, edge, edge)
        source = network.node(
            "MaxPool",
            f"Pooling{pool}",
            [source],
            shape,
            kernel_shape=[2, 2],
            strides=[2, 2],
            pads=[0, 0, 0, 0],
            auto_pad="NOTSET",
        )
        source = network.node("Dropout", f"Dropout{dropout}", [source], shape, ratio=0.25)
    return assemble(network, dense(network, source, shaped))


def convolve(
    network: Network, source: str, numbers: tuple[int, int], shape: Shape, before: int
) -> str:
    """3x3 convolution from ``before`` channels, bias, ReLU: three nodes, numbered two apart."""
    number, weights = numbers
    out = shape[1]
    weight = network.weight(f"Parameter{weights}", (out, before, 3, 3), math.sqrt(6 / (before * 9)))
    source = network.node(
        "Conv",
        f"Convolution{number}",
        [source, weight],
        shape,
        kernel_shape=[3, 3],
        strides=[1, 1],
        auto_pad="SAME_UPPER",
        group=1,
        dilations=[1, 1],
    )
    bias = network.weight(f"Parameter{weights + 1}", (out, 1, 1), 0.1)
    source = network.node("Add", f"Plus{number + 2}", [source, bias], shape)
    return network.node("Relu", f"ReLU{number + 4}", [source], shape)


def flat(network: Network) -> str:
    """CNTK kept the first dense layer's weights in four dimensions: the graph flattens them."""
    name = "Parameter1367"
    weights = network.weight(name, (256, 4, 4, 1024), math.sqrt(6 / 4096))
    shape = network.shape(f"{name}_reshape1_shape", 4096, 1024)
    return network.node(
        "Reshape", f"Times622_reshape1/{name}_reshape1", [weights, shape], (4096, 1024)
    )


def dense(network: Network, source: str, weights: str) -> str:
    """Three dense layers; ReLU and dropout between them."""
    before = 4096
    shape = network.shape(f"{source}_reshape0_shape", 1, before)
    names = f"Times622_reshape0/{source}_reshape0"
    source = network.node("Reshape", names, [source, shape], (1, before))
    for number, parameter, after in DENSE:
        if number != DENSE[0][0]:
            bound = math.sqrt(6 / before)
            weights = network.weight(f"Parameter{parameter}", (before, after), bound)
        source = network.node("MatMul", f"Times{number}", [source, weights], (1, after))
        bias = network.weight(f"Parameter{parameter + 1}", (after,), 0.1)
        source = network.node("Add", f"Plus{number + 2}", [source, bias], (1, after))
        if after != CLASSES:
            source = network.node("Relu", f"ReLU{number + 14}", [source], (1, after))
            name = f"Dropout{number + 24}"
            source = network.node("Dropout", name, [source], (1, after), ratio=0.5)
        before = after
    return source


def assemble(network: Network, output: str) -> ModelProto:
    """The model around the nodes and weights, with what CNTK says of itself."""
    graph = helper.make_graph(
        network.nodes,
        "CNTKGraph",
        [tensor(INPUT, (1, 1, 64, 64)), *inputs(network.weights)],
        [tensor(output, (1, CLASSES))],
        network.weights,
        value_info=network.between[:-1],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="CNTK",
        producer_version="2.5.1",
        domain="ai.cntk",
        model_version=1,
    )


def inputs(weights: list[TensorProto]) -> Iterator[ValueInfoProto]:
    """File format 3 lists every weight among the graph's inputs, too."""
    for each in weights:
        yield helper.make_tensor_value_info(each.name, each.data_type, list(each.dims))


def tensor(name: str, shape: Shape) -> ValueInfoProto:
    """A float32 tensor."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "model/model.onnx")
    asked = parser.parse_args()
    content = build(asked.seed).SerializeToString(deterministic=True)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_bytes(content)
    print(f"wrote {asked.output}: {len(content):,} bytes, weights of chance (seed {asked.seed})")


if __name__ == "__main__":
    main()
