"""What an onnxruntime loads: the table against rules, the page about it, and the one installed."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mlpack.base.requirements import NEWEST, OLDEST_OPSET, SUPPORT, uncertain, unsupported
from mlpack.model.version import ModelFile, ModelVersion
from mlpack.oci.descriptor import Digest

CHECKOUT = Path(__file__).resolve().parents[2]


def model(
    opsets: dict[str, int] | None = None, domains: tuple[str, ...] = ("ai.onnx",), ir: int = 8
) -> ModelVersion:
    return ModelVersion(
        name="fan",
        version="1",
        framework="onnx",
        files=(ModelFile("fan.onnx", 3, Digest.of(b"abc")),),
        ir_version=ir,
        opsets={"ai.onnx": 17} if opsets is None else opsets,
        domains=domains,
    )


@pytest.mark.parametrize(
    ("made", "onnxruntime", "reason"),
    [
        (model(), "1.31.1", None),
        (model(), "1.16.0", None),
        (model({"ai.onnx": 26}), "1.31.1", None),
        (model({"ai.onnx": 27}), "1.31.1", "opset 27 of ai.onnx is beyond 26"),
        (model({"ai.onnx": 21}), "1.17.3", "opset 21 of ai.onnx is beyond 20"),
        (model({"ai.onnx": 1}), "1.31.1", None),
        (model({"ai.onnx": 6}), "", None),
        (model({"ai.onnx": 7}), "1.31.1", None),
        (model({"ai.onnx": 17, "ai.onnx.ml": 4}), "1.16.3", "4 of ai.onnx.ml is beyond 3"),
        (model({"ai.onnx": 17, "com.microsoft": 2}), "1.31.1", "2 of com.microsoft is beyond 1"),
        (model(ir=14), "1.31.1", r"file format \(IR\) 14 is beyond 13"),
        (model(domains=("ai.onnx", "com.microsoft")), "1.31.1", None),
        (model(domains=("ai.onnx", "my.ops")), "1.31.1", "custom operators of the domain my.ops"),
        (model(domains=("my.ops",)), "9.0.0", "custom operators of the domain my.ops"),
        (
            model(domains=("ai.onnx.preview",)),
            "1.20.1",
            "ai.onnx.preview, which onnxruntime 1.20.1",
        ),
        (model({"ai.onnx": 17, "my.ops": 99}), "1.31.1", None),
        (model({"ai.onnx": 99}), "9.0.0", None),
        (model({"ai.onnx": 99}), "nightly", None),
        (model({}, (), 0), "1.31.1", None),
    ],
)
def test_what_is_refused(made: ModelVersion, onnxruntime: str, reason: str | None) -> None:
    found = unsupported(made, onnxruntime)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(reason, found)


def test_a_script_may_register_custom_operators() -> None:
    made = replace(model(domains=("my.ops",)), scoring=ModelFile("score.py", 1, Digest.of(b"x")))
    assert unsupported(made, "1.31.1") is None
    assert "its script must register them" in str(uncertain(made, "1.31.1"))


def test_every_reason_is_named() -> None:
    found = unsupported(model({"ai.onnx": 99}, ("a.b", "c.d"), 99), "1.31.1")
    assert found is not None
    assert all(word in found for word in ("a.b", "c.d", "opset 99", "(IR) 99"))


@pytest.mark.parametrize(
    ("made", "onnxruntime", "said"),
    [
        (model(), "1.31.1", False),
        (model(), "1.99.0", False),
        (model({"ai.onnx": 40}), "1.99.0", True),
        (model({"ai.onnx": 6}), "1.31.1", True),
        (model(), "1.15.1", True),
        (model(), "", True),
        (model({}, (), 0), "", False),
    ],
)
def test_what_is_not_known_is_said(made: ModelVersion, onnxruntime: str, said: bool) -> None:
    assert (uncertain(made, onnxruntime) is not None) is said


def test_a_newer_release_takes_no_less() -> None:
    for older, newer in itertools.pairwise(sorted(SUPPORT)):
        assert SUPPORT[older].ir <= SUPPORT[newer].ir
        for domain, opset in SUPPORT[older].opsets.items():
            assert opset <= SUPPORT[newer].opsets[domain]


def test_the_page_has_the_same_numbers() -> None:
    text = (CHECKOUT / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| 1\.(\d+)(?: to 1\.(\d+))? \| 7 to (\d+) \| (\d+) \| (\d+) \|$", text, re.M
    )
    written = {
        (1, minor): tuple(map(int, numbers))
        for first, last, *numbers in rows
        for minor in range(int(first), int(last or first) + 1)
    }
    table = {
        release: (each.opsets["ai.onnx"], each.opsets["ai.onnx.ml"], each.ir)
        for release, each in SUPPORT.items()
    }
    assert written == table


def loads(opsets: dict[str, int], ir: int = 8) -> bool:
    """Whether the installed onnxruntime loads a model of one operator."""
    import onnxruntime
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    imports = [helper.make_opsetid(domain, number) for domain, number in opsets.items()]
    made = helper.make_model(graph, opset_imports=imports, ir_version=ir)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    # onnxruntime's errors have no common root of their own.
    except Exception:
        return False
    return True


def test_the_installed_onnxruntime_agrees_with_its_row() -> None:
    import onnxruntime

    major, minor = onnxruntime.__version__.split(".")[:2]
    release = (int(major), int(minor))
    if release > NEWEST:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} is newer than the table")
    support = SUPPORT[release]
    assert loads({"": OLDEST_OPSET})
    assert loads({"": 15}, support.ir)
    assert not loads({"": 15}, support.ir + 1)
    for domain, most in support.opsets.items():
        base = {} if domain == "ai.onnx" else {"": 15}
        name = "" if domain == "ai.onnx" else domain
        assert loads({**base, name: most}), domain
        assert not loads({**base, name: most + 1}), domain
