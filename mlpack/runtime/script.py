"""The user's ``score.py``: Azure ML's contract, and mlpack's additions.

Behaviour: azureml-inference-server-http 1.5.1, ``server/user_script.py`` and
``server/input_parsers.py``. docs/reference/scoring.md describes it for users.
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

from . import azureml, media_types, onnx
from .http_errors import BadRequest, ScoringFailed, UnsupportedMediaType
from .scorer import Array, Payload, Reply, Scorer
from .settings import NotServable, RuntimeSettings, ScriptFailed
from .signature import Dimension, Signature, Tensor, kind_of

if TYPE_CHECKING:
    from PIL.Image import Image

_DEEP = 300
"""Levels of nested JSON from which on a RecursionError is the request's fault: Python stops at 1000
calls, and json makes one per level."""

_Ranges = Mapping[str, tuple[float, float, float]]


class ScriptScorer(Scorer):
    """A scoring script: ``init()`` once, then ``run()`` for each request."""

    def __init__(self, path: Path, settings: RuntimeSettings) -> None:
        marked = azureml.install(settings)
        module = _load(path, settings)
        with onnx.recording() as opened:
            start = _function(module, "init")
            with _to_start(f"init() in {path}"):
                start()
        # Azure's generated drivers wrap run() with other arguments.
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
        """Pass a device twin's desired properties to the script if it takes them."""
        if self._configure is not None:
            _answer(self._configure, dict(properties))

    def run(self, payload: Payload) -> object:
        """Return the result of ``run`` for the request."""
        arguments = self._arguments.of(payload)
        try:
            return _reply(_answer(self._run, **arguments), payload)
        except BadRequest as problem:
            error = problem.__cause__
            if isinstance(error, json.JSONDecodeError) and _is_request(error.doc, arguments):
                raise BadRequest(f"the request is not JSON ({error})") from error
            raise
        except RecursionError as error:
            if _nesting(payload.content) < _DEEP:
                raise  # the script's own
            raise BadRequest("the request is nested too deeply") from error
        except Exception as error:
            if (refused := _refusal(error, payload)) is None:
                raise
            return refused
        finally:
            if self.raw:  # the temporary files of a form
                self._arguments.close(arguments)

    def run_tensors(self, tensors: Mapping[str, Array]) -> Mapping[str, object]:
        """Return the result of ``run_tensors``."""
        if self._run_tensors is None:
            raise UnsupportedMediaType("score.py has no run_tensors() and takes no tensors")
        # Scripts may modify their arguments; arrays over a request's bytes are read-only.
        own = {k: v if v.flags.writeable else v.copy() for k, v in tensors.items()}
        found = _answer(self._run_tensors, own)
        if not isinstance(found, Mapping) or not found:
            raise ScoringFailed("run_tensors() did not return a dict of arrays")
        return cast(Mapping[str, object], found)

    def run_image(self, image: Image) -> object:
        """Return the result of ``run_image``."""
        if self._run_image is None:
            raise UnsupportedMediaType("score.py has no run_image() and takes no pictures")
        return _answer(self._run_image, image)


class _Arguments:
    """Makes the arguments of ``run`` from a request."""

    def __init__(self, run: Callable[..., object], *, raw: bool) -> None:
        parameters = list(inspect.signature(run).parameters.values())
        named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if any(each.kind not in named for each in parameters):
            raise NotServable("run() must not have positional-only parameters, *args or **kwargs")
        self._headers = any(each.name == "request_headers" for each in parameters)
        self._parameters = [each for each in parameters if each.name != "request_headers"]
        if not self._parameters:
            raise NotServable("run() has no parameter for the request")
        self._typed = _has_schema(run)
        self.raw = raw
        if self.raw and self._typed:
            raise NotServable("run() is marked with both @rawhttp and @input_schema")

    def of(self, payload: Payload) -> dict[str, Any]:
        first = self._parameters[0].name
        found: dict[str, Any]
        if self.raw:
            from .raw_http import request

            found = {first: request(payload)}
        elif self._typed:
            found = self._by_name(_object(payload))
        elif payload.method == "GET":
            found = {first: json.dumps(_query(payload.query))}
        else:
            found = {first: _text(payload.content)}
        if self._headers:
            names = payload.headers.items()
            found["request_headers"] = {azureml.title(name): value for name, value in names}
        return found

    def close(self, arguments: Mapping[str, Any]) -> None:
        """Close a raw request."""
        arguments[self._parameters[0].name].close()

    def _by_name(self, document: Mapping[str, object]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in self._parameters:
            value = document.get(each.name, each.default)
            if value is inspect.Parameter.empty:
                raise BadRequest(f"the request has no {each.name}", field=each.name)
            found[each.name] = value
        return found


def _answer(function: Callable[..., object], *given: object, **named: object) -> Any:  # noqa: ANN401
    """Call a script's function; a :class:`ValueError` becomes a :class:`BadRequest`."""
    try:
        return function(*given, **named)
    except ValueError as error:
        raise BadRequest(str(error) or "the request cannot be scored") from error


def _reply(found: object, payload: Payload) -> object:
    """Return a script's result; a response of Werkzeug, Flask or Azure ML becomes a ``Reply``."""
    wrappers = sys.modules.get("werkzeug.wrappers")
    if wrappers is None or not isinstance(found, wrappers.Response):
        return found
    from .raw_http import reply

    return reply(found, payload)


def _refusal(error: Exception, payload: Payload) -> Reply | None:
    """Return the reply if ``error`` is one of Werkzeug's, which reading a request may raise."""
    exceptions = sys.modules.get("werkzeug.exceptions")
    if exceptions is None or not isinstance(error, exceptions.HTTPException):
        return None
    from .raw_http import aborted

    return aborted(error, payload)


@contextmanager
def _to_start(what: str) -> Iterator[None]:
    """Raise :class:`ScriptFailed` for a failure before the first request."""
    try:
        yield
    except NotServable:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script may call sys.exit()
        raise ScriptFailed(f"{what} failed: {error!r}") from error


def _load(path: Path, settings: RuntimeSettings) -> ModuleType:
    # The script imports modules of its own folders.
    places = [settings.source] if settings.source else []
    for folder in map(str, (*places, settings.app_root, path.parent)):
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
    """Return whether inference-schema's ``@input_schema`` is applied: it takes parsed JSON."""
    schema_util = sys.modules.get("inference_schema.schema_util")
    return schema_util is not None and bool(schema_util.is_schema_decorated(run))


def _fields(declared: object) -> tuple[tuple[str, ...], _Ranges]:
    if isinstance(declared, Mapping):
        ranges = {str(name): _range(values) for name, values in declared.items()}
        return tuple(ranges), ranges
    if isinstance(declared, str) or not isinstance(declared, Sequence):
        raise NotServable("FIELDS must be a tuple of names or a dict")
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
    """Return the JSON object or query that ``@input_schema`` scripts take."""
    if payload.method == "GET":
        return _query(payload.query)
    kind = media_types.parse(payload.content_type).kind
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType("Expects Content-Type to be application/json")
    try:
        found = json.loads(payload.content)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise BadRequest("the request is not a JSON object")
    return found


def _is_request(text: str, arguments: Mapping[str, object]) -> bool:
    """Return whether the text that a script could not parse is the request."""
    return any(isinstance(each, str) and each == text for each in arguments.values())


def _nesting(content: bytes) -> int:
    """Return the nesting depth of JSON; brackets in strings count as well."""
    found = np.frombuffer(content, np.uint8)
    opened = (found == ord("[")) | (found == ord("{"))
    closed = (found == ord("]")) | (found == ord("}"))
    marks = opened.view(np.int8) - closed.view(np.int8)
    return int(np.cumsum(marks, dtype=np.int64).max(initial=0))


def _query(query: str) -> dict[str, object]:
    """Return the query's arguments, each parsed as JSON if it is JSON."""
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
