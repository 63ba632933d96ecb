"""``mlpack score``: against the real runtime, and against servers that do not behave."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mlpack.api.score import summarize
from mlpack.cli.main import cli
from mlpack.model.answer import meaning, shown
from mlpack.model.sample import NotAnInput, recognise
from mlpack.project.scoring_client import RequestTiming
from tests.runtime.models import texts
from tests.runtime.support import FAN, PICTURE, release, serving
from tests.runtime.test_form import columns
from tests.support import free_port, make_project, run, tiny_onnx


@pytest.fixture(scope="module")
def fan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fan")
    release(folder, FAN)
    with serving(folder) as url:
        yield url


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pictures")
    release(folder, PICTURE)
    with serving(folder) as url:
        yield url


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (20, 20), (250, 10, 10)).save(path)
    return path


def test_readings_become_a_fault_and_its_probability(fan: str) -> None:
    done = run("score", fan, "600,38,150.5")
    assert done.exit_code == 0, done.stderr
    headers, _, row = done.stdout.splitlines()
    assert headers.split("  ")[0] == "fault"
    assert headers.endswith("probability of a fault")
    assert row.split() == ["0", "39.4", "%"]


def test_a_picture_becomes_its_five_best_classes(pictures: str, photo: Path) -> None:
    done = run("score", f"{pictures}/score", str(photo))
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["class", "probability"]
    assert lines[2].split()[0] == "red"
    assert len(lines) == 2 + 5


def test_tensors_go_as_they_are(tmp_path: Path) -> None:
    tiny_onnx(release(tmp_path).model_dir / "model.onnx", bias=0.5)
    np.save(tmp_path / "x.npy", np.array([[1, 2, 3, 4]], dtype=np.float32))
    (tmp_path / "x.json").write_text('{"data": [[1, 2, 3, 4]]}')
    with serving(tmp_path) as url:
        for name in ("x.npy", "x.json"):
            done = run("score", url, str(tmp_path / name))
            assert (done.exit_code, done.stdout) == (0, '{"result": [[20.5]]}\n')
        given = CliRunner().invoke(cli, ["score", url, "-"], input=b'{"data": [[0, 0, 0, 1]]}')
        assert (given.exit_code, given.stdout) == (0, '{"result": [[3.5]]}\n')


def test_several_inputs_and_one_that_is_refused(fan: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"params": [1, 2]}')
    done = run("-C", str(tmp_path), "score", fan, "600,38,150", "x.json")
    assert done.exit_code == 1
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["600,38,150", "x.json"]
    error = done.stderr.splitlines()[0]
    assert error.startswith("error: 1 of 2 requests failed; the module answers 400: params is not")


def test_a_measurement(fan: str) -> None:
    done = run(
        "--json", "score", fan, "600,38,150", "1,2,3", "--repeat", "20", "--concurrency", "4"
    )
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert [each["answer"]["fault"] for each in document["answers"]] == ["0", "0"]
    summary = document["summary"]
    assert (summary["requests"], summary["answered"], summary["problems"]) == (40, 40, {})
    assert 0 < summary["p50"] <= summary["p90"] <= summary["p99"] <= summary["longest"]
    assert summary["requests_per_second"] == pytest.approx(40 / summary["seconds"], rel=0.01)
    done = run("score", fan, "600,38,150", "--repeat", "3")
    assert "requests/s" in done.stdout
    assert done.stdout.splitlines()[-1].split()[:2] == ["3", "0"]


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model with named columns: tenure, plan, age and loyal."""
    folder = tmp_path_factory.mktemp("churn")
    columns(release(folder, model="churn/1").model_dir / "model.onnx")
    with serving(folder) as url:
        yield url.removeprefix("http://")


ROW = {"tenure_out": [[5.0]], "plan_out": [["pro"]], "age_out": [[3]], "loyal_out": [[True]]}


@pytest.mark.parametrize(
    "text",
    ["5,pro,3,true", "plan=pro,loyal=1,age=3,tenure=5", "age=3.0, tenure=5, plan=pro, loyal=yes"],
)
def test_named_columns_of_mixed_types(churn: str, text: str) -> None:
    done = run("--json", "score", churn, text)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["answers"][0]["answer"] == {"result": ROW}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("5,pro,3", "3 values given, but the module takes 4: tenure [N, 1], plan [N, 1]"),
        ("plam=pro", "the module has no input 'plam' (did you mean 'plan'?)"),
        ("plan=pro", "tenure is missing; the module takes tenure [N, 1]"),
        ("5,pro,old,true", "age takes a whole number, not 'old'"),
        ("5,pro,3,maybe", "loyal takes true or false, not 'maybe'"),
        ("new,pro,3,true", "tenure takes a number, not 'new'"),
        ("plan=a,b,tenure=5,age=3,loyal=1", "plan [N, 1] takes 1 value, 2 given"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_they_are_sent(
    churn: str, text: str, error: str
) -> None:
    done = run("score", churn, text)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {error}")


def test_the_rows_of_a_csv_file_get_predictions(churn: str, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(
        'plan,age,id,tenure,loyal\n"a, b",40,x1,1.5,true\nfree,50,x2,2,false\n'
    )
    here = ["-C", str(tmp_path)]
    done = run(*here, "score", churn, "c.csv")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["row", *ROW]
    assert done.stdout.splitlines()[3].split() == ["2", "2.0", "free", "50", "false"]
    assert "c.csv: the module takes no id; ignored" in done.stderr
    done = run(*here, "score", churn, "c.csv", "--csv")
    assert done.stdout.splitlines() == [
        "plan,age,id,tenure,loyal,tenure_out,plan_out,age_out,loyal_out",
        '"a, b",40,x1,1.5,true,1.5,"a, b",40,true',
        "free,50,x2,2,false,2.0,free,50,false",
    ]
    document = json.loads(run(*here, "--json", "score", churn, "c.csv").stdout)
    assert document["predictions"][1] == {
        "tenure_out": 2.0,
        "plan_out": "free",
        "age_out": 50,
        "loyal_out": False,
    }
    # The summary shows that all rows went in one request.
    assert document["summary"]["requests"] == 1


def test_a_csv_file_comes_from_standard_input(fan: str) -> None:
    content = b"rotation;a_b;temperature\n600;100;35\n1900;100;35\n"
    given = CliRunner().invoke(cli, ["score", fan, "-", "--csv"], input=content)
    assert given.exit_code == 0, given.stderr
    assert given.stdout.splitlines() == [
        "rotation,a_b,temperature,fault,probability",
        "600,100,35,0,0.3675",
        "1900,100,35,1,1.0",
    ]


def test_a_strangers_model_is_not_sent_params(tmp_path: Path) -> None:
    tiny_onnx(release(tmp_path).model_dir / "model.onnx", bias=0.5)
    np.savetxt(tmp_path / "plain.csv", np.eye(4), delimiter=",")
    with serving(tmp_path) as url:
        for text in ("1,2,3,4", "x=1,2,3,4", "x[0]=1,x[3]=4,x[1]=2,x[2]=3"):
            done = run("score", url, text)
            assert (done.exit_code, done.stdout) == (0, '{"result": [[20.5]]}\n')
        done = run("score", url, str(tmp_path / "plain.csv"), "--csv")
        assert done.stdout.splitlines() == ["result", "0.5", "1.5", "2.5", "3.5"]
        assert run("score", url, "1,2,3,4", "--csv").stdout == '{"result": [[20.5]]}\n'
        done = run("score", url, "1,2,3")
        assert "3 values given, but the module takes 4: x [N, 4]" in done.stderr


def test_a_sentence_is_one_text(tmp_path: Path) -> None:
    texts(release(tmp_path).model_dir / "model.onnx")
    with serving(tmp_path) as url:
        done = run("score", url, "good, but not great")
    assert (done.exit_code, done.stdout) == (0, '{"result": ["good, but not great"]}\n')


@pytest.mark.parametrize("module", ["fan", "fan:2", "localhost:5000/fan:1", "edge/fan"])
def test_without_a_daemon_both_ways_are_named(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    done = run("-C", str(tmp_path), "score", module, "1,2")
    assert done.exit_code == 1
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: {module} is scored in a container, but ")
    assert ("mlpack serve fan" in hint) == ("/" not in module)
    assert "mlpack score localhost:5001 INPUT..." in hint


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """A server that gives everybody the same answer; hangs where ``status`` is 0."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if not status:
                ended.wait(30)
                return
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "hint"),
    [
        (
            400,
            b'{"message": "x has 3 dimensions", "field": "data"}',
            {"Content_Type": "application/json"},
            "the module answers 400: x has 3 dimensions (about data)",
            "",
        ),
        (404, b"<html>\n", {}, "the module answers 404: <html>", "give the address that scores"),
        (503, b"", {"Retry_After": "7"}, "the module answers 503: nothing more", "again in 7 s"),
        (500, b"{}", {}, "the module answers 500: {}", "traceback"),
        (307, b"", {"Location": "/v2"}, "the module answers 307", "it is at /v2"),
    ],
)
def test_what_a_module_answers_is_said(
    status: int, body: bytes, headers: dict[str, str], error: str, hint: str
) -> None:
    with answering(status, body, **headers) as url:
        done = run("score", url, "1,2")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {error}")
    assert hint in done.stderr


def test_no_answer_is_said() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    done = run("score", nobody, "1,2")
    assert done.stderr.startswith(f"error: nothing answers at {nobody}/score")
    assert "mlpack serve NAME" in done.stderr
    with answering(0, b"") as url:
        done = run("score", url, "1,2", "--timeout", "0.2")
    assert f"error: no answer from {url}/score within 0.2 s" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        # Speaks before it is asked, and no HTTP.
        def greet() -> None:
            connection, _ = other.accept()
            connection.sendall(b"220 mail ready\r\n")
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        done = run("score", f"http://127.0.0.1:{other.getsockname()[1]}", "1,2")
        thread.join()
    assert "the connection broke off" in done.stderr
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["http://", "1,2"], "'http://' is not an address"),
        (["http://a:b:c", "1,2"], "'http://a:b:c' is not an address"),
        (["http://localhost", "1e999,2"], "1e999,2: a number is beyond all"),
        (["http://localhost"], "missing argument 'INPUT...'"),
        (["http://localhost", "nowhere.jpg"], "nowhere.jpg does not exist"),
        (["http://localhost", __file__], f"{__file__} is neither a JPEG, PNG or .npy file"),
        (["http://localhost", "1,2", "--repeat", "0"], "invalid value for '--repeat'"),
    ],
)
def test_what_cannot_be_sent_is_said(args: list[str], error: str) -> None:
    done = run("score", *args)
    assert done.exit_code in (1, 2)
    assert done.stderr.startswith(f"error: {error}")


def test_files_are_known_by_their_content() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    assert recognise("a", buffer.getvalue()).content_type == "application/x-npy"
    assert recognise("a", b"\x89PNG\r\n\x1a\n...").content_type == "image/png"
    with pytest.raises(NotAnInput, match="a is empty"):
        recognise("a", b"")


def test_what_answers_mean() -> None:
    many = meaning({"result": [{"fault": "1", "probability": 0.9}, {"fault": 0}]})
    assert many is not None
    assert many.rows == (("1", "90.0 %"), ("0", ""))
    bare = meaning({"result": [0.1, 0.6, 0.3], "time": 0.1})
    assert bare is not None
    assert bare.rows[0] == ("number 1", "60.0 %")
    unknown: list[object] = [
        *(None, [], {"result": [[1.0]]}, {"result": [5, 6]}, {"top": [{"label": 1}]}),
    ]
    for each in unknown:
        assert meaning(each) is None
    assert shown(["x" * 300]).endswith("(304 characters; --json)")


def test_times_of_failures_are_not_counted() -> None:
    slow = [
        RequestTiming(9.0, "refused"),
        RequestTiming(9.0, "refused"),
        RequestTiming(9.0, "lost"),
    ]
    found = summarize([*slow, *(RequestTiming(n / 100) for n in range(1, 101))], 2.0)
    assert (found.p50, found.p90, found.p99, found.longest) == (0.5, 0.9, 0.99, 1.0)
    assert (found.requests, found.answered, found.rate) == (103, 100, 50.0)
    assert list(found.problems.items()) == [("refused", 2), ("lost", 1)]
    nothing = summarize(slow, 0.0)
    assert (nothing.p50, nothing.rate) == (0.0, 0.0)


def test_json_is_taken_as_an_argument(churn: str) -> None:
    row = '{"tenure": 5, "plan": "pro", "age": 3, "loyal": true}'
    done = run("--json", "score", churn, row)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["answers"][0]["answer"]["result"]["plan_out"] == [["pro"]]
    done = run("score", churn, '{"tenure": 5,')
    assert (done.exit_code, "nor JSON" in done.stderr) == (2, True)


def test_missing_values_are_refused_with_the_way_to_allow_them(churn: str, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("tenure,plan,age,loyal\n,pro,3,true\n")
    for arguments in ((), ("--csv",)):
        done = run("-C", str(tmp_path), "score", churn, "c.csv", *arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "tenure" in done.stderr
        assert "mlpack serve NAME --env MLPACK_ALLOW_NAN=1" in done.stderr


def test_a_picture_for_a_model_alone_is_refused_with_what_to_do(churn: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = run("score", churn, str(tmp_path / "a.png"))
    assert done.exit_code == 1
    assert "run_image()" in done.stderr
