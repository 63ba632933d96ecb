"""``mlpack render --template`` with the templates of VS Code and iotedgedev, whole solutions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from mlpack.iotedge.checks import problems
from mlpack.project.directory import ProjectDirectory
from tests.support import make_project, run, tiny_onnx

SETTINGS = '[edge.modules.tempSensor]\nimage = "r.io/sensor:1.0.3"\n'
ENVIRONMENT = {
    "CONTAINER_REGISTRY_SERVER": "myacr.azurecr.io",
    "CONTAINER_REGISTRY_USERNAME_myacr": "puller",
    "EDGE_VERSION": "1.6.1",
    "TTL": "7200",
    "LIMITS": '{"low": 0, "high": 70}',
    "PORT": "8080",
}
NAMES = (*ENVIRONMENT, "CONTAINER_REGISTRY_PASSWORD_myacr", "SA_PASSWORD", "NOWHERE")


def module(image: str, **members: object) -> dict[str, object]:
    return {
        "version": "1.0",
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": {"image": image, "createOptions": {}},
        **members,
    }


def system(name: str) -> dict[str, object]:
    image = f"mcr.microsoft.com/azureiotedge-{name}:${{EDGE_VERSION}}"
    return {"type": "docker", "settings": {"image": image, "createOptions": {}}}


def template(modules: Mapping[str, object]) -> dict[str, Any]:
    """A template as ``Azure IoT Edge: New IoT Edge Solution`` makes it."""
    login = {
        "username": "$CONTAINER_REGISTRY_USERNAME_myacr",
        "password": "$CONTAINER_REGISTRY_PASSWORD_myacr",
        "address": "${CONTAINER_REGISTRY_SERVER}",
    }
    agent = {
        "schemaVersion": "1.1",
        "runtime": {
            "type": "docker",
            "settings": {
                "minDockerVersion": "v1.25",
                "loggingOptions": "",
                "registryCredentials": {"myacr": login},
            },
        },
        "systemModules": {
            "edgeAgent": system("agent"),
            "edgeHub": {**system("hub"), "status": "running", "restartPolicy": "always"},
        },
        "modules": modules,
    }
    hub = {
        "schemaVersion": "1.1",
        "routes": {
            "up": "FROM /messages/modules/scorer/outputs/* WHERE $body.x > 1 INTO $upstream"
        },
        "storeAndForwardConfiguration": {"timeToLiveSecs": "@TTL@"},
    }
    return {
        "$schema-template": "4.0.0",
        "modulesContent": {
            "$edgeAgent": {"properties.desired": agent},
            "$edgeHub": {"properties.desired": hub},
            "scorer": {"properties.desired": {"limits": "@LIMITS@"}},
        },
    }


def written(document: object) -> str:
    """The JSON of a template, with ``@NAME@`` as a variable without quotes."""
    text = json.dumps(document, indent=2)
    return text.replace('"@TTL@"', "${TTL}").replace('"@LIMITS@"', "$LIMITS")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectDirectory:
    made = make_project(tmp_path / "fan", settings=SETTINGS)
    tiny_onnx(made.root / "m.onnx")
    for args in (("register", str(made.root / "m.onnx")), ("build", "fan")):
        assert run("-C", str(made.root), *args).exit_code == 0
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return made


def render(project: ProjectDirectory, text: str, *args: str) -> Result:
    (project.root / "deployment.template.json").write_text(text)
    template = ("--template", "deployment.template.json", "--module", "scorer")
    return run("-C", str(project.root), "render", "fan", *template, *args)


def content(done: Result) -> Any:  # noqa: ANN401  # a JSON document
    assert done.exit_code == 0, done.stderr
    assert problems(done.stdout.encode()) == ()
    return json.loads(done.stdout)["modulesContent"]


def desired(done: Result) -> Any:  # noqa: ANN401  # a JSON document
    return content(done)["$edgeAgent"]["properties.desired"]


def images(done: Result) -> dict[str, str]:
    return {name: each["settings"]["image"] for name, each in desired(done)["modules"].items()}


def ours(project: ProjectDirectory) -> str:
    return f"registry.example.com/edge/fan@{project.layout.resolve('fan-1').digest}"


WHOLE = {
    "tempSensor": module("${MODULES.tempSensor.arm32v7}"),
    "pump": module("${MODULES.pump.debug}"),
    "valve": module("${MODULEDIR<../shared/valve>}"),
    "scorer": module("${MODULES.scorer.amd64}"),
}


def test_a_solution_of_several_modules(project: ProjectDirectory) -> None:
    named = ("--module", "pump=r.io/edge/pump:4.0.1", "--module", "valve=r.io/edge/valve:2.0.0")
    done = render(project, written(template(WHOLE)), *named)
    found = content(done)
    assert images(done) == {
        "tempSensor": "r.io/sensor:1.0.3",
        "pump": "r.io/edge/pump:4.0.1",
        "valve": "r.io/edge/valve:2.0.0",
        "scorer": ours(project),
    }
    assert "$schema-template" not in json.loads(done.stdout)
    assert found["scorer"]["properties.desired"]["limits"] == {"low": 0, "high": 70}
    hub = found["$edgeHub"]["properties.desired"]
    assert hub["storeAndForwardConfiguration"] == {"timeToLiveSecs": 7200}
    assert "WHERE $body.x > 1 INTO $upstream" in hub["routes"]["up"]
    login = desired(done)["runtime"]["settings"]["registryCredentials"]["myacr"]
    assert login == {
        "username": "puller",
        "password": "${CONTAINER_REGISTRY_PASSWORD_myacr}",
        "address": "myacr.azurecr.io",
    }
    assert "warning" not in done.stderr


def test_what_is_missing_is_one_line_and_leaves_no_file(project: ProjectDirectory) -> None:
    made = {**WHOLE, "x": module("r.io/${NOWHERE}:1")}
    done = render(project, written(template(made)), "-o", "d.json")
    assert done.exit_code == 1
    (error,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    for each in ("${NOWHERE}", "${MODULES.pump.debug}", "${MODULEDIR<../shared/valve>}"):
        assert f"{each} is not set" in error
    (hint,) = [each for each in done.stderr.splitlines() if each.startswith("hint: ")]
    assert "set NOWHERE in the environment" in hint
    assert "--module pump=IMAGE --module valve=IMAGE" in hint
    assert not (project.root / "d.json").exists()


def solution(project: ProjectDirectory, folder: str) -> None:
    """A module as VS Code makes it, in ``folder`` of the project."""
    place = project.root / folder
    place.mkdir(parents=True)
    (place / "module.json").write_text(
        json.dumps(
            {
                "$schema-version": "0.0.1",
                "image": {
                    "repository": f"${{CONTAINER_REGISTRY_SERVER}}/{place.name}",
                    "tag": {"version": "0.2.0", "platforms": {"amd64": "D", "arm64v8": "E"}},
                },
            }
        )
    )


def test_a_module_json_beside_the_template_names_its_image(project: ProjectDirectory) -> None:
    solution(project, "modules/pump")
    solution(project, "shared/valve")
    made = {
        "pump": module("${MODULES.pump}"),
        "valve": module("${MODULEDIR<./shared/valve>.amd64}"),
        "scorer": module("${MODULES.scorer}"),
    }
    several = render(project, written(template(made)))
    assert several.exit_code == 1, "one platform is not chosen for the user"
    assert "${MODULES.pump} is not set" in several.stderr
    done = render(project, written(template(made)), "--platform", "linux/arm64")
    assert images(done)["pump"] == "myacr.azurecr.io/pump:0.2.0-arm64v8"
    assert images(done)["valve"] == "myacr.azurecr.io/valve:0.2.0-amd64"
    # What the user names comes first.
    named = render(project, written(template(made)), "--module", "pump=r.io/edge/pump:4.0.1")
    assert images(named)["pump"] == "r.io/edge/pump:4.0.1"


def test_a_module_json_elsewhere_is_not_read(project: ProjectDirectory) -> None:
    solution(project, "../outside")
    made = {"x": module("${MODULEDIR<../outside>.amd64}"), "scorer": module("${MODULES.scorer}")}
    done = render(project, written(template(made)))
    assert done.exit_code == 1
    assert "${MODULEDIR<../outside>.amd64} is not set" in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "is not JSON"), ("[]", "is not an object"), ("{}", "'image' is missing")],
)
def test_a_broken_module_json_is_named(project: ProjectDirectory, text: str, reason: str) -> None:
    solution(project, "modules/pump")
    (project.root / "modules/pump/module.json").write_text(text)
    made = {"pump": module("${MODULES.pump}"), "scorer": module("${MODULES.scorer}")}
    done = render(project, written(template(made)))
    assert done.exit_code == 1
    assert "modules/pump/module.json" in done.stderr
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("--module", "pumpe=r.io/x:1"), "has no ${MODULES.pumpe} (did you mean 'pump'?)"),
        (("--module", "scorer=r.io/x:1"), "names the module that runs the release"),
        (("--module", "pump="), "names no image"),
        (("--module", "=x"), "names no image"),
        (("--module", "pump=x", "--module", "pump=y"), "names an image twice"),
        (("--module", "other"), "exclude each other"),
        (("--module", "pump=X Y", "--module", "valve=r.io/v:1"), "'X Y' is not an image name"),
    ],
)
def test_modules_that_are_named_wrongly(
    project: ProjectDirectory, args: tuple[str, ...], reason: str
) -> None:
    done = render(project, written(template(WHOLE)), *args)
    assert done.exit_code in (1, 2)
    assert reason in done.stderr


def test_images_are_for_templates(project: ProjectDirectory) -> None:
    done = run("-C", str(project.root), "render", "fan", "--module", "pump=r.io/x:1")
    assert done.exit_code == 2
    assert "--module NAME=IMAGE is for --template" in done.stderr


def test_a_shells_text_stays_and_is_told(project: ProjectDirectory) -> None:
    options = {"Cmd": ["sh", "-c", "echo ${PORT} $NOWHERE ${NOWHERE:-1}"]}
    scorer = module("${IMAGE}", settings={"image": "${IMAGE}", "createOptions": options})
    done = render(project, written(template({"scorer": scorer})))
    made = json.loads(desired(done)["modules"]["scorer"]["settings"]["createOptions"])
    assert made["Cmd"][2] == "echo 8080 $NOWHERE ${NOWHERE:-1}"
    for each in ("$NOWHERE is not set", "${NOWHERE:-1} is not set"):
        assert f"createOptions.Cmd[2]: {each}, and stays as it is" in done.stderr.replace("\n", " ")


# --- a secret that a template names

SQL = module(
    "mcr.microsoft.com/azure-sql-edge:2.0.0",
    env={"MSSQL_SA_PASSWORD": {"value": "${SA_PASSWORD}"}, "ACCEPT_EULA": {"value": "Y"}},
)
BOTH = {"sql": SQL, "scorer": module("${MODULES.scorer}")}


@pytest.mark.parametrize("known", [True, False])
def test_a_secret_of_a_template_stays_a_variable(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    if known:
        monkeypatch.setenv("SA_PASSWORD", "hunter2secret")
    done = render(project, written(template(BOTH)), "--json")
    assert done.exit_code == 0, done.stderr
    assert "hunter2" not in done.output
    made = json.loads(done.stdout)["deployment"]["modulesContent"]["$edgeAgent"]
    env = made["properties.desired"]["modules"]["sql"]["env"]
    assert env["MSSQL_SA_PASSWORD"] == {"value": "${SA_PASSWORD}"}
    assert "${SA_PASSWORD} is filled in by --with-secrets" in done.stderr.replace("\n", " ")


def test_a_secret_of_a_template_is_filled_in_when_asked_for(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_REGISTRY_PASSWORD_myacr", "p4ssword")
    asked = ("--with-secrets", "-o", "d.json", "--json")
    refused = render(project, written(template(BOTH)), *asked)
    assert refused.exit_code == 1
    assert "${SA_PASSWORD} is not set" in refused.stderr
    monkeypatch.setenv("SA_PASSWORD", "hunter2secret")
    done = render(project, written(template(BOTH)), *asked)
    assert done.exit_code == 0, done.stderr
    assert "hunter2" not in done.output
    path = project.root / "d.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().count("hunter2secret") == 1
    clear = written(template(BOTH)).replace("${SA_PASSWORD}", "hunter2clear")
    found = render(project, clear, *asked)
    assert found.exit_code == 1, "only what is a variable was asked for"
    assert "MSSQL_SA_PASSWORD.value: holds a secret" in found.stderr
    assert "hunter2clear" not in found.output


def test_an_unfilled_login_is_not_sent(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_REGISTRY_PASSWORD_myacr", "p4ssword")
    monkeypatch.delenv("CONTAINER_REGISTRY_SERVER")
    made = written(template({"scorer": module("${MODULES.scorer}")}))
    done = render(project, made, "--with-secrets", "-o", "d.json")
    assert done.exit_code == 1
    assert "myacr.address: is a variable that is not set in the environment" in done.stderr


def test_a_secret_of_a_template_is_one_wherever_it_is(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_REGISTRY_PASSWORD_myacr", "hunter2registry")
    monkeypatch.setenv("SA_PASSWORD", "hunter2secret")
    options = {"Env": ["DATABASE=${SA_PASSWORD}", "PORT=${PORT}"]}
    reader = module(
        "r.io/reader:1.0.0",
        env={"PULL": {"value": "$CONTAINER_REGISTRY_PASSWORD_MYACR"}},
        settings={"image": "r.io/reader:1.0.0", "createOptions": options},
    )
    text = written(template({**BOTH, "reader": reader}))
    done = render(project, text)
    assert "hunter2" not in done.output
    made = desired(done)["modules"]["reader"]
    assert made["env"]["PULL"]["value"] == "${CONTAINER_REGISTRY_PASSWORD_MYACR}"
    env = json.loads(made["settings"]["createOptions"])["Env"]
    assert env == ["DATABASE=${SA_PASSWORD}", "PORT=8080"]
    asked = render(project, text, "--with-secrets", "-o", "d.json", "--json")
    assert asked.exit_code == 0, asked.stderr
    assert "hunter2" not in asked.output
    kept = (project.root / "d.json").read_text()
    assert (kept.count("hunter2registry"), kept.count("hunter2secret")) == (2, 2)


def test_the_name_of_a_module_with_a_secret_is_filled_in(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQL", "database")
    named = {"${SQL}": SQL, "__MODULE_NAME": {**module("${IMAGE}"), "env": SQL["env"]}}
    done = render(project, written(template(named)))
    assert set(desired(done)["modules"]) == {"database", "scorer"}


def test_a_module_json_is_not_overwritten(project: ProjectDirectory) -> None:
    solution(project, "modules/pump")
    before = (project.root / "modules/pump/module.json").read_bytes()
    made = {"pump": module("${MODULES.pump.amd64}"), "scorer": module("${MODULES.scorer}")}
    done = render(project, written(template(made)), "-o", "modules/pump/module.json")
    assert done.exit_code == 2
    assert "modules/pump/module.json is an input of this command" in done.stderr
    assert (project.root / "modules/pump/module.json").read_bytes() == before


@pytest.mark.parametrize("image", ["${MODULES.a\0b}", "${MODULEDIR<../a\0b>}"])
def test_an_image_that_cannot_be_a_path_is_an_error(project: ProjectDirectory, image: str) -> None:
    made = {"x": module(image), "scorer": module("${IMAGE}")}
    done = render(project, written(template(made)))
    assert done.exit_code == 1
    assert "modules.x.settings.image: holds ${MODULE" in done.stderr


def test_a_module_json_that_links_to_itself_is_none(project: ProjectDirectory) -> None:
    solution(project, "modules/pump")
    (project.root / "modules/pump/module.json").unlink()
    (project.root / "modules/pump/module.json").symlink_to("module.json")
    made = {"pump": module("${MODULES.pump}"), "scorer": module("${IMAGE}")}
    done = render(project, written(template(made)))
    assert done.exit_code == 1
    assert "${MODULES.pump} is not set" in done.stderr
