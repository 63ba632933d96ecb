"""``python -m benchmarks [NAME…]``: all of them, or those named; on an otherwise idle machine."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

NAMES = (
    "startup",
    "walks",
    "layer",
    "serving",
    "publish",
    "builders",
    "graft",
    "prediction",
)


def main() -> None:
    """Run each benchmark in a folder of its own."""
    wanted = sys.argv[1:] or NAMES
    if unknown := ", ".join(set(wanted) - set(NAMES)):
        sys.exit(f"error: no benchmark is called {unknown}\nhint: there is {', '.join(NAMES)}")
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="mlpack-bench-") as folder:
            importlib.import_module(f"benchmarks.{name}").main(Path(folder))


if __name__ == "__main__":
    main()
