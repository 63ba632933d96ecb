"""The build context: a Dockerfile and a model version's files, as the tar a builder is sent."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from mlpack.model.version import ModelVersion
from mlpack.oci.digest import Writable
from mlpack.oci.layer import write_tar
from mlpack.oci.tree import Entry, arrange
from mlpack.render.dockerfile import DockerRelease, render
from mlpack.stores.layout import LayoutStore
from mlpack.stores.releases import APP_ROOT, model_env, model_files, model_labels
from mlpack.stores.templates import read_template

DOCKERFILE, TEMPLATE = "Dockerfile", "dockerfile/release.j2"


def docker_release(model: ModelVersion, base: str) -> DockerRelease:
    """What the Dockerfile says of ``model`` on the image called ``base``."""
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
