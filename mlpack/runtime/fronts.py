"""Ways to reach a module beside HTTP, where the environment asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .module import Module

_ON_IOT_EDGE = ("EdgeHubConnectionString", "IOTEDGE_MODULEID")


class Front(Protocol):
    """Takes requests from elsewhere, on threads of its own."""

    def close(self) -> None:
        """Take no more, answer what was taken, and return."""
        ...


def open_fronts(module: Module, environment: Mapping[str, str]) -> list[Front]:
    """Start what the environment asks for; raise :class:`~.settings.NotServable`."""
    found: list[Front] = []
    if environment.get("MQTT_BROKER"):
        from .mqtt import Mqtt

        found.append(Mqtt.open(module, environment))
    if any(environment.get(name) for name in _ON_IOT_EDGE):
        from .iotedge import IotEdge

        front = IotEdge.open(module)
        found += [front] if front is not None else []
    return found
