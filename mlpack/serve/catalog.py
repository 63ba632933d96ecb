"""Which repositories and tags a layout has, and what may be named in it.

A release is repository ``NAME`` and tag ``VERSION``, and ``latest`` is its newest.
Another name of the layout is cut at its last ``/`` (``model/fan/1`` is tag ``1`` of
``model/fan``), and one without any is the tag ``latest`` of a repository of that name.
All repositories share one store of blobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mlpack.errors import MlpackError
from mlpack.model.recipe import BASE
from mlpack.model.version import version_order
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest, InvalidDigest
from mlpack.oci.document import MAX_DOCUMENT_BYTES, InvalidContent, Node, parse
from mlpack.oci.reference import InvalidReference, Reference
from mlpack.serve.errors import Refused
from mlpack.stores.base import put_bytes, read, read_index, select_image
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import RECORDS
from mlpack.stores.releases import MODEL, VERSION, release_tag
from mlpack.stores.untag import untag

LATEST = "latest"
_DOCUMENTS = media.MANIFESTS | media.INDEXES
_BLOB = "application/octet-stream"
_REFERRERS = "referrers"
_OWN = ("model/", RECORDS)
"""Where a project keeps its records; what is named there never changes."""


class Catalog:
    """The names of one layout, as a registry shows them."""

    def __init__(self, layout: LayoutStore) -> None:
        self.layout = layout
        self._subjects: dict[Digest, Digest | None] = {}

    def repositories(self) -> list[str]:
        """Every repository, in order."""
        return sorted({repository for repository, _, _ in self._named()})

    def tags(self, repository: str) -> Mapping[str, Descriptor]:
        """What is named in ``repository``; raise :class:`Refused` where there is nothing."""
        found = {tag: target for name, tag, target in self._named() if name == repository}
        if not found:
            raise Refused("NAME_UNKNOWN", f"there is no repository {repository!r}")
        return found

    def blob(self, digest: str) -> Descriptor:
        """The blob called ``digest``, as it lies on disk."""
        found = self._held(digest)
        if found is None:
            raise Refused("BLOB_UNKNOWN", f"there is no blob {digest}")
        return found

    def manifest(self, repository: str, reference: str) -> Descriptor:
        """The manifest or index called ``reference``, a tag or a digest."""
        if ":" in reference:
            held = self._held(reference)
            if held is None or held.size > MAX_DOCUMENT_BYTES:
                raise Refused("MANIFEST_UNKNOWN", f"there is no manifest {reference}")
            return replace(held, media_type=self._media_type(held))
        tags = self.tags(repository)
        if reference == LATEST and LATEST not in tags:
            reference = sorted(tags, key=version_order)[-1]
        if reference not in tags:
            raise Refused("MANIFEST_UNKNOWN", f"{repository} has no tag {reference!r}")
        return tags[reference]

    def keep(self, repository: str, reference: str, content: bytes, media_type: str) -> Descriptor:
        """Keep a pushed manifest, whose parts must be here, under a tag or its digest."""
        document = _document(content)
        stated = document.get("mediaType")
        if media_type not in _DOCUMENTS:
            raise Refused("MANIFEST_INVALID", f"{media_type!r} is no manifest this registry keeps")
        if stated is not None and stated.value != media_type:
            raise Refused("MANIFEST_INVALID", "Content-Type and mediaType disagree")
        target = Descriptor.of(content, media_type)
        self._check_parts(document, media_type)
        if ":" in reference and reference != str(target.digest):
            raise Refused("DIGEST_INVALID", f"the manifest is {target.digest}, not {reference}")
        put_bytes(self.layout, content, media_type)
        if ":" not in reference:
            self._name(repository, reference, target)
        elif document.get("subject") is not None:
            # Only what index.json lists is found again as a referrer.
            named = self._described(target)
            self.layout.tag(named, f"{_REFERRERS}/{target.digest.hex}")
        return target

    def forget(self, repository: str, reference: str) -> None:
        """Remove a tag, or with a digest all of them and the manifest, unless others name it.

        A release goes with its record. Layers and configs stay on disk.
        """
        target = self.manifest(repository, reference)
        tags = {tag: each for tag, each in self.tags(repository).items() if each == target}
        chosen = tags if ":" in reference else {reference: target}
        if repository.startswith(_OWN) or not chosen.keys() <= tags.keys():
            raise Refused("DENIED", f"{repository}:{reference} is not deleted here")
        names = [name for tag in chosen for name in self._names_of(repository, tag, target)]
        if BASE in names:
            raise Refused("DENIED", "the project's base is not deleted here")
        untag(self.layout, *names)
        if ":" in reference:
            self._drop_document(target)

    def _names_of(self, repository: str, tag: str, target: Descriptor) -> Iterator[str]:
        """What the layout calls this tag; of a release also its record."""
        release = release_tag(repository, tag)
        for name, each in self.layout.tags().items():
            ours = {f"{repository}/{tag}", *([repository] if tag == LATEST else [])}
            own = each.annotations.get(MODEL) == repository and each.annotations.get(VERSION) == tag
            if each == target and (name in ours or (own and name == release)):
                yield name
                if own:
                    yield f"{RECORDS}{repository}/{tag}"

    def _drop_document(self, target: Descriptor) -> None:
        """Delete a manifest that no name leads to any more, nor an index with a name."""
        for entry in self.layout.entries():
            named = {entry.digest}
            if entry.media_type in media.INDEXES:
                named |= {each.digest for each in read_index(self.layout, entry).manifests}
            if target.digest in named:
                return
        self._subjects.pop(target.digest, None)
        self.layout.path(target).unlink(missing_ok=True)

    def subject(self, target: Descriptor) -> Digest | None:
        """What the manifest ``target`` refers to."""
        if target.digest not in self._subjects:
            node = parse(read(self.layout, target), "manifest").get("subject")
            found = Descriptor.from_json(node).digest if node else None
            self._subjects[target.digest] = found
        return self._subjects[target.digest]

    def referrers(self, digest: str) -> Iterator[Descriptor]:
        """The manifests whose subject is ``digest``, each once."""
        wanted = _digest(digest)
        named = {each.digest: each for each in self.layout.entries()}
        for target in named.values():
            if target.media_type in _DOCUMENTS and self.subject(target) == wanted:
                yield self._described(target)

    def _described(self, target: Descriptor) -> Descriptor:
        """``target`` with its artifact type and annotations (distribution-spec, *Referrers*)."""
        manifest = parse(read(self.layout, target), "manifest")
        kind, notes = manifest.get("artifactType"), manifest.get("annotations")
        config = manifest.get("config")
        # An index has no config; what it is then is not said.
        shown = kind or (config.need("mediaType") if config else None)
        annotations = notes.text_map() if notes else {}
        text = shown.text() if shown else ""
        return replace(target, artifact_type=text, annotations=annotations, platform=None)

    def _named(self) -> Iterator[tuple[str, str, Descriptor]]:
        """Repository, tag and target of every name; releases last, so that they win."""
        releases = []
        for name, target in self.layout.tags().items():
            notes = target.annotations
            repository, _, tag = name.rpartition("/")
            if MODEL in notes and VERSION in notes:
                releases.append((notes[MODEL], notes[VERSION], target))
            elif repository != _REFERRERS:
                yield (repository, tag, target) if repository else (name, LATEST, target)
        yield from releases

    def _name(self, repository: str, tag: str, target: Descriptor) -> None:
        pushed = f"{repository}/{tag}"
        held = {(name, tag): each for name, tag, each in self._named()}.get((repository, tag))
        own = pushed not in self.layout.tags() or pushed.startswith(_OWN)
        if held == target:
            return
        if held is not None and own:
            raise Refused("DENIED", f"{repository}:{tag} is this project's own and does not change")
        if repository == _REFERRERS:
            raise Refused("NAME_INVALID", f"{repository!r} is a name this registry uses itself")
        name = release_tag(repository, tag)
        if self._is_release(repository, tag, target) and name not in self.layout.tags():
            notes = {MODEL: repository, VERSION: tag}
            self.layout.tag(replace(target, annotations=notes), name)
            return
        self.layout.tag(target, pushed)

    def _is_release(self, repository: str, tag: str, target: Descriptor) -> bool:
        """Whether mlpack made this image as the release ``repository``:``tag``."""
        try:
            labels = select_image(self.layout, target, None).labels
        except (MlpackError, IndexError):
            return False
        return (labels.get(MODEL), labels.get(VERSION)) == (repository, tag)

    def _held(self, digest: str) -> Descriptor | None:
        target = Descriptor(_BLOB, _digest(digest), 0)
        path = self.layout.path(target)
        return replace(target, size=path.stat().st_size) if path.is_file() else None

    def _media_type(self, target: Descriptor) -> str:
        try:
            document = parse(read(self.layout, target), str(target.digest))
        except InvalidContent as error:
            raise Refused("MANIFEST_UNKNOWN", f"{target.digest} is no manifest") from error
        stated = document.get("mediaType")
        if stated is None:
            # OCI 1.0 documents need not say what they are.
            return media.INDEX if document.get("manifests") else media.MANIFEST
        if stated.value not in _DOCUMENTS:
            raise Refused("MANIFEST_UNKNOWN", f"{target.digest} is no manifest")
        return stated.text()

    def _check_parts(self, document: Node, media_type: str) -> None:
        """Raise :class:`Refused` unless all that ``document`` points at is here."""
        try:
            if media_type in media.INDEXES:
                nodes = list(document.need("manifests").elements())
            else:
                nodes = [document.need("config"), *document.need("layers").elements()]
            parts = [Descriptor.from_json(node) for node in nodes]
        except InvalidContent as error:
            raise Refused("MANIFEST_INVALID", str(error)) from error
        for part in parts:
            if not self.layout.exists(part):
                raise Refused("MANIFEST_BLOB_UNKNOWN", f"{part.digest} was not pushed before")


def check_repository(text: str) -> str:
    """Return ``text`` where it can be a repository's name; raise :class:`Refused`."""
    try:
        return Reference.parse(f"localhost/{text}").repository
    except InvalidReference as error:
        raise Refused("NAME_INVALID", f"{text!r} is not a repository name") from error


def check_tag(repository: str, text: str) -> str:
    """Return ``text`` where it can be a tag or a digest; raise :class:`Refused`."""
    if ":" in text:
        return str(_digest(text))
    try:
        return Reference.parse(f"localhost/{repository}:{text}").tag
    except InvalidReference as error:
        raise Refused("MANIFEST_INVALID", f"{text!r} is not a tag") from error


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise Refused("DIGEST_INVALID", str(error)) from error


def _document(content: bytes) -> Node:
    try:
        return parse(content, "manifest")
    except InvalidContent as error:
        raise Refused("MANIFEST_INVALID", str(error)) from error
