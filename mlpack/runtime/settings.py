"""Where the model and the scoring script are, and where to listen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

APP_ROOT = Path("/var/azureml-app")
MODELS = "azureml-models"
SCRIPT = "score.py"
PORT = 5001


class NotServable(Exception):
    """A release that cannot score: no model, no script, or one that does not load."""


@dataclass(frozen=True)
class Settings:
    """The environment, read once."""

    app_root: Path
    model_dir: Path
    script: Path
    host: str = "0.0.0.0"  # noqa: S104  (a container's own network)
    port: int = PORT

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Take what Azure ML's images set, and ``MLPACK_HOST`` and ``MLPACK_PORT``."""
        root = Path(environment.get("AML_APP_ROOT") or APP_ROOT)
        port = environment.get("MLPACK_PORT") or str(PORT)
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise SystemExit(f"mlpack_runtime: MLPACK_PORT={port!r} is not a port")
        named = environment.get("AZUREML_MODEL_DIR")
        return cls(
            app_root=root,
            model_dir=Path(named) if named else only_model(root / MODELS),
            script=root / (environment.get("AZUREML_ENTRY_SCRIPT") or SCRIPT),
            host=environment.get("MLPACK_HOST") or "0.0.0.0",  # noqa: S104
            port=int(port),
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """What scoring scripts, and the libraries they import, must find set."""
        return {
            "AML_APP_ROOT": str(self.app_root),
            "AZUREML_MODEL_DIR": str(self.model_dir),
            "ORT_DISABLE_TELEMETRY": "1",
        }


def only_model(folder: Path) -> Path:
    """``folder/<name>/<version>`` where there is exactly one, else ``folder``."""
    found = [path for path in sorted(folder.glob("*/*")) if path.is_dir()]
    return found[0] if len(found) == 1 else folder
