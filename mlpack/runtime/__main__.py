"""``python -m mlpack_runtime``: load the model, then listen; with ``--try``, only score once."""

from __future__ import annotations

import os
import sys

from . import telemetry
from .settings import NotServable, RuntimeSettings


def main() -> int:
    """Serve until SIGTERM or SIGINT; an invalid setting ends with one line and status 1."""
    if sys.argv[1:] == ["--try"]:
        from . import trial

        os._exit(trial.main())  # threads of a script must not keep the process
    try:
        settings = RuntimeSettings.read(os.environ)
    except NotServable as error:
        telemetry.write("error", {"message": str(error)})
        return 1
    # Here, because the server's imports take a while.
    from .server import serve

    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
