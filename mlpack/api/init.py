"""``mlpack init``: a new project from one of the templates mlpack ships."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpack.errors import UsageError
from mlpack.model.recipe import InvalidName, Recipe, check_name
from mlpack.stores.project import RECIPE
from mlpack.stores.starter import GITIGNORE, write_starter
from mlpack.stores.templates import template_tree

TEMPLATES = ("minimal", "fan")
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


def init(directory: Path, *, template: str = "minimal", name: str = "") -> Started:
    """Make a project in ``directory``; what is there already stays as it is.

    ``name`` is the model's; where none is given it is the template's own, or for
    the minimal one the directory's where that can be a name.
    """
    if template not in TEMPLATES:
        raise UsageError(f"{template!r} is not a template", hint=f"one of: {', '.join(TEMPLATES)}")
    files = {
        GITIGNORE if path == _PLAIN_GITIGNORE else path: content
        for path, content in template_tree(template).items()
    }
    recipe = files.pop(RECIPE).decode()
    chosen = check_name(name) if name else _default_name(directory, template, recipe)
    named = _NAME.sub(f'name = "{chosen}"', recipe, count=1)
    # Last, because a directory is a project from the moment it holds this file.
    files[RECIPE] = named.encode()
    written = write_starter(directory, files)
    return Started(
        directory=directory,
        template=template,
        name=Recipe.parse(named).model,
        files=tuple(sorted(written)),
    )


def _default_name(directory: Path, template: str, recipe: str) -> str:
    own = Recipe.parse(recipe).model
    if template != "minimal":
        return own
    try:
        return check_name(directory.resolve().name.lower())
    except InvalidName:
        return own
