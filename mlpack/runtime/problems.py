"""What can go wrong with one request, and the HTTP status that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class Problem(Exception):
    """A request that gets no result; the message is for whoever sent it.

    ``field`` names the part of the request that is to blame, where there is one.
    """

    status: ClassVar[int] = 500

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer carries beside its body."""
        return {}

    def to_json(self) -> dict[str, str]:
        """The body of the answer."""
        found = {"message": self.message}
        return found if self.field is None else {**found, "field": self.field}


class BadRequest(Problem):
    """The request makes no sense."""

    status = 400


class Unacceptable(Problem):
    """The answer cannot be given in a type that the request accepts."""

    status = 406


class Slow(Problem):
    """The request did not arrive in time."""

    status = 408


class TooLarge(Problem):
    """The request, or the picture in it, is larger than allowed."""

    status = 413


class Unsupported(Problem):
    """The request is of a content type that this module does not take."""

    status = 415


class LongHeader(Problem):
    """A header is longer than Azure ML takes."""

    status = 431


class Failed(Problem):
    """Scoring failed; the log of the module says why."""

    status = 500

    @property
    def headers(self) -> Mapping[str, str]:
        """Azure ML's mark for the failure of a script, not of the server."""
        return {"x-ms-run-function-failed": "True"}


class Busy(Problem):
    """The queue is full, or the module is about to stop; try again later."""

    status = 503

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        """When to try again, in seconds."""
        return {"retry-after": str(self.retry_after)}


class Late(Problem):
    """Scoring took longer than allowed."""

    status = 504
