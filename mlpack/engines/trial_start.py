"""A release is started once before it is named: the base's own interpreter on its own files.

The base is unpacked once (:mod:`mlpack.engines.root_cache`); of a release, only what lies above it
is written. The ways to run it (:mod:`mlpack.engines.sandbox`) are tried in the order of
:data:`WAYS`: the first that the machine allows decides. No way has the machine's environment.
"""

from __future__ import annotations

import json
import os
import platform as machine
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import IO

from mlpack.engines import sandbox
from mlpack.engines.root_cache import RootCache
from mlpack.engines.trial_container import TrialEngine, find_engine
from mlpack.errors import MlpackError
from mlpack.interruptions import held_back
from mlpack.model.trial_start import TrialStart, never
from mlpack.oci.descriptor import Platform, parse
from mlpack.oci.image import Image
from mlpack.project.releases import APP_ROOT
from mlpack.stores.files import temporary_folder
from mlpack.stores.layout import LayoutStore

WAYS = ("namespaces", "chroot", "loader")
"""The ways of :mod:`mlpack.engines.sandbox`, the most isolated first."""

SECONDS = 120
"""How long a start may take; a device's would be ended by its health check."""

EMULATED_SECONDS = 600
USER = 65532
_MEMORY = 16 * 1024**3
"""Bytes of address space, on top of 8 for each byte of the model."""

_DISK = 1024**3
"""Bytes that ``/tmp`` holds, in memory, on top of 4 for each byte of the model."""

_LOG_LINES = 12
_OF_ENGINE = (125, 126, 127)
"""Exit statuses of docker run and podman run if the container did not start."""
_RUNTIME = "mlpack_runtime"
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_EMULATORS = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}
_CORTEX_A72 = """\
processor : 0
BogoMIPS : 50.00
Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer : 0x41
CPU architecture: 8
CPU variant : 0x0
CPU part : 0xd08
CPU revision : 3
"""
"""onnxruntime reads ``/proc/cpuinfo`` and ends with the host's; qemu 7 shows it that."""

_IMPORTS = """
import importlib
for name in ("onnxruntime", "mlpack_runtime.scoring_service", "mlpack_runtime.script", "PIL.Image",
             "mlpack_runtime.scorers.onnx", "mlpack_runtime.onnx", "mlpack_runtime.trial",
             "mlpack_runtime.patch.apply", "traceback", "zstandard"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
"""
_DRIVER = """
import sys
try:
    from mlpack_runtime import trial
except ImportError:
    import mlpack_runtime
    exec(compile(sys.argv[1], "trial.py", "exec"), {
        "__name__": "__main__", "__package__": "mlpack_runtime"})
else:
    import os
    os._exit(trial.main())
"""


class CannotStart(MlpackError):
    """A release that does not start on its base; nothing was named."""

    hint = (
        "the start has no network and no environment but the image's; to release it nevertheless: "
        "--allow start, to try no start at all: --no-start"
    )

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log = tuple(log)
        """The module's last lines."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A base that releases can be tried on: unpacked, and its processor is here or emulated."""

    root: Path
    cache: RootCache
    base: Image
    program: str
    """The interpreter, an absolute path in the root."""

    folder: str
    emulator: str = ""
    engine: TrialEngine | None = None
    """What runs it, where the machine itself does not; then nothing is unpacked."""


def prepare(store: LayoutStore, base: Image, cache: Path) -> Trial | str:
    """Return what releases on ``base`` are tried with, or why none can be tried here."""
    config = parse(base.config, "config").get("config")
    entry = config.get("Entrypoint") if config else None
    program = entry.texts() if entry else ()
    if _RUNTIME not in program:
        return "the base's entry point is not mlpack's runtime"
    if not all(store.exists(each.descriptor) for each in base.layers):
        return "the base's layers are not in this store (mlpack pull brings them)"
    roots = RootCache(cache / "roots")
    named = config.get("WorkingDir") if config else None
    folder = named.text() if named else "/"
    if sys.platform != "linux" and (engine := find_engine(store, base)):
        return Trial(
            root=Path("/"),
            cache=roots,
            base=base,
            program=program[0],
            folder=folder,
            engine=engine,
        )
    emulator = _emulator(base.platform)
    if emulator is None:
        return (
            f"this machine runs no {base.platform} programs, and has no "
            f"{_EMULATORS.get(base.platform.architecture, 'emulator')}-static "
            "(Debian: apt-get install qemu-user-static)"
        )
    try:
        root = roots.make(store, base, lambda new: _warm(new, program[0], emulator))
    except (OSError, MlpackError) as error:
        return f"the base cannot be unpacked below {roots.folder} ({error})"
    if not (root / program[0].lstrip("/")).exists():
        return f"the base has no {program[0]}"
    return Trial(
        root=root,
        cache=roots,
        base=base,
        program=program[0],
        folder=folder,
        emulator=emulator,
    )


def _warm(root: Path, program: str, emulator: str) -> None:
    """Have Python write its byte code, which a base leaves out and takes 0.5 s to make again.

    The base's own modules are imported, of no model. If that fails, starts take longer.
    """
    if emulator and "aarch64" in emulator:
        (root / "proc" / "cpuinfo").write_text(_CORTEX_A72)
    with temporary_folder("mlpack-warm-") as folder, suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            [*_loader(root, program, emulator), "-c", _IMPORTS],
            env=_outside({}, root, folder / "root" / APP_ROOT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )


def _emulator(platform: Platform) -> str | None:
    """Return what runs its programs: nothing on its own processor; ``None`` if nothing does."""
    if sys.platform != "linux" or platform.os != "linux":
        return None
    if _MACHINES.get(machine.machine()) == platform.architecture:
        return ""
    name = _EMULATORS.get(platform.architecture, "")
    return shutil.which(f"{name}-static") if name else None


def _ways(trial: Trial) -> list[str]:
    if trial.engine:
        return [trial.engine.program]
    return [way for way in WAYS if way != "chroot" or os.geteuid() == 0]


@dataclass(kw_only=True)
class RunningTrial:
    """A start under way; :meth:`finish` waits for it."""

    trial: Trial
    app: Path
    environment: Mapping[str, str]
    size: int
    out: IO[bytes]
    err: IO[bytes]
    ways: list[str]
    """The ways that are left, the one in use first."""

    log: tuple[str, ...] = ()
    """The module's last lines, when it has ended."""

    _process: subprocess.Popen[bytes] | None = None
    _began: float = 0.0
    _reasons: list[str] = field(default_factory=list)
    _placed: ExitStack = field(default_factory=ExitStack)

    def begin(self) -> None:
        """Start the process, in the most isolated way that was not found to be impossible."""
        command, environment = self._command()
        self._placed.close()
        if self.ways[0] == "chroot":
            held = self.trial.cache.holding(self.trial.base, self.app, APP_ROOT)
            self._placed.enter_context(held)
        for each in (self.out, self.err):
            each.seek(0)
            each.truncate()
        self._began = time.perf_counter()
        with held_back():
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self.out,
                stderr=self.err,
                process_group=0,
            )

    def finish(self, at: str) -> TrialStart:
        """Wait for the end; ``at`` is when it was tried. Tries the next way if this one failed."""
        while True:
            status = self._wait()
            self.err.seek(0)
            said = self.err.read().decode(errors="replace").splitlines()
            self.log = tuple(line for line in said if line.strip())[-_LOG_LINES:]
            phases = self._phases()
            reason = phases[-1].get("unavailable") if phases else None
            if status != sandbox.UNAVAILABLE or reason is None:
                return self._result(status, phases, at)
            self._reasons.append(f"{self.ways.pop(0)}: {reason}")
            if not self.ways:
                return never("; ".join(self._reasons))
            self.begin()

    def stop(self) -> None:
        """Kill every process of the start, and undo what it needed."""
        process, self._process = self._process, None
        try:
            if process is not None and process.poll() is None:
                _kill(process)
        finally:
            if self.trial.engine:
                self.trial.engine.remove(self._container)
            self._placed.close()

    def _wait(self) -> int | None:
        """Return the exit status, or ``None`` if it took too long."""
        process = self._process
        if process is None:
            raise RuntimeError("finish() without begin()")
        seconds = EMULATED_SECONDS if self.trial.emulator else SECONDS
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            return None

    def _phases(self) -> list[Mapping[str, str]]:
        self.out.seek(0)
        found = []
        for line in self.out.read().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return [each for each in found if isinstance(each, dict)]

    def _result(
        self, status: int | None, phases: Sequence[Mapping[str, str]], at: str
    ) -> TrialStart:
        milliseconds = round((time.perf_counter() - self._began) * 1000)
        way = self.ways[0] + (f", {Path(self.trial.emulator).name}" if self.trial.emulator else "")
        outcome, note, made = "refused", "", ""
        last = phases[-1] if phases else {}
        kind = last.get("phase")
        if kind in ("ran", "unscored"):
            outcome, note, made = "started", last.get("why", ""), last.get("input", "")
        elif kind == "refused":
            note = last.get("error", "")
        else:
            note = _ended(status, self.log, loaded=kind == "loaded")
        if outcome == "refused" and self._uncertain(note, status):
            return never(f"{note} ({way})")
        return TrialStart(
            outcome="started" if outcome == "started" else "refused",
            way=way,
            milliseconds=milliseconds,
            note=note,
            input=made,
            at=at,
        )

    def _uncertain(self, note: str, status: int | None) -> bool:
        """Whether a failure may be the trial's and not the release's."""
        lacking = ("MemoryError", "bad_alloc", "Cannot allocate", "No space left")
        memory = any(each in note for each in lacking)
        crashed = status is not None and status > 128
        # An emulator lacks instructions; and a script may name paths that exist in images only.
        engine = self.trial.engine is not None and status in _OF_ENGINE
        outside = self.ways[0] == "loader" and "/var/azureml-app" in note
        emulated = bool(self.trial.emulator) and (crashed or status is None)
        return memory or engine or outside or emulated

    def _command(self) -> tuple[list[str], dict[str, str] | None]:
        """Return what to run, and its environment; an engine's client has the machine's."""
        specification = self._specification(self.ways[0])
        if self.trial.engine is None:
            program = [sys.executable, "-I", "-S", sandbox.__file__]
            return [*program, json.dumps(specification)], {}
        arguments, memory = specification["arguments"], specification["memory"]
        command = self.trial.engine.command(
            self._container, self.app, self.environment, arguments, memory
        )
        return command, None

    @property
    def _container(self) -> str:
        return self.app.parents[2].name.strip("_").lower()

    def _specification(self, way: str) -> sandbox.Specification:
        root, emulator = self.trial.root, self.trial.emulator
        source = resources.files("mlpack.runtime").joinpath("trial.py").read_text()
        arguments = [self.trial.program, "-B", "-c", _DRIVER, source]
        environment, app = dict(self.environment), str(self.app)
        folder = self.trial.folder
        if way == "loader":
            arguments = [*_loader(root, self.trial.program, emulator), *arguments[1:]]
            environment = _outside(environment, root, self.app)
            folder = str(self.app)
        elif emulator:
            arguments = [sandbox.EMULATOR, *arguments]
        return {
            "way": way,
            "root": str(root),
            "app": app,
            "place": f"/{APP_ROOT}",
            "emulator": emulator,
            "arguments": arguments,
            "environment": environment,
            "folder": folder,
            "user": USER,
            "memory": _MEMORY + 8 * self.size,
            "temporary": _DISK + 4 * self.size,
            "seconds": EMULATED_SECONDS if emulator else SECONDS,
        }


@contextmanager
def begun(
    trial: Trial,
    stage: Callable[[Path], None],
    environment: Mapping[str, str],
    *,
    size: int,
) -> Iterator[RunningTrial]:
    """Start a release on ``trial``; when the block ends, nothing of it is left.

    ``stage`` writes the files of the release's layers below a directory, ``environment`` is the
    image's, and ``size`` the bytes of its model.
    """
    with temporary_folder("mlpack-start-") as folder, ExitStack() as undo:
        root = folder / "root"
        stage(root)
        app = root / APP_ROOT
        app.mkdir(parents=True, exist_ok=True)
        _readable(root)
        (folder / "tmp").mkdir()
        if trial.engine is None:
            undo.enter_context(trial.cache.using(trial.base))
        running = RunningTrial(
            trial=trial,
            app=app,
            environment={"HOME": "/tmp", **environment},  # noqa: S108  # the container's
            size=size,
            out=undo.enter_context(tempfile.TemporaryFile(dir=folder)),
            ways=_ways(trial),
            err=undo.enter_context(tempfile.TemporaryFile(dir=folder)),
        )
        undo.callback(running.stop)
        running.begin()
        yield running


def _readable(root: Path) -> None:
    """Let the image's user read what was staged, as the layer's modes do."""
    for each in (root, *root.rglob("*")):
        if not each.is_symlink():
            each.chmod(each.stat().st_mode | (0o755 if each.is_dir() else 0o444))


def _ended(status: int | None, log: Sequence[str], *, loaded: bool) -> str:
    """Return why a process ended that did not say it."""
    when = "while it scored a made request" if loaded else "while it loaded"
    if status is None:
        return f"it had not ended after {SECONDS} seconds, {when}"
    last = f": {log[-1]}" if log else ""
    if status > 128:
        names = {each.value: each.name for each in signal.Signals}
        return f"it ended with {names.get(status - 128, status - 128)} {when}{last}"
    return f"it ended with status {status} {when}{last}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _loader(root: Path, program: str, emulator: str) -> list[str]:
    """Return how to run the root's ``program`` with the root's own libraries, from outside."""
    if emulator:
        return [emulator, "-L", str(root), str(root) + program]
    folders = [each.parent for each in root.glob("usr/lib/*/ld-linux*.so.*")]
    loaders = [str(each) for each in root.glob("usr/lib/*/ld-linux*.so.*")]
    if not loaders:
        return [str(root) + program]
    return [loaders[0], "--library-path", ":".join(map(str, folders)), str(root) + program]


def _outside(environment: Mapping[str, str], root: Path, app: Path) -> dict[str, str]:
    """Return the environment with the root's paths as they are outside of it."""
    packages = [str(each) for part in ("usr/local", "usr") for each in _packages(root / part)]
    named = [f"{root}{each}" for each in environment.get("PYTHONPATH", "").split(":") if each]
    here, temporary = f"/{APP_ROOT}", str(app.parents[2] / "tmp")
    moved = {
        name: value.replace(here, str(app), 1) if value.startswith(here) else value
        for name, value in environment.items()
    }
    return {
        **moved,
        "AML_APP_ROOT": str(app),
        "HOME": temporary,
        "LOCPATH": str(root / "usr/lib/locale"),
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": ":".join([*named, *packages]),
        "TMPDIR": temporary,
    }


def _packages(part: Path) -> Iterator[Path]:
    for kind in ("dist", "site"):
        yield from sorted(part.glob(f"lib/python3*/{kind}-packages"))
