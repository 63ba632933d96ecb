"""Device groups in ``mlpack.toml``, and the amounts written there."""

from __future__ import annotations

from decimal import Decimal

import pytest

from mlpack.settings.project_settings import InvalidSettings, ProjectSettings
from mlpack.settings.reader import InvalidAmount, parse_share, share_text, stages_text
from mlpack.settings.targets import DeviceGroup

HEAD = '[model]\nname = "fan"\n'


def group(settings: str) -> DeviceGroup:
    text = f"{HEAD}[deploy.groups.vans]\ntarget = \"tags.deviceGroup = 'vans'\"\n{settings}"
    return ProjectSettings.parse(text).deploy.groups["vans"]


def test_a_group_needs_only_its_target() -> None:
    found = group("")
    assert found.condition.text == "tags.deviceGroup = 'vans'"
    assert stages_text(found.stages) == "1%,10%,50%,100%"
    assert (found.success, found.max_failures) == (Decimal("0.95"), Decimal("0.02"))


def test_a_group_says_everything() -> None:
    found = group(
        'priority = 20\nstages = ["5%", "100%"]\nengine = "podman"\ntariff = "flat"\n'
        'link = "64 kbit/s"\nrequire = "fan:3"\nsuccess = "99%"\nmax_failures = "0.5%"\n'
        'soak = "30m"\nlabels = { team = "edge" }\n'
    )
    assert found.stages == (Decimal("0.05"), Decimal(1))
    assert (found.priority, found.engine, found.tariff) == (20, "podman", "flat")
    assert (found.link_bytes_per_second, found.soak_seconds) == (8000, 1800)
    assert (found.require, found.labels) == ("fan:3", {"team": "edge"})
    assert (found.success, found.max_failures) == (Decimal("0.99"), Decimal("0.005"))


def test_the_hub_and_its_limits() -> None:
    text = f'{HEAD}[deploy]\nhub = "fleet.azure-devices.net"\nretain = 3\nlimit = 10\n'
    found = ProjectSettings.parse(text).deploy
    assert (found.hub, found.retain, found.limit, found.groups) == (
        "fleet.azure-devices.net",
        3,
        10,
        {},
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('stages = "10%,5%,100%"', "stages: the stages '10%,5%,100%' do not rise"),
        ('stages = "1%,50%"', "do not end with 100%"),
        ('stages = "0%,100%"', "holds no device"),
        ('stages = "one"', "'one' is not a share"),
        ('max_failures = "200%"', "'200%' is not a share"),
        ('link = "fast"', "link: 'fast' is not a speed"),
        ('link = "1 bit/s"', "is not a speed"),
        ('soak = "a while"', "soak: 'a while' is not a time"),
        ('require = "fan"', "'fan' is not NAME:VERSION"),
        ("labels = { mlpack_x = 'y' }", "labels.mlpack_x: cannot be a label"),
        ("priority = 0", "priority: is 0, less than 1"),
        ('stage = "1%"', "stage: is not a setting (did you mean 'stages'?)"),
    ],
)
def test_a_wrong_setting_is_named(settings: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        group(settings)
    assert said in str(caught.value)
    assert "deploy.groups.vans" in str(caught.value)


def test_a_wrong_target_has_its_column() -> None:
    with pytest.raises(InvalidSettings, match=r"vans.target: target condition, column 8") as caught:
        ProjectSettings.parse(f'{HEAD}[deploy.groups.vans]\ntarget = "tags.a == 1"\n')
    assert "for example" in caught.value.hint


def test_a_group_may_name_its_devices() -> None:
    found = ProjectSettings.parse(f'{HEAD}[deploy.groups.vans]\ntarget = ["van-1", "van-2"]\n')
    assert found.deploy.groups["vans"].condition.text == "deviceId = 'van-1' OR deviceId = 'van-2'"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ('["van 1"]', "target: 'van 1' is not the id of a device"),
        ("[]", "target: the target condition is empty"),
        ("[1]", "target[0]: is not a string"),
        ("7", "target: is not a string"),
        ("\"deviceId IN ['a']\"", "target: target condition, column 10: a target condition of"),
    ],
)
def test_what_names_no_devices(target: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        ProjectSettings.parse(f"{HEAD}[deploy.groups.vans]\ntarget = {target}\n")
    assert said in str(caught.value)


def test_a_connection_string_is_no_host_name() -> None:
    with pytest.raises(InvalidSettings, match="is not a host name") as caught:
        ProjectSettings.parse(f'{HEAD}[deploy]\nhub = "HostName=a;SharedAccessKey=x"\n')
    assert "keys stay out" in caught.value.hint


def test_a_group_without_a_usable_name_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="'My Vans' is not a name of a device group"):
        ProjectSettings.parse(f'{HEAD}[deploy.groups."My Vans"]\ntarget = "tags.a = 1"\n')


@pytest.mark.parametrize("text", ["1%", "0.01%", "33.33%", "100%"])
def test_shares_come_back_as_written(text: str) -> None:
    assert share_text(parse_share(text)) == text


@pytest.mark.parametrize("text", ["0.001%", "-1%", "2", "%", "1e1%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(InvalidAmount):
        parse_share(text)
