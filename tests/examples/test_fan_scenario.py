"""What is around the fan module: simulator, client, bridge, and the files for the device."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from tests.examples.fan import EXAMPLE, FIELDS, expected, fan_release, real_readings
from tests.runtime.support import serving
from tests.support import SHARED, require

EDGE = EXAMPLE / "edge"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fan_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_simulator_s_ranges_are_those_of_the_training() -> None:
    sensors, train = load(EXAMPLE / "sensors.py"), load(EXAMPLE / "train.py")
    assert (sensors.NORMAL, sensors.FAULTY) == (train.NORMAL, train.FAULTY)
    made = list(islice(sensors.readings(3, 1, seed=1), 3000))
    assert {each["deviceID"] for each in made} == {"1", "2", "3"}
    assert set(made[0]) == {"deviceID", *FIELDS}
    for device, ranges in (("1", sensors.NORMAL), ("3", sensors.FAULTY)):
        mine = [each for each in made if each["deviceID"] == device]
        for name, (low, high) in zip(FIELDS, ranges, strict=True):
            assert low <= min(each[name] for each in mine)
            assert max(each[name] for each in mine) <= high


def test_a_message_is_one_point() -> None:
    line = load(EXAMPLE / "bridge.py").line
    reading = {"deviceID": "1", "rotation": 600, "sound": 48.5}
    assert line("fan/messages", json.dumps(reading).encode(), 7) == (
        "mqtt_consumer,deviceID=1,topic=fan/messages rotation=600.0,sound=48.5 7"
    )
    assert line("fan/a b", b'{"deviceID": "x,y", "fault": "1"}', 7) == (
        "mqtt_consumer,deviceID=x\\,y,topic=fan/a\\ b fault=1i 7"
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"deviceID": "1"}', '{"a": NaN}', '{"a": true}'])
def test_what_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no numbers|not a JSON|Expecting"):
        load(EXAMPLE / "bridge.py").line("fan/messages", text.encode(), 7)


def test_the_files_for_the_device_are_what_their_templates_give() -> None:
    render = load(EDGE / "render.py")
    written = render.render(render.settings([]))
    assert len(written) == 4
    for name, text in written.items():
        assert (EDGE / name).read_text() == text, "run examples/fan/edge/render.py"


def test_the_files_for_the_device_say_what_the_scenario_asks_for() -> None:
    telegraf = tomllib.loads((EDGE / "telegraf.conf").read_text())
    (consumer,) = telegraf["inputs"]["mqtt_consumer"]
    assert (consumer["topics"], consumer["tag_keys"], consumer["qos"]) == (
        ["fan/#"],
        ["deviceID"],
        1,
    )
    assert telegraf["outputs"]["influxdb"][0]["database"] == "fan"
    assert tomllib.loads((EDGE / "influxdb.conf").read_text())["reporting-disabled"] is True
    assert "uid: fan\n" in (EDGE / "grafana-datasource.yaml").read_text()
    dashboard = json.loads((EDGE / "grafana-dashboard.json").read_text())
    places = set()
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == "fan"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        places |= {(place["x"] + dx, place["y"]) for dx in range(place["w"])}
    assert len(places) == sum(panel["gridPos"]["w"] for panel in dashboard["panels"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_real_readings_over_http_are_what_onnxruntime_says(tmp_path: Path) -> None:
    data = require(SHARED / "fan" / "fan.csv")
    with serving(fan_release(tmp_path / "fan")) as address:
        url = ["--url", f"{address}/score"]
        done = ask(*url, "--csv", str(data))
        one = ask(*url, "450", "52", "240", "58")
        refused = ask("--url", f"{address}/nowhere", "450", "52", "240", "58")
    labels = expected(real_readings(20_000))
    faulty = [line.rsplit(",", 1)[1] for line in data.read_text().splitlines()[1:]]
    right = sum(a == b for a, b in zip(labels, faulty, strict=True)) / 20_000
    assert done.stdout.strip() == (
        f"{labels.count('1')} of 20000 readings are faults, {right:.4f} of the answers are right"
    )
    assert right > 0.9
    assert json.loads(one.stdout)["fault"] == "1"
    assert (refused.returncode, refused.stderr[:6]) == (1, "error:")
    assert "answered 404" in refused.stderr


def ask(*said: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE / "client.py"), *said],
        capture_output=True,
        text=True,
        check=False,
    )
