"""Bytes into money: the origin case, every kind of tariff, and what is not known."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.json_document import document
from mlpack.plan.cost import CostReport, InvalidTariff, Metered, Pooled, Tariff, cost

TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "tariffs"
MB = 1_000_000


def shipped(name: str) -> Tariff:
    return Tariff.parse((TEMPLATES / f"{name}.toml").read_text(encoding="utf-8"), name)


def tariff(terms: Metered | Pooled) -> Tariff:
    return Tariff(
        name="t",
        title="T",
        currency="EUR",
        source="a contract",
        date=date(2026, 1, 1),
        per="month",
        terms=terms,
    )


def amounts(bill: CostReport) -> tuple[str, str | None, str]:
    return str(bill.fixed), None if bill.usage is None else str(bill.usage), str(bill.total)


@pytest.mark.parametrize(
    ("devices", "total", "beyond"),
    [(1_000, "1440.00", 58_000 * MB), (100_000, "144000.00", 5_800_000 * MB)],
)
def test_the_origin_case(devices: int, total: str, beyond: int) -> None:
    bill = cost(shipped("origin-bundle"), 60 * MB, devices)
    assert amounts(bill) == (total, None, total)
    assert bill.beyond_bytes == beyond
    assert not bill.complete


def test_the_origin_case_says_by_how_much_the_pool_is_exceeded_and_what_is_not_known() -> None:
    bill = cost(shipped("origin-bundle"), 60 * MB, 1_000)
    assert bill.warnings == (
        "60.0 MB to each of 1,000 devices is 60.0 GB, and 2.0 GB are included per month: "
        "58.0 GB beyond the pool",
    )
    assert bill.unknowns == (
        "the price of 58.0 GB beyond the pool, which the tariff does not state",
    )


def test_a_small_layer_stays_in_the_pool_and_the_bundles_are_due_all_the_same() -> None:
    bill = cost(shipped("origin-bundle"), 22_000, 1_000)
    assert amounts(bill) == ("1440.00", "0", "1440.00")
    assert (bill.complete, bill.warnings, bill.beyond_bytes) == (True, (), 0)
    assert bill.included_bytes == 2_000 * MB


@pytest.mark.parametrize(
    ("devices", "bundles"), [(0, 0), (1, 1), (499, 1), (500, 1), (501, 2), (1_001, 3)]
)
def test_a_bundle_that_is_begun_is_paid_whole(devices: int, bundles: int) -> None:
    assert cost(shipped("origin-bundle"), 1, devices).total == 720 * bundles


@pytest.mark.parametrize(
    ("devices", "each", "beyond"),
    [
        (500, 2 * MB, 0),
        (500, 2 * MB + 1, 500),
        # 250 devices of the second bundle leave room that the first one cannot use.
        (750, 3 * MB, 500 * MB),
        (501, 2 * MB + 1, 500),
        (1, 1_000 * MB + 7, 7),
    ],
)
def test_each_bundle_has_a_pool_of_its_own(devices: int, each: int, beyond: int) -> None:
    bill = cost(shipped("origin-bundle"), each, devices)
    assert bill.beyond_bytes == beyond
    assert bool(bill.unknowns) == bool(beyond)


def test_overage_is_priced_where_the_tariff_says_how() -> None:
    terms = Pooled(
        price=Decimal(720),
        devices=500,
        pool_bytes=1_000 * MB,
        overage_price=Decimal("0.01"),
        overage_unit_bytes=MB,
    )
    bill = cost(tariff(terms), 60 * MB, 1_000)
    assert amounts(bill) == ("1440.00", "580.00", "2020.00")
    assert bill.complete
    assert len(bill.warnings) == 1


def test_a_price_per_megabyte() -> None:
    bill = cost(shipped("per-mb"), 45 * MB, 100)
    assert amounts(bill) == ("100.00", "135.00", "235.00")
    assert (bill.warnings, bill.unknowns) == ((), ())


@pytest.mark.parametrize(
    ("sent", "billed"), [(0, 0), (1, 1_000), (1_000, 1_000), (1_001, 2_000), (21_950, 22_000)]
)
def test_the_volume_of_each_device_is_rounded_up_to_the_step(sent: int, billed: int) -> None:
    bill = cost(shipped("per-mb"), sent, 1_000)
    assert bill.usage == Decimal(billed) * 1_000 / MB * Decimal("0.03")


def test_a_flat_price_follows_the_devices_not_the_bytes() -> None:
    terms = Pooled(price=Decimal("2.50"))
    small, large = (cost(tariff(terms), sent, 1_000) for sent in (1, 10**12))
    assert amounts(small) == amounts(large) == ("2500.00", "0", "2500.00")
    assert large.included_bytes is None
    assert large.complete


def test_a_flat_price_with_a_volume_knows_where_it_ends() -> None:
    bill = cost(shipped("flat"), 501 * MB, 10)
    assert amounts(bill) == ("140.00", None, "140.00")
    assert bill.beyond_bytes == 10 * MB


def test_sums_are_rounded_once_and_halves_up() -> None:
    terms = Metered(price=Decimal("0.004"), unit_bytes=1, price_per_device=Decimal("0.004"))
    bill = cost(tariff(terms), 1, 1)
    # Each rounds to nothing; their sum, 0.008, does not.
    assert (bill.fixed, document(bill)["usage"]) == (Decimal("0.00"), "0.00")
    assert bill.total == Decimal("0.01")
    half = Metered(price=Decimal("0.005"), unit_bytes=1)
    assert cost(tariff(half), 1, 1).total == Decimal("0.01")


def test_the_bill_as_json_has_exact_texts_and_null_for_what_is_not_known() -> None:
    shown = json.loads(json.dumps(document(cost(shipped("origin-bundle"), 60 * MB, 1_000))))
    assert shown["total"] == "1440.00"
    assert shown["usage"] is None
    assert shown["complete"] is False
    assert shown["lines"] == [
        {
            "what": "bundles, per month",
            "kind": "fixed",
            "quantity": "2",
            "unit": "bundle of 500 devices",
            "price": "720",
            "amount": "1440",
        },
        {
            "what": "bytes beyond the pool",
            "kind": "usage",
            "quantity": "58000",
            "unit": "1,000,000 bytes",
            "price": None,
            "amount": None,
        },
    ]


@given(
    sent=st.integers(0, 10**9),
    more=st.integers(0, 10**9),
    devices=st.integers(0, 200_000),
    name=st.sampled_from(["per-mb", "flat", "origin-bundle"]),
)
def test_more_bytes_never_cost_less_and_never_change_the_fixed_part(
    sent: int, more: int, devices: int, name: str
) -> None:
    less, greater = (cost(shipped(name), each, devices) for each in (sent, sent + more))
    assert less.fixed == greater.fixed
    assert less.total <= greater.total
    assert less.beyond_bytes <= greater.beyond_bytes
    for bill in (less, greater):
        assert bill.complete == (bill.usage is not None)


HEAD = """title = "T"
currency = "USD"
source = "S"
date = 2026-01-01
price = 1
"""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("title = ", "tariff t is not TOML: "),
        ("price = " + "9" * 5000, "tariff t is not TOML: "),
        ("price = 1e9999999999999999999", "tariff t is not TOML: "),
        ("price = " + "[" * 5000, "tariff t is not TOML: "),
        (HEAD, "tariff t: 'kind' is missing"),
        (HEAD + 'kind = "free"', "tariff t.kind: 'free' is none of per-mb, flat, bundle"),
        (HEAD + 'kind = "per-mb"', "tariff t: 'unit_bytes' is missing"),
        (HEAD + 'kind = "per-mb"\nunit_bytes = 0', "tariff t.unit_bytes: is 0, less than 1"),
        (
            HEAD + 'kind = "flat"\nunit_bytes = 5',
            "tariff t.unit_bytes: ",
        ),
        (HEAD + 'kind = "bundle"\ndevices = 5', "tariff t: 'pool_bytes' is missing"),
        (HEAD.replace("= 1\n", "= -1\n") + 'kind = "flat"', "tariff t.price: -1 is not a price"),
        (
            HEAD.replace("= 1\n", "= inf\n") + 'kind = "flat"',
            "tariff t.price: Infinity is not a price",
        ),
        (HEAD.replace("= 1\n", "= true\n") + 'kind = "flat"', "tariff t.price: is not a number"),
        (HEAD.replace("2026-01-01", '"2026"') + 'kind = "flat"', "tariff t.date: is not a date "),
        (
            HEAD.replace("2026-01-01", "2026-01-01T10:00:00") + 'kind = "flat"',
            "tariff t.date: is not a date ",
        ),
        (
            HEAD.replace("USD", "$") + 'kind = "flat"',
            "tariff t.currency: '$' is not a code like USD",
        ),
        (HEAD.replace('"S"', '""') + 'kind = "flat"', "tariff t.source: is empty"),
        (
            HEAD.replace('"T"', r'"\u001b[31mT"') + 'kind = "flat"',
            "tariff t.title: ",
        ),
    ],
)
def test_a_tariff_that_cannot_be_used_names_the_entry(text: str, problem: str) -> None:
    with pytest.raises(InvalidTariff) as caught:
        Tariff.parse(text, "t")
    assert str(caught.value).startswith(problem)
    assert caught.value.hint


def test_prices_are_read_exactly() -> None:
    assert shipped("per-mb").terms == Metered(
        price=Decimal("0.03"),
        unit_bytes=MB,
        step_bytes=1_000,
        price_per_device=Decimal("1.00"),
    )


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_tariff_says_where_it_comes_from_and_when(path: Path) -> None:
    read = shipped(path.stem)
    assert read.source
    assert read.date.year == 2026
