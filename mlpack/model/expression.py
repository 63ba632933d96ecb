"""What a target condition means: a tree of tests of a device's twin.

As in the hub's own language a test is so, not so, or undefined (``None``): a comparison with
a property that the device lacks is undefined, and so is its ``NOT``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Path:
    """A property of a device: ``tags.deviceGroup``."""

    parts: tuple[str, ...]

    def of(self, twin: Mapping[str, object]) -> object:
        """What ``twin`` has there; ``None`` where it has nothing."""
        found: object = twin
        for part in self.parts:
            if not isinstance(found, Mapping):
                return None
            found = found.get(part)
        return found


@dataclass(frozen=True, slots=True)
class Compared:
    """``path operator value``."""

    path: Path
    operator: str
    value: Value

    def test(self, twin: Mapping[str, object]) -> bool | None:
        """Whether it is so; undefined where the device lacks the property."""
        found = self.path.of(twin)
        if found is None:
            return None
        if not _same_kind(found, self.value):
            return {"=": False, "!=": True, "<>": True}.get(self.operator)
        return _compare(found, self.operator, self.value)


@dataclass(frozen=True, slots=True)
class OneOf:
    """``path IN [values]``; ``path NIN [values]`` where ``negated``."""

    path: Path
    values: tuple[Value, ...]
    negated: bool = False

    def test(self, twin: Mapping[str, object]) -> bool | None:
        """Whether it is so; a device without the property is neither in nor out."""
        found = self.path.of(twin)
        if found is None:
            return None
        among = any(_same_kind(found, each) and found == each for each in self.values)
        return among != self.negated


@dataclass(frozen=True, slots=True)
class Defined:
    """``is_defined(path)``."""

    path: Path

    def test(self, twin: Mapping[str, object]) -> bool | None:
        """Whether the device has the property."""
        return self.path.of(twin) is not None


@dataclass(frozen=True, slots=True)
class Not:
    """``NOT expression``."""

    inner: Expression

    def test(self, twin: Mapping[str, object]) -> bool | None:
        """Whether ``inner`` is not so; undefined where that is."""
        found = self.inner.test(twin)
        return None if found is None else not found


@dataclass(frozen=True, slots=True)
class Both:
    """``left AND right``."""

    left: Expression
    right: Expression

    def test(self, twin: Mapping[str, object]) -> bool | None:
        """Whether both are so; one that is not decides, whatever the other is."""
        found = {self.left.test(twin), self.right.test(twin)}
        return False if False in found else None if None in found else True


@dataclass(frozen=True, slots=True)
class Either:
    """``left OR right``."""

    left: Expression
    right: Expression

    def test(self, twin: Mapping[str, object]) -> bool | None:
        """Whether one is so; one that is decides, whatever the other is."""
        found = {self.left.test(twin), self.right.test(twin)}
        return True if True in found else None if None in found else False


Expression = Compared | OneOf | Defined | Not | Both | Either


def _same_kind(found: object, value: Value) -> bool:
    """Whether two values can be compared: a text with a text, a number with a number."""
    if isinstance(found, bool) or isinstance(value, bool):
        return isinstance(found, bool) and isinstance(value, bool)
    if isinstance(value, str):
        return isinstance(found, str)
    return isinstance(found, int | float)


def _compare(found: object, operator: str, value: Value) -> bool:
    if operator == "=":
        return found == value
    if operator in {"!=", "<>"}:
        return found != value
    less, equal = found < value, found == value  # type: ignore[operator]  # one kind, see above
    return {"<": less, "<=": less or equal, ">": not less and not equal, ">=": not less}[operator]
