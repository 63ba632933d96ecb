"""Pairs of model versions for the benchmark of patches: real ones, and ResNet50v2's size made."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

CHECKOUT = Path(__file__).parents[1]
REAL = CHECKOUT.parent / "shared/data/pairs"
MAKER = CHECKOUT / "examples/resnet50v2/make_weights.py"

TRAINED_ON = 0.0033
"""Relative size of an update per tensor: the median of the real pair rfb320 epoch 460 to 480."""

DECAY = 0.9993
"""What that pair's weights are multiplied with."""

SIZES = (0.0034, 0.0026, 0.00175, 0.0049, 0.0005, 0.0006, 0.0007, 0.0007)
"""Relative sizes of the updates of that pair's eight large tensors."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two versions of a model; ``floor`` is what an update of chance holds, as bytes."""

    name: str
    old: Path
    new: Path
    changed: bool = False
    """Whether it is a float ONNX model whose weights changed."""

    floor: int | None = None


def real_pairs() -> Iterator[Pair]:
    """Successive versions in ../shared/data/pairs."""
    for folder in sorted(REAL.iterdir()):
        files = sorted(each for each in folder.iterdir() if each.name != "README.md")
        changed = folder.name in {
            "rfb320-onnx-finetune-derived",
            "rfb320-onnx-retrained",
            "silero-vad-16k-onnx",
        }
        for old, new in itertools.pairwise(files):
            yield Pair(f"{folder.name} {new.stem}", old, new, changed)


def made_pairs(folder: Path) -> Iterator[Pair]:
    """ResNet50v2's network with seeded weights, and three seeded updates of them."""
    old = folder / "resnet50v2.onnx"
    subprocess.run([sys.executable, str(MAKER), "--output", str(old)], check=True)
    yield _updated(folder, old, "head only", _new_head)
    yield _updated(folder, old, "trained on, 0.33 % of chance", _trained_on)
    yield _updated(folder, old, "trained on, as rfb320 460 to 480", _as_checkpoints)


def _updated(folder: Path, old: Path, name: str, change: Change) -> Pair:
    random = np.random.default_rng(7)
    model = onnx.load(old)
    bits = 0.0
    for number, tensor in enumerate(model.graph.initializer):
        before = numpy_helper.to_array(tensor)
        if before.dtype != np.float32 or not before.size or not tensor.raw_data:
            continue
        after, deviation = change(before, number, tensor.name, random)
        tensor.raw_data = after.tobytes()
        if deviation:
            bits += _normal_bits(after, deviation)
    new = folder / f"{name}.onnx"
    onnx.save(model, new)
    return Pair(f"ResNet50v2 {name}", old, new, floor=round(bits / 8) or None)


Change = Callable[[Floats, int, str, np.random.Generator], tuple[Floats, float]]
"""A tensor's new values, and the deviation of the normal noise in them, where that is known."""


def _new_head(
    before: Floats, number: int, name: str, random: np.random.Generator
) -> tuple[Floats, float]:
    if "dense" not in name:
        return before, 0.0
    moved = before + random.normal(0, 0.05 * before.std() + 1e-3, before.shape)
    return moved.astype(np.float32), 0.0


def _trained_on(
    before: Floats, number: int, name: str, random: np.random.Generator
) -> tuple[Floats, float]:
    deviation = TRAINED_ON * float(np.sqrt(np.mean(before.astype(float) ** 2)))
    moved = before + random.normal(0, deviation, before.shape)
    return moved.astype(np.float32), deviation


def _as_checkpoints(
    before: Floats, number: int, name: str, random: np.random.Generator
) -> tuple[Floats, float]:
    """Decay and Laplace's noise (the real one's tails are heavier still), each tensor its own."""
    size = SIZES[number % len(SIZES)] * float(np.sqrt(np.mean(before.astype(float) ** 2)))
    rest = max(size**2 - ((1 - DECAY) * float(np.std(before))) ** 2, (size / 4) ** 2) ** 0.5
    moved = before.astype(float) * DECAY + random.laplace(0, rest / 2**0.5, before.shape)
    return moved.astype(np.float32), 0.0


def _normal_bits(after: Floats, deviation: float) -> float:
    """Bits that normal noise holds at the floats' resolution: its entropy, at each one's ulp."""
    magnitudes = np.abs(after)
    # To the next float up, which is one unit in the last place.
    ulps = (np.nextafter(magnitudes, np.float32(np.inf)) - magnitudes).astype(float)
    each = np.log2(deviation * np.sqrt(2 * np.pi * np.e) / ulps)
    return float(np.maximum(each, 0).sum())
