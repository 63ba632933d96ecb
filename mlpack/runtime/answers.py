"""What scoring returns, as bytes of JSON."""

from __future__ import annotations

import json

import orjson

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def to_json(value: object) -> bytes:
    """``value`` as JSON; raise :class:`TypeError` where it is none.

    NaN and infinity become null. ``None`` becomes ``{}``, as in Azure ML.
    """
    if value is None:
        return b"{}"
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        # Whole numbers beyond 64 bits, texts that are not Unicode: Azure ML writes them.
        return json.dumps(value, default=_plain).encode()


def _plain(value: object) -> object:
    """An array that orjson does not take (not contiguous, of another type) as lists."""
    import numpy as np

    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
