"""Reaching an IoT hub: its host, who calls, and Microsoft's client made ready.

A connection string or key never leaves this module: no message, ``repr`` or log holds one.
"""

from __future__ import annotations

import base64
import binascii
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError

if TYPE_CHECKING:
    from azure.identity import DefaultAzureCredential
    from azure.iot.hub.protocol.iot_hub_gateway_service_ap_is import IotHubGatewayServiceAPIs

TIMEOUT_SECONDS = 60
"""For one answer of the hub."""

CLIENT = "azure-iot-hub==2.7.0"
_PARTS = ("HostName", "SharedAccessKeyName", "SharedAccessKey")


class NoAzure(MlpackError):
    """A machine that lacks Microsoft's client."""


class BadConnection(UsageError):
    """A connection string that is none; the message never repeats it."""

    hint = (
        "it is shown by: az iot hub connection-string show --hub-name NAME (a policy of the hub, "
        "not a device), and reads HostName=…;SharedAccessKeyName=…;SharedAccessKey=…"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Which hub, and as whom."""

    host: str
    """``NAME.azure-devices.net``; with a port where a test has a hub of its own."""

    secret: str = field(default="", repr=False)
    """The connection string; empty where ``DefaultAzureCredential`` signs in."""

    ca: str = ""
    """PEM file of the authority the hub's certificate is of; empty for the public ones."""

    @classmethod
    def of(cls, string: str, *, host: str = "", ca: str = "") -> Connection:
        """Read a connection string; where it is empty, sign in to ``host`` with Azure's own login.

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
    """Microsoft's client for the hub's service API, which then never repeats a request by itself.

    Repeating is :class:`mlpack.azure.iothub.Hub`'s. Raises :class:`NoAzure`.
    """
    with _without_amqp():
        try:
            from azure.iot.hub import IoTHubConfigurationManager
        except ImportError as error:
            raise NoAzure(
                f"Azure's client for IoT Hub is not installed ({error.name or error})",
                hint="pip install 'mlpack-edge[azure]'; on arm64 also: "
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
    # A Twin of msrest's for each item takes four times as long as all else, and nobody reads it.
    protocol.query._deserialize = lambda *_: None
    return protocol


def login() -> DefaultAzureCredential:
    """Azure's own login; raise :class:`NoAzure` where it is not installed.

    Its log repeats on a dozen lines what it then raises, and is left out.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise NoAzure(
            "Azure's login is not installed", hint="pip install 'mlpack-edge[azure]'"
        ) from error
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    return DefaultAzureCredential(exclude_interactive_browser_credential=True)


@contextmanager
def _without_amqp() -> Iterator[None]:
    """Stand in for ``uamqp`` during the import of the client.

    The client imports it only for messages to devices, which mlpack sends none of; it has no
    wheels for arm64, and costs 100 ms elsewhere.
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
