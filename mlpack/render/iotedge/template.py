"""Filling in deployment templates: Jinja, and the placeholders other tools have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError

if TYPE_CHECKING:
    from jinja2 import Environment


_FAULTS = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
"""What an expression of a template may end in: ``{{ 1 / 0 }}``."""


class InvalidTemplate(MlpackError):
    """A template that cannot be filled in, or does not give JSON."""


def render_jinja(template: str, values: Mapping[str, object]) -> str:
    """Fill in a Jinja template; raise :class:`InvalidTemplate` with its line where it can be told.

    A template comes from a file, so it gets Jinja's sandbox: values, and no Python.
    """
    import jinja2

    try:
        return _environment().from_string(template).render(values)
    except (jinja2.TemplateError, *_FAULTS) as error:
        line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise InvalidTemplate(f"the deployment template cannot be filled in: {error}{line}") from (
            error
        )


def _environment() -> Environment:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.DictLoader({}),  # nothing to include
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Jinja's own tojson writes <, > and ' as \\u003c for HTML, which hides routes from a reader.
    environment.filters["tojson"] = lambda value: json.dumps(
        value, ensure_ascii=False, separators=(",", ":")
    )
    environment.filters["environment"] = lambda env: {
        name: {"value": value} for name, value in env.items()
    }
    return environment
