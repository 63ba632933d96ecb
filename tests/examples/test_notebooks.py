"""The notebooks are stored without outputs, and run from top to bottom on made networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from mlpack.project.directory import ProjectDirectory
from tests.support import tiny_base

CHECKOUT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_a_run_is_stored(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(document)
    for cell in document["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert set(document["metadata"]) == {"kernelspec", "language_info"}


def executed(name: str, model: Path, folder: Path) -> Any:  # noqa: ANN401
    """Run a notebook beside a copy of its example that has a tiny base and a made model."""
    project = folder / "examples" / name
    shutil.copytree(
        CHECKOUT / "examples" / name, project, ignore=shutil.ignore_patterns("*.onnx", ".mlpack")
    )
    # The tiny base holds no Pillow, and no device will run what is built on it.
    (project / "requirements.in").write_text("")
    shutil.copytree(model, project / "model", dirs_exist_ok=True)
    tiny_base(ProjectDirectory(project))
    beside = folder / "notebooks"
    beside.mkdir()
    path = CHECKOUT / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(beside)}}
    )
    return client.execute()


def outputs(notebook: Any) -> tuple[str, int]:  # noqa: ANN401
    """What its cells printed, and how many pictures they drew."""
    found = [each for cell in notebook.cells for each in cell.get("outputs", ())]
    text = "".join(each["text"] for each in found if each["output_type"] == "stream")
    return text, sum("image/png" in each.get("data", {}) for each in found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("name", ["resnet50v2", "ferplus"])
def test_a_notebook_runs(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue("resnet_folder" if name == "resnet50v2" else "ferplus_folder")
    text, drawn = outputs(executed(name, model, tmp_path))
    assert f"{name}:1 sha256:" in text
    assert f"{name}:2 sha256:" in text
    lines = [line.split()[0] for line in text.splitlines() if line.startswith(("reuse", "fetch"))]
    assert lines == ["reuse"] * 5 + ["fetch"], text
    assert "made as a patch: " in text
    assert drawn == 2
