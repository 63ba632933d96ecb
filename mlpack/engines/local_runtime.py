"""The runtime as a local process, over a model version's files laid out as in an image."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlpack
from mlpack.engines.readiness import answers
from mlpack.errors import MlpackError
from mlpack.model.version import ModelVersion
from mlpack.project.releases import APP_ROOT, ENTRY_SCRIPT, model_dir, model_env, model_files
from mlpack.stores.files import temporary_folder
from mlpack.stores.layout import LayoutStore

END_SECONDS = 15
"""How long the runtime may take to finish its requests; its own limit is lower."""

_PAUSE = 0.05
_CHUNK = 1024 * 1024

_PROGRAM = """
import ctypes, runpy, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: no orphan holds the port
sys.path.append(sys.argv.pop(1))
runpy.run_module("mlpack.runtime", run_name="__main__", alter_sys=True)
"""
"""``python -m mlpack.runtime`` with mlpack last on the path, after the folder of the script, so
that nothing installed next to it hides the standard library."""


class Ended(MlpackError):
    """A runtime that ended, or never answered."""

    hint = "its last lines are above"


@dataclass(frozen=True)
class Runtime:
    """A running runtime."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def address(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> int:
        """Wait until it ends; return its exit status."""
        return self.process.wait()


def stage(layout: LayoutStore, model: ModelVersion, root: Path) -> None:
    """Write the files of a release's layer below ``root``, each verified.

    Raises ``Corrupt`` if a file is not what was registered.
    """
    # Copies, not links: a script may write into its folder, and the store must not change.
    entries, open_file = model_files(layout, model)
    for entry in entries:
        place = root / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        with open_file(entry.path) as content, place.open("wb") as out:
            shutil.copyfileobj(content, out, _CHUNK)


@contextmanager
def runtime(
    layout: LayoutStore,
    model: ModelVersion,
    *,
    port: int,
    environment: Mapping[str, str],
    seconds: float,
) -> Iterator[Runtime]:
    """Serve ``model`` on the loopback address while the block runs.

    ``environment`` is the process's environment, except for the paths of the model.
    Raises :class:`Ended` where it does not answer within ``seconds``.
    """
    with temporary_folder("mlpack-serve-") as folder:
        root = folder
        stage(layout, model, root)
        places = {
            "AML_APP_ROOT": str(root / APP_ROOT),
            "AZUREML_MODEL_DIR": str(root / model_dir(model)),
            ENTRY_SCRIPT: model_env(model).get(ENTRY_SCRIPT, ""),
            "MLPACK_PORT": str(port),
        }
        process = subprocess.Popen(
            # No byte code next to the script: a release's folders cannot be written to, either.
            [sys.executable, "-B", "-c", _PROGRAM, str(Path(mlpack.__file__).parents[1])],
            cwd=root / APP_ROOT,
            env={"MLPACK_HOST": "127.0.0.1", **environment, **places},
            # Stdout belongs to the command.
            stdin=subprocess.DEVNULL,
            stdout=2,
            # A terminal interrupts every process of a group; this one is stopped below, once.
            process_group=0,
        )
        try:
            started = Runtime(process, port)
            _wait(started, seconds)
            yield started
        finally:
            _end(process)


def _wait(started: Runtime, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        status = started.process.poll()
        if status is not None:
            raise Ended(f"the runtime ended with status {status} before it answered")
        if answers(started.address):
            return
        if time.monotonic() > deadline:
            raise Ended(f"the runtime does not answer after {seconds:g} seconds")
        time.sleep(_PAUSE)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        # It hangs, or the user asked twice.
        process.kill()
        process.wait()
