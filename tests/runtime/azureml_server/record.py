"""Record the answers of azureml-inference-server-http 1.5.1 in ``expected.json``.

Usage, from the repository's root: ``python -m tests.runtime.azureml_server.record``. The server
is installed from the package index into a temporary environment; VENV names one to keep.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.runtime.azureml_server import cases

PACKAGES = (
    "azureml-inference-server-http==1.5.1",
    "flask==3.1.3",
    "werkzeug==3.1.9",
    "flask-cors==6.0.5",
    "gunicorn==27.0.1",
    "inference-schema[numpy-support,pandas-support]==1.8",
)
EXPECTED = Path(__file__).with_name("expected.json")


def install(folder: Path) -> Path:
    """Install the server into a virtual environment in ``folder``; return its programs."""
    if not (folder / "bin" / "azmlinfsrv").exists():
        venv.create(folder, with_pip=True)
        pip = (folder / "bin" / "python", "-m", "pip", "install", "-q")
        subprocess.run([*pip, *PACKAGES], check=True)
    return folder / "bin"


def record(programs: Path, folder: Path) -> dict[str, object]:
    """Return the answers to all requests, by script."""
    return {name: _answers(programs, folder, name) for name in cases.CASES}


def _answers(programs: Path, folder: Path, name: str) -> dict[str, object]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = folder / name
    place.mkdir()
    (place / "score.py").write_text(cases.SCRIPTS[name], encoding="utf-8")
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "AML_APP_ROOT": str(place)}
    if name == "plain":
        environment |= cases.ENVIRONMENT
    with (place / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [programs / "azmlinfsrv", "--entry_script", "score.py", "--port", str(port)],
            cwd=place,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        cases.wait(port)
        return cases.answers(port, name)
    finally:
        server.terminate()
        server.wait(30)


def text(found: dict[str, object]) -> str:
    """Return the answers as ``expected.json`` has them."""
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write ``expected.json``."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "venv"
        EXPECTED.write_text(text(record(install(place), Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()
