"""Something that scores: the user's script, or the ONNX model itself."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from .settings import NotServable, Settings


class BadRequest(Exception):
    """A request that cannot be scored; the message is for whoever sent it."""


class Scorer(Protocol):
    """Answers requests."""

    def score(self, body: bytes) -> object:
        """The answer to a request's body; raise :class:`BadRequest` where it makes no sense."""
        ...


class Script:
    """The user's ``score.py`` as Azure ML runs it: ``init()`` once, then ``run(text)``."""

    def __init__(self, path: Path) -> None:
        module = _load(path)
        self._run = cast(Callable[[str], object], _function(module, "run"))
        start = _function(module, "init")
        try:
            start()
        except Exception as error:
            raise NotServable(f"init() in {path} failed: {error!r}") from error

    def score(self, body: bytes) -> object:
        """What ``run`` returns for the body's text."""
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRequest(f"the request is not UTF-8 ({error})") from error
        return self._run(text)


def open_scorer(settings: Settings) -> Scorer:
    """The script where there is one, else the ONNX model; raise :class:`NotServable`."""
    if settings.script.is_file():
        return Script(settings.script)
    from .onnx import OnnxModel

    return OnnxModel(find_onnx(settings.model_dir))


def find_onnx(folder: Path) -> Path:
    """``model.onnx`` in ``folder``, or the one ``*.onnx`` there is; raise :class:`NotServable`."""
    named = folder / "model.onnx"
    if named.is_file():
        return named
    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        raise NotServable(
            f"{folder} holds {len(found)} ONNX models: exactly one is needed, or a score.py"
        )
    return found[0]


def _load(path: Path) -> ModuleType:
    # Beside it lie the modules it imports.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise NotServable(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise NotServable(f"{path} cannot be imported: {error!r}") from error
    return module


def _function(module: ModuleType, name: str) -> Callable[..., object]:
    found = getattr(module, name, None)
    if not callable(found):
        raise NotServable(f"{module.__file__} has no function {name}()")
    return cast(Callable[..., object], found)
