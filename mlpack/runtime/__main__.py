"""``python -m mlpack_runtime``: load the model, then listen."""

from __future__ import annotations

import os
import sys

from .settings import Settings


def main() -> None:
    """Serve until SIGTERM or SIGINT; a model that does not load ends with status 1."""
    settings = Settings.read(os.environ)
    os.environ.update(settings.environment)
    # After the environment is set: onnxruntime reads it when it is imported.
    from .server import serve

    sys.exit(serve(settings))


if __name__ == "__main__":
    main()
