"""The log: one JSON object on one line, for each request and for whatever else is said."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z


class JsonLines(logging.Handler):
    """Writes records of ``logging`` to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what cannot be written is lost, never the request."""
        try:
            found: dict[str, object] = {"message": record.getMessage()}
            if record.name != "mlpack_runtime":
                found["logger"] = record.name
            if record.exc_info:
                found["traceback"] = logging.Formatter().formatException(record.exc_info)
            write(record.levelname.lower(), found)
        except Exception:
            self.handleError(record)


def configure(level: int) -> None:
    """Send everything from ``level`` on to standard error."""
    logging.basicConfig(level=level, handlers=[JsonLines()], force=True)


def write(level: str, what: Mapping[str, object]) -> None:
    """Write one line: the time, the level, and ``what``."""
    line = {"time": datetime.now(UTC), "level": level, **what}
    # One write of one line: lines of several threads do not mix.
    sys.stderr.buffer.write(orjson.dumps(line, str, _OPTIONS))
    sys.stderr.buffer.flush()
