"""The fan's whole scenario on one machine, from the sensors to the dashboard's queries."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.examples.fan import EXAMPLE, trained
from tests.support import unavailable

pytestmark = pytest.mark.e2e

SECONDS = 60


def query(address: str, text: str) -> list[dict[str, Any]]:
    """The series that InfluxDB answers with."""
    said = urllib.parse.urlencode({"db": "fan", "q": text})
    with urllib.request.urlopen(f"{address}/query?{said}", timeout=30) as reply:
        (found,) = json.load(reply)["results"]
    assert "error" not in found, (text, found)
    series = found.get("series", [])
    assert isinstance(series, list)
    return series


def as_grafana_asks(text: str) -> str:
    """A panel's query with its variables filled in."""
    filled = text.replace("$timeFilter", "time > now() - 15m").replace("$__interval", "1s")
    return filled.replace("$device", "(1|2|3)")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_readings_and_predictions_arrive_in_the_database_and_every_process_ends(
    tmp_path: Path,
) -> None:
    for program in ("mosquitto", "influxd"):
        if shutil.which(program, path="/usr/sbin:/usr/bin") is None:
            unavailable(f"{program} is not installed")
    (tmp_path / "fan.onnx").write_bytes(trained())
    command = [sys.executable, str(EXAMPLE / "local.py"), "--folder", str(tmp_path / "run")]
    command += ["--every", "0.05", "--fans", "3", "--faulty", "1", "--remote"]
    with (tmp_path / "said").open("wb") as out:
        local = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out)
    said = tmp_path / "said"
    try:
        deadline = time.monotonic() + SECONDS
        address = ""
        counts: dict[str, int] = {}
        while min(counts.values(), default=0) < 60:
            assert local.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
            if found := re.search(r"InfluxDB (\S+),", said.read_text()):
                address = found[1]
                counts = predictions(address)
        assert set(counts) == {"1", "2", "3"}
        check_dashboard(address)
        check_values(address)
    finally:
        local.send_signal(signal.SIGINT)
        assert local.wait(SECONDS) == 0, said.read_text()
    pids = [int(pid) for pid in re.findall(r"process (\d+)", said.read_text())]
    assert len(pids) == 6
    assert not any(map(alive, pids))


def predictions(address: str) -> dict[str, int]:
    where = "WHERE topic = 'fan/anomaly' GROUP BY deviceID"
    series = query(address, f'SELECT count("fault") FROM "mqtt_consumer" {where}')
    return {each["tags"]["deviceID"]: each["values"][0][1] for each in series}


def check_dashboard(address: str) -> None:
    """Every panel's query is one that InfluxDB knows, and has an answer."""
    dashboard = json.loads((EXAMPLE / "edge" / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert query(address, as_grafana_asks(target["query"])), target["query"]
    (variable,) = dashboard["templating"]["list"]
    (found,) = query(address, variable["query"])
    assert [value for _, value in found["values"]] == ["1", "2", "3"]


def check_values(address: str) -> None:
    """The failing fan, the third, is called one far more often than the others."""
    where = "WHERE topic = 'fan/anomaly' GROUP BY deviceID"
    series = query(address, f'SELECT mean("fault") FROM "mqtt_consumer" {where}')
    share = {each["tags"]["deviceID"]: each["values"][0][1] for each in series}
    assert share["1"] < 0.3
    assert share["2"] < 0.3
    assert share["3"] > 0.6
    where = "WHERE topic = 'fan/messages' AND deviceID = '1'"
    for field, (low, high) in {"rotation": (500, 700), "sound": (45, 52)}.items():
        (found,) = query(
            address, f'SELECT min("{field}"), max("{field}") FROM "mqtt_consumer" {where}'
        )
        _, least, most = found["values"][0]
        assert low <= least < most <= high
