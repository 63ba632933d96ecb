"""What IoT Hub checks of a request before it does anything, and how it says no.

Error codes are those of the service's own list (``DeviceRegistryOperationError`` of
``azure-iot-hub``), where a code's number begins with the status it is answered with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from tests.doubles.authority import Answer, Request, as_json
from tests.doubles.iothub_query import BadQuery, parse_condition, parse_query

ID = re.compile(r"[a-z0-9\-:+%_#*?!(),=@;$']{1,128}")
_STATUS = {
    "ArgumentInvalid": 400,
    "InvalidProtocolVersion": 400,
    "InvalidConfigurationTargetCondition": 400,
    "InvalidConfigurationContent": 400,
    "CannotModifyImmutableConfigurationContent": 400,
    "InvalidConfigurationCustomMetricsQuery": 400,
    "IotHubUnauthorizedAccess": 401,
    "ConfigurationNotFound": 404,
    "DeviceNotFound": 404,
    "ModuleNotFound": 404,
    "GenericNotFound": 404,
    "ConfigurationAlreadyExists": 409,
    "PreconditionFailed": 412,
    "ConfigurationCountLimitExceeded": 413,
    "ThrottlingException": 429,
}


class Refused(Exception):
    """A request the service does not do."""

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.headers = code, dict(headers or {})

    @property
    def answer(self) -> Answer:
        """It on the wire."""
        body = {
            "Message": f"ErrorCode:{self.code};{self}",
            "ExceptionMessage": "Tracking ID:0f5e8a-G:0-TimeStamp:11/20/2026 08:00:00",
        }
        return as_json(_STATUS[self.code], body, {"iothub-errorcode": self.code, **self.headers})


def document_of(asked: Request) -> dict[str, object]:
    """The body, a JSON object; raise :class:`Refused`."""
    if not asked.headers.get("content-type", "").startswith("application/json"):
        raise Refused("ArgumentInvalid", "no JSON")
    try:
        found = asked.json()
    except ValueError:
        raise Refused("ArgumentInvalid", "no JSON") from None
    if not isinstance(found, dict):
        raise Refused("ArgumentInvalid", "no object")
    return found


def check_configuration(document: Mapping[str, object]) -> None:
    """Whether a configuration is one; raise :class:`Refused`."""
    labels, priority = document.get("labels") or {}, document.get("priority", 0)
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise Refused("ArgumentInvalid", "labels are not texts")
    if type(priority) is not int or not 0 <= priority < 2**31:
        raise Refused("ArgumentInvalid", f"priority {priority!r}")
    condition = str(document.get("targetCondition") or "")
    if condition and (said := problem(parse_condition, condition)):
        raise Refused("InvalidConfigurationTargetCondition", said)
    metrics = document.get("metrics") or {}
    queries = metrics.get("queries") or {} if isinstance(metrics, dict) else {}
    for name, text in queries.items():
        if said := problem(parse_query, str(text)):
            raise Refused("InvalidConfigurationCustomMetricsQuery", f"{name}: {said}")
    _check_modules(document.get("content"))


def problem(parse: Callable[[str], object], text: str) -> str:
    """What is wrong with a query or condition; empty where nothing is."""
    try:
        parse(text)
    except BadQuery as error:
        return str(error)
    return ""


def _check_modules(content: object) -> None:
    """Each module has its desired properties whole, or parts of them by path; never both."""
    if not isinstance(content, dict) or not (set(content) & {"modulesContent", "deviceContent"}):
        raise Refused("InvalidConfigurationContent", "neither modulesContent nor deviceContent")
    modules = content.get("modulesContent") or {}
    for module, parts in modules.items():
        if parts == {} and not module.startswith("$"):
            continue  # as the portal writes a module without desired properties
        whole = isinstance(parts, dict) and "properties.desired" in parts
        paths = isinstance(parts, dict) and all(
            key.startswith("properties.desired.") for key in parts
        )
        if not parts or not (paths or (whole and len(parts) == 1)):
            raise Refused("InvalidConfigurationContent", f"modulesContent of {module}")
        if whole and module == "$edgeAgent":
            lacking = {"schemaVersion", "runtime", "systemModules"} - set(parts[next(iter(parts))])
            if lacking:
                raise Refused("InvalidConfigurationContent", f"$edgeAgent lacks {sorted(lacking)}")
    if modules and "$edgeAgent" not in modules:
        raise Refused("InvalidConfigurationContent", "no $edgeAgent")


def check_content(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Whether the content stayed what it was; raise :class:`Refused`."""
    if _plain(before.get("content")) != _plain(after.get("content")):
        raise Refused("CannotModifyImmutableConfigurationContent", "content cannot be changed")


def _plain(content: object) -> str:
    """Content as it can be compared: what is empty is as if it were not there."""
    found = content if isinstance(content, dict) else {}
    return json.dumps({key: value for key, value in found.items() if value}, sort_keys=True)
