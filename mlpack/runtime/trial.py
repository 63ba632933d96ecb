"""``python -m mlpack_runtime --try``: load the model, score one made request, and end.

mlpack does this once with each release before it names it; in a base whose runtime lacks this
module, it passes the source of this file. So it uses only what every runtime has.

Each phase is one line of JSON on stdout: ``loaded``, then ``ran`` or ``unscored``; or ``refused``.
What the model and its script print goes to stderr.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scorer import Scorer
    from .signature import Signature, Tensor

_SIZES = (1, 2, 3, 4, 8, 16, 32, 64, 128, 224, 256, 640)
"""Lengths tried for the dimensions that a model leaves open."""
_LARGEST = 16 * 1024 * 1024
"""Elements of a made tensor; a model that needs more is not scored."""
_SECONDS = 10.0
"""After so long no further request is made."""
_PICTURE = (224, 224)
_OF_INPUTS = ("InvalidArgument", "Fail", "RuntimeException")
"""onnxruntime's errors for a run that depend on the inputs; its classes share no base."""
_OF_RELEASE = (ImportError, MemoryError, NotImplementedError)
"""What a script raises for a fault of the release, whatever the request was."""

Report = Callable[[Mapping[str, object]], None]


class Unscored(Exception):
    """A model that loads, and for which no request could be made that it scores."""


def main() -> int:
    """Start, score, report; the exit status is 0 unless the release is refused."""
    report = _private_stdout()
    start = time.perf_counter()
    try:
        from .scoring_service import ScoringService
        from .settings import RuntimeSettings

        service = ScoringService.open(RuntimeSettings.read(os.environ))
    except BaseException as error:  # a script may raise anything, or end the process
        return _refused(report, error, "load")
    report({"phase": "loaded", "seconds": round(time.perf_counter() - start, 3)})
    try:
        made = score(service.scorer)
        report({"phase": "ran", "input": made})
    except Unscored as error:
        report({"phase": "unscored", "why": str(error)})
    except BaseException as error:
        return _refused(report, error, "run")
    return 0


def _private_stdout() -> Report:
    """Keep stdout for the report; whatever else is written there goes to stderr."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(phase: Mapping[str, object]) -> None:
        own.write(json.dumps(phase) + "\n")
        own.flush()

    return report


def _refused(report: Report, error: BaseException, during: str) -> int:
    traceback.print_exception(error.__cause__ or error)
    report({"phase": "refused", "during": during, "error": _line(error)})
    return 1


def _line(error: BaseException) -> str:
    text = str(error).strip()
    named = text if type(error).__name__ in ("NotServable", "ScriptFailed") else repr(error)
    return (named or type(error).__name__).splitlines()[0][:1000]


def score(scorer: Scorer) -> str:
    """Score a made request; return what it was. Raises :class:`Unscored`."""
    if scorer.tensors and scorer.signature is not None:
        return _score_tensors(scorer, scorer.signature)
    if scorer.images:
        return _declared("a picture", lambda: scorer.run_image(_picture()))
    if scorer.fields:
        usual = {"params": [_usual(scorer, name) for name in scorer.fields]}
        return _declared("usual values of FIELDS", lambda: _run(scorer, usual))
    body, what = _guess(scorer)
    try:
        _run(scorer, body)
    except Exception as error:
        if isinstance(error.__cause__ or error, _OF_RELEASE):
            raise
        raise Unscored(f"run() takes another request than {what} ({_line(error)})") from error
    return what


def _score_tensors(scorer: Scorer, signature: Signature) -> str:
    """Try made tensors until the model runs with some."""
    given = [each for each in signature.inputs if not getattr(each, "optional", False)]
    strange = next((each for each in given if each.dtype is None), None)
    if strange is not None:
        raise Unscored(f"no request is made for {strange}")
    free = any(not isinstance(length, int) for each in given for length in each.shape)
    first, until = "", time.monotonic() + _SECONDS
    for size in _SIZES if free else _SIZES[:1]:
        for fill in ("ones", "zeros", "random"):
            try:
                tensors = {each.name: tensor(each, size, fill) for each in given}
                _set_categories(tensors, scorer)
                _encode(scorer.run_tensors(tensors))
                return f"{fill}, free lengths {size}" if free else fill
            except Exception as error:
                if not _of_inputs(error):
                    raise
                first = first or _line(error)
            if time.monotonic() > until:
                break
    raise Unscored(f"the model runs with none of the made inputs ({first})")


def _set_categories(tensors: Mapping[str, Any], scorer: Scorer) -> None:
    """Put categories that the model knows into their columns: it may fail on other values."""
    # An earlier runtime knows of none.
    for (name, column), values in getattr(scorer, "choices", dict)().items():
        array = tensors.get(name)
        if array is None or not array.ndim or column >= array.shape[-1]:
            continue
        array[... if array.ndim == 1 else (..., column)] = values[0]


def _of_inputs(error: BaseException) -> bool:
    """Whether other inputs may fare better."""
    status = getattr(error, "status", 0)
    return 400 <= status < 500 or type(error).__name__ in _OF_INPUTS


def _encode(outputs: Mapping[str, object]) -> None:
    """Write the outputs as a response would have them."""
    from . import tensors

    tensors.to_json(outputs)


def tensor(spec: Tensor, size: int, fill: str) -> Any:  # noqa: ANN401  # numpy is the base's
    """Return a tensor for ``spec``; lengths that it leaves open are ``size``.

    Raises :class:`Unscored` if it would be too large.
    """
    import math

    import numpy as np

    shape = [length if isinstance(length, int) and length >= 0 else size for length in spec.shape]
    if math.prod(shape) > _LARGEST:
        raise Unscored(f"a made {spec} would be too large")
    dtype = spec.dtype or np.dtype("float32")
    if dtype.hasobject:
        return np.full(shape, "a", dtype=object)
    if fill == "random":
        return np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    return np.full(shape, int(fill == "ones"), dtype=dtype)


def _declared(what: str, call: Callable[[], object]) -> str:
    """Score what the script says that it takes; a refusal of the values is not a fault."""
    try:
        call()
    except Exception as error:
        if not _of_inputs(error):
            raise
        raise Unscored(f"the script refuses {what} ({_line(error)})") from error
    return what


def _run(scorer: Scorer, body: object) -> None:
    from . import codec
    from .scorer import Payload

    found = scorer.run(Payload(content=json.dumps(body).encode()))
    if not hasattr(found, "status"):
        codec.to_json(found)


def _usual(scorer: Scorer, name: str) -> float:
    """Return the usual value of a field, as its range has it."""
    return scorer.ranges[name][2] if name in scorer.ranges else 1.0


def _guess(scorer: Scorer) -> tuple[object, str]:
    """Return a request for a script that does not say what it takes."""
    example = next(_examples(scorer), None)
    if example is not None:
        return example, "the example of its schema"
    inputs = scorer.signature.inputs if scorer.signature else ()
    if len(inputs) == 1 and inputs[0].dtype is not None:
        return {"data": tensor(inputs[0], 1, "ones").tolist()}, 'ones in "data"'
    return {"data": [[1.0]]}, '{"data": [[1.0]]}'


def _examples(scorer: Scorer) -> Iterator[object]:
    """Yield the sample that inference-schema's decorators were given."""
    schema_util = sys.modules.get("inference_schema.schema_util")
    run = getattr(scorer, "_run", None)
    if schema_util is not None and run is not None and schema_util.is_schema_decorated(run):
        yield schema_util.get_input_schema(run).get("example", {})


def _picture() -> Any:  # noqa: ANN401  # Pillow is the base's
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", _PICTURE, (128, 128, 128)).save(content, "PNG")
    return Image.open(io.BytesIO(content.getvalue()))


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # threads of a script must not keep the process
