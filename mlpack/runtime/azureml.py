"""Stand-ins for the modules of Azure ML's packages that scoring scripts import.

A finder at the front of ``sys.meta_path`` has the modules of ``@rawhttp``, whose server is this
runtime; one at its end has the parent packages and ``azureml.core``, if the base lacks the real
ones. Behaviour of ``Model.get_model_path``: azureml-core 1.61, ``core/model.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from .identity import read_identity
from .settings import MODELS, RuntimeSettings

_Run = TypeVar("_Run", bound=Callable[..., object])
_Content = Mapping[str, Callable[[], Mapping[str, object]]]

_RAW = ("azureml.contrib.services", "azureml_inference_server_http.api")
"""Packages that have ``aml_request`` and ``aml_response``; the first is the older name."""


def install(settings: RuntimeSettings) -> list[Callable[..., object]]:
    """Make the stand-ins importable.

    Returns the list of functions that ``@rawhttp`` marks from now on.
    """
    marked: list[Callable[..., object]] = []

    def rawhttp(run: _Run) -> _Run:
        marked.append(run)
        return run

    def raw() -> Mapping[str, object]:
        AMLRequest, AMLResponse = _classes()
        return {"rawhttp": rawhttp, "AMLRequest": AMLRequest, "AMLResponse": AMLResponse}

    core = {"Model": _model_class(settings), "__getattr__": _missing}

    _uninstall()
    leaves = [f"{package}.{leaf}" for package in _RAW for leaf in ("aml_request", "aml_response")]
    parents = {name for leaf in leaves for name in _parents(leaf)}
    sys.meta_path.insert(0, _StandIns({leaf: raw for leaf in leaves}))
    last: dict[str, Callable[[], Mapping[str, object]]] = dict.fromkeys(parents, dict)
    last |= {"azureml.core": lambda: core, "azureml.core.model": lambda: core}
    sys.meta_path.append(_StandIns(last))
    return marked


def title(name: str) -> str:
    """Return a header's name in Azure ML's spelling.

    >>> title("x-ms-request-id")
    'X-Ms-Request-Id'
    """
    return "-".join(word.capitalize() for word in name.split("-"))


def model_path(settings: RuntimeSettings, name: str, version: object = None) -> Path:
    """Return what ``Model.get_model_path`` returns: the only file or folder of a model's version.

    A version with several files is their folder. Without ``version`` it is the newest. Raises
    :class:`FileNotFoundError`.
    """
    models, own = settings.app_root / MODELS, settings.model_dir
    served = read_identity(settings)
    if name in (served.name, own.parent.name) and own != models:
        # Its files may have been rebuilt elsewhere, from those of another version in ``models``.
        versions = {served.version: own}
    else:
        versions = {each.name: each for each in _folders(models / name)}
    chosen = max(versions, key=_order, default="") if version is None else str(version)
    if chosen not in versions:
        there = ", ".join(each.name for each in _folders(models)) or "none"
        wanted = name if version is None else f"{name}:{version}"
        raise FileNotFoundError(f"no model {wanted} in {models}; models there: {there}")
    found = sorted(versions[chosen].iterdir())
    return found[0] if len(found) == 1 else versions[chosen]


def _order(version: str) -> tuple[int, str]:
    return (int(version) if version.isdecimal() else -1, version)


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.glob("*") if each.is_dir())


def _model_class(settings: RuntimeSettings) -> type:
    class Model:
        """The stand-in of ``azureml.core.Model``."""

        @staticmethod
        def get_model_path(model_name: str, version: object = None, _workspace: Any = None) -> str:  # noqa: ANN401
            """Return the path of a model in this image."""
            return str(model_path(settings, model_name, version))

    return Model


def _missing(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"this base has no azureml-core, and the runtime provides only its Model, not {name}: "
        "add azureml-core to requirements.in and run mlpack base build"
    )


def _classes() -> tuple[type, type]:
    try:
        from .raw_http import AMLRequest, AMLResponse
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the package {error.name}, which @rawhttp needs, is not installed: run mlpack base "
            f"build, or pip install {error.name} where no base is used"
        ) from error
    return AMLRequest, AMLResponse


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


class _StandIns(MetaPathFinder, Loader):
    """Finds and loads modules whose members functions return, when they are imported."""

    def __init__(self, content: _Content) -> None:
        self._content = content

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._content:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self._content[module.__name__]())


def _uninstall() -> None:
    """Remove the stand-ins of an earlier script of this process."""
    sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, _StandIns)]
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and isinstance(spec.loader, _StandIns):
            del sys.modules[name]
