"""The documentation, which `mlpack docs` reads."""
