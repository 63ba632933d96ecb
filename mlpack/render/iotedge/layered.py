"""A layered deployment: one module, and what goes with it, over a device's base deployment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from mlpack.render.iotedge.manifest import AGENT, CONTENT, DESIRED, HUB
from mlpack.render.iotedge.module import Module
from mlpack.render.iotedge.routes import Route
from mlpack.render.iotedge.validate import require_valid


def layered(
    module: Module, routes: Mapping[str, Route], beside: Iterable[Module] = ()
) -> dict[str, dict[str, object]]:
    """The ``modulesContent`` of a deployment that adds ``module`` to what a device runs.

    The modules ``beside`` it go with it. Of ``$edgeAgent`` and ``$edgeHub`` it holds the
    paths below one name each, so that the base deployment keeps all others. The device
    needs that base deployment, with a lower priority. Raises ``InvalidDeployment`` where a
    device would refuse it.
    """
    modules = (module, *beside)
    content: dict[str, dict[str, object]] = {
        AGENT: {f"{DESIRED}.modules.{each.name}": each.entry for each in modules}
    }
    if routes:
        content[HUB] = {f"{DESIRED}.routes.{name}": each.entry for name, each in routes.items()}
    content |= {each.name: {DESIRED: dict(each.twin)} for each in modules if each.twin}
    require_valid(json.dumps({CONTENT: content}).encode())
    return content
