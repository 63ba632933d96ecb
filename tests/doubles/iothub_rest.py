"""IoT Hub's service REST API, 2021-04-12: routing requests, admitting them, and answering them."""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tests.doubles.authority import Answer, Request, as_json
from tests.doubles.iothub_access import CONNECT, READ, WRITE
from tests.doubles.iothub_checks import (
    ID,
    Refused,
    check_configuration,
    check_content,
    document_of,
    problem,
)
from tests.doubles.iothub_devices import stamp
from tests.doubles.iothub_query import BadQuery, parse_condition, parse_query
from tests.doubles.iothub_twins import Twins

if TYPE_CHECKING:
    from tests.doubles.iothub import Configuration, IotHub

API_VERSION = "2021-04-12"
DEFAULT_TOP, DEFAULT_ITEMS, MOST_ITEMS = 20, 100, 1000


@dataclass
class Throttle:
    """Requests of one kind the hub takes in a minute: 20 in the small tiers."""

    per_minute: int = 20
    retry_after: int | None = None
    """Seconds it names when it refuses; ``None`` names none."""

    seen: deque[datetime] = field(default_factory=deque)
    refused: int = 0

    def check(self, now: datetime) -> None:
        """Count one at ``now``; raise :class:`Refused` where it is one too many."""
        while self.seen and self.seen[0] <= now - timedelta(minutes=1):
            self.seen.popleft()
        if len(self.seen) >= self.per_minute:
            self.refused += 1
            after = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
            raise Refused("ThrottlingException", "too many requests; throttled", after)
        self.seen.append(now)


Route = tuple[str, "re.Pattern[str]", str, Callable[..., Answer]]


class Rest:
    """Answers requests for a hub, and keeps what it was asked."""

    def __init__(self, hub: IotHub) -> None:
        self.hub = hub
        self.requests: list[Request] = []
        self.refused: list[str] = []
        """``METHOD path: code message`` of every request that was not done."""
        self.throttle: Throttle | None = None
        """Of requests about configurations."""
        self.query_throttle: Throttle | None = None
        self.limit = 100
        """Configurations the hub takes."""
        self.before: Callable[[Request], Answer | None] = lambda _: None
        """May answer a request itself: a hub that is down, a proxy in between."""
        self.after: Callable[[Request, Answer], Answer] = lambda _, answer: answer
        """May put another answer in the place of one: done, and the link broke."""
        self._pages: dict[str, tuple[str, list[object]]] = {}
        self.twins = twins = Twins(hub)
        self._routes: tuple[Route, ...] = (
            ("GET", re.compile("/configurations"), READ, self._list),
            ("POST", re.compile("/configurations/testQueries"), READ, self._test),
            ("PUT", re.compile("/configurations/([^/]+)"), WRITE, self._put),
            ("GET", re.compile("/configurations/([^/]+)"), READ, self._get),
            ("DELETE", re.compile("/configurations/([^/]+)"), WRITE, self._delete),
            ("POST", re.compile("/devices/query"), CONNECT, self._query),
            ("POST", re.compile("/devices/([^/]+)/applyConfigurationContent"), WRITE, self._apply),
            ("POST", re.compile("/devices"), WRITE, twins.bulk),
            ("GET", re.compile("/twins/([^/]+)"), CONNECT, twins.get),
            ("PATCH", re.compile("/twins/([^/]+)"), CONNECT, twins.patch),
            ("GET", re.compile("/twins/([^/]+)/modules/([^/]+)"), CONNECT, twins.get),
        )

    def answer(self, asked: Request) -> Answer:
        """Answer one request."""
        if asked.path == "/identity":
            return self.hub.access.tokens.answer(asked)
        with self.hub.locked():
            self.requests.append(asked)
            own = self.before(asked)
            return own if own is not None else self.after(asked, self._answer(asked))

    def said(self, method: str, path: str) -> list[Request]:
        """The requests so far of this method whose path begins so."""
        return [
            each for each in self.requests if each.method == method and each.path.startswith(path)
        ]

    def transcript(self) -> str:
        """Every request, as it was on the wire but for secrets."""
        texts = []
        for each in self.requests:
            headers = "".join(f"{key}: {value}\n" for key, value in each.shown.items())
            texts.append(f"{each.method} {each.target}\n{headers}\n{each.body.decode()}\n")
        return "\n".join(texts)

    def _answer(self, asked: Request) -> Answer:
        try:
            for method, pattern, right, handle in self._routes:
                found = pattern.fullmatch(asked.path)
                if method == asked.method and found:
                    self._admit(asked, right)
                    return handle(asked, *found.groups())
            raise Refused("GenericNotFound", f"{asked.method} {asked.path}")
        except Refused as refused:
            self.refused.append(f"{asked.method} {asked.path}: {refused.code} {refused}")
            return refused.answer

    def _admit(self, asked: Request, right: str) -> None:
        why = self.hub.access.refusal(asked.headers.get("authorization", ""), right)
        if why:
            raise Refused("IotHubUnauthorizedAccess", f"Unauthorized: {why}")
        if asked.query.get("api-version") != API_VERSION:
            raise Refused("InvalidProtocolVersion", "api-version")
        if self.throttle and asked.path.startswith("/configurations"):
            self.throttle.check(self.hub.now)
        if self.query_throttle and asked.path == "/devices/query":
            self.query_throttle.check(self.hub.now)

    def _list(self, asked: Request) -> Answer:
        try:
            top = int(asked.query.get("top", DEFAULT_TOP))
        except ValueError:
            raise Refused("ArgumentInvalid", "top") from None
        self._count()
        listed = sorted(self.hub.configurations.values(), key=lambda each: each.order)
        return as_json(200, [shown(each) for each in listed[: min(top, self.limit)]])

    def _find(self, id: str) -> Configuration:
        found = self.hub.configurations.get(id)
        if found is None:
            raise Refused("ConfigurationNotFound", f"{id} does not exist")
        return found

    def _get(self, asked: Request, id: str) -> Answer:
        self._count()
        found = self._find(id)
        return as_json(200, shown(found), {"ETag": f'"{etag(found)}"'})

    def _delete(self, asked: Request, id: str) -> Answer:
        _match(asked, self._find(id))
        del self.hub.configurations[id]
        self.hub.changed()
        return 204, {}, b""

    def _count(self) -> None:
        if not self.hub.metrics_lag_seconds:
            self.hub.count()

    def _put(self, asked: Request, id: str) -> Answer:
        document = document_of(asked)
        if not ID.fullmatch(id) or document.get("id") != id:
            raise Refused("ArgumentInvalid", f"the id {id!r}")
        check_configuration(document)
        before = self.hub.configurations.get(id)
        if before is None:
            self._check_room(asked, id)
        else:
            if not _match(asked, before):
                raise Refused("ConfigurationAlreadyExists", f"{id} already exists")
            check_content(before.document, document)
        made = self.hub.put(document)
        return as_json(200, shown(made), {"ETag": f'"{etag(made)}"'})

    def _check_room(self, asked: Request, id: str) -> None:
        if _quoted(asked):
            raise Refused("ConfigurationNotFound", f"{id} does not exist")
        if len(self.hub.configurations) >= self.limit:
            raise Refused(
                "ConfigurationCountLimitExceeded", f"the hub holds {self.limit} configurations"
            )

    def _test(self, asked: Request) -> Answer:
        document = document_of(asked)
        condition = problem(parse_condition, str(document.get("targetCondition") or "*"))
        queries = document.get("customMetricQueries") or {}
        if not isinstance(queries, dict):
            raise Refused("ArgumentInvalid", "customMetricQueries")
        errors = {name: problem(parse_query, str(q)) for name, q in queries.items()}
        return as_json(
            200,
            {
                "targetConditionError": condition or None,
                "customMetricQueryErrors": {name: text for name, text in errors.items() if text},
            },
        )

    def _apply(self, asked: Request, id: str) -> Answer:
        device = self.hub.devices.get(id)
        if device is None:
            raise Refused("DeviceNotFound", id)
        content = document_of(asked).get("modulesContent")
        if not isinstance(content, dict):
            raise Refused("InvalidConfigurationContent", "no modulesContent")
        self.hub.apply(device, content)
        return 204, {}, b""

    def _query(self, asked: Request) -> Answer:
        text = document_of(asked).get("query")
        if not isinstance(text, str):
            raise Refused("ArgumentInvalid", "no query")
        token = asked.headers.get("x-ms-continuation")
        wanted = asked.headers.get("x-ms-max-item-count", str(DEFAULT_ITEMS))
        if not wanted.isdecimal() or int(wanted) < 1:
            raise Refused("ArgumentInvalid", f"x-ms-max-item-count {wanted}")
        found = self._found(text, token)
        size = min(int(wanted), MOST_ITEMS)
        headers = {"x-ms-item-type": "Twin" if parse_query(text).twins else "Raw"}
        if len(found) > size:
            headers["x-ms-continuation"] = f"page-{len(self._pages)}-{len(found) - size}"
            self._pages[headers["x-ms-continuation"]] = text, found[size:]
        return as_json(200, found[:size], headers)

    def _found(self, text: str, token: str | None) -> list[object]:
        if token is not None:
            query, rest = self._pages.get(token, ("", []))
            if query != text:
                raise Refused("ArgumentInvalid", "the continuation token is another query's")
            return rest
        try:
            return list(self.hub.run_query(text))
        except BadQuery as error:
            raise Refused("ArgumentInvalid", f"the query: {error}") from None


def etag(configuration: Configuration) -> str:
    """The ETag, without quotes."""
    return base64.b64encode(str(configuration.version).encode()).decode()


def shown(configuration: Configuration) -> dict[str, object]:
    """A configuration as the service shows it."""
    document = configuration.document
    return {
        "id": configuration.id,
        "schemaVersion": document.get("schemaVersion", "1.0"),
        "labels": document.get("labels") or {},
        "content": document["content"],
        "contentType": "assignment",
        "targetCondition": document.get("targetCondition") or "",
        "createdTimeUtc": stamp(configuration.created),
        "lastUpdatedTimeUtc": stamp(configuration.updated),
        "priority": document.get("priority", 0),
        "systemMetrics": {
            "results": dict(configuration.system),
            "queries": configuration.system_queries() if configuration.content else {},
        },
        "metrics": {
            "results": dict(configuration.results),
            "queries": dict(configuration.queries),
        },
        "etag": etag(configuration),
    }


def _quoted(asked: Request) -> bool:
    return asked.headers.get("if-match", "").startswith('"')


def _match(asked: Request, configuration: Configuration) -> bool:
    """Whether ``If-Match`` allows a change; without quotes it is as if it were not there."""
    header = asked.headers.get("if-match", "")
    if header == "*":
        return True
    if not _quoted(asked):
        return False
    if header != f'"{etag(configuration)}"':
        raise Refused("PreconditionFailed", f"{configuration.id} was changed since")
    return True
