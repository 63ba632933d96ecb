"""The log: one JSON object on one line, for each request and for whatever else is said."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


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
    # One write of one line: lines of several threads do not mix.
    sys.stderr.buffer.write(
        orjson.dumps({"time": _now(), "level": level, **what}, _plain, _OPTIONS)
    )
    sys.stderr.buffer.flush()


def _now() -> str:
    now = datetime.fromtimestamp(time.time(), UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> str:
    return str(value)
