"""ONNX models: opening and running one, for scripts and for :mod:`.scorers.onnx`.

They run with the requested execution providers, on the processors that the container may use.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from . import tensors
from .http_errors import BadRequest, ContentTooLarge, HttpError
from .json_arrays import reading
from .onnx_categories import read_unranked_inputs
from .scorer import Array
from .settings import NotServable, allows_nan
from .signature import Dimension, Signature, Tensor

CPU = "CPUExecutionProvider"
CGROUPS = Path("/sys/fs/cgroup")

_NAMES = {
    "acl": "ACLExecutionProvider",
    "armnn": "ArmNNExecutionProvider",
    "azure": "AzureExecutionProvider",
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
_SHORT = {name: short for short, name in _NAMES.items()}

_AT_FAULT = ("Fail", "InvalidArgument", "RuntimeException")
"""Classes of onnxruntime's errors that operators raise for values they do not take."""
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_NODE = re.compile(r"while running (?P<operator>\w+) node\..*?Status Message: (?P<reason>.*)")
_PLACE = re.compile(
    r"^\S+\.(?:cc|h|cpp|hpp):\d+ (?:[^():]*\w::[^()]*\([^)]*\)(?: const)?(?: \[with [^]]*\])? )?"
)
"""The line of onnxruntime's source and the function at the start of a reason."""
_MEMORY = re.compile(r"allocate memory|bad_alloc|bad allocation|SafeInt|[Ii]nteger overflow")
_DEVICE = re.compile(r"\b(CUDA|CUBLAS|CUDNN|TensorRT|TRT|HIP|MIGraphX|OpenVINO|QNN|WebGPU)\b", re.I)

_ERRORS_ONLY = 3
_OPTIONAL = re.compile(r"optional\((tensor\(\w+\))\)")
_MOST_DEFAULTS = 1024
"""Elements of all inputs with a default; more are weights, which PyTorch 1.2 listed as inputs.

``mlpack/project/importers/onnx_file.py`` has the same number.
"""
_log = logging.getLogger("mlpack_runtime")
_opened: ContextVar[list[Model] | None] = ContextVar("opened", default=None)


class Model:
    """One ``.onnx`` file, loaded."""

    def __init__(self, path: Path, session: Any, choice: ProviderSelection) -> None:  # noqa: ANN401
        self.path = path
        self.session = session
        """onnxruntime's ``InferenceSession``."""
        self.providers = choice
        self.signature = _with_ranks(_signature(session), path)
        self._names = [each.name for each in self.signature.outputs]

    def read(self, request: str | bytes) -> dict[str, Array]:
        """Return the inputs in a JSON request, read and checked as without a script.

        Takes ``{"data": …}`` or ``{"<input>": …, …}``; raises :class:`BadRequest`.
        """
        content = request if isinstance(request, bytes) else request.encode()
        allow_nan = allows_nan(os.environ)
        read = partial(tensors.from_json, signature=self.signature, allow_nan=allow_nan)
        return reading(content, read, allow_nan=allow_nan)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        """Return outputs by name.

        Raises :class:`BadRequest` for inputs that the model cannot score, and
        :class:`~.http_errors.ContentTooLarge` if they need too much memory.
        """
        try:
            return dict(zip(self._names, self.session.run(self._names, inputs), strict=True))
        except Exception as error:
            problem = request_at_fault(type(error).__name__, str(error))
            if problem is None:
                raise
            raise problem from error


def request_at_fault(kind: str, message: str) -> HttpError | None:
    """Return the answer to a request if an error of onnxruntime is its fault, else ``None``.

    onnxruntime's errors share only :class:`Exception` as a class, and operators raise all kinds
    for values they do not take: an unknown category is a ``Fail``, an index out of range
    ``InvalidArgument`` or ``Fail``, a text that is not a number a ``RuntimeException``. The
    model is loaded and runs the same operators for each request, so that what fails in one of
    them fails because of the values, unless the device failed.

    >>> str(request_at_fault("Fail", "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned"
    ...     " while running TopK node. Name:'' Status Message: k argument [5] is greater than 2"))
    'the model cannot score these values: TopK: k argument [5] is greater than 2'
    """
    first = (message.strip() or kind).splitlines()[0]
    if kind in ("InvalidArgument", "ValueError") and "while running" not in first:
        return BadRequest(_CODE.sub("", first))
    node = _NODE.search(message)
    if kind not in _AT_FAULT or node is None or _DEVICE.search(first):
        return None
    reason = _PLACE.sub("", node["reason"].strip() or kind)
    if _MEMORY.search(reason):
        return ContentTooLarge(f"scoring these values needs too much memory: {reason}")
    return BadRequest(f"the model cannot score these values: {node['operator']}: {reason}")


def open_model(path: str | os.PathLike[str] | None = None, threads: int | None = None) -> Model:
    """Load the model at ``path``, by default the only one in ``AZUREML_MODEL_DIR``.

    It runs with ``MLPACK_PROVIDERS`` and as many threads as the container's limit allows.
    Raises :class:`~.settings.NotServable`.
    """
    found = find_onnx(Path(os.environ["AZUREML_MODEL_DIR"])) if path is None else Path(path)
    model = _open(found, threads)
    fell_back = "".join(f"; {reason}" for reason in model.providers.fell_back)
    log = _log.warning if fell_back else _log.info
    log("%s runs on %s%s", found.name, model.providers, fell_back)
    opened = _opened.get()
    if opened is not None:
        opened.append(model)
    return model


@contextmanager
def recording() -> Iterator[list[Model]]:
    """Record the models that :func:`open_model` opens in the block."""
    found: list[Model] = []
    token = _opened.set(found)
    try:
        yield found
    finally:
        _opened.reset(token)


def _open(path: Path, threads: int | None) -> Model:
    import onnxruntime

    asked = os.environ.get("MLPACK_PROVIDERS") or "cpu"
    choice = choose(asked, onnxruntime.get_available_providers())
    if "CUDAExecutionProvider" in choice.use:
        # Otherwise the libraries of nvidia's wheels are not found.
        onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(
            str(path), _options(onnxruntime, threads), providers=list(choice.use)
        )
    except Exception as error:
        raise NotServable(f"{path} cannot be loaded: {_first_line(error)}") from error
    return Model(path, session, choice.after(session.get_providers()))


def _options(onnxruntime: Any, threads: int | None) -> Any:  # noqa: ANN401
    options = onnxruntime.SessionOptions()
    # Some models cause a warning per weight at every start.
    options.log_severity_level = _ERRORS_ONLY
    limit = cpu_limit()
    named = os.environ.get("MLPACK_THREADS") or ""
    wanted = threads or (int(named) if named.isdecimal() else 0) or limit
    if wanted:
        options.intra_op_num_threads = wanted
    if limit is not None:
        # Spinning threads use up a container's share of the processors.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def find_onnx(folder: Path) -> Path:
    """Return ``model.onnx`` or the only ``*.onnx`` in ``folder``; raise :class:`NotServable`.

    For a script, the files of a registered directory lie in a folder with the directory's name.
    """
    inside = [path for path in folder.glob("*") if path.is_dir()]
    for place in [folder, *inside] if len(inside) == 1 else [folder]:
        named = place / "model.onnx"
        if named.is_file():
            return named
    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        raise NotServable(
            f"{folder} holds {len(found)} ONNX models; add a score.py or keep exactly one"
        )
    return found[0]


def _signature(session: Any) -> Signature:  # noqa: ANN401
    listed = _tensors(session.get_inputs())
    inputs = (*(e for e in listed if not e.optional), *(e for e in listed if e.optional))
    defaults = _tensors(session.get_overridable_initializers(), optional=True)
    sizes = (prod(n for n in each.shape if isinstance(n, int)) for each in defaults)
    if sum(sizes) <= _MOST_DEFAULTS:
        inputs += defaults
    return Signature(inputs, _tensors(session.get_outputs()))


def _with_ranks(signature: Signature, path: Path) -> Signature:
    """Return the signature with the inputs marked whose number of dimensions is unknown.

    onnxruntime reports an empty shape for them, as for scalars.
    """
    if all(each.shape for each in signature.inputs):
        return signature
    unknown = read_unranked_inputs(path)
    inputs = tuple(replace(each, ranked=each.name not in unknown) for each in signature.inputs)
    return replace(signature, inputs=inputs)


def _tensors(listed: list[Any], *, optional: bool = False) -> tuple[Tensor, ...]:
    return tuple(_tensor(each.name, each.type, tuple(each.shape), optional) for each in listed)


def _tensor(name: str, kind: str, shape: tuple[Dimension, ...], optional: bool) -> Tensor:
    # An input of an optional type may be left out, too (ONNX's IR.md, *Optional Type*).
    held = _OPTIONAL.fullmatch(kind)
    return Tensor(name, held[1], shape, True) if held else Tensor(name, kind, shape, optional)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True, slots=True)
class ProviderSelection:
    """Providers to use, best first, and why other requested ones are not used."""

    use: tuple[str, ...]
    fell_back: tuple[str, ...] = ()

    def after(self, running: Collection[str]) -> ProviderSelection:
        """Return the selection of a session that runs with ``running`` only."""
        lost = [name for name in self.use if name not in running]
        reasons = (f"{short(name)} did not start: no such device, or no driver" for name in lost)
        kept = tuple(name for name in self.use if name in running) or tuple(running)
        return ProviderSelection(kept, (*self.fell_back, *reasons))

    def __str__(self) -> str:
        return ",".join(short(name) for name in self.use)


def choose(asked: str, available: Collection[str]) -> ProviderSelection:
    """Parse ``cuda,cpu``; the CPU is always the last resort.

    Raises :class:`~.settings.NotServable` for an unknown name.

    >>> choose("cuda, cpu", [CPU])
    ProviderSelection(use=('CPUExecutionProvider',), fell_back=('cuda is not in this onnxruntime',))
    """
    use: list[str] = []
    fell_back = []
    for word in (each.strip() for each in asked.split(",")):
        name = _NAMES.get(word.lower(), word)
        if name not in _SHORT and name not in available:
            known = ", ".join(sorted(_NAMES))
            raise NotServable(f"MLPACK_PROVIDERS: unknown provider {word!r}; known: {known}")
        if name not in available:
            fell_back.append(f"{short(name)} is not in this onnxruntime")
        elif name not in use:
            use.append(name)
    return ProviderSelection((*(name for name in use if name != CPU), CPU), tuple(fell_back))


def short(name: str) -> str:
    """Return the short name of a provider.

    >>> short("CUDAExecutionProvider")
    'cuda'
    """
    return _SHORT.get(name, name)


def cpu_limit(cgroups: Path = CGROUPS) -> int | None:
    """Return the number of processors allowed, rounded down, at least 1; ``None`` for all."""
    has_affinity = hasattr(os, "sched_getaffinity")
    allowed = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = _quota(cgroups)
    if quota is not None:
        return max(1, min(allowed, int(quota)))
    return allowed if allowed < (os.cpu_count() or 1) else None


def _quota(cgroups: Path) -> float | None:
    """Return the cgroup's quota in processors, version 2 or 1.

    A container sees its own group as the root. Source: the kernel's
    Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst.
    """
    words = _read(cgroups / "cpu.max").split()
    if not words:
        cpu = cgroups / "cpu"
        words = (_read(cpu / "cpu.cfs_quota_us") + " " + _read(cpu / "cpu.cfs_period_us")).split()
    if len(words) != 2 or not all(each.isdecimal() for each in words):
        return None  # "max", -1, or no cgroups at all
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
