"""Mutated patches: each must end in an error or in exactly the new file, and in little memory.

    python -m tests.runtime.patch.fuzz 100000

Bytes are flipped, moved, cut off, and taken from other patches; half of the patches have their
streams stored as they are, so that mutations reach what compression's own checks would hide.
"""

from __future__ import annotations

import re
import resource
import sys
from collections import Counter

import numpy as np

from mlpack.delta import make_patch
from mlpack.delta.spans.span import Kind
from mlpack.runtime.patch import BadPatch
from tests.delta.files import Pair, applied, pair, sparse, trained, unrelated
from tests.runtime.patch.plain import stored

_NUMBERS = re.compile(r"\b[0-9a-f]{64}\b|-?\d+(\.\d+)?(e[+-]\d+)?")
"""What differs between two refusals of one kind."""

MEMORY = 2**31
"""Bytes of address space that all of it may take."""


def corpus() -> list[tuple[Pair, bytes]]:
    """Small patches that together have every operation, coder and form."""
    small = (8, 6, 3, 3)
    pairs = [
        pair(change, kind, small, arrays=2)
        for kind in Kind
        for change in (trained, sparse, unrelated)
    ]
    text = b"the graph of a model " * 40
    pairs += [
        Pair(text, text.replace(b"model", b"network"), (), ()),
        Pair(bytes(range(256)) * 8, bytes(range(1, 255)) * 8, (), ()),
        pair(trained, Kind.F32, (48, 32, 3), arrays=2),
    ]
    found = []
    for each in pairs:
        patch = make_patch(
            memoryview(each.old),
            memoryview(each.new),
            old_spans=each.old_spans,
            new_spans=each.new_spans,
        )
        found += [(each, patch), (each, stored(each.old, patch))]
    return found


def mutated(patch: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """``patch`` with one to four changes, most of them near its start, where sizes are."""
    content = bytearray(patch)
    for _ in range(int(random.integers(1, 5))):
        limit = len(content) if random.random() < 0.4 else min(len(content), 400)
        at = int(random.integers(0, max(limit, 1)))
        way = int(random.choice(6, p=(0.3, 0.3, 0.2, 0.14, 0.03, 0.03)))
        count = int(random.integers(1, 40))
        if way == 0:
            content[at : at + 1] = bytes([int(random.integers(0, 256))])
        elif way == 1:
            content[at : at + 1] = bytes([content[at] ^ (1 << int(random.integers(0, 8)))])
        elif way == 2:
            begin = int(random.integers(0, len(other)))
            content[at : at + count] = other[begin : begin + count].ljust(count, b"\xff")
        elif way == 3:
            # Moved, so that the patch is as long as its header says.
            piece = content[at : at + count]
            del content[at : at + count]
            place = int(random.integers(0, len(content) + 1))
            content[place:place] = piece
        elif way == 4:
            content[at:at] = bytes([255] * count)
        else:
            del content[at:]
        if not content:
            return b""
    return bytes(content)


def fuzz(count: int, seed: int) -> Counter[str]:
    """How ``count`` mutated patches end; raises where one ends as none may."""
    random = np.random.default_rng(seed)
    known = corpus()
    ends: Counter[str] = Counter()
    for _ in range(count):
        of, patch = known[int(random.integers(len(known)))]
        tried = mutated(patch, known[int(random.integers(len(known)))][1], random)
        try:
            result = applied(of.old, tried)
        except BadPatch as error:
            ends[_NUMBERS.sub("…", str(error))[:70]] += 1
            continue
        assert result == of.new, f"wrong bytes from {tried.hex()}"
        ends["the new file, exactly"] += 1
    return ends


def main() -> None:
    """Fuzz as often as the command line says."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    ends = fuzz(count, seed)
    for end, times in ends.most_common():
        sys.stdout.write(f"{times:8d}  {end}\n")
    sys.stdout.write(f"{sum(ends.values())} mutated patches, no wrong byte, no crash\n")


if __name__ == "__main__":
    main()
