"""Ship machine-learning models to edge fleets as one small layer on the image the devices hold.

``Project`` has a method for each verb of the command line; each takes one request and returns one
result. Importing this package imports none of them: a name is loaded when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mlpack._version import __version__

if TYPE_CHECKING:
    from mlpack.api.base import BuiltBase, ShownBase
    from mlpack.api.build import Release
    from mlpack.api.bundle import WrittenBundle
    from mlpack.api.copy import ImageCopy
    from mlpack.api.devices import FoundDevices
    from mlpack.api.gc import Garbage
    from mlpack.api.graft import GraftResult
    from mlpack.api.models import ModelList, ShownModel
    from mlpack.api.project import Project
    from mlpack.api.pull import PullResult
    from mlpack.api.push import PushResult
    from mlpack.api.register import Registered
    from mlpack.api.register_request import Register
    from mlpack.api.releases import ReleaseList
    from mlpack.api.render import Rendered
    from mlpack.api.report import BudgetExceeded, FleetReport
    from mlpack.api.requests import (
        ApplyPatch,
        Build,
        BuildBase,
        Copy,
        Deploy,
        Devices,
        Diff,
        Down,
        Graft,
        Init,
        IssueToken,
        Load,
        MakeBundle,
        MakePatch,
        Plan,
        Pull,
        Push,
        Render,
        Report,
        Rollback,
        Round,
        Run,
        Score,
        Serve,
        ServeRegistry,
        TagVersion,
        Up,
    )
    from mlpack.api.round import Rounding
    from mlpack.api.run import Running
    from mlpack.api.score import Results
    from mlpack.api.session import Progress
    from mlpack.api.tag import Tagged
    from mlpack.errors import MlpackError, UsageError
    from mlpack.json_document import to_json
    from mlpack.oci.descriptor import Digest, Platform, Reference
    from mlpack.plan.fleet import FleetPlan
    from mlpack.plan.transfer import PullDiff

_NAMES = {
    "api.base": "BuiltBase ShownBase",
    "api.build": "Release",
    "api.bundle": "WrittenBundle",
    "api.copy": "ImageCopy",
    "api.devices": "FoundDevices",
    "api.gc": "Garbage",
    "api.graft": "GraftResult",
    "api.models": "ModelList ShownModel",
    "api.project": "Project",
    "api.pull": "PullResult",
    "api.push": "PushResult",
    "api.register": "Registered",
    "api.register_request": "Register",
    "api.releases": "ReleaseList",
    "api.render": "Rendered",
    "api.report": "BudgetExceeded FleetReport",
    "api.requests": (
        "ApplyPatch Build BuildBase Copy Deploy Devices Diff Down Graft Init IssueToken Load "
        "MakeBundle MakePatch Plan Pull Push Render Report Rollback Round Run Score "
        "Serve ServeRegistry TagVersion Up"
    ),
    "api.round": "Rounding",
    "api.run": "Running",
    "api.score": "Results",
    "api.session": "Progress",
    "api.tag": "Tagged",
    "errors": "MlpackError UsageError",
    "json_document": "to_json",
    "oci.descriptor": "Digest Platform Reference",
    "plan.fleet": "FleetPlan",
    "plan.transfer": "PullDiff",
}
"""What each module has for users, by name."""

__all__ = [
    "ApplyPatch",
    "BudgetExceeded",
    "Build",
    "BuildBase",
    "BuiltBase",
    "Copy",
    "Deploy",
    "Devices",
    "Diff",
    "Digest",
    "Down",
    "FleetPlan",
    "FleetReport",
    "FoundDevices",
    "Garbage",
    "Graft",
    "GraftResult",
    "ImageCopy",
    "Init",
    "IssueToken",
    "Load",
    "MakeBundle",
    "MakePatch",
    "MlpackError",
    "ModelList",
    "Plan",
    "Platform",
    "Progress",
    "Project",
    "Pull",
    "PullDiff",
    "PullResult",
    "Push",
    "PushResult",
    "Reference",
    "Register",
    "Registered",
    "Release",
    "ReleaseList",
    "Render",
    "Rendered",
    "Report",
    "Results",
    "Rollback",
    "Round",
    "Rounding",
    "Run",
    "Running",
    "Score",
    "Serve",
    "ServeRegistry",
    "ShownBase",
    "ShownModel",
    "TagVersion",
    "Tagged",
    "Up",
    "UsageError",
    "WrittenBundle",
    "__version__",
    "to_json",
]


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    for module, names in _NAMES.items():
        if name in names.split():
            found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
