"""Make a stand-in for the zoo's resnet50-v2-7.onnx: the same network, weights of chance.

It answers nonsense. It is for trying everything that does not depend on the answers without
downloading anything: registering, building, sending, scoring, measuring. The same seed gives the
same bytes on any machine.

    python make_weights.py                 writes model/model.onnx, 102 MB
    python make_weights.py --seed 2        the same network, other weights

What the real file's graph looks like was put together from public listings of it:

- names and shapes of the weights, order of the layers, where strides and paddings are: the W3C
  WebNN tests of this very network (webnn-polyfill, test/models/resnet50v2_nchw.js); that a block's
  shortcut is taken after its first normalisation: gluon's BottleneckV2, which it was exported from
- operators' attributes, file format 3: a printed beginning of the file; names of the nodes within a
  stage, and `data`, `N`: printed nodes of the zoo's resnet18-v2-7.onnx, of the same exporter
- `resnetv24_flatten0_reshape0`, `reshape_attr_tensor430` and `resnetv24_dense0_fwd`: programs that
  use the file

The file made here has the real one's size to the byte, 102,442,452, which differs as soon as one
name, attribute or shape does.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import (
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

PREFIX = "resnetv24_"
INPUT, OUTPUT = "data", f"{PREFIX}dense0_fwd"
CLASSES = 1000
STAGES = ((3, 256, 1), (4, 512, 2), (6, 1024, 2), (3, 2048, 2))
"""For each stage: blocks, channels out, stride of the first block."""

OPSET, IR_VERSION = 7, 3
SIZE = 102_442_452
"""Bytes of the zoo's file, and of what is made here."""

Floats = npt.NDArray[np.float32]


class Chance:
    """Weights from a seed: PCG64's bits, the same in every numpy, and exact arithmetic."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Floats:
        """float32 numbers between ``low`` and ``high``."""
        raw = self._bits.random_raw(math.prod(shape))
        unit = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return (unit * np.float32(high - low) + np.float32(low)).reshape(shape)


class Network:
    """Collects nodes and weights, layer by layer, as the exporter did."""

    def __init__(self, seed: int) -> None:
        self._chance = Chance(seed)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def weight(self, name: str, shape: tuple[int, ...], low: float, high: float) -> str:
        """Add a weight tensor; return its name."""
        values = self._chance.uniform(shape, low, high)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, name: str, *inputs: str, **attributes: float | list[int]) -> str:
        """Add a node whose output is called as it is."""
        node = helper.make_node(kind, list(inputs), [name], name=name)
        node.attribute.extend(helper.make_attribute(key, it) for key, it in attributes.items())
        self.nodes.append(node)
        return name

    def batchnorm(self, source: str, name: str, channels: int, spread: float = 0.1) -> str:
        """Normalise; ``spread`` is how far its four weights are from doing nothing."""
        weights = [
            self.weight(f"{name}_gamma", (channels,), 1 - spread, 1 + spread),
            self.weight(f"{name}_beta", (channels,), -spread, spread),
            self.weight(f"{name}_running_mean", (channels,), -spread, spread),
            self.weight(f"{name}_running_var", (channels,), 1 - spread, 1 + spread),
        ]
        return self.node(
            "BatchNormalization",
            f"{name}_fwd",
            source,
            *weights,
            epsilon=1e-5,
            momentum=0.9,
            spatial=1,
        )

    def conv(self, source: str, name: str, shape: tuple[int, int, int], stride: int = 1) -> str:
        """Convolve without a bias; ``shape`` is channels out, channels in, edge of the kernel."""
        out, channels, edge = shape
        bound = math.sqrt(6 / (channels * edge * edge))
        weight = self.weight(f"{name}_weight", (out, channels, edge, edge), -bound, bound)
        return self.node(
            "Conv",
            f"{name}_fwd",
            source,
            weight,
            dilations=[1, 1],
            group=1,
            kernel_shape=[edge, edge],
            pads=[edge // 2] * 4,
            strides=[stride, stride],
        )


def block(
    network: Network, source: str, stage: str, number: int, layout: tuple[int, int, int]
) -> str:
    """Add a pre-activation bottleneck; ``layout`` is channels in, channels out, stride.

    The first block of a stage has a convolution of its own in the shortcut, so the others' numbers
    are one higher.
    """
    before, after, stride = layout
    first, norm = number == 0, number * 3
    conv = number * 3 + (0 if first else 1)
    middle = after // 4
    shortcut = source
    steps = ((middle, before, 1, 1), (middle, middle, 3, stride), (after, middle, 1, 1))
    for step, (out, channels, edge, by) in enumerate(steps):
        source = network.batchnorm(source, f"{stage}_batchnorm{norm + step}", channels)
        source = network.node("Relu", f"{stage}_activation{norm + step}", source)
        if first and step == 0:
            shortcut = source
        source = network.conv(source, f"{stage}_conv{conv + step}", (out, channels, edge), by)
    if first:
        shortcut = network.conv(shortcut, f"{stage}_conv3", (after, before, 1), stride)
    return network.node("Add", f"{stage}__plus{number}", source, shortcut)


def build(seed: int = 1) -> ModelProto:
    """The whole network: ``data`` float32 [N, 3, 224, 224] to 1000 scores, no softmax."""
    network = Network(seed)
    source = network.batchnorm(INPUT, f"{PREFIX}batchnorm0", 3, spread=0.0)
    source = network.conv(source, f"{PREFIX}conv0", (64, 3, 7), stride=2)
    source = network.batchnorm(source, f"{PREFIX}batchnorm1", 64)
    source = network.node("Relu", f"{PREFIX}relu0_fwd", source)
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    source = network.node("MaxPool", f"{PREFIX}pool0_fwd", source, **window)
    before = 64
    for stage, (blocks, after, stride) in enumerate(STAGES, 1):
        for number in range(blocks):
            layout = (before, after, 1 if number else stride)
            source = block(network, source, f"{PREFIX}stage{stage}", number, layout)
            before = after
    source = network.batchnorm(source, f"{PREFIX}batchnorm2", before)
    source = network.node("Relu", f"{PREFIX}relu1_fwd", source)
    source = network.node("GlobalAveragePool", f"{PREFIX}pool1_fwd", source)
    network.weights.append(
        helper.make_tensor("reshape_attr_tensor430", TensorProto.INT64, [2], [0, -1])
    )
    source = network.node("Reshape", f"{PREFIX}flatten0_reshape0", source, "reshape_attr_tensor430")
    # Small, so that the probabilities are spread over the classes and change with the picture.
    bound = math.sqrt(6 / before) / 100
    dense = [
        network.weight(f"{PREFIX}dense0_weight", (CLASSES, before), -bound, bound),
        network.weight(f"{PREFIX}dense0_bias", (CLASSES,), -0.1, 0.1),
    ]
    network.node("Gemm", OUTPUT, source, *dense, alpha=1.0, beta=1.0, transA=0, transB=1)
    graph = helper.make_graph(
        network.nodes,
        "main",
        [tensor(INPUT, ("N", 3, 224, 224)), *inputs(network.weights)],
        [tensor(OUTPUT, ("N", CLASSES))],
        network.weights,
    )
    return helper.make_model(
        graph, opset_imports=[OperatorSetIdProto(version=OPSET)], ir_version=IR_VERSION
    )


def inputs(weights: list[TensorProto]) -> Iterator[ValueInfoProto]:
    """File format 3 lists every weight among the graph's inputs, too."""
    for each in weights:
        yield helper.make_tensor_value_info(each.name, each.data_type, list(each.dims))


def tensor(name: str, shape: tuple[int | str, ...]) -> ValueInfoProto:
    """A float32 tensor; a size that is a name may be any."""
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
