"""Messages of devices as requests, settings of MQTT, and what is tried again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlpack.runtime.http_errors import BadRequest, ContentTooLarge, ScoringFailed
from mlpack.runtime.iotedge import merged
from mlpack.runtime.mqtt.pending import PendingMessages
from mlpack.runtime.mqtt.settings import MqttSettings, matches
from mlpack.runtime.predictor import Predictor, Stopped, read_message, write_prediction
from mlpack.runtime.scorer import Payload, Reply
from mlpack.runtime.server import open_transports
from mlpack.runtime.settings import NotServable
from tests.examples.fan import fan_release
from tests.runtime.support import release, started

FIELDS = ("rotation", "sound")


def untyped(content: bytes) -> Payload:
    """A message without a content type."""
    return Payload(content=content, content_type="")


def read(text: str, **said: object) -> tuple[object, bytes, str]:
    message = Payload(content=text.encode())
    found = read_message(message, fields=FIELDS, **said)  # type: ignore[arg-type]
    return found.device, found.payload.content, found.payload.content_type


def test_a_reading_is_put_in_the_order_of_the_fields() -> None:
    assert read('{"sound": 48.5, "deviceID": "1", "rotation": 600, "more": 1}') == (
        "1",
        b'{"params":[600,48.5]}',
        "application/json",
    )


@pytest.mark.parametrize("text", ['{"params": [1, 2]}', '{"data": [[1, 2]], "deviceID": 3}', "[1]"])
def test_what_is_a_request_already_is_left_alone(text: str) -> None:
    assert read(text)[1] == text.encode()


def test_without_fields_a_message_is_the_request() -> None:
    found = read_message(Payload(content=b'{"deviceID": "1", "anything": 1}'))
    assert (found.device, found.payload.content) == ("1", b'{"deviceID": "1", "anything": 1}')


def test_pictures_are_known_by_their_first_bytes_or_by_what_the_sender_says() -> None:
    for content, said, kind in (
        (b"\xff\xd8\xff\xe0", "", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "", "image/png"),
        (b"??", "image/png", "image/png"),
    ):
        message = Payload(content=content, content_type=said)
        assert read_message(message).payload.content_type == kind


@pytest.mark.parametrize("text", ["", "nothing", '{"rotation": NaN}', "\udcff"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        read_message(Payload(content=text.encode("utf-8", "surrogateescape")), fields=FIELDS)


def test_a_missing_number_is_named_and_size_is_bounded() -> None:
    with pytest.raises(BadRequest, match="no sound") as caught:
        read('{"rotation": 1}')
    assert caught.value.field == "sound"
    with pytest.raises(ContentTooLarge, match="17 bytes; 16 are"):
        read('{"rotation": 100}', most=16)


def test_predictions_name_the_device_and_hold_what_the_script_lets_out() -> None:
    answer = {"fault": "0", "probability": 0.25}
    assert write_prediction(answer, "1", ("fault",)) == b'{"deviceID":"1","fault":"0"}'
    assert write_prediction(answer) == b'{"fault":"0","probability":0.25}'
    assert write_prediction([1], "1") == b'{"deviceID":"1","result":[1]}'
    rows = {"result": [{"fault": "0"}]}
    assert write_prediction(rows, "1", ("fault",)) == b'{"deviceID":"1","result":[{"fault":"0"}]}'
    reply = Reply(content=b'{"fault": "1"}')
    assert write_prediction(reply, "1") == b'{"deviceID":"1","fault":"1"}'
    for status, problem in ((418, BadRequest), (503, ScoringFailed)):
        with pytest.raises(problem, match=str(status)):
            write_prediction(Reply(status=status))
    with pytest.raises(ScoringFailed, match="not JSON"):
        write_prediction({"fault": object()})


def test_settings_of_the_broker(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a b\n")
    (tmp_path / "ca.pem").write_text("")
    found = MqttSettings.read(
        {
            "MQTT_BROKER": "broker.example.com",
            "MQTT_CA": str(tmp_path / "ca.pem"),
            "MQTT_PASSWORD_FILE": str(tmp_path / "password"),
            "MQTT_PASSWORD": "not this",
            "MQTT_VERSION": "3.1.1",
        }
    )
    assert (found.host, found.port, found.tls) == ("broker.example.com", 8883, True)
    assert (found.password, found.version) == ("a b", 4)
    assert (found.topic, found.predictions) == ("fan/messages", "fan/anomaly")
    assert "a b" not in repr(found)
    found = MqttSettings.read({"MQTT_BROKER": "[::1]:2883"})
    assert (found.host, found.port, found.tls) == ("::1", 2883, False)
    assert MqttSettings.read({"MQTT_BROKER": "mqtts://b"}).tls


def test_mqtt_host_is_another_name_of_the_broker(caplog: pytest.LogCaptureFixture) -> None:
    found = MqttSettings.read({"MQTT_HOST": "mosquitto"})
    assert (found.host, found.port) == ("mosquitto", 1883)
    found = MqttSettings.read({"MQTT_HOST": "mosquitto", "MQTT_PORT": "1884"})
    assert (found.host, found.port) == ("mosquitto", 1884)
    kubernetes = {"MQTT_HOST": "mqtt", "MQTT_PORT": "tcp://10.43.0.7:1883"}
    assert MqttSettings.read(kubernetes).address == "mqtt:1883"
    assert MqttSettings.read({"MQTT_HOST": "b", "MQTT_BROKER": "b"}).host == "b"
    assert not caplog.messages
    assert MqttSettings.read({"MQTT_HOST": "a", "MQTT_BROKER": "b"}).host == "b"
    assert "MQTT_HOST" in caplog.text


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MQTT_BROKER": "http://b"}, "MQTT_BROKER"),
        ({"MQTT_BROKER": "b:port"}, "MQTT_BROKER"),
        ({"MQTT_HOST": "b", "MQTT_PORT": "none"}, "MQTT_HOST"),
        ({"MQTT_BROKER": ":1883"}, "MQTT_BROKER"),
        ({"MQTT_BROKER": "b", "MQTT_VERSION": "4"}, "MQTT_VERSION"),
        ({"MQTT_BROKER": "b", "MQTT_CA": "/nowhere"}, "MQTT_CA"),
        ({"MQTT_BROKER": "b", "MQTT_PASSWORD_FILE": "/nowhere"}, "MQTT_PASSWORD_FILE"),
        ({"MQTT_BROKER": "b", "MQTT_PASSWORD_FILE": "/dev/zero"}, "is not a regular file"),
        ({"MQTT_BROKER": "b", "MQTT_DEV_TOPIC": "fan/#"}, "MQTT_PREDICT_TOPIC"),
        ({"MQTT_BROKER": "b", "MQTT_PREDICT_TOPIC": "fan/+"}, "wildcard"),
        ({"MQTT_BROKER": "b", "SCORING_URL": "fan:5001"}, "SCORING_URL"),
    ],
)
def test_settings_that_make_no_sense_are_named(
    environment: dict[str, str], message: str, tmp_path: Path
) -> None:
    script = "def init(): pass\ndef run(data): return data\n"
    with started(release(tmp_path, script)) as module, pytest.raises(NotServable, match=message):
        open_transports(module, environment)


def test_without_an_environment_there_is_only_http(tmp_path: Path) -> None:
    script = "def init(): pass\ndef run(data): return data\n"
    with started(release(tmp_path, script)) as module:
        assert open_transports(module, {}) == []


def test_filters_cover_topics() -> None:
    assert matches("#", "a/b")
    assert matches("a/#", "a")
    assert matches("+/b", "a/b")
    assert not matches("a/+", "a")
    assert not matches("a/b", "a/b/c")


def test_readings_are_acknowledged_in_order_and_only_on_their_connection() -> None:
    readings, acknowledged = PendingMessages(), list[int]()
    readings.connected()
    one, two, three = (readings.take(untyped(b"x"), packet, again=False) for packet in (1, 2, 3))
    assert one is not None
    assert two is not None
    assert three is not None
    two.prediction, three.settled = 7, True
    readings.confirm(7)
    readings.settle(acknowledged.append)
    assert acknowledged == []
    one.settled = True
    readings.settle(acknowledged.append)
    assert acknowledged == [1, 2, 3]

    four, five = (readings.take(untyped(b"%d" % packet), packet, again=False) for packet in (4, 5))
    assert four is not None
    assert five is not None
    readings.disconnected()
    readings.connected()
    assert readings.take(untyped(b"4"), 4, again=True) is None, "it is in work"
    again = readings.take(untyped(b"other"), 5, again=True)
    assert again is not None, "the same packet's name, another message"
    four.settled = five.settled = again.settled = True
    readings.settle(acknowledged.append)
    assert acknowledged[3:] == [4, 5]


def test_what_does_not_fit_is_asked_for_again() -> None:
    readings, acknowledged = PendingMessages(most_bytes=2000), list[int]()
    readings.connected()
    kept = [readings.take(untyped(bytes(500)), packet, again=False) for packet in range(1, 5)]
    assert [each is not None for each in kept] == [True, True, False, False]
    for each in kept[:2]:
        assert each is not None
        each.settled = True
    assert readings.settle(acknowledged.append)
    assert acknowledged == [1, 2]
    readings.connected()
    assert readings.take(untyped(b""), 3, again=True) is not None


def test_desired_properties_are_merged_deep() -> None:
    before = {"a": {"b": {"c": 1, "d": 2}}, "e": 1}
    assert merged(before, {"a": {"b": {"c": None}}, "e": {"f": 1}}) == {
        "a": {"b": {"d": 2}},
        "e": {"f": 1},
    }


@contextmanager
def elsewhere(answers: list[tuple[int, bytes]]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives ``answers`` one after the other, and what it was sent."""
    sent: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["content-length"])))
            status, content = answers.pop(0)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/score", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


Predict = Callable[[list[tuple[int, bytes]]], tuple[bytes | None, dict[str, int], list[bytes]]]


@pytest.fixture
def predict(tmp_path: Path) -> Predict:
    """The prediction of one reading, scored by a server that answers so."""

    def made(
        answers: list[tuple[int, bytes]],
    ) -> tuple[bytes | None, dict[str, int], list[bytes]]:
        settings = release(tmp_path, 'PREDICTION = ("fault",)\nFIELDS = ("rotation", "sound")\n')
        script = settings.script.read_text() + "def init(): pass\ndef run(data): return 1\n"
        settings.script.write_text(script)
        with started(settings) as module, elsewhere(answers) as (url, sent):
            predictor = Predictor(module, "mqtt", url)
            message = json.dumps({"deviceID": "1", "rotation": 600, "sound": 48}).encode()
            found = predictor.predict(untyped(message), threading.Event())
            predictor.close()
            return found, module.metrics.messages("mqtt"), sent

    return made


def test_scoring_elsewhere_is_tried_again_until_it_answers(predict: Predict) -> None:
    found, counted, sent = predict([(503, b"busy"), (404, b"not yet"), (200, b'{"fault": "1"}')])
    assert found == b'{"deviceID":"1","fault":"1"}'
    assert counted == {"retried": 2, "predicted": 1}
    assert sent == [b'{"params":[600,48]}'] * 3


@pytest.mark.parametrize("answer", [(400, b"no"), (500, b"failed"), (200, b"not JSON")])
def test_what_would_be_refused_again_is_given_up(
    predict: Predict, answer: tuple[int, bytes]
) -> None:
    found, counted, _ = predict([answer])
    assert found is None
    assert counted == {"refused": 1}


def test_a_stop_ends_the_tries(tmp_path: Path) -> None:
    settings = release(tmp_path, "def init(): pass\ndef run(data): return 1\n")
    stopping = threading.Event()
    stopping.set()
    with started(settings) as module, pytest.raises(Stopped):
        Predictor(module, "mqtt", "http://127.0.0.1:9/score").predict(untyped(b"{}"), stopping)


def test_a_script_s_exception_ends_a_message_and_not_the_worker(tmp_path: Path) -> None:
    script = "def init(): pass\ndef run(data): return 1 / (len(data) - 2)\n"
    with started(release(tmp_path, script)) as module:
        predictor = Predictor(module, "mqtt")
        assert predictor.predict(untyped(b"{}"), threading.Event()) is None
        assert predictor.predict(untyped(b"[1]"), threading.Event()) == b'{"result":1.0}'


def test_the_fan_s_threshold_is_set_from_the_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlpack.runtime.settings import RuntimeSettings

    root = fan_release(tmp_path / "fan")
    settings = RuntimeSettings.read({"AML_APP_ROOT": str(root)})
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(settings.model_dir))
    reading = b'{"rotation":600,"temperature":40,"vibration":150,"sound":48}'
    with started(settings) as module:
        predictor = Predictor(module, "mqtt")

        def fault() -> bytes | None:
            return predictor.predict(untyped(reading), threading.Event())

        assert fault() == b'{"fault":"0"}'
        module.configure({"threshold": 0})
        assert fault() == b'{"fault":"1"}'
        for wrong in ("0.5", True, 1.5, None):
            with pytest.raises(BadRequest, match="threshold is"):
                module.configure({"threshold": wrong})
        assert fault() == b'{"fault":"1"}'
        module.configure({})
        assert fault() == b'{"fault":"0"}'
