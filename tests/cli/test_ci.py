"""The steps in ``templates/ci``, run as a CI would, against a registry and a host here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mlpack.project.directory import ProjectDirectory
from tests.doubles.authority import Answer, Request, as_json, served
from tests.e2e.wire import Certificate
from tests.registry.registry import Registry
from tests.support import make_project, run, tiny_onnx

TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "ci"
GITHUB, AZURE = TEMPLATES / "github" / "action.yml", TEMPLATES / "azure" / "mlpack-steps.yml"
TOKEN = "t0ken-nobody-may-see"
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
MACRO = re.compile(r"\$\(([\w.]+)\)")


def load(path: Path) -> Any:  # noqa: ANN401  # a YAML document
    # To Azure Pipelines every scalar is a text, true and false among them.
    loader = yaml.SafeLoader if path == GITHUB else yaml.BaseLoader
    return yaml.load(path.read_text(encoding="utf-8"), loader)


@pytest.mark.parametrize(("path", "name"), [(GITHUB, "github-actions"), (AZURE, "azure-pipelines")])
def test_the_hosts_schemas_accept_the_steps(path: Path, name: str) -> None:
    # SchemaStore's for GitHub, Microsoft's for Azure Pipelines, as check-jsonschema ships them.
    vendored = files("check_jsonschema.builtin_schemas.vendor") / f"{name}.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    checker = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in checker.iter_errors(load(path))] == []


def scripts(path: Path) -> list[Mapping[str, Any]]:
    """Every step, each of which runs a script."""
    document = load(path)
    found: list[Mapping[str, Any]] = (document.get("runs") or document)["steps"]
    return found


@pytest.mark.parametrize("path", [GITHUB, AZURE], ids=["github", "azure"])
def test_nothing_is_pasted_into_a_script_and_no_secret_is_on_a_command_line(path: Path) -> None:
    for step in scripts(path):
        text = step.get("run") or step["bash"]
        assert "${{" not in text
        assert not [each for each in MACRO.findall(text) if each[0].isupper() or "." in each]
        assert 'header "Authorization' not in text
        assert "set -x" not in text
    document = path.read_text(encoding="utf-8")
    assert not re.search(r"password:\s*\w", document.partition("\nruns:")[2])


@dataclass
class Host:
    """GitHub's or Azure DevOps' service, as far as comments go."""

    comments: list[Request] = field(default_factory=list)
    status: int = 201

    def answer(self, asked: Request) -> Answer:
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return as_json(401, {"message": "Bad credentials"})
        self.comments.append(asked)
        return as_json(self.status, {"id": 1})


@dataclass
class Runner:
    """One run of the CI: a fresh checkout, its variables, and what its steps said."""

    checkout: Path
    temporary: Path
    parameters: dict[str, str]
    environment: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    """Of Azure Pipelines, and what GitHub's steps put out: ``release.reference``."""

    said: str = ""

    def run(self, step: Mapping[str, Any]) -> int:
        """Run one step's script as the host would; its exit status."""
        env = {key: self._value(str(text)) for key, text in step.get("env", {}).items()}
        script = self.temporary / "script.sh"
        script.write_text(step.get("run") or step["bash"])
        options = ("-eo", "pipefail") if "run" in step else ()
        output = self.temporary / "output"
        output.write_text("")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", *options, str(script)],
            cwd=self.checkout,
            env={**self.environment, "GITHUB_OUTPUT": str(output), **env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.said += done.stdout + done.stderr
        put = dict(line.split("=", 1) for line in output.read_text().splitlines())
        self.variables |= {f"{step.get('id')}.{key}": value for key, value in put.items()}
        set_ = re.findall(r"##vso\[task\.setvariable variable=(\w+)\](.*)", done.stdout)
        self.variables |= dict(set_)
        return done.returncode

    def _value(self, text: str) -> str:
        text = EXPRESSION.sub(lambda found: self._expression(found[1]), text)
        return MACRO.sub(lambda found: self.variables[found[1]], text)

    def _expression(self, text: str) -> str:
        place, _, name = text.partition(".")
        if place in ("inputs", "parameters"):
            return self.parameters[name]
        if place == "steps":
            return self.variables[name.replace(".outputs.", ".")]
        return self.variables[text]


@pytest.fixture(params=[GITHUB, AZURE], ids=["github", "azure"])
def template(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def runner(
    tmp_path: Path, registry: Registry, certificate: Certificate, host: Host
) -> Iterator[Runner]:
    """A checkout with settings, lock and a trained model; the base is in the registry."""
    repository = f"{registry.host}/edge/{tmp_path.name.replace('_', '-').strip('-').lower()}"
    held = make_project(tmp_path / "held")
    pushed = run("-C", str(held.root), "--json", "push", "base", "--to", f"{repository}-base")
    assert pushed.exit_code == 0, pushed.output
    checkout = make_project(tmp_path / "checkout" / "fan", base=False)
    (checkout.root / "mlpack.lock").write_bytes((held.root / "mlpack.lock").read_bytes())
    tiny_onnx(checkout.root / "fan.onnx", bias=7)
    temporary = tmp_path / "temp"
    temporary.mkdir()
    with served(host.answer, certificate) as url:
        yield Runner(
            checkout=checkout.root.parent,
            temporary=temporary,
            parameters={
                "project": "fan",
                "model": "fan.onnx",
                "version": "41",
                "base": json.loads(pushed.stdout)["reference"],
                "repository": repository,
                "package": "",
            },
            environment={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(temporary),
                "CURL_CA_BUNDLE": str(certificate.ca),
                # What GitHub's runners set.
                "RUNNER_TEMP": str(temporary),
                "GITHUB_STEP_SUMMARY": str(temporary / "summary.md"),
                "GITHUB_API_URL": url,
                "GITHUB_REPOSITORY": "team/fleet",
                # What Azure's agents set.
                "AGENT_TEMPDIRECTORY": str(temporary),
                "SYSTEM_COLLECTIONURI": f"{url}/",
                "SYSTEM_TEAMPROJECTID": "project",
                "BUILD_REPOSITORY_ID": "fleet",
                "SYSTEM_PULLREQUEST_PULLREQUESTID": "12",
            },
            variables={
                "System.AccessToken": TOKEN,
                "github.event.pull_request.number": "12",
            },
        )


def steps(template: Path, runner: Runner) -> dict[str, Mapping[str, Any]]:
    runner.parameters["token"] = TOKEN
    return {step.get("name") or step["displayName"]: step for step in scripts(template)}


def budget(runner: Runner, text: str) -> None:
    path = runner.checkout / "fan" / "mlpack.toml"
    path.write_text(path.read_text().partition("\n[budget]")[0] + f"\n[budget]\n{text}\n")


NAMES = [
    "Install mlpack",
    "Register, build and push",
    "Say what it costs",
    "Comment on the pull request",
    "Check the budget",
]


def test_a_trained_model_is_published_and_its_cost_is_said(
    template: Path, runner: Runner, host: Host
) -> None:
    budget(runner, 'device = "1 MB"')
    found = steps(template, runner)
    assert list(found) == NAMES
    assert {name: runner.run(step) for name, step in found.items()} == dict.fromkeys(found, 0), (
        runner.said
    )
    reference = runner.variables.get("release.reference") or runner.variables["mlpackReference"]
    assert reference.startswith(f"{runner.parameters['repository']}@sha256:")
    published = run("diff", f"{runner.parameters['repository']}:41", reference, "--json")
    assert published.exit_code == 0, published.output
    [comment] = host.comments
    text = written(comment)
    assert text.startswith(f"## mlpack: fan:41\n\n`{reference}`\n\n")
    assert "### Budget: kept" in text
    assert "USD" in text
    size = int(runner.variables.get("report.bytes") or runner.variables["mlpackBytes"])
    assert 3000 < size < 30_000
    assert "over its budget" not in runner.said

    budget(runner, 'device = "2 kB"')  # only the last step fails
    again = NAMES[NAMES.index("Say what it costs") :]
    statuses = {name: runner.run(found[name]) for name in again}
    assert statuses == dict.fromkeys(again, 0) | {"Check the budget": 3}, runner.said
    assert "### Budget: over in 1 of 1" in written(host.comments[-1])
    assert "over its budget" in runner.said
    assert TOKEN not in runner.said


def test_where_mlpack_comes_from_is_set_by_the_user(template: Path, runner: Runner) -> None:
    document = load(template)
    inputs = document.get("inputs") or {each["name"]: each for each in document["parameters"]}
    assert inputs["package"]["default"] == ""
    install = steps(template, runner)["Install mlpack"]
    runner.environment["PATH"] = "/usr/bin:/bin"
    assert runner.run(install) == 1
    assert "set 'package'" in runner.said
    runner.parameters["package"] = str(runner.checkout / "mlpack-1.whl")
    stand_in = runner.temporary / "python"
    stand_in.write_text('#!/bin/sh\necho "ran: $*"\n')
    stand_in.chmod(0o755)
    runner.environment["PATH"] = f"{runner.temporary}:/usr/bin:/bin"
    assert runner.run(install) == 0, runner.said
    assert re.search(r"ran: -m pip install .*/mlpack-1\.whl\n", runner.said)


def written(comment: Request) -> str:
    """The comment's Markdown, where its host looks for it."""
    document: Any = comment.json()
    if comment.target == "/repos/team/fleet/issues/12/comments":
        return str(document["body"])
    assert comment.path == "/project/_apis/git/repositories/fleet/pullRequests/12/threads"
    assert comment.query == {"api-version": "7.1"}
    assert comment.headers["content-type"] == "application/json"
    [only] = document["comments"]
    assert (only["parentCommentId"], only["commentType"]) == (0, "text")
    return str(only["content"])


def test_a_failing_step_ends_the_run_there(template: Path, runner: Runner, host: Host) -> None:
    (runner.checkout / "fan" / "fan.onnx").write_bytes(b"no model")
    found = steps(template, runner)
    assert runner.run(found["Register, build and push"]) == 1
    assert "error: " in runner.said
    assert "mlpackReference" not in runner.variables


def test_a_host_that_refuses_the_comment_is_a_failed_step(
    template: Path, runner: Runner, host: Host
) -> None:
    host.status = 403
    (runner.temporary / "mlpack-report.md").write_text("text")
    runner.variables["report.report"] = str(runner.temporary / "mlpack-report.md")
    step = steps(template, runner)["Comment on the pull request"]
    assert runner.run(step) != 0
    assert step.get("continue-on-error") or step.get("continueOnError")


def test_values_from_outside_are_no_commands(template: Path, runner: Runner) -> None:
    runner.parameters["model"] = '"; touch pwned; $(touch pwned) #'
    assert runner.run(steps(template, runner)["Register, build and push"]) == 1
    assert not list(runner.checkout.rglob("pwned"))


@pytest.mark.parametrize(
    ("ci", "place", "source"),
    [
        ("github", ".github/actions/mlpack/action.yml", GITHUB),
        ("azure", "ci/mlpack-steps.yml", AZURE),
    ],
)
def test_init_brings_the_steps(tmp_path: Path, ci: str, place: str, source: Path) -> None:
    made: ProjectDirectory = make_project(tmp_path / "held")
    before = (made.root / "mlpack.toml").read_text()
    done = run("-C", str(made.root), "init", "--ci", ci)
    assert (done.exit_code, done.stdout) == (0, f"written:\n  {made.root / place}\n")
    assert (made.root / place).read_text() == source.read_text()
    assert (made.root / "mlpack.toml").read_text() == before
    assert run("-C", str(made.root), "init", "--ci", ci).exit_code == 1
    new = run("-C", str(tmp_path), "init", "new", "--ci", ci)
    assert new.exit_code == 0
    assert (tmp_path / "new" / place).is_file()
    assert (tmp_path / "new" / "mlpack.toml").is_file()
