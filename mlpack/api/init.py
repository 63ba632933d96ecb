"""``mlpack init``: a new project from one of the templates mlpack ships."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpack.errors import UsageError
from mlpack.model.recipe import InvalidName, Recipe, check_name
from mlpack.stores.project import RECIPE, Project
from mlpack.stores.starter import GITIGNORE, write_starter
from mlpack.stores.templates import read_template, template_tree

TEMPLATES = ("minimal", "fan")
CI = {
    "github": {"github/action.yml": ".github/actions/mlpack/action.yml"},
    "azure": {"azure/mlpack-steps.yml": "ci/mlpack-steps.yml"},
}
"""Per place where pipelines run: files of ``templates/ci`` and where they belong in a project."""

_PLAIN_GITIGNORE = "gitignore"
"""Its name among the templates, where git must not obey it."""

_NAME = re.compile(r'^name = ".*"$', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A project that was just made."""

    directory: Path
    template: str
    name: str
    files: tuple[str, ...]

    def to_json(self) -> Mapping[str, object]:
        """What ``mlpack --json init`` prints."""
        return {
            "directory": str(self.directory),
            "template": self.template,
            "name": self.name,
            "files": list(self.files),
        }


def init(directory: Path, *, template: str = "minimal", name: str = "", ci: str = "") -> Started:
    """Make a project in ``directory``; what is there already stays as it is.

    ``name`` is the model's; where none is given it is the template's own, or for
    the minimal one the directory's where that can be a name. ``ci`` adds the steps that
    run after training; to what is a project already it adds them alone.
    """
    if template not in TEMPLATES:
        raise UsageError(f"{template!r} is not a template", hint=f"one of: {', '.join(TEMPLATES)}")
    steps = _steps(ci) if ci else {}
    if ci and (directory / RECIPE).is_file():
        held = Project(directory)
        written = write_starter(directory, steps)
        return Started(
            directory=directory, template="", name=held.recipe.model, files=tuple(sorted(written))
        )
    files = {
        GITIGNORE if path == _PLAIN_GITIGNORE else path: content
        for path, content in template_tree(template).items()
    }
    recipe = files.pop(RECIPE).decode()
    chosen = check_name(name) if name else _default_name(directory, template, recipe)
    named = _NAME.sub(f'name = "{chosen}"', recipe, count=1)
    # Last, because a directory is a project from the moment it holds this file.
    files |= steps
    files[RECIPE] = named.encode()
    written = write_starter(directory, files)
    return Started(
        directory=directory,
        template=template,
        name=Recipe.parse(named).model,
        files=tuple(sorted(written)),
    )


def _steps(ci: str) -> dict[str, bytes]:
    if ci not in CI:
        raise UsageError(f"mlpack has no steps for {ci!r}", hint=f"one of: {', '.join(CI)}")
    return {place: read_template(f"ci/{path}").encode() for path, place in CI[ci].items()}


def _default_name(directory: Path, template: str, recipe: str) -> str:
    own = Recipe.parse(recipe).model
    if template != "minimal":
        return own
    try:
        return check_name(directory.resolve().name.lower())
    except InvalidName:
        return own
