"""Which of several images a device takes."""

from __future__ import annotations

import pytest

from mlpack.oci.descriptor import Platform
from mlpack.oci.platforms import best, compatible, fits

CHOICES = [
    # offered, by architecture and variant; what each device takes
    ("arm/v5 arm/v7", {"arm/v5": "arm/v5", "arm/v6": "arm/v5", "arm/v7": "arm/v7"}),
    ("arm/v5 arm/v7", {"arm": "arm/v7", "arm/v8": "arm/v7", "arm64": ""}),
    ("arm/v7 arm/v6 arm/v5", {"arm/v6": "arm/v6", "arm/v7": "arm/v7", "arm": "arm/v7"}),
    ("arm arm/v6 arm/v7", {"arm": "arm", "arm/v5": "arm", "arm/v6": "arm/v6"}),
    ("arm arm/v6 arm/v7", {"arm/v7": "arm/v7"}),
    ("arm/v6 arm", {"arm": "arm", "arm/v6": "arm/v6", "arm/v7": "arm"}),
    ("arm", {"arm": "arm", "arm/v5": "arm", "arm/v6": "arm", "arm/v7": "arm"}),
    ("arm/v6", {"arm": "arm/v6", "arm/v7": "arm/v6", "arm/v5": ""}),
    ("arm64/v8", {"arm64": "arm64/v8", "arm64/v8": "arm64/v8", "arm64/v9": "arm64/v8"}),
    ("arm64", {"arm64": "arm64", "arm64/v8": "arm64", "arm64/v9": "arm64"}),
    ("arm64/v9 arm64/v8", {"arm64": "arm64/v8", "arm64/v8": "arm64/v8", "arm64/v9": "arm64/v9"}),
    ("arm64/v8 arm64", {"arm64": "arm64", "arm64/v8": "arm64/v8"}),
    ("arm64/v8.5 arm64/v8.7", {"arm64/v9": "arm64/v8.5", "arm64/v9.2": "arm64/v8.7"}),
    ("arm64/v8.5 arm64", {"arm64/v8.2": "arm64", "arm64": "arm64", "arm64/v8.6": "arm64/v8.5"}),
    ("amd64", {"amd64": "amd64", "amd64/v1": "amd64", "amd64/v2": "amd64", "amd64/v3": "amd64"}),
    ("amd64/v3 amd64/v2 amd64", {"amd64": "amd64", "amd64/v1": "amd64", "amd64/v2": "amd64/v2"}),
    ("amd64/v2 amd64", {"amd64/v3": "amd64/v2", "amd64/v2": "amd64/v2", "amd64": "amd64"}),
    ("amd64/v3", {"amd64": "", "amd64/v2": "", "amd64/v3": "amd64/v3"}),
    ("amd64/v1", {"amd64": "amd64/v1", "amd64/v1": "amd64/v1", "amd64/v3": "amd64/v1"}),
    ("386 arm/v7", {"amd64": "", "arm64": "", "riscv64": ""}),
    ("riscv64", {"riscv64": "riscv64", "riscv64/rva22u64": "riscv64"}),
    ("riscv64/rva22u64", {"riscv64": "", "riscv64/rva22u64": "riscv64/rva22u64"}),
]


def platform(text: str) -> Platform:
    """``text`` on Linux; an empty one for none."""
    return Platform.parse(f"linux/{text}")


@pytest.mark.parametrize(("offered", "taken"), CHOICES)
def test_an_exact_match_is_taken_first_and_then_what_runs_as_well(
    offered: str, taken: dict[str, str]
) -> None:
    names = offered.split()
    for device, expected in taken.items():
        number = best(platform(device), [platform(each) for each in names])
        assert ("" if number is None else names[number]) == expected, device


def test_entries_by_other_names_are_found() -> None:
    offered = [
        Platform("Linux", "x86_64"),
        Platform("linux", "aarch64"),
        Platform("linux", "armhf"),
    ]
    assert [best(platform(each), offered) for each in ("amd64", "arm64/v8", "arm/v7")] == [0, 1, 2]


def test_of_equal_entries_the_first_is_taken() -> None:
    assert best(platform("amd64"), [platform("arm64"), *[platform("amd64")] * 2]) == 1


@pytest.mark.parametrize(
    ("wanted", "number"), [("", 0), ("(10.0.20348.9)", 1), ("(10.0.17763)", 0), ("(11.0.1)", None)]
)
def test_windows_starts_containers_of_its_own_build(wanted: str, number: int | None) -> None:
    builds = ("10.0.17763.1", "10.0.20348.1")
    offered = [Platform("windows", "amd64", "", each) for each in builds]
    assert best(Platform.parse(f"windows{wanted}/amd64"), offered) == number


def test_what_runs_where() -> None:
    assert fits(platform("arm/v6"), platform("arm/v7"))
    assert not fits(platform("arm/v7"), platform("arm/v6"))
    assert compatible(platform("arm/v7"), platform("arm/v6"))
    assert not compatible(platform("arm/v7"), platform("arm64"))
