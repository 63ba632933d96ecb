"""``mlpack render --target``: a release on Kubernetes and on Azure Container Instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mlpack.api.render import find_pinned, module_name
from mlpack.errors import MlpackError, UsageError
from mlpack.model.edge import RegistryLogin
from mlpack.model.groups import unknown_group
from mlpack.model.kubernetes import NODE_LABEL
from mlpack.oci.descriptor import Platform
from mlpack.oci.image import Image
from mlpack.oci.reference import Reference
from mlpack.render import aci
from mlpack.render.container import ALL, wants_gpu
from mlpack.render.kubernetes.container import RELEASE_PATH
from mlpack.render.kubernetes.manifests import manifests
from mlpack.render.kubernetes.validate import left_out, require_open
from mlpack.render.kubernetes.workload import ImageVolume, Workload
from mlpack.render.yaml_text import dump
from mlpack.stores.base import images, read_image
from mlpack.stores.project import Project
from mlpack.stores.references import Found, rebuilt_bytes

APP_ROOT = "/var/azureml-app"


class NotOnThatBase(MlpackError):
    """A release that is not the locked base and one layer, so that the two cannot be joined."""

    hint = "build the release on the base in mlpack.lock, or leave --image-volume out"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is wanted of a release besides its name."""

    repository: Reference | None = None
    platform: Platform | None = None
    module: str = ""
    group: str = ""
    base: Reference | None = None
    """Repository of the base: the release is mounted into it as an image volume."""

    environment: Mapping[str, str] | None = None
    """What a registry's password is taken from; ``None``: its variable is written."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Manifests for something else than IoT Edge."""

    target: str
    name: str
    version: str
    image: Reference
    documents: tuple[Mapping[str, object], ...] = field(repr=False)
    warnings: tuple[str, ...] = ()
    private: bool = False
    """Whether a password stands in them."""

    @property
    def text(self) -> str:
        """The documents as YAML."""
        return dump(self.documents)

    def to_json(self) -> dict[str, object]:
        """What ``mlpack --json render --target`` prints; no password."""
        return {
            "target": self.target,
            "name": self.name,
            "version": self.version,
            "image": str(self.image),
            "warnings": list(self.warnings),
            "manifests": [] if self.private else list(self.documents),
        }


def kubernetes(project: Project, release: str, wanted: Wanted) -> Elsewhere:
    """The objects that run ``release`` on a cluster, checked.

    Without a device group a Deployment, with one a DaemonSet on the group's nodes.
    """
    recipe = project.recipe
    found, image = find_pinned(project, release, wanted.repository, wanted.platform)
    name, version = found.release
    settings = recipe.module
    if wants_gpu(found.image) and not settings.gpu:
        settings = replace(settings, gpu=ALL)
    require_open(settings)
    only = wanted.platform is not None or found.index is None
    asked = Workload(
        module=wanted.module or module_name(settings, name),
        image=image,
        model=name,
        version=version,
        settings=settings,
        cluster=recipe.kubernetes,
        group=wanted.group,
        nodes=_nodes(project, wanted.group) if wanted.group else {},
        platform=found.image.platform if only else None,
        volume=_volume(project, found, wanted) if wanted.base else None,
        rebuilt=rebuilt_bytes(found),
    )
    return Elsewhere(
        target="kubernetes",
        name=name,
        version=version,
        image=image,
        documents=manifests(asked),
        warnings=tuple(left_out(settings)),
    )


def container_instances(project: Project, release: str, wanted: Wanted) -> Elsewhere:
    """The container group that runs ``release`` in Azure, checked."""
    recipe = project.recipe
    found, image = find_pinned(project, release, wanted.repository, wanted.platform)
    name, version = found.release
    require_open(recipe.module)
    built = [found.image] if wanted.platform else images(found.store, found.target)
    if not any(each.platform.architecture == "amd64" for each in built):
        raise UsageError(
            f"{name}:{version} is not built for linux/amd64, which Azure Container Instances runs",
            hint="add it to [base] platforms",
        )
    settings = recipe.module
    if wants_gpu(found.image):
        settings = replace(settings, gpu=ALL)
    login = next((e for e in recipe.edge.registries.values() if e.address == image.registry), None)
    if login and wanted.environment is not None:
        login = _filled(login, wanted.environment)
    asked = aci.ContainerGroup(
        module=wanted.module or module_name(settings, name),
        image=image,
        model=name,
        version=version,
        settings=settings,
        place=recipe.aci,
        login=login,
    )
    warnings = [each for each in left_out(settings) if "gpu" not in each]
    if not recipe.aci.subnet:
        warnings.append("anyone can reach it: set [aci] subnet for a private address")
    return Elsewhere(
        target="aci",
        name=name,
        version=version,
        image=image,
        documents=(aci.group(asked),),
        warnings=tuple(warnings),
        private=bool(login and wanted.environment is not None and not recipe.aci.identity),
    )


def _nodes(project: Project, group: str) -> Mapping[str, str]:
    """The labels of the group's nodes."""
    recipe = project.recipe
    if group in recipe.kubernetes.groups:
        return recipe.kubernetes.groups[group]
    if group not in recipe.deploy.groups:
        message, hint = unknown_group(group, recipe.deploy.groups)
        if not recipe.deploy.groups:
            hint = f'add [kubernetes.groups] {group} = {{ "{NODE_LABEL}" = "{group}" }}'
        raise UsageError(message, hint=hint)
    return {NODE_LABEL: group}


def _volume(project: Project, found: Found, wanted: Wanted) -> ImageVolume | None:
    """The base of ``found`` by digest, and what the release's config says beyond it."""
    if wanted.base is None:
        return None
    lock = project.lock().base
    for image in [found.image] if wanted.platform else images(found.store, found.target):
        locked = lock.on(image.platform)
        below = tuple(each.layer for each in locked.layers) if locked else ()
        # One more, or the anchor's and a patch.
        above = len(image.layers) - len(below)
        if locked is None or image.layers[: len(below)] != below or above not in (1, 2):
            raise NotOnThatBase(f"{found.name} is not the base in mlpack.lock and one layer")
    platform = lock.on(found.image.platform)
    if platform is None:
        raise NotOnThatBase(f"mlpack.lock has no base for {found.image.platform}")
    base = read_image(project.layout, platform.manifest)
    digest = platform.manifest.digest if wanted.platform else lock.index.digest
    return ImageVolume(base=wanted.base.pinned(digest), env=_moved(found.image, base))


def _moved(release: Image, base: Image) -> Mapping[str, str]:
    """The release's own variables, with paths below where it is mounted."""
    own = {key: value for key, value in release.env.items() if base.env.get(key) != value}
    moved = {
        key: RELEASE_PATH + value if value.startswith(APP_ROOT) else value
        for key, value in own.items()
    }
    return {"AML_APP_ROOT": RELEASE_PATH + APP_ROOT, **moved}


def _filled(login: RegistryLogin, environment: Mapping[str, str]) -> RegistryLogin:
    name = login.password.removeprefix("${").removesuffix("}")
    if not environment.get(name):
        raise UsageError(
            f"{name} is not set in the environment", hint="set it, or leave --with-secrets out"
        )
    return replace(login, password=environment[name])
