"""Ways to reach a module beside HTTP, where the environment asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .module import Module


class Front(Protocol):
    """Takes requests from elsewhere, on threads of its own."""

    def close(self) -> None:
        """Take no more, answer what was taken, and return."""
        ...


def open_fronts(module: Module, environment: Mapping[str, str]) -> list[Front]:
    """Start what the environment asks for; raise :class:`~.settings.NotServable`."""
    return []
