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
    # Only now: what the server needs takes a while to import.
    from .server import serve

    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
