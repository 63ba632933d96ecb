"""Which image of an index real engines take for ``--platform``, next to what mlpack chooses."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import ImageConfig, NoSuchPlatform, build_image
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_image, select_image
from tests.e2e.conftest import scratch
from tests.e2e.engines import Containerd, Docker, Podman, needs, run
from tests.e2e.wire import DockerRegistry
from tests.oci.test_platforms import CHOICES, platform
from tests.stores.test_indexes import index
from tests.support import real_layer

pytestmark = pytest.mark.e2e

OTHERS: dict[str, dict[tuple[str, str], str]] = {
    "docker": {
        ("arm/v5 arm/v7", "arm/v8"): "arm/v5",
        ("arm/v6", "arm/v5"): "arm/v6",
        ("arm arm/v6 arm/v7", "arm/v7"): "arm",
        ("arm64/v8 arm64", "arm64"): "arm64/v8",
    },
    "podman": {
        ("arm arm/v6 arm/v7", "arm"): "arm/v7",
        ("arm/v6 arm", "arm"): "arm/v6",
        ("arm/v6 arm", "arm/v7"): "arm/v6",
        ("amd64/v2 amd64", "amd64/v3"): "amd64",
    },
    "skopeo": {("arm/v6 arm", "arm/v7"): "arm/v6", ("amd64/v2 amd64", "amd64/v3"): "amd64"},
    "containerd": {},
}
"""Where an engine takes another image than mlpack (Docker 20.10, podman 4.3, skopeo 1.9, containerd
1.6). Else it takes the same, or refuses: these know no order of amd64's and arm64's variants, and
``ctr --platform`` takes exact matches only."""


@dataclass(frozen=True)
class Offer:
    """An index in a layout and in a registry."""

    platforms: str
    target: Descriptor
    reference: str
    images: dict[str, str]
    """What each image is offered for, by the digests of its manifest and its config."""


@pytest.fixture(scope="module")
def offers() -> Iterator[tuple[LayoutStore, list[Offer]]]:
    """One index for each list of platforms; the configs name the architecture only."""
    needs("skopeo")
    with scratch() as folder, DockerRegistry.started(folder / "registry") as registry:
        layout = LayoutStore(folder / "oci")
        made = []
        for number, names in enumerate({each: None for each, _ in CHOICES if "v8." not in each}):
            target, found = _index(layout, names)
            layout.tag(target, f"t{number}")
            reference = f"127.0.0.1:{registry.port}/x:t{number}"
            places = (f"oci:{layout.root}:t{number}", f"docker://{reference}")
            run("skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", *places)
            made.append(Offer(names, target, reference, found))
        yield layout, made


def _index(layout: LayoutStore, names: str) -> tuple[Descriptor, dict[str, str]]:
    entries = []
    found: dict[str, str] = {}
    for name in names.split():
        built_for = replace(platform(name), variant="")
        layer = real_layer(layout, {"for": f"{name} of {names}".encode()})
        made = build_image(ImageConfig(platform=built_for), [layer])
        put_image(layout, made)
        entries.append(made.descriptor.to_json() | {"platform": platform(name).to_json()})
        found |= {made.digest.hex: name, made.config_descriptor.digest.hex: name}
    return index(layout, *entries), found


def _docker(docker: Docker, reference: str, device: str) -> str:
    done = _said(docker.command("pull", "-q", "--platform", f"linux/{device}", reference))
    if not done:
        return ""
    told = _said(docker.command("image", "inspect", reference, "-f", "{{.Id}}"))
    _said(docker.command("rmi", "-f", reference))
    return told


def _podman(podman: Podman, reference: str, device: str) -> str:
    how = ("-q", "--tls-verify=false", "--platform", f"linux/{device}")
    told = _said(podman.command("pull", *how, reference))
    _said(podman.command("rmi", "-fa"))
    return told


def _containerd(containerd: Containerd, reference: str, device: str) -> str:
    before = _said(containerd.command("content", "ls", "-q"))
    how = ("--plain-http", "--platform", f"linux/{device}")
    _said(containerd.command("content", "fetch", *how, reference))
    told = _said(containerd.command("content", "ls", "-q"))
    _said(containerd.command("images", "rm", "--sync", reference))
    fetched = set(told.split()) - set(before.split())
    _said(containerd.command("content", "rm", *fetched) if fetched else ["true"])
    return " ".join(fetched)


def _skopeo(_engine: None, reference: str, device: str) -> str:
    architecture, _, variant = device.partition("/")
    how = ["--override-os", "linux", "--override-arch", architecture]
    how += ["--override-variant", variant] if variant else []
    plain = ["inspect", "--config", "--raw", "--tls-verify=false", f"docker://{reference}"]
    told = subprocess.run(["skopeo", *how, *plain], capture_output=True, check=False).stdout
    return str(Digest.of(told)) if told else ""


def _said(command: list[str]) -> str:
    """What a command prints; nothing if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.stdout if done.returncode == 0 else ""


ASK: dict[str, Callable[..., str]] = {
    "docker": _docker,
    "podman": _podman,
    "containerd": _containerd,
    "skopeo": _skopeo,
}


@pytest.mark.parametrize("name", ASK)
def test_engines_take_the_image_that_mlpack_chooses(
    request: pytest.FixtureRequest, offers: tuple[LayoutStore, list[Offer]], name: str
) -> None:
    engine = None if name == "skopeo" else request.getfixturevalue(name)
    layout, made = offers
    wrong, asked = [], 0
    for offer in made:
        for device in [d for names, taken in CHOICES if names == offer.platforms for d in taken]:
            told = re.findall("[0-9a-f]{64}", ASK[name](engine, offer.reference, device))
            found = {offer.images[each] for each in told if each in offer.images}
            chosen = OTHERS[name].get((offer.platforms, device)) or _chosen(layout, offer, device)
            asked += bool(found)
            if found and chosen not in found:
                wrong.append(f"{device} of {offer.platforms}: {found}, not {chosen}")
    assert not wrong
    assert asked > 20


def _chosen(layout: LayoutStore, offer: Offer, device: str) -> str:
    try:
        found = select_image(layout, offer.target, platform(device))
    except NoSuchPlatform:
        return ""
    return offer.images[found.digest.hex]
