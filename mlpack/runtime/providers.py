"""Which of onnxruntime's execution providers run the model, and which were asked for in vain."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .settings import NotServable

CPU = "CPUExecutionProvider"

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


@dataclass(frozen=True, slots=True)
class Choice:
    """Providers to use, best first, and why others that were asked for are not."""

    use: tuple[str, ...]
    fell_back: tuple[str, ...] = ()

    def after(self, running: Collection[str]) -> Choice:
        """What is left of it, where a session runs with ``running`` only."""
        lost = [name for name in self.use if name not in running]
        reasons = (f"{short(name)} did not start: no such device, or no driver" for name in lost)
        kept = tuple(name for name in self.use if name in running) or tuple(running)
        return Choice(kept, (*self.fell_back, *reasons))

    def __str__(self) -> str:
        return ",".join(short(name) for name in self.use)


def choose(asked: str, available: Collection[str]) -> Choice:
    """Read ``cuda,cpu``; the processor is always the last resort.

    Raises :class:`~.settings.NotServable` where a name is no provider's.

    >>> choose("cuda, cpu", [CPU])
    Choice(use=('CPUExecutionProvider',), fell_back=('cuda is not in this onnxruntime',))
    """
    use: list[str] = []
    fell_back = []
    for word in (each.strip() for each in asked.split(",")):
        name = _NAMES.get(word.lower(), word)
        if name not in _SHORT and name not in available:
            known = ", ".join(sorted(_NAMES))
            raise NotServable(f"MLPACK_PROVIDERS: {word!r} is no execution provider: {known}")
        if name not in available:
            fell_back.append(f"{short(name)} is not in this onnxruntime")
        elif name not in use:
            use.append(name)
    return Choice((*(name for name in use if name != CPU), CPU), tuple(fell_back))


def short(name: str) -> str:
    """The name for people: ``cuda``.

    >>> short("CUDAExecutionProvider")
    'cuda'
    """
    return _SHORT.get(name, name)
