"""Who may do what on a hub: shared access signatures and tokens, checked as the service does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from tests.doubles.authority import Tokens

AUDIENCE = "https://iothubs.azure.net"
READ, WRITE, CONNECT = "RegistryRead", "RegistryWrite", "ServiceConnect"
POLICIES: Mapping[str, frozenset[str]] = {
    "iothubowner": frozenset({READ, WRITE, CONNECT}),
    "service": frozenset({CONNECT}),
    "registryRead": frozenset({READ}),
    "registryReadWrite": frozenset({READ, WRITE}),
}
_TOKEN = re.compile(r"SharedAccessSignature (\S+)")


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass
class Access:
    """The hub's policies and their keys; ``tokens`` are those of people who sign in."""

    host: str = ""
    keys: dict[str, str] = field(
        default_factory=lambda: {name: _key() for name in POLICIES}, repr=False
    )
    tokens: Tokens = field(default_factory=Tokens)
    ahead_seconds: float = 0.0
    """How far the hub's clock is ahead of the client's."""

    def connection_string(self, policy: str = "iothubowner", key: str = "") -> str:
        """What ``az iot hub connection-string show`` prints."""
        shared = f"SharedAccessKeyName={policy};SharedAccessKey={key or self.keys[policy]}"
        return f"HostName={self.host};{shared}"

    def secrets(self) -> tuple[str, ...]:
        """What must stand nowhere."""
        return (*self.keys.values(), *self.tokens.issued, self.tokens.header)

    def refusal(self, authorization: str, right: str) -> str:
        """Why a request may not do what needs ``right``; empty where it may."""
        if authorization.startswith("Bearer "):
            return "" if self.tokens.allows(authorization, AUDIENCE) else "the token is not valid"
        found = _TOKEN.fullmatch(authorization)
        if found is None:
            return "no authorization"
        fields = dict(part.partition("=")[::2] for part in found[1].split("&"))
        return self._signature(fields, right)

    def _signature(self, fields: Mapping[str, str], right: str) -> str:
        policy = fields.get("skn", "")
        if policy not in self.keys:
            return "no such policy"
        signed = f"{fields.get('sr', '')}\n{fields.get('se', '')}".encode()
        key = base64.b64decode(self.keys[policy])
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        if not hmac.compare_digest(wanted, unquote(fields.get("sig", ""))):
            return "the signature does not match"
        if unquote(fields["sr"]).lower() != self.host.lower():
            return "signed for another hub"
        if not fields["se"].isdecimal() or int(fields["se"]) < time.time() + self.ahead_seconds:
            return "the signature has expired"
        return "" if right in POLICIES[policy] else f"the policy lacks {right}"
