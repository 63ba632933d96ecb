"""What the environment says: where the model is, where to listen, and the bounds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

APP_ROOT = Path("/var/azureml-app")
MODELS = "azureml-models"
SCRIPT = "score.py"
PORT = 5001
_MIB = 1024 * 1024
_LEVELS = ("debug", "info", "warning", "error")


class NotServable(Exception):
    """A release that cannot score: no model, no script, or one that does not load."""


class ScriptFailed(NotServable):
    """A script that raises before the first request; what it raised is the cause."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The environment, read once. docs/scoring.md lists the variables."""

    app_root: Path = APP_ROOT
    model_dir: Path = APP_ROOT / MODELS
    script: Path = APP_ROOT / SCRIPT
    model_cache: Path | None = None
    """Where models that are rebuilt at start are kept; ``None``: in a temporary folder."""
    host: str = "0.0.0.0"  # noqa: S104  (a container's own network)
    port: int = PORT
    threads: int | None = None
    """Threads of one run of a model; ``None``: what the container's limit allows."""
    queue: int = 64
    """Requests that may wait; one more is answered 503."""
    timeout: float = 60.0
    """Seconds from a request's arrival to its answer."""
    drain: float = 1.0
    """Seconds in which requests are still answered after SIGTERM."""
    grace: float = 7.0
    """Seconds after that for requests still in work; engines kill after 10 in all."""
    max_body: int = 64 * _MIB
    """Bytes of a request."""
    max_pixels: int = 64_000_000
    """Pixels of a picture, by what its header says."""
    batch: int = 32
    """Rows that requests are joined to at most; 1: requests are not joined."""
    batch_wait: float = 0.0
    """Seconds to wait for more requests to join."""
    allow_nan: bool = False
    """Whether tensors may hold NaN and infinity."""
    log: str = "info"

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Take what Azure ML's images set, and the ``MLPACK_`` variables.

        Raises :class:`NotServable` naming the variable that makes no sense.
        """
        root = Path(environment.get("AML_APP_ROOT") or APP_ROOT)
        named = environment.get("AZUREML_MODEL_DIR")
        cache = environment.get("MLPACK_MODEL_CACHE")
        number = _Numbers(environment)
        # Azure's limit of a run, in its own unit.
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
            batch=number.whole("MLPACK_BATCH", cls.batch, lowest=1),
            batch_wait=number.real("MLPACK_BATCH_WAIT_MS", 0.0, lowest=0) / 1000,
            allow_nan=_flag(environment, "MLPACK_ALLOW_NAN"),
            log=_level(environment.get("MLPACK_LOG") or cls.log),
        )

    @property
    def level(self) -> int:
        """The least level of what is logged, as ``logging`` has it."""
        return logging.getLevelNamesMapping()[self.log.upper()]

    @property
    def environment(self) -> Mapping[str, str]:
        """What scoring scripts, and the libraries they import, must find set."""
        found = {
            "AML_APP_ROOT": str(self.app_root),
            "AZUREML_MODEL_DIR": str(self.model_dir),
            "ORT_DISABLE_TELEMETRY": "1",
        }
        return found


def only_model(folder: Path) -> Path:
    """``folder/<name>/<version>`` where there is exactly one, else ``folder``."""
    found = [path for path in sorted(folder.glob("*/*")) if path.is_dir()]
    return found[0] if len(found) == 1 else folder


class _Numbers:
    """Numbers in the environment, each within its bounds."""

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


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name) or "0"
    if text not in ("0", "1"):
        raise NotServable(f"{name}={text!r} is neither 0 nor 1")
    return text == "1"


def _level(text: str) -> str:
    if text.lower() not in _LEVELS:
        raise NotServable(f"MLPACK_LOG={text!r} is none of {', '.join(_LEVELS)}")
    return text.lower()
