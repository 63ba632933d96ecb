"""A pickled estimator: loaded, checked that it was fitted, and mended for the conversion."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.installation import install_command
from mlpack.project.importers.estimator_conversion import inner_estimators
from mlpack.project.importers.recipes import BOOSTERS, RECIPES, recipe
from mlpack.project.importers.source import UnreadableModel, first_line
from mlpack.stores.files import open_file

_VERSION = re.compile(rb"_sklearn_version.{1,12}?([0-9]+\.[0-9]+[0-9.a-z]*)", re.DOTALL)


class Untrusted(MlpackError):
    """A pickle that is not trusted: loading it runs the code in it."""

    hint = "if you made the file yourself, add --trust-pickle; else export the model to ONNX"


class MissingExtra(MlpackError):
    """An optional package that is not installed."""

    def __init__(self, message: str) -> None:
        hint = f"install the extra sklearn: {install_command('sklearn')}"
        super().__init__(message, hint=hint)


class NotTheSame(MlpackError):
    """A converted model that does not answer as its estimator does."""


def load_estimator(path: Path) -> tuple[object, tuple[str, ...]]:
    """Load a trusted pickle; return the estimator and the warnings.

    Raises :class:`MissingExtra` and :class:`UnreadableModel`.
    """
    missing = [each for each in ("joblib", "skl2onnx", "sklearn") if not util.find_spec(each)]
    if missing:
        raise MissingExtra(f"reading {path} needs scikit-learn and skl2onnx")
    if not util.find_spec("onnxruntime"):
        raise MissingExtra(f"comparing {path} with what it is converted to needs onnxruntime")
    import joblib

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            loaded = joblib.load(path)
        # A pickle may raise any exception.
        except Exception as error:
            raise _unloadable(path, error) from error
    framework = type(loaded).__module__.partition(".")[0]
    if framework in RECIPES and not (framework in BOOSTERS and util.find_spec("onnxmltools")):
        raise UnreadableModel(
            f"{path} holds a model of {framework}, which skl2onnx does not convert",
            hint=recipe(framework),
        )
    if not hasattr(loaded, "get_params") or not hasattr(loaded, "fit"):
        raise UnreadableModel(
            f"{path} holds an object of type {type(loaded).__name__}, not a scikit-learn estimator",
            hint="save the estimator itself, e.g. joblib.dump(pipeline, 'model.joblib')",
        )
    return loaded, tuple(dict.fromkeys(f"{path.name}: {first_line(w.message)}" for w in said))  # type: ignore[arg-type]


def _unloadable(path: Path, error: Exception) -> UnreadableModel:
    made = made_by(path)
    by = f"; it was made by scikit-learn {made}, this is {installed('scikit-learn')}"
    if isinstance(error, ModuleNotFoundError):
        gone = f"{error.name}".startswith("sklearn.")
        return UnreadableModel(
            f"{path} needs the Python module {error.name!r}, which is not installed"
            + (by if gone and made else ""),
            hint=recipe(error.name or "")
            or "install what the model was trained with, or export it to ONNX there",
        )
    if isinstance(error, AttributeError) and "__main__" in str(error):
        named = re.findall(r"attribute '(\w+)'", str(error)) or ["a class"]
        return UnreadableModel(
            f"{path} needs {named[0]}, which was defined in the script that made it (__main__), "
            "so no other program can load it",
            hint="move it into a module that both programs can import, or export the model to "
            "ONNX at the end of that script and register the .onnx file",
        )
    changed = bool(made) and made != installed("scikit-learn")
    return UnreadableModel(
        f"{path} cannot be loaded ({type(error).__name__}: {first_line(error)})"
        + (by if changed else ""),
        hint=f"load it with scikit-learn {made} and export it to ONNX there"
        if changed
        else "it may be cut short, or need packages of other versions: export it to ONNX where "
        "it was trained",
    )


def made_by(path: Path) -> str:
    """Return the scikit-learn version that the pickle names, without loading it."""
    with open_file(path) as content:
        found = _VERSION.search(content.read(1 << 26))
    return found[1].decode() if found else ""


def installed(package: str) -> str:
    """Return the version of an installed package; ``?`` if it has none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "?"


def check_fitted(path: Path, estimator: object) -> None:
    """Raise :class:`UnreadableModel` if the estimator was never fitted."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise UnreadableModel(
            f"{path}: this {type(estimator).__name__} was never fitted",
            hint="call fit() before it is saved",
        ) from error
    except Exception:  # an old or foreign one, whose attributes differ: converting it decides
        return


def mend(estimator: object) -> Iterator[str]:
    """Set what only hinders the conversion and changes no prediction; yield notes."""
    for each in inner_estimators(estimator):
        if getattr(each, "flatten_transform", False) and hasattr(each, "voting"):
            each.flatten_transform = False  # type: ignore[attr-defined]
        if hasattr(each, "get_stop_words") and not hasattr(each, "stop_words_"):
            # skl2onnx looks for the words that scikit-learn kept there until 1.6.
            each.stop_words_ = set(each.get_stop_words() or ())  # type: ignore[attr-defined]
        if getattr(each, "encode", "") == "onehot":
            each.encode = "onehot-dense"  # type: ignore[attr-defined]
        values = getattr(each, "statistics_", None)
        missing = getattr(each, "missing_values", "")
        of_texts = values is not None and any(isinstance(value, str) for value in values)
        if of_texts and (missing is None or missing != missing):
            each.missing_values = ""  # type: ignore[attr-defined]
            yield "an empty text is a missing value: ONNX has no other for texts"


def check_meaning(path: Path, estimator: object) -> None:
    """Refuse what this scikit-learn computes otherwise than the one that trained it.

    Until 1.7 ``multi_class`` chose one model for each class; 1.8 and later have one for all,
    and the same coefficients get other probabilities.
    """
    from sklearn.linear_model import LogisticRegression

    for each in inner_estimators(estimator):
        if not isinstance(each, LogisticRegression) or len(each.classes_) <= 2:
            continue
        held = vars(each).get("multi_class")
        if held == "ovr" or (held in ("auto", "warn") and each.solver == "liblinear"):
            made = made_by(path) or "another version"
            raise NotTheSame(
                f"{path} was made by scikit-learn {made} as one model for each class "
                f"(multi_class={held!r}), which scikit-learn {installed('scikit-learn')} computes "
                "otherwise: its probabilities here are not those it was trained for",
                hint=f"export it to ONNX with scikit-learn {made}, or train it again as "
                "OneVsRestClassifier(LogisticRegression())",
            )
