"""Reading what a user gives as a model: an ONNX file, a directory, a scikit-learn estimator."""
