"""``mlpack render`` and the secrets of modules: where they come from, and where they go."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from mlpack.project.directory import ProjectDirectory
from tests.support import make_project, run, tiny_onnx

SETTINGS = """
[edge.modules.sql]
image = "mcr.microsoft.com/azure-sql-edge:2.0.0"
env = { ACCEPT_EULA = "Y" }
secret_env = { MSSQL_SA_PASSWORD = "env:TEST_SA", LICENCE = "file:keys/licence" }

[edge.modules.blob]
image = "mcr.microsoft.com/azure-blob-storage:1.4.12"
secret_env = { LOCAL_STORAGE_ACCOUNT_KEY = "env:TEST_BLOB" }
"""
SA, BLOB, LICENCE = "hunter2 \"$x' sa", "hunter2blob" + "A" * 32 + "==", "hunter2licence"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectDirectory:
    made = make_project(tmp_path / "fan", settings=SETTINGS)
    tiny_onnx(made.root / "m.onnx")
    for args in (("register", str(made.root / "m.onnx")), ("build", "fan")):
        assert run("-C", str(made.root), *args).exit_code == 0
    (made.root / "keys").mkdir()
    (made.root / "keys/licence").write_text(f"{LICENCE}\n")
    monkeypatch.setenv("TEST_SA", SA)
    monkeypatch.setenv("TEST_BLOB", BLOB)
    return made


def render(project: ProjectDirectory, *args: str) -> Result:
    done = run("-C", str(project.root), "render", "fan", *args)
    assert "hunter2" not in done.output
    return done


def env(text: str, module: str) -> Any:  # noqa: ANN401  # a JSON document
    agent = json.loads(text)["modulesContent"]["$edgeAgent"]
    whole = agent.get("properties.desired")
    found = whole["modules"][module] if whole else agent[f"properties.desired.modules.{module}"]
    return {name: each["value"] for name, each in found["env"].items()}


@pytest.mark.parametrize("form", [(), ("--layered",)])
def test_secrets_are_placeholders_until_they_are_asked_for(
    project: ProjectDirectory, form: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    placeholders = {"ACCEPT_EULA": "Y", "MSSQL_SA_PASSWORD": "${TEST_SA}"}
    placeholders["LICENCE"] = "<file:keys/licence>"
    shown = render(project, *form)
    assert env(shown.stdout, "sql") == placeholders
    assert shown.stderr.replace("\n", " ").count("is filled in by --with-secrets") == 3
    done = render(project, *form, "--with-secrets", "-o", "d.json", "--json")
    assert done.exit_code == 0, done.stderr
    path = project.root / "d.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert env(path.read_text(), "sql") == {
        "ACCEPT_EULA": "Y",
        "MSSQL_SA_PASSWORD": SA,
        "LICENCE": LICENCE,
    }
    assert env(path.read_text(), "blob") == {"LOCAL_STORAGE_ACCOUNT_KEY": BLOB}
    assert env(json.dumps(json.loads(done.stdout)["deployment"]), "sql") == {
        "ACCEPT_EULA": "Y",
        "MSSQL_SA_PASSWORD": "***",
        "LICENCE": "***",
    }
    # The same manifest, but for its secrets; and a file without any is everyone's again.
    monkeypatch.delenv("TEST_SA")
    assert render(project, *form, "-o", "d.json").exit_code == 0
    assert path.read_text() == shown.stdout
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_is_missing_is_named_at_once(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_SA")
    monkeypatch.setenv("TEST_BLOB", "")
    (project.root / "keys/licence").unlink()
    done = render(project, "--with-secrets", "-o", "d.json")
    assert done.exit_code == 1
    said = done.stderr.replace("\n", " ")
    assert "MSSQL_SA_PASSWORD of module sql: TEST_SA is not set in the environment" in said
    assert "LOCAL_STORAGE_ACCOUNT_KEY of module blob: TEST_BLOB is not set" in said
    assert "LICENCE of module sql:" in said
    assert not (project.root / "d.json").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\n", "holds no text"),
        (b"", "holds no text"),
        (b"a\0b", "holds no text"),
        (b"\xff", "cannot be read as a text"),
        (b"x" * 5000, "has more than 4096 bytes"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(
    project: ProjectDirectory, content: bytes, reason: str
) -> None:
    (project.root / "keys/licence").write_bytes(content)
    done = render(project, "--with-secrets", "-o", "d.json")
    assert done.exit_code == 1
    assert reason in done.stderr


def test_git_keeps_no_secret(project: ProjectDirectory) -> None:
    subprocess.run(["git", "init", "-q", str(project.root)], check=True)
    source = render(project, "--with-secrets", "-o", "d.json")
    assert source.exit_code == 1
    assert "licence to .gitignore" in source.stderr, "the file that it comes from"
    (project.root / ".gitignore").write_text("keys/\n")
    target = render(project, "--with-secrets", "-o", "d.json")
    assert target.exit_code == 1
    assert "d.json to .gitignore" in target.stderr
    assert not (project.root / "d.json").exists()
    (project.root / ".gitignore").write_text("keys/\nd.json\n")
    assert render(project, "--with-secrets", "-o", "d.json").exit_code == 0


def test_a_compose_file_with_secrets_is_private_too(project: ProjectDirectory) -> None:
    clear = render(project, "--target", "compose", "--with-secrets", "-o", "c.yaml", "--json")
    assert clear.exit_code == 0, clear.stderr
    assert json.loads(clear.stdout)["compose"] == "***"
    assert (project.root / "c.yaml").stat().st_mode & 0o777 == 0o600
    assert BLOB in (project.root / "c.yaml").read_text()
    shown = render(project, "--target", "compose")
    assert "filled in by --with-secrets" in shown.stderr.replace("\n", " ")


def test_mlpacks_own_template_as_the_users_fills_them_in(project: ProjectDirectory) -> None:
    from mlpack.project.directory import read_template

    (project.root / "own.json.j2").write_text(read_template("iotedge/deployment.json.j2"))
    own = ("--template", "own.json.j2")
    assert render(project, *own).stdout == render(project).stdout
    for name, form in (("a.json", own), ("b.json", ())):
        assert render(project, *form, "--with-secrets", "-o", name).exit_code == 0
    assert (project.root / "a.json").read_text() == (project.root / "b.json").read_text()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('"hunter2"', "is not where a secret comes from"),
        ('"env:A B"', "is not where a secret comes from"),
        ('"env:"', "is not where a secret comes from"),
        ('"file:"', "is not where a secret comes from"),
        ('"file:a>b"', "is not where a secret comes from"),
        ("1", "is not a text"),
    ],
)
def test_a_secret_is_not_written_into_the_settings(tmp_path: Path, value: str, reason: str) -> None:
    settings = f'[edge.modules.x]\nimage = "x:1"\nsecret_env = {{ KEY = {value} }}\n'
    made = make_project(tmp_path / "fan", base=False)
    (made.root / "mlpack.toml").write_text(f'[model]\nname = "fan"\n{settings}')
    done = render(made)
    assert done.exit_code != 0
    assert "edge.modules.x.secret_env.KEY" in done.stderr
    if reason != "is not a text":
        assert reason in done.stderr


def test_a_variable_is_secret_or_not(tmp_path: Path) -> None:
    made = make_project(tmp_path / "fan", base=False)
    (made.root / "mlpack.toml").write_text(
        '[model]\nname = "fan"\n[edge.modules.x]\nimage = "x:1"\n'
        'env = { KEY = "1" }\nsecret_env = { KEY = "env:KEY" }\n'
    )
    done = render(made)
    assert "edge.modules.x.secret_env.KEY: is in env, too" in done.stderr


# --- a foreign manifest with secrets in clear

AT = "modulesContent.$edgeAgent.properties.desired.modules"


@pytest.fixture
def foreign(project: ProjectDirectory) -> ProjectDirectory:
    """A manifest of somebody else: secrets in variables, options and a command."""
    document = json.loads(render(project).stdout)
    modules = document["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    modules["sql"]["env"] = {"MSSQL_SA_PASSWORD": {"value": "hunter2sa"}, "A": {"value": "1"}}
    modules["blob"]["env"] = {}
    modules["blob"]["settings"]["createOptions"] = json.dumps(
        {
            "Env": ["LOCAL_STORAGE_ACCOUNT_KEY=hunter2blob"],
            "Cmd": ["Eula=accept", "ApiKey=hunter2k"],
        }
    )
    (project.root / "foreign.json").write_text(json.dumps(document, indent=1))
    return project


ALL = (
    f"{AT}.sql.env.MSSQL_SA_PASSWORD.value",
    f"{AT}.blob.settings.createOptions.Env[0]",
    f"{AT}.blob.settings.createOptions.Cmd[1]",
)


def patched(project: ProjectDirectory, *allowed: str, output: str = "out.json") -> Result:
    options = [part for each in allowed for part in ("--allow-secret", each)]
    return render(project, "--patch", "foreign.json", "-o", output, *options, "--json")


@pytest.mark.parametrize(
    "allowed",
    [
        ALL,
        (f"{AT}.sql.env.*.value", f"{AT}.blob.settings.createOptions.*[*]"),
        (f"{AT}.*.env.*.value", f"$.{AT}.blob.settings.createOptions.Env[0]", ALL[2]),
        (
            "$.modulesContent['$edgeAgent']['properties.desired'].modules.sql.env[\"*\"].value",
            *ALL[1:],
        ),
    ],
)
def test_secrets_that_the_user_accepts_stay(
    foreign: ProjectDirectory, allowed: tuple[str, ...]
) -> None:
    done = patched(foreign, *allowed)
    assert done.exit_code == 0, done.stderr
    path = foreign.root / "out.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == (foreign.root / "foreign.json").read_text()
    shown = json.loads(done.stdout)["deployment"]["modulesContent"]["$edgeAgent"]
    modules = shown["properties.desired"]["modules"]
    assert modules["sql"]["env"] == {"MSSQL_SA_PASSWORD": {"value": "***"}, "A": {"value": "1"}}
    assert modules["blob"]["settings"]["createOptions"] == "***"


def test_each_secret_is_accepted_or_refused(foreign: ProjectDirectory) -> None:
    for number, each in enumerate(ALL):
        done = patched(foreign, *(path for path in ALL if path != each))
        assert done.exit_code == 1, number
        assert f"{each}: holds a secret" in done.stderr
        assert all(path not in done.stderr for path in ALL if path != each)
    assert not (foreign.root / "out.json").exists()


@pytest.mark.parametrize(
    "path",
    [
        f"{AT}.sql.env.A.value",
        f"{AT}.sql",
        "*",
        f"{AT}.sql.env.*",
        "MSSQL_SA_PASSWORD",
        "(",
        "[*",
    ],
)
def test_a_path_that_names_no_secret_is_refused(foreign: ProjectDirectory, path: str) -> None:
    done = patched(foreign, *ALL, path)
    assert done.exit_code == 2
    assert "names no secret of the manifest" in done.stderr
    assert ALL[0] in done.stderr.replace("\n", "").replace(" ", "")


def test_accepted_secrets_go_to_a_private_file_alone(foreign: ProjectDirectory) -> None:
    printed = render(foreign, "--patch", "foreign.json", "--allow-secret", ALL[0])
    assert (printed.exit_code, printed.stdout) == (2, "")
    assert "--allow-secret prints nothing" in printed.stderr
    new = render(foreign, "--allow-secret", ALL[0], "-o", "out.json")
    assert new.exit_code == 2
    assert "--allow-secret is for --patch" in new.stderr
    subprocess.run(["git", "init", "-q", str(foreign.root)], check=True)
    tracked = patched(foreign, *ALL)
    assert tracked.exit_code == 1
    assert "out.json to .gitignore" in tracked.stderr
    assert not (foreign.root / "out.json").exists()


def test_a_template_without_the_module_needs_no_secret_of_it(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(render(project).stdout)
    modules = document["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    del modules["sql"]
    modules["fan"]["settings"]["image"] = "${MODULES.fan}"
    modules["blob"]["env"] = {}
    (project.root / "t.json").write_text(json.dumps(document))
    monkeypatch.delenv("TEST_SA")
    monkeypatch.delenv("TEST_BLOB")
    done = render(project, "--template", "t.json", "--with-secrets", "-o", "d.json")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("args", [(), ("--with-secrets",)])
def test_a_file_of_a_secret_is_not_overwritten(
    project: ProjectDirectory, args: tuple[str, ...]
) -> None:
    done = render(project, *args, "-o", "keys/licence")
    assert done.exit_code == 2
    assert "keys/licence is an input of this command" in done.stderr
    assert (project.root / "keys/licence").read_text() == f"{LICENCE}\n"
