"""``python -m benchmarks``: everything, one after the other, on an otherwise idle machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import builders, layer, prediction, publish, startup


def main() -> None:
    """Run every benchmark in a folder of its own."""
    for benchmark in (startup, layer, publish, builders, prediction):
        with tempfile.TemporaryDirectory(prefix="mlpack-bench-") as folder:
            benchmark.main(Path(folder))


if __name__ == "__main__":
    main()
