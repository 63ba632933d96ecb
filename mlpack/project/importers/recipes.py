"""Models of other frameworks: their names, and the lines that export each to ONNX.

docs/start/your-model.md has the same lines with a test for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Foreign:
    """A kind of file or folder that onnxruntime does not run."""

    name: str
    """With its article: ``a PyTorch model``."""

    remedy: str = ""
    """What to do: the lines that export it."""


_TENSORS = "onnxmltools.convert.common.data_types.FloatTensorType([None, FEATURES])"
_TORCH = (
    "model = torch.load('model.pt', weights_only=False).eval(); "
    "torch.onnx.export(model, (example_input,), 'model.onnx')"
)
_KERAS = "model = keras.saving.load_model('model.keras'); model.export('model.onnx', format='onnx')"
_HUGGING_FACE = "pip install 'optimum[onnxruntime]'; optimum-cli export onnx --model FOLDER out/"

RECIPES: Mapping[str, str] = {
    "catboost": (
        "model = catboost.CatBoost().load_model('model.cbm'); "
        "model.save_model('model.onnx', format='onnx')"
    ),
    "keras": _KERAS,
    "lightgbm": (
        "booster = lightgbm.Booster(model_file='model.txt'); onnxmltools.utils.save_model("
        "onnxmltools.convert_lightgbm(booster, zipmap=False, "
        f"initial_types=[('X', {_TENSORS})]), 'model.onnx')"
    ),
    "tensorflow": (
        "pip install tf2onnx; python -m tf2onnx.convert --saved-model FOLDER --output model.onnx"
    ),
    "torch": _TORCH,
    "transformers": _HUGGING_FACE,
    "xgboost": (
        "booster = xgboost.Booster(model_file='model.json'); onnxmltools.utils.save_model("
        "onnxmltools.convert_xgboost(booster, "
        f"initial_types=[('X', {_TENSORS})]), 'model.onnx')"
    ),
}
"""Two lines, separated by a semicolon, by the name of the Python package."""

_EXPORT = "export it to ONNX: "


def recipe(module: str) -> str:
    """Return the hint for objects of a Python ``module``; empty for one that is not known.

    >>> recipe("catboost.core").partition(": ")[0]
    'export it to ONNX where it was trained'
    """
    framework = module.partition(".")[0]
    lines = RECIPES.get(framework, "")
    if framework in BOOSTERS:
        return f"pip install {framework} onnxmltools, with which mlpack converts it; or {lines}"
    return f"export it to ONNX where it was trained: {lines}" if lines else ""


BOOSTERS = frozenset({"lightgbm", "xgboost"})
"""Frameworks whose estimators for scikit-learn onnxmltools lets skl2onnx convert."""


def _exported(name: str, package: str) -> Foreign:
    return Foreign(name, _EXPORT + RECIPES[package])


CATBOOST = _exported("a CatBoost model", "catboost")
COREML = Foreign(
    "a Core ML model",
    "export it to ONNX: spec = coremltools.utils.load_spec('model.mlmodel'); "
    "onnxmltools.utils.save_model(onnxmltools.convert_coreml(spec), 'model.onnx'); an ML Program "
    "(.mlpackage) has no converter: export the model that it was made from",
)
EXECUTORCH = _exported("an ExecuTorch program", "torch")
FROZEN_GRAPH = Foreign(
    "a frozen TensorFlow graph",
    "export it to ONNX: pip install tf2onnx; python -m tf2onnx.convert --graphdef model.pb "
    "--inputs INPUT:0 --outputs OUTPUT:0 --output model.onnx",
)
GGUF = Foreign(
    "a GGUF file, which llama.cpp runs and onnxruntime does not",
    f"export the model that it was made from: {_HUGGING_FACE}",
)
GZIP = Foreign("gzip-compressed: unpack it first")
HDF5 = Foreign("an HDF5 file without a Keras model", "export the model that reads it to ONNX")
HUGGING_FACE = _exported("a Hugging Face model", "transformers")
JSON = Foreign("JSON")
KERAS = _exported("a Keras model", "keras")
KERAS_HDF5 = Foreign(
    "a Keras model in HDF5",
    _EXPORT + _KERAS.replace("model.keras", "model.h5"),
)
LFS = Foreign("a Git LFS pointer: fetch the file itself with git lfs pull")
LIGHTGBM = _exported("a LightGBM model", "lightgbm")
MARKUP = Foreign("HTML or XML: was it downloaded whole?")
MLFLOW = Foreign(
    "an MLflow model",
    "register the file in it that holds the model: an .onnx file, or model.pkl with --trust-pickle",
)
NUMPY = Foreign("an archive of NumPy's arrays", "export the model that reads it to ONNX")
OPENVINO = Foreign(
    "an OpenVINO model", "register the ONNX file that it was made from, which ovc reads"
)
ORT = Foreign(
    "a model in onnxruntime's own format (.ort)",
    "register the .onnx file that it was made from: other releases of onnxruntime load that, and "
    "mlpack can patch it",
)
PICKLE = Foreign("a pickle")
PMML = Foreign(
    "a PMML document",
    "it has no converter to ONNX: export the estimator that it was made from, "
    "e.g. onx = skl2onnx.to_onnx(estimator, rows[:1]); open('model.onnx', 'wb').write("
    "onx.SerializeToString())",
)
R_OBJECT = Foreign(
    "an R object",
    "R exports no ONNX: save boosters with xgb.save() or lgb.save(), whose files convert in "
    "Python, or train the model in Python",
)
SAFETENSORS = Foreign(
    "a file of weights (safetensors) without their network",
    f"export the model with its code; one of Hugging Face: {_HUGGING_FACE}",
)
SAVED_MODEL = _exported("a TensorFlow SavedModel", "tensorflow")
TENSORRT = Foreign("a TensorRT engine", "register the ONNX file that it was made from")
TFLITE = Foreign(
    "a TensorFlow Lite file",
    "export it to ONNX: pip install tf2onnx; "
    "python -m tf2onnx.convert --tflite model.tflite --output model.onnx",
)
TORCH = _exported("a PyTorch model", "torch")
TORCH_EXPORT = Foreign(
    "a PyTorch program (torch.export)",
    "export it to ONNX: program = torch.export.load('model.pt2'); "
    "torch.onnx.export(program, dynamo=True).save('model.onnx')",
)
TORCHSCRIPT = Foreign(
    "a TorchScript model",
    "export it to ONNX: model = torch.jit.load('model.pt').eval(); "
    "torch.onnx.export(model, (example_input,), 'model.onnx', dynamo=False)",
)
XGBOOST = _exported("an XGBoost model", "xgboost")
ZIP = Foreign("a ZIP archive: unpack it, and register what is in it")
