"""The build context: a tar with a Dockerfile and a model version's files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

from mlpack.errors import MlpackError
from mlpack.model.version import ModelVersion
from mlpack.oci.descriptor import Writable
from mlpack.oci.layer import Entry, arrange, write_tar
from mlpack.project.directory import read_template
from mlpack.project.releases import APP_ROOT, model_env, model_files, model_labels
from mlpack.stores.layout import LayoutStore

DOCKERFILE, TEMPLATE = "Dockerfile", "dockerfile/release.j2"


class InvalidDockerfile(MlpackError):
    """A template that cannot be filled in."""

    hint = "compare it with templates/dockerfile/release.j2 of this mlpack"


@dataclass(frozen=True, kw_only=True)
class DockerRelease:
    """The values of the Dockerfile template."""

    name: str
    old: str
    """The base, by a digest or an id that the builder knows."""

    folder: str
    """The image's directory with the model's files and script, without a leading slash."""

    env: Mapping[str, str]
    labels: Mapping[str, str]
    new: str = "scratch"
    """The image the files come from; ``scratch``: the build context."""

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


def docker_release(model: ModelVersion, base: str) -> DockerRelease:
    """Return the values for ``model`` on the image called ``base``."""
    return DockerRelease(
        name=f"{model.name}:{model.version}",
        old=base,
        folder=APP_ROOT,
        env=model_env(model),
        labels=model_labels(model),
    )


def write_context(
    layout: LayoutStore, model: ModelVersion, release: DockerRelease, out: Writable
) -> None:
    """Write the tar of the context to ``out``; the same release gives the same bytes."""
    dockerfile = render(release, read_template(TEMPLATE)).encode()
    files, open_model = model_files(layout, model)
    above = f"{release.context}/"

    @contextmanager
    def open_file(path: str) -> Iterator[BinaryIO]:
        if path == DOCKERFILE:
            yield io.BytesIO(dockerfile)
            return
        with open_model(path.removeprefix(above)) as content:
            yield content

    entries = [Entry(DOCKERFILE, size=len(dockerfile))]
    entries += [replace(each, path=above + each.path) for each in files]
    write_tar(arrange(entries), open_file, out)
