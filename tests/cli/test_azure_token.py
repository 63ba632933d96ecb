"""``mlpack azure token``, through azure-mgmt-containerregistry against a double of its REST API."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result

from mlpack.project.directory import ProjectDirectory
from tests.azure import acr
from tests.doubles import arm
from tests.support import make_project, run

HOST = "registry.example.com"
GROUP = "[deploy.groups.vans]\ntarget = \"tags.deviceGroup = 'vans'\"\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[acr.Double, str]]:
    double = acr.Double(HOST, "")
    with acr.started(double, tmp_path_factory.mktemp("acr") / "tls") as certificate:
        yield double, str(certificate.ca)


@pytest.fixture
def azure(served: tuple[acr.Double, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[acr.Double]:
    """A registry without any login yet, and this process signed in."""
    double, ca = served
    double.__dict__.pop("logins", None)
    double.requests.clear()
    double.denied.clear()
    double.throttled.clear()
    monkeypatch.setenv("MLPACK_AZURE_ENDPOINT", double.url)
    monkeypatch.setenv("MLPACK_ACR", double.registry)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca)
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{double.url}/identity")
    monkeypatch.setenv("IDENTITY_HEADER", double.tokens.header)
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"):
        monkeypatch.delenv(name, raising=False)
    yield double
    assert double.faults == []


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    return make_project(tmp_path / "fan", settings=GROUP)


def token(project: ProjectDirectory, *args: str) -> Result:
    return run("-C", str(project.root), "azure", "token", "--group", "vans", *args)


def login(text: str) -> tuple[str, str]:
    lines = dict(line.split("=", 1) for line in text.splitlines())
    return lines["MLPACK_REGISTRY_USERNAME"], lines["MLPACK_REGISTRY_PASSWORD"]


def test_a_group_gets_a_login_that_pulls_one_repository(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    done = token(project, "--days", "30")
    assert done.exit_code == 0, done.output
    name, password = login(done.stdout)
    assert [password] == azure.logins.made
    assert password not in done.stderr
    [(scope_map, known)] = azure.logins.scope_maps.items()
    assert known["actions"] == ["repositories/edge/fan/content/read"]
    assert azure.logins.tokens[name]["scopeMapId"] == f"{acr.SCOPE}/scopeMaps/{scope_map}"
    ends = datetime.fromisoformat(azure.logins.passwords[name]["password1"]["expiry"])
    assert timedelta(days=29) < ends - datetime.now(UTC) <= timedelta(days=30)


def test_run_again_it_replaces_the_older_password_and_nothing_else(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    names = {login(token(project).stdout)[0] for _ in range(3)}
    assert len(names) == len(azure.logins.tokens) == len(azure.logins.scope_maps) == 1
    [held] = azure.logins.passwords.values()
    _, second, third = azure.logins.made
    # The first is gone; the second stays until devices have the third.
    assert {slot: each["value"] for slot, each in held.items()} == {
        "password1": third,
        "password2": second,
    }
    assert len([each for each in azure.requests if each.startswith("PUT")]) == 2


def test_what_was_widened_in_azure_is_put_right_and_said(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    token(project)
    [scope_map] = azure.logins.scope_maps.values()
    scope_map["actions"] = ["repositories/edge/fan/content/write"]
    done = token(project)
    assert "changed in Azure" in done.stderr
    [scope_map] = azure.logins.scope_maps.values()
    assert scope_map["actions"] == ["repositories/edge/fan/content/read"]


def test_long_operations_are_waited_for(project: ProjectDirectory, azure: acr.Double) -> None:
    azure.logins.slow = True
    done = token(project, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["password"] == azure.logins.made[0]


def test_a_file_takes_the_password_and_nobody_else_sees_it(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    done = token(project, "--json", "-o", "vans.env")
    [password] = azure.logins.made
    written = project.root / "vans.env"
    assert login(written.read_text())[1] == password
    assert written.stat().st_mode & 0o777 == 0o600
    assert password not in done.output
    assert "password" not in json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_no_password_goes_where_git_would_keep_it(
    project: ProjectDirectory, azure: acr.Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(project.root)], check=True)
    done = token(project, "-o", "vans.env")
    assert done.exit_code == 1
    assert "git tracks" in done.stderr
    assert azure.requests == []
    assert not (project.root / "vans.env").exists()
    (project.root / ".gitignore").write_text("*.env\n")
    assert token(project, "-o", "vans.env").exit_code == 0
    # Tracked in spite of the pattern: git keeps it.
    subprocess.run(["git", "-C", str(project.root), "add", "-f", "vans.env"], check=True)
    assert token(project, "-o", "vans.env").exit_code == 1
    monkeypatch.setenv("PATH", "/nowhere")
    done = token(project, "-o", "other.env")
    assert "git cannot tell" in done.stderr
    assert done.exit_code == 0


def test_refusals_are_one_line_and_say_what_to_do(
    project: ProjectDirectory, azure: acr.Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure.denied.add("/generateCredentials")
    done = token(project)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "AuthorizationFailed" in done.stderr
    assert "ask for the role" in done.stderr
    done = token(project, "--registry", f"{acr.SUBSCRIPTION}/other/contoso")
    assert "ResourceNotFound" in done.stderr
    assert "check --registry" in done.stderr
    monkeypatch.setenv("IDENTITY_HEADER", "wrong-header")
    done = token(project)
    assert "log in with: az login" in done.stderr
    assert "wrong-header" not in done.output
    assert len(done.stderr.splitlines()) == 2


def test_a_registry_that_is_not_the_devices_own_is_refused(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    text = (project.root / "mlpack.toml").read_text()
    (project.root / "mlpack.toml").write_text(text.replace(HOST, "other.example.com"))
    done = token(project)
    assert done.exit_code == 1
    assert "devices pull from other.example.com" in done.stderr
    assert azure.logins.made == []


def test_a_busy_azure_is_asked_again(project: ProjectDirectory, azure: acr.Double) -> None:
    azure.throttled.append(1)
    assert token(project).exit_code == 0
    assert azure.requests.count(f"GET {acr.SCOPE}") == 2


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--group", "trucks"], 1, "trucks"),
        (["--registry", "a"], 2, "'a'"),
        (["--registry", "a/b"], 2, "SUBSCRIPTION/GROUP/REGISTRY"),
    ],
)
def test_wrong_usage(
    project: ProjectDirectory, azure: acr.Double, args: list[str], status: int, said: str
) -> None:
    done = token(project, *args)
    assert done.exit_code == status
    assert said in done.stderr
    assert azure.requests == []


def test_a_registry_that_is_not_configured_is_named_with_its_setting(
    project: ProjectDirectory, azure: acr.Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLPACK_ACR")
    done = token(project)
    assert done.exit_code == 2
    assert "''" not in done.stderr
    assert "MLPACK_ACR" in done.stderr
    assert azure.requests == []


def logins(project: ProjectDirectory, name: str) -> dict[str, dict[str, str]]:
    document = json.loads((project.root / name).read_text())
    agent = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    found = agent["runtime"]["settings"].get("registryCredentials", {})
    assert isinstance(found, dict)
    return found


def test_a_manifest_takes_the_login_of_a_token_file(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    at = ["-C", str(project.root), "render", "--base"]
    token(project, "-o", "vans.env")
    name, password = login((project.root / "vans.env").read_text())
    done = run(*at, "--token", "vans.env", "-o", "base.json")
    assert done.exit_code == 0, done.output
    assert logins(project, "base.json") == {
        "mlpack": {"address": HOST, "username": name, "password": password}
    }
    assert (project.root / "base.json").stat().st_mode & 0o777 == 0o600
    assert password not in done.output
    # Without it there is no login; and with it nothing is printed.
    assert run(*at, "-o", "plain.json").exit_code == 0
    assert logins(project, "plain.json") == {}
    assert run(*at, "--token", "vans.env").exit_code == 2


def test_a_login_of_mlpack_toml_keeps_its_name(
    project: ProjectDirectory, azure: acr.Double
) -> None:
    settings = project.root / "mlpack.toml"
    own = f'[edge.registries.acr]\naddress = "{HOST}"\nusername = "edge"\npassword = "${{WORD}}"\n'
    settings.write_text(settings.read_text() + own)
    done = token(project, "-o", "vans.env")
    assert "[edge.registries.acr] of mlpack.toml" in done.stderr
    text = settings.read_text().replace('"edge"', '"${MLPACK_REGISTRY_USERNAME}"')
    settings.write_text(text.replace("${WORD}", "${MLPACK_REGISTRY_PASSWORD}"))
    assert "elsewhere" not in token(project, "-o", "vans.env").stderr
    at = ["-C", str(project.root), "render", "--base"]
    assert run(*at, "-o", "plain.json").exit_code == 0
    assert logins(project, "plain.json")["acr"]["password"] == "${MLPACK_REGISTRY_PASSWORD}"
    assert run(*at, "--token", "vans.env", "-o", "base.json").exit_code == 0
    assert logins(project, "base.json")["acr"]["password"] == azure.logins.made[-1]
    assert list(logins(project, "base.json")) == ["acr"]


def test_a_file_that_is_no_login_is_refused_and_not_repeated(project: ProjectDirectory) -> None:
    (project.root / "other.env").write_text("some-secret-text\n")
    at = ["-C", str(project.root), "render", "--base", "-o", "base.json", "--token"]
    for name in ("other.env", "nowhere.env"):
        done = run(*at, name)
        assert done.exit_code == 1
        assert "some-secret-text" not in done.output


def test_names_are_what_azure_takes() -> None:
    from mlpack.azure.acr_tokens import scope_map_name, token_name

    names = [
        scope_map_name("a/" * 90 + "fan"),
        scope_map_name("edge/fan_v2.x"),
        token_name("x" * 40, "edge/fan"),
        token_name("a_b", "edge/fan"),
        token_name("a-b", "edge/fan"),
    ]
    assert len(set(names)) == len(names)
    assert all(arm.NAME.fullmatch(each) for each in names)
