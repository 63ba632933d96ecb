"""What is shipped with a scoring script, and what is said of it."""

from __future__ import annotations

import os
import pickle
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from mlpack.base.imports import missing
from mlpack.engines.local_runtime import runtime
from mlpack.errors import MlpackError, UsageError
from mlpack.json_document import document
from mlpack.model.version import ModelFile, ModelVersion
from mlpack.oci.descriptor import Digest, canonical, parse
from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.project.importers.code import Code, read_code
from mlpack.project.importers.source import UnreadableModel
from tests.support import free_port, make_project, run, tiny_onnx

ENDS = "def init(): ...\ndef run(data): return data\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def paths(code: Code) -> list[str]:
    return sorted([code.script.path, *(each.path for each in code.files)])


IMPORTS: dict[str, tuple[dict[str, str], list[str], set[str]]] = {
    "nothing": ({"score.py": "import json"}, ["score.py"], set()),
    "an installed module": ({"score.py": "import numpy, os"}, ["score.py"], {"numpy"}),
    "a module": (
        {"score.py": "import utils", "utils.py": "import pandas", "other.py": ""},
        ["score.py", "utils.py"],
        {"pandas"},
    ),
    "one in a folder": (
        {"score.py": "from lib.utils import scale", "lib/utils.py": "", "lib/other.py": ""},
        ["lib/utils.py", "score.py"],
        set(),
    ),
    "one of a package": (
        {"score.py": "from lib import utils", "lib/__init__.py": "", "lib/utils.py": ""},
        ["lib/__init__.py", "lib/utils.py", "score.py"],
        set(),
    ),
    "relative ones": (
        {
            "score.py": "import lib.a.b",
            "lib/__init__.py": "from .c import x",
            "lib/c.py": "",
            "lib/a/__init__.py": "from . import d",
            "lib/a/b.py": "from ..e import y\nfrom .. import f",
            "lib/a/d.py": "",
            "lib/e.py": "",
            "lib/f.py": "",
        },
        [
            "lib/__init__.py",
            "lib/a/__init__.py",
            "lib/a/b.py",
            "lib/a/d.py",
            "lib/c.py",
            "lib/e.py",
            "lib/f.py",
            "score.py",
        ],
        set(),
    ),
    "in a function": (
        {"score.py": "def f():\n  if 1:\n    import a", "a.py": "import score"},
        ["a.py", "score.py"],
        set(),
    ),
    "names, not modules": (
        {"score.py": "from a import *\nfrom a import thing", "a.py": "thing = 1"},
        ["a.py", "score.py"],
        set(),
    ),
    "one that may be missing": (
        {"score.py": "try:\n  import fast\nexcept ImportError:\n  import slow"},
        ["score.py"],
        {"slow"},
    ),
    "one for type checkers": (
        {"score.py": "import typing\nif typing.TYPE_CHECKING:\n  import pandas"},
        ["score.py"],
        set(),
    ),
    "what the runtime provides": (
        {"score.py": "from azureml.core.model import Model\nimport mlpack_runtime"},
        ["score.py"],
        set(),
    ),
    "one before the standard library's": (
        {"score.py": "import random", "random.py": ""},
        ["random.py", "score.py"],
        set(),
    ),
    "by name": (
        {"score.py": "import importlib\nimportlib.import_module('a')", "a.py": ""},
        ["a.py", "score.py"],
        set(),
    ),
    "in a folder on the path": (
        {
            "score.py": "import sys, os\nsys.path.append(os.path.join(here, 'lib'))\nimport a",
            "lib/a.py": "import b",
            "lib/b.py": "",
        },
        ["lib/a.py", "lib/b.py", "score.py"],
        set(),
    ),
    "texts and names of any kind": (
        {"score.py": f"x = '{'界' * 200}'\n__import__('../a')\n__import__('{'a' * 300}')"},
        ["score.py"],
        set(),
    ),
    "after a deep expression": (
        {"score.py": "x = " + "+".join(["1"] * 300) + "\nimport numpy"},
        ["score.py"],
        {"numpy"},
    ),
    "a folder of data": ({"score.py": "import data", "data/a.csv": ""}, ["score.py"], {"data"}),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_modules_next_to_the_script_are_shipped(tmp_path: Path, case: str) -> None:
    files, shipped, others = IMPORTS[case]
    found = read_code(write(tmp_path, files) / "score.py")
    assert paths(found) == shipped
    assert found.imports == others
    assert any("is shipped with" in each for each in found.notes) is (len(shipped) > 1)


def test_a_script_alone_has_one_name_and_one_with_modules_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"detect.py": ENDS, "other.py": ENDS + "import a", "a.py": ""})
    assert read_code(tmp_path / "detect.py").script.path == "score.py"
    assert read_code(tmp_path / "other.py").script.path == "other.py"


@pytest.mark.parametrize("name", ["a.py", "lib"])
def test_modules_behind_a_link_out_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"out/a.py": "", "src/score.py": "import a, lib.a"})
    target = tmp_path / "out" / ("a.py" if name == "a.py" else "")
    (tmp_path / "src" / name).symlink_to(target)
    with pytest.raises(UnreadableModel, match="link out of the script's directory"):
        read_code(tmp_path / "src" / "score.py")


def test_files_that_the_script_names_are_said(tmp_path: Path) -> None:
    text = ENDS + "labels = open('labels.txt')\nmodel = 'm.onnx'\nother = '/etc/passwd'\n"
    root = write(tmp_path, {"score.py": text, "labels.txt": "", "m.onnx": "", "b.txt": ""})
    (note,) = read_code(root / "score.py", model=root / "m.onnx").notes
    assert "names labels.txt, which is not shipped" in note
    assert "--code" in note
    assert not read_code(root / "score.py", root).notes


def test_files_of_the_registered_folder_are_shipped_with_it(tmp_path: Path) -> None:
    text = ENDS + "path = os.path.join(os.environ['AZUREML_MODEL_DIR'], 'model/x.pkl')\n"
    root = write(tmp_path, {"score.py": text, "model/x.pkl": ""})
    assert read_code(root / "score.py", model=root / "model").notes == ()


def test_a_module_that_python_cannot_parse_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"score.py": "import a", "a.py": "def ("})
    with pytest.raises(UnreadableModel, match=r"a\.py:1"):
        read_code(tmp_path / "score.py")


SOURCE = {
    "sub/score.py": ENDS + "import helper, near, pandas",
    "sub/near.py": "",
    "helper.py": "",
    "labels.txt": "cat",
    "secrets.py": "",
    ".env": "KEY=1",
    ".git/config": "",
    "key.pem": "",
    "secrets.json": "{}",
    "id_rsa": "",
    "sub/__pycache__/a.pyc": "",
    "a.pyc": "",
    "venv/pyvenv.cfg": "",
    "venv/lib/numpy.py": "",
    "prod.env": "",
}


def test_a_source_directory_is_shipped_without_secrets(tmp_path: Path) -> None:
    root = write(tmp_path, SOURCE)
    found = read_code(root / "sub" / "score.py", root)
    assert paths(found) == ["helper.py", "labels.txt", "secrets.py", "sub/near.py", "sub/score.py"]
    assert found.script.path == "sub/score.py"
    assert found.imports == {"pandas"}
    assert "not shipped" in found.notes[0]


def test_the_model_in_it_is_not_shipped_twice(tmp_path: Path) -> None:
    root = write(tmp_path, {"score.py": ENDS, "m.onnx": "x"})
    assert paths(read_code(root / "score.py", root, root / "m.onnx")) == ["score.py"]


@pytest.mark.parametrize("target", ["/etc/passwd", "nothing"])
def test_its_links_stay_inside(tmp_path: Path, target: str) -> None:
    root = write(tmp_path, {"score.py": ENDS})
    (root / "a.txt").symlink_to(target)
    with pytest.raises(UnreadableModel, match="link to nothing, or out of"):
        read_code(root / "score.py", root)


def test_the_script_must_lie_in_it(tmp_path: Path) -> None:
    write(tmp_path, {"score.py": ENDS, "src/a.py": ""})
    with pytest.raises(UsageError, match="is not in the source directory"):
        read_code(tmp_path / "score.py", tmp_path / "src")


@pytest.mark.parametrize("name", ["azureml-models/a.py", "mlpack/a.py", "mlpack.json"])
def test_it_replaces_nothing_of_a_release(tmp_path: Path, name: str) -> None:
    root = write(tmp_path, {"score.py": ENDS, name: ""})
    with pytest.raises(UsageError, match="a release has files of its own there"):
        read_code(root / "score.py", root)


def test_modules_that_the_base_lacks_are_named() -> None:
    held = ["pillow", "scikit-learn", "numpy", "azure-core", "ruamel-yaml"]
    assert missing(["PIL", "sklearn", "numpy", "azure", "ruamel"], held) == {}
    assert missing(["cv2", "my_module"], held) == {
        "cv2": "opencv-python-headless",
        "my_module": "",
    }


def version(scoring: str = "score.py", **more: object) -> ModelVersion:
    file = ModelFile("a", 1, Digest.of(b"a"))
    script = ModelFile(scoring, 1, Digest.of(b"s"))
    made = ModelVersion(name="m", version="1", framework="directory", files=(file,), scoring=script)
    return replace(made, **more)  # type: ignore[arg-type]


def test_code_and_folder_are_content() -> None:
    plain = version()
    others = [
        version(code=(ModelFile("b.py", 1, Digest.of(b"b")),)),
        version(folder="model"),
        version(scoring="other.py"),
    ]
    assert len({plain.digest, *(each.digest for each in others)}) == 4
    for each in (plain, *others):
        assert ModelVersion.from_json(parse(canonical(document(each)), "m")) == each
    assert "code" not in document(plain)
    assert "folder" not in document(plain)


@pytest.mark.parametrize(
    "bad",
    [
        {"folder": "a/b"},
        {"folder": ".."},
        {"scoring": {"path": "mlpack.json"}},
        {"code": [{"path": "azureml-models/m/1/a"}]},
    ],
)
def test_documents_cannot_replace_files_of_a_release(bad: dict[str, object]) -> None:
    file = {"size": 1, "digest": str(Digest.of(b"s"))}
    filled = {
        key: [{**file, **each} for each in value]
        if isinstance(value, list)
        else {**file, **value}
        if isinstance(value, dict)
        else value
        for key, value in bad.items()
    }
    with pytest.raises(MlpackError):
        ModelVersion.from_json(parse(canonical({**document(version()), **filled}), "m"))


SCRIPT = """
import json, os, pickle
from lib.utils import scale

def init():
    global model
    with open(os.path.join(os.getenv("AZUREML_MODEL_DIR"), "model", "x.pkl"), "rb") as file:
        model = pickle.load(file)

def run(data):
    return scale(model, json.loads(data)["data"])
"""
UTILS = "def scale(factor, values):\n    return [factor * each for each in values]\n"


def served(project_root: Path) -> tuple[str, str]:
    write(project_root, {"score.py": SCRIPT, "lib/utils.py": UTILS, "model/note.txt": "x"})
    (project_root / "model" / "x.pkl").write_bytes(pickle.dumps(3))
    done = run("-C", str(project_root), "register", "model/", "--scoring", "score.py")
    assert done.exit_code == 0, done.stderr
    layout = ProjectDirectory.find(project_root).layout
    made = ModelStore(layout).get("fan")
    with runtime(
        layout, made, port=free_port(), environment=dict(os.environ), seconds=60
    ) as started:
        request = urllib.request.Request(
            f"{started.address}/score",
            b'{"data": [1, 2]}',
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            return response.read().decode(), done.stderr


def test_a_folder_and_a_script_with_modules_score(tmp_path: Path) -> None:
    """azureml-examples#1068 and azure-docs#51227."""
    project = make_project(tmp_path / "p")
    result, said = served(project.root)
    assert result == "[3,6]"
    assert "score.py is shipped with lib/utils.py" in said
    assert "AZUREML_MODEL_DIR/model" in said
    shown = run("-C", str(project.root), "show", "fan").stdout
    assert "lib/utils.py" in shown
    assert "AZUREML_MODEL_DIR/model" in shown


def register(project_root: Path, *args: str, status: int = 0) -> str:
    done = run("-C", str(project_root), "register", *args)
    assert done.exit_code == status, done.stderr
    return " ".join(done.stderr.split())


def test_the_code_directory_of_the_settings_and_of_the_command(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    write(project.root, {"src/score.py": ENDS, "src/labels.txt": "a", "alone.py": ENDS})
    tiny_onnx(project.root / "m.onnx")
    assert "with 1 file of code" in register(
        project.root, "m.onnx", "--code", "src", "--scoring", "score.py"
    )
    assert "no script is named" in register(project.root, "m.onnx", "--code", "src", status=2)
    text = (project.root / "mlpack.toml").read_text()
    named = text.replace('"fan"\n', '"fan"\nscoring = "src/score.py"\ncode = "src"\n', 1)
    (project.root / "mlpack.toml").write_text(named)
    assert "the same content is fan:1 already" in register(project.root, "m.onnx")
    assert "of code" not in register(project.root, "m.onnx", "--scoring", "alone.py")


def test_imports_that_the_lock_lacks_are_said(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    write(project.root, {"score.py": ENDS + "import pandas, onnxruntime"})
    tiny_onnx(project.root / "m.onnx")
    said = register(project.root, "m.onnx", "--scoring", "score.py")
    assert "the script imports pandas, and no package in mlpack.lock" in said
    assert "onnxruntime" not in said


def test_imports_are_said_before_there_is_a_base(tmp_path: Path) -> None:
    root = tmp_path / "p"
    assert run("init", str(root)).exit_code == 0
    write(root, {"score.py": ENDS + "import numpy, joblib"})
    tiny_onnx(root / "m.onnx")
    said = register(root, "m.onnx", "--scoring", "score.py")
    assert "the script imports joblib, and no package in requirements.in" in said
    assert "numpy" not in said
    # What scikit-learn brings is known once there is a lock.
    write(root, {"requirements.in": "scikit-learn"})
    assert "joblib" not in register(root, "m.onnx", "--scoring", "score.py")


def test_a_folder_without_a_script_says_which_it_needs(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    (project.root / "nets").mkdir()
    tiny_onnx(project.root / "nets" / "a.onnx")
    tiny_onnx(project.root / "nets" / "b.onnx", bias=2)
    said = register(project.root, "nets")
    assert "holds 2 ONNX files (a.onnx, b.onnx)" in said
    assert 'open_model(os.path.expandvars("$AZUREML_MODEL_DIR/nets/a.onnx"))' in said
    write(project.root, {"data/weights.bin": "x"})
    assert "holds no ONNX file" in register(project.root, "data")
