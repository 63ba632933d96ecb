"""What each engine takes, and to which files it unpacks it, is what its rule says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mlpack.oci.filesystem import FileNode, Tree
from mlpack.plan.engines import engine as rule_of
from mlpack.stores.trees import LayeredTree, read_tree
from tests.e2e.engine_cases import Case, cases, deep
from tests.e2e.engines import Containerd, Docker, Engine, Podman, run
from tests.e2e.wire import DockerRegistry
from tests.stores.test_trees import on_disk

pytestmark = pytest.mark.e2e

RULES = {"docker": "moby", "containerd": "containerd", "podman": "podman"}
CASES = {case.name: case for case in cases()}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry for all cases."""
    with DockerRegistry.started(tmp_path_factory.mktemp("rules") / "registry") as started:
        yield started


def pulled(engine: Engine, reference: str) -> str:
    """Pull and prepare a container; return what the engine said if it refuses."""
    try:
        engine.pull(reference)
        if isinstance(engine, Docker | Podman):
            made = run(*engine.command("create", reference))
            if isinstance(engine, Podman):
                run(*engine.command("mount", made))
                run(*engine.command("umount", made))
            run(*engine.command("rm", made))
    except AssertionError as error:
        return str(error)
    return ""


@contextmanager
def mounted(engine: Engine, reference: str, place: Path) -> Iterator[Path]:
    """The files of a pulled image, as its containers see them."""
    if isinstance(engine, Podman):
        yield Path(run(*engine.command("image", "mount", reference)))
        run(*engine.command("image", "unmount", reference))
    elif isinstance(engine, Containerd):
        run(*engine.command("images", "mount", reference, str(place)))
        try:
            yield place
        finally:
            run(*engine.command("images", "unmount", "--rm", str(place)))
    elif isinstance(engine, Docker):
        found = json.loads(run(*engine.command("image", "inspect", reference)))
        data = found[0]["GraphDriver"]["Data"]
        layers = ":".join([data["UpperDir"], data["LowerDir"]])
        run("mount", "-t", "overlay", "-o", f"ro,lowerdir={layers}", "overlay", str(place))
        try:
            yield place
        finally:
            run("umount", str(place))


def comparable(tree: Tree) -> dict[str, FileNode]:
    """A tree without what :func:`on_disk` does not look at."""
    return {
        path: replace(
            node,
            xattrs=()
            if node.kind == "symlink"
            else tuple(each for each in node.xattrs if each[0].startswith("user.")),
        )
        for path, node in tree.items()
    }


def read(case: Case, name: str) -> LayeredTree:
    """What the rule of engine ``name`` says of the content of a case."""
    how = rule_of(name).support.unpacking
    return read_tree(case, case.whole.layers, unpacking=how)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", RULES)
def test_an_engine_takes_what_its_rule_says(
    name: str, case: str, registry: DockerRegistry, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    engine, rule, given = request.getfixturevalue(name), rule_of(RULES[name]), CASES[case]
    found = read(given, rule.name)
    told = rule.refusals(given.whole, given.index, found.facts)
    refused = [each for each in told if each.effect == "refused"]
    reference = given.put(registry.port)
    said = pulled(engine, reference)
    if said:
        assert refused, said
        return
    with mounted(engine, reference, tmp_path) as place:
        seen = on_disk(place)
    if refused and given.index:
        assert seen["case"] != found.tree["case"], "another image of the index was taken"
        return
    assert not refused
    assert seen == comparable(found.shown)
    assert (seen == comparable(found.tree)) == (not told)


@pytest.mark.parametrize(("name", "most"), [("docker", 125), ("podman", 128)])
def test_an_engine_takes_as_many_layers_as_its_rule_says(
    name: str, most: int, registry: DockerRegistry, request: pytest.FixtureRequest
) -> None:
    engine, rule = request.getfixturevalue(name), rule_of(RULES[name])
    assert rule.support.most_layers == most
    assert not pulled(engine, deep(most).put(registry.port))
    assert "max depth exceeded" in pulled(engine, deep(most + 1).put(registry.port))
