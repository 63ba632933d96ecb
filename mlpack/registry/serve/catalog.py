"""The repositories and tags of a layout, and the rules for pushing and deleting them.

A release is repository ``NAME`` and tag ``VERSION``; it has the tag ``latest`` if that was pushed.
Any other name of the layout is cut at its last ``/`` (``model/fan/1`` is tag ``1`` of
``model/fan``), and one without any is the tag ``latest`` of a repository of that name. All
repositories share one store of blobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mlpack.errors import MlpackError
from mlpack.model.version import BASE
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Digest,
    InvalidContent,
    InvalidDigest,
    Node,
    Reference,
    parse,
)
from mlpack.oci.reference import InvalidReference
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import ALIASES, MODEL, RECORDS, VERSION, release_tag
from mlpack.stores.store import DOCUMENTS, documents, parts, put_bytes, read, select_image, subject

LATEST = "latest"
_BLOB = "application/octet-stream"
_UNNAMED = frozenset({"", "application/json", _BLOB})
"""Types of clients that name none; the manifest does."""

_REFERRERS = "referrers"
_OWN = ("model/", RECORDS)
"""Where a project keeps its own documents; those names never change."""

STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 416,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 413,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNSUPPORTED": 405,
}
"""HTTP status by error code (distribution-spec, *Error Codes*)."""


class ApiError(MlpackError):
    """A request that the registry refuses, by the distribution specification's error codes."""

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """The HTTP status for the code."""
        return STATUS[self.code]

    def to_json(self) -> dict[str, object]:
        """Return the body of the response."""
        return {"errors": [{"code": self.code, "message": str(self)}]}


class Catalog:
    """The names of one layout, as a registry lists them."""

    def __init__(self, layout: LayoutStore) -> None:
        self.layout = layout
        self._subjects: dict[Digest, Digest | None] = {}

    def repositories(self) -> list[str]:
        """Return every repository, in order."""
        return sorted({repository for repository, _, _ in self._named()})

    def tags(self, repository: str) -> Mapping[str, Descriptor]:
        """Return the tags of ``repository``; raise :class:`ApiError` if it has none."""
        found = {tag: target for name, tag, target in self._named() if name == repository}
        if not found:
            raise ApiError("NAME_UNKNOWN", f"there is no repository {repository!r}")
        return found

    def blob(self, digest: str) -> Descriptor:
        """Return the descriptor of the blob ``digest``, by its file."""
        found = self._held(digest)
        if found is None:
            raise ApiError("BLOB_UNKNOWN", f"there is no blob {digest}")
        return found

    def manifest(self, repository: str, reference: str) -> Descriptor:
        """Return the manifest or index at ``reference``, a tag or a digest."""
        if ":" in reference:
            held = self._held(reference)
            if held is None or held.size > MAX_DOCUMENT_BYTES:
                raise ApiError("MANIFEST_UNKNOWN", f"there is no manifest {reference}")
            return replace(held, media_type=self._media_type(held))
        tags = self.tags(repository)
        if reference not in tags:
            raise ApiError("MANIFEST_UNKNOWN", f"{repository} has no tag {reference!r}")
        return tags[reference]

    def keep(self, repository: str, reference: str, content: bytes, media_type: str) -> Descriptor:
        """Keep a pushed manifest, whose parts must exist, under a tag or its digest."""
        document = _document(content)
        stated = document.get("mediaType")
        if media_type in _UNNAMED and stated is not None:
            media_type = str(stated.value)
        if media_type not in DOCUMENTS:
            raise ApiError("MANIFEST_INVALID", f"{media_type!r} is not kept as a manifest")
        if stated is not None and stated.value != media_type:
            raise ApiError("MANIFEST_INVALID", "Content-Type and mediaType disagree")
        target = Descriptor.of(content, media_type)
        self._check_parts(content, media_type)
        if ":" in reference and reference != str(target.digest):
            raise ApiError("DIGEST_INVALID", f"the manifest is {target.digest}, not {reference}")
        put_bytes(self.layout, content, media_type)
        if ":" not in reference:
            self._name(repository, reference, target)
        elif document.get("subject") is not None:
            # Only what index.json lists is found again as a referrer.
            named = self._described(target)
            self.layout.tag(named, f"{_REFERRERS}/{target.digest.hex}")
        return target

    def delete(self, repository: str, reference: str) -> None:
        """Delete a tag, or with a digest all its tags and the manifest, unless others name it.

        A release's record is deleted with it. Layers and configs stay on disk.
        """
        target = self.manifest(repository, reference)
        tags = {tag: each for tag, each in self.tags(repository).items() if each == target}
        chosen = tags if ":" in reference else {reference: target}
        if repository.startswith(_OWN) or not chosen.keys() <= tags.keys():
            raise ApiError("DENIED", f"{repository}:{reference} cannot be deleted here")
        names = [name for tag in chosen for name in self._names_of(repository, tag, target)]
        if BASE in names:
            raise ApiError("DENIED", "the project's base cannot be deleted here")
        self.layout.untag(*names)
        if ":" in reference:
            self._drop_document(target)

    def _names_of(self, repository: str, tag: str, target: Descriptor) -> Iterator[str]:
        """Yield the layout's names for this tag; for a release also its record's."""
        release = release_tag(repository, tag)
        for name, each in self.layout.tags().items():
            ours = {f"{repository}/{tag}", *([repository] if tag == LATEST else [])}
            own = each.annotations.get(MODEL) == repository and each.annotations.get(VERSION) == tag
            if each == target and (name in ours or (own and name == release)):
                yield name
                if own:
                    yield f"{RECORDS}{repository}/{tag}"

    def _drop_document(self, target: Descriptor) -> None:
        """Delete a manifest that no name and no named index leads to."""
        for entry in self.layout.entries():
            if target.digest in {each.digest for each in documents(self.layout, entry)}:
                return
        self._subjects.pop(target.digest, None)
        self.layout.path(target).unlink(missing_ok=True)

    def subject(self, target: Descriptor) -> Digest | None:
        """Return the digest of what the manifest ``target`` refers to, if anything."""
        if target.digest not in self._subjects:
            self._subjects[target.digest] = subject(self.layout, target)
        return self._subjects[target.digest]

    def referrers(self, digest: str) -> Iterator[Descriptor]:
        """Yield the manifests whose subject is ``digest``, each once."""
        referred = check_digest(digest)
        named = {each.digest: each for each in self.layout.entries()}
        for target in named.values():
            if target.media_type in DOCUMENTS and self.subject(target) == referred:
                yield self._described(target)

    def _described(self, target: Descriptor) -> Descriptor:
        """``target`` with its artifact type and annotations (distribution-spec, *Referrers*)."""
        manifest = parse(read(self.layout, target), "manifest")
        config, annotations = manifest.get("config"), manifest.get("annotations")
        # An index has no config, and then no type.
        kind = manifest.get("artifactType") or (config.need("mediaType") if config else None)
        return replace(
            target,
            artifact_type=kind.text() if kind else "",
            annotations=annotations.text_map() if annotations else {},
            platform=None,
        )

    def _named(self) -> Iterator[tuple[str, str, Descriptor]]:
        """Yield repository, tag and target of every name; releases last, so that they win."""
        releases = []
        for name, target in self.layout.tags().items():
            labels = target.annotations
            repository, _, tag = name.rpartition("/")
            if MODEL in labels and VERSION in labels:
                releases.append((labels[MODEL], labels[VERSION], target))
            elif repository != _REFERRERS and not name.startswith(ALIASES):
                yield (repository, tag, target) if repository else (name, LATEST, target)
        yield from releases

    def _name(self, repository: str, tag: str, target: Descriptor) -> None:
        pushed = f"{repository}/{tag}"
        held = {(name, tag): each for name, tag, each in self._named()}.get((repository, tag))
        own = pushed not in self.layout.tags() or pushed.startswith(_OWN)
        if held == target:
            return
        if held is not None and own:
            raise ApiError("DENIED", f"{repository}:{tag} is this project's own and cannot change")
        if repository == _REFERRERS or pushed.startswith(ALIASES):
            raise ApiError("NAME_INVALID", f"{repository!r} is reserved for this registry")
        name = release_tag(repository, tag)
        if self._is_release(repository, tag, target) and name not in self.layout.tags():
            labels = {MODEL: repository, VERSION: tag}
            self.layout.tag(replace(target, annotations=labels), name)
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
        target = Descriptor(_BLOB, check_digest(digest), 0)
        path = self.layout.path(target)
        return replace(target, size=path.stat().st_size) if path.is_file() else None

    def _media_type(self, target: Descriptor) -> str:
        try:
            document = parse(read(self.layout, target), str(target.digest))
        except InvalidContent as error:
            raise ApiError("MANIFEST_UNKNOWN", f"{target.digest} is not a manifest") from error
        stated = document.get("mediaType")
        if stated is None:
            # OCI 1.0 documents may omit their type.
            return media.INDEX if document.get("manifests") else media.MANIFEST
        if stated.value not in DOCUMENTS:
            raise ApiError("MANIFEST_UNKNOWN", f"{target.digest} is not a manifest")
        return stated.text()

    def _check_parts(self, content: bytes, media_type: str) -> None:
        """Raise :class:`ApiError` unless everything that a manifest points at exists."""
        try:
            listed = parts(content, media_type)
        except InvalidContent as error:
            raise ApiError("MANIFEST_INVALID", str(error)) from error
        for part in listed:
            if not self.layout.exists(part):
                raise ApiError("MANIFEST_BLOB_UNKNOWN", f"{part.digest} was not pushed before")


def check_repository(text: str) -> str:
    """Return ``text`` if it is a valid repository name; raise :class:`ApiError`."""
    try:
        return Reference.parse(f"localhost/{text}").repository
    except InvalidReference as error:
        raise ApiError("NAME_INVALID", f"{text!r} is not a repository name") from error


def check_tag(repository: str, text: str) -> str:
    """Return ``text`` if it is a valid tag or digest; raise :class:`ApiError`."""
    if ":" in text:
        return str(check_digest(text))
    try:
        return Reference.parse(f"localhost/{repository}:{text}").tag
    except InvalidReference as error:
        raise ApiError("MANIFEST_INVALID", f"{text!r} is not a tag") from error


def check_digest(text: str) -> Digest:
    """Parse a digest; raise :class:`ApiError`."""
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise ApiError("DIGEST_INVALID", str(error)) from error


def _document(content: bytes) -> Node:
    try:
        return parse(content, "manifest")
    except InvalidContent as error:
        raise ApiError("MANIFEST_INVALID", str(error)) from error
