"""ONNX models: opened for scripts, and scored alone from their own signature."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cpus, providers, tensors
from .problems import BadRequest, Failed
from .scorer import Array, Payload
from .settings import NotServable
from .signature import Signature, Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

_ERRORS_ONLY = 3
_log = logging.getLogger("mlpack_runtime")
_opened: ContextVar[list[Model] | None] = ContextVar("opened", default=None)


class Model:
    """One ``.onnx`` file, loaded."""

    def __init__(self, path: Path, session: Any, choice: providers.Choice) -> None:  # noqa: ANN401
        self.path = path
        self.session = session
        """onnxruntime's ``InferenceSession``."""
        self.providers = choice
        self.signature = Signature(
            _tensors(session.get_inputs()),
            _tensors(session.get_outputs()),
        )
        self._names = [each.name for each in self.signature.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        """Outputs by name; raise :class:`BadRequest` for inputs that the model does not take."""
        try:
            return dict(zip(self._names, self.session.run(self._names, inputs), strict=True))
        except Exception as error:
            # onnxruntime's own errors share no class but Exception; their names say what is wrong.
            if type(error).__name__ == "InvalidArgument" or isinstance(error, ValueError):
                raise BadRequest(_first_line(error)) from error
            if self._free_shape and type(error).__name__ in ("Fail", "RuntimeException"):
                raise BadRequest(
                    f"the model fails on these shapes: {_first_line(error)}"
                ) from error
            raise

    @property
    def _free_shape(self) -> bool:
        """Whether more than the batch's length is left to the client."""
        shapes = (each.shape[1:] for each in self.signature.inputs)
        return any(not isinstance(length, int) for shape in shapes for length in shape)


def open_model(path: str | os.PathLike[str] | None = None, threads: int | None = None) -> Model:
    """Load the model at ``path``; without one, the only one in ``AZUREML_MODEL_DIR``.

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
    """The models that :func:`open_model` opens inside."""
    found: list[Model] = []
    token = _opened.set(found)
    try:
        yield found
    finally:
        _opened.reset(token)


def _open(path: Path, threads: int | None) -> Model:
    import onnxruntime

    asked = os.environ.get("MLPACK_PROVIDERS") or "cpu"
    choice = providers.choose(asked, onnxruntime.get_available_providers())
    if "CUDAExecutionProvider" in choice.use:
        # Else the libraries that nvidia's wheels bring are not found.
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
    # A model may warn once for each of its weights, at every start.
    options.log_severity_level = _ERRORS_ONLY
    limit = cpus.limit()
    named = os.environ.get("MLPACK_THREADS") or ""
    wanted = threads or (int(named) if named.isdecimal() else 0) or limit
    if wanted:
        options.intra_op_num_threads = wanted
    if limit is not None:
        # Threads that wait by spinning use up a container's share of the processors.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxScorer:
    """An ONNX model without a script."""

    fields: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float, float]] = {}
    images = False
    tensors = True
    prediction: tuple[str, ...] = ()
    generic = True
    raw = False

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._model = open_model(path, threads)
        self.signature = self._model.signature
        self.batches = _joinable(self.signature)

    def configure(self, properties: Mapping[str, object]) -> None:
        """A model alone has nothing to set."""

    def run(self, payload: Payload) -> object:
        """The outputs as JSON values, of tensors in JSON."""
        given = tensors.from_json(payload.content, self.signature)
        return tensors.to_json(self.run_tensors(given))

    def run_tensors(self, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """The outputs by name."""
        return self._model.run(inputs)

    def run_image(self, image: Image) -> object:
        """Never: a model alone does not say how a picture becomes a tensor."""
        raise Failed("this module takes no pictures")


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


def _joinable(signature: Signature) -> bool:
    """Whether the first dimension of every tensor is free, as that of a batch is.

    Sequences of maps, as classifiers give them, have one element for each row.
    """
    free = [bool(each.shape) and not isinstance(each.shape[0], int) for each in signature.inputs]
    given = [each for each in signature.outputs if each.dtype is not None]
    free += [bool(each.shape) and not isinstance(each.shape[0], int) for each in given]
    return bool(signature.inputs) and all(free)


def _tensors(listed: list[Any]) -> tuple[Tensor, ...]:
    return tuple(Tensor(each.name, each.type, tuple(each.shape)) for each in listed)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
