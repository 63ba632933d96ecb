"""``python -m mlpack_runtime``: load the model, then listen."""

from __future__ import annotations

import os
import sys

from . import logs
from .settings import NotServable, Settings


def main() -> int:
    """Serve until SIGTERM or SIGINT; what cannot be served ends with one line and status 1."""
    try:
        settings = Settings.read(os.environ)
    except NotServable as error:
        logs.write("error", {"message": str(error)})
        return 1
    os.environ.update(settings.environment)
    # After the environment is set: onnxruntime reads it when it is imported.
    from .server import serve

    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
