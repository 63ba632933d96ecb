"""What the environment says about the broker, its topics, and who we are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .settings import NotServable

TOPIC = "fan/messages"
PREDICTIONS = "fan/anomaly"
PORT, TLS_PORT = 1883, 8883
_SCHEMES = {"mqtt": False, "mqtts": True}
_VERSIONS = {"5": 5, "3.1.1": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """docs/scoring.md lists the variables."""

    host: str
    port: int = PORT
    topic: str = TOPIC
    """Where readings come; may have wildcards."""
    predictions: str = PREDICTIONS
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""
    """A file of certificates; none: those the system trusts."""
    client_id: str = ""
    """The name of the session; none: ``mlpack-`` and the model's name."""
    version: int = 5
    """Of the protocol: 5, or 4 for 3.1.1."""
    scoring_url: str = ""
    """Where to score; none: in this process."""

    @property
    def address(self) -> str:
        """For a log."""
        return f"{self.host}:{self.port}"

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> MqttSettings:
        """Take the ``MQTT_`` variables; raise :class:`NotServable` for what makes no sense."""
        said = environment.get("MQTT_BROKER", "")
        ca = environment.get("MQTT_CA", "")
        host, port, tls = _broker(said, secure=bool(ca))
        found = cls(
            host=host,
            port=port,
            tls=tls,
            ca=_file("MQTT_CA", ca),
            topic=environment.get("MQTT_DEV_TOPIC") or TOPIC,
            predictions=environment.get("MQTT_PREDICT_TOPIC") or PREDICTIONS,
            user=environment.get("MQTT_USER", ""),
            password=_password(environment),
            client_id=environment.get("MQTT_CLIENT_ID", ""),
            version=_version(environment.get("MQTT_VERSION") or "5"),
            scoring_url=environment.get("SCORING_URL", ""),
        )
        if set(found.predictions) & set("+#"):
            raise NotServable(f"MQTT_PREDICT_TOPIC={found.predictions!r} has a wildcard")
        if matches(found.topic, found.predictions):
            raise NotServable(
                f"MQTT_DEV_TOPIC={found.topic!r} covers MQTT_PREDICT_TOPIC={found.predictions!r}: "
                "every prediction would come back as a reading"
            )
        return found


def matches(filter_: str, topic: str) -> bool:
    """Whether a subscription to ``filter_`` gets what is published to ``topic`` (MQTT 5, 4.7).

    >>> matches("fan/#", "fan/anomaly"), matches("fan/+/a", "fan/1/b"), matches("fan", "fan")
    (True, False, True)
    """
    wanted, levels = filter_.split("/"), topic.split("/")
    for place, part in enumerate(wanted):
        if part == "#":
            return True
        if place == len(levels) or part not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)


def _broker(said: str, *, secure: bool) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(said if "://" in said else f"{'mqtts' if secure else 'mqtt'}://{said}")
        tls = _SCHEMES[parts.scheme] or secure
        host, port = parts.hostname or "", parts.port or (TLS_PORT if tls else PORT)
        if not host or parts.path not in ("", "/") or parts.username is not None:
            raise ValueError
    except (KeyError, ValueError) as error:
        raise NotServable(
            f"MQTT_BROKER={said!r} is not host[:port], nor mqtts://host[:port] for TLS"
        ) from error
    return host, port, tls


def _password(environment: Mapping[str, str]) -> str:
    path = _file("MQTT_PASSWORD_FILE", environment.get("MQTT_PASSWORD_FILE", ""))
    if path:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    return environment.get("MQTT_PASSWORD", "")


def _file(name: str, path: str) -> str:
    if path:
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise NotServable(f"{name}={path!r} cannot be read ({error.strerror})") from error
    return path


def _version(said: str) -> int:
    if said not in _VERSIONS:
        raise NotServable(f"MQTT_VERSION={said!r} is neither 5 nor 3.1.1")
    return _VERSIONS[said]
