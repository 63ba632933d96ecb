"""``mlpack init``: a new project from one of the templates mlpack ships."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import UsageError
from mlpack.json_document import HIDDEN, named
from mlpack.model.version import MAX_NAME, InvalidName, check_name
from mlpack.project.directory import (
    GITIGNORE,
    RECIPE,
    ProjectDirectory,
    read_template,
    template_tree,
    write_starter,
)
from mlpack.settings.project_settings import ProjectSettings

if TYPE_CHECKING:
    from mlpack.api.requests import Init
    from mlpack.api.session import Session

TEMPLATES = ("minimal", "fan")
CI = {
    "github": {"github/action.yml": ".github/actions/mlpack/action.yml"},
    "azure": {"azure/mlpack-steps.yml": "ci/mlpack-steps.yml"},
}
"""Per place where pipelines run: files of ``templates/ci`` and where they belong in a project."""

_PLAIN_GITIGNORE = "gitignore"
"""Its name among the templates, where git must not obey it."""

_UNUSABLE = re.compile(r"[^a-z0-9]+")
"""Characters of a directory's name that a model's name is made without."""

_NAME = re.compile(r'^name = ".*"$', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A project that was just made."""

    directory: Path = field(metadata=named("path"))
    template: str
    name: str
    files: tuple[str, ...]

    guessed: bool = field(default=False, metadata=HIDDEN)
    """Whether the model's name is made up, because the directory's cannot be one."""


def init(session: Session, request: Init) -> Started:
    """Make a project in a directory; files that exist stay as they are.

    The model's name is the request's, or the template's own, or for the minimal template one
    like the directory's. ``ci`` adds the steps that run after training; to an
    existing project it adds only them.
    """
    directory, template, ci = session.path(request.directory), request.template, request.ci
    if template not in TEMPLATES:
        raise UsageError(f"{template!r} is not a template", hint=f"one of: {', '.join(TEMPLATES)}")
    steps = _steps(ci) if ci else {}
    if ci and (directory / RECIPE).is_file():
        held = ProjectDirectory(directory)
        written = write_starter(directory, steps)
        return Started(
            directory=directory, template="", name=held.settings.model, files=tuple(sorted(written))
        )
    files = {
        GITIGNORE if path == _PLAIN_GITIGNORE else path: content
        for path, content in template_tree(template).items()
    }
    recipe = files.pop(RECIPE).decode()
    own = ProjectSettings.parse(recipe).model
    folder = directory.resolve().name if template == "minimal" and not request.name else ""
    chosen = check_name(request.name) if request.name else name_like(folder) or own
    named = _NAME.sub(f'name = "{chosen}"', recipe, count=1)
    # Last, because a directory is a project from the moment it holds this file.
    files |= steps
    files[RECIPE] = named.encode()
    written = write_starter(directory, files)
    return Started(
        directory=directory,
        template=template,
        name=ProjectSettings.parse(named).model,
        files=tuple(sorted(written)),
        guessed=bool(folder) and chosen != folder.lower(),
    )


def _steps(ci: str) -> dict[str, bytes]:
    if ci not in CI:
        raise UsageError(f"mlpack has no steps for {ci!r}", hint=f"one of: {', '.join(CI)}")
    return {place: read_template(f"ci/{path}").encode() for path, place in CI[ci].items()}


def name_like(folder: str) -> str:
    """Return a directory's name as a model's, made up if need be; empty if nothing is left of it.

    >>> name_like("Pump-Wear"), name_like("My Project!"), name_like("模型")
    ('pump-wear', 'my-project', '')
    """
    try:
        return check_name(folder.lower())
    except InvalidName:
        return _UNUSABLE.sub("-", folder.lower()).strip("-")[:MAX_NAME].strip("-")
