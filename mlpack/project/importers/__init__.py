"""Read models from ONNX files, directories and scikit-learn estimators."""
