"""Scoring scripts: Azure ML's contract unchanged, and what mlpack adds to it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import PIL.Image
import pytest

from mlpack.runtime import azureml
from mlpack.runtime.http_errors import BadRequest, ScoringFailed, UnsupportedMediaType
from mlpack.runtime.raw_http import AMLRequest
from mlpack.runtime.scorer import Payload, Reply
from mlpack.runtime.script import ScriptScorer
from mlpack.runtime.settings import NotServable, RuntimeSettings
from mlpack.runtime.signature import Tensor
from tests.runtime import models
from tests.runtime.support import serving


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """Leave the modules and the path as they were."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("score", "beside", "azureml", "inference_schema")):
            del sys.modules[name]


def script(folder: Path, text: str) -> ScriptScorer:
    path = folder / "score.py"
    path.write_text(text)
    return ScriptScorer(path, RuntimeSettings(app_root=folder, model_dir=folder, script=path))


def payload(content: bytes = b"{}", content_type: str = "application/json", **more: str) -> Payload:
    method, query = more.pop("method", "POST"), more.pop("query", "")
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    return Payload(
        content=content, content_type=content_type, headers=headers, method=method, query=query
    )


def test_it_is_started_once_and_run_for_each_request(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("factor = 3\n")
    text = (
        "import beside_it\nstarted = []\ndef init():\n    started.append(1)\n"
        "def run(raw):\n    return {'n': len(started), 'raw': raw * beside_it.factor}\n"
    )
    found = script(tmp_path, text)
    assert found.run(payload("ä".encode())) == {"n": 1, "raw": "äää"}
    assert found.run(payload(b"b", "text/csv")) == {"n": 1, "raw": "bbb"}
    with pytest.raises(BadRequest, match="not UTF-8"):
        found.run(payload(b"\xff"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def run(raw): return raw\n", r"has no function init\(\)"),
        ("def init(): pass\n", r"has no function run\(\)"),
        ("run = 1\ndef init(): pass\n", r"has no function run\(\)"),
        ("import no_such_module\n", "import of .* failed"),
        ("def init(:\n", "import of .* failed"),
        ("def init(): raise KeyError('x')\ndef run(raw): pass\n", r"init\(\) in .* failed"),
        ("import sys\ndef init(): sys.exit(0)\ndef run(raw): pass\n", "failed: SystemExit"),
        ("def init(): pass\ndef run(*raw): pass\n", "must not have"),
        ("def init(): pass\ndef run(a, /): pass\n", "must not have"),
        ("def init(): pass\ndef run(): pass\n", "has no parameter"),
        ("def init(): pass\ndef run(request_headers): pass\n", "has no parameter"),
        ("def init(): pass\ndef run(a): pass\nFIELDS = 'abc'\n", "FIELDS"),
        ("def init(): pass\ndef run(a): pass\nFIELDS = {'a': (1, 2)}\n", "failed"),
        ("def init(): pass\ndef run(a): pass\ndef run_tensors(t): pass\n", "needs INPUTS"),
        (
            "def init(): pass\ndef run(a): pass\nINPUTS = {'a': ('int5', ())}\n",
            "unknown element type",
        ),
    ],
)
def test_a_script_that_cannot_score_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(NotServable, match=message):
        script(tmp_path, text)


def test_it_gets_the_headers_where_it_asks(tmp_path: Path) -> None:
    text = (
        "def init(): pass\n"
        "def run(data, request_headers):\n    return data, request_headers['X-Device-Id']\n"
    )
    assert script(tmp_path, text).run(payload(b"a", x_device_id="7")) == ("a", "7")


def test_a_get_has_its_query_as_json(tmp_path: Path) -> None:
    found = script(tmp_path, "def init(): pass\ndef run(data): return data\n")
    query = "a=1&b=[1,2]&c=x&d=null&e=1&e=y&f="
    expected = '{"a": 1, "b": [1, 2], "c": "x", "d": null, "e": [1, "y"], "f": ""}'
    assert found.run(payload(method="GET", query=query)) == expected


def test_a_driver_hands_run_on(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def run(data): return 'driven ' + data\n")
    text = "import beside as driver_module\ndef init(): pass\ndef run(*data): pass\n"
    assert script(tmp_path, text).run(payload(b"x")) == "driven x"


RAW = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse
def init(): pass
@rawhttp
def run(request):
    assert isinstance(request, AMLRequest)
"""


def raw(folder: Path, body: str, request: Payload) -> Reply:
    found = script(folder, RAW + "".join(f"    {line}\n" for line in body.splitlines()))
    assert found.raw
    reply = found.run(request)
    assert isinstance(reply, Reply)
    return reply


def test_raw_requests_and_answers(tmp_path: Path) -> None:
    body = "return AMLResponse(request.get_data()[::-1], 201, {'X-A': '1', 'Content-Type': 'a/b'})"
    found = raw(tmp_path, body, payload(b"\xff\x00", "image/jpeg"))
    assert (found.status, found.content, found.content_type) == (201, b"\x00\xff", "a/b")
    assert found.headers == {"X-A".lower(): "1", "x-ms-run-function-failed": "False"}


@pytest.mark.parametrize(
    ("answer", "content", "content_type", "failed"),
    [
        ("AMLResponse('ä', 200)", "ä".encode(), "text/html; charset=utf-8", "False"),
        ("AMLResponse({'a': 1}, 400, json_str=True)", b'{"a": 1}', "application/json", "False"),
        ("AMLResponse(None, 500)", b"{}", "application/json", "True"),
    ],
)
def test_raw_answers(
    answer: str, content: bytes, content_type: str, failed: str, tmp_path: Path
) -> None:
    found = raw(tmp_path, f"return {answer}", payload())
    assert (found.content, found.content_type) == (content, content_type)
    assert found.headers["x-ms-run-function-failed"] == failed


def test_what_a_raw_request_has(tmp_path: Path) -> None:
    body = (
        "assert request.method == 'POST' and request.path == '/score'\n"
        "assert request.full_path == '/score?a=1&a=2' and request.query_string == b'a=1&a=2'\n"
        "assert request.args.get('a') == '1' and request.args.getlist('a') == ['1', '2']\n"
        "assert request.headers['content-TYPE'] == 'application/json'\n"
        "assert 'CONTENT-type' in request.headers and request.headers.get('X', 1) == 1\n"
        "assert request.is_json and request.json == {'k': 'v'} == request.get_json()\n"
        'assert request.data == b\'{"k": "v"}\' and request.content_length == 10\n'
        'assert request.get_data(as_text=True) == \'{"k": "v"}\'\n'
        "assert request.url == 'http://device:5001/score?a=1&a=2'\n"
        "assert not request.files and not request.form\n"
        "return AMLResponse('', 200)"
    )
    sent = payload(
        b'{"k": "v"}', query="a=1&a=2", host="device:5001", content_type="application/json"
    )
    headers = {"content-type": "application/json", "host": "device:5001"}
    request = Payload(content=sent.content, headers=headers, query=sent.query)
    assert raw(tmp_path, body, request).status == 200


def test_forms(tmp_path: Path) -> None:
    picture = bytes(range(256)) + b"\r\n--not the boundary\r\n\r\n"
    form = (
        b'--b0und\r\nContent-Disposition: form-data; name="note"\r\n\r\nh\xc3\xa4\r\n'
        b'--b0und\r\nContent-Disposition: form-data; name="image"; filename="a;b.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + picture + b"\r\n--b0und--\r\n"
    )
    body = (
        "file = request.files['image']\n"
        "assert (file.filename, file.content_type) == ('a;b.png', 'image/png')\n"
        "assert request.form['note'] == 'hä'\n"
        "return AMLResponse(file.stream.read(), 200)"
    )
    sent = payload(form, 'multipart/form-data; boundary="b0und"')
    assert raw(tmp_path, body, sent).content == picture
    plain = "return AMLResponse(request.form['a'] + request.form['b'], 200)"
    found = raw(tmp_path, plain, payload(b"a=1&b=x%20y", "application/x-www-form-urlencoded"))
    assert found.content == b"1x y"


def test_the_other_name_of_the_raw_package(tmp_path: Path) -> None:
    text = (
        "from azureml_inference_server_http.api import aml_response\n"
        "from azureml_inference_server_http.api.aml_request import rawhttp\n"
        "import azureml_inference_server_http.api.aml_request\n"
        "def init(): pass\n"
        "@rawhttp\ndef run(request): return aml_response.AMLResponse(request.method, 200)\n"
    )
    found = script(tmp_path, text).run(payload())
    assert isinstance(found, Reply)
    assert found.content == b"POST"


def schema_package() -> None:
    """What the runtime needs of inference-schema, which is too large to install for a test."""
    package, util = ModuleType("inference_schema"), ModuleType("inference_schema.schema_util")
    vars(util)["is_schema_decorated"] = lambda run: getattr(run, "decorated", False)
    sys.modules |= {package.__name__: package, util.__name__: util}


SCHEMA = "def init(): pass\ndef run(a, b=2): return [a, b]\nrun.decorated = True\n"


def test_scripts_with_a_schema_get_parsed_arguments(tmp_path: Path) -> None:
    schema_package()
    found = script(tmp_path, SCHEMA)
    assert found.run(payload(b'{"a": [1], "c": 3}')) == [[1], 2]
    assert found.run(payload(b'{"a": 1, "b": 3}')) == [1, 3]
    assert found.run(payload(method="GET", query="a=1")) == [1, 2]
    for content, message in ((b'{"b": 1}', "has no a"), (b"[]", "not a JSON o"), (b"", "not JSON")):
        with pytest.raises(BadRequest, match=message):
            found.run(payload(content))
    with pytest.raises(UnsupportedMediaType, match="application/json"):
        found.run(payload(b"{}", "text/plain"))


def test_raw_and_schema_exclude_each_other(tmp_path: Path) -> None:
    schema_package()
    with pytest.raises(NotServable, match="both"):
        script(tmp_path, RAW + "    return 1\nrun.decorated = True\n")


def test_a_value_error_is_the_requests_fault(tmp_path: Path) -> None:
    text = (
        "from mlpack_runtime import BadRequest\nimport json\ndef init(): pass\n"
        "def run(data):\n"
        "    value = json.loads(data)\n"
        "    if value == 1: raise BadRequest('no such fan', field='fan')\n"
        "    return {}[value]\n"
    )
    found = script(tmp_path, text)
    with pytest.raises(BadRequest, match=r"the request is not JSON \(Expecting value"):
        found.run(payload(b"x"))
    with pytest.raises(BadRequest, match="no such fan") as caught:
        found.run(payload(b"1"))
    assert caught.value.field == "fan"
    with pytest.raises(KeyError):
        found.run(payload(b"2"))


TENSORS = """
import numpy as np
from mlpack_runtime import open_model
BATCHES = True
FIELDS = ("one", "two")
def init():
    global model
    model = open_model()
def run(data): pass
def run_tensors(tensors):
    tensors["x"] += 1
    return model.run(tensors)
"""


def test_tensors_are_those_of_the_model_it_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    models.doubled(tmp_path / "model.onnx")
    found = script(tmp_path, TENSORS)
    assert (found.tensors, found.batches, found.images, found.raw) == (True, True, False, False)
    assert found.fields == ("one", "two")
    assert found.signature is not None
    assert found.signature.inputs == (Tensor("x", "tensor(float)", ("N", 4)),)
    # What arrives cannot be written to.
    given = np.frombuffer(np.zeros((1, 4), np.float32).tobytes(), np.float32).reshape(1, 4)
    y = found.run_tensors({"x": given})["y"]
    assert np.asarray(y).tolist() == [[2.0] * 4]


def test_tensors_may_be_declared(tmp_path: Path) -> None:
    text = (
        "INPUTS = {'a': ('float32', (None, 4)), 'b': ('tensor(string)', ('N',))}\n"
        "OUTPUTS = {'y': ('int64', (None,))}\nFIELDS = {'a': (0, 10, 5)}\n"
        "def init(): pass\ndef run(data): pass\ndef run_tensors(tensors): return 5\n"
        "def run_image(image): return image\n"
    )
    found = script(tmp_path, text)
    assert found.signature is not None
    assert str(found.signature) == "a tensor(float) [?, 4]; b tensor(string) [N]"
    assert (found.batches, found.images, found.ranges) == (False, True, {"a": (0.0, 10.0, 5.0)})
    with pytest.raises(ScoringFailed, match="dict of arrays"):
        found.run_tensors({})


def test_json_nested_too_deeply_is_the_requests_fault(tmp_path: Path) -> None:
    found = script(tmp_path, "import json\ndef init(): pass\ndef run(raw): json.loads(raw)\n")
    for content in (b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 2000 + b"1" + b"}" * 2000):
        with pytest.raises(BadRequest, match="nested too deeply"):
            found.run(payload(content))


def test_a_script_that_calls_itself_for_ever_failed(tmp_path: Path) -> None:
    found = script(tmp_path, "def init(): pass\ndef run(raw): return run(raw)\n")
    with pytest.raises(RecursionError):
        found.run(payload(b'{"data": [[1], [2]]}'))


def test_other_json_that_a_script_cannot_parse_is_not_called_the_request(tmp_path: Path) -> None:
    found = script(tmp_path, "import json\ndef init(): pass\ndef run(raw): json.loads('{')\n")
    with pytest.raises(BadRequest, match=r"^Expecting property name"):
        found.run(payload())


def test_hooks_that_are_not_there(tmp_path: Path) -> None:
    found = script(tmp_path, "def init(): pass\ndef run(data): pass\n")
    assert (found.tensors, found.images, found.signature, found.fields) == (False, False, None, ())
    with pytest.raises(UnsupportedMediaType):
        found.run_tensors({})


def test_the_packages_of_azure_ml_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = ModuleType("azureml")
    parent.__path__ = []
    monkeypatch.setitem(sys.modules, "azureml", parent)
    azureml.install(RuntimeSettings())
    assert sys.modules["azureml"] is parent
    from importlib import import_module

    assert import_module("azureml.contrib.services.aml_request").AMLRequest is AMLRequest


MODEL = """
import os
from azureml.core import Model
from azureml.core.model import Model as Same
def init():
    global found
    assert Model is Same
    found = Model.get_model_path(NAME)
def run(data): return found
"""


def model_of(settings: RuntimeSettings, name: str = "'fan'") -> object:
    settings.script.write_text(MODEL.replace("NAME", name))
    return ScriptScorer(settings.script, settings).run(payload())


def placed(folder: Path, *files: str) -> RuntimeSettings:
    for file in files:
        path = folder / "azureml-models" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return RuntimeSettings.read({"AML_APP_ROOT": str(folder)})


def test_get_model_path_is_that_of_azureml_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = placed(tmp_path / "one", "fan/3/fan.onnx")
    only = settings.model_dir / "fan.onnx"
    assert model_of(settings) == model_of(settings, "'fan', version=3") == str(only)
    # MLOpsPython's score.py.
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(settings.model_dir))
    assert model_of(settings, "os.getenv('AZUREML_MODEL_DIR').split('/')[-2]") == str(only)
    with pytest.raises(NotServable, match=r"no model fan:4 in .*; models there: fan"):
        model_of(settings, "'fan', version=4")
    with pytest.raises(NotServable, match="no model pump"):
        model_of(settings, "'pump'")
    settings = placed(tmp_path / "folder", "fan/3/model/a.onnx", "fan/3/model/b.txt")
    assert model_of(settings) == str(settings.model_dir / "model")
    settings = placed(tmp_path / "files", "fan/3/a.onnx", "fan/3/b.txt")
    assert model_of(settings) == str(settings.model_dir)
    settings = placed(tmp_path / "two", "fan/9/a", "fan/10/b", "pump/1/c")
    models = tmp_path / "two" / "azureml-models"
    assert model_of(settings) == str(models / "fan" / "10" / "b")
    assert model_of(settings, "'fan', 9") == str(models / "fan" / "9" / "a")
    assert model_of(settings, "'pump'") == str(models / "pump" / "1" / "c")


def test_get_model_path_of_a_model_that_was_rebuilt(tmp_path: Path) -> None:
    # A patch release has the files of its anchor, which is version 3.
    settings = placed(tmp_path, "fan/3/fan.onnx")
    record = {"name": "fan", "version": "4", "digest": "", "files": []}
    (tmp_path / "mlpack.json").write_text(json.dumps(record))
    rebuilt = tmp_path / "tmp" / "mlpack-model-1"
    rebuilt.mkdir(parents=True)
    (rebuilt / "fan.onnx").touch()
    settings = replace(settings, model_dir=rebuilt)
    assert model_of(settings) == model_of(settings, "'fan', 4") == str(rebuilt / "fan.onnx")
    assert model_of(settings, "'tmp'") == str(rebuilt / "fan.onnx")
    with pytest.raises(NotServable, match="no model fan:3"):
        model_of(settings, "'fan', 3")


def test_other_parts_of_azureml_core_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotServable, match=r"not Workspace: add azureml-core to requirements\.in"):
        script(tmp_path, "from azureml.core import Workspace\n")


def test_a_plain_script_does_not_import_werkzeug(tmp_path: Path) -> None:
    text = "import sys\ndef init(): pass\ndef run(data): return 'werkzeug' in sys.modules\n"
    (tmp_path / "score.py").write_text(text)
    with serving(tmp_path) as url:
        assert httpx.post(f"{url}/score", content=b"{}").json() is False


def test_pictures_in_a_form_are_opened_with_pillow(tmp_path: Path) -> None:
    def picture(size: tuple[int, int]) -> bytes:
        found = io.BytesIO()
        PIL.Image.new("RGB", size, "red").save(found, "PNG")
        return found.getvalue()

    sent = httpx.Request(
        "POST",
        "http://device/score",
        files=[("image", ("a.png", picture((4, 2)))), ("image", ("b.png", picture((3, 5))))],
    )
    body = (
        "import io, json, PIL.Image\n"
        "first = PIL.Image.open(request.files['image']).convert('RGB')\n"
        "sizes = [PIL.Image.open(each).size for each in request.files.getlist('image')[1:]]\n"
        "found = io.BytesIO()\n"
        "first.rotate(90, expand=True).save(found, 'PNG')\n"
        "told = json.dumps([first.size, *sizes])\n"
        "answer = AMLResponse(found.getvalue(), 200, {'X-Sizes': told})\n"
        "answer.mimetype = 'image/png'\n"
        "return answer"
    )
    found = raw(tmp_path, body, payload(sent.read(), sent.headers["content-type"]))
    assert (found.status, found.content_type) == (200, "image/png")
    assert PIL.Image.open(io.BytesIO(found.content)).size == (2, 4)
    # A comma separates two headers, as with Azure ML's server.
    values = [found.headers["x-sizes"], *(value for _, value in found.repeated)]
    assert json.loads(",".join(values)) == [[4, 2], [3, 5]]


def test_a_driver_that_looks_for_the_package_marks_no_function(tmp_path: Path) -> None:
    text = (
        "import importlib.util\n"
        "assert importlib.util.find_spec('azureml.contrib.services')\n"
        "from azureml.contrib.services.aml_request import rawhttp\n"
        "rawhttp(None)\n"
        "def init(): pass\n"
        "def run(request): return request.get_data(False).decode()\n"
    )
    found = script(tmp_path, text)
    assert found.raw
    assert found.run(payload(b"x")) == "x"


def test_scripts_find_the_variables_that_azure_mls_server_sets(tmp_path: Path) -> None:
    names = (
        "AML_APP_INSIGHTS_ENABLED AML_APP_ROOT AZUREML_ENTRY_SCRIPT AZUREML_MODEL_DIR SERVER_PORT "
        "WORKER_COUNT"
    )
    text = (
        "import os\ndef init(): pass\n"
        f"def run(data): return {{name: os.environ[name] for name in '{names}'.split()}}\n"
    )
    (tmp_path / "score.py").write_text(text)
    with serving(tmp_path) as url:
        assert httpx.post(f"{url}/score", content=b"{}").json() == {
            "AML_APP_INSIGHTS_ENABLED": "false",
            "AML_APP_ROOT": str(tmp_path),
            "AZUREML_ENTRY_SCRIPT": str(tmp_path / "score.py"),
            "AZUREML_MODEL_DIR": str(tmp_path / "azureml-models"),
            "SERVER_PORT": url.rpartition(":")[2],
            "WORKER_COUNT": "1",
        }
