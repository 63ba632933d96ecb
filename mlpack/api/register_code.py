"""The scoring script of a registration: which one, with what code, and what its release lacks."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from mlpack.base.imports import missing
from mlpack.base.python import RUNTIME
from mlpack.base.requirements import InvalidRequirements, parse_requirements
from mlpack.errors import UsageError
from mlpack.model.lock import InvalidLock
from mlpack.model.servable import not_carried
from mlpack.project.directory import ProjectDirectory, read_text
from mlpack.project.importers.code import Code, read_code
from mlpack.project.importers.onnx_validity import DECIDES
from mlpack.project.importers.source import ModelSource, UnreadableModel

if TYPE_CHECKING:
    from mlpack.api.register_request import Register
    from mlpack.api.session import Session

_SHOWN = 3


def find_code(
    session: Session, request: Register, model: Path
) -> tuple[Code | None, tuple[str, ...]]:
    """Read the script of the request, or of mlpack.toml, with its code; and notes on it.

    A script of the request must exist, one of mlpack.toml need not.
    """
    project = session.project
    directory = session.existing(request.code) if request.code else None
    if directory is not None and not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="name the one with the script")
    script, notes = _script(session, request, directory)
    if script is None:
        if directory is not None:
            raise UsageError(
                f"no script is named for the code in {directory}",
                hint=f"name it: --code {request.code} --scoring score.py",
            )
        return None, notes
    if directory is None and project.settings.code:
        named = project.path(project.settings.code)
        directory = named if script.resolve().is_relative_to(named.resolve()) else None
    code = read_code(script, directory, model)
    return code, (*notes, *code.notes, *_lacking(project, code))


def _script(
    session: Session, request: Register, directory: Path | None
) -> tuple[Path | None, tuple[str, ...]]:
    project = session.project
    if request.scoring:
        # As in Azure ML, its name may be relative to the source directory.
        inside = directory / request.scoring if directory else None
        found = session.path(request.scoring)
        return (inside if inside and inside.is_file() else session.existing(found)), ()
    named = project.settings.scoring
    if not named:
        return None, ()
    found = project.path(named)
    if not found.exists():
        return None, (f"mlpack.toml names {named}, which is not there: registered without it",)
    return found, ()


def _lacking(project: ProjectDirectory, code: Code) -> Iterator[str]:
    """Say which imported modules the base seems to lack."""
    requirements = project.settings.base.requirements
    place, packages = ("mlpack.lock", _locked(project)) if project.has_lock else _planned(project)
    for module, package in (missing(code.imports, packages) if packages else {}).items():
        named = f" ({package})" if package else ""
        yield (
            f"the script imports {module}, and no package in {place} is known to provide it: "
            f"add its package{named} to {requirements} and run mlpack base "
            "build, or put the module next to the script"
        )


def _locked(project: ProjectDirectory) -> frozenset[str]:
    """The packages in mlpack.lock; none if it cannot be read, which is reported with the model."""
    try:
        platforms = project.lock().base.platforms
    except InvalidLock:
        return frozenset()
    return frozenset(package.name for each in platforms for package in each.python)


def _planned(project: ProjectDirectory) -> tuple[str, frozenset[str]]:
    """Return the file of requirements, and the packages of the base that will be built of it.

    The packages are unknown, and none is returned, as soon as one requirement may bring others.
    """
    name = project.settings.base.requirements
    file = project.path(name)
    if file.is_file() and parse_requirements(read_text(file, InvalidRequirements), name):
        return name, frozenset()
    return name, frozenset(Requirement(each).name for each in RUNTIME)


def require_scorer(path: Path, source: ModelSource) -> tuple[str, ...]:
    """Return notes on a model without a script; raise if it cannot be scored without one."""
    problem = not_carried(source.graph.signature) if source.graph else ""
    if problem:
        raise UnreadableModel(
            f"{path}: {problem}",
            hint="change it inside the model (a Cast to float32, tensors instead of sequences), "
            "or register it with a script: --scoring FILE",
        )
    if source.graph:
        return ()
    found = sorted(each for each in source.content if each.endswith(".onnx"))
    listed = ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
    opened = found[0] if found else min(source.content)
    place = posixpath.join(path.name, opened)
    problem = (
        f"{path} holds {len(found)} ONNX files ({listed}): call the one to serve model.onnx, or"
        if found
        else f"{path} holds no ONNX file:"
    )
    load = "model = open_model" if found else "model = load"
    return (
        f"{problem} register it with --scoring score.py, in which init() has "
        f'`{load}(os.path.expandvars("$AZUREML_MODEL_DIR/{place}"))` and run(data) returns '
        f"what it answers; {DECIDES}",
    )
