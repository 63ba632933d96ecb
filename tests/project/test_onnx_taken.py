"""ONNX files that onnxruntime loads are registered; what is refused has a true reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from mlpack.model.servable import not_carried
from mlpack.model.version import ModelSignature, TensorSpec
from mlpack.project.importers.reading import read_model
from mlpack.project.importers.source import ModelSource, UnreadableModel, measure
from tests.support import SHARED, make_project, require, run, tiny_onnx

CASES = SHARED.parent / "cases" / "models"

FLOAT = TensorProto.FLOAT


def info(
    name: str, dtype: int = FLOAT, shape: tuple[str | int, ...] | None = ("N", 2)
) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


X, Y = info("x"), info("y")
ONES = numpy_helper.from_array(np.ones(2, np.float32), "w")
NEG = helper.make_node("Neg", ["x"], ["y"])
ADD = helper.make_node("Add", ["x", "w"], ["y"])


def model(
    nodes: list[onnx.NodeProto],
    *,
    inputs: list[ValueInfoProto] | None = None,
    outputs: list[ValueInfoProto] | None = None,
    weights: list[TensorProto] | None = None,
    opsets: dict[str, int] | None = None,
    ir: int = 8,
    name: str = "g",
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [X] if inputs is None else inputs,
        [Y] if outputs is None else outputs,
        weights,
    )
    imports = [
        helper.make_opsetid(*each) for each in ({"": 17} if opsets is None else opsets).items()
    ]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, functions=functions or [])


def older_function() -> onnx.ModelProto:
    negate = helper.make_function(
        "f",
        "A",
        ["a"],
        ["b"],
        [helper.make_node("Neg", ["a"], ["b"])],
        [helper.make_opsetid("", 6)],
    )
    call = helper.make_node("A", ["x"], ["y"], domain="f")
    return model([call], opsets={"": 17, "f": 1}, ir=9, functions=[negate])


def sequence() -> onnx.ModelProto:
    made = helper.make_tensor_sequence_value_info("s", FLOAT, None)
    node = helper.make_node("SequenceAt", ["s", "w"], ["y"])
    first = numpy_helper.from_array(np.array(0), "w")
    return model([node], inputs=[made], weights=[first], outputs=[info("y", shape=None)])


LOADS: dict[str, Callable[[], onnx.ModelProto]] = {
    "a usual one": lambda: model([NEG]),
    "opset 6": lambda: model([NEG], opsets={"": 6}, ir=3),
    "opset 1": lambda: model(
        [helper.make_node("Not", ["x"], ["y"])],
        inputs=[info("x", TensorProto.BOOL)],
        outputs=[info("y", TensorProto.BOOL)],
        opsets={"": 1},
        ir=3,
    ),
    "opset 1 of ML operators": lambda: model(
        [helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[1.0])],
        opsets={"": 7, "ai.onnx.ml": 1},
    ),
    "IR 3 with unlisted weights": lambda: model([ADD], weights=[ONES], opsets={"": 7}, ir=3),
    "IR 1 with an opset": lambda: model([NEG], opsets={"": 7}, ir=1),
    "no shape": lambda: model(
        [NEG], inputs=[info("x", shape=None)], outputs=[info("y", shape=None)]
    ),
    "an output without a type": lambda: model([NEG], outputs=[ValueInfoProto(name="y")]),
    "no input": lambda: model(
        [helper.make_node("Neg", ["w"], ["y"])],
        inputs=[],
        weights=[ONES],
        outputs=[info("y", shape=(2,))],
    ),
    "scalar": lambda: model([NEG], inputs=[info("x", shape=())], outputs=[info("y", shape=())]),
    "a sequence": sequence,
    "an older function": older_function,
    "no name": lambda: model([NEG], name=""),
    "unsorted": lambda: model(
        [helper.make_node("Neg", ["z"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    ),
    "ai.onnx by name": lambda: model(
        [helper.make_node("Neg", ["x"], ["y"], domain="ai.onnx")], opsets={"ai.onnx": 17}
    ),
    "an undeclared domain": lambda: model(
        [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]
    ),
    "no node": lambda: model([], outputs=[X]),
    "only a weight": lambda: model([], inputs=[], weights=[ONES], outputs=[info("w", shape=(2,))]),
    "a training domain": lambda: model([NEG], opsets={"": 17, "ai.onnx.preview.training": 1}),
    "odd names": lambda: model(
        [helper.make_node("Neg", ["a/b:0"], ['\u00fc "x"\r\nX-Evil: 1'])],
        inputs=[info("a/b:0")],
        outputs=[info('\u00fc "x"\r\nX-Evil: 1')],
    ),
}


def written(path: Path, case: str) -> Path:
    path.write_bytes(LOADS[case]().SerializeToString())
    return path


def reading(path: Path) -> ModelSource:
    return read_model(path)


def loads(path: Path) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # onnxruntime's errors have no common root of their own.
    except Exception:
        return False
    return True


@pytest.mark.parametrize("case", LOADS)
def test_what_onnxruntime_loads_is_read(tmp_path: Path, case: str) -> None:
    path = written(tmp_path / "m.onnx", case)
    assert loads(path)
    found = reading(path)
    assert found.graph is not None
    assert found.notes == ()


@pytest.mark.parametrize("case", sorted(LOADS.keys() - {"a sequence"}))
def test_it_is_registered_and_shown(tmp_path: Path, case: str) -> None:
    project = make_project(tmp_path / "p")
    written(project.root / "m.onnx", case)
    for command in (["register", "m.onnx"], ["show", "fan"], ["--json", "show", "fan"]):
        done = run("-C", str(project.root), *command)
        assert done.exit_code == 0, done.stderr
        assert "\r" not in done.stdout


@pytest.mark.parametrize("path", sorted(CASES.glob("*.onnx")), ids=lambda each: each.name)
def test_the_verdict_on_a_case_is_onnxruntime_s(path: Path) -> None:
    try:
        notes = reading(require(path)).notes
    except UnreadableModel:
        assert not loads(path)
    else:
        assert loads(path) or "does not load it" in notes[0]


NEVER: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "an unknown operator": (
        lambda: model([helper.make_node("Nonsense", ["x"], ["y"])]),
        "No Op registered",
    ),
    "a cycle": (
        lambda: model(
            [helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
        ),
        "topologically sorted",
    ),
    "an input without a type": (lambda: model([NEG], inputs=[ValueInfoProto(name="x")]), "'type'"),
    "no opset": (lambda: model([NEG], opsets={}), "must specify opset_import"),
}


@pytest.mark.parametrize("case", NEVER)
def test_what_onnxruntime_refuses_too_is_refused(tmp_path: Path, case: str) -> None:
    make, said = NEVER[case]
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    assert not loads(path)
    with pytest.raises(UnreadableModel, match=said):
        reading(path)


def test_types_that_disagree_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    wrong = model([helper.make_node("BitwiseNot", ["x"], ["y"])], opsets={"": 18})
    path.write_bytes(wrong.SerializeToString())
    assert not loads(path)
    (note,) = reading(path).notes
    assert "does not load it" in note
    assert "mlpack build starts the release and decides" in note


def test_what_is_newer_than_this_machine_s_onnx_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model([NEG], ir=99).SerializeToString())
    assert "file format (IR) 99 is newer" in reading(path).notes[0]


def test_domains_of_functions_that_nothing_calls_do_not_count(tmp_path: Path) -> None:
    unused = helper.make_function(
        "f",
        "A",
        ["a"],
        ["b"],
        [helper.make_node("Foo", ["a"], ["b"], domain="zz")],
        [helper.make_opsetid("zz", 1)],
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(
        model([NEG], opsets={"": 17, "f": 1}, ir=9, functions=[unused]).SerializeToString()
    )
    graph = reading(path).graph
    assert graph is not None
    assert graph.domains == ("ai.onnx",)
    assert loads(path)


def test_names_that_python_cannot_read_are_refused(tmp_path: Path) -> None:
    content = model([NEG]).SerializeToString().replace(b"\x01x", b"\x01\xff")
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(UnreadableModel, match="not UTF-8"):
        reading(tmp_path / "m.onnx")


def spec(dtype: str) -> TensorSpec:
    return TensorSpec("t", dtype, (None, 2))


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "int4", "uint4", "float8e4m3fn", "complex64", "opaque"]
)
def test_types_that_nothing_carries_are_named(dtype: str) -> None:
    good = spec("float32")
    assert (
        not_carried(ModelSignature((good,), (spec(dtype),)))
        == f"no response can carry its output 't' ({dtype})"
    )
    assert (
        not_carried(ModelSignature((spec(dtype),), (good,)))
        == f"no request can carry its input 't' ({dtype})"
    )


@pytest.mark.parametrize("dtype", ["float16", "float64", "string", "uint64", "bool"])
def test_types_that_requests_and_responses_have(dtype: str) -> None:
    assert not not_carried(ModelSignature((spec(dtype),), (spec(dtype),)))


@pytest.mark.parametrize("dtype", ["sequence", "map"])
def test_only_responses_have_sequences_and_maps(dtype: str) -> None:
    assert not not_carried(ModelSignature((), (spec(dtype),)))
    assert not_carried(ModelSignature((spec(dtype),), ()))


def test_a_model_of_such_a_type_needs_a_script(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
    made = model([cast], outputs=[info("y", TensorProto.BFLOAT16)])
    (project.root / "m.onnx").write_bytes(made.SerializeToString())
    done = run("-C", str(project.root), "register", "m.onnx")
    assert done.exit_code == 1
    assert "no response can carry its output 'y' (bfloat16)" in done.stderr
    assert "--scoring" in done.stderr
    (project.root / "score.py").write_text("def init(): ...\ndef run(raw): ...\n")
    done = run("-C", str(project.root), "register", "m.onnx", "--scoring", "score.py")
    assert done.exit_code == 0, done.stderr


def with_data(path: Path) -> Path:
    onnx.save(
        onnx.load(str(tiny_onnx(path))),
        str(path),
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    return path


def cached(root: Path) -> Path:
    """A snapshot in Hugging Face's cache: every file is a link to a blob."""
    model_folder = root / "models--org--net"
    snapshot, blobs = model_folder / "snapshots" / "0a1b", model_folder / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    made = with_data(root / "model.onnx")
    for number, name in enumerate((made.name, "model.onnx_data")):
        (root / name).rename(blobs / (f"{number}" * 64))
        (snapshot / name).symlink_to(Path("../../blobs") / (f"{number}" * 64))
    return snapshot


def test_a_snapshot_of_hugging_face_s_cache_is_read(tmp_path: Path) -> None:
    snapshot = cached(tmp_path)
    files = [file.path for file in measure(reading(snapshot))]
    assert files == ["model.onnx", "model.onnx_data"]
    found = reading(snapshot / "model.onnx")
    assert [file.path for file in measure(found)] == files
    assert found.graph is not None


def test_the_whole_cache_of_a_model_is_not(tmp_path: Path) -> None:
    snapshot = cached(tmp_path)
    with pytest.raises(UnreadableModel, match="its blobs and snapshots") as caught:
        reading(snapshot.parent.parent)
    assert str(snapshot) in str(caught.value.hint)


@pytest.mark.parametrize("place", ["model.onnx_data", "extra"])
@pytest.mark.parametrize("way", ["file", "blobs", "other", "blob"])
def test_its_links_lead_to_its_own_blobs_only(tmp_path: Path, way: str, place: str) -> None:
    snapshot = cached(tmp_path)
    blobs = snapshot.parent.parent / "blobs"
    link = snapshot / place
    link.unlink(missing_ok=True)
    if way == "file":
        link.symlink_to("/etc/passwd")
    elif way == "other":
        other = tmp_path / "models--other" / "blobs"
        other.mkdir(parents=True)
        (other / "b").write_bytes(b"\0" * 99)
        link.symlink_to(other / "b")
    elif way == "blob":
        (blobs / "b").symlink_to("/etc/passwd")
        link.symlink_to("../../blobs/b")
    else:
        blobs.rename(tmp_path / "elsewhere")
        blobs.symlink_to(tmp_path / "elsewhere")
        link.symlink_to("../../blobs/" + "1" * 64)
    with pytest.raises(UnreadableModel, match="link out of"):
        reading(snapshot)


def test_a_model_and_its_data_may_lie_deeper(tmp_path: Path) -> None:
    snapshot = cached(tmp_path)
    deeper = snapshot / "onnx"
    deeper.mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        target = (snapshot / name).readlink()
        (snapshot / name).unlink()
        (deeper / name).symlink_to(Path("..") / target)
    for path in (snapshot, deeper / "model.onnx"):
        assert reading(path).graph is not None


def test_data_may_be_a_link_in_the_registered_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    for name in ("net", "data"):
        (folder / name).mkdir(parents=True)
    with_data(folder / "net" / "model.onnx")
    (folder / "net" / "model.onnx_data").rename(folder / "data" / "w")
    (folder / "net" / "model.onnx_data").symlink_to("../data/w")
    found = [file.path for file in measure(reading(folder))]
    assert found == ["data/w", "net/model.onnx", "net/model.onnx_data"]
    with pytest.raises(UnreadableModel, match="a link out of its directory"):
        reading(folder / "net" / "model.onnx")


def test_blobs_are_only_those_of_a_cache(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "b").write_bytes(b"x")
    folder = tmp_path / "snapshots" / "rev"
    folder.mkdir(parents=True)
    (folder / "a").symlink_to("../../blobs/b")
    with pytest.raises(UnreadableModel, match="symlink out of the directory"):
        reading(folder)


def test_hard_linked_files_are_copied(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    with_data(folder / "model.onnx")
    for name in ("model.onnx", "model.onnx_data"):
        os.link(folder / name, tmp_path / f"other-{name}")
    for path in (folder, folder / "model.onnx"):
        assert [file.path for file in measure(reading(path))] == ["model.onnx", "model.onnx_data"]
