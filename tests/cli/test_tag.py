"""Aliases: made, moved, listed, deleted, and taken wherever a version is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from mlpack.api.project import Project
from mlpack.api.requests import TagVersion
from mlpack.errors import UsageError
from mlpack.model.version import check_alias
from mlpack.oci import descriptor as media
from mlpack.project.aliases import NoSuchAlias
from mlpack.project.directory import ProjectDirectory
from mlpack.project.ledger import Ledger
from mlpack.registry.serve.app import create_app
from mlpack.stores.integrity import validate
from mlpack.stores.store import read
from tests.registry.serve.server import asking
from tests.support import released_project, run, tiny_onnx


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with the releases fan:1 and fan:2."""
    return released_project(tmp_path / "fan", 2)


def at(project: ProjectDirectory, *args: str) -> Result:
    return run("-C", str(project.root), *args)


def document(project: ProjectDirectory, *args: str) -> Any:  # noqa: ANN401  # JSON
    done = at(project, "--json", *args)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_an_alias_is_made_moved_and_deleted(project: ProjectDirectory) -> None:
    made = at(project, "tag", "fan:1", "champion")
    assert (made.exit_code, made.stdout) == (0, "fan@champion\n")
    assert "fan@champion is fan:1" in made.stderr
    assert "fan@champion is fan:1 already" in at(project, "tag", "fan:1", "champion").stderr
    moved = at(project, "tag", "fan", "champion")
    assert "fan@champion is fan:2, and was fan:1" in moved.stderr
    assert document(project, "tag", "fan:1", "challenger")["before"] is None
    swapped = document(project, "tag", "fan@challenger", "champion")
    assert (swapped["version"], swapped["before"]) == ("1", "2")
    listed = document(project, "tag", "fan", "--list")
    assert listed["aliases"] == {"challenger": "1", "champion": "1"}
    gone = at(project, "tag", "fan@champion", "--delete")
    assert "deleted fan@champion, which was fan:1" in gone.stderr
    assert at(project, "tag", "fan", "challenger", "--delete").exit_code == 0
    assert "has no alias" in at(project, "tag", "fan").stderr
    moves = [
        (each.alias, each.version, each.before) for each in Ledger(project.ledger).alias_moves()
    ]
    assert moves == [
        ("champion", "1", ""),
        ("champion", "2", "1"),
        ("challenger", "1", ""),
        ("champion", "1", "2"),
        ("champion", "", "1"),
        ("challenger", "", "1"),
    ]
    assert validate(project.layout) == ()


def test_an_alias_is_taken_wherever_a_version_is(project: ProjectDirectory) -> None:
    at(project, "tag", "fan:1", "champion")
    digest = str(project.layout.resolve("fan-1").digest)
    assert document(project, "show", "fan@champion")["version"] == "1"
    assert document(project, "build", "fan@champion")["digest"] == digest
    report = document(project, "report", "fan@champion")
    assert (report["release"], report["old"]) == ("fan:1", "base")
    assert document(project, "report", "fan", "--from", "fan@champion")["old"] == "fan@champion"
    assert digest in json.dumps(document(project, "render", "fan@champion"))
    by_alias, by_number = (
        document(project, "diff", each, "fan:2")["transfer"] for each in ("fan@champion", "fan:1")
    )
    assert by_alias == by_number
    target = project.root.parent / "copy"
    assert document(project, "copy", "fan@champion", f"oci:{target}:1")["digest"] == digest
    grafted = document(project, "graft", "fan@champion", "fan:2", "-o", f"oci:{target}:2")
    assert grafted["digest"]


def test_an_alias_of_a_group(project: ProjectDirectory, tmp_path: Path) -> None:
    at(project, "tag", "fan:2", "champion")
    settings = project.root / "mlpack.toml"
    group = "\n[deploy.groups.vans]\ntarget = \"tags.kind='van'\"\npriority = 10\n"
    settings.write_text(f'{settings.read_text()}{group}require = "fan@champion"\n')
    fleet = tmp_path / "fleet.json"
    devices = [{"deviceId": "a", "release": "fan:1"}, {"deviceId": "b", "release": "fan:2"}]
    fleet.write_text(json.dumps(devices))
    held = ("--device-group", "vans", "--fleet", str(fleet))
    planned = document(project, "plan", "fan@champion", *held)
    assert planned["release"] == "fan:2"
    found = document(project, "devices", *held, "--holds", "fan@champion")["devices"]
    assert [each["deviceId"] for each in found] == ["b"]


def test_models_show_their_aliases(project: ProjectDirectory) -> None:
    assert "aliases" not in at(project, "models").stdout
    at(project, "tag", "fan:1", "champion")
    table = at(project, "models").stdout
    assert "aliases" in table
    assert "champion" in table
    listed = document(project, "models")["models"]
    assert [each["aliases"] for each in listed] == [["champion"], []]
    assert document(project, "show", "fan:1")["aliases"] == ["champion"]
    assert "champion" in at(project, "show", "fan:1").stdout


def test_a_version_with_an_alias_is_not_dropped(project: ProjectDirectory) -> None:
    at(project, "tag", "fan:1", "champion")
    refused = at(project, "models", "--drop", "fan:1")
    assert refused.exit_code == 1
    assert "fan:1 is fan@champion" in refused.stderr
    at(project, "tag", "fan@champion", "--delete")
    assert at(project, "models", "--drop", "fan:1").exit_code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("fan:1", "latest"), "means the newest version"),
        (("fan:1", "7"), "looks like a version or a digest"),
        (("fan:1", "v1.2"), "looks like a version or a digest"),
        (("fan:1", "sha256"), "looks like a version or a digest"),
        (("fan:1", "0f3a9c2b7d1e"), "looks like a version or a digest"),
        (("fan:1", "Champion"), "is not a"),
        (("fan:1", "a/b"), "is not a"),
        (("fan:9", "champion"), "no version '9'"),
        (("pump", "champion"), "no model 'pump'"),
        (("pump",), "no model 'pump'"),
        (("fan:1",), "lacks an alias"),
        (("fan", "champion", "--delete"), "has no alias 'champion'"),
        (("fan", "champion", "--list"), "leave the alias"),
        (("fan", "--delete"), "lacks an alias"),
    ],
)
def test_what_cannot_be_an_alias(
    project: ProjectDirectory, args: tuple[str, ...], said: str
) -> None:
    refused = at(project, "tag", *args)
    assert refused.exit_code in (1, 2)
    assert said in refused.stderr
    assert document(project, "tag", "fan")["aliases"] == {}


def test_an_alias_that_is_not_there_names_the_nearest(project: ProjectDirectory) -> None:
    at(project, "tag", "fan:1", "champion")
    for command in ("show", "build", "report", "render"):
        refused = at(project, command, "fan@chapion")
        assert refused.exit_code == 1
        assert "did you mean 'champion'?" in refused.stderr
    assert "names no version" in at(project, "models", "--drop", "fan@champion").stderr
    assert "lacks a version" in at(project, "graft", "fan:1", "fan:2", "-o", "fan@champion").stderr


@pytest.mark.parametrize("word", ["champion", "staging-2", "production", "eu.west", "fade"])
def test_words_that_can_be_aliases(word: str) -> None:
    assert check_alias(word) == word


def test_an_alias_names_a_release_without_a_model(project: ProjectDirectory) -> None:
    project.layout.untag("model/fan/1", "model/fan/2")
    at(project, "tag", "fan", "champion")
    assert document(project, "report", "fan@champion")["release"] == "fan:2"


def test_the_python_api_is_the_same(project: ProjectDirectory) -> None:
    with Project.open(project.root) as opened:
        done = opened.tag(TagVersion("fan:1", "champion"))
        assert (done.version, done.before) == ("1", "")
        assert [str(each) for each in opened.tag("fan").aliases] == ["fan@champion"]
        assert opened.show("fan@champion").version.version == "1"
        opened.tag(TagVersion("fan", "champion", delete=True))
        with pytest.raises(NoSuchAlias):
            opened.show("fan@champion")
        with pytest.raises(UsageError):
            opened.tag(TagVersion("fan", "1.0"))


def test_no_push_writes_an_alias(project: ProjectDirectory) -> None:
    at(project, "tag", "fan:1", "champion")
    target = project.layout.resolve("fan-2")
    content = read(project.layout, target)
    with asking(create_app(project.layout)) as client:
        assert "alias/fan" not in client.get("/v2/_catalog").json()["repositories"]
        assert client.get("/v2/alias/fan/tags/list").status_code == 404
        for tag in ("champion", "challenger"):
            refused = client.put(
                f"/v2/alias/fan/manifests/{tag}",
                content=content,
                headers={"content-type": target.media_type},
            )
            assert refused.status_code == 400
    assert target.media_type == media.INDEX
    assert document(project, "tag", "fan")["aliases"] == {"champion": "1"}


def test_a_release_built_later_does_not_move_an_alias(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    at(project, "tag", "fan", "champion")
    model = tiny_onnx(tmp_path / "model.onnx", bias=7.0)
    at(project, "register", str(model))
    at(project, "build", "fan")
    assert document(project, "report", "fan")["release"] == "fan:3"
    assert document(project, "report", "fan@champion")["release"] == "fan:2"
