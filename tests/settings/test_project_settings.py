"""A whole ``mlpack.toml``: mistakes have their line and the nearest right word."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlpack.errors import UsageError
from mlpack.kinds import ENGINES
from mlpack.plan.engines import PER_CONNECTION, engine
from mlpack.settings.project_settings import (
    LARGER_TABLES,
    TLS,
    InvalidSettings,
    Override,
    ProjectSettings,
    environment_overrides,
    table_type,
)
from mlpack.settings.reader import setting_lines, settings_of
from tests.support import run

TEXT = """\
# A comment = "that looks like a setting"
[model]
name = "fan"

[base]
platforms = [
    "linux/amd64", # [x]
    "linux/arm64",
]
requirements = '''
[not.a.table]
a = 1
'''

[device]
engine = "moby"

[deploy.groups.vans]
target = "tags.deviceGroup = 'vans'"
engine = "podman"
tariff = "flat"
labels = { team = "edge" }

[deploy.groups."depots"]
target = "tags.deviceGroup = 'depots'"
"""


def test_every_setting_has_its_line() -> None:
    lines = setting_lines(TEXT)
    assert {path.removeprefix("mlpack.toml."): line for path, line in lines.items()} == {
        "model": 2,
        "model.name": 3,
        "base": 5,
        "base.platforms": 6,
        "base.requirements": 10,
        "device": 15,
        "device.engine": 16,
        "deploy": 18,
        "deploy.groups": 18,
        "deploy.groups.vans": 18,
        "deploy.groups.vans.target": 19,
        "deploy.groups.vans.engine": 20,
        "deploy.groups.vans.tariff": 21,
        "deploy.groups.vans.labels": 22,
        "deploy.groups.vans.labels.team": 22,
        "deploy.groups.depots": 24,
        "deploy.groups.depots.target": 25,
    }


def require_tariff(name: str) -> None:
    if name not in ("flat", "per-mb"):
        raise UsageError(f"{name!r} is unknown", hint="one of: flat, per-mb")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('engine = "podman"', 'engine = "dokcer"', "line 20: deploy.groups.vans.engine: 'dokcer'"),
        ('engine = "podman"', 'engine = "dokcer"', "did you mean 'docker'?"),
        ('engine = "moby"', 'engine = "mobby"', "line 16: device.engine: 'mobby' is not an engine"),
        ('engine = "moby"', 'tls = "rsa-chian"', "line 16: device.tls: is 'rsa-chian'"),
        ('engine = "moby"', 'tls = "rsa-chian"', "did you mean 'rsa-chain'?"),
        ('tariff = "flat"', 'tariff = "flt"', "line 21: deploy.groups.vans.tariff: 'flt'"),
        ('"linux/arm64"', '"arm64"', "line 6: base.platforms[1]: 'arm64' is not a platform"),
        ("target = \"tags.deviceGroup = 'vans'\"", "", "line 18: deploy.groups.vans: 'target' is"),
        ("[device]", "[devcie]", "line 15: devcie: is not a setting (did you mean 'device'?)"),
        ('tariff = "flat"', 'link = "fast"', "line 21: deploy.groups.vans.link: 'fast' is not"),
    ],
)
def test_a_mistake_has_its_line(right: str, wrong: str, message: str) -> None:
    ProjectSettings.parse(TEXT, (), require_tariff)
    assert TEXT.count(right) >= 1
    with pytest.raises(InvalidSettings) as caught:
        ProjectSettings.parse(TEXT.replace(right, wrong, 1), (), require_tariff)
    assert message in str(caught.value)
    assert str(caught.value).startswith("mlpack.toml line ")


def test_a_mistake_of_the_environment_has_its_variable() -> None:
    found = environment_overrides({"MLPACK_ENGINE": "dokcer", "MLPACK_TLS": "", "HOME": "/"})
    assert found == (Override("MLPACK_ENGINE", "device", "engine", "dokcer"),)
    with pytest.raises(InvalidSettings, match=r"^MLPACK_ENGINE: 'dokcer' is not an engine"):
        ProjectSettings.parse(TEXT, found)
    over = environment_overrides({"MLPACK_DEVICES": "5", "MLPACK_ENGINE": "docker"})
    read = ProjectSettings.parse(TEXT, over)
    assert (read.fleet.devices, read.device.engine) == (5, "moby")


def test_the_names_are_those_that_were_measured() -> None:
    assert [engine(name).name for name in ENGINES] == ["moby", "containerd", "podman"]
    assert set(TLS) == set(PER_CONNECTION)


@pytest.mark.parametrize("command", ["groups", "build", "models", "--json doctor"])
def test_every_command_refuses_a_wrong_engine_of_a_group(tmp_path: Path, command: str) -> None:
    (tmp_path / "mlpack.toml").write_text(TEXT.replace("podman", "dokcer"))
    done = run("-C", str(tmp_path), *command.split())
    assert done.exit_code == 1
    said = "".join(f"{done.stdout}{done.stderr}".split())
    assert "line20:deploy.groups.vans.engine:'dokcer'isnotanengine" in said


HOSTILE = {
    "an integer of 5000 digits": "[fleet]\ndevices = " + "9" * 5000,
    "900 nested arrays": "[module]\noptions = {a=" + "[" * 900 + "]" * 900 + "}",
    "5000 nested tables": "[module.options" + ".x" * 5000 + "]\ny = 1",
    "300 nested tables": "[module.options" + ".x" * 300 + "]\ny = 1",
    "a condition with a number of 5000 digits": "[deploy.groups.vans]\ntarget = 'tags.a = "
    + "1" * 5000
    + "'",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_python_cannot_hold_is_an_error_of_the_settings(text: str) -> None:
    with pytest.raises(InvalidSettings):
        ProjectSettings.parse(f'[model]\nname = "fan"\n{text}\n')


def test_a_variable_of_too_many_digits_is_not_a_number() -> None:
    overrides = environment_overrides({"MLPACK_DEVICES": "9" * 5000})
    with pytest.raises(InvalidSettings, match="MLPACK_DEVICES"):
        ProjectSettings.parse('[model]\nname = "fan"\n', overrides)


@pytest.mark.parametrize("mark", ["\u2028", "\x85"])
def test_only_a_line_feed_begins_a_line(mark: str) -> None:
    text = f"[model]\nname = 'fan' # a{mark}b\nscoring = 'a{mark}b'\n[fleet]\ndevices = -1\n"
    with pytest.raises(InvalidSettings, match=r"line 5: fleet\.devices"):
        ProjectSettings.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "scoring = '''\n" + "]\n" * 60_000 + "'''\n",
        "[module]\nmounts = [\n" + "'/a:/b', # ]\n" * 8000 + "]\n",
        "x" + ".x" * 5000 + " = 1\n",
    ],
    ids=["a long text", "a long array", "a long key"],
)
def test_lines_are_not_looked_for_at_any_cost(text: str) -> None:
    read = f"[model]\nname = 'fan'\n{text}[fleet]\ndevices = -1\n"
    started = time.process_time()
    with pytest.raises(InvalidSettings):
        ProjectSettings.parse(read)
    assert time.process_time() - started < 10


def test_the_larger_tables_are_not_imported_before_they_are_used() -> None:
    program = (
        "import sys\n"
        "from mlpack.settings.project_settings import ProjectSettings\n"
        "found = ProjectSettings.parse('[model]\\nname = \"fan\"')\n"
        "assert {'mlpack.settings.edge', 'mlpack.settings.targets'}.isdisjoint(sys.modules)\n"
        "print(found.module.port, found.deploy.retain)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("5001 2\n", "")


@pytest.mark.parametrize("name", LARGER_TABLES)
def test_no_variable_overrides_a_larger_table(name: str) -> None:
    assert not any(found.variable for _, _, found in settings_of(table_type(name)))


@pytest.mark.parametrize("name", LARGER_TABLES)
def test_a_mistake_in_a_larger_table_is_found_by_every_command(name: str) -> None:
    with pytest.raises(InvalidSettings, match=f"line 4: {name}.nothing"):
        ProjectSettings.parse(f'[model]\nname = "fan"\n[{name}]\nnothing = 1')
