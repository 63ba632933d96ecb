"""Trial starts in Docker or podman, for machines that run no Linux programs themselves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlpack.engines.command_line import CommandLineEngine
from mlpack.engines.engine import PROGRAMS, EngineError, load_image
from mlpack.oci.image import Image
from mlpack.oci.platforms import fits
from mlpack.project.releases import APP_ROOT
from mlpack.stores.layout import LayoutStore

_NAME = "mlpack-base"
"""The repository that bases have in an engine; the tag is a base's digest."""


@dataclass(frozen=True, slots=True)
class TrialEngine:
    """An engine that has the base, and what it calls it."""

    program: str
    image: str

    def command(
        self,
        container: str,
        app: Path,
        environment: Mapping[str, str],
        arguments: Sequence[str],
        memory: int,
    ) -> list[str]:
        """Return the command that runs ``arguments`` in the base, with the files in ``app``."""
        variables = (f"{name}={value}" for name, value in environment.items())
        program, *rest = arguments
        return [
            *(self.program, "run", "--rm", "--name", container, "--network", "none"),
            *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),  # noqa: S108  # inside
            *("--security-opt", "no-new-privileges", "--memory", str(memory)),
            *("-v", f"{app}:/{APP_ROOT}:ro"),
            *(part for each in variables for part in ("-e", each)),
            *("--entrypoint", program, self.image, *rest),
        ]

    def remove(self, container: str) -> None:
        """Remove a container, running or not."""
        subprocess.run(
            [self.program, "rm", "-f", container],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


def find_engine(
    store: LayoutStore, base: Image, programs: Sequence[str] = PROGRAMS
) -> TrialEngine | None:
    """Return the first engine of this machine that runs images of the base's platform.

    It is given the base, once. Nothing is raised: an engine that does not answer is none.
    """
    name = f"{_NAME}:{base.digest.hex[:12]}"
    for program in programs:
        if shutil.which(program) is None:
            continue
        engine = CommandLineEngine(program)
        with suppress(EngineError):
            if not fits(base.platform, engine.platform):
                continue
            if engine.image(name) is None:
                load_image(engine, store, base, name)
            return TrialEngine(program, name)
    return None
