"""scikit-learn estimators: loaded only on the user's word, converted by skl2onnx, never shipped."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError
from mlpack.stores.importers.onnx_file import describe
from mlpack.stores.importers.source import (
    ModelSource,
    UnreadableModel,
    first_line,
    require_regular,
)

if TYPE_CHECKING:
    from onnx import ModelProto

OPSETS = {"": 17, "ai.onnx.ml": 3}
"""What every onnxruntime since 1.16 runs, and newer opsets add nothing these models use."""

INPUT = "X"
"""skl2onnx's own name for the one input."""


class Untrusted(MlpackError):
    """A pickle the user did not vouch for: loading it runs whatever is in it."""

    hint = "if you made the file yourself, add --trust-pickle; else export the model to ONNX"


class MissingExtra(MlpackError):
    """A package that only some users need, and that is not installed."""

    hint = "install it with: pip install 'mlpack-edge[sklearn]'"


def read_estimator(path: Path, *, trusted: bool, features: int | None) -> ModelSource:
    """Convert the pickled estimator at ``path`` to ONNX.

    ``features`` is the number of input columns where the estimator does not say.
    Raises :class:`UnreadableModel`, and :class:`Untrusted` before anything is loaded.
    """
    require_regular(path)
    if not trusted:
        raise Untrusted(f"{path} is a pickle: loading it runs the code in it")
    estimator, notes = _load(path)
    columns = _features(path, estimator, features)
    model = _convert(path, estimator, columns)
    content = model.SerializeToString(deterministic=True)
    return ModelSource(
        framework="sklearn",
        content={f"{path.stem}.onnx": content},
        graph=describe(model),
        notes=(*notes, f"{path.name} was converted to ONNX and is not shipped"),
    )


def _load(path: Path) -> tuple[object, tuple[str, ...]]:
    try:
        import joblib
        import skl2onnx  # noqa: F401
        import sklearn  # noqa: F401  (what the pickle most likely needs; missing, it says so here)
    except ImportError as error:
        raise MissingExtra(f"reading {path} needs scikit-learn and skl2onnx") from error
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            loaded = joblib.load(path)
        except ModuleNotFoundError as error:
            raise UnreadableModel(
                f"{path} needs the Python module {error.name!r}, which is not installed",
                hint="install what the model was trained with, or export it to ONNX there",
            ) from error
        # A pickle may raise anything at all.
        except Exception as error:
            raise UnreadableModel(
                f"{path} cannot be loaded ({type(error).__name__}: {first_line(error)})",
                hint="it may be cut short, or made by another scikit-learn: export it to ONNX",
            ) from error
    if not hasattr(loaded, "get_params") or not hasattr(loaded, "fit"):
        raise UnreadableModel(
            f"{path} holds an object of type {type(loaded).__name__}, no scikit-learn estimator",
            hint="save the estimator itself, e.g. joblib.dump(pipeline, 'model.joblib')",
        )
    return loaded, tuple(dict.fromkeys(f"{path.name}: {first_line(w.message)}" for w in said))  # type: ignore[arg-type]


def _features(path: Path, estimator: object, given: int | None) -> int:
    known = getattr(estimator, "n_features_in_", None)
    if known is None and given is None:
        raise UsageError(
            f"{path} does not say how many input columns it takes",
            hint="say it with --features N (and check that the estimator was fitted)",
        )
    if given is not None and known is not None and int(known) != given:
        raise UsageError(
            f"{path} takes {known} input columns, --features says {given}",
            hint="leave --features out",
        )
    return int(known if known is not None else given or 0)


def _convert(path: Path, estimator: object, features: int) -> ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.base import is_classifier

    # Without zipmap: onnxruntime would return a list of dictionaries per row otherwise.
    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted: ModelProto = convert_sklearn(
                estimator,
                # skl2onnx makes up a random graph name otherwise, and the file a new digest.
                name="mlpack",
                initial_types=[(INPUT, FloatTensorType([None, features]))],
                options=options,
                target_opset=OPSETS,
            )
    # skl2onnx raises its own errors, NameError, RuntimeError, AttributeError for unfitted ones, …
    except Exception as error:
        raise UnreadableModel(
            f"{path} ({type(estimator).__name__}) cannot be converted to ONNX: {first_line(error)}",
            hint="was it fitted? Else export it to ONNX yourself and register the .onnx file",
        ) from error
    # skl2onnx lists them in the order of a set, which differs from process to process.
    converted.opset_import.sort(key=lambda each: each.domain)
    return converted
