"""The hub through Microsoft's client, against the double: what it answers, and how it fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from mlpack.azure import hub_client
from mlpack.azure.hub_client import (
    BadConnection,
    Conflict,
    Connection,
    HubDenied,
    HubError,
    HubUnreachable,
    NotThere,
    Throttled,
    service,
)
from mlpack.azure.management import NoAzure
from mlpack.rollout.decide import HubDeployment
from mlpack.rollout.hub import IotHub as Hub
from mlpack.rollout.hub import count, observe
from mlpack.settings.condition import Condition
from tests.doubles.authority import Answer, Request, as_json
from tests.doubles.iothub import IotHub
from tests.doubles.iothub_rest import Throttle
from tests.e2e.wire import Certificate

AGENT = {"schemaVersion": "1.1", "runtime": {}, "systemModules": {}, "modules": {}}
BASE: Mapping[str, object] = {
    "$edgeAgent": {"properties.desired": AGENT},
    "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
}
IMAGE = "contoso.azurecr.io/edge/fan@sha256:" + "1" * 64
VANS = "tags.deviceGroup = 'vans'"


def layer(image: str = IMAGE) -> Mapping[str, object]:
    module = {"type": "docker", "status": "running", "settings": {"image": image}}
    return {"$edgeAgent": {"properties.desired.modules.fan": module}}


@pytest.fixture
def double(certificate: Certificate) -> Iterator[IotHub]:
    double = IotHub()
    with double.started(certificate):
        yield double


@pytest.fixture
def slept() -> list[float]:
    """How long the client waited, each time."""
    return []


@pytest.fixture
def hub(double: IotHub, slept: list[float]) -> Iterator[Hub]:
    def sleep(seconds: float) -> None:
        slept.append(seconds)
        double.advance(seconds)

    with Hub(connection(double), sleep=sleep) as opened:
        yield opened


def connection(double: IotHub, policy: str = "iothubowner", key: str = "") -> Connection:
    return Connection.of(double.access.connection_string(policy, key), ca=double.ca)


def release(id: str = "mlpack-vans-fan-1", **more: object) -> HubDeployment:
    made = HubDeployment(
        id=id, labels={"mlpack.group": "vans"}, content=layer(), condition=VANS, priority=10
    )
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_deployment_is_created_read_changed_and_deleted(hub: Hub, double: IotHub) -> None:
    query = "SELECT deviceId FROM devices.modules WHERE moduleId = '$edgeAgent'"
    wanted = release(metrics={"running": query})
    made = hub.create(wanted)
    assert made == replace(wanted, etag="MQ==", created="2026-11-20T08:00:00.000000Z")
    assert hub.configuration(made.id) == made
    changed = hub.update(replace(made, labels={"stage": "2"}, condition="tags.a = 1", priority=11))
    assert (changed.labels, changed.condition, changed.priority) == (
        {"stage": "2"}, "tags.a = 1", 11,
    )  # fmt: skip
    assert changed.etag != made.etag
    assert hub.configurations() == (changed,)
    hub.delete(changed.id, changed.etag)
    assert hub.configurations() == ()
    assert double.rest.refused == []
    [first, second] = double.rest.said("PUT", "/configurations/")
    assert "if-match" not in first.headers
    assert second.headers["if-match"] == '"MQ=="'
    assert double.rest.said("DELETE", "/")[0].headers["if-match"] == f'"{changed.etag}"'


def test_an_etag_without_quotes_is_a_conflict_as_on_azure(hub: Hub, double: IotHub) -> None:
    """The reason why Hub quotes them: the client itself does not."""
    from msrest.exceptions import HttpOperationError

    made = hub.create(release())
    client = service(connection(double))
    theirs = client.configuration.get(made.id)
    with pytest.raises(HttpOperationError) as caught:
        client.configuration.create_or_update(made.id, theirs, made.etag)
    client.close()
    assert caught.value.response.status_code == 409


def test_what_another_operator_changed_is_a_conflict(hub: Hub) -> None:
    seen = hub.create(release())
    hub.update(replace(seen, priority=20))
    for action in (
        lambda: hub.update(replace(seen, priority=30)),
        lambda: hub.delete(seen.id, seen.etag),
        lambda: hub.create(release()),
    ):
        with pytest.raises(Conflict) as caught:
            action()
        assert "\n" not in str(caught.value)
    assert hub.configuration(seen.id).priority == 20
    hub.delete(seen.id)
    for gone in (
        lambda: hub.configuration(seen.id),
        lambda: hub.delete(seen.id),
        lambda: hub.update(seen),
    ):
        with pytest.raises(NotThere, match="ConfigurationNotFound"):
            gone()


def test_a_configuration_that_was_not_read_is_not_changed(hub: Hub, double: IotHub) -> None:
    with pytest.raises(HubError, match="was not read"):
        hub.update(release())
    assert double.rest.requests == []


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (release("Upper"), "ArgumentInvalid"),
        (release("x" * 129), "ArgumentInvalid"),
        (release("a&b"), "ArgumentInvalid"),
        (release("a[b]"), "ArgumentInvalid"),
        (release(priority=-1), "ArgumentInvalid"),
        (release(condition="tags.a = "), "InvalidConfigurationTargetCondition"),
        (release(condition="properties.desired.a = 1"), "InvalidConfigurationTargetCondition"),
        (release(condition="deviceId IN ['a']"), "InvalidConfigurationTargetCondition"),
        (release(priority=2**31), "ArgumentInvalid"),
        (release(metrics={"x": "SELECT FROM devices"}), "InvalidConfigurationCustomMetricsQuery"),
        (release(content={"fan": {"properties.desired": {}}}), "InvalidConfigurationContent"),
        (release(content={"$edgeAgent": {"desired": {}}}), "InvalidConfigurationContent"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_service_refuses_is_one_line(hub: Hub, wrong: HubDeployment, code: str) -> None:
    with pytest.raises(HubError, match=code) as caught:
        hub.create(wrong)
    assert "\n" not in str(caught.value)
    assert "Tracking" not in str(caught.value)


def test_a_module_without_desired_properties_is_taken(hub: Hub) -> None:
    content = {**layer(), "fan": {}}
    assert hub.create(release(content=content)).content == content


def test_content_never_changes(hub: Hub) -> None:
    made = hub.create(release())
    with pytest.raises(HubError, match="content cannot be changed"):
        hub.update(replace(made, content=layer("other@sha256:" + "2" * 64)))


def test_a_hub_takes_a_hundred_deployments_and_all_are_listed(hub: Hub) -> None:
    for number in range(100):
        hub.create(release(f"d-{number:03}"))
    assert [each.id for each in hub.configurations()] == [f"d-{n:03}" for n in range(100)]
    with pytest.raises(HubError, match="ConfigurationCountLimitExceeded") as caught:
        hub.create(release("one-more"))
    assert "delete deployments" in caught.value.hint


def test_ten_thousand_devices_come_page_by_page(hub: Hub, double: IotHub) -> None:
    double.add_devices(10_000, lambda n: {"deviceGroup": "vans" if n % 2 else "trucks"})
    found = [each["deviceId"] for each in hub.query("SELECT * FROM devices")]
    assert found == [f"van-{n:05}" for n in range(10_000)]
    pages = double.rest.said("POST", "/devices/query")
    assert len(pages) == 10
    assert {each.headers["x-ms-max-item-count"] for each in pages} == {"1000"}
    assert "x-ms-continuation" not in pages[0].headers
    assert len({each.headers["x-ms-continuation"] for each in pages[1:]}) == 9
    assert sum(1 for _ in hub.query("SELECT deviceId FROM devices", page=300)) == 10_000
    assert len(double.rest.said("POST", "/devices/query")) == 10 + 34
    assert list(hub.query(f"SELECT COUNT() AS number FROM devices WHERE {VANS}")) == [
        {"number": 5000}
    ]


def test_a_query_gives_items_as_the_hub_sent_them(hub: Hub, double: IotHub) -> None:
    double.add_device("van-1", {"deviceGroup": "vans"}, reported={"engine": "moby"})
    [twin] = hub.query("SELECT * FROM devices")
    assert twin == double.devices["van-1"].twin
    [module] = hub.query("SELECT * FROM devices.modules WHERE moduleId = '$edgeAgent'")
    assert module["configurations"] == {}
    [part] = hub.query("SELECT deviceId, properties.reported.engine AS engine FROM devices")
    assert part == {"deviceId": "van-1", "engine": "moby"}


@pytest.mark.parametrize(
    "text",
    ["SELECT", "DELETE FROM devices", "SELECT * FROM things", "SELECT * FROM devices WHERE a = 1"],
)
def test_a_query_that_is_none_is_one_line(hub: Hub, text: str) -> None:
    with pytest.raises(HubError, match="did not answer a query"):
        list(hub.query(text))


def test_tags_are_merged_whatever_the_hub_does_with_them(hub: Hub, double: IotHub) -> None:
    """The double's bulk update overwrites, as the documentation of its import modes says."""
    double.add_devices(250, lambda n: {"deviceGroup": "vans", "mlpack": {"note": "x"}, "old": 1})
    double.add_device("o'hare", {"deviceGroup": "vans"})
    wanted: dict[str, Mapping[str, object]] = {
        id: {"mlpack": {"bucket": n}, "old": None} for n, id in enumerate(double.devices)
    }
    for double.rest.twins.bulk_merges in (False, True):
        hub.tag(wanted)
        assert double.devices["van-00007"].twin["tags"] == {
            "deviceGroup": "vans",
            "mlpack": {"note": "x", "bucket": 7},
        }
        assert double.devices["o'hare"].twin["tags"] == {
            "deviceGroup": "vans",
            "mlpack": {"bucket": 250},
        }
    sent = double.rest.said("POST", "/devices")
    bulk = [each.json() for each in sent if each.path == "/devices"]
    assert [len(each) for each in bulk] == [100, 100, 51] * 2  # type: ignore[arg-type]
    assert double.rest.refused == []


def test_devices_of_long_names_are_tagged_in_queries_the_hub_takes(
    hub: Hub, double: IotHub
) -> None:
    ids = [f"van-{n:02}-{'x' * 121}" for n in range(70)]
    for id in ids:
        double.add_device(id)
    hub.tag({id: {"a": 1} for id in ids})
    assert all(each.twin["tags"] == {"a": 1} for each in double.devices.values())
    assert len(double.rest.said("POST", "/devices/query")) == 2


def test_every_device_is_every_iot_edge_device(hub: Hub, double: IotHub) -> None:
    double.add_devices(3, lambda n: {"deviceGroup": "vans"})
    double.devices["van-00001"].twin["capabilities"] = {"iotEdge": False}
    every = Condition.parse("*")
    assert count(hub, every.text) == 2
    seen = observe(hub, every, "mlpack-all-fan-1", "fan")
    assert seen.untagged == ("van-00000", "van-00002")


def test_a_twin_that_changes_while_it_is_tagged_loses_nothing(hub: Hub, double: IotHub) -> None:
    double.add_devices(3, lambda n: {"deviceGroup": "vans"})

    def other(asked: Request) -> Answer | None:
        if asked.path == "/devices":
            double.rest.before = lambda _: None
            twin = double.devices["van-00001"].twin
            twin.update(tags={"deviceGroup": "trucks"}, etag="b3RoZXI=")
        return None

    double.rest.before = other
    hub.tag({id: {"mlpack": {"bucket": 1}} for id in double.devices})
    assert [each.twin["tags"] for each in double.devices.values()] == [
        {"deviceGroup": group, "mlpack": {"bucket": 1}} for group in ("vans", "trucks", "vans")
    ]
    assert [each.path for each in double.rest.said("PATCH", "/")] == ["/twins/van-00001"]


def test_a_device_that_is_not_there_is_named(hub: Hub, double: IotHub) -> None:
    double.add_device("van-1")
    with pytest.raises(HubError, match="has no device van-2"):
        hub.tag({"van-1": {"a": 1}, "van-2": {"a": 1}})
    assert double.devices["van-1"].twin["tags"] == {}


def test_tags_the_hub_refuses_are_said(hub: Hub, double: IotHub) -> None:
    double.add_device("van-1")
    with pytest.raises(HubError, match="ArgumentInvalid"):
        hub.tag({"van-1": {"a": "x" * 9000}})


@pytest.mark.parametrize("retry_after", [None, 7])
def test_a_throttled_hub_is_waited_for(
    hub: Hub, double: IotHub, slept: list[float], retry_after: int | None
) -> None:
    double.rest.throttle = Throttle(per_minute=20, retry_after=retry_after)
    for number in range(50):
        hub.create(release(f"d-{number:02}"))
    assert len(double.configurations) == 50
    assert double.rest.throttle.refused == len(slept) > 1
    if retry_after is None:
        assert slept[:6] == [1, 2, 4, 8, 16, 30]
    else:
        assert set(slept) == {7}


@pytest.mark.parametrize("retry_after", [None, 0, 7, 100_000])
def test_a_hub_that_stays_throttled_is_given_up(
    hub: Hub, double: IotHub, slept: list[float], retry_after: int | None
) -> None:
    double.rest.throttle = Throttle(per_minute=0, retry_after=retry_after)
    with pytest.raises(Throttled, match="ThrottlingException"):
        hub.configurations()
    assert sum(slept) <= 300


def test_a_query_that_is_throttled_between_pages_loses_nothing(
    hub: Hub, double: IotHub, slept: list[float]
) -> None:
    double.add_devices(3000, lambda n: {})
    double.rest.query_throttle = Throttle(per_minute=20)
    found = [each["deviceId"] for each in hub.query("SELECT deviceId FROM devices", page=100)]
    assert found == list(double.devices)
    assert sum(slept) >= 60


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_hub_that_is_down_for_a_moment_is_asked_again(
    hub: Hub, double: IotHub, slept: list[float], status: int
) -> None:
    fails = iter([status, status])
    double.rest.before = lambda _: as_json(found, {}) if (found := next(fails, 0)) else None
    assert hub.configurations() == ()
    assert slept == [1, 2]


def test_a_creation_is_not_repeated_where_nobody_knows_whether_it_was_done(
    hub: Hub, double: IotHub, slept: list[float]
) -> None:
    double.rest.after = lambda asked, answer: as_json(500, {"Message": "ErrorCode:ServerError;x"})
    with pytest.raises(HubUnreachable, match="ServerError") as caught:
        hub.create(release())
    assert "run the command again" in caught.value.hint
    assert slept == []
    assert len(double.rest.requests) == 1
    fails = iter([503])
    double.rest.before = lambda _: as_json(found, {}) if (found := next(fails, 0)) else None
    double.rest.after = lambda asked, answer: answer
    hub.create(release("another"))
    assert slept == [1]


def test_an_answer_that_is_no_json_is_an_error_of_ours(hub: Hub, double: IotHub) -> None:
    double.rest.before = lambda _: (200, {"Content-Type": "text/html"}, b"<html>log in</html>")
    with pytest.raises(HubError):
        hub.configurations()
    with pytest.raises(HubError):
        list(hub.query("SELECT * FROM devices"))
    double.rest.before = lambda _: (403, {"Content-Type": "text/html"}, b"<html>no</html>")
    with pytest.raises(HubDenied, match="HTTP 403"):
        hub.configurations()


def test_keys_are_checked_and_never_shown(double: IotHub) -> None:
    other = IotHub().access.keys["iothubowner"]
    for wrong in (connection(double, key=other), connection(double, "registryRead")):
        with Hub(wrong) as hub, pytest.raises(HubDenied) as caught:
            hub.create(release())
        said = f"{caught.value} {caught.value.hint} {wrong!r} {caught.value.__cause__}"
        assert not any(secret in said for secret in (other, *double.access.secrets()))
    assert double.configurations == {}
    assert [each.split(": ")[2:] for each in double.rest.refused] == [
        ["the signature does not match"],
        ["the policy lacks RegistryWrite"],
    ]
    assert "sig=" not in double.rest.transcript()


def test_a_signature_that_expired_is_refused(hub: Hub, double: IotHub) -> None:
    double.access.ahead_seconds = 7200
    with pytest.raises(HubDenied, match="expired"):
        hub.configurations()
    double.access.ahead_seconds = 0
    assert hub.configurations() == ()


def test_an_authority_nobody_trusts(double: IotHub) -> None:
    plain = replace(connection(double), ca="")
    with Hub(plain) as hub, pytest.raises(HubUnreachable, match="certificate") as caught:
        hub.configurations()
    assert "MLPACK_AZURE_CA" in caught.value.hint
    with (
        Hub(replace(plain, ca="/nowhere/ca.pem")) as hub,
        pytest.raises((HubError, NoAzure), match=r"/nowhere/ca\.pem"),
    ):
        hub.configurations()


@pytest.mark.parametrize("host", ["localhost:1", "no-such-hub.invalid"])
def test_a_hub_that_is_not_there(double: IotHub, host: str) -> None:
    key = double.access.keys["service"]
    string = f"HostName={host};SharedAccessKeyName=service;SharedAccessKey={key}"
    with (
        Hub(Connection.of(string), sleep=lambda _: None) as hub,
        pytest.raises(HubUnreachable, match=host) as caught,
    ):
        hub.configurations()
    assert key not in str(caught.value)


def test_a_hub_that_does_not_answer(
    hub: Hub, double: IotHub, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "TIMEOUT_SECONDS", 0.2)

    def slow(_: Request) -> None:
        time.sleep(1)

    double.rest.before = slow
    with pytest.raises(HubUnreachable, match="in time"):
        hub.configurations()
    assert slept == [1, 2]
    slept.clear()
    with pytest.raises(HubUnreachable, match="in time"):
        hub.create(release())
    assert slept == []


@pytest.mark.parametrize(
    ("string", "said"),
    [
        ("HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0", "a device's"),
        ("HostName=h;SharedAccessKey=c2VjcmV0", "lacks SharedAccessKeyName"),
        ("c2VjcmV0", "without ="),
        ("HostName=h;SharedAccessKeyName=a;SharedAccessKey=c2VjcmV", "cut off"),
    ],
)
def test_a_connection_string_that_is_none_is_not_repeated(string: str, said: str) -> None:
    with pytest.raises(BadConnection, match=said) as caught:
        Connection.of(string)
    assert "c2Vj" not in f"{caught.value} {caught.value.hint}"


def test_a_quoted_connection_string_is_read(double: IotHub) -> None:
    string = f' "{double.access.connection_string()};" \n'
    assert Connection.of(string, ca=double.ca) == connection(double)


def test_signing_in_instead_of_a_key(double: IotHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """``DefaultAzureCredential`` finds the managed identity of a process on App Service."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"https://{double.host}/identity")
    monkeypatch.setenv("IDENTITY_HEADER", double.access.tokens.header)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", double.ca)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    double.add_device("van-1")
    with Hub(Connection.of("", host=double.host, ca=double.ca)) as hub:
        hub.create(release())
        assert len(list(hub.query("SELECT * FROM devices"))) == 1
    assert len(double.access.tokens.issued) == 1
    shown = [each.shown["authorization"] for each in double.rest.requests]
    assert shown == ["Bearer …", "Bearer …"]
    double.access.tokens.issued.clear()
    with (
        Hub(Connection.of("", host=double.host, ca=double.ca)) as hub,
        pytest.raises(HubDenied, match="refused this login a token"),
    ):
        monkeypatch.setenv("IDENTITY_HEADER", "another")
        hub.configurations()


def test_metrics_come_late(hub: Hub, double: IotHub) -> None:
    double.add_devices(10, lambda n: {"deviceGroup": "vans"})
    hub.create(release("base", content=BASE, priority=1))
    made = hub.create(release())
    double.advance(200)
    assert hub.configuration(made.id).results == {}
    double.advance(100)
    assert hub.configuration(made.id).results == {
        "targetedCount": 10,
        "appliedCount": 10,
        "reportedSuccessfulCount": 10,
        "reportedFailedCount": 0,
    }


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "uamqp":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from mlpack.azure.hub_client import Connection
from mlpack.rollout.hub import IotHub as Hub

string, ca = sys.stdin.read().splitlines()
with Hub(Connection.of(string, ca=ca)) as hub:
    print([each["deviceId"] for each in hub.query("SELECT deviceId FROM devices")])
    hub.tag({"van-1": {"a": 1}})
print("uamqp" in sys.modules)
"""


def test_the_hub_is_reached_without_uamqp_as_on_arm64(double: IotHub) -> None:
    double.add_device("van-1")
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        input=f"{double.access.connection_string()}\n{double.ca}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split("\n")[:2], done.stderr) == (["['van-1']", "False"], "")
    assert double.devices["van-1"].twin["tags"] == {"a": 1}


def test_without_the_extra_it_is_said_what_to_install(
    double: IotHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azure.iot.hub", None)
    for ask in (lambda hub: hub.configurations(), lambda hub: list(hub.query("SELECT * FROM x"))):
        with pytest.raises(NoAzure, match="not installed") as caught:
            ask(Hub(connection(double)))
        assert "[azure]'" in caught.value.hint
        assert "--no-deps azure-iot-hub==2.7.0" in caught.value.hint
