"""What Microsoft's client raises, as errors of mlpack's own: one clear line without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from mlpack.azure.connection import NoAzure
from mlpack.errors import MlpackError

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
PATIENCE_SECONDS = 300.0
"""How long one request is put off in all, where the hub has too many of them or is down."""

MOST_LOST = 3
"""Times a request may get no answer at all."""

_SECRET = re.compile(
    r"(sig=|SharedAccessKey=|SharedAccessSignature |Bearer )[^\s;&,'\"]+", re.IGNORECASE
)
_CODE = re.compile(r"ErrorCode:\s*([A-Za-z]+)")
_TRACKING = re.compile(r"\s*(Tracking ID|TrackingId):.*", re.IGNORECASE | re.DOTALL)
_DOWN = frozenset({500, 502, 503, 504})
MAX_MESSAGE = 300


class HubError(MlpackError):
    """A hub that did not do what it was asked."""


class HubUnreachable(HubError):
    """A hub that does not answer, or whose certificate nobody vouches for."""

    passing = False
    """Whether the same request may reach it a moment later."""


class HubDenied(HubError):
    """A key, token or role the hub does not accept."""


class Conflict(HubError):
    """A change that another operator's came before: what is there is not what was seen."""

    hint = "look at the hub as it is now, and run the command again"


class NotThere(HubError):
    """A configuration or device the hub does not have."""


class Throttled(HubError):
    """A hub that took no more requests for as long as one waits."""

    hint = "others use the hub, too: try again in some minutes, or raise its number of units"


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that is no success."""

    status: int
    code: str
    message: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Repeats what a hub puts off: 429, and where it is safe to, one that is down or not reached.

    ``sleep`` waits the seconds it is given; tests move their clock instead.
    """

    sleep: Callable[[float], None]
    patience: float = PATIENCE_SECONDS

    def call(self, host: str, what: str, action: Callable[[], T], *, safe: bool = True) -> T:
        """The value of ``action``; raise :class:`HubError` with ``what`` it was for.

        ``safe`` says that doing it twice is the same as once: only then is it repeated where
        nobody knows whether the hub did it.
        """
        waited, pause = 0.0, FIRST_PAUSE
        lost = 0
        while True:
            wait = pause
            try:
                with translated(host):
                    return action()
            except _Refused as refused:
                answered = refused.answered
                # At least a second: an answer of 0 would be asked for without end.
                wait = max(answered.retry_after or pause, FIRST_PAUSE)
                if not _passing(answered.status, safe) or waited + wait > self.patience:
                    raise _error(host, what, answered) from None
            except HubUnreachable as error:
                lost += 1
                if not (safe and error.passing) or lost >= MOST_LOST:
                    raise
            self.sleep(wait)
            waited, pause = waited + wait, min(pause * 2, LONGEST_PAUSE)


def _passing(status: int, safe: bool) -> bool:
    """Whether a later try may succeed. 503 says that nothing was done; 500 and 504 do not."""
    return status in (429, 503) or (safe and status in _DOWN)


class _Refused(Exception):
    """An answer other than a success, until it is known what to make of it."""

    def __init__(self, answered: Answered) -> None:
        super().__init__(answered.code)
        self.answered = answered


@contextmanager
def translated(host: str) -> Iterator[None]:
    """Turn what the client raises inside into errors of mlpack's own."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError
    from msrest.exceptions import ClientException, HttpOperationError

    try:
        yield
    except HttpOperationError as error:
        raise _Refused(_answered(error.response)) from None
    except ClientException as error:
        raise _unreachable(host, error) from None
    except ClientAuthenticationError:
        raise HubDenied(
            f"Azure gives this machine no token for {host}",
            hint="log in (az login), or set MLPACK_IOTHUB_CONNECTION_STRING",
        ) from None
    except AzureError as error:
        raise HubUnreachable(f"no token for {host}: {plain(str(error))}") from None
    except ValueError:
        # The client reads every answer as JSON, whatever its status.
        raise HubUnreachable(
            f"what {host} answered is no JSON",
            hint="is there a proxy or a log-in page in between? Else run the command again",
        ) from None
    except OSError as error:
        # requests raises this for a file of authorities that is not there.
        raise NoAzure(f"cannot talk to {host}: {plain(str(error))}") from None


def _unreachable(host: str, error: Exception) -> HubUnreachable:
    inner: object = getattr(error, "inner_exception", None) or error
    kind, text = type(inner).__name__, str(inner)
    if kind == "SSLError":
        return HubUnreachable(
            f"nobody vouches for the certificate of {host}",
            hint="for a hub of your own name its authority: MLPACK_AZURE_CA=FILE; behind a proxy "
            "that decrypts, the proxy's",
        )
    if "Timeout" in kind or "timed out" in text:
        found = HubUnreachable(f"{host} does not answer in time", hint="try again")
    elif "NameResolution" in text or "getaddrinfo" in text:
        found = HubUnreachable(
            f"there is no host {host}", hint="look at [deploy] hub of mlpack.toml"
        )
    else:
        found = HubUnreachable(
            f"{host} cannot be reached", hint="look at the network and the host name"
        )
    found.passing = True
    return found


def _answered(response: object) -> Answered:
    headers = getattr(response, "headers", {})
    text = str(getattr(response, "text", ""))
    document: object = None
    with suppress(ValueError):
        document = json.loads(text)
    said = "" if text.lstrip().startswith("<") else text  # a page of some proxy
    if isinstance(document, dict):
        said = str(document.get("Message") or document.get("message") or text)
    code = _CODE.search(said)
    status = getattr(response, "status_code", 0)
    return Answered(
        status=status if isinstance(status, int) else 0,
        code=str(headers.get("iothub-errorcode") or (code[1] if code else "")),
        message=plain(_TRACKING.sub("", _CODE.sub("", said))).lstrip("; "),
        retry_after=_seconds(headers.get("Retry-After")),
    )


def _seconds(value: object) -> float | None:
    """``Retry-After`` where it counts seconds; a date is left to our own pause."""
    return float(value) if isinstance(value, str) and value.strip().isdecimal() else None


def _error(host: str, what: str, answered: Answered) -> HubError:
    said = answered.message or answered.code or f"HTTP {answered.status}"
    code = f" ({answered.code})" if answered.code and answered.message else ""
    line = f"{host} did not {what}: {said}{code}"
    match answered.status:
        case 401 | 403:
            return HubDenied(
                line,
                hint="the policy needs registry write and service connect (iothubowner has both), "
                "a login the role IoT Hub Data Contributor",
            )
        case 404:
            return NotThere(line)
        case 409 | 412:
            return Conflict(line)
        case 429:
            return Throttled(line)
        case 413 if "Limit" in answered.code:
            return HubError(line, hint="delete deployments that no device needs: mlpack status")
    if answered.status in _DOWN:
        return HubUnreachable(line, hint="run the command again: it goes on where it stopped")
    return HubError(line)


def plain(text: str) -> str:
    """One printable line without secrets."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    line = _SECRET.sub(r"\1…", line)
    return line if len(line) <= MAX_MESSAGE else f"{line[: MAX_MESSAGE - 1]}…"
