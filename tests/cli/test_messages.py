"""What every command says when something is wrong: one rule of statuses, the word meant, JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mlpack.api import docs
from mlpack.cli import terminal
from mlpack.cli.completed_values import values
from mlpack.cli.completion import SHELLS, install_path
from mlpack.cli.main import COMMANDS, cli
from tests.support import make_project, run, tiny_onnx

VANS = "\n[deploy.groups.vans]\ntarget = \"tags.deviceGroup = 'vans'\"\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with churn:1, which is built, churn:2, which is not, and a device group."""
    root = make_project(tmp_path_factory.mktemp("messages") / "project").root
    settings = root / "mlpack.toml"
    settings.write_text(settings.read_text() + VANS)
    (root / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    tiny_onnx(root / "a.onnx")
    for version in ("1", "2"):
        tiny_onnx(root / "a.onnx", bias=float(version))
        named = ("--name", "churn", "--version", version)
        done = run("-C", str(root), "register", "a.onnx", *named)
        assert done.exit_code == 0, done.output
    assert run("-C", str(root), "build", "churn:1").exit_code == 0
    return root


def refused(root: Path, *args: str) -> tuple[int, str]:
    done = run("-C", str(root), *args)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code != 0
    return done.exit_code, done.stderr


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        ("buld churn", "build"),
        ("regsiter a.onnx", "register"),
        ("base biuld", "build"),
        ("patch aply", "apply"),
        ("registry sreve", "serve"),
        ("azure tken", "token"),
        ("bundle verfiy b.tar.gz", "verify"),
        ("build churn --strategy pach", "patch"),
        ("build churn --efort fast", "--effort"),
        ("models --jsn", "--json"),
        ("render churn --target kubernets", "kubernetes"),
        ("init --template fann x", "fan"),
        ("diff chrn:1 churn:1", "churn"),
        ("show chrn", "churn"),
        ("models chrn", "churn"),
        ("build chrn", "churn"),
        ("report churn --from chrn:1", "churn"),
        ("report churn --engine dokcer", "docker"),
        ("diff churn:1 churn:1 --engine podmann", "podman"),
        ("load churn --engine dokcer", "docker"),
        ("run churn --engine pdman", "podman"),
        ("report churn --tariff per-md", "per-mb"),
        ("plan churn --device-group van", "vans"),
        ("register a.onx", "a.onnx"),
    ],
)
def test_the_word_that_was_meant(args: str, meant: str, root: Path) -> None:
    _, said = refused(root, *args.split())
    assert "did you mean" in said.lower()
    assert f"'{meant}'" in said


@pytest.mark.parametrize(
    "args",
    [
        "buld",
        "build --bogus",
        "build churn --strategy none",
        "load churn --engine containerd",
        "report churn --engine crio",
        "pull churn:1",
        "render churn --with-secrets",
        "registry serve --certificate a.pem",
    ],
)
def test_a_command_line_that_cannot_be_right_is_status_2(args: str, root: Path) -> None:
    assert refused(root, *args.split())[0] == 2


@pytest.mark.parametrize(
    "args",
    [
        "-C nowhere models",
        "register nowhere.onnx",
        "register a.onnx --metrics nowhere.json",
        "register a.onnx --scoring nowhere.py",
        "bundle verify nowhere.tar",
        "patch inspect nowhere",
        "patch make nowhere a.onnx -o x",
        "render churn --patch nowhere.json",
        "render churn --template nowhere.json",
        "render churn --token nowhere.env -o x.json",
        "plan churn --device-group vans --fleet nowhere.json",
        "score http://127.0.0.1:9 nowhere.jpg",
        "registry serve --user a --password-file nowhere",
        "registry serve --certificate nowhere --key nowhere",
        "report churn --tariff nowhere.toml",
        "up nowhere.json",
        "show nowhere",
        "build churn:9",
        "plan churn --device-group nobody",
        "deploy --device-group vans",
        "status",
        "rollback --device-group vans",
        "report --rollout 7",
    ],
)
def test_what_a_file_a_project_or_a_hub_lacks_is_status_1(args: str, root: Path) -> None:
    assert refused(root, *args.split())[0] == 1


def test_a_repository_that_is_not_configured_is_status_1_everywhere(
    root: Path, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project").root
    settings = project / "mlpack.toml"
    lines = settings.read_text().splitlines(keepends=True)
    settings.write_text("".join(line for line in lines if not line.startswith("repository")))
    tiny_onnx(project / "a.onnx")
    (project / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    for args in ("register a.onnx --name churn", "build churn"):
        assert run("-C", str(project), *args.split()).exit_code == 0
    for args in ("push churn", "render churn"):
        status, said = refused(project, *args.split())
        assert status == 1
        assert "repository" in said


def test_make_it_with_names_a_command_that_works(root: Path) -> None:
    _, said = refused(root, "diff", "churn:1", "churn:2")
    assert "mlpack build churn:2" in said
    _, said = refused(root, "diff", "churn:1", "churn:9")
    assert "mlpack build" not in said
    assert "releases of churn: 1" in said
    _, said = refused(root, "report", "churn", "--from", "nothing")
    assert "mlpack build" not in said


def test_without_a_model_the_hint_registers_one(tmp_path: Path) -> None:
    empty = make_project(tmp_path / "project").root
    _, said = refused(empty, "diff", "base", "churn")
    assert "mlpack register PATH --name churn" in said


def test_the_base_that_is_not_here(tmp_path: Path) -> None:
    bare = make_project(tmp_path / "project", base=False).root
    _, said = refused(bare, "diff", "none", "base")
    assert "mlpack.lock" in said
    assert "mlpack base build" in said
    assert "mlpack pull" in said


def test_docker_and_moby_are_one_engine_everywhere(root: Path) -> None:
    for name in ("docker", "moby"):
        done = run("-C", str(root), "--json", "report", "churn", "--engine", name)
        assert json.loads(done.stdout)["engine"] == "moby"
    for command in ("load", "run"):
        answers = {
            refused(root, command, "nobody", "--engine", name) for name in ("docker", "moby")
        }
        assert len(answers) == 1
        assert "not an engine" not in answers.pop()[1]


@pytest.mark.parametrize("image", ["python:3.11-slim", "ubuntu:22.04"])
def test_a_base_of_docker_hub_is_named_as_it_works(image: str, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", base=False).root
    settings = project / "mlpack.toml"
    settings.write_text(f'[model]\nname = "fan"\n\n[base]\nfrom = "{image}"\n')
    _, said = refused(project, "base", "build")
    assert f"docker.io/library/{image}" in said


@pytest.mark.parametrize("args", ["--json show chrn", "show chrn --json"])
def test_with_json_an_error_is_one_document_on_stderr(args: str, root: Path) -> None:
    done = run("-C", str(root), *args.split())
    assert done.stdout == ""
    found = json.loads(done.stderr.splitlines()[-1])
    assert set(found) == {"error"}
    assert set(found["error"]) == {"message", "hint", "status"}
    assert "chrn" in found["error"]["message"]
    assert found["error"]["status"] == done.exit_code == 1


def test_with_json_wrong_usage_is_a_document_too(root: Path) -> None:
    done = run("--json", "buld")
    assert json.loads(done.stderr)["error"]["status"] == done.exit_code == 2


@pytest.mark.parametrize("group", ["base", "bundle", "patch", "registry", "azure"])
def test_with_json_a_group_without_its_command_is_a_document_too(group: str) -> None:
    done = run("--json", group)
    assert (done.exit_code, done.stdout) == (2, "")
    assert json.loads(done.stderr)["error"]["hint"] == f"see: mlpack {group} --help"


def test_what_an_argument_may_be_is_listed_on_one_line() -> None:
    done = run("--json", "completion")
    message = json.loads(done.stderr)["error"]["message"]
    assert message.isprintable()
    assert message.endswith("one of bash, zsh, fish")


def test_a_word_that_is_no_alias_is_called_so_in_english(root: Path) -> None:
    assert "is not an alias" in run("-C", str(root), "tag", "churn:1", "a/b").stderr


def test_an_installation_without_documentation_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "PACKAGE", "mlpack_docs_not_installed")
    done = run("docs")
    assert done.exit_code == 1
    assert "no documentation" in done.stderr


def test_quiet_prints_the_answer_only(root: Path) -> None:
    done = run("-C", str(root), "-q", "build", "churn:1")
    assert (done.exit_code, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert run("-C", str(root), "-q", "show", "chrn").stderr.startswith("error: ")


def test_verbose_reports_steps_and_causes(root: Path) -> None:
    done = run("-C", str(root), "-v", "build", "churn:1", "--no-start")
    assert " s" in next(line for line in done.stderr.splitlines() if line.startswith("making"))
    done = run("-C", str(root), "-v", "patch", "inspect", "score.py")
    assert "because: " in done.stderr
    assert "because: " not in run("-C", str(root), "patch", "inspect", "score.py").stderr


# --- the terminal


def on_terminal(root: Path, *args: str, columns: int = 80, **environment: str) -> str:
    """What a command prints on a terminal, both streams."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **environment}
    command = [sys.executable, "-m", "mlpack", "-C", str(root), *args]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux reports the other end's closing so
                break
            if not part:
                break
            parts.append(part)
        process.wait()
    os.close(ours)
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_colors_are_for_terminals(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in on_terminal(root, "show", "chrn")
    assert "\x1b[" not in on_terminal(root, "show", "chrn", NO_COLOR="1")
    assert "\x1b[" not in run("-C", str(root), "show", "chrn").stderr
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in run("-C", str(root), "show", "chrn").stderr
    found = run("-C", str(root), "--json", "models").stdout
    assert len(json.loads(found)["models"]) == 2


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_lines_fit_the_terminal_and_words_stay_whole(columns: int, root: Path) -> None:
    shown = on_terminal(root, "show", "chrn", columns=columns, NO_COLOR="1")
    assert max(map(len, shown.splitlines())) <= columns
    assert "did you mean" in shown.replace("\n       ", " ")
    words = {"churn", "onnx", "model", "version"}
    listed = on_terminal(root, "models", columns=columns, NO_COLOR="1")
    assert words <= set(listed.split())
    assert max(map(len, listed.splitlines()[:-1])) <= columns


def test_a_column_that_does_not_fit_is_named_below(root: Path) -> None:
    shown = on_terminal(root, "models", columns=40, NO_COLOR="1")
    assert "not shown, for lack of width: " in shown
    assert "registered" in shown.splitlines()[-1]


def test_numbers_are_never_dropped() -> None:
    found = terminal.lay_out((10, 20, 8), (10, 20, 8), (1,), 24)
    assert found.columns == (0, 2)


# --- completion


def completed(root: Path, words: str, cursor: int) -> set[str]:
    env = {
        **os.environ,
        "COMP_WORDS": f"mlpack -C {root} {words}",
        "COMP_CWORD": str(cursor + 2),
        "_MLPACK_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-m", "mlpack"], env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("words", "cursor", "found"),
    [
        ("dif", 1, {"diff"}),
        ("build ch", 2, {"churn", "churn:1", "churn:2"}),
        ("diff churn:1 churn:", 3, {"churn:1", "churn:2"}),
        ("plan --device-group ", 3, {"vans"}),
        ("build churn --platform ", 4, {"linux/amd64", "linux/arm64"}),
        ("report churn --engine ", 4, {"moby", "containerd", "podman", "docker"}),
        ("build --strategy p", 3, {"packed", "patch"}),
        ("bundle ve", 2, {"verify"}),
    ],
)
def test_a_shell_completes_values(words: str, cursor: int, found: set[str], root: Path) -> None:
    assert completed(root, words, cursor) == found


def test_outside_a_project_there_is_nothing_to_complete(tmp_path: Path) -> None:
    assert values("model", tmp_path) == ()
    assert "moby" in values("engine", tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_and_installs(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    script = run("completion", shell).stdout
    assert "_MLPACK_COMPLETE" in script
    done = run("completion", shell, "--install")
    path = install_path(shell)
    assert (done.exit_code, done.stdout.strip()) == (0, str(path))
    assert path.is_relative_to(tmp_path)
    assert path.read_text() == script


def test_every_command_has_a_line_of_help() -> None:
    with click.Context(cli) as ctx:
        for name in COMMANDS:
            assert cli.get_command(ctx, name) is not None
