"""Errors of a single request, each with its HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class HttpError(Exception):
    """A request that gets no result; the message is for the client.

    ``field`` names the part of the request at fault, if known.
    """

    status: ClassVar[int] = 500
    headers: Mapping[str, str] = {}
    """Headers of the response."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def to_json(self) -> dict[str, str]:
        """Return the body of the response."""
        found = {"message": self.message}
        return found if self.field is None else {**found, "field": self.field}


class BadRequest(HttpError):
    """The request is invalid."""

    status = 400


class NotAcceptable(HttpError):
    """The result cannot be sent in a type that the request accepts."""

    status = 406


class RequestTimeout(HttpError):
    """The request did not arrive in time."""

    status = 408


class ContentTooLarge(HttpError):
    """The request, or the picture in it, is larger than allowed."""

    status = 413


class UnsupportedMediaType(HttpError):
    """The module does not take the request's content type."""

    status = 415


class HeaderTooLarge(HttpError):
    """A header is longer than Azure ML accepts."""

    status = 431


class ScoringFailed(HttpError):
    """Scoring failed; the module's log has the reason."""

    headers: Mapping[str, str] = {"x-ms-run-function-failed": "True"}
    """Azure ML's header for a failure of the script, not of the server."""


class ServiceUnavailable(HttpError):
    """The queue is full or the module is stopping; retry later."""

    status = 503

    headers: Mapping[str, str] = {"retry-after": "1"}
    """When to retry, in seconds."""


class ScoringTimeout(HttpError):
    """Scoring took longer than allowed."""

    status = 504
