"""Write the tables of docs/reference/settings.md from the settings themselves.

``make docs`` runs it; a test fails when the page is not what it writes. The text around the
tables is written by hand: a table stands between ``<!-- settings NAME… -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any

from mlpack.settings.azureml import InstanceType
from mlpack.settings.edge import (
    EdgeModuleSettings,
    RegistryLogin,
    RouteSettings,
    SystemModuleSettings,
)
from mlpack.settings.project_settings import LARGER_TABLES, PREFIX, TABLES, table_type
from mlpack.settings.reader import Setting, settings_of
from mlpack.settings.targets import DeviceGroup

ALL: dict[str, type] = {
    **{name: table_type(name) for name in (*TABLES, *LARGER_TABLES)},
    "edge.agent": SystemModuleSettings,
    "edge.hub": SystemModuleSettings,
    "edge.modules.NAME": EdgeModuleSettings,
    "edge.routes.NAME": RouteSettings,
    "edge.registries.NAME": RegistryLogin,
    "deploy.groups.NAME": DeviceGroup,
    "azureml.instance_types.NAME": InstanceType,
}
HEAD = ("| setting | default | is | environment |", "|---|---|---|---|")
_TABLE = re.compile(r"(<!-- settings ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """Return the page with every table written again."""
    return _TABLE.sub(lambda found: f"{found[1]}{_table(found[2].split())}{found[3]}", text)


def _table(names: list[str]) -> str:
    rows = (row for name in names for row in _rows(name))
    return "".join(f"{line}\n" for line in (*HEAD, *rows))


def _rows(name: str) -> Iterator[str]:
    common = {key for key, _, _ in settings_of(ALL["module"])}
    for key, each, found in settings_of(ALL[name]):
        if name == "edge.modules.NAME" and key in common:
            continue  # as in [module]
        variable = f"`{PREFIX}{found.variable}`" if found.variable else ""
        cells = (f"`[{name}] {key}`", _default(each, found), found.meaning, variable)
        yield "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def _default(each: Field[Any], found: Setting) -> str:
    if found.shown:
        return found.shown
    if each.default is MISSING and each.default_factory is MISSING:
        return "required"
    value = each.default if each.default is not MISSING else each.default_factory()  # type: ignore[misc]
    simple = isinstance(value, str | int | bool | tuple | dict)
    return f"`{json.dumps(value)}`" if simple else ""


def main() -> None:
    """Write the page in place."""
    path = Path(sys.argv[1])
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
