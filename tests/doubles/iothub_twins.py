"""Twins over IoT Hub's REST API: reading one, changing one, changing up to 100 at once."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tests.doubles.authority import Answer, Request, as_json

if TYPE_CHECKING:
    from tests.doubles.iothub import IotHub
    from tests.doubles.iothub_devices import Device

MOST = 100
MOST_TAG_BYTES = 8192
_MODES = frozenset({"updateTwin", "updateTwinIfMatchETag"})


class Twins:
    """The part of the API that is about twins."""

    def __init__(self, hub: IotHub) -> None:
        self.hub = hub
        self.bulk_merges = False
        """Whether bulk updates merge tags as PATCH does.

        The documentation has it both ways ("existing information is overwritten", "update the
        mutable fields"): the double overwrites, which is what a client must survive.
        """

    def get(self, asked: Request, id: str, module: str = "") -> Answer:
        """A device's twin, or that of one of IoT Edge's own modules."""
        device = self._find(id)
        if device is None:
            return _refused(404, "DeviceNotFound", id)
        found = {"": device.twin, "$edgeAgent": device.agent, "$edgeHub": device.edge_hub}
        if module not in found:
            return _refused(404, "ModuleNotFound", f"{id}/{module}")
        twin = found[module]
        return as_json(200, twin, {"ETag": f'"{twin["etag"]}"'})

    def patch(self, asked: Request, id: str) -> Answer:
        """Merge into a device's tags."""
        device = self._find(id)
        if device is None:
            return _refused(404, "DeviceNotFound", id)
        match = asked.headers.get("if-match", "")
        if match.startswith('"') and match not in ('"*"', f'"{device.twin["etag"]}"'):
            return _refused(412, "PreconditionFailed", f"the twin of {id} was changed since")
        document = _object(asked)
        if document is None:
            return _refused(400, "ArgumentInvalid", "no JSON object")
        error = self._write(device, document.get("tags"), merge=True)
        return _refused(400, *error) if error else as_json(200, device.twin)

    def bulk(self, asked: Request) -> Answer:
        """Change twins of several devices; each that cannot be is named, the others are done."""
        try:
            listed = asked.json()
        except ValueError:
            listed = None
        if not isinstance(listed, list) or not listed:
            return _refused(400, "ArgumentInvalid", "no list of devices")
        if len(listed) > MOST:
            return _refused(400, "TooManyDevices", f"{len(listed)} devices, {MOST} are taken")
        ids = [each.get("id") for each in listed]
        if len(set(ids)) < len(ids):
            return _refused(400, "DeviceDefinedMultipleTimes", "a device is there twice")
        errors = [error for each in listed if (error := self._one(each))]
        result = {"isSuccessful": not errors, "errors": errors, "warnings": []}
        return as_json(400 if errors else 200, result)

    def _one(self, change: Mapping[str, object]) -> dict[str, object] | None:
        id, mode = str(change.get("id", "")), change.get("importMode")
        device = self._find(id)
        error: tuple[str, str] | None = None
        if mode not in _MODES:
            error = "InvalidOperation", f"importMode {mode}"
        elif device is None:
            error = "DeviceNotFound", f"{id} is not registered"
        elif mode == "updateTwinIfMatchETag" and change.get("twinETag") != device.twin["etag"]:
            error = "PreconditionFailed", f"the twin of {id} was changed since"
        else:
            error = self._write(device, change.get("tags"), merge=self.bulk_merges)
        if error is None:
            return None
        code, status = error
        return {"deviceId": id, "errorCode": code, "errorStatus": status, "operation": "update"}

    def _find(self, id: str) -> Device | None:
        return self.hub.devices.get(id)

    def _write(self, device: Device, tags: object, *, merge: bool) -> tuple[str, str] | None:
        if tags is None:
            return None
        if not isinstance(tags, dict) or not _named_well(tags):
            return "ArgumentInvalid", "tags"
        found = _merged(device.twin["tags"], tags) if merge else _merged({}, tags)
        if len(json.dumps(found)) > MOST_TAG_BYTES:
            return "ArgumentInvalid", "tags are larger than 8 KB"
        device.twin["tags"] = found
        version = device.twin["version"]
        assert isinstance(version, int)
        device.twin["version"] = version + 1
        device.twin["etag"] = base64.b64encode(version.to_bytes(8, "big")).decode()
        self.hub.changed()
        return None


def _named_well(tags: Mapping[str, object]) -> bool:
    """Whether no name holds what names may not."""
    return all(
        not set(key) & set(".$ ") and (not isinstance(value, dict) or _named_well(value))
        for key, value in tags.items()
    )


def _merged(before: object, patch: Mapping[str, object]) -> dict[str, object]:
    made = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict):
            made[key] = _merged(made.get(key), value)
        else:
            made[key] = value
    return made


def _object(asked: Request) -> dict[str, object] | None:
    try:
        found = asked.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _refused(status: int, code: str, message: str) -> Answer:
    body = {"Message": f"ErrorCode:{code};{message}", "ExceptionMessage": "Tracking ID:0f5e8a"}
    return as_json(status, body, {"iothub-errorcode": code})
