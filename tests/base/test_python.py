"""Choosing packages and wheels: the parts that need no index."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from mlpack.base.python import (
    RUNTIME,
    NoPackages,
    WheelTarget,
    merge,
    needed_packages,
    parse_pins,
    parse_pylock,
)
from mlpack.base.wheels import Interpreter, UnsupportedPlatform, best_wheel, uv_platform
from mlpack.oci.descriptor import Platform
from tests.support import AMD64, ARM64

DEBIAN = Interpreter("usr/bin/python3.11", (3, 11), 36, "opt/mlpack")
ALPINE = Interpreter("usr/bin/python3.12", (3, 12), None, "opt/mlpack")
OLD = Interpreter("usr/bin/python3.11", (3, 11), 17, "opt/mlpack")

PINS = """\
flatbuffers==25.12   # via onnxruntime
numpy==2.4.6         # via -r requirements.in, onnxruntime
onnxruntime==1.31.1  # via -r requirements.in
packaging==26.3      # via onnxruntime
protobuf==7.36       # via onnxruntime, other-thing
mpmath==1.3          # via sympy
sympy==1.14          # via onnxruntime
"""


@pytest.mark.parametrize(
    ("requirements", "spared"),
    [
        pytest.param([], {"flatbuffers", "packaging", "sympy"}, id="only for tools"),
        pytest.param(["packaging"], {"flatbuffers", "sympy"}, id="the project asks"),
        pytest.param(["onnxruntime[symbolic]"], set(), id="an extra keeps all"),
    ],
)
def test_what_only_tools_import_is_left_out(requirements: list[str], spared: set[str]) -> None:
    text = PINS
    if "packaging" in requirements:
        text = text.replace(
            "packaging==26.3      # via onnxruntime",
            "packaging==26.3      # via -r requirements.in, onnxruntime",
        )
    pins = parse_pins(text)
    kept = needed_packages(pins, [Requirement(each) for each in requirements])
    assert set(pins) - set(kept) == spared
    assert kept["numpy"] == "2.4.6"


@pytest.mark.parametrize(
    "line", ["-e .", "thing @ file:///x/thing.whl", "./local", "git+https://example.com/x.git"]
)
def test_packages_that_are_not_from_an_index_are_refused(line: str) -> None:
    with pytest.raises(NoPackages, match="is not a package from an index"):
        parse_pins(f"numpy==1.0\n{line}\n")


def test_requirements_are_the_runtimes_and_the_projects() -> None:
    lines = merge([Requirement("pandas>=2"), Requirement("numpy<3")])
    assert set(lines) == {*RUNTIME, "pandas>=2", "numpy<3"}
    assert list(lines) == sorted(lines)


@pytest.mark.parametrize(
    ("platform", "python", "name"),
    [
        (AMD64, DEBIAN, "x86_64-manylinux_2_36"),
        (ARM64, DEBIAN, "aarch64-manylinux_2_36"),
        (AMD64, OLD, "x86_64-manylinux2014"),
        (ARM64, ALPINE, "aarch64-unknown-linux-musl"),
    ],
)
def test_what_uv_calls_a_platform(platform: Platform, python: Interpreter, name: str) -> None:
    assert uv_platform(platform, python) == name


@pytest.mark.parametrize("text", ["linux/arm/v7", "windows/amd64", "linux/riscv64"])
def test_platforms_without_wheels_are_refused(text: str) -> None:
    with pytest.raises(UnsupportedPlatform, match=text):
        uv_platform(Platform.parse(text), DEBIAN)


WHEELS = [
    "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
    "a-1-cp311-cp311-manylinux_2_39_x86_64.whl",
    "a-1-cp311-cp311-manylinux_2_28_aarch64.whl",
    "a-1-cp312-cp312-musllinux_1_2_aarch64.whl",
    "a-1-cp310-abi3-manylinux_2_17_x86_64.whl",
    "a-1-py3-none-any.whl",
    "a-1-cp311-cp311-win_amd64.whl",
    "a-1.tar.gz",
]


@pytest.mark.parametrize(
    ("platform", "python", "names", "best"),
    [
        (AMD64, DEBIAN, WHEELS, WHEELS[1]),
        (AMD64, OLD, WHEELS, WHEELS[0]),
        (ARM64, DEBIAN, WHEELS, WHEELS[3]),
        (ARM64, ALPINE, WHEELS, WHEELS[4]),
        (AMD64, ALPINE, WHEELS, WHEELS[6]),
        (AMD64, DEBIAN, WHEELS[5:], WHEELS[5]),
        (ARM64, DEBIAN, WHEELS[:3], None),
        (ARM64, DEBIAN, WHEELS[7:], None),
    ],
)
def test_the_wheel_an_installer_would_take(
    platform: Platform, python: Interpreter, names: list[str], best: str | None
) -> None:
    assert best_wheel(names, platform, python) == best
    assert best_wheel(reversed(names), platform, python) == best


def pylock(*wheels: str) -> str:
    listed = ", ".join(
        f'{{ url = "https://h/{name}", hashes = {{ sha256 = "{number:064x}" }} }}'
        for number, name in enumerate(wheels)
    )
    return f'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\nwheels = [{listed}]\n'


def test_the_lock_holds_the_one_wheel_of_each_platform() -> None:
    [locked] = parse_pylock(pylock(*WHEELS), WheelTarget(ARM64, DEBIAN))
    assert (locked.name, locked.version) == ("a", "1")
    assert locked.hashes == (f"sha256:{3:064x}",)


def test_a_package_without_a_wheel_is_named() -> None:
    with pytest.raises(NoPackages, match=r"a has no wheel for Python 3\.11 on linux/arm64"):
        parse_pylock(pylock(*WHEELS[:3]), WheelTarget(ARM64, DEBIAN))
