"""Mutated patches: each must end in an error or in exactly the new file, and in little memory.

    python -m tests.runtime.patch.fuzz 100000

mutates that many patches of each version of the format. Bytes are flipped, moved, cut off, and
taken from other patches; most of the patches have their pieces stored uncompressed, so that
mutations reach what compression's own checks would hide.
"""

from __future__ import annotations

import re
import resource
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from mlpack.runtime.patch import BadPatch
from mlpack.runtime.patch.arrays import KINDS
from mlpack.tensor_patch import make_patch
from mlpack.tensor_patch.spans.span import Kind
from tests.runtime.patch.plain import stored
from tests.tensor_patch.files import (
    Pair,
    applied,
    by_rows,
    made,
    pair,
    rounded,
    sparse,
    trained,
    unrelated,
)

FLOATS = tuple(each for each in KINDS if each.fraction)

_NUMBERS = re.compile(r"\b[0-9a-f]{16,64}\b|-?\d+(\.\d+)?(e[+-]\d+)?")
"""What differs between two refusals of one kind."""

MEMORY = 2**31
"""Bytes of address space that all of it may take."""

SECONDS = 10
"""Processor time that one patch may take, at most: there are files of a few KB only."""

Corpus = list[tuple[bytes, bytes, bytes]]
"""Old files, new files and patches."""


FORMAT1 = Path(__file__).with_name("format1.zip")
"""Patches of version 1, which is no longer written, as its encoder made them."""


def format1() -> Corpus:
    """Small patches of version 1 that together have every operation, coder and form."""
    with zipfile.ZipFile(FORMAT1) as archive:
        files = [each for each in archive.namelist() if each[0].isdigit()]
        names = [each.removesuffix(".old") for each in files if each.endswith(".old")]
        return [
            (archive.read(f"{each}.old"), archive.read(f"{each}.new"), archive.read(each + patch))
            for each in names
            for patch in (".mlpd", ".stored.mlpd")
        ]


def format2() -> Corpus:
    """Small patches that together have every operation, coder and form."""
    small = (8, 6, 3, 3)
    pairs = [
        pair(change, kind, small, arrays=2)
        for kind in Kind
        for change in (trained, sparse, unrelated)
    ]
    pairs += [rounded(kind, 800) for kind in FLOATS]
    pairs += [pair(by_rows, kind, (12, 100), 1) for kind in (Kind.F32, Kind.F64, Kind.BF16)]
    text = b"the graph of a model " * 40
    packed = pair(trained, Kind.F32, small, arrays=2)
    pairs += [
        Pair(text, text.replace(b"model", b"network"), (), ()),
        Pair(bytes(range(256)) * 8, bytes(range(1, 255)) * 8, (), ()),
        Pair(b"", packed.new, (), packed.new_spans),
        pair(trained, Kind.F32, (48, 32, 3), arrays=2),
    ]
    found = []
    for each in pairs:
        patch = made(each)
        found += [
            (each.old, each.new, patch),
            (each.old, each.new, stored(each.old, each.new, patch)),
            (each.old, each.new, stored(each.old, each.new, patch, numbers_too=False)),
        ]
    trees = b'{"trees":[%s]}' % b",".join(
        b'{"id":%d,"weights":[%s]}'
        % (each, b",".join(b"%d.25E-%d" % (each % 9 + 1, n) for n in range(9)))
        for each in range(20)
    )
    found.append((b"", trees, make_patch(memoryview(b""), memoryview(trees))))
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


def fuzz(known: Corpus, count: int, seed: int) -> Counter[str]:
    """How ``count`` mutated patches end; raises where one ends as none may."""
    assert all(applied(old, patch) == new for old, new, patch in known)
    random = np.random.default_rng(seed)
    ends: Counter[str] = Counter()
    for _ in range(count):
        old, new, patch = known[int(random.integers(len(known)))]
        tried = mutated(patch, known[int(random.integers(len(known)))][2], random)
        start = time.process_time()
        try:
            result = applied(old, tried)
        except BadPatch as error:
            ends[_NUMBERS.sub("…", str(error))[:70]] += 1
        except BaseException:
            sys.stderr.write(f"old: {old.hex()}\npatch: {tried.hex()}\n")
            raise
        else:
            assert result == new, f"wrong bytes from {tried.hex()}"
            ends["the new file, exactly"] += 1
        taken = time.process_time() - start
        assert taken < SECONDS, f"{taken:.1f} s for {tried.hex()}"
    return ends


def main() -> None:
    """Fuzz as often as the command line says."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for version, corpus in ((1, format1), (2, format2)):
        ends = fuzz(corpus(), count, seed)
        for end, times in ends.most_common():
            sys.stdout.write(f"{times:8d}  {end}\n")
        total = sum(ends.values())
        sys.stdout.write(f"version {version}: {total} mutated patches, no wrong byte, no crash\n")


if __name__ == "__main__":
    main()
