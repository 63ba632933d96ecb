"""Scripts and requests that Azure ML's server and this runtime must answer alike.

``record.py`` sends them to azureml-inference-server-http and keeps its answers in
``expected.json``; tests/runtime/test_azureml_server.py sends them to the runtime.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]

_RAW = """
import io, json
from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
"""

MEMBERS = (
    _RAW
    + """
# What differs by its nature: the bound address is a wildcard there.
PRIVATE = {"application", "environ", "json", "json_module", "server"}

def plain(value):
    if hasattr(value, "to_dict") and any(hasattr(each, "filename") for each in value.values()):
        return [[name, str(each)] for name, each in value.items(multi=True)]
    if hasattr(value, "to_dict"):
        return value.to_dict(flat=False)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if callable(value):
        return "callable"
    if hasattr(value, "read"):
        return "stream"
    if hasattr(value, "to_wsgi_list"):
        return sorted(map(list, value.to_wsgi_list()))
    if isinstance(value, type):
        return value.__name__
    return f"{type(value).__name__} {value}"

def init():
    pass

@rawhttp
def run(request):
    found = {"names": sorted(n for n in dir(request) if not n.startswith("_"))}
    for name in found["names"]:
        if name not in PRIVATE:
            try:
                found[name] = plain(getattr(request, name))
            except Exception as error:
                found[name] = f"{type(error).__name__}"
    found["json"] = request.get_json(silent=True)
    found["again"] = len(request.get_data())
    found["wsgi"] = sorted(k for k in request.environ if k.startswith(("HTTP_", "CONTENT_")))
    return AMLResponse(found, 200, json_str=True)
"""
)

RESPONSES = (
    _RAW
    + """
from werkzeug.wrappers import Response
from werkzeug.exceptions import abort
from datetime import datetime, timezone

def later_mimetype(request):
    found = AMLResponse("a,b", 200)
    found.mimetype = "text/csv"
    return found

def later_content_type(request):
    found = AMLResponse(b"\\x00\\x01", 200)
    found.content_type = "application/octet-stream"
    return found

def later_status(request):
    found = AMLResponse("x", 200)
    found.status = "418 I am a teapot"
    return found

def later_data(request):
    found = AMLResponse("x", 200)
    found.set_data("longer")
    found.headers["X-A"] = "1"
    return found

def cookies(request):
    found = AMLResponse("x", 200)
    found.set_cookie("a", "1", httponly=True, path="/score")
    found.set_cookie("b", "2 3", samesite="Lax", secure=True)
    found.delete_cookie("c")
    return found

def generator(request):
    def parts():
        for number in range(3):
            yield b"part %d\\n" % number
    return AMLResponse(parts(), 200, {"Content-Type": "text/event-stream"})

def generator_of_text(request):
    return AMLResponse((text for text in ("\\u00e4", "", "b")), 200)

def generator_by_name(request):
    return AMLResponse(iter([b"a", b"b"]), 201, {"X-A": "1, 2", "Content-Type": "a/b"})

def generator_that_reads(request):
    data = request.get_data()
    return AMLResponse((data[i:i + 2] for i in range(0, len(data), 2)), 200)

def generator_with_length(request):
    found = AMLResponse(iter([b"ab", b"cd"]), 200)
    found.content_length = 4
    return found

def listed(request):
    return AMLResponse([b"a", b"bc"], 200)

def file(request):
    return AMLResponse(io.BytesIO(b"abc" * 10), 200, {"Content-Type": "image/png"})

def wsgi(request):
    found = AMLResponse("x", 200)
    found.headers.add("Link", "</a>")
    found.headers.add("Link", "</b>")
    found.content_language.add("de")
    found.vary.add("Accept")
    found.cache_control.max_age = 5
    found.last_modified = datetime(2024, 1, 2, tzinfo=timezone.utc)
    found.set_etag("abc")
    found.allow.add("GET")
    return found

def redirect(request):
    return AMLResponse("", 302, {"Location": "/elsewhere"})

def disposition(request):
    return AMLResponse(b"x", 200, {"Content-Disposition": "attachment; filename=a.txt"})

def without_type(request):
    found = AMLResponse("x", 200)
    del found.headers["Content-Type"]
    return found

def hop_by_hop(request):
    return AMLResponse("x", 200, {"Connection": "close", "Keep-Alive": "5", "X-B": "2"})

def own_ids(request):
    return AMLResponse("x", 200, {"x-request-id": "mine", "x-ms-request-id": "mine"})

def form(request):
    return {
        "form": request.form.to_dict(flat=False),
        "first": request.form.get("a"),
        "list": request.form.getlist("a"),
        "integer": request.form.get("n", type=int),
        "files": [
            [name, f.filename, f.content_type, f.mimetype, f.name, dict(f.headers), len(f.read())]
            for name, f in request.files.items(multi=True)
        ],
        "values": request.values.to_dict(flat=False),
        "data": request.get_data().decode("latin-1"),
    }

def data_then_form(request):
    return [len(request.get_data()), request.form.to_dict()]

def stream(request):
    return [request.stream.read(3).decode(), request.stream.read().decode()]

def lines(request):
    return [line.decode() for line in request.stream]

def cached(request):
    first = request.get_data(as_text=True)
    return [first, request.data.decode(), request.get_data(cache=False).decode()]

def json_(request):
    return [request.is_json, request.json, request.get_json(force=True)]

def accept(request):
    return [
        request.accept_mimetypes.best_match(["text/csv", "application/json"]),
        request.accept_languages.best, str(request.cache_control), str(request.range),
        str(request.if_none_match), str(request.authorization), str(request.user_agent),
        list(request.access_route)[:1], request.access_control_request_method,
    ]

def etag(request):
    found = AMLResponse("x", 200)
    found.add_etag()
    return found.make_conditional(request)

def ranged(request):
    found = AMLResponse(b"0123456789", 200)
    return found.make_conditional(request, accept_ranges=True, complete_length=10)

def members(request):
    found = AMLResponse("a", 200)
    return sorted(n for n in dir(found) if not n.startswith("_"))

def values(request):
    found = AMLResponse({"a": 1}, 201, {"X-A": "b"}, json_str=True)
    return {
        "status": found.status, "code": found.status_code, "mimetype": found.mimetype,
        "params": found.mimetype_params, "type": found.content_type, "json": found.json,
        "data": found.get_data(as_text=True), "length": found.content_length,
        "calculated": found.calculate_content_length(), "is_json": found.is_json,
        "streamed": found.is_streamed, "sequence": found.is_sequence,
        "headers": list(found.headers),
        "max_cookie_size": found.max_cookie_size, "charset": found.default_status,
        "subclass": isinstance(found, Response),
    }

def raises(request):
    raise KeyError("x")

def aborts(request):
    abort(409, "no such fan")

def aborts_with_an_answer(request):
    abort(AMLResponse("own", 404))

def fails(request):
    return AMLResponse("bad", 503)

def fails_as_told(request):
    return AMLResponse("bad", 200, run_function_failed=True)

ANSWERS = {
    "none": lambda r: AMLResponse(None, 200),
    "none_500": lambda r: AMLResponse(None, 500),
    "json_str": lambda r: AMLResponse({"a": [1, None]}, 200, json_str=True),
    "json_text": lambda r: AMLResponse("text", 200, json_str=True),
    "json_type": lambda r: AMLResponse({"a": 1}, 200, {"X-A": "1"}, True),
    "bytes": lambda r: AMLResponse(b"\\xff\\x00", 200, {"Content-Type": "image/jpeg"}),
    "bytearray": lambda r: AMLResponse(bytearray(b"ab"), 200),
    "text": lambda r: AMLResponse("\\u00e4", 200),
    "status_text": lambda r: AMLResponse("x", "404 NOT FOUND"),
    "status_number": lambda r: AMLResponse("x", "404"),
    "repeated": lambda r: AMLResponse("x", 200, {"X-A": "1, 2,3", "X-B": "c"}),
    "empty": lambda r: AMLResponse("", 200),
    "204": lambda r: AMLResponse("", 204),
    "304": lambda r: AMLResponse("ignored", 304),
    "result_dict": lambda r: {"a": 1},
    "result_text": lambda r: "text",
    "result_list": lambda r: [1, "a", None, 1.5],
    "result_number": lambda r: 1.5,
}
for each in (
    later_mimetype, later_content_type, later_status, later_data, cookies, generator,
    generator_of_text, generator_by_name, generator_that_reads, generator_with_length, listed, file,
    wsgi, redirect, disposition, without_type, hop_by_hop, own_ids, form, data_then_form, stream,
    lines, cached, json_, accept, etag, ranged, members, values, raises,
    aborts, aborts_with_an_answer, fails, fails_as_told,
):
    ANSWERS[each.__name__] = each

def init():
    pass

@rawhttp
def run(request):
    return ANSWERS[request.args["do"]](request)
"""
)

PLAIN = """
import json

def init():
    pass

def run(data):
    found = json.loads(data) if data else None
    if found == "raise":
        raise KeyError("secret")
    if found == "none":
        return None
    return {"data": data, "found": found}
"""

WITH_HEADERS = """
def init():
    pass

def run(data, request_headers):
    return [data, dict(sorted(request_headers.items()))]
"""

SCHEMA = """
import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

def init():
    pass

@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
@input_schema("frame", PandasParameterType(pd.DataFrame({"a": [1], "b": ["x"]})))
@input_schema("method", StandardPythonParameterType("predict"))
@output_schema(StandardPythonParameterType({"sum": 1.0}))
def run(data, frame, method="predict"):
    return {"sum": float(data.sum()), "kind": str(data.dtype), "rows": len(frame),
            "names": "".join(frame["b"]), "method": method}
"""

SCRIPTS: Mapping[str, str] = {
    "members": MEMBERS,
    "responses": RESPONSES,
    "plain": PLAIN,
    "headers": WITH_HEADERS,
    "schema": SCHEMA,
}

JSON: Headers = (("Content-Type", "application/json"),)
FORM = (
    b'--b0und\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    b'--b0und\r\nContent-Disposition: form-data; name="a"\r\n\r\nh\xc3\xa4\r\n'
    b'--b0und\r\nContent-Disposition: form-data; name="n"\r\n\r\n12\r\n'
    b'--b0und\r\nContent-Disposition: form-data; name="image"; filename="a;b.png"\r\n'
    b"Content-Type: image/png\r\n\r\n" + bytes(range(256)) + b"\r\n--not\r\n\r\n\r\n"
    b'--b0und\r\nContent-Disposition: form-data; name="image"; filename="two.bin"\r\n\r\n\r\n'
    b"--b0und--\r\n"
)
MULTIPART: Headers = (("Content-Type", 'multipart/form-data; boundary="b0und"'),)
URLENCODED: Headers = (("Content-Type", "application/x-www-form-urlencoded"),)


@dataclass(frozen=True)
class Request:
    """One request; ``Host`` and ``x-request-id`` are added to its headers."""

    query: str = ""
    body: bytes = b""
    headers: Headers = ()
    method: str = "POST"
    path: str = "/score"


def _do(names: Sequence[str], body: bytes = b"", headers: Headers = ()) -> dict[str, Request]:
    return {name: Request(f"do={name}", body, headers) for name in names}


_ANSWERS = (
    "none",
    "none_500",
    "json_str",
    "json_text",
    "json_type",
    "bytes",
    "bytearray",
    "text",
    "status_text",
    "status_number",
    "repeated",
    "empty",
    "204",
    "304",
    "result_dict",
    "result_text",
    "result_list",
    "result_number",
    "later_mimetype",
    "later_content_type",
    "later_status",
    "later_data",
    "cookies",
    "generator",
    "generator_of_text",
    "generator_by_name",
    "generator_with_length",
    "listed",
    "file",
    "wsgi",
    "redirect",
    "disposition",
    "without_type",
    "hop_by_hop",
    "own_ids",
    "members",
    "values",
    "raises",
    "aborts",
    "aborts_with_an_answer",
    "fails",
    "fails_as_told",
)

_CLIENT: Headers = (
    ("Accept", "text/csv;q=0.5, application/json"),
    ("Accept-Language", "de, en;q=0.5"),
    ("Cache-Control", "no-cache"),
    ("Range", "bytes=0-3"),
    ("If-None-Match", '"abc"'),
    ("Authorization", "Basic dTpw"),
    ("User-Agent", "curl/8.0"),
    ("Cookie", "a=1; b=2"),
    ("Cookie", "c=3"),
    ("X-Twice", "1"),
    ("X-Twice", "2"),
    ("X-Under_Score", "dropped"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("Origin", "https://a.example"),
    ("Referer", "https://a.example/x"),
    ("Date", "Tue, 02 Jan 2024 00:00:00 GMT"),
    ("Content-Encoding", "identity"),
    ("Content-MD5", "xyz"),
    ("Max-Forwards", "3"),
    ("Pragma", "x"),
    ("Access-Control-Request-Method", "POST"),
    ("Access-Control-Request-Headers", "x-a"),
)

CASES: Mapping[str, Mapping[str, Request]] = {
    "members": {
        "json": Request("a=1&a=2&b=x%20y", b'{"k": "v"}', JSON),
        "client": Request("", b"x", _CLIENT),
        "form": Request("", b"a=1&a=2&b=x%20y", URLENCODED),
        "multipart": Request("q=1", FORM, MULTIPART),
        "empty": Request(),
        "get": Request("a=1", method="GET"),
        "options": Request(method="OPTIONS"),
        "latin": Request("", b"\xe4", (("Content-Type", "text/plain; charset=latin-1"),)),
        "suffix": Request("", b"[1]", (("Content-Type", "application/vnd.a+json"),)),
    },
    "responses": {
        **_do(_ANSWERS),
        **_do(["form"], FORM, MULTIPART),
        "form_urlencoded": Request("do=form&a=q", b"a=1&a=%C3%A4&n=12&e=", URLENCODED),
        "form_none": Request("do=form", b"{}", JSON),
        **_do(["data_then_form"], b"a=1", URLENCODED),
        **_do(["stream", "lines", "cached", "generator_that_reads"], b"one\ntwo\n"),
        **_do(["json_"], b'{"a": [1, 2.5, "x"]}', JSON),
        **_do(["accept"], b"", _CLIENT),
        **_do(["etag"]),
        "etag_held": Request(
            "do=etag", headers=(("If-None-Match", '"11f6ad8ec52a2984abaafd7c3b516503785c2072"'),)
        ),
        "etag_get": Request(
            "do=etag",
            headers=(("If-None-Match", '"11f6ad8ec52a2984abaafd7c3b516503785c2072"'),),
            method="GET",
        ),
        "ranged": Request("do=ranged", headers=(("Range", "bytes=2-4"),), method="GET"),
        "get": Request("do=text", method="GET"),
        "options": Request("do=text", method="OPTIONS"),
        "json_invalid": Request("do=json_", b"{", JSON),
        "json_type": Request("do=json_", b"{}", (("Content-Type", "text/plain"),)),
        "no_argument": Request(""),
    },
    "plain": {
        "json": Request("", b'{"a": "\xc3\xa4"}', JSON),
        "text": Request("", b"[1]", (("Content-Type", "text/csv"),)),
        "no_type": Request("", b"[1]"),
        "empty": Request(),
        "get": Request("a=1&b=[1,2]&c=x&d=null&e=1&e=y&f=", method="GET"),
        "options": Request(method="OPTIONS"),
        "none": Request("", b'"none"'),
        "raises": Request("", b'"raise"'),
        "not_json": Request("", b"{"),
        "not_utf8": Request("", b"\xff"),
        "ids": Request("", b"1", (("x-ms-request-id", "r"), ("x-ms-client-request-id", "c"))),
        "client_id": Request("", b"1", (("x-ms-client-request-id", "c"),)),
        "legacy_id": Request("", b"1", (("x-ms-request-id", "r"),)),
        "long_id": Request("", b"1", (("x-ms-client-request-id", "c" * 101),)),
        "trace": Request("", b"1", (("TraceId", "t"),)),
        "delete": Request(method="DELETE"),
        "missing": Request(path="/nowhere"),
        "health": Request(method="GET", path="/"),
        "preflight": Request(
            headers=(
                ("Origin", "https://a.example"),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "x-b, content-type"),
            ),
            method="OPTIONS",
        ),
        "cors": Request("", b"1", (("Origin", "https://A.example"),)),
        "cors_pattern": Request("", b"1", (("Origin", "https://x.contoso.com"),)),
        "cors_elsewhere": Request("", b"1", (("Origin", "https://b.example"),)),
        "cors_error": Request("", b"\xff", (("Origin", "https://a.example"),)),
        "cors_health": Request("", b"", (("Origin", "https://a.example"),), "GET", "/"),
    },
    "headers": {
        "post": Request("", b"x", (*JSON, ("X-Ms-A", "1"), ("x-twice", "1"), ("x-twice", "2"))),
        "get": Request("a=1", method="GET"),
    },
    "schema": {
        "numpy": Request("", b'{"data": [[1, 2]], "frame": [{"a": 1, "b": "x"}]}', JSON),
        "named": Request(
            "", b'{"data": [[1.5, 2]], "frame": [{"a": 1, "b": "x"}], "method": "other"}', JSON
        ),
        "absent": Request("", b'{"data": [[1, 2]]}', JSON),
        "list": Request("", b"[1]", JSON),
        "empty": Request("", b"", JSON),
        "invalid": Request("", b"{", JSON),
        "type": Request("", b"{}", (("Content-Type", "text/plain"),)),
        "shape": Request("", b'{"data": [["x"]], "frame": [{"a": 1, "b": "x"}]}', JSON),
        "get": Request("data=[[1,2]]&frame=[{%22a%22:1,%22b%22:%22x%22}]", method="GET"),
        "options": Request(method="OPTIONS"),
    },
}

ENVIRONMENT = {"AML_CORS_ORIGINS": r"https://a.example, https://.*\.contoso\.com"}
"""Of the servers of ``plain``."""

_VOLATILE = {"date", "server", "connection", "x-ms-server-version"}


def send(port: int, request: Request) -> dict[str, object]:
    """Send a request; return what of the answer must be equal."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    target = f"{request.path}?{request.query}" if request.query else request.path
    connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
    headers = (("Host", "device:5001"), ("x-request-id", "id-1"), *request.headers)
    for name, value in headers:
        connection.putheader(name, value)
    if request.body or request.method == "POST":
        connection.putheader("Content-Length", str(len(request.body)))
    connection.endheaders(request.body)
    answer = connection.getresponse()
    try:
        body = answer.read()
    except http.client.IncompleteRead as error:
        body = error.partial + b" (incomplete)"
    found = [(name.lower(), value) for name, value in answer.getheaders()]
    kept = sorted(
        [name, "N" if name == "x-ms-run-fn-exec-ms" else value]
        for name, value in found
        if name not in _VOLATILE
    )
    connection.close()
    return {"status": answer.status, "headers": kept, "body": _body(body)}


def _body(content: bytes) -> object:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
    try:
        return {"json": json.loads(text)}
    except ValueError:
        return text


def answers(port: int, name: str) -> dict[str, object]:
    """Send all requests of a script."""
    return {case: send(port, request) for case, request in CASES[name].items()}


def wait(port: int, seconds: float = 60) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            send(port, Request(method="GET", path="/"))
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
