"""Where a graft goes: a release of this project, a layout, or a registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlpack.api.copy import open_target
from mlpack.errors import UsageError
from mlpack.model.version import LATEST, parse_name
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.reference import Reference
from mlpack.stores.base import Store
from mlpack.stores.copy import MountFrom
from mlpack.stores.ledger import Ledger, ReleaseRecord
from mlpack.stores.models import ModelStore
from mlpack.stores.project import Project
from mlpack.stores.records import keep_record
from mlpack.stores.references import Found
from mlpack.stores.registries import Registries
from mlpack.stores.registry import RegistryStore
from mlpack.stores.releases import TagTaken, check_free, name_release


@dataclass(frozen=True, kw_only=True)
class Target:
    """A store, and what the image will be called in it."""

    text: str
    project: Project | None
    store: Store
    tag: str = ""
    release: str = ""
    """``NAME:VERSION`` where it is a release of the project."""

    @property
    def place(self) -> Reference | None:
        """Where devices will pull it from, as far as that is known."""
        if isinstance(self.store, RegistryStore):
            return self.store.place
        return self.project.recipe.repository if self.project else None

    def reference(self, root: Descriptor) -> str:
        """What names the image from now on; by digest in a registry."""
        if isinstance(self.store, RegistryStore):
            return str(self.store.place.pinned(root.digest))
        return self.text

    def mount(self, old: Found, digests: Iterable[Digest]) -> MountFrom | None:
        """Where the registry has OLD's layers already, in another repository."""
        if not isinstance(self.store, RegistryStore) or not isinstance(old.store, RegistryStore):
            return None
        ours, theirs = old.store.place, self.store.place
        if ours.registry != theirs.registry or ours.repository == theirs.repository:
            return None
        return MountFrom(ours.repository, frozenset(digests))

    def name_it(
        self, root: Descriptor, identity: Mapping[str, object], entry: ReleaseRecord
    ) -> None:
        """Name what the store holds by now, and write it into the project's ledger."""
        if self.project is not None and self.release:
            with self.project.exclusive():
                name, version = parse_name(self.release)
                _check_same(self.project, name, version, root)
                keep_record(self.project.layout, name, version, root, identity)
                name_release(self.project.layout, name, version, root)
        elif self.tag:
            self.store.tag(root, self.tag)
        if self.project is not None:
            Ledger(self.project.ledger).record_release(entry)


def open_graft_target(project: Project | None, text: str, registries: Registries) -> Target:
    """Read ``text``: ``NAME:VERSION``, ``oci:PATH[:TAG]``, or one in a registry.

    Raises :class:`UsageError`, and :class:`TagTaken` where the name is another's, before
    anything is read.
    """
    if "/" in text or text.partition(":")[0] in {"oci", "docker-archive"}:
        store, tag = open_target(text, registries)
        return Target(text=text, project=project, store=store, tag=tag)
    name, version = parse_name(text)
    if version == LATEST:
        raise UsageError(
            f"{text!r} names no version", hint=f"write it as {name}:VERSION, such as {name}:2"
        )
    if project is None:
        raise UsageError(
            f"{text!r} is a release, and this is not a project",
            hint="use -C DIR, or write oci:PATH:TAG, or REGISTRY/REPOSITORY:TAG",
        )
    check_free(project.layout, name, version)
    if ModelStore(project.layout).holds(name, version):
        raise TagTaken(
            f"{text} is a registered model, and its release is what mlpack build makes",
            hint="give the graft a version no model has",
        )
    return Target(text=text, project=project, store=project.layout, release=f"{name}:{version}")


def _check_same(project: Project, name: str, version: str, root: Descriptor) -> None:
    held = check_free(project.layout, name, version)
    if held is not None and held.digest != root.digest:
        raise TagTaken(
            f"{name}:{version} is another image already ({held.digest.short})",
            hint="give this one another version: a release does not change",
        )
