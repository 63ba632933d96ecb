"""``mlpack diff`` and ``mlpack report``, run on a project with two releases."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlpack.kinds import ENGINES
from mlpack.model.lock import LockedLayer
from mlpack.oci.image import Image
from mlpack.project.directory import ProjectDirectory
from mlpack.stores.store import images
from tests.support import layer, make_project, run, tiny_onnx


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project of two releases, fan:1 and fan:2."""
    made = make_project(tmp_path / "project")
    for bias in (1.0, 2.0):
        release(made, bias)
    return made


def release(project: ProjectDirectory, bias: float) -> None:
    model = tiny_onnx(project.root.parent / "model.onnx", bias=bias)
    assert at(project, "register", str(model)).exit_code == 0
    assert at(project, "build", "fan").exit_code == 0


def at(project: ProjectDirectory, *args: str) -> Any:  # noqa: ANN401  # click's Result
    return run("-C", str(project.root), *args)


def document(project: ProjectDirectory, *args: str) -> Any:  # noqa: ANN401  # a JSON document
    result = at(project, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def image(project: ProjectDirectory, name: str) -> Image:
    return images(project.layout, project.layout.resolve(name))[0]


@pytest.mark.parametrize("name", ENGINES)
def test_diff_of_two_releases_fetches_the_model_layer_alone(
    project: ProjectDirectory, name: str
) -> None:
    found = document(project, "diff", "fan:1", "fan:2", "--engine", name)
    assert list(found) == ["engine", "old", "new", "layers", "transfer", "refusals"]
    assert (found["engine"], found["old"], found["new"]) == (name, "fan:1", "fan:2")
    assert [each["action"] for each in found["layers"]] == ["reuse"] * 4 + ["fetch"]
    wanted = image(project, "fan-2")
    assert [each["digest"] for each in found["layers"]] == [str(x.digest) for x in wanted.layers]
    assert found["transfer"]["layers"] == wanted.layers[-1].size
    assert found["transfer"]["config"] == len(wanted.config)


def test_diff_from_nothing_fetches_everything(project: ProjectDirectory) -> None:
    found = document(project, "diff", "none", "fan:2")
    assert {each["action"] for each in found["layers"]} == {"fetch"}
    assert found["transfer"]["layers"] == sum(x.size for x in image(project, "fan-2").layers)
    assert at(project, "diff", "none", "fan:2").stdout.startswith("An empty device fetches ")


def test_diff_takes_the_engine_and_the_link_of_the_project(project: ProjectDirectory) -> None:
    recipe = project.root / "mlpack.toml"
    before = document(project, "diff", "fan:1", "fan:2")["transfer"]
    assert before["engine"] == "moby"
    recipe.write_text(recipe.read_text() + '\n[device]\nengine = "podman"\ntls = "rsa-chain"\n')
    after = document(project, "diff", "fan:1", "fan:2")["transfer"]
    assert after["engine"] == "podman"
    # Five connections, each of which names the registry.
    assert after["handshakes"] == pytest.approx(5 * (3998 + 29), abs=100)
    assert document(project, "diff", "fan:1", "fan:2", "--engine", "moby")["engine"] == "moby"


def test_diff_compares_layouts_outside_a_project(project: ProjectDirectory, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(project.root / ".mlpack" / "oci", tmp_path / "images")
    names = [f"oci:{tmp_path / 'images'}:fan-{number}" for number in (1, 2)]
    result = run("-C", str(elsewhere), "diff", *names, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    inside = document(project, "diff", "fan:1", "fan:2")
    assert found["layers"] == inside["layers"]
    assert found["transfer"]["requests"] == inside["transfer"]["requests"]
    # Inside, the registry and the repository are known by name, and names travel too.
    assert 0 < inside["transfer"]["total"] - found["transfer"]["total"] < 300


@pytest.mark.parametrize("name", ENGINES)
def test_diff_after_docker_load_fetches_everything_and_says_why(
    project: ProjectDirectory, name: str
) -> None:
    found = document(project, "diff", "fan:1", "fan:2", "--engine", name, "--loaded")
    assert {each["action"] for each in found["layers"]} == {"fetch"}
    assert "was loaded and not pulled" in found["layers"][0]["why"]
    assert "was loaded and not pulled" in at(project, "diff", "fan:1", "fan:2", "--loaded").stdout


def test_diff_of_a_platform(project: ProjectDirectory) -> None:
    found = document(project, "diff", "fan:1", "fan:2", "--platform", "linux/arm64")
    arm = images(project.layout, project.layout.resolve("fan-2"))[1]
    assert str(arm.platform) == "linux/arm64"
    assert [each["digest"] for each in found["layers"]] == [str(x.digest) for x in arm.layers]


@pytest.mark.parametrize(
    ("args", "status", "message", "hint"),
    [
        (
            ("diff", "fan:1", "fan:2", "--engine", "crio"),
            2,
            "'crio' is not an engine",
            "one of: moby, containerd, podman",
        ),
        (("diff", "fan:1", "fan:9"), 1, "fan:9 has no release", "mlpack models"),
        (("report", "--engine", "crio"), 2, "'crio' is not an engine", "one of: moby"),
        (("report", "fan:9"), 1, "fan:9 has no release", "mlpack models"),
        (("report", "door"), 1, "there is no model 'door' here", "mlpack models"),
        (("report", "base"), 2, "'base' is not a release of a model", "NAME or NAME:VERSION"),
        (("report", "fan:"), 2, "'' is not a version", "lower-case letters"),
        (
            ("report", "r.example.com/fan:1"),
            2,
            "'r.example.com/fan:1' is in a registry",
            "mlpack pull",
        ),
        (("diff", "fan:1", "none"), 2, "none means an empty device", "mlpack diff none NEW"),
        (("diff", "oci:", "fan:2"), 2, "'oci:' names no path", "oci:PATH"),
        (
            ("diff", "oci:nowhere:x", "fan:2"),
            1,
            "",
            "skopeo copy",
        ),
        (("diff", "docker-archive:.", "fan:2"), 1, "", "docker save"),
        (("diff", "fan@sha256:1", "fan:2"), 2, "'sha256:1' is not a digest", "mlpack build"),
        (
            ("diff", "oci:.mlpack/oci:model/fan/1", "fan:2"),
            1,
            "sha256:",
            "name a release",
        ),
        (
            ("report", "--tariff", "free"),
            2,
            "mlpack ships no tariff 'free'",
            "flat, origin-bundle, per-mb",
        ),
        (("report", "--tariff", "my.toml"), 1, "there is no tariff file", "name a file"),
        (("report", "--platform", "linux/s390x"), 1, "there is no image for linux/s390x", ""),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(
    project: ProjectDirectory, args: tuple[str, ...], status: int, message: str, hint: str
) -> None:
    result = at(project, *args)
    assert result.exit_code == status
    assert result.stderr.startswith(f"error: {message}")
    assert hint in result.stderr.partition("hint: ")[2]
    assert result.stdout == ""


def test_images_for_different_platforms_have_no_difference(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    model = tiny_onnx(tmp_path / "model.onnx")
    at(project, "register", str(model))
    at(project, "build", "fan", "--platform", "linux/amd64")
    at(project, "register", str(tiny_onnx(tmp_path / "model.onnx", bias=2.0)))
    at(project, "build", "fan", "--platform", "linux/arm64")
    result = at(project, "diff", "fan:1", "fan:2")
    assert result.exit_code == 1
    assert "error: fan:1 is for linux/amd64, fan:2 for linux/arm64" in result.stderr


def test_report_takes_the_newest_release_and_the_one_before(project: ProjectDirectory) -> None:
    found = document(project, "report")
    assert (found["release"], found["old"], found["engine"]) == ("fan:2", "fan:1", "moby")
    assert found["digest"] == str(project.layout.resolve("fan-2").digest)
    assert [each["engine"] for each in found["transfers"]] == list(ENGINES)
    moby = document(project, "diff", "fan:1", "fan:2")["transfer"]
    assert found["transfers"][0] == moby
    assert found["strategies"][-1]["transfer"] == moby


def test_report_of_the_first_release_starts_at_the_base(project: ProjectDirectory) -> None:
    found = document(project, "report", "fan:1")
    assert (found["release"], found["old"]) == ("fan:1", "base")
    assert document(project, "report", "fan", "--from", "none")["old"] == "none"


def test_versions_are_compared_as_numbers(project: ProjectDirectory) -> None:
    for number in range(3, 12):
        release(project, float(number))
    found = document(project, "report")
    assert (found["release"], found["old"]) == ("fan:11", "fan:10")


def test_report_compares_with_the_usual_build_of_this_base(project: ProjectDirectory) -> None:
    ways = {way["name"]: way["transfer"] for way in document(project, "report")["strategies"]}
    layers = {locked.role: locked.layer.size for locked in project.lock().base.platforms[0].layers}
    model = image(project, "fan-2").layers[-1].size
    remade = layers["packages"] + layers["runtime"] + layers["entry"]
    assert ways["usual"]["layers"] == model + remade
    assert ways["layer"]["layers"] == model
    assert ways["whole"]["layers"] == model + sum(layers.values())


def test_report_on_another_base_says_that_the_usual_build_is_not_known(
    project: ProjectDirectory,
) -> None:
    # The base is made anew since: its top layer is another.
    lock = project.lock()
    platforms = tuple(
        replace(each, layers=(*each.layers[:-1], LockedLayer("entry", layer("anew"))))
        for each in lock.base.platforms
    )
    project.write_lock(replace(lock, base=replace(lock.base, platforms=platforms)))
    found = document(project, "report")
    assert [way["name"] for way in found["strategies"]] == ["whole", "layer"]
    assert found["unknowns"][0].startswith("the usual build: this release is not based on the base")


def test_report_for_a_fleet_and_a_tariff(project: ProjectDirectory) -> None:
    found = document(project, "report", "--devices", "25000", "--tariff", "origin-bundle")
    assert found["devices"] == 25_000
    costs = found["strategies"][-1]["costs"]
    assert [each["devices"] for each in costs] == [1_000, 25_000, 100_000]
    assert [each["total"] for each in costs] == ["1440.00", "36000.00", "144000.00"]
    assert found["tariff"]["name"] == "origin-bundle"


OWN = """
title = "Our contract"
kind = "per-mb"
currency = "EUR"
source = "contract 7"
date = 2026-03-01
price = 0.5
unit_bytes = 1_000_000
"""


def test_a_tariff_of_the_project_is_named_in_its_settings(project: ProjectDirectory) -> None:
    (project.root / "own.toml").write_text(OWN)
    recipe = project.root / "mlpack.toml"
    recipe.write_text(recipe.read_text() + '\n[fleet]\ndevices = 40\ntariff = "own.toml"\n')
    found = document(project, "report")
    assert found["tariff"] == {
        "name": "own.toml",
        "title": "Our contract",
        "currency": "EUR",
        "source": "contract 7",
        "date": "2026-03-01",
        "per": "month",
    }
    assert found["devices"] == 40
    ours = found["strategies"][-1]
    sent = ours["transfer"]["total"]
    assert float(ours["costs"][0]["usage"]) == pytest.approx(sent * 40 * 0.5e-6, abs=0.005)
    assert document(project, "report", "--tariff", "flat")["tariff"]["name"] == "flat"


def test_a_tariff_outside_the_project_is_not_read_from_its_settings(
    project: ProjectDirectory,
) -> None:
    (project.root.parent / "own.toml").write_text(OWN)
    recipe = project.root / "mlpack.toml"
    inside = recipe.read_text()
    recipe.write_text(inside + '\n[fleet]\ntariff = "../own.toml"\n')
    result = at(project, "report")
    assert result.exit_code == 1
    assert "error: '../own.toml' is outside" in result.stderr
    recipe.write_text(inside)
    # The user may name any file by hand.
    assert document(project, "report", "--tariff", "../own.toml")["tariff"]["currency"] == "EUR"


def test_a_broken_tariff_is_one_error(project: ProjectDirectory) -> None:
    (project.root / "own.toml").write_bytes(b"title = \xff")
    result = at(project, "report", "--tariff", "own.toml")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 2


def test_text_and_markdown_say_the_same(project: ProjectDirectory) -> None:
    plain, marked = at(project, "report").stdout, at(project, "report", "--markdown").stdout
    assert plain.startswith("A device on fan:1 fetches ")
    assert marked.startswith("A device on fan:1 fetches ")
    assert "| mlpack layer |" in marked
    first = marked.splitlines()[0]
    assert " ".join(plain.split())[: len(first)] == first


def test_a_device_that_cannot_be_described_is_refused(project: ProjectDirectory) -> None:
    recipe = project.root / "mlpack.toml"
    recipe.write_text(recipe.read_text() + '\n[device]\ntls = "dsa"\n')
    result = at(project, "report")
    assert result.exit_code == 1
    assert "device.tls: is 'dsa'" in result.stderr
    assert "not none or ec or ec-chain or rsa-chain" in result.stderr
