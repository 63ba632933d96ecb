"""A double of Azure Resource Manager's part for a registry's logins: scope maps, tokens, passwords.

It answers what azure-mgmt-containerregistry 15 sends (api-version 2025-11-01), keeps what it was
told, and refuses what Azure documents as wrong: names, actions, the id of a scope map that is
not there, a password's slot, an end that is over. Long operations are answered as such.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.doubles.authority import Answer, Request, as_json

API = "2025-11-01"
NAME = re.compile(r"[a-zA-Z0-9-]{5,50}")
_ACTION = re.compile(r"repositories/[a-z0-9/._-]+/(content|metadata)/(read|write|delete)")
SLOTS = ("password1", "password2")


def error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """A refusal as Azure Resource Manager writes it."""
    return as_json(status, {"error": {"code": code, "message": message}}, headers)


@dataclass
class Logins:
    """The scope maps and tokens of one registry."""

    scope: str
    """The registry's resource id."""

    host: str
    """Its login server."""

    scope_maps: dict[str, dict[str, object]] = field(default_factory=dict)
    tokens: dict[str, dict[str, object]] = field(default_factory=dict)
    passwords: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict, repr=False)
    """By token and slot: value, creationTime, expiry."""

    made: list[str] = field(default_factory=list, repr=False)
    """Every password there ever was."""

    slow: bool = False
    """Whether operations take a while: 201 or 202 first, and a place to look."""

    pending: dict[str, Answer] = field(default_factory=dict, repr=False)

    def answer(self, asked: Request, url: str) -> Answer | None:
        """Answer a request below :attr:`scope`; ``None`` for one that is not of logins."""
        path = asked.path.removeprefix(self.scope)
        parts = path.strip("/").split("/")
        if path == "" and asked.method == "GET":
            described = {"loginServer": self.host, "provisioningState": "Succeeded"}
            return as_json(200, self._resource("", self.scope.rpartition("/")[2], described))
        if parts[0] == "operations" and asked.method == "GET":
            return self.pending.pop(parts[1], None) or error(404, "NotFound", parts[1])
        if path == "/generateCredentials" and asked.method == "POST":
            return self._later(self._generate(asked), asked, url)
        if len(parts) == 2 and parts[0] in ("scopeMaps", "tokens"):
            if not NAME.fullmatch(parts[1]):
                return error(400, "InvalidName", f"{parts[1]} is no name of {parts[0]}")
            held = self.scope_maps if parts[0] == "scopeMaps" else self.tokens
            if asked.method == "GET":
                return self._get(parts[0], parts[1], held)
            if asked.method == "PUT":
                return self._later(self._put(asked, parts[0], parts[1], held), asked, url)
        return None

    def _get(self, kind: str, name: str, held: Mapping[str, dict[str, object]]) -> Answer:
        if name not in held:
            return error(404, "ResourceNotFound", f"{kind}/{name} was not found")
        return as_json(200, self._resource(kind, name, self._shown(kind, name, held[name])))

    def _shown(self, kind: str, name: str, properties: dict[str, object]) -> dict[str, object]:
        if kind != "tokens":
            return properties
        # A password's value is shown once, when it is made, and never again.
        listed = [
            {"name": slot, **{key: text for key, text in each.items() if key != "value"}}
            for slot, each in self.passwords.get(name, {}).items()
        ]
        return {**properties, "credentials": {"passwords": listed}}

    def _put(
        self, asked: Request, kind: str, name: str, held: dict[str, dict[str, object]]
    ) -> Answer:
        document = asked.json()
        properties = document.get("properties") if isinstance(document, dict) else None
        if not isinstance(properties, dict):
            return error(400, "InvalidRequestContent", "no properties")
        wrong = (
            self._wrong_map(properties) if kind == "scopeMaps" else self._wrong_token(properties)
        )
        if wrong:
            return error(400, "InvalidRequestContent", wrong)
        status = 200 if name in held else 201
        held[name] = {**properties, "provisioningState": "Succeeded"}
        return as_json(status, self._resource(kind, name, self._shown(kind, name, held[name])))

    def _wrong_map(self, properties: Mapping[str, object]) -> str:
        actions = properties.get("actions")
        if not isinstance(actions, list) or not actions:
            return "a scope map needs actions"
        return next((f"{each} is no action" for each in actions if not _ACTION.fullmatch(each)), "")

    def _wrong_token(self, properties: Mapping[str, object]) -> str:
        if properties.get("status") not in ("enabled", "disabled"):
            return "status is enabled or disabled"
        known = {f"{self.scope}/scopeMaps/{name}" for name in self.scope_maps}
        return "" if properties.get("scopeMapId") in known else "there is no such scope map"

    def _generate(self, asked: Request) -> Answer:
        document = asked.json()
        if not isinstance(document, dict):
            return error(400, "InvalidRequestContent", "no object")
        name = str(document.get("tokenId", "")).removeprefix(f"{self.scope}/tokens/")
        slot, expiry = str(document.get("name")), str(document.get("expiry", ""))
        if name not in self.tokens:
            return error(404, "ResourceNotFound", f"there is no token {name}")
        if slot not in SLOTS:
            return error(400, "InvalidRequestContent", f"{slot} is no password of a token")
        if expiry and datetime.fromisoformat(expiry) <= datetime.now(UTC):
            return error(400, "InvalidRequestContent", "expiry is over")
        value = secrets.token_urlsafe(39)
        self.made.append(value)
        created = datetime.now(UTC).isoformat()
        made = {"value": value, "creationTime": created, "expiry": expiry}
        self.passwords.setdefault(name, {})[slot] = made
        # The other password is named, too, and never with its value.
        listed = [
            {"name": key, **{k: v for k, v in each.items() if key == slot or k != "value"}}
            for key, each in self.passwords[name].items()
        ]
        return as_json(200, {"username": name, "passwords": listed})

    def _later(self, answer: Answer, asked: Request, url: str) -> Answer:
        """The answer at once, or, where operations are slow, at another address."""
        status, headers, body = answer
        if not self.slow or status >= 300:
            return answer
        key = secrets.token_hex(4)
        if asked.method == "PUT":
            self.pending[key] = as_json(200, {"status": "Succeeded"})
            at = f"{url}{self.scope}/operations/{key}?api-version={API}"
            return 201, {**headers, "Azure-AsyncOperation": at, "Retry-After": "1"}, body
        self.pending[key] = answer
        at = f"{url}{self.scope}/operations/{key}?api-version={API}"
        return 202, {"Location": at, "Retry-After": "1"}, b""

    def _resource(
        self, kind: str, name: str, properties: Mapping[str, object]
    ) -> dict[str, object]:
        place = f"{self.scope}/{kind}/{name}" if kind else self.scope
        known = "Microsoft.ContainerRegistry/registries"
        return {
            "id": place,
            "name": name,
            "type": f"{known}/{kind}" if kind else known,
            "properties": dict(properties),
        }
