"""The images of a deployment's modules: from the project's store, the daemon, or a registry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError
from mlpack.oci.descriptor import Platform
from mlpack.oci.index import NoSuchPlatform
from mlpack.oci.reference import InvalidReference, Reference
from mlpack.plan.containers import Held, LocalModule
from mlpack.render.iotedge.local import Local, Login
from mlpack.stores.docker_api import give, held, pull
from mlpack.stores.project import Project
from mlpack.stores.references import Found, NoSuchImage, find_image
from mlpack.stores.releases import MODEL, VERSION
from mlpack.words import counted

if TYPE_CHECKING:
    from docker import DockerClient

Say = Callable[[str], None]
Progress = Callable[[str], AbstractContextManager[Callable[[int], None]]]
"""Shows that something is under way: called with what, it gives what is called with bytes."""


_BUILD = "add it to [base] platforms in mlpack.toml, then: mlpack base build, mlpack build"


class NoImage(MlpackError):
    """An image that is not on this machine, and may not be fetched."""


@dataclass(frozen=True)
class Images:
    """Where the images of ``local`` come from; with ``look_only`` none is fetched."""

    client: DockerClient
    project: Project | None
    local: Local
    platform: Platform
    say: Say
    progress: Progress
    look_only: bool = False

    def find(self, module: LocalModule) -> Held:
        """The image of ``module``, which the daemon has then.

        A release of the project is given to the daemon, which lacks but its last layer
        mostly; what the daemon has already is taken; all else it pulls.
        """
        try:
            released = _released(self.project, module.image, self.platform)
        except NoSuchPlatform as error:
            raise NoImage(f"module {module.name}: {error}", hint=_BUILD) from error
        if released is not None:
            return self._give(module, *released)
        if module.image.startswith("$"):
            raise NoImage(
                f"module {module.name}: {module.image} is for devices below another one",
                hint="name the image as its registry does; here is no parent device",
            )
        there = held(self.client, module.image)
        return there or self._pull(module)

    def _give(self, module: LocalModule, name: str, found: Found) -> Held:
        for each in (held(self.client, name), held(self.client, module.image)):
            if each is not None and each.id == str(found.image.config_descriptor.digest):
                return each
        labels = found.image.labels
        if self.look_only:
            return Held(
                name, release=f"{labels[MODEL]}:{labels[VERSION]}" if MODEL in labels else ""
            )
        with self.progress(f"loading {name}") as moved:
            lacking = give(self.client, found.store, found.image, name, moved)
        layers = counted(len(found.image.layers), "layer")
        self.say(f"loaded {name} from the project's store: {lacking} of {layers} given")
        if not found.image.platform.fits(self.platform):
            self.say(f"{name} is for {found.image.platform}, and Docker here is {self.platform}")
        return held(self.client, name) or Held(name)

    def _pull(self, module: LocalModule) -> Held:
        name = module.image
        if not module.pull:
            raise NoImage(
                f"module {module.name}: {name} is not on this machine, and its imagePullPolicy "
                "is never",
                hint=f"bring it here: docker pull {name}",
            )
        if self.look_only:
            return Held(name)
        login = self.local.login(name)
        usable = (login.username, login.password) if login and login.usable else None
        with self.progress(f"pulling {name}") as moved:
            pull(self.client, name, usable, moved, hint=_advice(name, login))
        self.say(f"pulled {name}")
        found = held(self.client, name)
        if found is None:
            raise NoImage(f"{name} was pulled, and is not there", hint="run the command again")
        return found


def _advice(image: str, login: Login | None) -> str:
    """What to do where ``image`` cannot be pulled."""
    if login is not None and login.usable:
        return f"check the name, and the login for {login.address} in the manifest"
    if login is not None:
        return (
            f"its login is a variable: render it --with-secrets, or: docker login {login.address}"
        )
    named = "." in image.partition("/")[0]
    where = f" {image.partition('/')[0]}" if named else ""
    return f"check the name, or docker login{where}; a project's releases are found in it (-C DIR)"


def _released(project: Project | None, image: str, platform: Platform) -> tuple[str, Found] | None:
    """The release that ``image`` names, and what the daemon shall call it; ``None`` for others."""
    try:
        place = Reference.parse(image)
    except InvalidReference:
        return None
    if project is None:
        return None
    found = (
        _by_digest(project, image, platform) if place.digest else _by_tag(project, place, platform)
    )
    if found is None:
        return None
    tag = place.tag or found.image.labels.get(VERSION) or found.image.digest.short
    return f"{place.name}:{tag}", found


def _by_digest(project: Project, image: str, platform: Platform) -> Found | None:
    try:
        return find_image(project, image, platform)
    except UsageError:
        return None  # in a registry, for all this project knows


def _by_tag(project: Project, place: Reference, platform: Platform) -> Found | None:
    ours = project.recipe.repository
    if ours is None or ours.name != place.name or not place.tag:
        return None
    try:
        return find_image(project, f"{project.recipe.model}:{place.tag}", platform)
    except NoSuchImage:
        return None
