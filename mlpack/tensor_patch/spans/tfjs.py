"""The tensors of a TensorFlow.js model, which its ``model.json`` describes (tfjs-converter)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod

from mlpack.tensor_patch.spans.span import (
    MAX_RANK,
    Damaged,
    External,
    Kind,
    Span,
    array_span,
    inner_path,
)

SUFFIX = ".json"
MAX_JSON = 16 * 2**20

_SHARD = 4 * 2**20
"""Bytes of each shard but the last, unless the converter is configured otherwise."""

_KINDS = {
    "float32": Kind.F32,
    "float16": Kind.F16,
    "int32": Kind.I32,
    "uint16": Kind.I16,
    "uint8": Kind.I8,
    "bool": Kind.I8,
}


def find_external(view: memoryview, _: str) -> External:
    """Return the tensors by the files that they are in. Raises :class:`Damaged`."""
    if not re.search(b'"weightsManifest"', view):
        return {}
    if len(view) > MAX_JSON:
        raise Damaged(f"a text of {len(view)} bytes")
    try:
        model = json.loads(view.tobytes())
    except (ValueError, RecursionError) as error:
        raise Damaged(f"not JSON: {error}") from None
    found: External = {}
    match model:
        case {"weightsManifest": list(groups)}:
            for group in groups:
                for path, span in _group(group):
                    found.setdefault(path, []).append(span)
    return found


def _group(group: object) -> Iterator[tuple[str, Span]]:
    """Yield the tensors of one group, whose files are shards of one run of bytes."""
    match group:
        case {"paths": list(paths), "weights": list(weights)}:
            places = [inner_path(each) if isinstance(each, str) else None for each in paths]
        case _:
            return
    tensors, end = list[Span](), 0
    for weight in weights:
        name, kind, shape = _weight(weight)
        length = prod(shape) * kind.width
        tensors += array_span(name, end, length, kind, shape)
        end += length
    size = end if len(places) == 1 else _SHARD
    if not size or (len(places) - 1) * size >= end or end > len(places) * size:
        return
    for each in tensors:
        for shard in range(each.offset // size, (each.offset + each.length - 1) // size + 1):
            first = max(each.offset, shard * size)
            last = min(each.offset + each.length, (shard + 1) * size)
            place = places[shard]
            if place:
                whole = array_span(
                    each.name, first - shard * size, last - first, each.kind, each.shape
                )
                yield from ((place, part) for part in whole)


def _weight(weight: object) -> tuple[str, Kind, tuple[int, ...]]:
    match weight:
        case {"name": str(name), "shape": list(dims), "quantization": {"dtype": str(dtype)}} | {
            "name": str(name),
            "shape": list(dims),
            "dtype": str(dtype),
        }:
            shape = tuple(each for each in dims[:MAX_RANK] if type(each) is int and each >= 0)
            if len(shape) == len(dims) and dtype in _KINDS:
                return name, _KINDS[dtype], shape
    raise Damaged("a tensor without a size")
