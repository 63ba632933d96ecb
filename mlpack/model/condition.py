"""Target conditions: which devices a group is, in the language of IoT Hub.

``tags.deviceGroup = 'vans' AND NOT properties.reported.engine = 'podman'``: tags, reported
properties and ``deviceId``; comparisons, ``IN [...]``, ``is_defined(...)``; ``AND``, ``OR``,
``NOT`` and parentheses. The hub takes any text and targets no device where it does not
understand it, so a condition is read here first, and a mistake has its column.

Sources: Microsoft Learn, "Understand IoT Edge automatic deployments" (target condition) and
"IoT Hub query language".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mlpack.errors import MlpackError
from mlpack.model.amounts import BUCKETS
from mlpack.model.condition_text import Token, tokens
from mlpack.model.expression import (
    Both,
    Compared,
    Defined,
    Either,
    Expression,
    Not,
    OneOf,
    Path,
    Value,
)

BUCKET_TAG = "tags.mlpack.bucket"
"""The twin tag that says in which stage of a rollout a device comes."""

MAX_DEPTH = 50


class InvalidCondition(MlpackError, ValueError):
    """A target condition the hub would not understand; the message names the column."""

    hint = "for example: tags.deviceGroup = 'vans' AND tags.region IN ['north', 'west']"


@dataclass(frozen=True)
class Condition:
    """A target condition: its text as written, and what it means."""

    text: str
    expression: Expression = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read ``text``; raise :class:`InvalidCondition` with the column of what is wrong.

        >>> Condition.parse("tags.deviceGroup = 'vans'").narrowed(100)
        "tags.deviceGroup = 'vans' AND tags.mlpack.bucket < 100"
        """
        return cls(text.strip(), _Parser(text).whole())

    def holds(self, twin: Mapping[str, object]) -> bool:
        """Whether the device of this twin (``deviceId``, ``tags``, ``properties``) is meant.

        A comparison with what the device lacks is undefined, and so is its ``NOT``; where the
        whole is undefined the device is not meant.
        """
        return self.expression.test(twin) is True

    def narrowed(self, bucket: int) -> str:
        """The text for those of these devices whose bucket is below ``bucket``.

        From all buckets up it is the condition itself, so that a device without one is meant too.
        """
        return self.text if bucket >= BUCKETS else self.also(f"{BUCKET_TAG} < {bucket}")

    def also(self, more: str) -> str:
        """The text of this condition and ``more``, with parentheses only where they are needed."""
        return f"{self.operand} AND {more}"

    @cached_property
    def operand(self) -> str:
        """The text as one side of an ``AND``."""
        return f"({self.text})" if isinstance(self.expression, Either) else self.text


_OPERATORS = frozenset({"=", "!=", "<>", "<", ">", "<=", ">="})
_WORDS = frozenset({"AND", "OR", "NOT", "IN", "NIN", "IS_DEFINED", "TRUE", "FALSE"})


class _Parser:
    """Recursive descent; OR binds least, then AND, then NOT."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text, self._problem)
        self._next = 0
        self._depth = 0

    def whole(self) -> Expression:
        if self._peek().kind == "end":
            raise InvalidCondition("the target condition is empty")
        found = self._either()
        self._end()
        return found

    def _end(self) -> None:
        token = self._peek()
        if token.kind != "end":
            raise self._problem(token.column, f"expected AND, OR or the end, not {token.shown}")

    def _either(self) -> Expression:
        found = self._both()
        while self._word("OR"):
            found = Either(found, self._both())
        return found

    def _both(self) -> Expression:
        found = self._negated()
        while self._word("AND"):
            found = Both(found, self._negated())
        return found

    def _negated(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._problem(self._peek().column, f"nested deeper than {MAX_DEPTH} levels")
        found = Not(self._negated()) if self._word("NOT") else self._single()
        self._depth -= 1
        return found

    def _single(self) -> Expression:
        if self._sign("("):
            found = self._either()
            self._need(")")
            return found
        if self._word("IS_DEFINED"):
            self._need("(")
            defined = Defined(self._path())
            self._need(")")
            return defined
        return self._comparison()

    def _comparison(self) -> Expression:
        path = self._path()
        for word in ("IN", "NIN"):
            if self._word(word):
                return OneOf(path, self._values(), negated=word == "NIN")
        token = self._take()
        if token.kind != "sign" or token.text not in _OPERATORS:
            hint = " (write = once)" if token.text == "==" else ""
            raise self._problem(
                token.column, f"expected a comparison after a property, not {token.shown}{hint}"
            )
        return Compared(path, token.text, self._value())

    def _path(self) -> Path:
        token = self._take()
        if token.kind != "path" or token.text.upper() in _WORDS:
            raise self._problem(
                token.column,
                f"expected a property (tags.NAME), not {token.shown}",
            )
        parts = token.parts
        known = (
            parts == ("deviceId",)
            or (parts[0] == "tags" and len(parts) > 1)
            or (parts[:2] == ("properties", "reported") and len(parts) > 2)
        )
        if not known:
            raise self._problem(
                token.column,
                f"{token.text} is not tags.NAME, properties.reported.NAME or deviceId",
            )
        if parts[:2] == ("tags", "mlpack"):
            raise self._problem(token.column, f"{token.text} is mlpack's own, for its stages")
        return Path(parts)

    def _values(self) -> tuple[Value, ...]:
        self._need("[")
        found = [self._value()]
        while self._sign(","):
            found.append(self._value())
        self._need("]")
        return tuple(found)

    def _value(self) -> Value:
        token = self._take()
        if token.kind == "text":
            return token.value
        if token.kind == "number":
            return float(token.text) if set(token.text) & set(".eE") else int(token.text)
        if token.text.upper() in {"TRUE", "FALSE"}:
            return token.text.upper() == "TRUE"
        quoted = f" (quote a text: '{token.text}')" if token.kind == "path" else ""
        raise self._problem(token.column, f"expected a value, not {token.shown}{quoted}")

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._peek()
        if token.kind != "end":
            self._next += 1
        return token

    def _word(self, word: str) -> bool:
        token = self._peek()
        found = token.kind == "path" and token.text.upper() == word
        self._next += found
        return found

    def _sign(self, sign: str) -> bool:
        token = self._peek()
        found = token.kind == "sign" and token.text == sign
        self._next += found
        return found

    def _need(self, sign: str) -> None:
        if not self._sign(sign):
            token = self._peek()
            raise self._problem(token.column, f"expected {sign} and not {token.shown}")

    def _problem(self, column: int, what: str) -> InvalidCondition:
        return InvalidCondition(f"target condition, column {column}: {what}")
