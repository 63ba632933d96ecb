"""Settings from the environment: the model's place, the port, and limits."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

APP_ROOT = Path("/var/azureml-app")
MODELS = "azureml-models"
SCRIPT = "score.py"
PORT = 5001
_MIB = 1024 * 1024
_LEVELS = ("debug", "info", "warning", "error")
_AZURE_LEVELS = {"notset": "debug", "warn": "warning", "critical": "error", "fatal": "error"}
"""Further names of levels in Python's logging, which Azure ML's server takes."""

_WITHOUT_EFFECT = (
    "AML_APP_INSIGHTS_ENABLED",
    "AML_MODEL_DC_STORAGE_ENABLED",
    "AZUREML_CONFIG_FILE",
    "AZUREML_DEBUG_PORT",
    "SEPERATE_HEALTH_ENDPOINT",
    "WORKER_COUNT",
    "WORKER_PRELOAD",
    "WORKER_TIMEOUT",
)
"""Variables of Azure ML's server that change what it does, and nothing here; its spelling."""


class NotServable(Exception):
    """The release cannot score: the model or script is missing or does not load."""


class ScriptFailed(NotServable):
    """The script raised before the first request; ``__cause__`` is its exception."""


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """Settings of the runtime, parsed once. docs/reference/scoring.md lists the variables."""

    app_root: Path = APP_ROOT
    model_dir: Path = APP_ROOT / MODELS
    script: Path = APP_ROOT / SCRIPT
    model_cache: Path | None = None
    """Folder of models rebuilt at start; ``None``: a temporary folder."""
    host: str = "0.0.0.0"  # noqa: S104  (a container's own network)
    port: int = PORT
    threads: int | None = None
    """Threads of one run of a model; ``None``: the container's limit."""
    queue: int = 64
    """Requests that may wait; more are answered 503."""
    timeout: float = 60.0
    """Seconds from a request's arrival to its response."""
    drain: float = 1.0
    """Seconds in which requests are still answered after SIGTERM."""
    grace: float = 7.0
    """Seconds after that for requests in work; engines kill after 10 in all."""
    max_body: int = 64 * _MIB
    """Bytes of a request."""
    max_pixels: int = 64_000_000
    """Pixels of a picture, by its header."""
    batch: int = 32
    """Maximum rows of joined requests; 1: requests are not joined."""
    batch_forced: bool = False
    """Whether requests are joined although nothing proves that rows are independent."""
    batch_wait: float = 0.0
    """Seconds to wait for more requests to join."""
    allow_nan: bool = False
    """Whether tensors may hold NaN and infinity."""
    log: str = "info"
    source: Path | None = None
    """Azure ML's folder of further modules of the script."""
    cors_origins: tuple[re.Pattern[str], ...] = ()
    """Origins of pages that may read the answers."""
    server_version: str = ""
    """Value of the header x-ms-server-version; empty: no such header."""
    without_effect: tuple[str, ...] = ()
    """Variables of Azure ML's server that are set, but change nothing here."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> RuntimeSettings:
        """Parse the variables of Azure ML's images and the ``MLPACK_`` variables.

        Raises :class:`NotServable` naming the invalid variable.
        """
        root = Path(environment.get("AML_APP_ROOT") or APP_ROOT)
        named = environment.get("AZUREML_MODEL_DIR")
        cache = environment.get("MLPACK_MODEL_CACHE")
        number = _Numbers(environment)
        # Azure's timeout, in milliseconds.
        azure = number.real("SCORING_TIMEOUT_MS", cls.timeout * 1000, lowest=1) / 1000
        return cls(
            app_root=root,
            model_dir=Path(named) if named else only_model(root / MODELS),
            script=root / (environment.get("AZUREML_ENTRY_SCRIPT") or SCRIPT),
            model_cache=Path(cache) if cache else None,
            host=environment.get("MLPACK_HOST") or cls.host,
            port=number.whole("MLPACK_PORT", PORT, lowest=1, highest=65535),
            threads=number.whole("MLPACK_THREADS", 0, lowest=0, highest=4096) or None,
            queue=number.whole("MLPACK_QUEUE", cls.queue, lowest=1),
            timeout=number.real("MLPACK_TIMEOUT", azure, lowest=0.001),
            drain=number.real("MLPACK_DRAIN", cls.drain, lowest=0),
            grace=number.real("MLPACK_GRACE", cls.grace, lowest=0),
            max_body=number.whole("MLPACK_MAX_BODY", cls.max_body, lowest=1),
            max_pixels=number.whole("MLPACK_MAX_PIXELS", cls.max_pixels, lowest=1),
            batch=_batch(environment, number),
            batch_forced=environment.get("MLPACK_BATCH") == "on",
            batch_wait=number.real("MLPACK_BATCH_WAIT_MS", 0.0, lowest=0) / 1000,
            allow_nan=allows_nan(environment),
            log=_level(environment),
            **_azure(environment, root),
        )

    @property
    def level(self) -> int:
        """The minimum level to log, as a number of ``logging``."""
        return logging.getLevelNamesMapping()[self.log.upper()]

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that scoring scripts and their libraries rely on.

        Azure ML's server sets the same, and scripts read them without a default.
        """
        return {
            "AML_APP_INSIGHTS_ENABLED": "false",
            "AML_APP_ROOT": str(self.app_root),
            "AZUREML_ENTRY_SCRIPT": str(self.script),
            "AZUREML_MODEL_DIR": str(self.model_dir),
            "ORT_DISABLE_TELEMETRY": "1",
            "SERVER_PORT": str(self.port),
            "WORKER_COUNT": "1",
        }


def only_model(folder: Path) -> Path:
    """Return ``folder/<name>/<version>`` if there is exactly one, else ``folder``."""
    found = [path for path in sorted(folder.glob("*/*")) if path.is_dir()]
    return found[0] if len(found) == 1 else folder


class _Numbers:
    """Parses numbers in the environment, each within its bounds."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def whole(self, name: str, default: int, *, lowest: int, highest: int = 2**53) -> int:
        text = self._environment.get(name) or str(default)
        if text.isdecimal() and lowest <= int(text) <= highest:
            return int(text)
        above = "" if highest == 2**53 else f" to {highest}"
        raise NotServable(f"{name}={text!r} is not a whole number from {lowest}{above}")

    def real(self, name: str, default: float, *, lowest: float) -> float:
        text = self._environment.get(name) or str(default)
        try:
            found = float(text)
        except ValueError:
            found = float("nan")
        if lowest <= found <= 1e9:
            return found
        raise NotServable(f"{name}={text!r} is not a number from {lowest:g}")


def allows_nan(environment: Mapping[str, str]) -> bool:
    """Return whether tensors may hold NaN and infinity; raise :class:`NotServable`."""
    return _flag(environment, "MLPACK_ALLOW_NAN")


def _batch(environment: Mapping[str, str], number: _Numbers) -> int:
    """Return the rows to join: a number, or those of ``on``, ``off`` and ``auto``."""
    named = {"on": RuntimeSettings.batch, "auto": RuntimeSettings.batch, "off": 1}
    found = named.get(environment.get("MLPACK_BATCH", ""))
    return found or number.whole("MLPACK_BATCH", RuntimeSettings.batch, lowest=1)


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name) or "0"
    if text not in ("0", "1"):
        raise NotServable(f"{name}={text!r} is neither 0 nor 1")
    return text == "1"


def _level(environment: Mapping[str, str]) -> str:
    name = "MLPACK_LOG" if environment.get("MLPACK_LOG") else "AZUREML_LOG_LEVEL"
    text = environment.get(name) or RuntimeSettings.log
    level = text.lower()
    if name != "MLPACK_LOG":
        level = _AZURE_LEVELS.get(level, level)
    if level not in _LEVELS:
        raise NotServable(f"{name}={text!r} must be one of {', '.join(_LEVELS)}")
    return level


class _Azure(TypedDict):
    """Settings of Azure ML's server that have no other name here."""

    source: Path | None
    cors_origins: tuple[re.Pattern[str], ...]
    server_version: str
    without_effect: tuple[str, ...]


def _azure(environment: Mapping[str, str], root: Path) -> _Azure:
    source = environment.get("AZUREML_SOURCE_DIRECTORY")
    return _Azure(
        source=root / source if source else None,
        cors_origins=_origins(environment.get("AML_CORS_ORIGINS", "")),
        server_version=environment.get("HTTP_X_MS_SERVER_VERSION", ""),
        without_effect=tuple(
            name
            for name in _WITHOUT_EFFECT
            if environment.get(name, "").lower() not in ("", "0", "false")
            and (name, environment[name]) != ("WORKER_COUNT", "1")
        ),
    )


def _origins(text: str) -> tuple[re.Pattern[str], ...]:
    """Parse origins separated by commas; one with special characters is a pattern.

    >>> [bool(each.fullmatch("https://a.example")) for each in _origins("HTTPS://A.example, *")]
    [True, True]
    """
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        special = set(part) & set(r"*\]?$^[]()")
        pattern = ".*" if part == "*" else part if special else re.escape(part)
        try:
            found.append(re.compile(pattern, re.IGNORECASE))
        except re.error as error:
            raise NotServable(f"AML_CORS_ORIGINS: {part!r} is not a pattern ({error})") from error
    return tuple(found)
