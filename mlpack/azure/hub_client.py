"""Microsoft's client for an IoT hub: its address and credentials, its errors, its retries.

A connection string or key never leaves this module: no message, ``repr`` or log contains one.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from mlpack.azure.management import NoAzure, login, plain
from mlpack.errors import MlpackError, UsageError
from mlpack.installation import install_command

if TYPE_CHECKING:
    from azure.iot.hub.protocol.iot_hub_gateway_service_ap_is import IotHubGatewayServiceAPIs

T = TypeVar("T")

TIMEOUT_SECONDS = 60
"""For one response of the hub."""

CLIENT = "azure-iot-hub==2.7.0"
_PARTS = ("HostName", "SharedAccessKeyName", "SharedAccessKey")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
PATIENCE_SECONDS = 300.0
"""How long to retry one request while the hub throttles it or is down."""

MOST_LOST = 3
"""How often a request may get no response at all."""

_CODE = re.compile(r"ErrorCode:\s*([A-Za-z]+)")
_TRACKING = re.compile(r"\s*(Tracking ID|TrackingId):.*", re.IGNORECASE | re.DOTALL)
_DOWN = frozenset({500, 502, 503, 504})


class BadConnection(UsageError):
    """An invalid connection string; the message never repeats it."""

    hint = (
        "print it with: az iot hub connection-string show --hub-name NAME (of a hub policy, not a "
        "device); its form is HostName=…;SharedAccessKeyName=…;SharedAccessKey=…"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A hub's address, and how to sign in."""

    host: str
    """``NAME.azure-devices.net``; a test's hub has a port, too."""

    secret: str = field(default="", repr=False)
    """The connection string; empty if ``DefaultAzureCredential`` signs in."""

    ca: str = ""
    """PEM file of the authority of the hub's certificate; empty for the public ones."""

    @classmethod
    def of(cls, string: str, *, host: str = "", ca: str = "") -> Connection:
        """Read a connection string; an empty one signs in to ``host`` with Azure's own login.

        Raises :class:`BadConnection`.
        """
        if not string:
            return cls(host=host, ca=ca)
        parts = dict(_parts(string))
        missing = [name for name in _PARTS if not parts.get(name)]
        if "DeviceId" in parts:
            raise BadConnection("the connection string is a device's, not the hub's")
        if missing:
            raise BadConnection(f"the connection string of the hub lacks {', '.join(missing)}")
        try:
            base64.b64decode(parts["SharedAccessKey"], validate=True)
        except (ValueError, binascii.Error):
            raise BadConnection("the key in the hub's connection string is cut off") from None
        kept = ";".join(f"{name}={parts[name]}" for name in _PARTS)
        return cls(host=parts["HostName"], secret=kept, ca=ca)


def _parts(string: str) -> Iterator[tuple[str, str]]:
    for part in string.strip().strip("\"'").split(";"):
        name, equals, value = part.partition("=")
        if part and not equals:
            raise BadConnection("the connection string of the hub has a part without =")
        if part:
            yield name.strip(), value.strip()


def service(connection: Connection) -> IotHubGatewayServiceAPIs:
    """Create Microsoft's client for the hub's service API, with its own retries turned off.

    :class:`Retry` retries instead. Raises :class:`NoAzure`.
    """
    with _without_amqp():
        try:
            from azure.iot.hub import IoTHubConfigurationManager
        except ImportError as error:
            raise NoAzure(
                f"Azure's client for IoT Hub is not installed ({error.name or error})",
                hint=f"install the extra azure: {install_command('azure')}; on arm64 also: "
                f"pip install --no-deps {CLIENT}",
            ) from error
    if connection.secret:
        client = IoTHubConfigurationManager.from_connection_string(connection.secret)
    else:
        client = IoTHubConfigurationManager.from_token_credential(connection.host, login())
    protocol: IotHubGatewayServiceAPIs = client.protocol
    protocol.config.connection.timeout = TIMEOUT_SECONDS
    if connection.ca:
        protocol.config.connection.verify = connection.ca
    retry = protocol.config.retry_policy
    retry.retries = 0
    retry.policy.status_forcelist = ()
    retry.policy.respect_retry_after_header = False
    # Building a Twin of msrest for each item takes four times as long as all else, and is unused.
    protocol.query._deserialize = lambda *_: None
    return protocol


@contextmanager
def _without_amqp() -> Iterator[None]:
    """Replace ``uamqp`` by an empty module during the import of the client.

    The client needs it only for messages to devices, which mlpack does not send; it has no wheels
    for arm64, and costs 100 ms elsewhere.
    """
    name = "uamqp"
    if sys.modules.get(name):
        yield
        return
    stand_in = ModuleType(name)
    stand_in.TransportType = type(  # type: ignore[attr-defined]
        "TransportType", (), {"Amqp": 1, "AmqpOverWebsocket": 2}
    )
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        sys.modules.pop(name, None)


class HubError(MlpackError):
    """A request that the hub refused or failed."""


class HubUnreachable(HubError):
    """A hub that does not answer, or whose certificate is not trusted."""

    passing = False
    """Whether the same request may succeed a moment later."""


class HubDenied(HubError):
    """A key, token or role that the hub rejects."""


class Conflict(HubError):
    """A change that came after another operator's: the deployment is no longer as it was read."""

    hint = "see what is on the hub now (mlpack status), and run the command again"


class NotThere(HubError):
    """A configuration or device that the hub does not have."""


class Throttled(HubError):
    """A hub that throttled a request for as long as it was retried."""

    hint = "others use the hub, too: try again in a few minutes, or add units to it"


@dataclass(eq=False)  # not frozen: contextlib sets an exception's traceback
class _FailedResponse(Exception):
    """An unsuccessful response, before it is known whether to retry."""

    status: int
    code: str
    message: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Retries throttled requests (429), and safe ones if the hub is down or was not reached."""

    sleep: Callable[[float], None]
    patience: float = PATIENCE_SECONDS

    def call(self, host: str, what: str, action: Callable[[], T], *, safe: bool = True) -> T:
        """Return the value of ``action``; raise :class:`HubError` that names ``what`` it was for.

        A request is ``safe`` if doing it twice equals doing it once: only then is it retried when
        it is unknown whether the hub did it.
        """
        waited, pause, lost = 0.0, FIRST_PAUSE, 0
        while True:
            wait = pause
            try:
                with translated(host):
                    return action()
            except _FailedResponse as answered:
                # At least a second: a Retry-After of 0 would retry without end.
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
    """Whether a retry may succeed: after 503 nothing was done, after 500 and 504 it is unknown."""
    return status in (429, 503) or (safe and status in _DOWN)


@contextmanager
def translated(host: str) -> Iterator[None]:
    """Turn exceptions of Microsoft's client into mlpack's errors."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError
    from msrest.exceptions import ClientException, HttpOperationError

    try:
        yield
    except HttpOperationError as error:
        raise _response(error.response) from None
    except ClientException as error:
        raise _unreachable(host, error) from None
    except ClientAuthenticationError:
        raise HubDenied(
            f"Azure refused this login a token for {host}",
            hint="log in (az login), or set MLPACK_IOTHUB_CONNECTION_STRING",
        ) from None
    except AzureError as error:
        raise HubUnreachable(f"cannot get a token for {host}: {plain(str(error))}") from None
    except ValueError:
        # The client reads every response as JSON, whatever its status.
        raise HubUnreachable(
            f"the response of {host} is not JSON",
            hint="check for a proxy or a login page in between, or run the command again",
        ) from None
    except OSError as error:
        # requests raises this if the file of authorities does not exist.
        raise NoAzure(f"cannot connect to {host}: {plain(str(error))}") from None


def _unreachable(host: str, error: Exception) -> HubUnreachable:
    inner: object = getattr(error, "inner_exception", None) or error
    kind, text = type(inner).__name__, str(inner)
    if kind == "SSLError":
        return HubUnreachable(
            f"the certificate of {host} is not trusted",
            hint="if a proxy on the way decrypts, name its certificate authority: "
            "MLPACK_AZURE_CA=FILE",
        )
    if "Timeout" in kind or "timed out" in text:
        line, hint = f"{host} did not respond in time", "try again"
    elif "NameResolution" in text or "getaddrinfo" in text:
        line, hint = f"the host name {host} is not known (DNS)", "check [deploy] hub in mlpack.toml"
    else:
        line, hint = f"{host} cannot be reached", "check the network and the host name"
    found = HubUnreachable(line, hint=hint)
    found.passing = True
    return found


def _response(response: object) -> _FailedResponse:
    headers = getattr(response, "headers", {})
    text = str(getattr(response, "text", ""))
    document: object = None
    with suppress(ValueError):
        document = json.loads(text)
    said = "" if text.lstrip().startswith("<") else text  # the page of a proxy
    if isinstance(document, dict):
        said = str(document.get("Message") or document.get("message") or text)
    code = _CODE.search(said)
    status = getattr(response, "status_code", 0)
    return _FailedResponse(
        status=status if isinstance(status, int) else 0,
        code=str(headers.get("iothub-errorcode") or (code[1] if code else "")),
        message=plain(_TRACKING.sub("", _CODE.sub("", said))).lstrip("; "),
        retry_after=_seconds(headers.get("Retry-After")),
    )


def _seconds(value: object) -> float | None:
    """Read ``Retry-After`` in seconds; for a date the own pause is used."""
    return float(value) if isinstance(value, str) and value.strip().isdecimal() else None


def _error(host: str, what: str, answered: _FailedResponse) -> HubError:
    said = answered.message or answered.code or f"HTTP {answered.status}"
    code = f" ({answered.code})" if answered.code and answered.message else ""
    line = f"{host} did not {what}: {said}{code}"
    match answered.status:
        case 401 | 403:
            return HubDenied(
                line,
                hint="a policy needs registry write and service connect (iothubowner has both), "
                "a login needs the role IoT Hub Data Contributor",
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
        return HubUnreachable(line, hint="run the command again: it continues where it stopped")
    return HubError(line)
