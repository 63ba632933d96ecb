"""Reading ``mlpack.toml``: amounts as a user writes them, tables into dataclasses, and lines.

A setting is a field of a dataclass, with a reader, its meaning and its default.
:func:`read_table` reads with them, and ``scripts/settings.py`` writes them to
docs/reference/settings.md, so that no setting is read and not documented, or documented and
not read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from decimal import Decimal
from math import isfinite
from typing import Any, TypedDict, TypeVar, Unpack, dataclass_transform

from mlpack.errors import UsageError
from mlpack.humanize import nearest
from mlpack.oci.descriptor import MAX_INTEGER, InvalidContent, Node

FILE = "mlpack.toml"
BUCKETS = 10_000
"""A share of a device group is a whole number of these."""

MAX_DEPTH = 100
"""Levels of a table that becomes JSON."""

_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)\s*%")
_SPEED = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*([kKMG]?)(bit|B)/s")
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*([kKMG]?)(i?)B")
_TIME = re.compile(r"([0-9]{1,9})\s*(s|m|min|h|d)")
_SCALE = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3}
_ENDS = ("]", "}", '"""', "'''")
"""What the last line of a statement of several lines has."""

_MAX_LOCATED = 256 * 1024
_MAX_READ = 4 * _MAX_LOCATED
"""Characters read to find lines: a statement of many lines may be tried after each of them."""

_MAX_NESTED = 8
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class InvalidAmount(UsageError):
    """A text that is not a share, size, speed or time."""


def parse_share(text: str) -> Decimal:
    """A share of 0 to 1 from a percentage of at most two decimals.

    >>> parse_share("2%"), parse_share("0.5 %"), parse_share("100%")
    (Decimal('0.02'), Decimal('0.005'), Decimal('1'))
    """
    found = _SHARE.fullmatch(text.strip())
    if found is None or Decimal(found[1]) > 100:
        raise InvalidAmount(f"{text!r} is not a share", hint="write it as 2%, at most 100%")
    return (Decimal(found[1]) / 100).normalize() + 0


def parse_stages(text: str) -> tuple[Decimal, ...]:
    """The shares of the stages of a rollout, rising to all: ``1%,10%,50%,100%``."""
    found = tuple(parse_share(each) for each in text.split(","))
    hint = "write them as 1%,10%,50%,100%"
    if list(found) != sorted(set(found)):
        raise InvalidAmount(f"the stages {text!r} do not rise", hint=hint)
    if found[0] <= 0:
        raise InvalidAmount(f"the first of the stages {text!r} holds no device", hint=hint)
    if found[-1] != 1:
        raise InvalidAmount(f"the stages {text!r} do not end with 100%", hint=hint)
    return found


def share_text(share: Decimal) -> str:
    """A share as a percentage.

    >>> [share_text(Decimal(x)) for x in ("0.02", "1", "0.005")]
    ['2%', '100%', '0.5%']
    """
    return f"{(share * 100).normalize():f}%"


def stages_text(stages: tuple[Decimal, ...]) -> str:
    """The stages as :func:`parse_stages` reads them."""
    return ",".join(share_text(each) for each in stages)


def parse_speed(text: str) -> int:
    """Bytes per second.

    >>> parse_speed("64 kbit/s"), parse_speed("2MB/s")
    (8000, 2000000)
    """
    found = _SPEED.fullmatch(text.strip())
    speed = Decimal(found[1]) * _SCALE[found[2]] / (8 if found[3] == "bit" else 1) if found else 0
    if speed < 1:
        raise InvalidAmount(f"{text!r} is not a speed", hint='write it as "64 kbit/s" or "2 MB/s"')
    return int(speed)


def parse_size(text: str) -> int:
    """Bytes; ``MB`` is a million, ``MiB`` 1024 times 1024.

    >>> parse_size("512 MB"), parse_size("1.5GiB")
    (512000000, 1610612736)
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise InvalidAmount(f"{text!r} is not a size", hint='write it as "512 MB" or "1 GiB"')
    power = "kMG".index(found[2].replace("K", "k")) + 1 if found[2] else 0
    return int(Decimal(found[1]) * (1024 if found[3] else 1000) ** power)


def parse_time(text: str) -> int:
    """Seconds.

    >>> parse_time("90s"), parse_time("30m"), parse_time("2h")
    (90, 1800, 7200)
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise InvalidAmount(f"{text!r} is not a time", hint="write it as 90s, 30m, 2h or 1d")
    return int(found[1]) * _SECONDS[found[2]]


def time_text(seconds: float) -> str:
    """A time, in the largest unit that gives it at least 1.5 of them.

    >>> [time_text(x) for x in (0.4, 45, 600, 7300, 200_000)]
    ['under 1 s', '45 s', '10 min', '2.0 h', '2.3 days']
    """
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"


T = TypeVar("T")
Read = Callable[[Node], Any]
"""Reads the value of a setting; raises :class:`InvalidContent`."""

_METADATA = "setting"


class Described(TypedDict, total=False):
    """What else the documentation says of a setting."""

    shown: str
    """The default in Markdown; empty: the field's own default, as TOML."""

    key: str
    """The key in ``mlpack.toml``; empty: the field's name."""

    variable: str
    """The environment variable that overrides it, without ``MLPACK_``; empty for none."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a setting is read, and what the documentation says of it (:class:`Described`)."""

    read: Read
    meaning: str
    shown: str = ""
    key: str = ""
    variable: str = ""


def setting(
    read: Read,
    meaning: str,
    *,
    default: object = MISSING,
    factory: object = MISSING,
    **described: Unpack[Described],
) -> Any:  # noqa: ANN401  # as dataclasses.field
    """Return a field that is a setting; it is required without ``default`` and ``factory``."""
    metadata = {_METADATA: Setting(read, meaning, **described)}
    return field(default=default, default_factory=factory, metadata=metadata)  # type: ignore[call-overload]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
def settings_table(kind: type[T]) -> type[T]:
    """Make a class of settings a frozen dataclass with keyword arguments."""
    return dataclass(frozen=True, slots=True, kw_only=True)(kind)


def settings_of(kind: type) -> Iterator[tuple[str, Field[Any], Setting]]:
    """Yield the settings of a table: key, field and description."""
    for each in fields(kind):
        if found := each.metadata.get(_METADATA):
            yield found.key or each.name, each, found


def read_table(node: Node, kind: type[T], **others: object) -> T:
    """Read a table into ``kind``; ``others`` are fields that are not settings.

    Raises :class:`InvalidContent` for an unknown key, a missing one or a wrong value.
    """
    known = {key: (each, found) for key, each, found in settings_of(kind)}
    require_known(node, known)
    values = dict(others)
    for key, (each, found) in known.items():
        value = node.get(key)
        if value is not None:
            values[each.name] = found.read(value)
        elif each.default is MISSING and each.default_factory is MISSING:
            node.need(key)
    return kind(**values)


def require_known(node: Node, keys: Mapping[str, object]) -> None:
    """Refuse a key that is not one of ``keys``."""
    for key in node.mapping():
        if key not in keys:
            raise InvalidContent(f"{node.where}.{key}", f"is not a setting{nearest(key, keys)}")


def table(kind: type) -> Read:
    """Read a table of settings."""
    return lambda node: read_table(node, kind)


def tables(read: Read) -> Read:
    """Read a table of any names, each value with ``read``."""
    return lambda node: {name: read(each) for name, each in node.items()}


def listed(read: Read) -> Read:
    """Read an array, each element with ``read``."""
    return lambda node: tuple(read(each) for each in node.elements())


def text(node: Node) -> str:
    """Read a text."""
    return node.text()


def texts(node: Node) -> Mapping[str, str]:
    """Read a table of texts."""
    return node.text_map()


def filled(node: Node) -> str:
    """Read a text that is not empty."""
    if not node.text().strip():
        raise InvalidContent(node.where, "is empty", hint="leave it out, or write a value")
    return node.text()


def flag(node: Node) -> bool:
    """Read true or false."""
    if not isinstance(node.value, bool):
        raise InvalidContent(node.where, "is neither true nor false")
    return node.value


def integer(minimum: int = 0, maximum: int = MAX_INTEGER) -> Read:
    """Read a whole number in a range."""
    return lambda node: node.integer(minimum=minimum, maximum=maximum)


def choice(*allowed: str, hint: str = "") -> Read:
    """Read one of ``allowed``."""

    def read(node: Node) -> str:
        found = node.text()
        if found not in allowed:
            close = nearest(found, allowed)
            what = f"is {found!r}, not {' or '.join(allowed)}{close}"
            raise InvalidContent(node.where, what, hint=hint)
        return found

    return read


def matching(pattern: str, what: str, hint: str, *, show: bool = True) -> Read:
    """Read a text of a form, ``what`` by name; do not ``show`` what may be a secret."""
    compiled = re.compile(pattern)

    def read(node: Node) -> str:
        if not compiled.fullmatch(node.text()):
            problem = f"{node.value!r} is not {what}" if show else f"is not {what}"
            raise InvalidContent(node.where, problem, hint=hint)
        return node.text()

    return read


def optional(read: Read) -> Read:
    """Read as ``read`` does, but an empty text as it is."""
    return lambda node: "" if node.value == "" else read(node)


def parsed(parse: Callable[[str], T]) -> Callable[[Node], T]:
    """Read a text with ``parse``; if it refuses, the message names the setting too."""

    def read(node: Node) -> T:
        try:
            return parse(node.text())
        except UsageError as error:
            raise InvalidContent(node.where, str(error), hint=error.hint) from error

    return read


def json_table(node: Node) -> Mapping[str, object]:
    """Read a table that can be written as JSON, which has no dates and no infinity."""
    _require_json(node, MAX_DEPTH)
    return node.mapping()


def _require_json(node: Node, depth: int) -> None:
    if not depth:
        raise InvalidContent(node.where, f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(node.value, dict):
        for _, each in node.items():
            _require_json(each, depth - 1)
    elif isinstance(node.value, list):
        for each in node.elements():
            _require_json(each, depth - 1)
    elif not isinstance(node.value, str | int | float) or not finite(node.value):
        raise InvalidContent(node.where, "cannot be written as JSON", hint="write it as a text")


def finite(value: object) -> bool:
    """Whether a value is not a number beyond all others, or no number at all."""
    return not isinstance(value, float) or isfinite(value)


def located(error: InvalidContent, text: str) -> str:
    """Return the message with the line of the setting, or of the table that should have it."""
    lines = setting_lines(text) if len(text) <= _MAX_LOCATED else {}
    where, setting = error.where, error.where.removeprefix(f"{FILE}.")
    while where and where not in lines:
        where = where[: max(where.rfind("."), where.rfind("["), 0)]
    if not where or setting == FILE:
        return str(error)
    return f"{FILE} line {lines[where]}: {setting}: {error.problem}"


def setting_lines(text: str) -> Mapping[str, int]:
    """Return the line on which each setting and table begins, by the path that messages name.

    tomllib tells no positions, so the statements are read one by one, each below the header
    of its table.

    >>> setting_lines("[fleet]\\ndevices = 5\\n")
    {'mlpack.toml.fleet': 1, 'mlpack.toml.fleet.devices': 2}
    """
    found: dict[str, int] = {}
    header = statement = ""
    first, read = 1, 0
    for number, line in enumerate(text.split("\n"), 1):
        statement += f"{line}\n"
        if number != first and not any(end in line for end in _ENDS):
            continue
        read += len(header) + len(statement)
        if read > _MAX_READ:
            break
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # the statement goes on in the next line
        if statement.lstrip().startswith("["):
            header = statement
        for path in _paths(tomllib.loads(statement if statement == header else header + statement)):
            found.setdefault(path, first)
        statement, first = "", number + 1
    return found


def _paths(
    document: Mapping[str, Any], above: str = FILE, depth: int = _MAX_NESTED
) -> Iterator[str]:
    for key, value in document.items():
        yield f"{above}.{key}"
        if isinstance(value, dict) and depth:
            yield from _paths(value, f"{above}.{key}", depth - 1)
