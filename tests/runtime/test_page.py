"""The page to try a module with, as a browser gets it; tests/e2e/test_page.py uses it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlpack.runtime.http.form import Form, forms
from mlpack.runtime.http.page import policy
from mlpack.runtime.http.page import render as render_form
from mlpack.runtime.scoring_service import ScoringService
from tests.runtime.support import FAN, PICTURE, ask, release, started
from tests.support import tiny_onnx

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def render(module: ScoringService, form: Form | None = None) -> str:
    return render_form(module, form or next(forms(module.scorer)))


def facts(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="module">(.*?)</script>', page)
    assert found is not None
    made: dict[str, Any] = json.loads(found[1])
    return made


@pytest.mark.parametrize("accept", ["*/*", "", "text/plain", "application/json"])
def test_programs_get_a_word(accept: str, tmp_path: Path) -> None:
    with started(release(tmp_path, FAN)) as module:
        found = ask(module, "GET", "/", headers={"accept": accept})
    assert (found.status_code, found.text) == (200, "Healthy")
    assert found.headers["content-type"].startswith("text/plain")
    assert found.headers["vary"] == "Accept"


def test_browsers_get_a_page_that_loads_nothing_else(tmp_path: Path) -> None:
    with started(release(tmp_path, FAN)) as module:
        found = ask(module, "GET", "/", headers=BROWSER)
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.headers["vary"] == "Accept"
    rules = dict(
        each.split(" ", 1) for each in found.headers["content-security-policy"].split("; ")
    )
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "unsafe" not in str(rules)
    for tag in ("script", "style"):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", found.text, re.DOTALL)
        assert len(texts) == 1
        digest = base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    # A name of XML, which nothing is loaded from.
    assert re.findall(r"https?://[^\"]*", found.text) == ["http://www.w3.org/2000/svg"]
    assert not re.findall(r"(?:src|href)=\"(?!data:,|swagger.json|v2|metrics)", found.text)
    assert not re.findall(r"\s(?:style|on\w+)=", found.text)


def test_it_asks_for_the_scripts_numbers(tmp_path: Path) -> None:
    with started(release(tmp_path, FAN)) as module:
        found = facts(render(module))
    [part] = found["form"]["parts"]
    assert (part["name"], part["labels"]) == ("params", ["rotation", "temperature", "a_b"])
    assert part["values"] == [600, 35.5, 120]
    assert found["form"]["ranges"]["temperature"] == [20, 60, 35.5]
    assert (found["name"], found["version"], found["form"]["file"]) == ("fan", "3", False)
    assert re.fullmatch(r"loaded \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", found["about"])
    assert found["most"] == 64 * 1024 * 1024


def test_it_asks_for_a_picture(tmp_path: Path) -> None:
    with started(release(tmp_path, PICTURE)) as module:
        assert facts(render(module))["form"]["file"]


def test_it_asks_for_the_models_own_tensors(tmp_path: Path) -> None:
    settings = release(tmp_path)
    tiny_onnx(settings.model_dir / "model.onnx")
    with started(settings) as module:
        found = facts(render(module))
    [part] = found["form"]["parts"]
    assert part["labels"] == ["x[0]", "x[1]", "x[2]", "x[3]"]
    assert (part["shape"], part["about"]) == ([1, 4], "float [N, 4]")


def test_no_name_can_end_the_script(tmp_path: Path) -> None:
    with started(release(tmp_path, FAN)) as module:
        name = "</script><script>alert(1)</script><!--"
        module.identity = replace(module.identity, name=name)
        page = render(module)
    assert facts(page)["name"] == name
    assert page.count("<script") == 2
    assert "<script>alert" not in page
    assert policy(page).count("sha256-") == 2


def test_a_module_that_stops_says_so(tmp_path: Path) -> None:
    with started(release(tmp_path, FAN)) as module:
        pass
    assert ask(module, "GET", "/").status_code == 503
    assert ask(module, "GET", "/", headers=BROWSER).status_code == 200
