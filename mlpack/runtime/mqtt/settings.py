"""MQTT settings from the environment: broker, topics and credentials."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..settings import NotServable

TOPIC = "fan/messages"
PREDICTIONS = "fan/anomaly"
PORT, TLS_PORT = 1883, 8883
_SCHEMES = {"mqtt": False, "mqtts": True}
_VERSIONS = {"5": 5, "3.1.1": 4}

_log = logging.getLogger("mlpack_runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """docs/reference/scoring.md lists the variables."""

    host: str
    port: int = PORT
    topic: str = TOPIC
    """Topic of messages; may have wildcards."""
    predictions: str = PREDICTIONS
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""
    """File of CA certificates; empty: the system's."""
    client_id: str = ""
    """Name of the session; empty: ``mlpack-`` and the model's name."""
    version: int = 5
    """Protocol version: 5, or 4 for 3.1.1."""
    scoring_url: str = ""
    """URL to score at; empty: in this process."""

    @property
    def address(self) -> str:
        """Host and port, for logs."""
        return f"{self.host}:{self.port}"

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> MqttSettings:
        """Parse the ``MQTT_`` variables; raise :class:`NotServable` for invalid ones."""
        name, broker = broker_address(environment)
        ca = environment.get("MQTT_CA", "")
        host, port, tls = _broker(name, broker, secure=bool(ca))
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
                "every prediction would come back as a message"
            )
        return found


def broker_address(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable that names the broker, and its address; empty if there is no MQTT.

    ``MQTT_BROKER`` comes before ``MQTT_HOST``, whose port may be in ``MQTT_PORT``.

    >>> broker_address({"MQTT_HOST": "mosquitto", "MQTT_PORT": "1884"})
    ('MQTT_HOST', 'mosquitto:1884')
    """
    own, alias = environment.get("MQTT_BROKER", ""), environment.get("MQTT_HOST", "")
    port = environment.get("MQTT_PORT", "")
    # Kubernetes sets MQTT_PORT=tcp://ADDRESS:PORT next to a service called mqtt.
    if alias and port and not port.startswith("tcp://"):
        alias = f"{alias}:{port}"
    if own and alias and alias != own:
        _log.warning("MQTT_BROKER=%r is used, not MQTT_HOST (%r)", own, alias)
    return ("MQTT_BROKER", own) if own else ("MQTT_HOST", alias)


def matches(filter_: str, topic: str) -> bool:
    """Return whether a subscription to ``filter_`` covers ``topic`` (MQTT 5, 4.7).

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


def _broker(name: str, text: str, *, secure: bool) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(text if "://" in text else f"{'mqtts' if secure else 'mqtt'}://{text}")
        tls = _SCHEMES[parts.scheme] or secure
        host, port = parts.hostname or "", parts.port or (TLS_PORT if tls else PORT)
        if not host or parts.path not in ("", "/") or parts.username is not None:
            raise ValueError
    except (KeyError, ValueError) as error:
        raise NotServable(
            f"{name}={text!r} must be host[:port], or mqtts://host[:port] for TLS"
        ) from error
    return host, port, tls


def _password(environment: Mapping[str, str]) -> str:
    path = _file("MQTT_PASSWORD_FILE", environment.get("MQTT_PASSWORD_FILE", ""))
    if path:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    return environment.get("MQTT_PASSWORD", "")


def _file(name: str, path: str) -> str:
    if path:
        if Path(path).exists() and not Path(path).is_file():  # a pipe waits for its writer
            raise NotServable(f"{name}={path!r} is not a regular file")
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise NotServable(f"{name}={path!r} cannot be read ({error.strerror})") from error
    return path


def _version(text: str) -> int:
    if text not in _VERSIONS:
        raise NotServable(f"MQTT_VERSION={text!r} must be 5 or 3.1.1")
    return _VERSIONS[text]
