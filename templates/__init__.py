"""Files mlpack copies or renders: starter projects, deployment templates, tariffs.

A package so that they are found in a wheel and in an editable install alike.
"""
