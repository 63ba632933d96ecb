"""``[budget]`` as users write it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from mlpack.settings.project_settings import BudgetSettings, InvalidSettings, Money, ProjectSettings

HEAD = '[model]\nname = "fan"\n[budget]\n'


def read(text: str) -> BudgetSettings:
    return ProjectSettings.parse(HEAD + text).budget


def test_what_is_not_said_is_not_bounded() -> None:
    assert read("").empty
    assert ProjectSettings.parse('[model]\nname = "fan"\n').budget.empty


def test_bytes_and_money_are_read() -> None:
    found = read('layer = "1 MiB"\ndevice = "200 kB"\nrollout = "0.50 EUR"\n')
    assert found == BudgetSettings(
        layer=1024**2, device=200_000, rollout=Money(Decimal("0.50"), "EUR")
    )
    assert not read('device = "0 B"').empty, "nothing at all may be sent"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layer = "much"', "budget.layer: 'much' is not a size"),
        ("device = 200", "budget.device"),
        ('rollout = "50"', "'50' is not an amount of money"),
        ("rollout = 50.0", "budget.rollout"),
        ('rollout = "$50"', "is not an amount of money"),
        ('rollout = "0.001 EUR"', "is not an amount of money"),
        ('devices = "1 kB"', "budget.devices: is not a setting (did you mean 'device'?)"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read(text)
    assert message in str(caught.value)
