"""Each command's document fits its JSON Schema in docs/reference/schemas/cli."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpack.api.docs import Page, Pages
from mlpack.api.load import Loaded
from mlpack.api.run import Running
from mlpack.api.up import DownResult, ModuleOutcome, UpResult
from mlpack.cli.main import COMMANDS
from mlpack.json_document import document
from mlpack.plan.bundle import Bundle
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import find_image
from tests.azure import acr
from tests.azure.rollouts import GO, GROUP, failing, operator
from tests.cli.test_registry import serving as registry_serving
from tests.cli.test_serve import serving
from tests.command_schemas import NAMES, schema, validator
from tests.registry.registry import running
from tests.support import dense_onnx, free_port, make_project, run, tiny_onnx

Documents = Iterator[tuple[str, Any]]

GROUPS = """
[deploy.groups.vans]
target = "tags.deviceGroup = 'vans'"
link = "64 kbit/s"

[deploy.groups.trucks]
target = "tags.kind = 'lorry' OR tags.kind = 'truck'"
engine = "podman"
require = "fan:1"

[budget]
layer = "10 MB"

[azureml]
instance_type = "Standard_DS3_v2"
"""
FLEET = [
    {"deviceId": "a", "release": "fan:1", "platform": "linux/amd64", "status": "running"},
    {"deviceId": "b", "platform": "linux/arm64", "lastSeen": "2026-11-20T20:13:00Z"},
    {"deviceId": "c", "release": "none", "count": 50},
    {"deviceId": "d", "release": "fan:2", "platform": "linux/arm/v7"},
]


def documents(folder: Path) -> Mapping[str, list[Any]]:
    """Every document that commands print for a project with releases, by the command's name."""
    found: dict[str, list[Any]] = {}
    for name, args in _calls(folder):
        done = run("--json", *args)
        assert done.exit_code in (0, 3), f"{args}: {done.output}"
        found.setdefault(name, []).append(json.loads(done.stdout))
    for args in (("show", "nothing"), ("buld",)):
        done = run("--json", "-C", str(folder / "project"), *args)
        found.setdefault("error", []).append(json.loads(done.stderr.splitlines()[-1]))
    for name, printed in _elsewhere(folder):
        found.setdefault(name, []).append(printed)
    return found


def _elsewhere(folder: Path) -> Documents:
    """What commands print that need a hub, Azure, a runtime, or an engine."""
    yield from _of_rollouts(folder)
    yield from _of_logins(folder)
    yield from _of_runtimes(folder)
    yield from _of_engines(ProjectDirectory(folder / "project"))
    page = Page(name="start/your-model", title="Your model", text="# Your model\n")
    yield "docs", document(Pages(pages=(page,)))
    yield "docs-page", document(page)


def _of_rollouts(folder: Path) -> Documents:
    """Every shape of a rollout: planned, one step, complete, undone, continued, gone back."""
    for name in ("rollouts", "no-vans"):
        (folder / name).mkdir()
    with operator(folder / "rollouts", 40, releases=3) as vans:
        yield "status", vans.document("status")
        yield "deploy-base", vans.document("deploy", *GROUP, "--base", "--dry-run")
        yield "deploy-base", vans.document("deploy", *GROUP, "--base", "--yes")
        yield "deploy", vans.document("deploy", "fan:1", *GROUP, "--dry-run")
        yield "deploy", vans.document("deploy", "fan:1", *GO, "--stages", "100%")
        yield "deploy", vans.document("deploy", "fan:2", *GROUP, "--stages", "20%,100%", "--yes")
        yield "status", vans.document("status", *GROUP)
        yield "deploy", vans.document("deploy", "fan:2", *GROUP, "--dry-run")
        yield "rollback", vans.document("rollback", *GROUP, "--dry-run")
        vans.hub.advance(60)
        yield "deploy", vans.document("deploy", "fan:2", *GO)
        yield "status", vans.document("status")
        yield "rollback", vans.document("rollback", *GROUP, "--yes")
        vans.hub.behave = failing(vans.project, 3, 60)
        undone = vans("--json", "deploy", "fan:3", *GO, "--stages", "100%")
        assert undone.exit_code == 3, undone.output
        yield "deploy", json.loads(undone.stdout)
        yield "rollback", vans.document("rollback", *GROUP, "--to", "none", "--yes")
    with operator(folder / "no-vans", 0) as none:
        settings = none.project.root / "mlpack.toml"
        settings.write_text(settings.read_text().replace('"per-mb"', '"origin-bundle"'))
        (none.project.root / "fleet.json").write_text(json.dumps({"devices": FLEET}))
        yield "plan", none.document("plan", *GROUP)
        yield "plan", none.document("plan", *GROUP, "--fleet", "fleet.json")


def _of_logins(folder: Path) -> Documents:
    root = str(folder / "project")
    double = acr.Double("registry.example.com", "")
    with acr.started(double, folder / "tls") as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLPACK_AZURE_ENDPOINT", double.url)
        patch.setenv("MLPACK_ACR", double.registry)
        patch.setenv("REQUESTS_CA_BUNDLE", str(made.ca))
        patch.setenv("IDENTITY_ENDPOINT", f"{double.url}/identity")
        patch.setenv("IDENTITY_HEADER", double.tokens.header)
        for out in ((), ("-o", "vans.env")):
            done = run("-C", root, "--json", "azure", "token", "--group", "vans", *out)
            assert done.exit_code == 0, done.output
            yield "azure-token", json.loads(done.stdout)


def _of_runtimes(folder: Path) -> Documents:
    project = ProjectDirectory(folder / "project")
    with registry_serving("--store", str(folder / "layout")) as (answer, _):
        yield "registry-serve", answer
    (project.root / "rows.csv").write_text("600,38,150,47\n1,2,3,4\n")
    way = ("dense", "--port", str(free_port()), "--json")
    with serving(project, *way) as (process, first):
        assert process.stdout is not None
        served = json.loads(first + "".join(iter(process.stdout.readline, "}\n")) + "}")
        yield "serve", served
        address = served["url"].removesuffix("/score")
        for inputs in (("1,2,3,4", '{"params": [1]}'), ("rows.csv",), ("1,2,3,4", "--repeat", "9")):
            done = run("-C", str(project.root), "--json", "score", address, *inputs)
            assert done.exit_code == (1 if "{" in inputs[-1] else 0), done.output
            yield "score", json.loads(done.stdout)


def _of_engines(project: ProjectDirectory) -> Documents:
    """Documents of results as an engine makes them; tests/e2e read those of real engines."""
    found = find_image(project, "dense:1").image
    bundle = Bundle(
        engine="podman", name="localhost/dense:1", image=found, carried=found.layers, onto=None
    )
    loaded = Loaded("podman", bundle)
    yield "load", document(loaded)
    yield "run", document(Running(loaded, "0" * 64, 5001))
    module = ModuleOutcome(
        name="fan", image="r.example.com/fan:1", image_id="", release="", action="keep", why=""
    )
    started = ModuleOutcome(
        name="fan",
        image="r.example.com/fan:1",
        image_id=str(found.config_descriptor.digest),
        release="dense:1",
        container="0" * 64,
        action="replace",
        why="its image changed",
        state="ready",
        addresses=("http://127.0.0.1:5001/",),
    )
    for each in (module, started):
        done = UpResult(
            deployment=project.root / "deployment.json",
            network="host",
            modules=(each,),
            removed=("broker",),
            dry_run=False,
            skipped=("routes",),
        )
        yield "up", document(done)
    for network in ("", "mlpack-0"):
        ended = DownResult(
            deployment=project.root, removed=(), network=network, others=("x",), dry_run=True
        )
        yield "down", document(ended)


def _calls(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each command line with the name of its document, in an order that works."""
    root = make_project(folder / "project", settings=GROUPS).root
    at = ("-C", str(root))
    (root / "fleet.json").write_text(json.dumps({"devices": FLEET}))
    (root / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    yield "init", (*at, "init", "new")
    yield "init", (*at, "init", "--template", "fan", "fan", "--ci", "github")
    for tuned, name in enumerate(("first", "second")):
        dense_onnx(root / f"{name}.onnx", tuned=tuned)
        noted = ("--metric", "accuracy=0.5", "--tag", "stage=lab", "--name", "fan")
        yield "register", (*at, "register", f"{name}.onnx", *(noted if tuned else noted[4:]))
        yield "build", (*at, "build", "fan", "--no-start")
    yield "register", (*at, "register", "second.onnx", "--name", "fan")
    tiny_onnx(root / "tiny.onnx")
    scored = ("--name", "small", "--scoring", "score.py")
    yield "register", (*at, "register", "tiny.onnx", *scored)
    yield "show", (*at, "show", "small")
    yield "build", (*at, "build", "small", "--strategy", "layer")
    for name in ("fan:1", "small"):
        yield "show", (*at, "show", name)
    yield "models", (*at, "models")
    yield from _on_releases(folder, at)
    yield from _over_the_network(folder, at)
    yield from _rounded(root, at)
    yield "doctor", (*at, "doctor", "--quick")
    yield "doctor", ("-C", str(folder), "doctor", "--quick")
    yield "completion", ("completion", "fish", "--install")
    yield "completion", ("completion", "bash")
    yield "models-drop", (*at, "models", "--drop", "fan:1")
    yield "models-drop", (*at, "models", "--drop", "small:1")
    yield "gc", (*at, "gc")


def _on_releases(folder: Path, at: tuple[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "tag", (*at, "tag", "fan:2", "champion")
    yield "tag", (*at, "tag", "fan", "--list")
    yield "releases", (*at, "releases")
    yield "base-show", (*at, "base", "show")
    yield "base-build", (*at, "base", "build")
    for pair in (("fan:1", "fan:2"), ("none", "fan:1")):
        yield "diff", (*at, "diff", *pair)
    yield "graft", (*at, "graft", "fan:1", "small", "-o", f"oci:{folder / 'grafted'}:1")
    yield "report", (*at, "report", "fan")
    yield "report", (*at, "report", "small", "--tariff", "flat", "--engine", "podman", "--check")
    yield "groups", (*at, "groups")
    fleet = ("--device-group", "vans", "--fleet", "fleet.json")
    yield "devices", (*at, "devices", *fleet)
    yield "plan", (*at, "plan", "fan", *fleet)
    yield "plan", (*at, "plan", "fan:1", *fleet)
    for onto in ("fan:1", "none"):
        out = str(folder / f"{onto[:3]}.tar")
        yield "bundle-make", (*at, "bundle", "fan:2", "--onto", onto, "-o", out)
        yield "bundle-verify", (*at, "bundle", "verify", out)
    yield "patch-make", (*at, "patch", "make", "fan:1", "fan:2", "-o", "p")
    yield "patch-apply", (*at, "patch", "apply", "fan:1", "p", "-o", "n")
    yield "patch-inspect", (*at, "patch", "inspect", "p")
    yield "copy", (*at, "copy", "fan:2", f"oci:{folder / 'copied'}:2")
    yield "render", (*at, "render", "fan", "--repository", "r.example.com/fan")
    yield "render", (*at, "render", "fan", "--repository", "r.example.com/fan", "-o", "d.json")
    for target in ("compose", "kubernetes", "aci", "azureml"):
        to = (*at, "render", "fan", "--target", target, "--repository", "r.example.com/fan")
        yield "render", to
        yield "render", (*to, "-o", f"written-{target}")
    yield "render", (*at, "render", "--base")


def _rounded(root: Path, at: tuple[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.savez(root / "check.npz", x=rows)
    for name in ("first", "second"):
        yield "register", (*at, "register", f"{name}.onnx", "--name", "dense")
    yield "build", (*at, "build", "dense:1", "--no-start")
    args = (*at, "round", "dense:2", "--onto", "dense:1", "--check", "check.npz")
    yield "round", (*args, "--dry-run")
    yield "round", (*args, "--keep-bits", "4", "--max-error", "1")


def _over_the_network(folder: Path, at: tuple[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    with running(folder / "registry") as registry:
        to = f"{registry.host}/edge/fan"
        for _ in range(2):
            yield "push", (*at, "push", "fan:2", "--to", f"{to}:2")
        yield "push", (*at, "push", "fan:1", "--to", f"{to}:2")
        yield "pull", (*at, "pull", f"{to}:2")
        yield "pull", (*at, "pull", f"{to}:2", "--as", "candidate")
        yield "copy", (*at, "copy", f"{to}:2", f"{registry.host}/other/fan:2")


@pytest.fixture(scope="module")
def printed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, list[Any]]]:
    folder = tmp_path_factory.mktemp("documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.delenv("XDG_CONFIG_HOME", raising=False)
        yield documents(folder)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_command_prints_fits_its_schema(name: str, printed: Mapping[str, list[Any]]) -> None:
    checked = validator(name)
    for each in printed[name]:
        checked.validate(each)


@pytest.mark.parametrize("name", NAMES)
def test_a_member_that_the_schema_does_not_know_does_not_fit(
    name: str, printed: Mapping[str, list[Any]]
) -> None:
    assert not validator(name).is_valid({**printed[name][0], "another": 1})


def test_every_document_has_a_schema(printed: Mapping[str, list[Any]]) -> None:
    assert set(printed) == set(NAMES)
    assert {name.partition("-")[0] for name in NAMES} >= set(COMMANDS)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_files_and_hashes_have_one_name(name: str) -> None:
    """Sizes are ``bytes`` or ``…_bytes``, files ``path``, content ``digest``: no other words."""
    members = set(_members(schema(name)))
    assert not members & {"size", "file", "filename", "sha256", "checksum", "length"}


def _members(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from node.get("properties", {})
        for each in node.values():
            yield from _members(each)
    elif isinstance(node, list):
        for each in node:
            yield from _members(each)
