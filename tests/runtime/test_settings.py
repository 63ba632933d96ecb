"""What the environment says, and what it may not say."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from mlpack.runtime import onnx
from mlpack.runtime.settings import NotServable, RuntimeSettings, only_model


def read(root: Path, **environment: str) -> RuntimeSettings:
    return RuntimeSettings.read({"AML_APP_ROOT": str(root), **environment})


def test_where_things_are_is_what_azure_ml_says(tmp_path: Path) -> None:
    found = read(tmp_path, AZUREML_MODEL_DIR="/models/a/1", AZUREML_ENTRY_SCRIPT="x/run.py")
    assert found.model_dir == Path("/models/a/1")
    assert found.script == tmp_path / "x/run.py"
    assert found.port == 5001
    assert found.environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert RuntimeSettings.read({}).script == Path("/var/azureml-app/score.py")
    assert RuntimeSettings.read({}) == RuntimeSettings()


def test_every_bound_can_be_set(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        MLPACK_ALLOW_NAN="1",
        MLPACK_BATCH="8",
        MLPACK_BATCH_WAIT_MS="2.5",
        MLPACK_DRAIN="0",
        MLPACK_GRACE="20",
        MLPACK_HOST="127.0.0.1",
        MLPACK_LOG="WARNING",
        MLPACK_MAX_BODY="1000",
        MLPACK_MAX_PIXELS="2000",
        MLPACK_PORT="80",
        MLPACK_QUEUE="3",
        MLPACK_THREADS="2",
        MLPACK_TIMEOUT="1.5",
    )
    assert (found.allow_nan, found.batch, found.batch_wait) == (True, 8, 0.0025)
    assert (found.drain, found.grace, found.host) == (0.0, 20.0, "127.0.0.1")
    assert (found.level, found.max_body, found.max_pixels) == (logging.WARNING, 1000, 2000)
    assert (found.port, found.queue, found.threads, found.timeout) == (80, 3, 2, 1.5)


@pytest.mark.parametrize(
    ("text", "rows", "forced"),
    [("auto", 32, False), ("on", 32, True), ("off", 1, False), ("4", 4, False), ("", 32, False)],
)
def test_joining_is_forced_or_forbidden(tmp_path: Path, text: str, rows: int, forced: bool) -> None:
    found = read(tmp_path, MLPACK_BATCH=text)
    assert (found.batch, found.batch_forced) == (rows, forced)


def test_azure_mls_timeout_counts_where_ours_is_not_set(tmp_path: Path) -> None:
    assert read(tmp_path, SCORING_TIMEOUT_MS="2500").timeout == 2.5
    assert read(tmp_path, SCORING_TIMEOUT_MS="2500", MLPACK_TIMEOUT="9").timeout == 9
    # What Azure ML's images set.
    assert read(tmp_path, SCORING_TIMEOUT_MS="3600000").timeout == 3600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("MLPACK_PORT", value) for value in ("0", "65536", "-1", "http", "1.5")),
        ("MLPACK_QUEUE", "0"),
        ("MLPACK_TIMEOUT", "0"),
        ("MLPACK_TIMEOUT", "nan"),
        ("MLPACK_TIMEOUT", "soon"),
        ("MLPACK_MAX_BODY", "64MB"),
        ("MLPACK_ALLOW_NAN", "yes"),
        ("MLPACK_LOG", "loud"),
        ("SCORING_TIMEOUT_MS", "-5"),
        ("AZUREML_LOG_LEVEL", "loud"),
    ],
)
def test_what_makes_no_sense_is_named(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(NotServable, match=f"{name}='{value}'"):
        read(tmp_path, **{name: value})


def test_empty_is_not_set(tmp_path: Path) -> None:
    found = read(tmp_path, MLPACK_PORT="", MLPACK_TIMEOUT="", MLPACK_LOG="", AZUREML_MODEL_DIR="")
    assert (found.port, found.timeout, found.log) == (5001, 60.0, "info")


def test_variables_of_azure_mls_server(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        AZUREML_LOG_LEVEL="WARN",
        AML_CORS_ORIGINS="https://a.example, https://.*[.]contoso[.]com,",
        AZUREML_SOURCE_DIRECTORY="lib",
        HTTP_X_MS_SERVER_VERSION="azmlinfsrv/1.5.1",
        AML_APP_INSIGHTS_ENABLED="true",
        AZUREML_DEBUG_PORT="",
        AML_MODEL_DC_STORAGE_ENABLED="false",
        WORKER_COUNT="1",
        WORKER_TIMEOUT="300",
    )
    assert (found.log, found.server_version) == ("warning", "azmlinfsrv/1.5.1")
    assert found.source == found.app_root / "lib"
    assert found.without_effect == ("AML_APP_INSIGHTS_ENABLED", "WORKER_TIMEOUT")
    allowed = ("https://A.example", "https://x.contoso.com")
    for origin in (*allowed, "https://aXexample", "https://x.contoso.com.evil.example"):
        matched = any(each.fullmatch(origin) for each in found.cors_origins)
        assert matched == (origin in allowed)
    assert read(tmp_path, AZUREML_LOG_LEVEL="CRITICAL", MLPACK_LOG="debug").log == "debug"
    with pytest.raises(NotServable, match="AML_CORS_ORIGINS"):
        read(tmp_path, AML_CORS_ORIGINS="https://[")


def test_the_only_model_is_found(tmp_path: Path) -> None:
    (tmp_path / "fan" / "1").mkdir(parents=True)
    assert only_model(tmp_path) == tmp_path / "fan" / "1"
    (tmp_path / "fan" / "2").mkdir()
    assert only_model(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_processors_are_the_containers(
    files: dict[str, str],
    expected: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert onnx.cpu_limit(tmp_path) == expected


def test_affinity_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {2, 5, 6})
    assert onnx.cpu_limit(tmp_path) == 3
    (tmp_path / "cpu.max").write_text("800000 100000")
    assert onnx.cpu_limit(tmp_path) == 3


def test_every_variable_is_documented() -> None:
    checkout = Path(__file__).resolve().parents[2]
    written = (checkout / "docs" / "reference" / "scoring.md").read_text()
    listed = {line.split("`")[1] for line in written.splitlines() if line.startswith("| `")}
    names = re.compile(r"\"((?:MLPACK|AZUREML|AML|SCORING)_[A-Z_]+)\"")
    runtime = checkout / "mlpack" / "runtime"
    read_ = {name for path in runtime.rglob("*.py") for name in names.findall(path.read_text())}
    assert read_ - {"SCORING_URL"} <= listed
