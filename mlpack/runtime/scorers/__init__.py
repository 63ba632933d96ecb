"""Scorers of models without a script: a module per suffix of a model's file, with ``open``."""
