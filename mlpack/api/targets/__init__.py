"""What runs a release: a module per ``mlpack render --target``, with ``render``."""
