"""``mlpack render``: the IoT Edge deployment manifest of a release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from mlpack.api.contents import (
    TEMPLATE,
    base_text,
    layered_content,
    pull_timeout,
    release_deployment,
    with_passwords,
)
from mlpack.api.groups import find_group
from mlpack.errors import MlpackError, UsageError
from mlpack.model.edge import ModuleRecipe
from mlpack.oci.descriptor import Platform
from mlpack.oci.document import InvalidContent
from mlpack.oci.reference import Reference
from mlpack.render.container import wants_gpu
from mlpack.render.iotedge.deployment import Deployment, dump
from mlpack.render.iotedge.deployment import render as render_deployment
from mlpack.render.iotedge.manifest import CONTENT, load, read_manifest
from mlpack.render.iotedge.patch import patch
from mlpack.render.iotedge.placeholders import Variables, fill, with_texts
from mlpack.render.iotedge.problem import Problem
from mlpack.render.iotedge.secrets import Passwords, holds_password, redacted
from mlpack.render.iotedge.template import InvalidTemplate, render_jinja
from mlpack.render.iotedge.validate import require_valid
from mlpack.render.iotedge.warnings import warnings
from mlpack.stores.base import images
from mlpack.stores.files import atomic
from mlpack.stores.private import write_private
from mlpack.stores.project import Project, read_text
from mlpack.stores.references import Found, find_image, rebuilt_bytes
from mlpack.stores.templates import read_template

JINJA = (".j2", ".jinja", ".jinja2")
"""Names that end so are Jinja's; elsewhere ``{{.Name}}`` is text, as in Docker's log options."""


class NoRepository(MlpackError):
    """A release whose place in a registry is not said anywhere."""

    hint = 'add repository = "registry.example.com/team/model" under [image] in mlpack.toml, '
    hint += "or name it with --repository"


class Form(Enum):
    """What is written."""

    WHOLE = "whole"
    LAYERED = "layered"
    """The release and what goes with it, over a base deployment."""

    BASE = "base"
    """IoT Edge's own modules: what layered deployments lie over."""

    TEMPLATE = "template"
    PATCH = "patch"
    """A manifest that is there, with the release's image."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is wanted."""

    form: Form = Form.WHOLE
    file: Path | None = None
    """The template, or the manifest to patch."""

    repository: Reference | None = None
    """Instead of the one in ``mlpack.toml``."""

    platform: Platform | None = None
    """Name this platform's image alone, which saves each device the request for the index."""

    module: str = ""
    """Id of the release's module, instead of the one in ``mlpack.toml``."""

    group: str = ""
    """Device group whose link is slow or fast; else the slowest of all groups is taken."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """What variables of a template, and of registries' logins, stand for."""

    passwords: bool = False
    """Whether the registries' passwords are filled in, or taken where they stand."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A manifest, and the release it is for; a base deployment is for none."""

    text: str
    name: str = ""
    version: str = ""
    module: str = ""
    image: Reference | None = None
    warnings: tuple[Problem, ...] = ()

    @property
    def private(self) -> bool:
        """Whether it holds a password."""
        return holds_password(json.loads(self.text.removeprefix("\ufeff")))

    def write(self, path: Path) -> None:
        """Write it, whole or not at all; for its owner alone where it holds a password."""
        if self.private:
            write_private(path, self.text.encode())
            return
        with atomic(path) as out:
            out.write(self.text.encode())

    def to_json(self) -> Mapping[str, object]:
        """What ``mlpack --json render`` prints; it holds no password."""
        release = {
            "name": self.name,
            "version": self.version,
            "module": self.module,
            "image": str(self.image),
        }
        return {
            **(release if self.image else {}),
            "warnings": [str(each) for each in self.warnings],
            "deployment": redacted(json.loads(self.text.removeprefix("\ufeff"))),
        }


@dataclass(frozen=True, kw_only=True)
class _Release:
    """A release, and all that is needed to name it in a manifest."""

    found: Found
    name: str
    version: str
    module: str
    image: Reference
    timeout: int


def render(project: Project, release: str, order: Order | None = None) -> Rendered:
    """Render the manifest of ``release``, checked.

    ``release`` is ``NAME[:VERSION]``, or what ``mlpack build`` prints: ``NAME@DIGEST``
    or ``REPOSITORY@DIGEST``; empty for the newest of the project's model. The image is the
    release's index, so that one deployment fits devices of every platform it was built for.
    """
    order = order or Order()
    speed = link_speed(project, order.group)
    if order.form is Form.BASE:
        return _checked(order, _filled(project, order, base_text(project, speed)))
    made = _release(project, release or project.recipe.model, order, speed)
    if order.form is Form.PATCH:
        there = _content(order)
        read_manifest(there.encode())
        return _checked(order, patch(there, made.module, made.image), made)
    whole = release_deployment(
        project.recipe,
        made.module,
        made.image,
        made.version,
        gpu=wants_gpu(made.found.image),
        rebuilt=rebuilt_bytes(made.found),
        timeout=made.timeout,
    )
    if order.form is Form.TEMPLATE:
        return _checked(order, _from_template(order, made, whole), made)
    if order.form is Form.LAYERED:
        return _checked(order, dump({CONTENT: layered_content(whole)}), made)
    text = render_deployment(whole, read_template(TEMPLATE))
    return _checked(order, _filled(project, order, text), made)


def module_name(settings: ModuleRecipe, model: str) -> str:
    """The module's id: as set, or the model's name without the dots a module id cannot have.

    >>> module_name(ModuleRecipe(), "fan.v2")
    'fan-v2'
    """
    return settings.name or model.replace(".", "-")


def link_speed(project: Project, group: str = "") -> int:
    """Bytes per second of the link of ``group``, or of the slowest group's; 0 for unknown."""
    if group:
        return find_group(project, group).link_bytes_per_second
    groups = project.recipe.deploy.groups.values()
    return min(
        (each.link_bytes_per_second for each in groups if each.link_bytes_per_second), default=0
    )


def find_pinned(
    project: Project,
    release: str,
    repository: Reference | None = None,
    platform: Platform | None = None,
) -> tuple[Found, Reference]:
    """A release, and its image as devices name it; raise :class:`NoRepository`.

    The image is the release's index, or that of ``platform`` alone.
    """
    found = find_image(project, release or project.recipe.model, platform)
    name, _ = found.release
    place = repository or _place(release) or project.recipe.repository
    if place is None:
        raise NoRepository(f"it is not said where devices fetch {name!r} from")
    return found, place.pinned(found.image.digest if platform else found.target.digest)


def _release(project: Project, release: str, order: Order, speed: int) -> _Release:
    found, image = find_pinned(project, release, order.repository, order.platform)
    name, version = found.release
    pulled = (found.image,) if order.platform else images(found.store, found.target)
    return _Release(
        found=found,
        name=name,
        version=version,
        module=order.module or module_name(project.recipe.module, name),
        image=image,
        timeout=pull_timeout(pulled, speed),
    )


def _place(release: str) -> Reference | None:
    """The repository in what ``mlpack build`` printed, where there is one."""
    before, at, _ = release.partition("@")
    return Reference.parse(before) if at and "/" in before else None


def _content(order: Order) -> str:
    """The user's file as it is: its line ends stay."""
    path = order.file or Path()
    if not path.is_file():
        raise UsageError(
            f"{path} is not a file", hint="name one that is there, relative to the project"
        )
    read_text(path, InvalidTemplate)
    return path.read_bytes().decode()


def _from_template(order: Order, release: _Release, whole: Deployment) -> str:
    text = _content(order)
    if order.file is not None and order.file.suffix in JINJA:
        values = {
            "deployment": whole,
            "name": release.name,
            "version": release.version,
            "module": whole.modules[0],
            "image": str(release.image),
        }
        text = render_jinja(text, values)
    try:
        document = load(text.removeprefix("\ufeff").encode())
    except InvalidContent as error:
        raise InvalidTemplate(f"{order.file}: what it gives {error.problem}") from error
    filled = dump(with_texts(fill(document, _variables(order, release))))
    if str(release.image) not in filled:
        raise InvalidTemplate(
            f"{order.file} has no place for the image of the release",
            hint="write ${IMAGE} or __REGISTRY_IMAGE_LOCATION where it belongs, or change the "
            "image of a finished manifest with --patch",
        )
    return filled


def _variables(order: Order, release: _Release) -> Variables:
    return Variables(
        module=release.module,
        image=release.image,
        environment=order.environment,
        passwords=order.passwords,
    )


def _filled(project: Project, order: Order, text: str) -> str:
    """``text`` with registries' logins filled in, where that was asked for."""
    return with_passwords(project, text, order.environment) if order.passwords else text


def _checked(order: Order, text: str, release: _Release | None = None) -> Rendered:
    allowed = Passwords.PLACEHOLDER
    if order.passwords:
        allowed = Passwords.EITHER if order.form is Form.PATCH else Passwords.CLEAR
    manifest = require_valid(text.encode(), allowed)
    said = warnings(manifest)
    if release is None:
        return Rendered(text=text, warnings=said)
    return Rendered(
        text=text,
        name=release.name,
        version=release.version,
        module=release.module,
        image=release.image,
        warnings=said,
    )
