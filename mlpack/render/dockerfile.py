"""The Dockerfile that puts a model version on a base: a value and a template to text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlpack.errors import MlpackError


class InvalidDockerfile(MlpackError):
    """A template that cannot be filled in."""

    hint = "compare it with templates/dockerfile/release.j2 of this mlpack"


@dataclass(frozen=True, kw_only=True)
class DockerRelease:
    """What the template is filled in with."""

    name: str
    old: str
    """The base, as the builder can name it: by digest, or by an id that stands for one."""

    folder: str
    """The directory of the image that the model's files and script lie in, without a slash."""

    env: Mapping[str, str]
    labels: Mapping[str, str]
    new: str = "scratch"
    """The image the files come from; from the build context where it is ``scratch``."""

    context: str = "model"
    """The directory of the build context that holds the files."""


def render(release: DockerRelease, template: str) -> str:
    """Fill in ``template``; raise :class:`InvalidDockerfile`."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - no HTML; tojson quotes every value
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Double quotes as in JSON; a $ would name a variable. Names and paths hold no line breaks.
    environment.filters["tojson"] = lambda value: json.dumps(value).replace("$", "\\$")
    try:
        return environment.from_string(template).render(release=release)
    except jinja2.TemplateError as error:
        raise InvalidDockerfile(f"the Dockerfile template cannot be filled in: {error}") from error
