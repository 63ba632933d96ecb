"""A real docker-registry with TLS whose tokens come from another service, with TLS of its own."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result

from mlpack.api.project import Project
from mlpack.api.requests import Push
from mlpack.api.session import Progress, Session
from mlpack.oci.descriptor import Reference
from mlpack.project.directory import ProjectDirectory
from mlpack.registry.credentials import AZURE_USER, Logins
from mlpack.registry.http import Client, ClientSettings
from mlpack.registry.repository import Registries
from tests.registry.registry import Registry, running
from tests.registry.tokens import LEEWAY_SECONDS, SERVICE, Rules, TokenService, token_service
from tests.support import released_project, run

USER, PASSWORD, TOKEN = "edge-team", "p4ssw0rd", "1d3ntity-t0ken"


@dataclass(frozen=True)
class Guarded:
    """A registry, and the service its tokens come from."""

    registry: Registry
    tokens: TokenService
    ca: Path
    """Both authorities' certificates."""

    def place(self) -> str:
        return f"{self.registry.host}/edge/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("tokens")
    with (
        token_service(folder / "service") as tokens,
        running(folder / "registry", tls=True, auth=tokens.config) as registry,
    ):
        assert registry.ca is not None
        both = folder / "both.pem"
        both.write_bytes(registry.ca.read_bytes() + tokens.ca.read_bytes())
        yield Guarded(registry, tokens, both)


@pytest.fixture
def guarded(started: Guarded) -> Guarded:
    started.tokens.rules = Rules({USER: PASSWORD}, {TOKEN: USER})
    started.tokens.asked.clear()
    return started


@pytest.fixture
def project(tmp_path: Path, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> ProjectDirectory:
    made = released_project(tmp_path / "fan")
    monkeypatch.setenv("MLPACK_REGISTRY_CA", str(guarded.ca))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return made


def log_in(project: ProjectDirectory, guarded: Guarded, entry: dict[str, str]) -> None:
    """Write a login as docker does."""
    logins = {"auths": {guarded.registry.host: entry}}
    (project.root.parent / "config.json").write_text(json.dumps(logins))


def packed(user: str, secret: str) -> str:
    return base64.b64encode(f"{user}:{secret}".encode()).decode()


def push(project: ProjectDirectory, to: str) -> Result:
    done = run("-C", str(project.root), "--json", "push", "fan", "--to", to)
    for secret in (PASSWORD, TOKEN, "eyJ"):
        assert secret not in done.stdout + done.stderr
    return done


def test_a_password_goes_to_the_service_with_service_scope_and_account(
    project: ProjectDirectory, guarded: Guarded
) -> None:
    log_in(project, guarded, {"auth": packed(USER, PASSWORD)})
    to = guarded.place()
    done = push(project, to)
    assert done.exit_code == 0, done.stderr
    name = Reference.parse(to).repository
    (asked,) = guarded.tokens.asked
    assert (asked.method, asked.login) == ("GET", f"{USER}:{PASSWORD}")
    assert asked.query == {
        "account": [USER],
        "service": [SERVICE],
        "scope": [f"repository:{name}:pull,push"],
    }
    guarded.tokens.asked.clear()
    pulled = run("-C", str(project.root), "pull", f"{to}:1", "--as", "again")
    assert pulled.exit_code == 0, pulled.stderr
    assert [each.query["scope"] for each in guarded.tokens.asked] == [[f"repository:{name}:pull"]]


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": packed("<token>", TOKEN)},
        {"auth": packed(AZURE_USER, TOKEN)},
        {"auth": packed(AZURE_USER, ""), "identitytoken": TOKEN},
    ],
)
def test_an_identity_token_is_exchanged_as_acr_wants_it(
    project: ProjectDirectory, guarded: Guarded, entry: dict[str, str]
) -> None:
    log_in(project, guarded, entry)
    to = guarded.place()
    done = push(project, to)
    assert done.exit_code == 0, done.stderr
    (asked,) = guarded.tokens.asked
    assert asked.method == "POST"
    assert asked.query == {
        "grant_type": ["refresh_token"],
        "service": [SERVICE],
        "scope": [f"repository:{Reference.parse(to).repository}:pull,push"],
        "client_id": ["mlpack"],
        "refresh_token": [TOKEN],
    }


def test_a_service_without_forms_is_asked_with_the_password(
    project: ProjectDirectory, guarded: Guarded
) -> None:
    guarded.tokens.rules = Rules({AZURE_USER: TOKEN}, posts=False)
    log_in(project, guarded, {"auth": packed(AZURE_USER, TOKEN)})
    done = push(project, guarded.place())
    assert done.exit_code == 0, done.stderr
    assert [each.method for each in guarded.tokens.asked] == ["POST", "GET"]


def test_a_mount_asks_for_both_repositories(project: ProjectDirectory, guarded: Guarded) -> None:
    log_in(project, guarded, {"auth": packed(USER, PASSWORD)})
    first, second = guarded.place(), guarded.place()
    assert push(project, first).exit_code == 0
    guarded.tokens.asked.clear()
    done = run("-C", str(project.root), "--json", "copy", f"{first}:1", f"{second}:1")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["mounted"]) == 2 * 4 + 1 + 2
    names = [Reference.parse(each).repository for each in (first, second)]
    both = [f"repository:{names[1]}:pull,push", f"repository:{names[0]}:pull"]
    assert both in [each.query["scope"] for each in guarded.tokens.asked]


def test_a_token_that_ends_in_the_middle_of_a_push_is_renewed(
    project: ProjectDirectory, guarded: Guarded
) -> None:
    """Really ended: docker-registry itself refuses it, and the push waits for that."""
    log_in(project, guarded, {"auth": packed(USER, PASSWORD)})
    left = 2.0
    guarded.tokens.rules.seconds = left - LEEWAY_SECONDS
    waited = False

    def wait_once(report: Progress) -> None:
        nonlocal waited
        if report.done and not waited:
            waited = True
            guarded.tokens.rules.seconds = 300
            time.sleep(left + 1.5)

    client = Client(ClientSettings(ca=guarded.ca))
    with Registries(client, Logins([project.root.parent / "config.json"])) as registries:
        to = Reference.parse(guarded.place())
        here = Session(project.root, wait_once)
        here.registries = registries
        pushed = Project(here).push(Push("fan:1", to=str(to)))
        assert waited
        assert len(guarded.tokens.asked) >= 2
        scopes = {tuple(each.query["scope"]) for each in guarded.tokens.asked}
        assert scopes == {(f"repository:{to.repository}:pull,push",)}
        assert registries.store(to).resolve("1") == pushed.target


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "requires a login"),
        ({"auth": packed(USER, "wrong")}, "not accept"),
        ({"auth": packed("<token>", "wrong")}, "not accept"),
    ],
)
def test_who_is_refused(
    project: ProjectDirectory, guarded: Guarded, entry: dict[str, str], said: str
) -> None:
    log_in(project, guarded, entry)
    done = push(project, guarded.place())
    assert done.exit_code == 1
    assert said in done.stderr
    assert f"docker login {guarded.registry.host}" in done.stderr
    assert len(guarded.tokens.asked) <= 2, "no lock-out of an account by trying again and again"


def test_who_may_only_read_is_told_what_is_missing(
    project: ProjectDirectory, guarded: Guarded
) -> None:
    guarded.tokens.rules.readers.add(USER)
    log_in(project, guarded, {"auth": packed(USER, PASSWORD)})
    to = guarded.place()
    done = push(project, to)
    assert done.exit_code == 1
    assert f"include repository:{Reference.parse(to).repository}:pull,push" in done.stderr
    assert "ask for that access" in done.stderr


def test_a_service_that_is_not_trusted_gets_no_password(
    project: ProjectDirectory, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(project, guarded, {"auth": packed(USER, PASSWORD)})
    assert guarded.registry.ca is not None
    monkeypatch.setenv("MLPACK_REGISTRY_CA", str(guarded.registry.ca))
    done = push(project, guarded.place())
    assert done.exit_code == 1
    assert "its certificate is not trusted" in done.stderr
    assert guarded.tokens.asked == []
