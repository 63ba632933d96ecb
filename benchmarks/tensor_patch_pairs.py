"""Models for the benchmark of patches: real pairs, derived 16-bit ones, made ones, whole models.

Files of made models are replaced by the next one's, so measure a case before taking the next.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from mlpack.tensor_patch.spans import Kind, find_spans

CHECKOUT = Path(__file__).parents[1]
DATA = CHECKOUT.parent / "shared/data"
MAKER = CHECKOUT / "examples/resnet50v2/make_weights.py"
EPOCHS = "rfb320-onnx-finetune-derived"

TRAINED_ON = 0.0033
"""Relative size of an update per tensor: the median of the real pair rfb320 epoch 460 to 480."""

DECAY = 0.9993
"""The factor between that pair's weights."""

SIZES = (0.0034, 0.0026, 0.00175, 0.0049, 0.0005, 0.0006, 0.0007, 0.0007)
"""Relative sizes of the updates of that pair's eight large tensors."""

LARGE, TEXT = 100_000_000, 60_000_000
"""Bytes of the made models, and of the made text."""

Array = NDArray[Any]
Floats = NDArray[np.float32]


class Group(StrEnum):
    """The table that a case is in."""

    PATCHES = "Patches"
    HALVES = "Patches of 16-bit fine-tunes (derived from the rfb320 epochs)"
    PACKED = "Packed models"
    TIMES = "Made models, for time and memory"


@dataclass(frozen=True)
class Case:
    """Two versions of a model, or a whole one, whose ``old`` is ``None``."""

    group: Group
    name: str
    old: Path | None
    new: Path
    counted: bool = False
    """Whether means are over it: pairs of float ONNX models whose weights changed, and whole
    float models."""

    floor: int | None = None
    """The entropy of a random update, in bytes."""

    searched: bool = True
    """Whether peers that look for equal bytes are run; a large model without any takes minutes."""


def _real(_: Path) -> Iterator[Case]:
    """Yield successive versions in ../shared/data/pairs."""
    for folder in sorted((DATA / "pairs").iterdir()):
        files = sorted(each for each in folder.iterdir() if each.name != "README.md")
        changed = folder.name in {EPOCHS, "rfb320-onnx-retrained", "silero-vad-16k-onnx"}
        for old, new in itertools.pairwise(files):
            yield Case(Group.PATCHES, f"{folder.name} {new.stem}", old, new, changed)


def _whole(_: Path) -> Iterator[Case]:
    """Yield each model in ../shared/data once."""
    seen = set[bytes]()
    for path in sorted([*DATA.glob("pairs/*/*"), *DATA.glob("onnx-zoo/*.onnx")]):
        digest = hashlib.sha256(path.read_bytes()).digest()
        if path.suffix != ".md" and digest not in seen:
            seen.add(digest)
            floats = path.suffix in (".onnx", ".mnn") and "int8" not in path.name
            yield Case(Group.PACKED, f"{path.parent.name}/{path.name}", None, path, floats)


def _halves(folder: Path) -> Iterator[Case]:
    """Yield the rfb320 epochs as bf16 and fp16 safetensors, rounded to the nearest even."""
    epochs = [_tensors(DATA / f"pairs/{EPOCHS}/epoch{each}.onnx") for each in (460, 480, 499)]
    for name, kind, half in (("bf16", Kind.BF16, _bf16), ("fp16", Kind.F16, _fp16)):
        for (old, new), ends in zip(
            itertools.pairwise(epochs), ("460 to 480", "480 to 499"), strict=True
        ):
            before, after = ([half(each) for each in tensors] for tensors in (old, new))
            files = _written(folder, safetensors(before, kind), safetensors(after, kind))
            yield Case(Group.HALVES, f"rfb320 {name} {ends}", *files)


def _tensors(path: Path) -> list[Floats]:
    content = path.read_bytes()
    return [
        np.frombuffer(content[each.offset : each.offset + each.length], "<f4").reshape(each.shape)
        for each in find_spans(content)
        if each.kind is Kind.F32
    ]


def _bf16(values: Floats) -> Array:
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _fp16(values: Floats) -> Array:
    return values.astype("<f2")


def safetensors(arrays: Sequence[Array], kind: Kind = Kind.F32) -> bytes:
    """Return a file of the arrays, in their order."""
    ends = [0, *itertools.accumulate(each.nbytes for each in arrays)]
    header = {
        f"layer.{number}.weight": {
            "dtype": kind.value.upper(),
            "shape": list(each.shape),
            "data_offsets": ends[number : number + 2],
        }
        for number, each in enumerate(arrays)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(each.tobytes() for each in arrays)])


def _written(folder: Path, old: bytes, new: bytes) -> tuple[Path, Path]:
    paths = folder / "old", folder / "new"
    for path, content in zip(paths, (old, new), strict=True):
        path.write_bytes(content)
    return paths


def _timed(folder: Path) -> Iterator[Case]:
    """Yield models of the sizes and kinds that bound time."""
    random = np.random.default_rng(1)
    for name, count, changed in (
        ("fine-tune 100 MB", 16, _tuned),
        ("retrained 100 MB", 16, _retrained),
    ):
        old = _weights(random, count, LARGE // 4 // count // 512)
        new = [changed(random, each) for each in old]
        files = _written(folder, safetensors(old), safetensors(new))
        yield Case(Group.TIMES, name, *files)
    yield Case(Group.TIMES, "packed 100 MB", None, files[1])
    raw = [b"".join(each.tobytes() for each in some) for some in (old, map(_tuned_by(random), old))]
    yield Case(Group.TIMES, "raw float32 100 MB", *_written(folder, *raw))
    noise = _written(folder, random.bytes(LARGE), random.bytes(LARGE))
    yield Case(Group.TIMES, "opaque, incompressible 100 MB", *noise)
    yield Case(
        Group.TIMES, "trees as JSON 60 MB, each 50th new", *_written(folder, *_texts(random))
    )
    for count in (200, 64):
        old = _weights(random, count, 32)
        new = [_tuned(random, each) for each in old]
        files = _written(folder, safetensors(old), safetensors(new))
        yield Case(Group.TIMES, f"{count} tensors of 64 KiB, fine-tuned", *files)


def _weights(random: np.random.Generator, count: int, columns: int) -> list[Floats]:
    return [
        random.standard_normal((512, columns), np.float32) * np.float32(0.02 * (1 + number % 3))
        for number in range(count)
    ]


def _tuned(random: np.random.Generator, old: Floats) -> Floats:
    moved = random.standard_normal(old.shape, np.float32) * np.float32(TRAINED_ON * 0.02)
    made: Floats = old * np.float32(0.9999) + moved
    return made


def _tuned_by(random: np.random.Generator) -> Callable[[Floats], Floats]:
    return lambda old: _tuned(random, old)


def _retrained(random: np.random.Generator, old: Floats) -> Floats:
    made: Floats = random.standard_normal(old.shape, np.float32) * np.float32(0.02)
    return made


def _texts(random: np.random.Generator) -> tuple[bytes, bytes]:
    """Return two texts of trees of 100 nodes (1,340 bytes each)."""
    count = TEXT // 1340
    old = _trees(random, count)
    new = [*old]
    new[::50] = _trees(random, len(new[::50]))
    first, second = (b'{"trees":[' + b",".join(each) + b"]}" for each in (old, new))
    return first, second


def _trees(random: np.random.Generator, count: int) -> list[bytes]:
    splits = random.normal(size=(count, 100)).round(6).tolist()
    features = random.integers(0, 500, (count, 100)).tolist()
    return [
        json.dumps({"split": split, "feature": feature}, separators=(",", ":")).encode()
        for split, feature in zip(splits, features, strict=True)
    ]


def _resnets(folder: Path) -> Iterator[Case]:
    """Yield ResNet50v2's network with seeded weights, and three seeded updates of them."""
    old = folder / "resnet50v2.onnx"
    subprocess.run([sys.executable, str(MAKER), "--output", str(old)], check=True)
    yield _updated(folder, old, "head only", _new_head)
    yield _updated(folder, old, "trained on, 0.33 % of chance", _trained_on)
    yield _updated(folder, old, "trained on, as rfb320 460 to 480", _as_checkpoints)


def _updated(folder: Path, old: Path, name: str, change: Change) -> Case:
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
    new = folder / "new"
    onnx.save(model, new)
    dense = change is not _new_head
    floor = round(bits / 8) or None
    return Case(Group.PATCHES, f"ResNet50v2 {name}", old, new, floor=floor, searched=not dense)


Change = Callable[[Floats, int, str, np.random.Generator], tuple[Floats, float]]
"""Returns a tensor's new values, and the deviation of the normal noise in them, if known."""


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
    """Return decay and Laplace noise of each tensor (the real one has even heavier tails)."""
    size = SIZES[number % len(SIZES)] * float(np.sqrt(np.mean(before.astype(float) ** 2)))
    rest = max(size**2 - ((1 - DECAY) * float(np.std(before))) ** 2, (size / 4) ** 2) ** 0.5
    moved = before.astype(float) * DECAY + random.laplace(0, rest / 2**0.5, before.shape)
    return moved.astype(np.float32), 0.0


def _normal_bits(after: Floats, deviation: float) -> float:
    """Return the entropy in bits of normal noise at the floats' resolution."""
    magnitudes = np.abs(after)
    # The distance to the next float is one unit in the last place.
    ulps = (np.nextafter(magnitudes, np.float32(np.inf)) - magnitudes).astype(float)
    each = np.log2(deviation * np.sqrt(2 * np.pi * np.e) / ulps)
    return float(np.maximum(each, 0).sum())


SOURCES: Mapping[str, Callable[[Path], Iterator[Case]]] = {
    "pairs": _real,
    "16-bit": _halves,
    "packed": _whole,
    "resnet": _resnets,
    "times": _timed,
}
"""Where cases come from; each is called with a folder for made files."""
