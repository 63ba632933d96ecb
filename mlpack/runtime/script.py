"""The user's ``score.py`` as Azure ML runs it, and what mlpack adds to that contract.

Behaviour: azureml-inference-server-http 1.5.1, ``server/user_script.py`` and
``server/input_parsers.py``. docs/scoring.md describes it for users.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

import numpy as np

from . import azureml, onnx
from .problems import BadRequest, Failed, Unsupported
from .scorer import Array, Payload
from .settings import NotServable, ScriptFailed, Settings
from .signature import Dimension, Signature, Tensor, kind_of

if TYPE_CHECKING:
    from PIL.Image import Image

_DEEP = 300
"""Levels of JSON from which on a script's RecursionError is the request's: Python gives up at 1000
calls, of which json takes one for each level."""

_Ranges = Mapping[str, tuple[float, float, float]]


class Script:
    """A scoring script: ``init()`` once, then ``run()`` for each request."""

    generic = False

    def __init__(self, path: Path, settings: Settings) -> None:
        marked = azureml.install()
        module = _load(path, settings.app_root)
        with onnx.recording() as opened:
            start = _function(module, "init")
            with _to_start(f"init() in {path}"):
                start()
        # Azure's generated drivers hand run() on, and get its arguments wrong.
        driven = getattr(module, "driver_module", None)
        run = _function(driven if isinstance(driven, ModuleType) else module, "run")
        with _to_start(str(path)):
            self._arguments = _Arguments(run, raw=bool(marked))
            self.fields, self.ranges = _fields(getattr(module, "FIELDS", ()))
            self._run = run
            self._run_tensors = _optional(module, "run_tensors")
            self._run_image = _optional(module, "run_image")
            self._configure = _optional(module, "configure")
            self.prediction = tuple(str(each) for each in getattr(module, "PREDICTION", ()))
            self.signature = _signature(module, [each.signature for each in opened])
        if self._run_tensors and self.signature is None:
            raise NotServable(
                f"{path}: run_tensors() needs INPUTS and OUTPUTS, or one model that init() "
                "opens with open_model()"
            )
        self.images = self._run_image is not None
        self.tensors = self._run_tensors is not None
        self.batches = self.tensors and bool(getattr(module, "BATCHES", False))
        self.raw = self._arguments.raw

    def configure(self, properties: Mapping[str, object]) -> None:
        """Give a device twin's desired properties to the script, if it takes any."""
        if self._configure is not None:
            _answer(self._configure, dict(properties))

    def run(self, payload: Payload) -> object:
        """What ``run`` returns for the request."""
        arguments = self._arguments.of(payload)
        try:
            found = _answer(self._run, **arguments)
        except BadRequest as problem:
            error = problem.__cause__
            if isinstance(error, json.JSONDecodeError) and _is_request(error.doc, arguments):
                raise BadRequest(f"the request is not JSON ({error})") from error
            raise
        except RecursionError as error:
            if _nesting(payload.content) < _DEEP:
                raise  # the script's own
            raise BadRequest("the request is nested too deeply") from error
        return found.reply() if isinstance(found, azureml.AMLResponse) else found

    def run_tensors(self, tensors: Mapping[str, Array]) -> Mapping[str, object]:
        """What ``run_tensors`` returns."""
        if self._run_tensors is None:
            raise Unsupported("score.py takes no tensors: it has no run_tensors()")
        # Scripts may change what they are given; what came over the wire cannot be changed.
        own = {k: v if v.flags.writeable else v.copy() for k, v in tensors.items()}
        found = _answer(self._run_tensors, own)
        if not isinstance(found, Mapping) or not found:
            raise Failed("run_tensors() returned no dict of arrays")
        return cast(Mapping[str, object], found)

    def run_image(self, image: Image) -> object:
        """What ``run_image`` returns."""
        if self._run_image is None:
            raise Unsupported("score.py takes no pictures: it has no run_image()")
        return _answer(self._run_image, image)


class _Arguments:
    """How the arguments of ``run`` are made of a request."""

    def __init__(self, run: Callable[..., object], *, raw: bool) -> None:
        parameters = list(inspect.signature(run).parameters.values())
        named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if any(each.kind not in named for each in parameters):
            raise NotServable("run() may not take positional-only arguments, *args or **kwargs")
        self._headers = any(each.name == "request_headers" for each in parameters)
        self._parameters = [each for each in parameters if each.name != "request_headers"]
        if not self._parameters:
            raise NotServable("run() takes no argument for the request")
        self._typed = _has_schema(run)
        self.raw = raw
        if self.raw and self._typed:
            raise NotServable("run() is marked with both @rawhttp and @input_schema")

    def of(self, payload: Payload) -> dict[str, Any]:
        first = self._parameters[0].name
        found: dict[str, Any]
        if self.raw:
            found = {first: azureml.AMLRequest(payload)}
        elif self._typed:
            found = self._by_name(_object(payload))
        elif payload.method == "GET":
            found = {first: json.dumps(_query(payload.query))}
        else:
            found = {first: _text(payload.content)}
        if self._headers:
            found["request_headers"] = dict(azureml.Headers(payload.headers))
        return found

    def _by_name(self, document: Mapping[str, object]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in self._parameters:
            value = document.get(each.name, each.default)
            if value is inspect.Parameter.empty:
                raise BadRequest(f"the request has no {each.name}", field=each.name)
            found[each.name] = value
        return found


def _answer(function: Callable[..., object], *given: object, **named: object) -> Any:  # noqa: ANN401
    """Call a script's function: a :class:`ValueError` is the request's fault, and says why."""
    try:
        return function(*given, **named)
    except ValueError as error:
        raise BadRequest(str(error) or "the request cannot be scored") from error


@contextmanager
def _to_start(what: str) -> Iterator[None]:
    """What fails before the first request makes the release unservable."""
    try:
        yield
    except NotServable:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script may call sys.exit()
        raise ScriptFailed(f"{what} failed: {error!r}") from error


def _load(path: Path, app_root: Path) -> ModuleType:
    # Beside it lie the modules it imports.
    for folder in (str(app_root), str(path.parent)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise NotServable(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with _to_start(f"import of {path}"):
        spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str) -> Callable[..., object]:
    found = _optional(module, name)
    if found is None:
        raise NotServable(f"{module.__file__} has no function {name}()")
    return found


def _optional(module: ModuleType, name: str) -> Callable[..., object] | None:
    found = getattr(module, name, None)
    return found if callable(found) else None


def _has_schema(run: Callable[..., object]) -> bool:
    """Whether inference-schema's ``@input_schema`` is on it; then it takes parsed JSON."""
    schema_util = sys.modules.get("inference_schema.schema_util")
    return schema_util is not None and bool(schema_util.is_schema_decorated(run))


def _fields(declared: object) -> tuple[tuple[str, ...], _Ranges]:
    if isinstance(declared, Mapping):
        ranges = {str(name): _range(values) for name, values in declared.items()}
        return tuple(ranges), ranges
    if isinstance(declared, str) or not isinstance(declared, Sequence):
        raise NotServable("FIELDS is neither a tuple of names nor a dict")
    return tuple(str(each) for each in declared), {}


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    lowest, highest, usual = (float(each) for each in values)
    return lowest, highest, usual


def _signature(module: ModuleType, opened: Sequence[Signature]) -> Signature | None:
    inputs, outputs = getattr(module, "INPUTS", None), getattr(module, "OUTPUTS", None)
    only = opened[0] if len(opened) == 1 else None
    if inputs is None and outputs is None:
        return only
    return Signature(
        _tensors(inputs) if inputs is not None else only.inputs if only else (),
        _tensors(outputs) if outputs is not None else only.outputs if only else (),
    )


def _tensors(declared: Mapping[str, tuple[str, Sequence[Dimension]]]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, kind_of(str(kind)), tuple(shape)) for name, (kind, shape) in declared.items()
    )


def _object(payload: Payload) -> Mapping[str, object]:
    """What ``@input_schema`` scripts take: a JSON object, or the query."""
    if payload.method == "GET":
        return _query(payload.query)
    kind = azureml.media_type(payload.content_type)
    if kind != "application/json" and not kind.endswith("+json"):
        raise Unsupported("Expects Content-Type to be application/json")
    try:
        found = json.loads(payload.content)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise BadRequest("the request is not a JSON object")
    return found


def _is_request(text: str, arguments: Mapping[str, object]) -> bool:
    """Whether the text that a script could not parse is what it was given."""
    return any(isinstance(each, str) and each == text for each in arguments.values())


def _nesting(content: bytes) -> int:
    """How deep JSON's lists and objects lie in each other; brackets in texts count as well."""
    found = np.frombuffer(content, np.uint8)
    opened = (found == ord("[")) | (found == ord("{"))
    closed = (found == ord("]")) | (found == ord("}"))
    marks = opened.view(np.int8) - closed.view(np.int8)
    return int(np.cumsum(marks, dtype=np.int64).max(initial=0))


def _query(query: str) -> dict[str, object]:
    """Arguments of an address, each read as JSON where it is."""
    found: dict[str, object] = {}
    for name, values in parse_qs(query, keep_blank_values=True).items():
        parsed = [_value(each) for each in values]
        found[name] = parsed[0] if len(parsed) == 1 else parsed
    return found


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the request is not UTF-8 ({error})") from error
