"""``config.json``, in which Azure ML's SDKs keep a workspace's location.

Behaviour: ``Workspace.from_config`` of azureml-core 1.61 and ``MLClient.from_config``.
"""

from __future__ import annotations

import json
from pathlib import Path

from mlpack.errors import MlpackError

_NAME = "config.json"
_FOLDERS = (".azureml", "aml_config", ".")
_MEMBERS = ("subscription_id", "resource_group", "workspace_name")
_MAX_BYTES = 64 * 1024


class BadWorkspaceFile(MlpackError):
    """A ``config.json`` that does not name a workspace."""

    hint = (
        "download config.json from the workspace's page in the Azure portal, or pass "
        "--workspace SUBSCRIPTION/GROUP/WORKSPACE"
    )


def find_workspace_file(start: Path) -> Path | None:
    """Return the ``config.json`` that Azure ML's SDKs find from the folder ``start``.

    ``.azureml`` comes before ``aml_config``, and that before the folder itself; each is searched
    in ``start`` and all its parents first.
    """
    here = start.resolve()
    places = ((at / folder / _NAME) for folder in _FOLDERS for at in (here, *here.parents))
    return next((path for path in places if path.is_file()), None)


def read_workspace_file(path: Path) -> str:
    """Return the workspace that ``path`` names, as ``SUBSCRIPTION/GROUP/WORKSPACE``.

    Raises :class:`BadWorkspaceFile`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        document = json.loads(content) if len(content) <= _MAX_BYTES else None
    except OSError as error:
        raise BadWorkspaceFile(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadWorkspaceFile(f"{path} is not JSON") from error
    if not isinstance(document, dict):
        raise BadWorkspaceFile(f"{path} is not a JSON object")
    parts = [_text(document.get(name)) for name in _MEMBERS]
    scope = _text(document.get("Scope")).strip("/").split("/")
    if len(scope) == 8:  # subscriptions/S/resourceGroups/G/providers/P/workspaces/W
        parts = [scope[1], scope[3], scope[7]]
    for name, part in zip(_MEMBERS, parts, strict=True):
        if not part or "/" in part or not part.isprintable():
            raise BadWorkspaceFile(f"{path} has no valid {name}")
    return "/".join(parts)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
